"""Masses that are mostly zero: SciPy sparse tables, and records. The cost is that of the cells that are stored."""

import numpy as np
from scipy import sparse

from balance._scaling import Masses
from balance.records import Records


class SparseMasses(Masses):
    """The values are the data of a table with two axes in compressed rows."""

    def __init__(self, table: sparse.csr_array):
        super().__init__(table.data, table.shape)
        self.indices, self.indptr = table.indices, table.indptr

    def contract(self, values, scalings, axis):
        table = sparse.csr_array((values, self.indices, self.indptr), shape=self.shape)
        return table @ scalings[1] if axis == 0 else table.T @ scalings[0]

    def spread(self, scalings):
        return np.repeat(scalings[0], np.diff(self.indptr)) * scalings[1][self.indices]

    def support(self):
        rows = np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))
        return rows[self.values > 0], self.indices[self.values > 0]

    def wrap(self, values):
        return sparse.csr_array((values, self.indices, self.indptr), shape=self.shape, copy=True)


class RecordMasses(Masses):
    """The values are the weights of records; each axis has a code for every record."""

    def __init__(self, codes, weights, shape):
        super().__init__(weights, shape)
        self.codes = codes

    def contract(self, values, scalings, axis):
        for other, codes in enumerate(self.codes):
            if other != axis:
                values = values * scalings[other][codes]
        return np.bincount(self.codes[axis], values, minlength=self.shape[axis])

    def spread(self, scalings):
        product = scalings[0][self.codes[0]]
        for scaling, codes in zip(scalings[1:], self.codes[1:], strict=True):
            product = product * scaling[codes]
        return product

    def support(self):
        return tuple(codes[self.values > 0] for codes in self.codes)

    def wrap(self, values):
        return Records(*self.codes, weights=values)
