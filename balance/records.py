"""Records of several variables, as an input of `balance.data_balance`: a table that is never formed."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine.checks import check_masses
from balance._engine.numbers import as_doubles, is_frame, is_series


class Records:
    """Weighted records: a sparse table with one cell for each record.

    Parameters
    ----------
    *columns : array_like, Series or Categorical, shape (n,)
        The value of each variable in each record: integer codes 0, 1, ..., or labels. Labels need targets that say
        whose each mass is: mappings, Series, or for a Categorical vectors in the order of its categories. Instead of
        columns, one DataFrame or mapping from names to columns.
    weights : array_like, shape (n,), or name of a column, optional
        The mass of each record, finite and >= 0; equal if not given. A column that is named holds no variable.

    Attributes
    ----------
    columns : tuple
        The variables, as `Column`.
    names : tuple or None
        Their names, if a DataFrame or a mapping was passed.
    weights : ndarray, shape (n,)
    index : object or None
        The index of the first Series or of the DataFrame.

    Raises
    ------
    ValueError
        If there is no variable, their lengths differ, a code is negative, a label is missing (NaN or NA; None is a
        label like others, which needs a target), or a weight is negative or not finite.

    Examples
    --------
    Six records of two variables, each to be even:

    >>> from balance import data_balance
    >>> records = Records(["f", "f", "f", "f", "m", "m"], [0, 0, 0, 1, 0, 1])
    >>> result = data_balance(records, ({"m": 1, "f": 1}, [1, 1]), steps=1)
    >>> result.table.weights.tolist()
    [0.125, 0.125, 0.125, 0.125, 0.25, 0.25]

    The margin of pairs of two variables, with a third one:

    >>> pairs = Records.cross([0, 0, 1, 1], [0, 1, 0, 1])
    >>> result = data_balance(Records(pairs, [0, 1, 1, 1]), ([[1, 2], [3, 4]], [1, 9]), tol=1e-9)
    >>> result.table.weights.round(3).tolist()
    [0.1, 0.2, 0.3, 0.4]
    """

    def __init__(self, *columns: Any, weights: ArrayLike | Hashable | None = None):
        self.names: tuple[Hashable, ...] | None = None
        self.index = None
        if len(columns) == 1 and (is_frame(columns[0]) or isinstance(columns[0], Mapping)):
            frame = columns[0]
            names = list(frame.columns) if is_frame(frame) else list(frame)
            if isinstance(weights, Hashable) and not isinstance(weights, (int, float, tuple)) and weights is not None:
                if weights not in names:
                    raise ValueError(f"weights = {weights!r}: there is no such column")
                names.remove(weights)
                weights = frame[weights]
            self.names, columns = tuple(names), tuple(frame[name] for name in names)
            if len(set(names)) < len(names):
                raise ValueError("two columns have one name: rename one of them")
            self.index = frame.index if is_frame(frame) else None
        elif isinstance(weights, str):
            raise ValueError(f"weights = {weights!r}: only a column of a DataFrame or of a mapping can be named")
        if not columns:
            raise ValueError("there is no variable: pass at least one column, such as Records(codes)")
        labels = self.names or range(len(columns))
        self.columns = tuple(_column(c, f"column {label!r}") for c, label in zip(columns, labels, strict=True))
        lengths = [len(column) for column in self.columns]
        if len(set(lengths)) > 1:
            raise ValueError(f"the variables have {', '.join(map(str, lengths))} records: pass one value per record")
        indexes = [] if self.index is None else [self.index]
        indexes += [c.index for c in (*columns, weights) if is_series(c)]
        if any(not indexes[0].equals(index) for index in indexes[1:]):
            raise ValueError("two Series differ in their index: bring them into one order, as by one DataFrame")
        self.index = indexes[0] if indexes else None
        n = lengths[0]
        if weights is None:
            self.weights: NDArray[np.float64] = np.full(n, 1 / n)
            return
        masses = as_doubles(weights.to_numpy() if is_series(weights) else weights, "weights")
        if masses.shape != (n,):
            raise ValueError(f"weights has shape {masses.shape}, the variables have {n} records")
        check_masses(masses, "weights")
        self.weights = masses.copy()

    @staticmethod
    def cross(*columns: Any) -> "Column":
        """Return the pairs (or tuples) of several columns as one variable, for a margin on more than one of them.

        Its target is a mapping from tuples to masses, an array with one axis per column (of codes), or, for two
        columns, a DataFrame whose index and columns are their labels.
        """
        if len(columns) < 2:
            raise ValueError(f"{len(columns)} columns: cross at least 2")
        return _crossed([_column(c, f"column {i}") for i, c in enumerate(columns)])

    def reweighted(self, weights: NDArray[np.float64]) -> "Records":
        """Return the same records with other weights, not checked."""
        other = object.__new__(Records)
        other.names, other.index, other.columns, other.weights = self.names, self.index, self.columns, weights
        return other

    def chosen(self, names: Iterable[Hashable]) -> "Records":
        """Return the records with the variables of these names; a tuple of names crosses them."""
        names = list(names)
        if self.names is None:
            raise ValueError("targets is a mapping, but the variables have no names: pass a sequence of targets")
        known = dict(zip(self.names, self.columns, strict=True))
        columns = []
        for name in names:
            parts = [name] if name in known else list(name) if isinstance(name, tuple) else [name]
            for part in parts:
                if part not in known:
                    raise ValueError(f"targets has {part!r}, which is no column: the columns are {list(known)}"[:400])
            columns.append(known[name] if name in known else _crossed([known[part] for part in parts]))
        other = self.reweighted(self.weights)
        other.names, other.columns = tuple(names), tuple(columns)
        return other

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        return f"Records({len(self)} records of {len(self.columns)} variables)"


def kish_size(weights: NDArray[np.float64]) -> float:
    """Return the effective sample size (sum w)^2 / sum w^2 of weights that are checked."""
    scaled = weights / weights.max()
    return float(scaled.sum() ** 2 / (scaled @ scaled))


class Column:
    """One variable: a code for each record and, for labels, what each code stands for.

    Attributes
    ----------
    codes : ndarray of intp, shape (n,)
    labels : list or None
        The label of each code; None if the codes are what was passed.
    ordered : bool
        Whether the order of the labels is the user's own, as that of the categories of a Categorical.
    crossed : bool
        Whether the labels are tuples made by `Records.cross`.
    """

    def __init__(self, codes: NDArray[np.intp], labels: list | None = None, ordered=False, crossed=False):
        self.codes, self.labels, self.ordered, self.crossed = codes, labels, ordered, crossed

    def __len__(self) -> int:
        return len(self.codes)

    def label(self, code: int) -> Hashable:
        """Return what a code stands for."""
        return int(code) if self.labels is None else self.labels[code]


def _column(values: Any, name: str) -> Column:
    if isinstance(values, Column):
        return values
    if isinstance(values, (str, bytes)) or np.ndim(getattr(values, "shape", (0,))) != 1:
        raise ValueError(f"{name} is a single value: pass one value per record")
    # a Categorical, or a Series of them
    categorical = getattr(values, "cat", values)
    if hasattr(categorical, "categories") and hasattr(categorical, "codes"):
        codes = np.asarray(categorical.codes).astype(np.intp)
        if len(codes) and codes.min() < 0:
            raise ValueError(f"{name}[{int(np.argmin(codes))}] is missing: drop such records, or give them a category")
        return _not_empty(Column(codes, list(categorical.categories), ordered=True), name)
    if is_series(values):
        values = values.to_numpy()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked entries: fill them, or leave them out")
    if not isinstance(values, (list, tuple, np.ndarray)):
        if not (hasattr(values, "__array__") or hasattr(values, "__iter__")):
            raise ValueError(f"{name} is {values!r}: pass one value per record"[:300])
        values = np.asarray(values) if hasattr(values, "__array__") else list(values)
    if isinstance(values, (list, tuple)) and all(isinstance(v, (int, np.integer)) for v in values):
        values = np.array(values) if len(values) else np.empty(0, np.intp)
        if values.dtype.kind == "O":
            raise ValueError(f"{name} holds {max(values, key=abs)}, too large for a code: pass such labels as strings")
    if isinstance(values, np.ndarray):
        if values.ndim != 1:
            raise ValueError(f"{name} has shape {values.shape}: pass one value per record")
        if values.dtype.kind == "c":
            raise ValueError(f"{name} holds complex numbers: pass integer codes or labels")
        if values.dtype.kind in "biu":
            return _not_empty(_codes(values, name), name)
        values = list(values) if values.dtype.kind in "mM" else values.tolist()
    return _not_empty(_labels(values, name), name)


def _codes(values: NDArray, name: str) -> Column:
    if values.size and int(values.min()) < 0:
        at = int(np.argmin(values))
        raise ValueError(f"{name}[{at}] = {values[at]}: codes are >= 0; for labels of numbers pass strings or floats")
    if values.size and int(values.max()) > np.iinfo(np.intp).max:
        raise ValueError(
            f"{name}[{int(np.argmax(values))}] = {values.max()} is too large for a code: pass it as a string"
        )
    return Column(values.astype(np.intp))


def _labels(values: Sequence, name: str) -> Column:
    place: dict[Hashable, int] = {}
    codes = np.empty(len(values), np.intp)
    for i, value in enumerate(values):
        # NaN and NA are equal to nothing, themselves included
        try:
            present = value is None or bool(value == value)
        except (TypeError, ValueError):
            present = False
        if not present:
            raise ValueError(f"{name}[{i}] = {value} is missing: drop such records, or give them a label")
        try:
            codes[i] = place.setdefault(value, len(place))
        except TypeError:
            raise ValueError(
                f"{name}[{i}] is a {type(value).__name__}: labels are strings, numbers or tuples"
            ) from None
    return Column(codes, list(place))


def _crossed(columns: Sequence[Column]) -> Column:
    lengths = [len(c) for c in columns]
    if len(set(lengths)) > 1:
        raise ValueError(f"the columns have {', '.join(map(str, lengths))} records: pass one value per record")
    pairs, codes = np.unique(np.stack([c.codes for c in columns]), axis=1, return_inverse=True)
    labels = [tuple(c.label(code) for c, code in zip(columns, pair, strict=True)) for pair in pairs.T]
    return Column(codes.ravel().astype(np.intp), labels, crossed=True)


def _not_empty(column: Column, name: str) -> Column:
    if len(column) == 0:
        raise ValueError(f"{name} is empty: pass one value per record")
    return column
