"""Validation at the public edge: each error names the entry and says what to do."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine.numbers import as_doubles, entry, locate_entry, precision

# Totals of doubles that differ by less were meant to be equal.
TOTALS_AGREE = 1e-9


def as_masses(values: ArrayLike, name: str, ndim: int | None = None) -> NDArray[np.float64]:
    """Return `values` as a new float64 array of finite, non-negative entries with a positive sum."""
    array = as_doubles(values, name)
    array = array.copy() if array is values else array
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has {array.ndim} axes, expected {ndim}")
    check_masses(array, name)
    return array


def check_masses(values: NDArray[np.float64], name: str, locate=None) -> None:
    """Raise unless the values are finite, >= 0 and not all 0; `locate` names the first entry of a mask."""
    for wrong, what in (
        (~np.isfinite(values), "is not a finite number: remove or impute it"),
        (values < 0, "is negative: masses are >= 0"),
    ):
        if wrong.any():
            raise ValueError(f"{(locate or locate_entry(name))(wrong)} = {values[wrong][0]} {what}")
    if not values.any():
        raise ValueError(f"{name} has no mass: at least one entry must be positive")


def check_kept(values: NDArray[np.float64], scaled: NDArray[np.float64], name: str, locate=None) -> None:
    """Raise if a positive value has become less than the least full double by scaling."""
    lost = (values > 0) & (scaled < np.minimum(values, np.finfo(np.float64).tiny))
    if lost.any():
        raise ValueError(
            f"{(locate or locate_entry(name))(lost)} = {values[lost][0]:.3g} is lost in double precision beside the"
            f" largest entry {values.max():.3g}: set it to 0, raise it, or pass logarithms as Scores"
        )


def as_table(values: ArrayLike, name: str = "table") -> NDArray[np.float64]:
    """Return a table with at least two axes, normalized to total mass 1."""
    array = as_masses(values, name)
    if array.ndim < 2:
        raise ValueError(f"{name} has {array.ndim} axes: a table has at least 2")
    # divided by the largest entry first: the sum of the others may overflow
    scaled = array / array.max()
    scaled /= scaled.sum()
    check_kept(array, scaled, name)
    return scaled


def as_joint(values: ArrayLike) -> NDArray[np.float64]:
    """Return the joint law of two variables, normalized to total mass 1."""
    array = as_table(values)
    if array.ndim != 2:
        raise ValueError(f"table has {array.ndim} axes: the operators are defined for 2 variables")
    return array


def check_positive(masses: NDArray[np.float64], on: int) -> NDArray[np.float64]:
    """Return the marginal on axis `on` of a joint law if none of its values is empty."""
    empty = np.flatnonzero(masses == 0)
    if empty.size:
        raise ValueError(
            f"{('row', 'column')[on]} {empty[0]} (axis {on}) has no mass: conditional means given"
            " that value are undefined; drop or merge it"
        )
    return masses


def as_function(h: ArrayLike, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return a function of (x, y), of x or of y, as an array that broadcasts to the shape."""
    array = as_doubles(h, "h")
    if not np.isfinite(array).all():
        raise ValueError("h: pass finite real numbers")
    if array.ndim != 2 or any(a not in (1, b) for a, b in zip(array.shape, shape, strict=True)):
        raise ValueError(
            f"h has shape {array.shape}: pass shape {shape}, h[:, None] for a function of x, h[None, :]"
            " for a function of y"
        )
    return array


def as_law(values: ArrayLike, h: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a joint law without empty rows or columns, and a function h as an array of its shape."""
    array = as_joint(values)
    for on in (0, 1):
        check_positive(array.sum(axis=1 - on), on)
    return array, np.broadcast_to(as_function(h, array.shape), array.shape)


def as_probabilities(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return an array of masses that sum to 1."""
    array = as_masses(values, name)
    total = array.sum()
    if abs(total - 1) > TOTALS_AGREE + 2 * precision(values):
        raise ValueError(f"{name} sums to {total:.10g}, not 1: divide it by its sum")
    return array


def check_axis(value: int, ndim: int, name: str = "axis") -> int:
    """Return `value` if it names one of `ndim` axes."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < ndim:
        raise ValueError(f"{name} = {value!r}: choose an integer from 0 to {ndim - 1}")
    return int(value)


def check_count(value: int, name: str, least: int = 0) -> int:
    """Return `value` if it is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} = {value!r}: pass an integer >= {least}")
    return int(value)


def check_number(
    value: Any, name: str, low: float, high: float, what: str, *, ends: tuple[bool, bool] = (False, False)
):
    """Return `value` as a float if it is a real number between two bounds; `ends` says which of them it may be."""
    real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not real or not (low < value < high or (ends[0] and value == low) or (ends[1] and value == high)):
        raise ValueError(f"{name} = {value!r}: pass {what}"[:300])
    return float(value)


def check_preset(preset) -> None:
    """Raise unless the sizes of a training preset are positive and its checkpoints are evenly spaced."""
    for name in ("iterations", "batch_size", "checkpoints", "hidden", "output"):
        check_count(getattr(preset, name), name, 1)
    if preset.iterations % preset.checkpoints:
        raise ValueError(f"iterations = {preset.iterations} is no multiple of checkpoints = {preset.checkpoints}")


def as_values(array: Any, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Return `array` as float64 if it has the given shape and finite entries."""
    array = as_doubles(array, name)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}, expected {tuple(shape)}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{entry(name, index)} = {array[index]} is not a finite number")
    return array
