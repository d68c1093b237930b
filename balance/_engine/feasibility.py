"""Proofs that no table with a given support has given marginals."""

from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from balance._engine.loop import Running, State, safe_divide
from balance._engine.masses import NEVER

_CLEAR = 1e-6


@dataclass(frozen=True, eq=False)
class Separation:
    """Functions of the axes whose mean under the targets is larger than their sum can be on a positive cell.

    For a table Q with these marginals the sum of the means would be the mean of the sum under Q. Cells of a value with
    target 0 do not count, since Q has no mass there.

    Attributes
    ----------
    functions : tuple of ndarray or None, one per axis
        None on a free axis.
    gap : float
        Sum of the means minus the largest sum on a positive cell, > 0.
    """

    functions: tuple[NDArray[np.float64] | None, ...]
    gap: float


@dataclass(frozen=True, eq=False)
class Obstruction:
    """Values of one axis that need more mass than the values of another axis can give them.

    Attributes
    ----------
    axis : int
    values : ndarray of int
        Values of this axis.
    other : int
        Another axis.
    reachable : ndarray of int
        The values of the other axis with a positive target in which they have a cell.
    excess : float
        Target mass of `values` minus that of `reachable`, > 0.
    """

    axis: int
    values: NDArray[np.intp]
    other: int
    reachable: NDArray[np.intp]
    excess: float


def find_obstruction(running: Running, slack: float) -> Obstruction | Separation | None:
    """Return a proof of infeasibility that the state shows, or None. Of a stack none is looked for.

    A set A of values is an obstruction when its target mass exceeds that of all values of another axis in which its
    cells lie. In the limit of an infeasible problem with two targets, the values whose factor target / marginal is
    largest form one, so that the sets tried are the first values in that order; `reached` says how many of them a value
    of the other axis needs. With more targets it need not exist for any pair of axes. Then the potentials, which grow
    without bound, become functions that separate the targets from all tables with this support.
    """
    state = running.in_numpy()
    if state is None:
        return None
    masses, targets = state.masses, {a: t for a, t in enumerate(state.targets) if t is not None}
    with np.errstate(all="ignore"):
        live = masses.spread([(u > 0).astype(np.int8) for u in state.scalings], np.multiply) > 0
        live &= masses.exponents() > NEVER
        if masses.every_cell and live.all() and state.stranded is None:
            # a positive table has a solution for all positive targets
            return None
        marginals = state.marginals()
        constrained = list(targets)
        for axis, other in permutations(constrained, 2):
            factor = safe_divide(targets[axis], marginals[axis])
            order = np.argsort(-factor, kind="stable")
            place = np.zeros(len(order), np.int64)
            place[order] = np.arange(len(order))
            places = [place if a == axis else np.zeros(n, np.int64) for a, n in enumerate(masses.shape)]
            reached = -masses.largest(np.where(live, -masses.spread(places, np.add), NEVER), other)
            reached = np.minimum(reached, len(order))
            reachable = np.bincount(reached, targets[other], minlength=len(order) + 1)[:-1]
            excess = np.cumsum(targets[axis][order]) - np.cumsum(reachable)
            worst = int(np.argmax(excess))
            if excess[worst] > slack:
                values, meets = np.sort(order[: worst + 1]), np.flatnonzero(reached <= worst)
                return Obstruction(axis, values, other, meets, float(excess[worst]))
    if state.stranded is not None:
        axis, mask = state.stranded
        values = np.flatnonzero(mask)
        other = next(a for a in constrained if a != axis)
        return Obstruction(axis, values, other, np.empty(0, np.intp), float(targets[axis][values].sum()))
    return _separation(state, live) if len(constrained) > 2 else None


def _separation(state: State, live: NDArray[np.bool_]) -> Separation | None:
    """Return the potentials as a proof if they are one."""
    potentials = [
        None if t is None else np.where(t > 0, f, 0) for t, f in zip(state.targets, state.potentials(), strict=True)
    ]
    filled = [np.zeros(n) if f is None else f for f, n in zip(potentials, state.masses.shape, strict=True)]
    largest = np.where(live, state.masses.spread(filled, np.add), -np.inf).max()
    means = sum(float(t @ f) for t, f in zip(state.targets, filled, strict=True) if t is not None)
    size = max(float(np.abs(f).max()) for f in filled)
    gap = means - float(largest)
    # far beyond the rounding of sums of such potentials
    return Separation(tuple(potentials), gap) if gap > _CLEAR * size else None
