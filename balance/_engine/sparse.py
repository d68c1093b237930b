"""SciPy sparse tables: the cost of a half-step is that of the cells that are stored."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from balance._engine.masses import NEVER, Masses


class Sparse(Masses):
    """The values are the data of a table in compressed rows."""

    def __init__(self, table: sparse.csr_array):
        self.values, self.shape = table.data, table.shape
        self.indices, self.indptr = table.indices, table.indptr
        self._matrix = table
        self._transposed: sparse.csr_array | None = None

    @cached_property
    def _rows(self) -> NDArray[np.integer]:
        return np.repeat(np.arange(self.shape[0], dtype=self.indices.dtype), np.diff(self.indptr))

    def contract(self, values, scalings, axis):
        # A product with the rows of the transpose gathers, where one with its columns would scatter: twice as fast.
        if values is not self._matrix.data:
            self._matrix = sparse.csr_array((values, self.indices, self.indptr), shape=self.shape)
            self._transposed = None
        if axis == 0:
            return self._matrix @ scalings[1]
        if self._transposed is None:
            self._transposed = self._matrix.T.tocsr()
        return self._transposed @ scalings[0]

    def starting_sums(self):
        # without the transpose, which a single half-step on the rows does not need
        ones = np.ones(self.shape[0])
        return [self._matrix @ np.ones(self.shape[1]), self._matrix.T @ ones]

    def spread(self, vectors, ufunc):
        return ufunc(vectors[0][self._rows], vectors[1][self.indices])

    def largest(self, values, axis):
        top = np.full(self.shape[axis], NEVER)
        np.maximum.at(top, (self._rows, self.indices)[axis], values)
        return top

    def wrap(self, values):
        return sparse.csr_array((values, self.indices, self.indptr), shape=self.shape, copy=True)
