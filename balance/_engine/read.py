"""From what a user passes to masses and targets: the one place where a kind of table is chosen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from balance._engine.checks import check_kept, check_masses
from balance._engine.dense import Dense, DenseLogs
from balance._engine.masses import Masses
from balance._engine.numbers import as_array, as_doubles, entry, is_frame, is_series
from balance._engine.records import Aggregated, RecordMasses
from balance._engine.sparse import Sparse
from balance._engine.targets import Goal, as_goals, as_sequence, check_distinct, check_reachable, normalized
from balance.records import Column, Records
from balance.scores import Scores

# Totals beyond this, on either side, are brought to the middle of the doubles by a power of two.
_TOTAL = 1e100
# A code beyond this on an axis without target is an identifier rather than a code: its marginal would fill the memory.
_MOST_VALUES = 10**8

# masses, their sums on each axis, and the labels of each axis
_Read = tuple[Masses, list[NDArray[np.float64]], Sequence[list | None]]


@dataclass(eq=False)
class Problem:
    """Masses and normalized targets of one table.

    Attributes
    ----------
    masses : Masses
    targets : list of ndarray or None
        One for each axis, total 1; empty if none were asked for.
    sums : list of ndarray
        Of the masses, on each axis.
    total : float
        That of the targets, as they were passed.
    records : Records or None
        The records that were passed.
    """

    masses: Masses
    sums: list[NDArray[np.float64]]
    targets: list[NDArray[np.float64] | None] = field(default_factory=list)
    total: float = 1.0
    records: Records | None = None
    labels: Sequence[list | None] = field(default_factory=list)
    codes: tuple[NDArray[np.intp], ...] = ()

    def label(self, axis: int, value: int) -> Any:
        """Return what a value of an axis is called."""
        known = self.labels[axis] if self.labels else None
        return value if known is None else known[value]


def read(table: Any, targets: Any = None, *, may_miss: bool = False) -> Problem:
    """Return the problem; without targets the masses alone. `may_miss`: values without mass may have a target."""
    if isinstance(table, Records):
        return _read_records(table, targets, may_miss)
    goals = None if targets is None else as_goals(targets)
    what = "the table"
    if is_frame(table):
        masses, sums, labels = _read_frame(table)
    elif sparse.issparse(table):
        masses, sums, labels = _read_sparse(table)
    elif isinstance(table, Scores):
        masses, sums, labels, what = *_read_logs(table.values), "the scores"
    else:
        masses, sums, labels = _read_dense(table)
    if goals is None:
        return Problem(masses, sums, labels=labels)
    if len(goals) != masses.ndim:
        raise ValueError(
            f"{len(goals)} targets for a table with {masses.ndim} axes: pass one for each, None for an axis that"
            " is free"
        )
    aligned = [None if g is None else g.aligned(labels[a], masses.shape[a], a, what) for a, g in enumerate(goals)]
    return Problem(masses, sums, _fixed(goals, aligned, sums, labels, may_miss), _total(goals), labels=labels)


def _fixed(goals, values, sums, labels, may_miss: bool) -> list[NDArray[np.float64] | None]:
    """Return the masses of each target with total 1; raise if one of them can't be placed, unless it `may_miss`."""
    vectors = [None if v is None else normalized(v) for v in values]
    for axis, (goal, vector, known) in enumerate(zip(goals, vectors, labels, strict=True)):
        if vector is not None and not may_miss:
            named = None if known is None else known.__getitem__
            check_reachable(vector, sums[axis], goal.name, axis, len(goals), named)
    return vectors


def _total(goals: list[Goal | None]) -> float:
    return float(next(g.total for g in goals if g is not None))


def _read_dense(table: Any) -> _Read:
    array = as_doubles(table, "table")
    if array.ndim < 2:
        raise ValueError(f"table has {array.ndim} axes: a table has at least 2")
    borrowed = isinstance(table, np.ndarray) and np.may_share_memory(array, table)
    masses, sums = dense(array)
    masses.borrowed, masses.fingerprint = borrowed and masses.values is array, sums[0]
    return masses, sums, [None] * masses.ndim


