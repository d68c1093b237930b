"""The private engine: rates of the loop, its memory, threads, kinds that must agree, and what it refuses to forget."""

import tracemalloc
import warnings

import numpy as np
import pytest
from scipy import sparse

from balance import ConvergenceWarning, Records, Scores, data_balance
from balance._engine import stacks
from balance._engine.loop import State, half_steps
from balance._engine.read import read
from balance._engine.records import Aggregated, RecordMasses
from balance.operators import markov_svd


def planted(s, size=12, seed=0):
    """A table whose balanced form has second singular value s, and its targets."""
    rng = np.random.default_rng(seed)
    # half of the mass on each side of the sign: any s from 0 to 1 then gives a table without negative cells
    p, q = (np.r_[rng.dirichlet(np.full(size // 2, 9.0)), rng.dirichlet(np.full(size // 2, 9.0))] / 2 for _ in "xy")
    signs = np.repeat([1.0, -1.0], size // 2)
    f, g = signs - p @ signs, signs - q @ signs
    f, g = f / np.sqrt(p @ f**2), g / np.sqrt(q @ g**2)
    limit = np.outer(p, q) * (1 + s * np.outer(f, g))
    assert limit.min() >= 0
    return limit * np.outer(rng.uniform(0.5, 2, size), rng.uniform(0.5, 2, size)), (p, q)


def rate(table, targets, exponent, sweeps):
    """Factor by which a sweep lowers the error in the end, by the slope of a fit."""
    problem = read(table, targets)
    state = State(problem.masses, problem.targets, problem.sums)
    errors = []
    for k, now in enumerate(half_steps(state, 0, lambda: exponent)):
        if k % 2 == 0:
            errors.append(max(now.errors()))
        if k == 2 * sweeps:
            break
    errors = np.array(errors)
    kept = np.flatnonzero((errors < 1e-3) & (errors > 1e-11))
    return np.exp(np.polyfit(kept, np.log(errors[kept]), 1)[0])


@pytest.mark.parametrize("s", (0.5, 0.7, 0.9))
def test_a_plain_sweep_has_the_rate_s_squared(s):
    table, targets = planted(s)
    limit = data_balance(table, targets, tol=1e-13).table
    assert markov_svd(limit).singular_values[1] == pytest.approx(s, abs=1e-9)
    assert rate(table, targets, 1.0, 400) == pytest.approx(s**2, rel=0.02)


@pytest.mark.parametrize("s", (0.7, 0.9, 0.95))
def test_an_over_relaxed_sweep_has_the_rate_of_the_theory(s):
    """Below the optimal exponent w the rate solves (rate + w - 1)^2 = rate w^2 s^2; above it, it is w - 1."""
    table, targets = planted(s)
    best = 2 / (1 + np.sqrt(1 - s**2))
    for w in (1 + (best - 1) / 2, best + (2 - best) / 2):
        root = w * s + np.sqrt(max((w * s) ** 2 - 4 * (w - 1), 0))
        predicted = (root / 2) ** 2 if w < best else w - 1
        assert rate(table, targets, w, 300) == pytest.approx(predicted, rel=0.05)


@pytest.mark.parametrize(("s", "gain"), ((0.5, 1.0), (0.7, 1.3), (0.9, 2.2), (0.95, 3.0)))
def test_a_tolerance_takes_fewer_half_steps_to_the_same_table(s, gain):
    table, targets = planted(s)
    fast = data_balance(table, targets, tol=1e-11)
    plain = data_balance(table, targets, tol=1e-11, keep_iterates=True)
    assert fast.converged and plain.converged and plain.steps >= gain * fast.steps
    assert np.abs(fast.table - plain.table).max() < 1e-10


@pytest.mark.parametrize("size", (2, 3, 5, 8))
def test_where_over_relaxation_has_no_rate_it_does_no_harm(size):
    """A triangle's error falls like 1 / k; an infeasible table's not at all."""
    triangle, even = np.triu(np.ones((size, size))), np.full(size, 1 / size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        run = data_balance(triangle, (even, even), tol=1e-9, max_steps=2000)
        plain = data_balance(triangle, (even, even), steps=2000)
        skew = np.arange(1.0, size + 1)
        infeasible = data_balance(triangle, (skew, skew[::-1]), tol=1e-9)
        known = data_balance(triangle, (skew, skew[::-1]), steps=infeasible.steps)
    assert run.reason == "max_steps" and run.errors.max() <= 1.05 * plain.errors.max()
    assert infeasible.reason == "infeasible"
    assert infeasible.errors == pytest.approx(known.errors, abs=1e-6)


def test_a_rate_that_was_wrong_at_first_is_measured_again():
    """Near an infeasible problem the first sweeps are slower than the last, and an exponent from them too large."""
    goals = [0.5, 0.5], [2 / 3, 1 / 3]
    for tiny in (1e-2, 1e-4, 1e-6):
        fast = data_balance([[1, 1], [tiny, 1]], goals, tol=1e-8)
        plain = data_balance([[1, 1], [tiny, 1]], goals, tol=1e-8, keep_iterates=True)
        assert fast.converged and fast.steps <= plain.steps
    rng, steps = np.random.default_rng(11), np.zeros((200, 2))
    for row in steps:
        shape = rng.integers(2, 9, size=2)
        table = 10 ** -rng.uniform(0, rng.choice([0.5, 2, 5]), size=shape)
        goals = tuple(rng.dirichlet(np.ones(n)) for n in shape)
        runs = [data_balance(table, goals, tol=1e-8, keep_iterates=kept) for kept in (False, True)]
        assert all(run.converged for run in runs)
        row[:] = [run.steps for run in runs]
    fast, plain = steps.T
    assert (fast <= 1.5 * plain + 4).all() and fast.sum() < 0.7 * plain.sum()


@pytest.mark.parametrize("seed", range(4))
def test_the_rounding_floor_ends_a_run_ten_half_steps_after_its_lowest_error(seed):
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.ones(6)), rng.dirichlet(np.ones(7))
    with pytest.warns(ConvergenceWarning, match="stays at .* which rounding"):
        run = data_balance(rng.random((6, 7)), targets, tol=1e-18)
    worst = run.history.max(axis=1)
    assert run.reason == "floor" and not run.converged
    assert run.steps == np.argmin(worst) + 10 and worst.min() < 1e-15


def test_a_table_of_doubles_is_not_copied_and_little_is_added():
    table = np.random.default_rng(0).random((1500, 1500))
    p = np.full(1500, 1 / 1500)
    tracemalloc.start()
    result = data_balance(table, (p, p), steps=20)
    result.errors, result.potentials  # noqa: B018
    peak = tracemalloc.get_traced_memory()[1]
    result.table  # noqa: B018
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.2 * table.nbytes
    assert whole < 2.3 * table.nbytes


def test_a_table_that_was_changed_meanwhile_is_not_taken_for_the_one_that_was_balanced():
    table = np.array([[1.0, 2], [3, 4]])
    result = data_balance(table, ([1, 1], [1, 1]), steps=3)
    table[0, 0] = 7
    with pytest.raises(RuntimeError, match="has changed"):
        result.table  # noqa: B018
    kept = data_balance(table, ([1, 1], [1, 1]), steps=3)
    before = kept.table.copy()
    table[0, 0] = 1
    assert np.array_equal(kept.table, before)


def test_a_single_block_starts_no_thread(monkeypatch):
    def refuse(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(stacks, "ThreadPoolExecutor", refuse)
    tables = np.random.default_rng(0).random((5, 3, 4))
    result = data_balance(tables, ([1, 2, 3], [1, 2, 2, 1]), steps=4)
    single = [data_balance(t, ([1, 2, 3], [1, 2, 2, 1]), steps=4).table for t in tables]
    assert np.abs(result.table - single).max() < 1e-16
    monkeypatch.setattr(stacks, "_BLOCK_BYTES", 8 * 12)
    with pytest.raises(RuntimeError, match="thread"):
        data_balance(tables, ([1, 2, 3], [1, 2, 2, 1]), steps=4)


def test_records_are_aggregated_when_their_table_is_shorter():
    rng = np.random.default_rng(0)
    codes = [np.r_[np.arange(n), rng.integers(n, size=400)][:400] for n in (3, 4, 5)]
    weights, targets = rng.random(400), [rng.dirichlet(np.full(n, 5.0)) for n in (3, 4, 5)]
    long, short = Records(*codes, weights=weights), Records(*(c[:50] for c in codes), weights=weights[:50])
    assert isinstance(read(long, targets).masses, Aggregated)
    assert isinstance(read(short, targets).masses, RecordMasses)
    table = np.zeros((3, 4, 5))
    np.add.at(table, tuple(codes), weights)
    for records, chosen in ((long, slice(None)), (short, slice(50))):
        part = np.zeros((3, 4, 5))
        np.add.at(part, tuple(c[chosen] for c in codes), weights[chosen])
        run, dense = (data_balance(t, targets, steps=5) for t in (records, part))
        summed = np.zeros((3, 4, 5))
        np.add.at(summed, tuple(c[chosen] for c in codes), run.table.weights)
        assert np.abs(summed - dense.table).max() < 1e-16
        assert np.abs(run.history - dense.history).max() < 1e-15


EXTREME = 10.0 ** np.array([[0, -150, -290], [-280, 0, -170], [-140, -300, 0]])


@pytest.mark.parametrize("exponent", (0.5, 1.0, 1.5))
@pytest.mark.parametrize("accumulate", (True, False))
@pytest.mark.parametrize("kind", ("dense", "sparse", "records", "scores"))
def test_half_steps_beyond_the_doubles_are_those_of_logarithms(kind, accumulate, exponent):
    """An independent loop on long doubles in logarithms; the engine moves powers of two instead."""
    targets = [np.array([1e-40, 0.3, 0.7 - 1e-40]), np.array([0.6, 0.4, 0.0])]
    x, y = np.indices(EXTREME.shape).reshape(2, -1)
    given = {
        "dense": EXTREME,
        "sparse": sparse.csr_array(EXTREME),
        "records": Records(x, y, weights=EXTREME.ravel()),
        "scores": Scores(np.log(EXTREME)),
    }[kind]
    problem = read(given, targets)
    state = State(problem.masses, problem.targets, problem.sums)
    logs = np.log(EXTREME.astype(np.longdouble))
    logs -= np.log(np.exp(logs).sum())
    with np.errstate(all="ignore"):
        goals = [np.log(np.asarray(t, np.longdouble)) for t in targets]
        potentials = [np.zeros(3, np.longdouble), np.zeros(3, np.longdouble)]
        for k, now in enumerate(half_steps(state, 0, lambda: exponent, accumulate)):
            for ours, right in zip(now.potentials(), potentials, strict=True):
                there = right > -np.inf
                assert (np.isfinite(ours) == there).all()
                assert np.abs(ours - right)[there].max() < 1e-12 * max(1, np.abs(right[there]).max())
            if k == 9:
                break
            axis = k % 2
            rest = logs + (potentials[1][None] if axis == 0 else potentials[0][:, None])
            fresh = exponent * (goals[axis] - np.logaddexp.reduce(rest, axis=1 - axis))
            old = np.where(goals[axis] > -np.inf, potentials[axis], 0)
            potentials[axis] = fresh + (1 - exponent) * old if accumulate else fresh
    if kind != "scores":
        with np.errstate(all="ignore"):
            right = np.exp(logs + potentials[0][:, None] + potentials[1][None]).astype(float)
        table = state.table()
        values = table.weights.reshape(3, 3) if kind == "records" else table.toarray() if kind == "sparse" else table
        assert values == pytest.approx(right, rel=1e-12, abs=1e-320)


@pytest.mark.parametrize("exponent", (0.5, 1.0, 1.5))
@pytest.mark.parametrize("kind", ("dense", "sparse"))
def test_marginals_after_a_half_step_by_powers_of_two(kind, exponent):
    """They come from sums that the half-step leaves behind; here they are held against those of the table."""
    given = np.array([[1, 1e-250], [1e-250, 1e-250]])
    problem = read(given if kind == "dense" else sparse.csr_array(given), ([0.2, 0.8], [0.3, 0.7]))
    state = State(problem.masses, problem.targets, problem.sums)
    with np.errstate(all="ignore"):
        for k in range(4):
            state.step(k % 2, exponent)
            table = state.table() if kind == "dense" else state.table().toarray()
            for axis, ours in enumerate(state.marginals()):
                assert ours == pytest.approx(table.sum(axis=1 - axis), rel=1e-12, abs=0)
    assert state.powers is not None


IN_EACH_FORM = {
    "dense": np.array,
    "sparse": sparse.csr_array,
    "records": lambda table: Records(*np.indices(np.shape(table)).reshape(2, -1), weights=np.ravel(table)),
    "scores": lambda table: Scores(np.log(table)),
}


@pytest.mark.parametrize("kind", IN_EACH_FORM)
def test_a_row_with_mass_only_where_the_target_is_zero_ends_a_run(kind):
    with np.errstate(divide="ignore"):
        table = IN_EACH_FORM[kind]([[1.0, 0.0], [1.0, 1.0]])
    for first in (0, 1):
        with pytest.warns(ConvergenceWarning, match=r"values \[0\] of axis 0 have target mass 0.5 more"):
            run = data_balance(table, ([0.5, 0.5], [0.0, 1.0]), tol=1e-9, first=first)
        assert (run.reason, run.steps) == ("infeasible", 2 - first)
        assert (run.obstruction.values.tolist(), run.obstruction.reachable.tolist()) == ([0], [])
        assert run.obstruction.excess == 0.5


@pytest.mark.parametrize("kind", IN_EACH_FORM)
def test_values_without_a_target_are_not_named_in_a_proof(kind):
    """Rows 0 and 1 have cells in columns 0 and 1, but column 0 may have no mass."""
    with np.errstate(divide="ignore"):
        table = IN_EACH_FORM[kind]([[1.0, 1, 0], [1, 1, 0], [1, 1, 1]])
    with pytest.warns(ConvergenceWarning, match=r"0.3 more than the values \[1\] of axis 1"):
        run = data_balance(table, ([0.4, 0.4, 0.2], [0.0, 0.5, 0.5]), tol=1e-9)
    assert (run.obstruction.values.tolist(), run.obstruction.reachable.tolist()) == ([0, 1], [1])


def test_a_proof_for_three_targets_leaves_out_cells_without_a_target():
    """Of the cells with an odd sum none is positive, but for those of a slice that may have no mass."""
    table = 1.0 - np.indices((3, 2, 2)).sum(axis=0) % 2
    table[2] = 1
    targets = [np.array(t) for t in ([0.1, 0.9, 0.0], [0.1, 0.9], [0.1, 0.9])]
    with pytest.warns(ConvergenceWarning, match="no table with this support"):
        proof = data_balance(table, targets, tol=1e-9).obstruction
    f, g, h = proof.functions
    sums = f[:, None, None] + g[:, None] + h
    means = sum(t @ v for t, v in zip(targets, proof.functions, strict=True))
    assert proof.gap == pytest.approx(means - sums[:2][table[:2] > 0].max(), rel=1e-12, abs=0)
    assert proof.gap > 1 and sums[2].max() > sums[:2][table[:2] > 0].max() + 1  # the slice would hide it


@pytest.mark.parametrize(("kind", "log"), [*((k, -735.0) for k in IN_EACH_FORM), ("scores", -2000.0)])
def test_what_is_out_of_the_table_may_grow_beyond_the_doubles(kind, log):
    """A row is scaled up to a tiny entry, and with it an entry in a column that may have no mass."""
    logs = np.array([[10.0, log], [0.0, 0.0]])
    table = Scores(logs) if kind == "scores" else IN_EACH_FORM[kind](np.exp(logs))
    for first in (0, 1):
        run = data_balance(table, ([0.5, 0.5], [0.0, 1.0]), tol=1e-12, first=first)
        found = {"scores": np.exp, "sparse": lambda t: t.toarray(), "records": lambda t: t.weights.reshape(2, 2)}
        assert run.converged
        assert found.get(kind, np.asarray)(run.table) == pytest.approx(np.array([[0, 0.5], [0, 0.5]]), rel=1e-12, abs=0)


def test_a_row_without_a_target_may_grow_beyond_the_doubles():
    """Here the second step on the columns scales up a row that is out of the table."""
    scores = Scores(np.array([[0.0, 2000.0], [0.0, -2000.0]]))
    run = data_balance(scores, ([0.0, 1.0], [0.3, 0.7]), tol=1e-12, first=1)
    assert run.converged
    assert np.exp(run.table) == pytest.approx(np.array([[0, 0], [0.3, 0.7]]), rel=1e-12, abs=0)
