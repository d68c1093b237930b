"""Numbers as users pass them: turned into doubles, or refused with what was wrong and what to do."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from numbers import Real
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Series(Protocol):
    """What is used of a pandas Series."""

    index: Any

    def to_numpy(self) -> Any: ...


class Frame(Series, Protocol):
    """What is used of a pandas DataFrame."""

    columns: Any

    def __getitem__(self, key: Any) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


def entry(name: str, index) -> str:
    """Return the name of an entry, such as table[0, 1]."""
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if len(index) else name


def locate_entry(name: str):
    """Return a function that names the first entry of an array at which a mask is true."""
    return lambda wrong: entry(name, np.argwhere(wrong)[0])


def is_tensor(values: Any) -> bool:
    """Whether this is a torch tensor, without importing torch."""
    return any(f"{t.__module__}.{t.__qualname__}" == "torch.Tensor" for t in type(values).__mro__)


def is_series(values: Any) -> TypeGuard[Series]:
    """Whether this is a pandas Series, or offers what one does: values with labels."""
    return hasattr(values, "index") and hasattr(values, "to_numpy") and not hasattr(values, "columns")


def is_frame(values: Any) -> TypeGuard[Frame]:
    """Whether this is a pandas DataFrame, or offers what one does."""
    return hasattr(values, "index") and hasattr(values, "columns") and hasattr(values, "to_numpy")


def as_array(values: Any, name: str) -> NDArray:
    """Return an array of real numbers of any type, not copied if it is one; raise for what is none."""
    if sparse.issparse(values):
        raise ValueError(f"{name} is sparse: pass a dense array, such as {name}.toarray()")
    if values is None or isinstance(values, (str, bytes, Mapping)):
        raise ValueError(f"{name} is {_kind(values)}: pass real numbers")
    if is_tensor(values):
        values = values.detach().cpu()
        values = values.float().numpy() if values.is_floating_point() and values.itemsize < 4 else values.numpy()
    if np.ma.isMaskedArray(values):
        if np.ma.is_masked(values):
            raise ValueError(f"{name} has masked entries: fill them, or leave them out")
        values = values.data
    try:
        array = np.asarray(values)
    except (ValueError, TypeError):
        raise ValueError(f"{name}: its rows differ in length, or are no numbers: pass a rectangular array") from None
    if array.dtype.kind in "biuf":
        return array
    if array.dtype.kind == "c":
        raise ValueError(f"{name} holds complex numbers: pass real ones")
    if array.dtype.kind != "O":
        raise ValueError(f"{name} has dtype {array.dtype}: pass real numbers")
    out = np.empty(array.shape)
    for index in np.ndindex(array.shape):
        out[index] = _as_float(array[index], entry(name, index))
    return out


def as_doubles(values: Any, name: str) -> NDArray[np.float64]:
    """Return the same as doubles, a new array only if the type asks for it."""
    return as_array(values, name).astype(np.float64, copy=False)


def precision(values: Any) -> float:
    """Return the relative spacing of the numbers that were passed: 0 for what a double holds."""
    if is_tensor(values):
        size = values.itemsize if values.is_floating_point() else 8
        brief = "bfloat16" in str(values.dtype)
        return 2.0**-7 if brief else {4: 2.0**-23, 2: 2.0**-10, 1: 2.0**-2}.get(size, 0.0)
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind == "f" and dtype.itemsize < 8:
        return float(np.finfo(dtype).eps)
    if isinstance(values, (list, tuple)) and values and not isinstance(values[0], (list, tuple)):
        return max(precision(v) for v in values)
    if isinstance(values, Mapping):
        return max((precision(v) for v in values.values()), default=0.0)
    return 0.0


def _as_float(value: Any, name: str) -> float:
    number = isinstance(value, (Real, Decimal, np.number, np.bool_)) and not isinstance(value, complex)
    # a string that spells a number is a label more often than a mass
    alike = np.ndim(value) == 0 and hasattr(value, "__float__") and not isinstance(value, (str, bytes))
    if number or alike:
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"{name} is too large for double precision") from None
        except (TypeError, ValueError):
            pass
    raise ValueError(f"{name} = {str(value)[:40]!r} is not a number: pass real numbers, none missing")


def _kind(values: Any) -> str:
    return "None" if values is None else f"a {type(values).__name__}"
