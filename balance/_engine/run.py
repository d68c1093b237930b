"""Running the iteration to its end: how far, and why there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from balance._engine.acceleration import Overrelaxation
from balance._engine.feasibility import Obstruction, find_obstruction
from balance._engine.loop import State, half_steps

# What counts as reached when a number of half-steps was asked for.
ROUNDING = 1e-12
# First half-step after which a proof of infeasibility is looked for; then after twice as many, and so on.
_FIRST_LOOK = 100
# So many half-steps without a lower error, at an error that rounding explains, are the rounding floor.
_PATIENCE = 10


@dataclass(eq=False)
class Trace:
    """What a run leaves behind: errors (half-steps + 1, *stack, axes), why it ended, iterates, proof."""

    history: NDArray[np.float64]
    reason: str
    iterates: list | None
    obstruction: Obstruction | None


def run(
    state: State, *, steps: int | None, tol: float | None, max_steps: int, first: int, keep_iterates: bool
) -> Trace:
    """Do `steps` half-steps, or as many as `tol` needs up to `max_steps`. Changes the state."""
    axes = sum(t is not None for t in state.targets)
    pace = None
    if tol is not None and axes == 2 and not keep_iterates:
        # the rate is understood for two targets; kept iterates are those of the plain iteration
        pace = Overrelaxation(tol)
    iteration = half_steps(state, first, pace or (lambda: 1.0))
    floor = state.rounding()
    history: list[list[NDArray]] = []
    iterates = [] if keep_iterates else None
    reason, proof, look, best, best_at = None, None, _FIRST_LOOK, np.inf, 0
    before: tuple = ()
    most = max_steps if steps is None else steps
    while reason is None:
        if next(iteration, None) is None:
            reason = "infeasible"
            break
        done = len(history)
        history.append(state.errors(None if done >= most else pace.exponent if pace else 1.0))
        if iterates is not None:
            iterates.append(state.table())
        if tol is None:
            reason = "steps" if done == most else None
            continue
        worst = float(np.max(history[-1]))
        if worst < best:
            best, best_at = worst, done
        if worst <= tol:
            reason = "tolerance"
        elif best <= floor and done - best_at >= _PATIENCE:
            reason = "floor"
        elif done == most or done == look:
            look *= 2
            proof = find_obstruction(state, max(tol, ROUNDING))
            reason = "infeasible" if proof else "max_steps" if done == most else None
        elif pace and state.powers is not None:
            pace.stop()
        elif pace and done and done % 2 == 0:
            plain = pace.exponent == 1
            pace.observe(worst)
            if plain and pace.exponent != 1:
                before = state.saved()
            elif pace.failed:
                state.restore(before)
                best = np.inf
    if state.stranded is not None:
        proof = find_obstruction(state, 0.0)
    errors = np.moveaxis(np.array(history), 1, -1)
    return Trace(errors, reason, iterates, proof)
