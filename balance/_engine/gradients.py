"""Gradients of a finished run on tensors, whose memory does not grow with the half-steps.

The gradient of so many half-steps needs only the potentials after each of them; the table of weights
exp(S + g + ... - L) of a half-step is computed anew on the way back. At convergence not even they are needed: the
potentials are then a function of S by the equations f + L = log T, whose derivative is one linear system.
"""

from functools import reduce

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from balance._engine.logs import LogTensor, TensorState, at_least_float32

# Factors up to exp(this) between two tables of a run lose no digits that float32 has.
_MODERATE = 30.0
# Conjugate gradients need as many rounds as there are distinct singular values; the residual says when to stop.
_MOST_ROUNDS = 1000


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
    axis. With P the weights of the last half-step, all others are P times a vector for each axis: for two axes all the
    products with W are products of P with vectors, and the gradients add up to P times a table whose rank is the number
    of half-steps.
    """
    by_target = [torch.zeros_like(g) for g in gradients]
    before, current = [], list(state.start)
    for axis, fresh, found in state.trail:
        # exp(-L) stands on the axis of the half-step; a value that has no cell has no weights
        weights = list(current)
        weights[axis] = torch.where(found > -torch.inf, -found, 0)
        before.append(weights)
        current[axis] = fresh
    last = before[-1] if before else current
    table = masses.plus(last).exp()
    factor = masses.plus(last, logs=torch.zeros_like(table)).exp() if state.linear else table
    by_table = torch.zeros_like(table)
    rows, columns = [], []
    for (axis, *_), weights in zip(reversed(state.trail), reversed(before), strict=True):
        target = state.targets[axis]
        assert target is not None
        due = torch.where(target > -torch.inf, gradients[axis], 0)
        by_target[axis] = by_target[axis] + due
        shifts = [_finite(f - g) for f, g in zip(weights, last, strict=True)]
        gradients[axis] = torch.zeros_like(due)
        if masses.ndim == 2 and max(float(s.abs().max()) for s in shifts) < _MODERATE:
            x, y = -due * shifts[axis].exp(), shifts[1 - axis].exp()
            product = table.mT @ x.unsqueeze(-1) if axis == 0 else table @ x.unsqueeze(-1)
            gradients[1 - axis] = gradients[1 - axis] + y * product.squeeze(-1)
            rows.append(x if axis == 0 else y)
            columns.append(y if axis == 0 else x)
            continue
        weighted = masses.placed(-due, axis) * masses.plus(weights).exp()
        for other in range(masses.ndim):
            if other != axis:
                gradients[other] = gradients[other] + masses.sums(weighted, other)
        if state.linear:
            weighted = masses.placed(-due, axis) * masses.plus(weights, logs=torch.zeros_like(table)).exp()
        by_table += weighted
    if rows:
        by_table += factor * (torch.stack(rows, -1) @ torch.stack(columns, -1).mT)
    if state.divided:
        first = gradients[0].sum(-1)[(..., *(None,) * masses.ndim)]
        start = torch.zeros_like(table) if state.linear else masses.logs
        by_table -= first * (start + masses.placed(state.start[0], 0)).exp()
    return by_table, [None if t is None else g for t, g in zip(state.targets, by_target, strict=True)]


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
    if converged:
        # the equations of the limit need no half-steps
        state.trail.clear()
    # a target that stands for every table of a stack gets the sum of its gradients
    stacked = [t if t is None else t.expand(f.shape) for t, f in zip(log_targets, state.logs, strict=True)]
    return _Potentials.apply(values, state, converged, *stacked)