def dense(array: NDArray[np.float64], wrap=lambda values: values) -> tuple[Dense, list[NDArray[np.float64]]]:
    """Return the masses of a table of doubles and their sums, in one pass over its blocks."""
    if array.size == 0:
        raise ValueError(f"table has shape {array.shape}: pass at least one value on each axis")
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = np.ascontiguousarray(array)
    rows = array if array.flags.c_contiguous else array.T
    flat = rows.reshape(len(rows), -1)
    first, rest, least = np.empty(len(flat)), np.zeros(flat.shape[1]), np.inf
    step = max(1, (1 << 18) // flat.strides[0]) if flat.strides[0] else 1
    ones = np.ones(flat.shape[1])
    with np.errstate(all="ignore"):
        for begin in range(0, len(flat), step):
            block = flat[begin : begin + step]
            least = min(least, block.min())
            np.dot(block, ones, out=first[begin : begin + step])
            rest += block.sum(axis=0)
        total = first.sum()
    if not (least >= 0 and 1 / _TOTAL < total < _TOTAL):
        check_masses(array, "table")
        return dense(_centered(array, "table"), wrap)
    masses = Dense(array, array.ndim, wrap)
    masses.total = np.array([total])
    if array.ndim == 2:
        return masses, [first, rest] if rows is array else [rest, first]
    return masses, masses.starting_sums()


def _read_frame(frame: Any) -> _Read:
    labels = [list(frame.index), list(frame.columns)]
    for axis, known in enumerate(labels):
        check_distinct(known, f"axis {axis} of the table", "add up those values")
    make, index, columns = type(frame), frame.index, frame.columns
    values = as_doubles(frame.to_numpy(), "table").copy()
    masses, sums = dense(values, lambda table: make(table, index=index, columns=columns))
    return masses, sums, labels


def _read_sparse(table: Any) -> _Read:
    if table.ndim != 2:
        raise ValueError(f"table is sparse with {table.ndim} axes: pass 2, or Records for more")
    if table.dtype.kind not in "biuf":
        raise ValueError(f"table has dtype {table.dtype}: pass real numbers")
    # doubles before duplicates are added up: small integers would wrap
    array = sparse.csr_array(table.astype(np.float64))
    if array.data is getattr(table, "data", None) or np.may_share_memory(
        array.data, np.asarray(getattr(table, "data", 0.0))
    ):
        array = array.copy()
    array.sum_duplicates()

    def locate(wrong):
        at = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(array.indptr, at, side="right")) - 1
        return entry("table", (row, array.indices[at]))

    array.data = _positive_masses(array.data, "table", locate)
    masses = Sparse(array)
    masses.total = np.array([array.data.sum()])
    return masses, masses.starting_sums(), [None, None]


def _positive_masses(values: NDArray[np.float64], name: str, locate=None) -> NDArray[np.float64]:
    check_masses(values, name, locate)
    with np.errstate(over="ignore"):
        total = values.sum()
    return values if 1 / _TOTAL < total < _TOTAL else _centered(values, name, locate)


def _centered(values: NDArray[np.float64], name: str, locate=None) -> NDArray[np.float64]:
    """Return the masses times the power of two that brings the largest near 1; raise if one would be lost."""
    scaled = np.ldexp(values, -int(np.frexp(values.max())[1]))
    check_kept(values, scaled, name, locate)
    return scaled


def _read_logs(values: Any) -> _Read:
    if isinstance(values, Scores | Records) or sparse.issparse(values) or is_frame(values):
        raise ValueError("Scores: the scores are an array or a tensor of logarithms; of a DataFrame pass `to_numpy()`")
    logs = as_doubles(values, "scores")
    if logs.ndim < 2:
        raise ValueError(f"scores has {logs.ndim} axes: a table has at least 2")
    check_logs(logs, logs.ndim)
    masses = DenseLogs(logs, logs.ndim)
    present = masses.logs > -np.inf
    sums = masses.starting_sums()
    for axis, found in enumerate(sums):
        # a mass that underflowed is there all the same
        others = tuple(b for b in range(logs.ndim) if b != axis)
        found[(found == 0) & present.any(axis=others)] = np.finfo(np.float64).tiny
    return masses, sums, [None] * logs.ndim


# Beyond this, rounding takes a thousandth of a mass with it.
_MOST_SCORE = 1e-3 / float(np.finfo(np.float64).eps)


