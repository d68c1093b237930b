"""One set of rules for targets, whatever holds the masses."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balance._engine.checks import TOTALS_AGREE, check_masses
from balance._engine.numbers import as_doubles, is_frame, is_series, precision


def as_sequence(targets: Any) -> list:
    """Return the targets as a list, one for each axis."""
    if isinstance(targets, Mapping) or is_series(targets) or is_frame(targets):
        raise ValueError(
            "targets is a single mapping or Series: pass a sequence with one target for each axis (for Records made of"
            " a frame, a mapping from the names of its columns to their targets)"
        )
    if isinstance(targets, (str, bytes, set, frozenset)) or not (
        hasattr(targets, "__iter__") or hasattr(targets, "__getitem__")
    ):
        raise ValueError(f"targets = {targets!r}: pass a sequence with one target for each axis")
    if getattr(targets, "ndim", 1) == 0:
        raise ValueError("targets is a single number: pass a sequence with one target for each axis")
    listed = list(targets)
    if not listed:
        raise ValueError("targets is empty: pass one target for each axis")
    return listed


class Goal:
    """One target as it was passed: masses by position or by label.

    Attributes
    ----------
    values : ndarray, shape (n,) or (*stack, n)
    labels : list or None
        What the masses belong to, if the target says so.
    """

    def __init__(self, target: Any, name: str, stacked: bool = False):
        self.name, self.labels, self.precision = name, None, precision(target)
        if isinstance(target, Mapping):
            self.labels = list(target)
            values = as_doubles(list(target.values()), name) if target else np.empty(0)
        elif is_frame(target):
            # a cross-table as the target of crossed columns: its labels are pairs
            self.labels = [(a, b) for a in target.index for b in target.columns]
            values = as_doubles(target.to_numpy(), name).ravel()
        elif is_series(target):
            self.labels = list(target.index)
            values = as_doubles(target.to_numpy(), name)
        else:
            values = as_doubles(target, name)
        if self.labels is not None:
            check_distinct(self.labels, name, "add its masses up")
        if values.ndim != 1 and not (stacked and values.ndim > 1):
            raise ValueError(f"{name} has {values.ndim} axes, expected 1")
        if values.shape[-1] == 0:
            raise ValueError(f"{name} is empty: pass one mass for each value of its axis")
        check_masses(values, name)
        if values.ndim > 1 and not values.any(axis=-1).all():
            raise ValueError(f"{name} has no mass for one of the tables: at least one entry must be positive")
        self.values = values

    @property
    def total(self) -> NDArray[np.float64]:
        """The sum of the masses, shape () or the stack's."""
        return self.values.sum(axis=-1)

    def aligned(self, labels: Sequence[Hashable] | None, size: int, axis: int, what: str) -> NDArray[np.float64]:
        """Return the masses in the order of an axis with such labels; without labels the code is the label."""
        if self.labels is None:
            if self.values.shape[-1] != size:
                raise ValueError(
                    f"{self.name} has length {self.values.shape[-1]}, axis {axis} of {what} has length {size}"
                )
            return self.values
        known = range(size) if labels is None else labels
        place = {label: i for i, label in enumerate(self.labels)}
        missing = [label for label in known if label not in place]
        if missing:
            unknown = [label for label in self.labels if label not in set(known)]
            instead = f", but one for {unknown[0]!r}, which is no value of that axis" if unknown else ""
            raise ValueError(
                f"axis {axis} of {what} has the value {missing[0]!r}, {self.name} has no mass for it{instead}: correct"
                " the label, or add a mass (0 to give it none)"
            )
        positions = [place[label] for label in known]
        extra = sorted(set(range(len(self.labels))) - set(positions))
        for i in extra:
            if self.values[i] > 0 or labels is None:
                raise ValueError(
                    f"{self.name} has mass for {self.labels[i]!r}, which is unseen: axis {axis} of {what} has no such"
                    " value; drop or merge it, or correct the label"
                )
        return self.values[positions]

    def over(self, size: int, axis: int, what: str, stack: tuple[int, ...] = ()) -> NDArray[np.float64]:
        """Return the masses for an axis without labels: a vector, or for a stack one for each table."""
        if self.values.ndim == 1:
            return self.aligned(None, size, axis, what)
        if self.values.shape != (*stack, size):
            raise ValueError(f"{self.name} has shape {self.values.shape}, expected {(*stack, size)}")
        return self.values


def as_goals(targets: Any, stacked: bool = False) -> list[Goal | None]:
    """Return targets whose totals agree; None for an axis that is free."""
    goals = [None if t is None else Goal(t, f"targets[{a}]", stacked) for a, t in enumerate(as_sequence(targets))]
    given = [g for g in goals if g is not None]
    if not given:
        raise ValueError("targets are all None: pass at least one, or use marginal to look at the table")
    for goal in given[1:]:
        check_totals(given[0], goal)
    return goals


def check_distinct(labels: Sequence[Hashable], name: str, remedy: str) -> None:
    """Raise if a label stands twice."""
    seen: set[Hashable] = set()
    for label in labels:
        if label in seen:
            raise ValueError(f"{name} has the label {label!r} more than once: {remedy}")
        seen.add(label)


def check_totals(first: Goal, other: Goal) -> None:
    """Raise unless two targets distribute one total, within the precision in which they were passed."""
    with np.errstate(all="ignore"):
        a, b = np.broadcast_arrays(first.total, other.total)
        apart = np.abs(b / a - 1) > TOTALS_AGREE + 2 * (first.precision + other.precision)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError(f"{first.name} or {other.name} has an infinite sum: divide the targets by a common number")
    if apart.any():
        raise ValueError(
            f"{first.name} sums to {a[apart][0]:.10g} and {other.name} to {b[apart][0]:.10g}: targets distribute one"
            " common total; rescale one of them, or divide each by its sum if they are rounded shares"
        )


def check_reachable(
    target: NDArray[np.float64], sums: NDArray[np.float64], name: str, axis: int, ndim: int, label=None
):
    """Raise if a value with a target has no mass in the table."""
    empty = np.flatnonzero((target > 0) & (sums == 0))
    if empty.size:
        i = int(empty[0])
        place = ("row", "column")[axis] if ndim == 2 else "slice"
        which = f"{label(i)!r}" if label else str(i)
        raise ValueError(
            f"{name}[{which}] = {target[i]:.6g}, but {place} {which} of the table (axis {axis}) is empty: no rescaling"
            " can put mass there; drop or merge that value, or set its target to 0"
        )


def normalized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return masses with total 1, divided by the largest first so that their sum is finite."""
    scaled = values / values.max(axis=-1, keepdims=True)
    return scaled / scaled.sum(axis=-1, keepdims=True)


def as_vectors(targets: Any, sums: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.float64], ...]:
    """Return one target, none of them free, for each axis of a table with these marginal sums; each of total mass 1."""
    given = as_goals(targets)
    goals = [g for g in given if g is not None]
    if len(given) != len(sums) or len(goals) != len(given):
        raise ValueError(f"{len(given)} targets for a table with {len(sums)} axes: pass one each")
    vectors = [
        normalized(g.aligned(None, len(s), a, "the table")) for a, (g, s) in enumerate(zip(goals, sums, strict=True))
    ]
    for axis, (goal, vector) in enumerate(zip(goals, vectors, strict=True)):
        check_reachable(vector, sums[axis], goal.name, axis, len(sums))
    return tuple(vectors)
