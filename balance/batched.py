"""Balancing of many two-way tables at once: for enumeration, Monte-Carlo and the bootstrap."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance._engine.numbers import as_array
from balance._engine.stacks import Stack
from balance.projections import BalanceResult, data_balance


class BatchMeans(NamedTuple):
    """Result of `balanced_means`."""

    values: NDArray[np.float64]
    complete: NDArray[np.bool_]


def balance_many(
    tables: ArrayLike, targets: Sequence[ArrayLike], *, steps: int, first: int = 0
) -> BalanceResult[NDArray[np.float64]]:
    r"""Balance every table of a batch for a fixed number of half-steps.

    Where a table has an empty row or column (the complement of the event S of the paper) balancing is not
    defined: its normalized table is returned as it is, and flagged.

    Parameters
    ----------
    tables : array_like, shape (B, m, l)
        Counts or masses >= 0, none of the tables all zero. Not modified.
    targets : two array_likes, shapes (m,) and (l,)
        Masses >= 0 with a common total, which is normalized to 1.
    steps : int
        Number of half-steps, >= 0.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.

    Returns
    -------
    BalanceResult
        ``table`` (B, m, l) on demand, and ``complete`` (B,), False off the event S.

    Raises
    ------
    ValueError
        If an entry is negative or not finite, a table has no mass, or a shape does not fit.

    See Also
    --------
    balance.projections.data_balance : one table, any number of axes, to a tolerance.

    Examples
    --------
    >>> result = balance_many([[[1, 1], [1, 3]], [[2, 0], [2, 0]]], ([0.5, 0.5], [0.5, 0.5]), steps=1)
    >>> result.table.tolist()
    [[[0.25, 0.25], [0.125, 0.375]], [[0.5, 0.0], [0.5, 0.0]]]
    >>> result.complete.tolist()
    [True, False]
    """
    return data_balance(_batch(tables), targets, steps=checks.check_count(steps, "steps"), first=first)


def balanced_means(
    tables: ArrayLike, h: ArrayLike, targets: Sequence[ArrayLike], *, steps: int, first: int = 0
) -> BatchMeans:
    r"""Balanced estimates :math:`P_n^{(k)}(h)` of every table of a batch, for each k up to `steps`.

    This is the estimator of the paper: off the event S, that every row and every column was seen, it is
    :math:`P_n(h)` for each k.

    Parameters
    ----------
    tables : array_like, shape (B, m, l)
        Counts or masses >= 0, none of the tables all zero. Not modified.
    h : array_like, shape (m, l)
        Values of the test function, finite.
    targets : two array_likes, shapes (m,) and (l,)
        Masses >= 0 with a common total, which is normalized to 1.
    steps : int
        The largest number of half-steps, >= 0.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.

    Returns
    -------
    BatchMeans
        ``values`` (B, steps + 1), column k after k half-steps, and ``complete`` (B,), False off the event S.

    Raises
    ------
    ValueError
        As `balance_many`, or if h does not fit the tables.

    Examples
    --------
    >>> means = balanced_means([[[1, 1], [1, 3]]], [[1, 0], [0, 1]], ([0.5, 0.5], [0.5, 0.5]), steps=2)
    >>> means.values.round(4).tolist()
    [[0.6667, 0.625, 0.6333]]
    """
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    stack = Stack(_batch(tables), targets)
    h = checks.as_values(h, stack.shape, "h")
    values = np.empty((len(stack.tables), steps + 1))

    weighted: dict[int, NDArray] = {}

    def visit(block, kept, k, state):
        # the sum over all cells of u (h P) v is one more contraction, that of h P
        if k == 0:
            weighted[block.start] = state.masses.values * h
        times_h = weighted[block.start] if state.powers is None else state.values * h
        sums = state.masses.contract(times_h, state.scalings, 0)
        values[block, k][kept] = np.einsum("bx,bx->b", state.scalings[0], sums)
        if k == steps:
            del weighted[block.start]

    stack.balance(steps, first, visit=visit)
    off = np.flatnonzero(~stack.complete)
    values[off] = ((stack.tables[off] * h).sum(axis=(1, 2)) * stack.scalings[0][off, 0])[:, None]
    return BatchMeans(values, stack.complete)


def _batch(tables):
    array = as_array(tables, "table")
    if array.ndim != 3:
        raise ValueError(f"table has {array.ndim} axes: pass one batch of shape (B, m, l)")
    return array
