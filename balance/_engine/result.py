"""The result of balancing: what it is, how it ended, and why."""

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from balance._engine.checks import check_axis
from balance._engine.feasibility import Obstruction, Separation, find_obstruction
from balance._engine.loop import State
from balance._engine.read import Problem
from balance._engine.run import ROUNDING, run
from balance._engine.stacks import Stack
from balance.records import Records, kish_size

T = TypeVar("T")

# Longer lists are cut in messages, which have at most 500 characters.
_SHOWN = 10


class ConvergenceWarning(UserWarning):
    """A tolerance was asked for and not reached."""


@dataclass(frozen=True, eq=False)
class BalanceResult(Generic[T]):
    """Result of `data_balance`.

    Attributes
    ----------
    targets : tuple of ndarray or None
        The targets, normalized, in the order of the axes; None for a free axis.
    history : ndarray, shape (steps + 1, axes), or (steps + 1, ..., axes) for a stack
        Total variation distance of each marginal from its target, before and after every half-step; 0 on a free axis.
    steps : int
        Half-steps done.
    reason : str
        Why the iteration ended: "tolerance"; "steps" (as many as asked for); "max_steps"; "infeasible" (with a proof,
        see `obstruction`); or "floor" (`tol` is below what rounding leaves of this table).
    iterates : tuple of tables or None
        The steps + 1 tables, from the normalized input on, if `keep_iterates`.
    complete : ndarray of bool or None
        For a stack: whether each value with a target was seen. Other tables keep their start, normalized.
    """

    steps: int
    reason: str
    targets: tuple[NDArray[np.float64] | None, ...] = field(repr=False)
    iterates: tuple[T, ...] | None = field(repr=False)
    complete: NDArray[np.bool_] | None = field(repr=False)
    _final: Any = field(repr=False)
    _tol: float = field(repr=False)
    _first: int = field(repr=False)
    _problem: Problem | None = field(repr=False)
    _history: NDArray[np.float64] | None = field(repr=False)
    _proof: Obstruction | Separation | None = field(repr=False)

    def __repr__(self) -> str:
        return f"BalanceResult(steps={self.steps}, converged={self.converged}, reason={self.reason!r})"

    @cached_property
    def table(self) -> T:
        """The balanced table, total mass 1, in the form in which the table was passed; of `Scores` logarithms."""
        if isinstance(self._final, State):
            self._check_unchanged()
        return self._final.table()

    @cached_property
    def converged(self) -> bool:
        """Whether every marginal error of every complete table is at most `tol` (1e-12 when `steps` was given)."""
        errors = self.errors if self.complete is None else self.errors[self.complete]
        return bool((errors <= self._tol).all())

    @property
    def potentials(self) -> tuple[NDArray[np.float64], ...]:
        """Logarithms of the scalings, one vector per axis; -inf for a value of target 0."""
        return self._final.potentials()

    @property
    def scalings(self) -> tuple[NDArray[np.float64], ...]:
        """Scaling vectors, one per axis: ``table = start * outer(scalings)``, with the normalized input as start.

        Infinite where a scaling is beyond the doubles; its potential is not.
        """
        with np.errstate(over="ignore"):
            return tuple(np.exp(p) for p in self.potentials)

    @property
    def marginals(self) -> tuple[NDArray[np.float64], ...]:
        """The marginals of the balanced table, one per axis."""
        return tuple(self._final.marginals())

    @cached_property
    def history(self) -> NDArray[np.float64]:
        if self._history is not None:
            return self._history
        if isinstance(self._final, Stack):
            return self._final.history(self.steps, self._first)
        # more than two targets: half-steps do not measure all errors; none of them was over-relaxed
        again = State(self._final.masses, self._final.targets)
        history = run(again, steps=self.steps, first=self._first).history
        assert history is not None
        return history

    @cached_property
    def errors(self) -> NDArray[np.float64]:
        """Total variation distance of each marginal of the table from its target, shape (axes,) or (..., axes)."""
        return np.asarray(self._final.errors()) if self._history is None else self._history[-1]

    @property
    def weights(self) -> Any:
        """Balanced weights of `Records`, in the total of the targets; a Series if the records have an index."""
        problem, records = self._of_records()
        table: Any = self.table
        values = table.weights * problem.total
        if records.index is None:
            return values
        import pandas as pd

        return pd.Series(values, index=records.index, name="weight")

    @property
    def effective_sample_size(self) -> float:
        r"""Of the weights of `Records`, :math:`(\sum w)^2 / \sum w^2` (Kish 1965)."""
        self._of_records()
        table: Any = self.table
        return kish_size(table.weights)

    @cached_property
    def obstruction(self) -> Obstruction | Separation | None:
        """A proof that no table with this support has these marginals, if the result shows one."""
        if self._proof is not None or self.reason == "tolerance" or not isinstance(self._final, State):
            return self._proof
        return find_obstruction(self._final, max(self._tol, ROUNDING))

    @cached_property
    def message(self) -> str:
        """The reason in a sentence, with what to do; at most 500 characters."""
        worst = float(np.max(self.errors)) if self.errors.size else 0.0
        text = {
            "tolerance": f"every marginal is within {self._tol:g} of its target after {self.steps} half-steps",
            "steps": f"{self.steps} half-steps done as asked; largest marginal error {worst:.3g}",
            "max_steps": f"largest marginal error {worst:.3g} after max_steps = {self.steps} half-steps: convergence is"
            " slow, or cells must tend to zero; raise max_steps, or accept this error",
            "floor": f"the largest marginal error stays at {worst:.3g} after {self.steps} half-steps, which rounding"
            " explains: raise tol to that",
            "infeasible": f"stopped after {self.steps} half-steps at the marginal error {worst:.3g}",
        }[self.reason]
        proof = self.obstruction
        if isinstance(proof, Separation):
            text += (
                "; no table with this support has these marginals: the functions of result.obstruction have a mean"
                f" under the targets that is {proof.gap:.3g} larger than their sum on any positive cell. Change the"
                " targets, merge values, or add mass to an empty cell"
            )
        elif proof is not None:
            if proof.reachable.size:
                where = (
                    f"the values {self._named(proof.other, proof.reachable)} of axis {proof.other}, the only ones where"
                )
                where += " they are positive"
            else:
                where = "all the values with a cell in common"
            text += (
                f"; no table with this support has these marginals: values {self._named(proof.axis, proof.values)} of"
                f" axis {proof.axis} have target mass {proof.excess:.3g} more than {where}. Change the targets"
                " (result.marginals can be reached), merge values, or add mass to an empty cell"
            )
        if self.complete is not None and not self.complete.all():
            text += (
                f"; {np.sum(~self.complete)} of {self.complete.size} tables lack a value with a target and keep their"
                " start"
            )
        return text if len(text) <= 500 else text[:499] + "…"

    def _named(self, axis: int, values: NDArray[np.intp]) -> str:
        shown = [int(v) if self._problem is None else self._problem.label(axis, int(v)) for v in values[:_SHOWN]]
        text = ", ".join(repr(v)[:20] for v in shown)
        return f"[{text}]" if len(values) <= _SHOWN else f"[{text}, ... {len(values)} in all]"

    def _of_records(self) -> tuple[Problem, Records]:
        if self._problem is None or self._problem.records is None:
            raise AttributeError("only the result of Records has weights: look at `table`")
        return self._problem, self._problem.records

    def _check_unchanged(self) -> None:
        """Raise if the array that was passed, which is not copied, has changed since."""
        masses = self._final.masses
        if masses.borrowed:
            before, now = masses.fingerprint, masses.contract(masses.values, [np.ones(n) for n in masses.shape], 0)
            if not np.allclose(before, now, rtol=1e-9, atol=0):
                raise RuntimeError("the array that was passed has changed since: ask for `table` before you change it")


