"""Torch tensors: the loop on logarithms, on any device, with gradients whose memory does not grow with the steps.

A state holds potentials f, g, ...: its table is exp(S + f + g + ...). A half-step is f = log T - L, with L the logarithm
of the sums of exp(S + g + ...). The gradient of so many half-steps needs only these vectors; the table of weights
exp(S + g + ... - L) of a half-step is computed anew on the way back. At convergence not even they are needed: the
potentials are then a function of S by the equations f + L = log T, whose derivative is one linear system.
"""

from collections import deque
from functools import reduce
from itertools import islice
from math import log
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from balance._engine.dense import DenseLogs
from balance._engine.loop import State, half_steps
from balance._engine.numbers import entry, is_tensor
from balance._engine.read import Problem
from balance._engine.result import BalanceResult
from balance._engine.run import ROUNDING, run
from balance._engine.targets import Goal, as_goals, as_sequence, check_reachable, normalized
from balance.scores import Scores

# Factors up to exp(this) between two tables of a run lose no digits that float32 has.
_MODERATE = 30.0
# Conjugate gradients need as many rounds as there are distinct singular values; the residual says when to stop.
_MOST_ROUNDS = 1000


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

    def wrap(self, values: Tensor) -> Tensor:
        return values


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
        self.trail: list[tuple[int, Tensor]] = []
        self.stranded: tuple[int, NDArray[np.bool_]] | None = None

    def step(self, axis: int, exponent: float = 1.0, accumulate: bool = True) -> None:
        found = self.masses.log_sums(self.masses.plus(self.logs, without=axis), axis)
        fresh = torch.where(self.targets[axis] == -torch.inf, -torch.inf, self.targets[axis] - found)
        if exponent != 1:
            old = torch.where(fresh == -torch.inf, 0, self.logs[axis])
            fresh = exponent * fresh + (1 - exponent) * old if accumulate else exponent * fresh
        if not self.masses.stack and bool((fresh == torch.inf).any()):
            self.stranded = axis, (fresh == torch.inf).cpu().numpy()
            return
        self.trail.append((axis, fresh))
        self.logs = [fresh if a == axis else f for a, f in enumerate(self.logs)]

    def marginals(self) -> list[NDArray[np.float64]]:
        whole = self.masses.plus(self.logs)
        return [_numpy(self.masses.log_sums(whole, a).exp()) for a in range(self.masses.ndim)]

    def errors(self, exponent: float | None = None) -> list[NDArray[np.float64]]:
        found = []
        for marginal, target in zip(self.marginals(), self.targets, strict=True):
            gap = 0 if target is None else marginal - _numpy(target.exp())
            found.append(0.5 * np.abs(gap).sum(axis=-1) if target is not None else np.zeros(self.masses.stack))
        return found

    def saved(self) -> tuple:
        return list(self.logs), len(self.trail)

    def restore(self, saved: tuple) -> None:
        self.logs, length = list(saved[0]), saved[1]
        del self.trail[length:]

    def potentials(self) -> tuple[NDArray[np.float64], ...]:
        start = torch.logsumexp(self.masses.logs, self.masses.others(None)).unsqueeze(-1)
        return tuple(_numpy(f + start) if a == 0 else _numpy(f) for a, f in enumerate(self.logs))

    def table(self) -> Tensor:
        logs = self.masses.plus(self.logs)
        return logs.exp() if self.linear else logs

    def rounding(self) -> float:
        return 16 * torch.finfo(self.masses.logs.dtype).eps * (1 + max(self.masses.shape)) ** 0.5

    def in_numpy(self) -> State | None:
        """Return the same state on arrays, for a proof of infeasibility."""
        if self.masses.stack:
            return None
        masses = DenseLogs(_numpy(self.masses.logs), self.masses.ndim)
        state = State(masses, [None if t is None else _numpy(t.exp()) for t in self.targets])
        state.scalings = [np.exp(np.clip(f, -600, 600)) for f in self.potentials()]
        state.stranded, state._sums = self.stranded, [None] * self.masses.ndim
        return state


