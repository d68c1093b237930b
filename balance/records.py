"""Records of several variables, as an input of `balance.data_balance`: a table that is never formed."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks


class Records:
    """Weighted records: a sparse table with one cell for each record.

    Parameters
    ----------
    *codes : array_like of int, shape (n,), two or more
        The value of each variable in each record, as codes 0, 1, ... For labels pass the second result of
        ``numpy.unique(labels, return_inverse=True)``.
    weights : array_like, shape (n,), optional
        The mass of each record, finite and >= 0; equal if not given.

    Attributes
    ----------
    codes : tuple of ndarray of int, shape (n,)
    weights : ndarray, shape (n,)

    Raises
    ------
    ValueError
        If there are fewer than two variables, their lengths differ, a code is not an integer >= 0, or a weight is
        negative or not finite.

    Examples
    --------
    Six records of two variables, each to be even:

    >>> from balance import data_balance
    >>> records = Records([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 1])
    >>> result = data_balance(records, ([1, 1], [1, 1]), steps=1)
    >>> result.table.weights.tolist()
    [0.125, 0.125, 0.125, 0.125, 0.25, 0.25]
    """

    def __init__(self, *codes: ArrayLike, weights: ArrayLike | None = None):
        if len(codes) < 2:
            raise ValueError(f"{len(codes)} variables: pass the codes of at least 2")
        self.codes: tuple[NDArray[np.intp], ...] = tuple(
            checks.as_codes(values, f"codes[{axis}]") for axis, values in enumerate(codes)
        )
        lengths = [len(values) for values in self.codes]
        if len(set(lengths)) > 1:
            raise ValueError(f"the variables have {', '.join(map(str, lengths))} records: pass one code per record")
        n = lengths[0]
        self.weights: NDArray[np.float64] = (
            np.full(n, 1 / n) if weights is None else checks.as_masses(weights, "weights", ndim=1)
        )
        if len(self.weights) != n:
            raise ValueError(f"weights has length {len(self.weights)}, the variables have {n} records")

    def __len__(self) -> int:
        return len(self.weights)

    def __repr__(self) -> str:
        return f"Records({len(self)} records of {len(self.codes)} variables)"
