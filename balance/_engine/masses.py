"""How masses are held: what a kind of table must know, and nothing about the iteration.

A kind holds values that are never rewritten. It can sum them along all axes but one, each value multiplied by one
scaling per axis (`contract`); say what the scalings of each value multiply or add up to (`spread`); multiply its values
by powers of two (`shifted`); and give values back in the form in which the user passed them (`wrap`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Vectors = Sequence[NDArray[np.float64]]

# Scalings between the inverse of this and this: a product of two of them and a mass stays a double, and a mass that
# underflowed (below 1e-308) weighs less than 1e-100 of any sum that it belongs to.
WIDEST = 1e100


class Masses(ABC):
    """Masses of one kind.

    Attributes
    ----------
    values : ndarray
        The masses, in an order of the kind's own; their sum is `total` (for a stack, those of each table).
    shape : tuple of int
        Number of values of each balanced axis.
    stack : tuple of int
        Shape of a stack of tables; () for one table.
    total : ndarray, shape (*stack, 1)
        Mass of each table.
    borrowed : bool
        Whether the values are the user's own array; then `fingerprint` are its sums on axis 0 when it was read.
    """

    values: NDArray[np.float64]
    shape: tuple[int, ...]
    stack: tuple[int, ...] = ()
    total: NDArray[np.float64]
    # whether each combination of values has a place, so that an absent cell is an entry of 0
    every_cell: ClassVar[bool] = False
    borrowed: bool = False
    fingerprint: NDArray[np.float64] | None = None

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @abstractmethod
    def contract(self, values: NDArray, scalings: Vectors, axis: int) -> NDArray[np.float64]:
        """Return the sums on `axis`, shape (*stack, n), of such values scaled along every other axis."""

    def contract_each(self, values: NDArray, scalings: Vectors, axes: Sequence[int]) -> list[NDArray[np.float64]]:
        """Return the same for several axes."""
        return [self.contract(values, scalings, axis) for axis in axes]

    @abstractmethod
    def spread(self, vectors: Sequence[NDArray], ufunc: np.ufunc) -> NDArray:
        """Return, for each of the values, the product (or sum, by `ufunc`) of the entries that belong to it."""

    @abstractmethod
    def largest(self, values: NDArray, axis: int) -> NDArray:
        """Return the largest of such values on `axis`, shape (*stack, n); the least integer where there is none."""

    @abstractmethod
    def wrap(self, values: NDArray) -> Any:
        """Return values of this kind in the form in which the user passed them."""

    def starting_sums(self) -> list[NDArray[np.float64]]:
        """Return the sums of the values on every axis."""
        ones = [np.ones((*self.stack, n)) for n in self.shape]
        return self.contract_each(self.values, ones, range(self.ndim))

    def ahead(self, values: NDArray, scalings: Vectors, axis: int, rule) -> tuple | None:
        """Return the sums on `axis`, ``rule(sums, part)``, and the sums on the other axis after it; None: no gain."""
        return None

    def exponents(self) -> NDArray[np.int64]:
        """Return for each value the integer e with 2^(e-1) <= value < 2^e, very small for 0."""
        return np.where(self.values > 0, np.frexp(self.values)[1].astype(np.int64), NEVER)

    def shifted(self, powers: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        """Return the values times 2 to the powers of all axes: exact, unless it underflows."""
        return np.ldexp(self.values, self.spread(powers, np.add).astype(np.int32))

    def scaled(self, scalings: Vectors, powers: Sequence[NDArray[np.int64]] | None) -> Any:
        """Return the values times the scalings times 2 to the powers, in the user's form."""
        if powers is None and all(_moderate(u) for u in scalings):
            return self.wrap(self.values * self.spread(scalings, np.multiply))
        # mantissas and exponents apart: no factor underflows before the product does
        parts = [np.frexp(u) for u in scalings]
        exponents = [e.astype(np.int64) for _, e in parts]
        if powers is not None:
            exponents = [e + p for e, p in zip(exponents, powers, strict=True)]
        mantissa, exponent = np.frexp(self.values)
        mantissa = mantissa * self.spread([m for m, _ in parts], np.multiply)
        exponent = exponent + self.spread(exponents, np.add)
        return self.wrap(np.ldexp(mantissa, np.clip(exponent, -(10**6), 10**6).astype(np.int32)))


# 2 to this power is 0 in every sum that follows, and sums of a few of these are still integers
NEVER = np.int64(-(2**60))


def log_scalings(scalings: Vectors, powers: Sequence[NDArray[np.int64]] | None) -> list[NDArray[np.float64]]:
    """Return the logarithms of scalings times 2 to the powers; -inf for 0."""
    with np.errstate(divide="ignore"):
        logs = [np.log(u) for u in scalings]
    return logs if powers is None else [f + np.log(2) * e for f, e in zip(logs, powers, strict=True)]


def _moderate(scaling: NDArray) -> bool:
    """Whether the positive entries are far from both ends of the doubles."""
    return bool(((scaling == 0) | ((scaling > 1e-30) & (scaling < 1e30))).all())
