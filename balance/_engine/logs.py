"""Potentials of a table of logarithms, on tensors: what `balance._engine.loop.State` is for arrays.

A state holds potentials f, g, ...: its table is exp(S + f + g + ...). A half-step is f = log T - L, with L the
logarithm of the sums of exp(S + g + ...).
"""

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from balance._engine.dense import DenseLogs
from balance._engine.loop import State


def at_least_float32(values: Tensor) -> Tensor:
    """Return the tensor in float32 if it has fewer bits or is no floating point number."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


class LogTensor:
    """Logarithms of masses, shape (*stack, *shape)."""

    def __init__(self, logs: Tensor, axes: int):
        self.logs, self.ndim = logs, axes
        self.stack, self.shape = tuple(logs.shape[:-axes]), tuple(logs.shape[-axes:])

    def placed(self, vector: Tensor, axis: int) -> Tensor:
        """Return a vector (..., n) in a shape that broadcasts against the table."""
        return vector.reshape(*vector.shape[:-1], *(1,) * axis, vector.shape[-1], *(1,) * (self.ndim - 1 - axis))

    def plus(self, potentials, without: int | None = None, logs: Tensor | None = None) -> Tensor:
        """Return the logarithms plus the potentials, except that of one axis."""
        terms = [self.placed(f, a) for a, f in enumerate(potentials) if a != without]
        return reduce(torch.add, terms, self.logs if logs is None else logs)

    def others(self, axis: int | None) -> tuple[int, ...]:
        return tuple(b - self.ndim for b in range(self.ndim) if b != axis)

    def sums(self, values: Tensor, axis: int) -> Tensor:
        """Return the sums of values of the table on an axis."""
        return values.sum(self.others(axis)) if self.ndim > 1 else values

    def log_sums(self, logs: Tensor, axis: int) -> Tensor:
        return torch.logsumexp(logs, self.others(axis)) if self.ndim > 1 else logs


class TensorState:
    """What `balance._engine.loop.State` is for arrays: potentials of a table of logarithms."""

    powers = None

    def __init__(self, masses: LogTensor, log_targets: list[Tensor | None], linear: bool = False, divide: bool = True):
        self.masses, self.targets, self.linear = masses, log_targets, linear
        logs = masses.logs
        self.start = [logs.new_zeros((*masses.stack, n)) for n in masses.shape]
        # The zeroth iterate is the normalized table. Where nobody sees it the division can be spared: the first
        # half-step divides again.
        self.divided = divide
        if divide:
            self.start[0] = self.start[0] - torch.logsumexp(logs, masses.others(None)).unsqueeze(-1)
        self.logs = list(self.start)
        self.trail: list[tuple[int, Tensor, Tensor]] = []
        self.stranded: tuple[int, NDArray[np.bool_]] | None = None

    def step(self, axis: int, exponent: float = 1.0, accumulate: bool = True) -> None:
        target = self.targets[axis]
        assert target is not None
        found = self.masses.log_sums(self.masses.plus(self.logs, without=axis), axis)
        fresh = torch.where(target == -torch.inf, -torch.inf, target - found)
        if exponent != 1:
            old = torch.where(fresh == -torch.inf, 0, self.logs[axis])
            fresh = exponent * fresh + (1 - exponent) * old if accumulate else exponent * fresh
        if not self.masses.stack and bool((fresh == torch.inf).any()):
            self.stranded = axis, (fresh == torch.inf).cpu().numpy()
            return
        self.trail.append((axis, fresh, found))
        self.logs = [fresh if a == axis else f for a, f in enumerate(self.logs)]

    def marginals(self) -> list[NDArray[np.float64]]:
        whole = self.masses.plus(self.logs)
        return [to_numpy(self.masses.log_sums(whole, a).exp()) for a in range(self.masses.ndim)]

    def errors(self, exponent: float | None = None) -> list[NDArray[np.float64]]:
        found = []
        for marginal, target in zip(self.marginals(), self.targets, strict=True):
            gap = np.zeros((*self.masses.stack, 1)) if target is None else marginal - to_numpy(target.exp())
            found.append(0.5 * np.abs(gap).sum(axis=-1))
        return found

    def error(self, axis: int) -> NDArray[np.float64]:
        return self.errors()[axis]

    def saved(self) -> tuple:
        return list(self.logs), len(self.trail)

    def restore(self, saved: tuple) -> None:
        self.logs, length = list(saved[0]), saved[1]
        del self.trail[length:]

    def potentials(self) -> tuple[NDArray[np.float64], ...]:
        start = torch.logsumexp(self.masses.logs, self.masses.others(None)).unsqueeze(-1)
        return tuple(to_numpy(f + start) if a == 0 else to_numpy(f) for a, f in enumerate(self.logs))

    def table(self) -> Tensor:
        logs = self.masses.plus(self.logs)
        return logs.exp() if self.linear else logs

    def rounding(self) -> float:
        return 16 * torch.finfo(self.masses.logs.dtype).eps * (1 + max(self.masses.shape)) ** 0.5

    def in_numpy(self) -> State | None:
        """Return the same state on arrays, for a proof of infeasibility."""
        if self.masses.stack:
            return None
        masses = DenseLogs(to_numpy(self.masses.logs), self.masses.ndim)
        state = State(masses, [None if t is None else to_numpy(t.exp()) for t in self.targets])
        state.scalings = [np.exp(np.clip(f, -600, 600)) for f in self.potentials()]
        state.stranded, state._sums = self.stranded, [None] * self.masses.ndim
        return state


def to_numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().numpy().astype(np.float64)
