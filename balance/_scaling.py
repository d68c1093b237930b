"""The iteration of `balance.projections.data_balance`, whatever holds the masses.

The masses are never rewritten. Each axis keeps a scaling vector, and a half-step replaces one of them by target /
(marginal of the masses scaled by all the others): one contraction. Scalings that grow large or small are absorbed
into the masses. `_dense` and `_sparse` say how masses of their kind are contracted.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_CHECK_EVERY = 100
_RANGE = 1e100
_STALLED = 1e-9
_ROUNDING = 1e-12

Vectors = Sequence[NDArray[np.float64]]


class Masses(ABC):
    """Normalized masses of one kind: their values and where they stand.

    Attributes
    ----------
    values : ndarray
        The masses, in an order of the kind's own.
    shape : tuple of int
        Number of values of each axis.
    """

    def __init__(self, values: NDArray[np.float64], shape: tuple[int, ...]):
        self.values, self.shape = values, shape

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @abstractmethod
    def contract(self, values: NDArray[np.float64], scalings: Vectors, axis: int) -> NDArray[np.float64]:
        """Return the marginal on `axis` of such values scaled along every other axis."""

    @abstractmethod
    def spread(self, scalings: Vectors) -> NDArray[np.float64]:
        """Return the product of the scalings at each of the values."""

    @abstractmethod
    def support(self) -> tuple[NDArray[np.intp], ...]:
        """Return the coordinates of the positive values, one array per axis."""

    @abstractmethod
    def wrap(self, values: NDArray[np.float64]):
        """Return values of this kind in the form in which the user passed them."""

    def sums(self, axis: int) -> NDArray[np.float64]:
        """Return the marginal on `axis`."""
        return self.contract(self.values, [np.ones(n) for n in self.shape], axis)


class Scaling:
    """The running state `start * outer(exp(potentials))`."""

    def __init__(self, start: Masses, sums: Vectors, targets: Vectors):
        self.start, self.sums, self.targets = start, list(sums), targets
        self.values = start.values
        self.scalings = [np.ones(n) for n in start.shape]
        self.absorbed = [np.zeros(n) for n in start.shape]

    def marginals(self):
        return [u * w for u, w in zip(self.scalings, self.sums, strict=True)]

    def errors(self):
        """Return the total variation distance of each marginal from its target."""
        return [0.5 * np.abs(p - t).sum() for p, t in zip(self.marginals(), self.targets, strict=True)]

    def stranded(self, axis):
        """Return whether a value with positive target mass has none left on `axis`."""
        return bool(np.any((self.targets[axis] > 0) & (self.sums[axis] == 0)))

    def step(self, axis):
        """Match the marginal on `axis`: one information projection."""
        self.scalings[axis] = safe_divide(self.targets[axis], self.sums[axis])
        positive = self.scalings[axis][self.scalings[axis] > 0]
        if positive.max() > _RANGE or positive.min() < 1 / _RANGE:
            self.values, self.absorbed = self.current(), list(self.potentials())
            self.scalings = [np.ones(n) for n in self.start.shape]
            self.sums[axis] = self.start.contract(self.values, self.scalings, axis)
        for other in range(self.start.ndim):
            if other != axis:
                self.sums[other] = self.start.contract(self.values, self.scalings, other)

    def current(self):
        return self.values * self.start.spread(self.scalings)

    def potentials(self):
        with np.errstate(divide="ignore"):
            return tuple(a + np.log(u) for a, u in zip(self.absorbed, self.scalings, strict=True))


def safe_divide(target, current):
    """Return target / current where the target is positive, and 0 elsewhere."""
    return np.divide(target, current, out=np.zeros_like(target), where=target > 0)


def find_obstruction(support, targets, marginal, axis, slack):
    """Return (axis, values, reachable values of the other axis, excess) proving infeasibility, or None.

    A set A of rows is an obstruction when its target mass exceeds that of all columns in which its cells
    lie. In the limit of an infeasible problem, the rows whose factor target / marginal is largest form one:
    the sets tried are the first rows in that order, and `reached` says how many a column needs.
    """
    size, other = len(targets[axis]), targets[1 - axis]
    with np.errstate(divide="ignore"):
        order = np.argsort(-safe_divide(targets[axis], marginal), kind="stable")
    reached = np.full(len(other), size)
    np.minimum.at(reached, support[1 - axis], np.argsort(order)[support[axis]])
    reachable = np.bincount(reached, other, minlength=size + 1)[:size]
    excess = np.cumsum(targets[axis][order]) - np.cumsum(reachable)
    worst = int(np.argmax(excess))
    if excess[worst] <= slack:
        return None
    return axis, np.sort(order[: worst + 1]), np.flatnonzero(reached <= worst), float(excess[worst])


def run(start: Masses, sums: Vectors, targets: Vectors, steps, tol, max_steps, first, keep_iterates):
    """Return (state, history, values of the iterates, reason, obstruction); `sums` are the marginals of `start`."""
    state = Scaling(start, sums, targets)
    history = [state.errors()]
    iterates = [start.values]
    axis, reason = first, None
    while reason is None:
        done = len(history) - 1
        checkpoint = steps is None and done > 0 and done % _CHECK_EVERY == 0
        if steps is None and max(history[-1]) <= tol:
            reason = "tolerance"
        elif checkpoint and obstruction(state, axis, tol):
            reason = "infeasible"
        elif checkpoint and stalled(history):
            reason = "stagnation"
        elif done == (max_steps if steps is None else steps):
            reason = "max_steps" if steps is None else "steps"
        elif state.stranded(axis):
            reason = "infeasible" if obstruction(state, axis, tol) else "underflow"
        else:
            state.step(axis)
            history.append(state.errors())
            if keep_iterates:
                iterates.append(state.current())
            axis = (axis + 1) % start.ndim
    proof = None if reason == "tolerance" else obstruction(state, axis, tol)
    if proof and reason == "max_steps":
        reason = "infeasible"
    return state, history, iterates, reason, proof


def obstruction(state: Scaling, axis, tol):
    """Return a proof that the problem is infeasible if the state shows one on the axis due next."""
    if state.start.ndim != 2:
        return None
    slack = _ROUNDING if tol is None else max(tol, _ROUNDING)
    return find_obstruction(state.start.support(), state.targets, state.marginals()[axis], axis, slack)


def stalled(history):
    """Return whether the worst error of the last block of steps fell by less than one part in 10^9."""
    if len(history) <= 2 * _CHECK_EVERY:
        return False
    worst = np.max(history[-2 * _CHECK_EVERY :], axis=1)
    before, after = worst[:_CHECK_EVERY].min(), worst[_CHECK_EVERY:].min()
    return after > (1 - _STALLED) * before
