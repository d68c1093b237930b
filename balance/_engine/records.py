"""Records of several variables: a table that is never formed, unless it is smaller than they are."""

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from balance._engine.dense import Dense
from balance._engine.masses import NEVER, Masses, Vectors


class RecordMasses(Masses):
    """The values are the weights of records; each axis has a code for every record."""

    def __init__(self, codes: tuple[NDArray[np.intp], ...], weights: NDArray[np.float64], shape, wrap):
        self.codes, self.values, self.shape, self._wrap = codes, weights, tuple(shape), wrap

    def contract(self, values, scalings, axis):
        return self.contract_each(values, scalings, [axis])[0]

    def contract_each(self, values: NDArray, scalings: Vectors, axes: Sequence[int]) -> list[NDArray[np.float64]]:
        # products of the scalings before and behind each axis: 2 d gathers for all d sums, not d (d - 1)
        sums: dict[int, NDArray] = {}
        wanted, before = set(axes), [values]
        for axis in range(max(axes)):
            before.append(before[-1] * scalings[axis][self.codes[axis]])
        behind: NDArray | None = None
        for axis in range(self.ndim - 1, min(axes) - 1, -1):
            if axis in wanted:
                product = before[axis] if behind is None else before[axis] * behind
                sums[axis] = np.bincount(self.codes[axis], product, minlength=self.shape[axis])
            if axis > min(axes):
                gathered = scalings[axis][self.codes[axis]]
                behind = gathered if behind is None else behind * gathered
        return [sums[axis] for axis in axes]

    def starting_sums(self):
        # nothing is scaled yet: no gathers
        return [np.bincount(c, self.values, minlength=n) for c, n in zip(self.codes, self.shape, strict=True)]

    def spread(self, vectors, ufunc):
        out = vectors[0][self.codes[0]]
        for vector, codes in zip(vectors[1:], self.codes[1:], strict=True):
            out = ufunc(out, vector[codes])
        return out

    def largest(self, values, axis):
        top = np.full(self.shape[axis], NEVER)
        np.maximum.at(top, self.codes[axis], values)
        return top

    def wrap(self, values):
        return self._wrap(values)


class Aggregated(Dense):
    """Records whose full table has fewer cells than there are records: the sums are those of the table."""

    def __init__(self, records: RecordMasses):
        cells = np.ravel_multi_index(records.codes, records.shape)
        table = np.bincount(cells, records.values, minlength=prod(records.shape)).reshape(records.shape)
        super().__init__(table, records.ndim)
        self.records = records

    def scaled(self, scalings, powers):
        return self.records.scaled(scalings, powers)

    def wrap(self, values):
        return self.records.wrap(values)
