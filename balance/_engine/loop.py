"""The one iteration of the package, whatever holds the masses.

Masses are never rewritten. Each axis keeps a scaling vector, and a half-step on an axis replaces its vector by

    target / (sums of the masses scaled along all other axes),

which is the information projection on the tables with that marginal (Theorem 2.2 of the book). An exponent less than 1
damps it (soft balancing, chapter 6), one greater than 1 over-relaxes it.
"""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from balance._engine.masses import NEVER, WIDEST, Masses, log_scalings

_ALL = slice(None)

Targets = Sequence[NDArray[np.float64] | None]
S = TypeVar("S", bound="Running")


class Running(Protocol):
    """What a run asks of a state, of arrays or of tensors."""

    stranded: tuple[int, NDArray[np.bool_]] | None

    @property
    def targets(self) -> Sequence[Any | None]: ...

    @property
    def powers(self) -> list[NDArray[np.int64]] | None: ...

    def step(self, axis: int, exponent: float = ..., accumulate: bool = ...) -> None: ...

    def errors(self, exponent: float | None = ...) -> list[NDArray[np.float64]]: ...

    def error(self, axis: int) -> NDArray[np.float64]: ...

    def saved(self) -> tuple: ...

    def restore(self, saved: tuple) -> None: ...

    def rounding(self) -> float: ...

    def in_numpy(self) -> "State | None": ...

    def table(self) -> Any: ...


