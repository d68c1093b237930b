"""Validation at the public edge: each error names the entry and says what to do."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

_TOTALS_AGREE = 1e-9


def masses(values: ArrayLike, name: str, ndim: int | None = None) -> NDArray[np.float64]:
    """Return `values` as a new float64 array of finite, non-negative entries with a positive sum."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: pass real numbers")
    array = array.astype(np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has {array.ndim} axes, expected {ndim}")
    for wrong, what in (
        (~np.isfinite(array), "is not a finite number: remove or impute it"),
        (array < 0, "is negative: masses are >= 0"),
    ):
        if wrong.any():
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise ValueError(f"{entry(name, index)} = {array[index]} {what}")
    if not array.sum() > 0:
        raise ValueError(f"{name} has no mass: at least one entry must be positive")
    return array


def table(values: ArrayLike, name: str = "table") -> NDArray[np.float64]:
    """Return a table with at least two axes, normalized to total mass 1."""
    array = masses(values, name)
    if array.ndim < 2:
        raise ValueError(f"{name} has {array.ndim} axes: a table has at least 2")
    start = array / array.max()
    start /= start.sum()
    lost = (array > 0) & (start < np.finfo(np.float64).tiny)
    if lost.any():
        index = tuple(int(i) for i in np.argwhere(lost)[0])
        raise ValueError(
            f"{entry(name, index)} = {array[index]:.3g} is lost in double precision beside the largest"
            f" entry {array.max():.3g}: set it to 0, or raise it"
        )
    return start


def joint(values: ArrayLike) -> NDArray[np.float64]:
    """Return the joint law of two variables, normalized to total mass 1."""
    array = table(values)
    if array.ndim != 2:
        raise ValueError(f"table has {array.ndim} axes: the operators are defined for 2 variables")
    return array


def positive(masses: NDArray[np.float64], on: int) -> NDArray[np.float64]:
    """Return the marginal on axis `on` of a joint law if none of its values is empty."""
    empty = np.flatnonzero(masses == 0)
    if empty.size:
        raise ValueError(
            f"{('row', 'column')[on]} {empty[0]} (axis {on}) has no mass: conditional means given"
            " that value are undefined; drop or merge it"
        )
    return masses


def function(h: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a function of (x, y), of x or of y, as an array that broadcasts to the shape."""
    array = np.asarray(h)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError("h: pass finite real numbers")
    if array.ndim != 2 or any(a not in (1, b) for a, b in zip(array.shape, shape, strict=True)):
        raise ValueError(
            f"h has shape {array.shape}: pass shape {shape}, h[:, None] for a function of x, h[None, :]"
            " for a function of y"
        )
    return array.astype(float)


def law(values: ArrayLike, h: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a joint law without empty rows or columns, and a function h as an array of its shape."""
    array = joint(values)
    for on in (0, 1):
        positive(array.sum(axis=1 - on), on)
    return array, np.broadcast_to(function(h, array.shape), array.shape)


def probabilities(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return an array of masses that sum to 1."""
    array = masses(values, name)
    total = array.sum()
    if abs(total - 1) > _TOTALS_AGREE:
        raise ValueError(f"{name} sums to {total:.10g}, not 1: divide it by its sum")
    return array


def axis(value: int, ndim: int, name: str = "axis") -> int:
    """Return `value` if it names one of `ndim` axes."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < ndim:
        raise ValueError(f"{name} = {value!r}: choose an integer from 0 to {ndim - 1}")
    return int(value)


def count(value: int, name: str, least: int = 0) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} = {value!r}: pass an integer >= {least}")
    return int(value)


def targets(values, start: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Return one target per axis of `start`, each normalized to total mass 1."""
    values = tuple(values)
    if len(values) != start.ndim:
        raise ValueError(f"{len(values)} targets for a table with {start.ndim} axes: pass one each")
    vectors = [masses(v, f"targets[{a}]", ndim=1) for a, v in enumerate(values)]
    for a, vector in enumerate(vectors):
        if abs(vector.sum() / vectors[0].sum() - 1) > _TOTALS_AGREE:
            raise ValueError(
                f"targets[0] sums to {vectors[0].sum():.10g} and targets[{a}] to {vector.sum():.10g}:"
                " targets distribute one common total; rescale one of them"
            )
    return tuple(target(v / v.sum(), start, a, f"targets[{a}]") for a, v in enumerate(vectors))


def target(vector, start: NDArray[np.float64], on: int, name: str = "target"):
    """Return `vector` if its shape fits axis `on` of `start` and its mass can be placed there."""
    if len(vector) != start.shape[on]:
        raise ValueError(f"{name} has length {len(vector)}, axis {on} of the table has length {start.shape[on]}")
    others = tuple(a for a in range(start.ndim) if a != on)
    stranded = np.flatnonzero((vector > 0) & ~(start > 0).any(axis=others))
    if stranded.size:
        i = int(stranded[0])
        place = {0: "row", 1: "column"}.get(on, "slice") if start.ndim == 2 else "slice"
        raise ValueError(
            f"{name}[{i}] = {vector[i]:.6g}, but {place} {i} of the table (axis {on}) is empty: no"
            " rescaling can put mass there; drop or merge that value, or set its target to 0"
        )
    return vector


def entry(name: str, index: tuple[int, ...]) -> str:
    return f"{name}[{', '.join(map(str, index))}]"


def values(array: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Return `array` as float64 if it has the given shape and finite entries."""
    array = np.asarray(array, dtype=np.float64)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}, expected {tuple(shape)}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{entry(name, index)} = {array[index]} is not a finite number")
    return array