def warn_unless_reached(result: BalanceResult) -> None:
    """Say aloud that a tolerance was not reached."""
    if result.reason not in ("tolerance", "steps"):
        warnings.warn(result.message, ConvergenceWarning, stacklevel=3)


def of_problem(
    problem: Problem,
    steps: int | None,
    tol: float | None,
    max_steps: int = 10_000,
    first: int = 0,
    keep_iterates: bool = False,
) -> BalanceResult:
    """Balance one table; return its result."""
    state = State(problem.masses, problem.targets, problem.sums)
    trace = run(
        state,
        first=check_axis(first, problem.masses.ndim, "first"),
        steps=steps,
        tol=tol,
        max_steps=max_steps,
        keep_iterates=keep_iterates,
        measure=keep_iterates or sum(t is not None for t in problem.targets) <= 2,
    )
    return BalanceResult(
        steps=trace.steps,
        reason=trace.reason,
        targets=tuple(problem.targets),
        iterates=None if trace.iterates is None else tuple(trace.iterates),
        complete=None,
        _final=state,
        _tol=ROUNDING if tol is None else tol,
        _first=first,
        _problem=problem,
        _history=trace.history,
        _proof=trace.obstruction,
    )


def of_stack(stack: Stack, steps: int | None, tol: float | None, max_steps: int, first: int) -> BalanceResult:
    """Balance a stack; return its result."""
    trace = None
    if tol is not None:
        trace = stack.converge(tol, max_steps, first)
    else:
        stack.balance(steps or 0, first)
    history = None
    if trace is not None and trace.history is not None:
        history = np.zeros((len(trace.history), *stack.complete.shape, trace.history.shape[-1]))
        history[:, stack.complete] = trace.history
        history = stack.with_others(history)
    limit = ROUNDING if tol is None else tol
    return BalanceResult(
        steps=trace.steps if trace else steps or 0,
        reason=trace.reason if trace else "tolerance" if steps is None else "steps",
        targets=tuple(stack.targets),
        iterates=None,
        complete=stack.complete.reshape(stack.leading),
        _final=stack,
        _tol=limit,
        _first=first,
        _problem=None,
        _history=history,
        _proof=None,
    )
