"""Balancing of many two-way tables at once: for enumeration, Monte-Carlo and the bootstrap.

All tables share their targets and the number of half-steps. They are worked through in blocks of 2 MB, small enough
for the processor's cache, with one scaling vector per axis and table; the blocks are shared among the cores.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks

_BLOCK_BYTES = 1 << 21
_SMALL_TABLE = 256


@dataclass(frozen=True, eq=False)
class BalancedBatch:
    """Result of `balance_many`: scaling vectors, from which the tables are made when asked for.

    Attributes
    ----------
    start : ndarray, shape (B, m, l)
        The tables that were given, not copied.
    scalings : tuple of two ndarray, shapes (B, m) and (B, l)
        A balanced table is ``start[b] * outer(scalings[0][b], scalings[1][b])``.
    complete : ndarray of bool, shape (B,)
        False off the event S.
    """

    start: NDArray = field(repr=False)
    scalings: tuple[NDArray[np.float64], NDArray[np.float64]] = field(repr=False)
    complete: NDArray[np.bool_] = field(repr=False)

    @property
    def tables(self) -> NDArray[np.float64]:
        """The balanced tables, shape (B, m, l), each of total mass 1; made anew at each call."""
        out = np.empty(self.start.shape)

        def work(block: slice) -> None:
            np.multiply(self.start[block], self.scalings[0][block, :, None], out=out[block])
            out[block] *= self.scalings[1][block, None, :]

        _for_blocks(work, self.start)
        return out


class BatchMeans(NamedTuple):
    """Result of `balanced_means`."""

    values: NDArray[np.float64]
    complete: NDArray[np.bool_]


def balance_many(tables: ArrayLike, targets: Sequence[ArrayLike], *, steps: int, first: int = 0) -> BalancedBatch:
    r"""Balance every table of a batch for a fixed number of half-steps.

    Where a table has an empty row or column (the complement of the event S of the paper) balancing is not
    defined: its normalized table is returned as it is, and flagged.

    Parameters
    ----------
    tables : array_like, shape (B, m, l)
        Counts or masses >= 0, none of the tables all zero. Not modified.
    targets : two array_likes, shapes (m,) and (l,)
        Positive masses with a common total, which is normalized to 1.
    steps : int
        Number of half-steps, >= 0.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.

    Returns
    -------
    BalancedBatch
        Scaling vectors of each table, ``tables`` (B, m, l) on demand, and ``complete`` (B,), False off the event S.

    Raises
    ------
    ValueError
        If an entry is negative or not finite, a table or a target entry is zero, or a shape does not fit.

    See Also
    --------
    balance.projections.data_balance : one table, any number of axes, to a tolerance.

    Examples
    --------
    >>> result = balance_many([[[1, 1], [1, 3]], [[2, 0], [2, 0]]], ([0.5, 0.5], [0.5, 0.5]), steps=1)
    >>> result.tables.tolist()
    [[[0.25, 0.25], [0.125, 0.375]], [[0.5, 0.0], [0.5, 0.0]]]
    >>> result.complete.tolist()
    [True, False]
    """
    tables, targets, first = _validated(tables, targets, steps, first)
    found = np.empty(tables.shape[:2]), np.empty(tables.shape[::2])
    complete = np.empty(len(tables), dtype=bool)

    def work(block: slice) -> None:
        kernel, scalings, sums, totals = _start(tables, block, first)
        complete[block] = _steps(kernel, scalings, sums, targets, steps, first)
        kept = np.flatnonzero(~complete[block] | (steps == 0))
        scalings[0][kept], scalings[1][kept] = 1 / totals[kept, None], 1
        found[0][block], found[1][block] = scalings

    _for_blocks(work, tables)
    return BalancedBatch(tables, found, complete)


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
        Positive masses with a common total, which is normalized to 1.
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
    tables, targets, first = _validated(tables, targets, steps, first)
    h = checks.as_values(h, tables.shape[1:], "h")
    values = np.empty((len(tables), steps + 1))
    complete = np.empty(len(tables), dtype=bool)

    def work(block: slice) -> None:
        kernel, scalings, sums, totals = _start(tables, block, first)
        weighted = kernel * h
        out = values[block]
        out[:, 0] = weighted.sum(axis=(1, 2)) / totals
        inner = np.empty(scalings[0].shape)

        def record(k: int) -> None:
            out[:, k] = (scalings[0] * _contract(weighted, scalings[1], 0, inner)).sum(axis=1)

        complete[block] = _steps(kernel, scalings, sums, targets, steps, first, record)
        out[~complete[block], 1:] = out[~complete[block], :1]

    _for_blocks(work, tables)
    return BatchMeans(values, complete)


def _validated(tables, targets, steps, first):
    tables = np.asarray(tables)
    if tables.ndim != 3:
        raise ValueError(f"tables has {tables.ndim} axes: pass one batch of shape (B, m, l)")
    if tables.dtype.kind not in "biuf":
        raise ValueError(f"tables has dtype {tables.dtype}: pass real numbers")
    first = checks.check_axis(first, 2, "first")
    checks.check_count(steps, "steps")
    targets = checks.as_targets(targets, [np.ones(n) for n in tables.shape[1:]])
    for a, target in enumerate(targets):
        if not target.all():
            i = int(np.argmin(target))
            raise ValueError(f"targets[{a}][{i}] is 0: leave that value out of the tables")
    return tables, targets, first


def _for_blocks(work: Callable[[slice], None], tables: NDArray) -> None:
    size = max(1, _BLOCK_BYTES // (8 * max(1, tables[0].size if len(tables) else 1)))
    blocks = [slice(i, i + size) for i in range(0, len(tables), size)]
    if len(blocks) == 1:
        work(blocks[0])
    elif blocks:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, blocks))


def _start(tables, block, first):
    """Return (tables as floats, scalings of ones, marginals with those of the first axis set, totals)."""
    kernel = tables[block].astype(np.float64, copy=False)
    scalings = [np.ones((len(kernel), size)) for size in kernel.shape[1:]]
    sums = [np.empty(scaling.shape) for scaling in scalings]
    totals = _contract(kernel, scalings[1 - first], first, sums[first]).sum(axis=1)
    if not (np.isfinite(totals).all() and kernel.min() >= 0 and totals.all()):
        for wrong, what in (
            (~np.isfinite(totals), "has an entry that is not finite"),
            (kernel.min(axis=(1, 2)) < 0, "has a negative entry"),
            (totals == 0, "has no mass"),
        ):
            if wrong.any():
                raise ValueError(f"tables[{block.start + int(np.argmax(wrong))}] {what}")
    return kernel, scalings, sums, totals


def _contract(kernel, scaling, axis, out):
    """Write to `out` the sums of each table on an axis, weighted by its scaling vector on the other one."""
    if kernel.shape[1] * kernel.shape[2] <= _SMALL_TABLE:
        return np.einsum("bxy,by->bx" if axis == 0 else "bxy,bx->by", kernel, scaling, out=out)
    if axis == 0:
        np.matmul(kernel, scaling[:, :, None], out=out[:, :, None])
    else:
        np.matmul(scaling[:, None, :], kernel, out=out[:, None, :])
    return out


def _steps(kernel, scalings, sums, targets, steps, first, record=None):
    """Do the half-steps on `scalings`; return which tables have no empty row or column.

    Of the others the scalings become infinite or nan. With fewer than two half-steps the marginals are looked at
    all the same.
    """
    complete = np.ones(len(kernel), dtype=bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for k in range(1, max(steps, 2) + 1):
            axis = (first + k - 1) % 2
            if k > 1:
                _contract(kernel, scalings[1 - axis], axis, sums[axis])
            if k <= 2:
                complete &= sums[axis].min(axis=1) > 0
            if k <= steps:
                np.divide(targets[axis], sums[axis], out=scalings[axis])
                if record:
                    record(k)
    return complete