def check_logs(logs: NDArray[np.float64], axes: int, most: float = _MOST_SCORE) -> None:
    """Raise unless the entries of a table of logarithms, or of a stack, are finite or -inf, not all of them -inf."""
    if logs.size == 0:
        raise ValueError(f"scores has shape {logs.shape}: pass at least one value on each axis")
    wrong = np.isnan(logs) | ((logs > -np.inf) & (np.abs(logs) > most))
    if wrong.any():
        index = np.argwhere(wrong)[0]
        raise ValueError(
            f"{entry('scores', index)} = {logs[tuple(index)]}: scores are finite, or -inf for an empty cell,"
            " and not so large that their differences are lost"
        )
    if (logs.max(axis=tuple(range(-axes, 0))) == -np.inf).any():
        raise ValueError("scores has no mass: at least one entry of a table must be finite")


def _read_records(records: Records, targets: Any, may_miss: bool) -> Problem:
    goals: list[Goal | None]
    if isinstance(targets, Mapping):
        chosen = records.chosen(targets)
        goals = as_goals([_as_crossed(c, t) for c, t in zip(chosen.columns, targets.values(), strict=True)])
    else:
        chosen = records
        values = [None] * len(records.columns) if targets is None else as_sequence(targets)
        if len(values) != len(records.columns):
            raise ValueError(
                f"{len(values)} targets for records of {len(records.columns)} variables: pass one for each, None for"
                " one that is free"
            )
        paired = [_as_crossed(c, t) for c, t in zip(records.columns, values, strict=True)]
        goals = [None] * len(paired) if targets is None else as_goals(paired)
    read_columns = [_on_axis(c, g, a) for a, (c, g) in enumerate(zip(chosen.columns, goals, strict=True))]
    codes = tuple(c for c, _, _ in read_columns)
    shape = tuple(n for _, n, _ in read_columns)
    weights = _positive_masses(records.weights, "weights")
    kept = RecordMasses(codes, weights, shape, records.reweighted)
    masses: Masses = kept
    # the table of all cells, if it is no longer than the records: its sums cost less
    if prod(shape) <= len(weights):
        masses = Aggregated(kept)
    masses.total = kept.total = np.array([weights.sum()])
    sums = masses.starting_sums()
    labels = [known for _, _, known in read_columns]
    vectors = _fixed(goals, [None if g is None else g.values for g in goals], sums, labels, may_miss)
    return Problem(masses, sums, vectors, _total(goals) if targets is not None else 1.0, records, labels, codes)


def _as_crossed(column: Column, target: Any) -> Any:
    """Return an array with one axis per crossed column as a mapping from tuples of codes."""
    if not column.crossed or target is None or isinstance(target, Mapping) or is_series(target) or is_frame(target):
        return target
    array = as_array(target, "the target of a crossed variable")
    return {index: array[index] for index in np.ndindex(array.shape)}


def _on_axis(column: Column, goal: Goal | None, axis: int) -> tuple[NDArray[np.intp], int, list | None]:
    """Return the codes of a variable on its axis, the length of the axis, and its labels."""
    if goal is None:
        size = int(column.codes.max()) + 1 if column.labels is None else len(column.labels)
        if size > _MOST_VALUES:
            raise ValueError(f"axis {axis} has the code {size - 1}: it looks like an identifier; pass it as a label")
        return column.codes, size, column.labels
    if goal.labels is None:
        if column.labels is not None and not column.ordered:
            raise ValueError(
                f"{goal.name} has no labels, the variable on axis {axis} has: pass a mapping from its labels, such as"
                f" {column.label(0)!r}, to their masses"
            )
        size = len(goal.values)
        if column.ordered and size != len(column.labels or ()):
            raise ValueError(
                f"{goal.name} has length {size}, the variable on axis {axis} {len(column.labels or ())} categories"
            )
        over = int(column.codes.max())
        if over >= size:
            at = int(np.argmax(column.codes))
            raise ValueError(
                f"record {at} has the code {over} on axis {axis}, which has no target: {goal.name} has length {size};"
                " add a mass, or drop or merge that value"
            )
        return column.codes, size, column.labels
    place = {label: i for i, label in enumerate(goal.labels)}
    if column.labels is None:
        used = np.unique(column.codes)
        moved = np.array([place.get(int(code), -1) for code in used], np.intp)
        codes = moved[np.searchsorted(used, column.codes)]
    else:
        codes = np.array([place.get(label, -1) for label in column.labels], np.intp)[column.codes]
    if (codes < 0).any():
        at = int(np.argmin(codes))
        raise ValueError(
            f"record {at} has the value {column.label(column.codes[at])!r} on axis {axis}, which has no target:"
            f" add it to {goal.name}, or drop or merge that value"
        )
    return codes, len(goal.labels), goal.labels
