"""Dense tables: one, or a stack of them; as masses, or as logarithms of masses."""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balance._engine.masses import NEVER, Masses, log_scalings

# A block of rows of this size stays in the second- or third-level cache between the two halves of a sweep.
_BLOCK_BYTES = 1 << 20
# A product with fewer cells than this is faster in einsum than in one call of BLAS for each table of a stack.
_SMALL_TABLE = 256


class Dense(Masses):
    """A table of any number of axes; the first `len(stack)` axes number the tables."""

    every_cell = True

    def __init__(self, values: NDArray, axes: int, wrap=lambda values: values):
        self.values, self._wrap = values, wrap
        self.stack, self.shape = values.shape[:-axes], values.shape[-axes:]

    def contract(self, values, scalings, axis):
        if self.ndim == 2:
            other = scalings[1 - axis]
            if not self.stack:
                return values @ other if axis == 0 else other @ values
            if prod(self.shape) <= _SMALL_TABLE:
                return np.einsum("...xy,...y->...x" if axis == 0 else "...xy,...x->...y", values, other)
            if axis == 0:
                return (values @ other[..., None])[..., 0]
            return (other[..., None, :] @ values)[..., 0, :]
        # the axes behind `axis` first, from the last one; then those before it, from the first one
        for b in range(self.ndim - 1, axis, -1):
            u = scalings[b].reshape(*self.stack, *(1,) * (b - 1), -1, 1)
            values = (values @ u)[..., 0]
        for b in range(axis):
            kept = values.shape[len(self.stack) + 1 :]
            flat = values.reshape(*self.stack, values.shape[len(self.stack)], prod(kept))
            values = (scalings[b][..., None, :] @ flat)[..., 0, :].reshape(*self.stack, *kept)
        return values

    def ahead(self, values, scalings, axis, rule):
        # one pass over memory for two half-steps, where the rows of `axis` lie one after the other
        if self.stack or self.ndim != 2:
            return None
        rows = values if axis == 0 else values.T
        if not rows.flags.c_contiguous:
            return None
        size, other = len(rows), scalings[1 - axis]
        sums, fresh, ahead = np.empty(size), np.empty(size), np.zeros(rows.shape[1])
        step = max(1, _BLOCK_BYTES // rows.strides[0])
        for begin in range(0, size, step):
            part = slice(begin, begin + step)
            block = rows[part]
            np.dot(block, other, out=sums[part])
            fresh[part] = rule(sums[part], part)
            ahead += fresh[part] @ block
        return sums, fresh, ahead

    def spread(self, vectors, ufunc):
        out = vectors[0].reshape(vectors[0].shape + (1,) * (self.ndim - 1))
        for axis, vector in enumerate(vectors[1:], 1):
            trailing = (1,) * (self.ndim - 1 - axis)
            out = ufunc(out, vector.reshape(*vector.shape[:-1], *(1,) * axis, vector.shape[-1], *trailing))
        return out

    def largest(self, values, axis):
        others = tuple(b - self.ndim for b in range(self.ndim) if b != axis)
        return values.max(axis=others, initial=NEVER)

    def wrap(self, values) -> Any:
        return self._wrap(values)


class DenseLogs(Dense):
    """Logarithms S of masses, -inf where there is none. The values are exp(S) / sum exp(S)."""

    def __init__(self, logs: NDArray[np.float64], axes: int, wrap=lambda values: values):
        inner = tuple(range(-axes, 0))
        top = logs.max(axis=inner, keepdims=True)
        values = np.exp(logs - top)
        total = values.sum(axis=inner, keepdims=True)
        super().__init__(values / total, axes, wrap)
        # a common offset first: it may be larger than all differences
        self.logs = (logs - top) - np.log(total)
        self.total = np.ones((*self.stack, 1))

    def exponents(self):
        exponents = np.full(self.logs.shape, NEVER)
        present = self.logs > -np.inf
        exponents[present] = np.floor(self.logs[present] / np.log(2)).astype(np.int64) + 1
        return exponents

    def shifted(self, powers):
        with np.errstate(under="ignore"):
            return np.exp(self.logs + np.log(2) * self.spread(powers, np.add))

    def scaled(self, scalings, powers):
        return self.wrap(self.logs + self.spread(log_scalings(scalings, powers), np.add))