class _Potentials(torch.autograd.Function):
    """The potentials after a run that is done already, as a function of the table and the targets."""

    @staticmethod
    def forward(ctx, values, state, converged, *log_targets):
        ctx.state, ctx.converged = state, converged
        ctx.save_for_backward(values)
        return tuple(f.clone() for f in state.logs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        (values,) = ctx.saved_tensors
        state, masses = ctx.state, ctx.state.masses
        if state.linear:
            logs = torch.where(values > 0, values, 1).log()
            masses = LogTensor(torch.where(values > 0, logs, -torch.inf), masses.ndim)
        else:
            masses = LogTensor(at_least_float32(values), masses.ndim)
        gradients = [torch.nan_to_num(g, nan=0.0) for g in gradients]
        whole = _implicit if ctx.converged else _stepwise
        found, by_target = whole(state, masses, gradients)
        return found.to(values.dtype), None, None, *by_target


def _stepwise(state: TensorState, masses: LogTensor, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients through the half-steps of the trail, from the last one back.

    The derivative of L with respect to S are the weights W = exp(S + g + ... - L), which sum to 1 on each value of the
    axis. With P the last table, W = P exp(-L - f_last) exp(g - g_last): for two axes all the products with W are
    products of P with vectors, and the gradients add up to P times a table whose rank is the number of half-steps.
    """
    by_target = [None if t is None else torch.zeros_like(g) for t, g in zip(state.targets, gradients, strict=True)]
    before, current = [], list(state.start)
    for axis, fresh in state.trail:
        before.append(list(current))
        current[axis] = fresh
    table = masses.plus(state.logs).exp()
    factor = masses.plus(state.logs, logs=torch.zeros_like(table)).exp() if state.linear else table
    by_table = torch.zeros_like(table)
    rows, columns = [], []
    for (axis, fresh), potentials in zip(reversed(state.trail), reversed(before), strict=True):
        target = state.targets[axis]
        due = torch.where(target > -torch.inf, gradients[axis], 0)
        by_target[axis] = by_target[axis] + due
        # exp(-L) compared with what the last table was scaled by, and the same for the other axes
        shifts = [_finite(f - last) for f, last in zip(potentials, state.logs, strict=True)]
        shifts[axis] = _finite(fresh - target - state.logs[axis])
        gradients[axis] = torch.zeros_like(due)
        if masses.ndim == 2 and max(float(s.abs().max()) for s in shifts) < _MODERATE:
            x, y = -due * shifts[axis].exp(), shifts[1 - axis].exp()
            product = table.mT @ x.unsqueeze(-1) if axis == 0 else table @ x.unsqueeze(-1)
            gradients[1 - axis] = gradients[1 - axis] + y * product.squeeze(-1)
            rows.append(x if axis == 0 else y)
            columns.append(y if axis == 0 else x)
            continue
        potentials[axis] = torch.where(target > -torch.inf, fresh - target, 0)
        weighted = masses.placed(-due, axis) * masses.plus(potentials).exp()
        for other in range(masses.ndim):
            if other != axis:
                gradients[other] = gradients[other] + masses.sums(weighted, other)
        if state.linear:
            weighted = masses.placed(-due, axis) * masses.plus(potentials, logs=torch.zeros_like(table)).exp()
        by_table += weighted
    if rows:
        by_table += factor * (torch.stack(rows, -1) @ torch.stack(columns, -1).mT)
    if state.divided:
        first = gradients[0].sum(-1)[(..., *(None,) * masses.ndim)]
        start = torch.zeros_like(table) if state.linear else masses.logs
        by_table -= first * (start + masses.placed(state.start[0], 0)).exp()
    return by_table, by_target


def _finite(shifts: Tensor) -> Tensor:
    """Return the shifts, 0 where a value has no mass on either side; infinite where it lost it in between."""
    return torch.where(shifts.isnan(), 0, shifts)


def _implicit(state: TensorState, masses: LogTensor, gradients: list[Tensor]) -> tuple[Tensor, list[Tensor | None]]:
    """Gradients at the limit, by the equations f_a + L_a = log T_a.

    With P the limit, the multipliers solve M mu = gradient, where M has the marginals of P on its diagonal and the
    two-way margins beside it: the Gram matrix of the functions of one variable. It is semidefinite, its kernel the
    constants that cancel, and conjugate gradients solve such systems.
    """
    table = masses.plus(state.logs).exp()
    axes = [a for a, t in enumerate(state.targets) if t is not None]
    weights = {a: masses.sums(table, a) for a in axes}

    def spread(vectors):
        return reduce(torch.add, [masses.placed(vectors[a], a) for a in axes])

    def product(vectors):
        cells = table * spread(vectors)
        return {a: masses.sums(cells, a) for a in axes}

    def inner(u, v):
        return reduce(torch.add, [(u[a] * v[a]).sum(-1, keepdim=True) for a in axes])

    def scaled(vectors):
        return {
            a: torch.where(weights[a] > 0, vectors[a] / torch.where(weights[a] > 0, weights[a], 1), 0) for a in axes
        }

    solution = {a: torch.zeros_like(weights[a]) for a in axes}
    residual = {a: torch.where(weights[a] > 0, gradients[a], 0) for a in axes}
    preconditioned = scaled(residual)
    direction, rho = preconditioned, inner(residual, preconditioned)
    goal = rho * (4 * torch.finfo(table.dtype).eps) ** 2
    for _ in range(_MOST_ROUNDS):
        if bool((rho <= goal).all()):
            break
        image = product(direction)
        curvature = inner(direction, image)
        step = torch.where(curvature > 0, rho / torch.where(curvature > 0, curvature, 1), 0)
        solution = {a: solution[a] + step * direction[a] for a in axes}
        residual = {a: residual[a] - step * image[a] for a in axes}
        preconditioned = scaled(residual)
        fresh = inner(residual, preconditioned)
        ratio = torch.where(rho > 0, fresh / torch.where(rho > 0, rho, 1), 0)
        direction, rho = {a: preconditioned[a] + ratio * direction[a] for a in axes}, fresh
    by_target = [None if t is None else solution[a] * weights[a] for a, t in enumerate(state.targets)]
    factor = masses.plus(state.logs, logs=torch.zeros_like(table)).exp() if state.linear else table
    return -factor * spread(solution), by_target


def differentiable(values: Tensor, state: TensorState, log_targets: list, converged: bool) -> tuple[Tensor, ...]:
    """Return the potentials of a finished run, with a gradient if the table or a target asks for one."""
    if not any(t is not None and t.requires_grad for t in (values, *log_targets)) or not torch.is_grad_enabled():
        return tuple(state.logs)
    # a target that stands for every table of a stack gets the sum of its gradients
    stacked = [t if t is None else t.expand(f.shape) for t, f in zip(log_targets, state.logs, strict=True)]
    return _Potentials.apply(values, state, converged, *stacked)


def log_potentials(scores: Tensor, targets: Any, steps: int, first: int) -> tuple[Tensor, ...]:
    """Return the potentials (..., m), (..., l) of two-way tables of scores after some half-steps, for losses.

    Raises if a value with a target has no finite score: a loss has no place for the flags of a stack. Without targets
    they are uniform.
    """
    _check_kind(scores, "scores")
    masses = LogTensor(at_least_float32(scores.detach()), 2)
    if 0 in masses.shape:
        raise ValueError(f"scores has shape {tuple(scores.shape)}: pass at least one value on each axis")
    if targets is None:
        log_targets: list[Tensor | None] = [masses.logs.new_full((n,), -log(n)) for n in masses.shape]
    else:
        log_targets = _log_targets(as_goals_of(targets, masses), targets, masses)
    with torch.no_grad(), torch.autocast(scores.device.type, enabled=False):
        state = TensorState(masses, [None if t is None else t.detach() for t in log_targets], divide=steps == 0)
        deque(islice(half_steps(state, first), steps + 1), maxlen=0)
        # NaN or an infinity anywhere is one in a sum of the potentials; -inf is a value of target 0
        wrong = any(bool((f.isnan() | (f == torch.inf)).any()) for f in state.logs)
    if state.stranded is not None or wrong:
        _refuse(masses.logs)
        raise ValueError(
            "scores: a row or column with a target is empty, all its scores are -inf: give it a finite one"
        )
    return differentiable(scores, state, log_targets, converged=False)


def as_goals_of(targets: Any, masses: LogTensor) -> list[Goal | None]:
    """Return checked targets for the axes of a tensor."""
    goals = as_goals(targets, stacked=bool(masses.stack))
    if len(goals) != masses.ndim:
        raise ValueError(
            f"{len(goals)} targets for a table with {masses.ndim} axes: pass one for each, None for a free one"
        )
    for axis, goal in enumerate(goals):
        if goal is not None and goal.values.ndim == 1:
            goal.aligned(None, masses.shape[axis], axis, "the table")
        elif goal is not None and goal.values.shape != (*masses.stack, masses.shape[axis]):
            raise ValueError(
                f"{goal.name} has shape {goal.values.shape}, expected {(*masses.stack, masses.shape[axis])}"
            )
    return goals


def _log_targets(goals: list[Goal | None], targets: Any, masses: LogTensor) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for axis, (goal, target) in enumerate(zip(goals, as_sequence(targets), strict=True)):
        if goal is None:
            found.append(None)
            continue
        if is_tensor(target):
            values = target.to(dtype=masses.logs.dtype, device=masses.logs.device)
            values = values / values.sum(-1, keepdim=True)
        else:
            single = goal.values.ndim == 1
            vector = goal.aligned(None, masses.shape[axis], axis, "the table") if single else goal.values
            values = masses.logs.new_tensor(normalized(goal, vector))
        # the derivative of log at 0 would make that of everything undefined
        found.append(torch.where(values > 0, torch.where(values > 0, values, 1).log(), -torch.inf))
    return found


def balance(
    table: Any, targets: Any, steps: int | None, tol: float | None, max_steps: int, first: int, keep_iterates: bool
) -> BalanceResult[Tensor]:
    """Balance a tensor, or `Scores` of one; see `balance.data_balance`."""
    linear = not isinstance(table, Scores)
    values = table if linear else table.values
    _check_kind(values, "table" if linear else "scores")
    axes = len(as_sequence(targets))
    if axes < 2 or values.ndim < axes:
        raise ValueError(f"{axes} targets for a tensor with {values.ndim} axes: pass one for each axis of a table")
    if not 0 <= first < axes:
        raise ValueError(f"first = {first!r}: choose an integer from 0 to {axes - 1}")
    stacked = values.ndim > axes
    if stacked and keep_iterates:
        raise ValueError("keep_iterates: pass one table at a time; the errors of a stack are in `history`")
    with torch.no_grad():
        plain = at_least_float32(values.detach())
        _check(plain, linear, axes)
        # a constant factor changes neither the result nor its gradient, and leaves room on both sides
        if linear:
            peak = plain.amax(tuple(range(-axes, 0)), keepdim=True)
            lost = (plain > 0) & (plain / peak < torch.finfo(plain.dtype).tiny).logical_and(plain / peak < plain)
            if bool(lost.any()):
                index = lost.nonzero()[0].tolist()
                raise ValueError(
                    f"{entry('table', index)} = {plain[tuple(index)].item():.3g} is lost in {plain.dtype} beside the largest"
                    " entry (of double precision at most): set it to 0, raise it, or pass logarithms as Scores"
                )
            plain = plain / peak
        else:
            peak = plain.amax(tuple(range(-axes, 0)), keepdim=True)
            plain = plain - peak
        masses = LogTensor(plain.log() if linear else plain, axes)
    goals = as_goals_of(targets, masses)
    log_targets = _log_targets(goals, targets, masses)
    fixed = [None if t is None else t.detach() for t in log_targets]
    scaled = at_least_float32(values) / peak if linear else at_least_float32(values) - peak
    complete, safe = None, scaled
    with torch.no_grad():
        if stacked:
            complete = _complete(masses, fixed)
            keep = complete[(..., *(None,) * axes)]
            masses = LogTensor(torch.where(keep, masses.logs, 0), axes)
        else:
            for axis, (goal, target) in enumerate(zip(goals, fixed, strict=True)):
                if goal is not None:
                    seen = masses.log_sums(masses.logs, axis) > -torch.inf
                    check_reachable(_numpy(target.exp()), _numpy(seen), goal.name, axis, axes)
        state = TensorState(masses, fixed, linear)
        if steps is None and tol is None:
            tol = max(1e-9, state.rounding())
        trace = run(state, first=first, steps=steps, tol=tol, max_steps=max_steps, keep_iterates=keep_iterates)
    if complete is not None:
        safe = torch.where(keep, scaled, torch.ones_like(scaled) if linear else torch.zeros_like(scaled))
    potentials = differentiable(safe, state, log_targets, trace.reason == "tolerance")
    if linear:
        zero = torch.zeros_like(masses.logs)
        growth = masses.plus(potentials, logs=zero)
        positive = torch.where(safe > 0, safe, 1)
        # at an empty cell the value is 0, and its derivative the product of the scalings
        empty = safe * growth.exp().clamp(max=torch.finfo(safe.dtype).max)
        final = torch.where(safe > 0, (positive.log() + torch.where(safe > 0, growth, 0)).exp(), empty)
    else:
        final = masses.plus(potentials, logs=safe)
    if complete is not None:
        start = scaled
        inner = masses.others(None)
        total = start.sum(inner, keepdim=True) if linear else start.logsumexp(inner, keepdim=True)
        final = torch.where(keep, final, start / total if linear else start - total)
    errors = trace.history
    flags = None if complete is None else complete.cpu().numpy()
    limit = max(ROUNDING, state.rounding()) if tol is None else tol
    result: BalanceResult[Tensor] = BalanceResult(
        steps=len(errors) - 1,
        reason=trace.reason,
        targets=tuple(None if t is None else _numpy(t.exp()) for t in fixed),
        iterates=None if trace.iterates is None else tuple(trace.iterates),
        complete=flags,
        _final=state,
        _tol=limit,
        _first=first,
        _problem=Problem(masses, [], [], _total(goals)),
        _history=errors,
        _proof=trace.obstruction,
    )
    result.__dict__["table"] = final
    return result


def _complete(masses: LogTensor, log_targets: list[Tensor | None]) -> Tensor:
    """Return of each table whether each value with a target has a cell that may keep mass."""
    zeros = [
        masses.logs.new_zeros(n) if t is None else torch.where(t > -torch.inf, 0.0, t)
        for n, t in zip(masses.shape, log_targets)
    ]
    live = masses.plus(zeros)
    found = torch.ones(masses.stack, dtype=torch.bool, device=masses.logs.device)
    for axis, target in enumerate(log_targets):
        if target is not None:
            found &= ((masses.log_sums(live, axis) > -torch.inf) | (target == -torch.inf)).all(-1)
    return found


def _check_kind(values: Tensor, name: str) -> None:
    if values.layout != torch.strided or values.is_complex():
        raise ValueError(
            f"{name} is a {values.dtype} tensor with layout {values.layout}: pass a dense one of real numbers"
        )


def _check(values: Tensor, linear: bool, axes: int) -> None:
    """Raise for what is no table of masses, or of logarithms of masses."""
    name = "table" if linear else "scores"
    if values.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(values.shape)}: pass at least one value on each axis")
    if not linear:
        _refuse(values, axes)
        return
    wrong = ~values.isfinite() | (values < 0)
    if bool(wrong.any()):
        index = wrong.nonzero()[0].tolist()
        what = (
            "is negative: masses are >= 0"
            if values[tuple(index)] < 0
            else "is not a finite number: remove or impute it"
        )
        raise ValueError(f"{entry(name, index)} = {values[tuple(index)].item()} {what}")
    if not bool((values.amax(tuple(range(-axes, 0))) > 0).all()):
        raise ValueError(f"{name}: a table has no mass: at least one entry must be positive")


def _refuse(scores: Tensor, axes: int = 2) -> None:
    # beyond this, rounding takes a tenth of a mass with it
    most = 0.1 / torch.finfo(scores.dtype).eps
    wrong = scores.isnan() | ((scores > -torch.inf) & (scores.abs() > most))
    if bool(wrong.any()):
        index = wrong.nonzero()[0].tolist()
        value = scores[tuple(index)].item()
        raise ValueError(
            f"{entry('scores', index)} = {value}: scores are finite, or -inf for an empty cell, and not so large that their"
            " differences are lost"
        )
    if bool((scores.amax(tuple(range(-axes, 0))) == -torch.inf).any()):
        raise ValueError("scores has no mass: at least one entry of a table must be finite")


def _total(goals: list[Goal | None]) -> float:
    return float(next(np.max(g.total) for g in goals if g is not None))


def _numpy(values: Tensor) -> NDArray[np.float64]:
    return values.detach().cpu().numpy().astype(np.float64)
