"""Stacks: many tables balanced at once, in blocks that stay in the cache, shared among the cores.

The tables are worked through in blocks of 4 MB. A block is one state of the loop; its scalings are kept, so that
nothing of the size of the stack is written until the balanced tables are asked for. More than one block: as many
threads as cores, which pays because a contraction of NumPy releases the interpreter.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from balance._engine.checks import check_masses
from balance._engine.dense import Dense, DenseLogs
from balance._engine.loop import State, half_steps
from balance._engine.masses import log_scalings
from balance._engine.numbers import as_array, as_doubles, entry
from balance._engine.read import check_logs
from balance._engine.run import Trace, run
from balance._engine.targets import as_goals, normalized
from balance.scores import Scores

_BLOCK_BYTES = 1 << 22

# (slice of tables, positions in it of the complete ones, half-step, state)
Visit = Callable[[slice, NDArray[np.intp], int, State], None]


class Stack:
    """A stack of tables with their targets; after `balance`, also with their scalings.

    Attributes
    ----------
    tables : ndarray, shape (B, n_1, ..., n_d)
        As they were passed, not copied: counts stay counts.
    shape, leading : tuple of int
        Of a table, and of the stack as it was passed.
    targets : list of ndarray or None, shape (n,) or (B, n)
        Total 1.
    complete : ndarray of bool, shape (B,)
        Whether each value with a target has mass. Other tables keep their start.
    scalings, powers : list of ndarray, shape (B, n)
        A balanced table is ``table * outer(scalings) * 2**outer(powers)``.
    """

    def __init__(self, tables: Any, targets: Any):
        goals = as_goals(targets, stacked=True)
        self.logarithmic = isinstance(tables, Scores)
        self.name = "scores" if self.logarithmic else "table"
        array = as_doubles(tables.values, "scores") if self.logarithmic else as_array(tables, "table")
        axes = len(goals)
        if axes < 2 or array.ndim < axes:
            raise ValueError(
                f"{axes} targets for a {self.name} with {array.ndim} axes: pass one for each axis, None for a free one"
            )
        self.leading, self.shape = array.shape[:-axes], array.shape[-axes:]
        if 0 in self.shape:
            raise ValueError(f"{self.name} has shape {array.shape}: pass at least one value on each axis")
        self.tables = array.reshape(prod(self.leading), *self.shape)
        self.targets: list[NDArray[np.float64] | None] = []
        for axis, goal in enumerate(goals):
            if goal is None:
                self.targets.append(None)
                continue
            vector = normalized(goal.over(self.shape[axis], axis, "each table", self.leading))
            self.targets.append(vector if vector.ndim == 1 else vector.reshape(prod(self.leading), self.shape[axis]))
        number = len(self.tables)
        self.complete, self.totals = np.ones(number, bool), np.ones(number)
        self.scalings = [np.ones((number, n)) for n in self.shape]
        self.powers: list[NDArray[np.int64]] | None = None

    def balance(
        self, steps: int, first: int = 0, exponent: float = 1.0, accumulate: bool = True, visit: Visit | None = None
    ) -> "Stack":
        """Do a fixed number of half-steps on every table; `visit` sees each block after each of them."""

        @np.errstate(all="ignore")
        def work(block: slice) -> None:
            state, kept = self._start(block)
            if state is None:
                return
            for k, now in enumerate(half_steps(state, first, lambda: exponent, accumulate)):
                if visit is not None:
                    visit(block, kept, k, now)
                if k == steps:
                    break
            self._keep(state, block, kept)

        self._for_blocks(work)
        return self

    def converge(self, tol: float, max_steps: int, first: int) -> Trace | None:
        """Balance all tables until each of them is within `tol`, in one block; None if no table is complete."""
        block = slice(0, len(self.tables))
        state, kept = self._start(block)
        if state is None:
            return None
        trace = run(state, first=first, tol=tol, max_steps=max_steps)
        self._keep(state, block, kept)
        return trace

    def history(self, steps: int, first: int) -> NDArray[np.float64]:
        """Return the marginal errors after 0, 1, ... half-steps, shape (steps + 1, ..., axes), by a second run."""
        history = np.zeros((steps + 1, len(self.tables), len(self.shape)))

        def visit(block, kept, k, state):
            history[k, block][kept] = np.stack(state.errors(), axis=-1)

        again = copy(self)
        again.scalings, again.powers = [np.ones(u.shape) for u in self.scalings], None
        again.balance(steps, first, visit=visit)
        return self.with_others(history)

    def with_others(self, history: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return such errors in the shape of the stack, those of tables that keep their start filled in."""
        history[:, ~self.complete] = self.errors().reshape(-1, len(self.shape))[~self.complete]
        return history.reshape(len(history), *self.leading, len(self.shape))

    def errors(self) -> NDArray[np.float64]:
        """Return the marginal errors of the tables as they are, shape (..., axes)."""
        found = np.zeros((len(self.tables), len(self.shape)))
        for axis, (target, marginal) in enumerate(zip(self.targets, self.marginals(), strict=True)):
            if target is not None:
                gaps = np.abs(marginal.reshape(found[:, 0].shape + self.shape[axis : axis + 1]) - target)
                found[:, axis] = 0.5 * gaps.sum(axis=-1)
        return self._unstacked(found)

    def marginals(self) -> list[NDArray[np.float64]]:
        """Return the marginals of the tables as they are, shapes (..., n)."""
        found = [np.empty(u.shape) for u in self.scalings]

        def work(block: slice) -> None:
            tables = self.balanced(block)
            masses = np.exp(tables) if self.logarithmic else tables
            for axis, sums in enumerate(found):
                others = tuple(b + 1 for b in range(len(self.shape)) if b != axis)
                sums[block] = masses.sum(axis=others)

        self._for_blocks(work)
        return [self._unstacked(sums) for sums in found]

    def potentials(self) -> tuple[NDArray[np.float64], ...]:
        """Return the logarithms of the scalings of the normalized tables, shapes (..., n)."""
        logs = log_scalings(self.scalings, self.powers)
        logs[0] = logs[0] + np.log(self.totals)[:, None]
        return tuple(self._unstacked(p) for p in logs)

    def balanced(self, block: slice) -> NDArray[np.float64]:
        """Return the balanced tables of a block."""
        masses = self._masses(self.tables[block])
        scalings = [u[block] for u in self.scalings]
        return masses.scaled(scalings, None if self.powers is None else [p[block] for p in self.powers])

    def table(self) -> NDArray[np.float64]:
        """Return the balanced tables in the shape of the stack."""
        out = np.empty(self.tables.shape)

        def work(block: slice) -> None:
            out[block] = self.balanced(block)

        self._for_blocks(work)
        return out.reshape(*self.leading, *self.shape)

    def _unstacked(self, array: NDArray) -> NDArray:
        return array.reshape(*self.leading, *array.shape[1:])

    def _masses(self, tables: NDArray) -> Dense:
        axes = len(self.shape)
        if self.logarithmic:
            return DenseLogs(tables, axes)
        return Dense(tables.astype(np.float64, copy=False), axes)

    def _start(self, block: slice) -> tuple[State | None, NDArray[np.intp]]:
        """Return the state of the complete tables of a block and their positions."""
        tables = self.tables[block]
        if self.logarithmic:
            check_logs(tables, len(self.shape))
        masses = self._masses(tables)
        if self.logarithmic:
            sums = masses.starting_sums()
        else:
            with np.errstate(all="ignore"):
                sums = masses.starting_sums()
            masses.total = sums[0].sum(axis=-1, keepdims=True)
            if not (np.isfinite(masses.total).all() and masses.total.all() and masses.values.min(initial=0) >= 0):
                self._refuse(masses.values, block)
        complete = np.ones(len(tables), bool)
        goals = [t if t is None or t.ndim == 1 else t[block] for t in self.targets]
        for axis, seen in enumerate(self._live_sums(masses, goals, sums)):
            if goals[axis] is not None:
                complete &= ((seen > 0) | (goals[axis] == 0)).all(axis=-1)
        self.complete[block] = complete
        self.scalings[0][block], self.totals[block] = 1 / masses.total, masses.total[:, 0]
        if complete.all():
            return State(masses, goals, sums), np.arange(len(tables))
        kept = np.flatnonzero(complete)
        if not kept.size:
            return None, kept
        part = self._masses(tables[kept])
        part.total = masses.total[kept]
        goals = [t if t is None or t.ndim == 1 else t[kept] for t in goals]
        return State(part, goals, [s[kept] for s in sums]), kept

    def _live_sums(self, masses: Dense, goals, sums) -> list[NDArray]:
        """Return sums that say of each value whether it has a cell that may keep mass."""
        if isinstance(masses, DenseLogs):
            there = [
                np.where(t > 0, 1.0, 0.0) if t is not None else np.ones(n)
                for t, n in zip(goals, self.shape, strict=True)
            ]
            live = (masses.logs > -np.inf) & (masses.spread([np.atleast_2d(t) for t in there], np.multiply) > 0)
            return [live.any(axis=tuple(b + 1 for b in range(masses.ndim) if b != a)) for a in range(masses.ndim)]
        if all(t is None or t.all() for t in goals):
            return sums
        there = [
            np.ones(s.shape) if t is None else np.broadcast_to(t > 0, s.shape).astype(float)
            for t, s in zip(goals, sums, strict=True)
        ]
        return masses.contract_each(masses.values, there, range(masses.ndim))

    def _keep(self, state: State, block: slice, kept: NDArray[np.intp]) -> None:
        for axis, u in enumerate(state.scalings):
            self.scalings[axis][block][kept] = u
        if state.powers is not None:
            if self.powers is None:
                self.powers = [np.zeros(u.shape, np.int64) for u in self.scalings]
            for axis, p in enumerate(state.powers):
                self.powers[axis][block][kept] = p

    def _refuse(self, values: NDArray, block: slice) -> None:
        """Name the first table that is none."""
        for i, table in enumerate(values):
            name = entry(self.name, [block.start + i])
            check_masses(table, name, lambda wrong, i=i: entry(self.name, [block.start + i, *np.argwhere(wrong)[0]]))
            if not np.isfinite(table.sum()):
                raise ValueError(f"{name} has an infinite sum: divide it by its largest entry")

    def _for_blocks(self, work: Callable[[slice], None]) -> None:
        size = max(1, _BLOCK_BYTES // (8 * prod(self.shape)))
        blocks = [slice(i, i + size) for i in range(0, len(self.tables), size)]
        if len(blocks) < 2:
            # no thread for a single block: there may be none to have
            for block in blocks:
                work(block)
            return
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(work, blocks))