class State:
    """A running state: ``masses * outer(scalings) * 2**outer(powers)``.

    Parameters
    ----------
    masses : Masses
        Kept as they are.
    targets : sequence of ndarray, shape (n,) or (*stack, n), or None
        Masses with total 1, one vector per axis; None leaves the axis free.
    sums : list of ndarray, optional
        The sums of the masses on each axis, if they are known.
    """

    def __init__(self, masses: Masses, targets: Targets, sums: list[NDArray] | None = None):
        self.masses, self.targets = masses, tuple(targets)
        self.values = masses.values
        self.scalings = [np.ones((*masses.stack, n)) for n in masses.shape]
        # the zeroth iterate is the normalized table
        self.scalings[0] /= masses.total
        self.powers: list[NDArray[np.int64]] | None = None
        self._positive = [t is None or bool((t > 0).all()) for t in self.targets]
        start = masses.starting_sums() if sums is None else sums
        self._sums: list[NDArray | None] = [start[0], *(s / masses.total for s in start[1:])]
        self._ahead: tuple[int, float, NDArray, NDArray] | None = None
        self._matched: int | None = None
        # values with a target that no scaling can give any mass, as (axis, mask): a proof that there is no solution
        self.stranded: tuple[int, NDArray[np.bool_]] | None = None

    def sums(self, axis: int, exponent: float | None = None) -> NDArray[np.float64]:
        """Return the sums on an axis of the masses scaled along the others.

        With the exponent of a half-step that is likely to follow, a kind may compute that of the next axis with it.
        """
        known = self._sums[axis]
        if known is not None:
            return known
        if exponent is not None:
            found = self.masses.ahead(self.values, self.scalings, axis, self._rule(axis, exponent))
            if found is not None:
                sums, *rest = found
                self._sums[axis], self._ahead = sums, (axis, exponent, *rest)
                return sums
        self._sums[axis] = sums = self.masses.contract(self.values, self.scalings, axis)
        return sums

    def _all_sums(self) -> list[NDArray[np.float64]]:
        missing = [a for a, s in enumerate(self._sums) if s is None]
        if len(missing) > 1:
            found = self.masses.contract_each(self.values, self.scalings, missing)
            for a, s in zip(missing, found, strict=True):
                self._sums[a] = s
        return [self.sums(a) for a in range(self.masses.ndim)]

    def marginals(self) -> list[NDArray[np.float64]]:
        """Return the marginals of the current table."""
        return [u * s for u, s in zip(self.scalings, self._all_sums(), strict=True)]

    def errors(self, exponent: float | None = None) -> list[NDArray[np.float64]]:
        """Return the total variation distance of each marginal from its target; 0 on a free axis."""
        zero = np.zeros(self.masses.stack)
        due = [a for a, t in enumerate(self.targets) if t is not None and a != self._matched]
        if len(due) == 1:
            self.sums(due[0], exponent)
        elif due:
            self._all_sums()
        return [self.error(a) if a in due else zero for a in range(self.masses.ndim)]

    def error(self, axis: int) -> NDArray[np.float64]:
        """Return that of one axis with a target."""
        # in place: for small tables the temporaries cost more than the sums
        gap = self.scalings[axis] * self.sums(axis)
        gap -= self._target(axis)
        return 0.5 * np.add.reduce(np.abs(gap, out=gap), axis=-1)

    def _target(self, axis: int) -> NDArray[np.float64]:
        target = self.targets[axis]
        assert target is not None
        return target

    def step(self, axis: int, exponent: float = 1.0, accumulate: bool = True) -> None:
        """Do a half-step on an axis; after one that no scaling can do, `stranded` says why."""
        sums = self.sums(axis, exponent if accumulate else None)
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[:2] != (axis, exponent):
            ahead = None
        fresh = self._rule(axis, exponent, accumulate)(sums, _ALL) if ahead is None else ahead[2]
        if self._in_range(sums, fresh):
            self.scalings[axis] = fresh
        else:
            ahead, before = None, self.saved()
            self._step_by_powers(axis, exponent, accumulate)
            if self.stranded is not None:
                self.restore(before)
                return
        self._sums = [s if a == axis else None for a, s in enumerate(self._sums)]
        if ahead is not None:
            self._sums[1 - axis] = ahead[3]
        self._matched = axis if exponent == 1 else None

    def _rule(self, axis: int, exponent: float, accumulate: bool = True) -> Callable:
        """Return the function of (sums, part) that gives the new scalings of a part of an axis."""
        target, old = self._target(axis), self.scalings[axis]

        def rule(sums, part):
            goal = target[..., part]
            # 0 / 0 is 0: a value without target has no mass
            fresh = goal / sums if self._positive[axis] else safe_divide(goal, sums)
            if exponent == 1:
                return fresh
            if accumulate:
                # u (T / R)^exponent, with R the marginal of the running table
                return fresh**exponent * old[..., part] ** (1 - exponent)
            # (T / P v)^exponent, with P the normalized start: its sums are these ones over the offset
            offset = self._offset(axis)
            return (fresh * offset) ** exponent / offset

        return rule

    def _offset(self, axis: int) -> NDArray[np.float64]:
        """What the masses were multiplied with along an axis, compared with the normalized start."""
        offset = self.masses.total if axis == 0 else np.ones(1)
        return offset if self.powers is None else offset * np.exp2(self.powers[axis])

    def _in_range(self, sums, fresh) -> bool:
        # Squares summed in one call say whether an entry is too large, for a quarter of the time of a maximum:
        # of the scalings themselves, and of the sums, which are their inverses up to the target.
        limit = WIDEST**2
        flat, other = fresh.ravel(), sums.ravel()
        return bool(flat @ flat < limit and other @ other < limit)

    def _step_by_powers(self, axis: int, exponent: float, accumulate: bool) -> None:
        """Do a half-step whose sums or scalings leave the doubles: move powers of two from the scalings to the masses.

        The powers of `axis` are chosen so that the largest value on each of its values is about 1: nothing that matters
        underflows, and nothing is rounded.
        """
        masses, target = self.masses, np.broadcast_to(self._target(axis), self.scalings[axis].shape)
        powers = [np.zeros(u.shape, np.int64) for u in self.scalings] if self.powers is None else list(self.powers)
        before = powers[axis]
        for a, u in enumerate(self.scalings):
            if a != axis:
                mantissa, moved = np.frexp(u)
                self.scalings[a], powers[a] = mantissa, powers[a] + moved
        # a value whose scaling is 0 is out of the table for good
        others = [np.ones(u.shape) if a == axis else u for a, u in enumerate(self.scalings)]
        there = masses.spread(others, np.multiply) > 0
        powers[axis] = np.zeros_like(before)
        top = masses.largest(np.where(there, masses.exponents() + masses.spread(powers, np.add), NEVER), axis)
        empty = top < NEVER // 2
        if (empty & (target > 0)).any():
            self.stranded = axis, empty & (target > 0)
        powers[axis] = np.where(empty, before, -top)
        sums = self._shift(powers, there, axis)
        if exponent == 1:
            self.scalings[axis] = safe_divide(np.where(empty, 0, target), sums)
            return
        # The same rules as in `_rule`, for logarithms.
        with np.errstate(all="ignore"):
            log = np.log(safe_divide(np.where(empty, 0, target), sums))
            if accumulate:
                old = np.log(self.scalings[axis]) + np.log(2) * (before - powers[axis])
                log = np.where(target > 0, exponent * log + (1 - exponent) * old, -np.inf)
            else:
                offset = np.log(2) * powers[axis] + (np.log(masses.total) if axis == 0 else 0)
                log = exponent * (log + offset) - offset
        moved = np.where(log > -np.inf, np.rint(log / np.log(2)), 0).astype(np.int64)
        powers[axis] = powers[axis] + moved
        self.scalings[axis] = np.exp(log - np.log(2) * moved)
        self._shift(powers, there, axis)

    def _shift(self, powers: list[NDArray[np.int64]], there: NDArray[np.bool_], axis: int) -> NDArray[np.float64]:
        """Hold the masses shifted by these powers, where they are still in the table; return their sums on `axis`."""
        # out of the table a value may grow beyond the doubles, and an infinity times 0 is no number
        self.powers, self.values = powers, np.where(there, self.masses.shifted(powers), 0)
        self._sums[axis] = sums = self.masses.contract(self.values, self.scalings, axis)
        return sums

    def saved(self) -> tuple:
        """Return what `restore` takes: no vector is ever written to."""
        return list(self.scalings), self.powers and list(self.powers), self.values, list(self._sums), self._matched

    def restore(self, saved: tuple) -> None:
        """Go back to an earlier state."""
        scalings, powers, self.values, sums, self._matched = saved
        self.scalings, self.powers, self._sums, self._ahead = list(scalings), powers and list(powers), list(sums), None

    def rounding(self) -> float:
        """Return a marginal error that rounding explains: some units in the last place of a sum of so many masses."""
        tables = max(1, prod(self.masses.stack))
        terms = self.masses.values.size / tables / min(self.masses.shape)
        return 4 * float(np.finfo(np.float64).eps) * (1 + terms) ** 0.5

    def in_numpy(self) -> "State | None":
        """Return a state on arrays, for a proof of infeasibility; None for a stack."""
        return None if self.masses.stack else self

    def potentials(self) -> tuple[NDArray[np.float64], ...]:
        """Return the logarithms of the scalings of the normalized start."""
        logs = log_scalings(self.scalings, self.powers)
        logs[0] = logs[0] + np.log(self.masses.total)
        return tuple(logs)

    def table(self):
        """Return the current table in the user's form, total mass 1 if the last half-step matched a target."""
        return self.masses.scaled(self.scalings, self.powers)


def cycle_of(state: Running, first: int) -> list[int]:
    """Return the axes with a target, in the order of their half-steps."""
    ndim = len(state.targets)
    return [a % ndim for a in range(first, first + ndim) if state.targets[a % ndim] is not None]


def half_steps(
    state: S,
    first: int = 0,
    exponent: Callable[[], float] = lambda: 1.0,
    accumulate: bool = True,
) -> Iterator[S]:
    """Yield the state after 0, 1, 2, ... half-steps, on each axis with a target in turn, from `first` on.

    `exponent` is asked before each half-step. The iteration ends when the state is stranded. What divides by zero or
    overflows on the way is found out and done again by powers of two: callers silence NumPy's warnings.
    """
    axes = cycle_of(state, first)
    yield state
    while axes:
        for axis in axes:
            state.step(axis, exponent(), accumulate)
            if state.stranded is not None:
                return
            yield state


def safe_divide(target: NDArray, current: NDArray) -> NDArray[np.float64]:
    """Return target / current where the target is positive, and 0 elsewhere."""
    target, current = np.broadcast_arrays(target, current)
    return np.divide(target, current, out=np.zeros(current.shape), where=target > 0)
