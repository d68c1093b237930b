"""Masses in a dense NumPy table with any number of axes."""

import functools

import numpy as np

from balance._scaling import Masses


class DenseMasses(Masses):
    """The values are the table itself."""

    def __init__(self, table):
        super().__init__(table, table.shape)

    def contract(self, values, scalings, axis):
        for scaling in reversed(scalings[axis + 1 :]):
            values = values @ scaling
        for scaling in scalings[:axis]:
            values = np.tensordot(scaling, values, 1)
        return values

    def spread(self, scalings):
        return functools.reduce(np.multiply.outer, scalings)

    def support(self):
        return np.nonzero(self.values)

    def wrap(self, values):
        return values
