"""Kernel of `balance.projections.data_balance` for dense NumPy tables with any number of axes.

The table is never rewritten. Each axis keeps a scaling vector, and a half-step replaces one of them by
target / (marginal of the table scaled by all the others): one contraction of the table, a matrix-vector
product when there are two axes. Scalings that grow large or small are absorbed into the table.
"""

import functools

import numpy as np

_CHECK_EVERY = 100
_RANGE = 1e100
_STALLED = 1e-9
_ROUNDING = 1e-12


def outer(vectors):
    """Return the array with entries `prod_a vectors[a][i_a]`."""
    return functools.reduce(np.multiply.outer, vectors)


def contract(table, scalings, axis):
    """Return the marginal on `axis` of the table scaled along every other axis."""
    for scaling in reversed(scalings[axis + 1 :]):
        table = table @ scaling
    for scaling in scalings[:axis]:
        table = np.tensordot(scaling, table, 1)
    return table


def ratio(target, current):
    """Return target / current where the target is positive, and 0 elsewhere."""
    return np.divide(target, current, out=np.zeros_like(target), where=target > 0)


class DenseScaling:
    """The running state `start * outer(exp(potentials))`."""

    def __init__(self, start, targets):
        self.table, self.targets = start, targets
        self.scalings = [np.ones(n) for n in start.shape]
        self.absorbed = [np.zeros(n) for n in start.shape]
        self.sums = [contract(start, self.scalings, a) for a in range(start.ndim)]

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
        self.scalings[axis] = ratio(self.targets[axis], self.sums[axis])
        positive = self.scalings[axis][self.scalings[axis] > 0]
        if positive.max() > _RANGE or positive.min() < 1 / _RANGE:
            self.table, self.absorbed = self.current(), list(self.potentials())
            self.scalings = [np.ones(n) for n in self.table.shape]
            self.sums[axis] = contract(self.table, self.scalings, axis)
        for other in range(self.table.ndim):
            if other != axis:
                self.sums[other] = contract(self.table, self.scalings, other)

    def current(self):
        return self.table * outer(self.scalings)

    def potentials(self):
        with np.errstate(divide="ignore"):
            return tuple(a + np.log(u) for a, u in zip(self.absorbed, self.scalings, strict=True))


def find_obstruction(support, targets, marginal, axis, slack):
    """Return (axis, values, reachable values of the other axis, excess) proving infeasibility, or None.

    A set A of rows is an obstruction when its target mass exceeds that of all columns in which its cells
    lie. In the limit of an infeasible problem, the rows whose factor target / marginal is largest form one.
    """
    support = support if axis == 0 else support.T
    with np.errstate(divide="ignore"):
        order = np.argsort(-ratio(targets[axis], marginal), kind="stable")
    reach = np.logical_or.accumulate(support[order], axis=0)
    excess = np.cumsum(targets[axis][order]) - reach @ targets[1 - axis]
    worst = int(np.argmax(excess))
    if excess[worst] <= slack:
        return None
    return axis, np.sort(order[: worst + 1]), np.flatnonzero(reach[worst]), float(excess[worst])


def run(start, targets, steps, tol, max_steps, first, keep_iterates):
    """Return (state, history, iterates, reason, obstruction)."""
    state = DenseScaling(start, targets)
    history = [state.errors()]
    iterates = [start]
    axis, reason = first, None
    while reason is None:
        done = len(history) - 1
        checkpoint = steps is None and done > 0 and done % _CHECK_EVERY == 0
        if steps is None and max(history[-1]) <= tol:
            reason = "tolerance"
        elif checkpoint and obstruction(start, state, axis, tol):
            reason = "infeasible"
        elif checkpoint and stalled(history):
            reason = "stagnation"
        elif done == (max_steps if steps is None else steps):
            reason = "max_steps" if steps is None else "steps"
        elif state.stranded(axis):
            reason = "infeasible" if obstruction(start, state, axis, tol) else "underflow"
        else:
            state.step(axis)
            history.append(state.errors())
            if keep_iterates:
                iterates.append(state.current())
            axis = (axis + 1) % start.ndim
    proof = None if reason == "tolerance" else obstruction(start, state, axis, tol)
    if proof and reason == "max_steps":
        reason = "infeasible"
    return state, history, iterates, reason, proof


def obstruction(start, state, axis, tol):
    """Return a proof that the problem is infeasible if the state shows one on the axis due next."""
    if start.ndim != 2:
        return None
    slack = _ROUNDING if tol is None else max(tol, _ROUNDING)
    return find_obstruction(start > 0, state.targets, state.marginals()[axis], axis, slack)


def stalled(history):
    """Return whether the worst error of the last block of steps fell by less than one part in 10^9."""
    if len(history) <= 2 * _CHECK_EVERY:
        return False
    worst = np.max(history[-2 * _CHECK_EVERY :], axis=1)
    before, after = worst[:_CHECK_EVERY].min(), worst[_CHECK_EVERY:].min()
    return after > (1 - _STALLED) * before
