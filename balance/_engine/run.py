"""Running the iteration to its end: how far, and why there."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balance._engine.acceleration import Overrelaxation
from balance._engine.feasibility import Obstruction, Separation, find_obstruction
from balance._engine.loop import Running, cycle_of, half_steps

# What counts as reached when a number of half-steps was asked for.
ROUNDING = 1e-12
# First half-step after which a proof of infeasibility is looked for; then after twice as many, and so on.
_FIRST_LOOK = 100
# So many half-steps without a lower error, at an error that rounding explains, are the rounding floor.
_PATIENCE = 10


@dataclass(eq=False)
class Trace:
    """What a run leaves behind.

    Attributes
    ----------
    history : ndarray, shape (steps + 1, *stack, axes), or None
        Marginal errors; None where they were not all measured.
    steps : int
    reason : str
    iterates : list or None
    obstruction : Obstruction, Separation or None
    """

    history: NDArray[np.float64] | None
    steps: int
    reason: str
    iterates: list | None
    obstruction: Obstruction | Separation | None


@np.errstate(all="ignore")
def run(
    state: Running,
    *,
    first: int,
    steps: int | None = None,
    tol: float | None = None,
    max_steps: int = 10_000,
    keep_iterates: bool = False,
    measure: bool = True,
    accelerate: bool = True,
) -> Trace:
    """Do `steps` half-steps, or as many as `tol` needs up to `max_steps`. Changes the state.

    `measure` all errors after each half-step: with two targets they cost nothing, with more of them as many
    contractions as there are targets. Otherwise only that of the marginal that is due next is looked at, and all of
    them when it is small enough.
    """
    axes = cycle_of(state, first)
    pace = None
    start = state.saved()
    if accelerate and tol is not None and len(axes) == 2 and not keep_iterates:
        # the rate is understood for two targets; kept iterates are those of the plain iteration
        pace = Overrelaxation(tol)
    iteration = half_steps(state, first, pace or (lambda: 1.0))
    history: list[list[NDArray]] = []
    iterates: list[Any] | None = [] if keep_iterates else None
    reason, proof, look, best, best_at = None, None, _FIRST_LOOK, np.inf, 0
    before: tuple = ()
    most, done, floor = max_steps if steps is None else steps, -1, state.rounding()
    while reason is None:
        if next(iteration, None) is None:
            reason = "infeasible"
            break
        done += 1
        worst = 0.0
        if measure:
            # the exponent of the half-step to come, unless there is none
            history.append(state.errors(None if done >= most else pace.exponent if pace else 1.0))
            worst = max(map(np.max, history[-1]))
        elif tol is not None:
            worst = np.max(state.error(axes[done % len(axes)]))
            worst = max(map(np.max, state.errors())) if worst <= tol else worst
        if iterates is not None:
            iterates.append(state.table())
        if tol is None:
            reason = "steps" if done == most else None
            continue
        if worst < best:
            best, best_at = worst, done
        if worst <= tol:
            reason = "tolerance"
        elif best <= floor and done - best_at >= _PATIENCE:
            reason = "floor"
        elif done == most or (done >= look and not (pace and pace.exponent != 1)):
            look *= 2
            proof = find_obstruction(state, max(tol, ROUNDING))
            reason = "infeasible" if proof else "max_steps" if done == most else None
        elif pace and (state.powers is not None or done == most - 1):
            # the last half-step is plain, so that the table has total mass 1
            pace.stop()
        elif pace and done and done % 2 == 0:
            plain = pace.exponent == 1
            pace.observe(float(worst))
            if plain and pace.exponent != 1:
                before = state.saved()
            elif pace.failed:
                state.restore(before)
                best = np.inf
    if reason == "infeasible" and pace is not None and pace.used:
        # the limit of the plain half-steps says what can be reached instead (chapter 2)
        state.restore(start)
        state.stranded = None
        return run(state, first=first, tol=tol, max_steps=max_steps, measure=measure, accelerate=False)
    if state.stranded is not None:
        proof = find_obstruction(state, 0.0)
    errors = np.moveaxis(np.array(history), 1, -1) if measure else None
    return Trace(errors, done, reason, iterates, proof)
