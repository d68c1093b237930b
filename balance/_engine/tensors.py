"""Torch tensors: the loop on logarithms, on any device, with gradients; see `balance.data_balance`."""

from collections import deque
from itertools import islice
from math import log
from typing import Any

import numpy as np
import torch
from torch import Tensor

from balance._engine.checks import check_masses
from balance._engine.gradients import differentiable
from balance._engine.logs import LogTensor, TensorState, at_least_float32, to_numpy
from balance._engine.loop import half_steps
from balance._engine.numbers import entry, is_tensor
from balance._engine.read import check_logs
from balance._engine.result import BalanceResult
from balance._engine.run import ROUNDING, run
from balance._engine.targets import Goal, as_goals, as_sequence, check_reachable, normalized
from balance.scores import Scores


def log_potentials(scores: Tensor, targets: Any, steps: int, first: int, every: bool = True) -> tuple[Tensor, ...]:
    """Return the potentials (..., m), (..., l) of two-way tables of scores after some half-steps, for losses.

    Raises if a value with a target has no finite score: a loss has no place for the flags of a stack. Without targets
    they are uniform. Half-steps find out about the axes that they visit; `every` asks for the others too.
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
        for axis in {0, 1} - {axis for axis, *_ in state.trail} if every else ():
            target = log_targets[axis]
            if target is not None:
                empty = masses.logs.amax(-1 - axis) == -torch.inf
                wrong |= bool((empty & (target > -torch.inf)).any())
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
    return goals


def _log_targets(goals: list[Goal | None], targets: Any, masses: LogTensor) -> list[Tensor | None]:
    found: list[Tensor | None] = []
    for axis, (goal, target) in enumerate(zip(goals, as_sequence(targets), strict=True)):
        if goal is None:
            found.append(None)
            continue
        vector = goal.over(masses.shape[axis], axis, "the table", masses.stack)
        if is_tensor(target):
            # the target itself, not its copy: it may ask for a gradient
            values = target.to(dtype=masses.logs.dtype, device=masses.logs.device)
            values = values / values.sum(-1, keepdim=True)
        else:
            values = masses.logs.new_tensor(normalized(vector))
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
                    f"{entry('table', index)} = {plain[tuple(index)].item():.3g} is lost in {plain.dtype} beside the"
                    " largest entry (of double precision at most): set it to 0, raise it, or pass logarithms as Scores"
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
            whole, masses = masses, LogTensor(torch.where(keep, masses.logs, 0), axes)
        else:
            for axis, (goal, target) in enumerate(zip(goals, fixed, strict=True)):
                if goal is not None and target is not None:
                    seen = masses.log_sums(masses.logs, axis) > -torch.inf
                    check_reachable(to_numpy(target.exp()), to_numpy(seen), goal.name, axis, axes)
        state = TensorState(masses, fixed, linear)
        if steps is None and tol is None:
            tol = max(1e-9, state.rounding())
        trace = run(state, first=first, steps=steps, tol=tol, max_steps=max_steps, keep_iterates=keep_iterates)
    # tensors measure every error of every half-step
    history, flags = trace.history, None
    assert history is not None
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
        # what the result tells of such a table is told of its start, not of what stood in for it
        told = TensorState(whole, fixed, linear)
        told.logs = [torch.where(complete[..., None], f, g) for f, g in zip(state.logs, told.logs, strict=True)]
        state = told
        flags = complete.cpu().numpy()
        history[:, ~flags] = np.stack(told.errors(), axis=-1)[~flags]
    limit = max(ROUNDING, state.rounding()) if tol is None else tol
    result: BalanceResult[Tensor] = BalanceResult(
        steps=trace.steps,
        reason=trace.reason,
        targets=tuple(None if t is None else to_numpy(t.exp()) for t in fixed),
        iterates=None if trace.iterates is None else tuple(trace.iterates),
        complete=flags,
        _final=state,
        _tol=limit,
        _first=first,
        _problem=None,
        _history=history,
        _proof=trace.obstruction,
    )
    result.__dict__["table"] = final
    return result


def _complete(masses: LogTensor, log_targets: list[Tensor | None]) -> Tensor:
    """Return of each table whether each value with a target has a cell that may keep mass."""
    zeros = [
        masses.logs.new_zeros(n) if t is None else torch.where(t > -torch.inf, 0.0, t)
        for n, t in zip(masses.shape, log_targets, strict=True)
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
    if bool((~values.isfinite() | (values < 0)).any()):
        check_masses(to_numpy(values), name)
    if not bool((values.amax(tuple(range(-axes, 0))) > 0).all()):
        raise ValueError(f"{name}: a table has no mass: at least one entry must be positive")


def _refuse(scores: Tensor, axes: int = 2) -> None:
    # in float32 rounding takes a tenth of a mass with it beyond this: scores of 10,000 are wanted there
    most = 0.1 / torch.finfo(scores.dtype).eps
    if bool((scores.isnan() | ((scores > -torch.inf) & (scores.abs() > most))).any()):
        check_logs(to_numpy(scores), axes, most)
    if bool((scores.amax(tuple(range(-axes, 0))) == -torch.inf).any()):
        raise ValueError("scores has no mass: at least one entry of a table must be finite")
