"""Validation at the public edge: each error names the entry and says what to do."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

_TOTALS_AGREE = 1e-9


def as_masses(values: ArrayLike, name: str, ndim: int | None = None) -> NDArray[np.float64]:
    """Return `values` as a new float64 array of finite, non-negative entries with a positive sum."""
    if sparse.issparse(values):
        raise ValueError(f"{name} is sparse: pass a dense array, such as {name}.toarray()")
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}: pass real numbers")
    array = array.astype(np.float64)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has {array.ndim} axes, expected {ndim}")
    check_masses(array, locate_entry(name), name)
    return array


def check_masses(values: NDArray[np.float64], locate, name: str) -> None:
    """Raise unless the values are finite, >= 0 and not all 0; `locate` names the first of the wrong ones."""
    for wrong, what in (
        (~np.isfinite(values), "is not a finite number: remove or impute it"),
        (values < 0, "is negative: masses are >= 0"),
    ):
        if wrong.any():
            raise ValueError(f"{locate(wrong)} = {values[wrong][0]} {what}")
    if not values.sum() > 0:
        raise ValueError(f"{name} has no mass: at least one entry must be positive")


def as_table(values: ArrayLike, name: str = "table") -> NDArray[np.float64]:
    """Return a table with at least two axes, normalized to total mass 1."""
    array = as_masses(values, name)
    if array.ndim < 2:
        raise ValueError(f"{name} has {array.ndim} axes: a table has at least 2")
    return normalize(array, locate_entry(name))


def normalize(values: NDArray[np.float64], locate) -> NDArray[np.float64]:
    """Return masses divided by their sum; `locate` names the first that would be lost."""
    start = values / values.max()
    start /= start.sum()
    lost = (values > 0) & (start < np.finfo(np.float64).tiny)
    if lost.any():
        raise ValueError(
            f"{locate(lost)} = {values[lost][0]:.3g} is lost in double precision beside the largest"
            f" entry {values.max():.3g}: set it to 0, or raise it"
        )
    return start


def as_sparse_table(values: sparse.sparray | sparse.spmatrix, name: str = "table") -> sparse.csr_array:
    """Return a copy of a sparse table in compressed rows, normalized to total mass 1."""
    if values.ndim != 2:
        raise ValueError(f"{name} is sparse with {values.ndim} axes: pass 2, or Records for more")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {values.dtype}: pass real numbers")
    array = sparse.csr_array(values, dtype=np.float64, copy=True)
    array.sum_duplicates()

    def locate(wrong):
        at = int(np.flatnonzero(wrong)[0])
        row = int(np.searchsorted(array.indptr, at, side="right")) - 1
        return entry_name(name, (row, array.indices[at]))

    check_masses(array.data, locate, name)
    array.data = normalize(array.data, locate)
    return array


def as_codes(values: ArrayLike, name: str) -> NDArray[np.intp]:
    """Return codes of records: integers >= 0, one for each."""
    array = np.asarray(values)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: pass one code per record")
    if array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} has dtype {array.dtype}: pass integer codes, such as numpy.unique(labels, return_inverse=True)[1]"
        )
    if array.min() < 0:
        at = int(np.argmin(array))
        raise ValueError(f"{name}[{at}] = {array[at]}: codes are >= 0")
    return array.astype(np.intp)


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
    array = np.asarray(h)
    if array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError("h: pass finite real numbers")
    if array.ndim != 2 or any(a not in (1, b) for a, b in zip(array.shape, shape, strict=True)):
        raise ValueError(
            f"h has shape {array.shape}: pass shape {shape}, h[:, None] for a function of x, h[None, :]"
            " for a function of y"
        )
    return array.astype(float)


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
    if abs(total - 1) > _TOTALS_AGREE:
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


def check_preset(preset) -> None:
    """Raise unless the sizes of a training preset are positive and its checkpoints are evenly spaced."""
    for name in ("iterations", "batch_size", "checkpoints", "hidden", "output"):
        check_count(getattr(preset, name), name, 1)
    if preset.iterations % preset.checkpoints:
        raise ValueError(f"iterations = {preset.iterations} is no multiple of checkpoints = {preset.checkpoints}")


def as_targets(values, sums) -> tuple[NDArray[np.float64], ...]:
    """Return one target per axis of a table with these marginal sums, each normalized to total mass 1."""
    values = tuple(values)
    if len(values) != len(sums):
        raise ValueError(f"{len(values)} targets for a table with {len(sums)} axes: pass one each")
    vectors = [as_masses(v, f"targets[{a}]", ndim=1) for a, v in enumerate(values)]
    for a, vector in enumerate(vectors):
        if abs(vector.sum() / vectors[0].sum() - 1) > _TOTALS_AGREE:
            raise ValueError(
                f"targets[0] sums to {vectors[0].sum():.10g} and targets[{a}] to {vector.sum():.10g}:"
                " targets distribute one common total; rescale one of them"
            )
    return tuple(check_target(v / v.sum(), sums[a], a, len(sums), f"targets[{a}]") for a, v in enumerate(vectors))


def check_target(vector, current, on: int, ndim: int, name: str = "target"):
    """Return `vector` if it fits the current marginal on axis `on` of `ndim` and its mass can be placed there."""
    if len(vector) != len(current):
        raise ValueError(f"{name} has length {len(vector)}, axis {on} of the table has length {len(current)}")
    stranded = np.flatnonzero((vector > 0) & (current == 0))
    if stranded.size:
        i = int(stranded[0])
        place = ("row", "column")[on] if ndim == 2 else "slice"
        raise ValueError(
            f"{name}[{i}] = {vector[i]:.6g}, but {place} {i} of the table (axis {on}) is empty: no"
            " rescaling can put mass there; drop or merge that value, or set its target to 0"
        )
    return vector


def entry_name(name: str, index) -> str:
    return f"{name}[{', '.join(str(int(i)) for i in index)}]"


def locate_entry(name: str):
    """Return a function that names the first entry of a dense array at which a mask is true."""
    return lambda wrong: entry_name(name, np.argwhere(wrong)[0])


def as_values(array: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float64]:
    """Return `array` as float64 if it has the given shape and finite entries."""
    array = np.asarray(array, dtype=np.float64)
    if array.shape != tuple(shape):
        raise ValueError(f"{name} has shape {array.shape}, expected {tuple(shape)}")
    wrong = ~np.isfinite(array)
    if wrong.any():
        index = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{entry_name(name, index)} = {array[index]} is not a finite number")
    return array
