"""The statements of chapter 2, against general solvers and rational arithmetic."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag
from scipy.optimize import linprog, minimize
from scipy.special import rel_entr

from balance import data_balance, kl_divergence, marginal, project, total_variation
from helpers import UNIFORM, fast, marginal_sums, random_problem, seeds, solvable, violation


def corner_of(a, b, theta):
    """First cell of the 2 x 2 table with these margins and odds ratio, by bisection."""
    low, high = max(0.0, a + b - 1), min(a, b)
    for _ in range(200):
        t = (low + high) / 2
        if t * (1 - a - b + t) < theta * (a - t) * (b - t):
            low = t
        else:
            high = t
    return (low + high) / 2


def generic_projection(start, constraints, values):
    """Minimize KL(q || start) under linear constraints by SLSQP."""
    start = np.ravel(start)
    answer = minimize(
        lambda q: q @ np.log(q / start),
        np.full(start.size, 1 / start.size),
        jac=lambda q: np.log(q / start) + 1,
        bounds=[(1e-12, 1)] * start.size,
        constraints={"type": "eq", "fun": lambda q: constraints @ q - values},
        options={"ftol": 1e-15, "maxiter": 500},
    )
    return answer.x


UNIFORM_OF_3 = np.full(3, 1 / 3)
DIVERGENCES = {
    "kl": lambda p, q: (p * np.log(p / q)).sum(),
    "exchanged": lambda p, q: (q * np.log(q / p)).sum(),
    "variation": lambda p, q: np.abs(p - q).sum() / 2,
    "chi square": lambda p, q: ((p - q) ** 2 / q).sum(),
    "hellinger": lambda p, q: 2 - 2 * np.sqrt(p * q).sum(),
    "cube": lambda p, q: (p**3 / q**2).sum() - 1,
}


def alternating(tables, targets, distance):
    """The chain of Theorem 2.6: D(P_Y, R_Y^(1)), D(R_X^(2), P_X), D(P_Y, R_Y^(3)), ..."""
    values = []
    for k in range(1, len(tables)):
        if k % 2:
            values.append(distance(targets[1], marginal(tables[k], 1)))
        else:
            values.append(distance(marginal(tables[k], 0), targets[0]))
    return np.array(values)


@pytest.mark.statement("2.1")
@fast
@given(seeds)
def test_properties_of_the_divergence(seed):
    rng = np.random.default_rng(seed)
    q, r = (rng.dirichlet(np.ones(6)).reshape(2, 3) for _ in range(2))
    by_sum = sum(q[i, j] * np.log(q[i, j] / r[i, j]) for i in range(2) for j in range(3))
    assert abs(kl_divergence(q, r) - by_sum) < 1e-12 and kl_divergence(q, q) == 0 < by_sum
    for x, y in ((q, r), (q.T, r.T)):
        inner = [kl_divergence(a / a.sum(), b / b.sum()) for a, b in zip(x, y, strict=True)]
        outer = kl_divergence(x.sum(axis=1), y.sum(axis=1))
        assert abs(outer + x.sum(axis=1) @ inner - by_sum) < 1e-12
    holed = np.where(np.arange(6).reshape(2, 3) == seed % 6, 0, r)
    holed /= holed.sum()
    assert kl_divergence(q, holed) == np.inf
    used = holed > 0
    assert abs(kl_divergence(holed, q) - (holed[used] * np.log(holed[used] / q[used])).sum()) < 1e-12


@pytest.mark.statement("2.1")
def test_data_processing_and_semicontinuity():
    """A kernel that merges nothing loses nothing; one that forgets loses all; a limit may lose 1."""
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(3), size=2)
    split = np.array([[0.25, 0.75, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0.9, 0.1]])
    assert abs(kl_divergence(a @ split, b @ split) / kl_divergence(a, b) - 1) < 1e-12
    forget = np.full((3, 2), 0.5)
    assert kl_divergence(a @ forget, b @ forget) < 1e-15
    for kernel in rng.dirichlet(np.ones(4), size=(50, 3)):
        assert kl_divergence(a @ kernel, b @ kernel) < kl_divergence(a, b)
    for n in (30, 300, 700):
        late = kl_divergence([1 - 1 / n, 1 / n], [1 - np.exp(-n), np.exp(-n)])
        assert abs(late - (1 - (np.log(n) + 1 - 1 / (2 * n)) / n)) < 1e-4
    assert kl_divergence([1, 0], [1, 0]) == 0


@pytest.mark.statement("2.2")
@pytest.mark.parametrize("axis", [0, 1])
def test_half_step_is_the_nearest_table(axis):
    table, targets = random_problem(3)
    table = table / table.sum()
    sums = marginal_sums(table.shape)
    rows = slice(0, table.shape[0]) if axis == 0 else slice(table.shape[0], None)
    nearest = generic_projection(table, sums[rows], targets[axis]).reshape(table.shape)
    step = project(table, targets[axis], axis)
    assert np.abs(step - nearest).max() < 1e-5
    value = kl_divergence(targets[axis], marginal(table, axis))
    assert abs(kl_divergence(step, table) - value) < 1e-14
    by_hand = table / table.sum(axis=1 - axis, keepdims=True) * np.expand_dims(targets[axis], 1 - axis)
    assert np.abs(step - by_hand).max() < 1e-15
    # the minimum is the only one: every other table with the marginal is farther away
    rng = np.random.default_rng(0)
    for power in (1, 1e-3):
        rivals = (project(step * rng.gamma(2, size=step.shape) ** power, targets[axis], axis) for _ in range(50))
        assert min(kl_divergence(q, table) for q in rivals) > kl_divergence(step, table)


@pytest.mark.statement("2.2")
def test_half_step_with_a_target_of_zero():
    table = np.array([[1, 2], [3, 4]]) / 10
    without = project(table, [0, 1], 1)
    assert np.abs(without - [[0, 1 / 3], [0, 2 / 3]]).max() < 1e-15
    assert abs(kl_divergence(without, table) - np.log(10 / 6)) < 1e-15
    with pytest.raises(ValueError, match="empty"):
        project([[0, 1], [0, 1]], [0.5, 0.5], 1)


@pytest.mark.statement("2.3")
@fast
@given(seeds, st.sampled_from([0, 1]))
def test_pythagoras_with_equality(seed, axis):
    table, targets = random_problem(seed)
    table = table / table.sum()
    draw = np.random.default_rng(seed).gamma(1.0, size=table.shape)
    rival = project(draw, targets[axis], axis)
    step = project(table, targets[axis], axis)
    removed = kl_divergence(targets[axis], marginal(table, axis))
    assert abs(kl_divergence(rival, table) - kl_divergence(rival, step) - removed) < 1e-12
    assert abs(kl_divergence(step, table) - removed) < 1e-12
    # in general: the difference is the mean, under the marginal of q, of log(target / marginal)
    other = draw / draw.sum()
    mean = marginal(other, axis) @ np.log(targets[axis] / marginal(table, axis))
    assert abs(kl_divergence(other, table) - kl_divergence(other, step) - mean) < 1e-12
    holed = np.where(table == table.max(), 0, table)
    holed[holed.sum(axis=1) == 0] = 1e-3
    step = project(holed / holed.sum(), np.full(len(holed), 1 / len(holed)), 0)
    rival = project(draw, np.full(len(holed), 1 / len(holed)), 0)
    if (holed == 0).any():
        assert kl_divergence(rival, holed / holed.sum()) == kl_divergence(rival, step) == np.inf


@pytest.mark.statement("2.4")
def test_odds_ratios_and_zeros_in_rational_arithmetic():
    start = np.array([[4, 1, 0], [2, 3, 5], [1, 7, 2]]) * Fraction(1, 25)
    rows, columns = (np.array([Fraction(v, 10) for v in goal]) for goal in ((5, 4, 1), (2, 3, 5)))
    table = start
    for k in range(1, 7):
        table = table * (columns / table.sum(axis=0) if k % 2 == 0 else (rows / table.sum(axis=1))[:, None])
        floats = [v.astype(float) for v in (start, rows, columns, table)]
        run = data_balance(floats[0], floats[1:3], steps=k)
        assert np.abs(run.table - floats[3]).max() < 1e-15
        assert np.abs(run.scalings[0][:, None] * floats[0] * run.scalings[1] - floats[3]).max() < 1e-15
        assert min(map(np.min, run.scalings)) > 0 and ((run.table == 0) == (start == 0)).all()
        for t, close in ((table, 0), (run.table, 1e-12)):
            assert abs(t[0, 0] * t[1, 1] / (t[0, 1] * t[1, 0]) - 6) <= close
            assert abs(t[1, 1] * t[2, 2] / (t[1, 2] * t[2, 1]) - Fraction(6, 35)) <= close
            assert abs(t[0, 0] * t[2, 1] / (t[0, 1] * t[2, 0]) - 28) <= close * 10
    # a product of cells around a longer ring is kept as well, though no odds ratio sees it
    ring = np.array([[1, 2, 0], [0, 1, 3], [1, 0, 1]]) / 9
    t = data_balance(ring, (UNIFORM_OF_3, UNIFORM_OF_3), steps=5).table
    assert abs(t[0, 0] * t[1, 1] * t[2, 2] / (t[0, 1] * t[1, 2] * t[2, 0]) - 1 / 6) < 1e-14


@pytest.mark.statement("2.4")
def test_equal_odds_ratios_mean_a_scaling():
    """In logarithms: mixed differences of neighbors leave exactly the sums phi(x) + psi(y)."""
    m, l = 4, 5
    unit = np.eye(m * l).reshape(-1, m, l)
    mixed = np.diff(np.diff(unit, axis=1), axis=2).reshape(m * l, -1)
    sums = marginal_sums((m, l))  # one row for each phi(x) and each psi(y), as functions of the cells
    assert np.abs(sums @ mixed).max() == 0
    assert np.linalg.matrix_rank(sums) == m + l - 1 == m * l - np.linalg.matrix_rank(mixed)


@pytest.mark.statement("2.5")
@fast
@given(seeds, st.floats(0.5, 1))
def test_descent_and_total_divergence(seed, density):
    table, _ = random_problem(seed, density=density)
    feasible = np.random.default_rng(seed).gamma(1.0, size=table.shape) * (table > 0)
    feasible /= feasible.sum()
    targets = feasible.sum(axis=1), feasible.sum(axis=0)
    tables = data_balance(table, targets, steps=11, keep_iterates=True).iterates
    removed = [kl_divergence(targets[k % 2], marginal(t, k % 2)) for k, t in enumerate(tables)]
    now = [kl_divergence(feasible, t) for t in tables]
    for k in range(len(tables)):
        assert abs(now[k] - now[0] + sum(removed[:k])) < 1e-11
    assert removed[0] > 0 and np.diff(now).max() < 1e-14 and sum(removed[:-1]) <= now[0] + 1e-12


@pytest.mark.statement("2.5")
def test_total_divergence_is_that_of_the_limit():
    table, targets = random_problem(5)
    run = data_balance(table, targets, steps=400, keep_iterates=True)
    removed = [kl_divergence(targets[k % 2], marginal(t, k % 2)) for k, t in enumerate(run.iterates)]
    assert run.converged and removed[0] > 1e-3
    assert abs(sum(removed) - kl_divergence(run.table, run.iterates[0])) < 1e-12
    # also where cells are emptied: what is left after k half-steps is about 1/(2k)
    t = data_balance([[1, 1], [0, 1]], (UNIFORM, UNIFORM), steps=2000, keep_iterates=True).iterates
    removed = [kl_divergence(UNIFORM, marginal(t[k], k % 2)) for k in range(2000)]
    assert 0.99 < (np.log(3 / 2) - sum(removed)) * 4000 < 1


@pytest.mark.statement("2.6")
@fast
@given(seeds, st.floats(0.5, 1))
def test_alternating_chain(seed, density):
    table, targets = random_problem(seed, density=density)
    tables = data_balance(table, targets, steps=9, keep_iterates=True).iterates
    for distance in DIVERGENCES.values():
        errors = alternating(tables, targets, distance)
        assert errors[0] > 1e-12
        assert np.diff(errors).max() < 1e-12 * max(1, errors[0])
    for f_divergence, distance in (("kl", kl_divergence), ("variation", total_variation)):
        known = alternating(tables, targets, distance)
        assert np.allclose(alternating(tables, targets, DIVERGENCES[f_divergence]), known, rtol=1e-8, atol=1e-14)


@pytest.mark.statement("2.6")
@pytest.mark.parametrize("name", DIVERGENCES)
def test_chain_of_a_permutation_is_constant(name):
    """A start with one positive cell in each row and column: attained, and the order of arguments matters."""
    p, q = np.array([0.2, 0.5, 0.3]), np.array([0.6, 0.1, 0.3])
    order = [1, 2, 0]
    start = np.eye(3)[order] * [[1.0], [2.0], [3.0]]
    tables = data_balance(start, (p, q), steps=7, keep_iterates=True).iterates
    errors = alternating(tables, (p, q), DIVERGENCES[name])
    assert np.abs(errors - DIVERGENCES[name](q[order], p)).max() < 1e-13
    if name not in ("variation", "hellinger"):
        assert abs(DIVERGENCES[name](p, q[order]) / errors[0] - 1) > 0.01


@pytest.mark.statement("2.6")
def test_chain_needs_its_exchange_of_arguments():
    targets = np.array([0.4, 0.6]), np.array([0.9, 0.1])
    tables = data_balance([[1, 100], [100, 1]], targets, steps=8, keep_iterates=True).iterates
    for distance in (DIVERGENCES["kl"], DIVERGENCES["chi square"]):
        assert np.diff(alternating(tables, targets, distance)).max() < 0
        fixed = [distance(targets[k % 2], marginal(t, k % 2)) for k, t in enumerate(tables)][1:]
        assert np.diff(fixed).max() > 0.01


@pytest.mark.statement("2.7")
def test_a_fixed_direction_can_rise():
    targets = np.array([0.4, 0.6]), np.array([0.9, 0.1])
    t = data_balance([[1, 100], [100, 1]], targets, steps=2, keep_iterates=True).iterates
    x = 0.9 * 0.4 / 60.4 + 0.1 * 40 / 40.6
    first = 0.9 * np.log(0.9 * 101 / 60.4) + 0.1 * np.log(0.1 * 101 / 40.6)
    second = 0.4 * np.log(0.4 / x) + 0.6 * np.log(0.6 / (1 - x))
    assert abs(kl_divergence(targets[0], marginal(t[2], 0)) - second) < 1e-14
    assert abs(kl_divergence(targets[1], marginal(t[1], 1)) - first) < 1e-14
    assert abs(first - 0.2288) < 5e-5 and abs(second - 0.2967) < 5e-5
    assert abs(x - 0.10448) < 5e-6 and first < second


@pytest.mark.statement("2.7")
def test_the_chain_cannot_start_with_the_table():
    t = data_balance([[0.2, 0.3], [0.1, 0.4]], (UNIFORM, UNIFORM), steps=1, keep_iterates=True).iterates
    assert kl_divergence(UNIFORM, marginal(t[0], 0)) < 1e-15
    assert np.abs(t[1] - t[0]).max() < 1e-15
    assert abs(kl_divergence(UNIFORM, marginal(t[1], 1)) - np.log(25 / 21) / 2) < 1e-15


@pytest.mark.statement("2.8")
def test_limit_minimizes_the_divergence_on_a_smaller_support():
    """One free cell is left, and the odds ratio of its block decides it."""
    start = np.array([[4, 1, 2], [0, 3, 1], [0, 2, 5]]) / 18
    targets = [0.4, 0.3, 0.3], [0.4, 0.25, 0.35]
    table = lambda t: np.array([[0.4, 0, 0], [0, t, 0.3 - t], [0, 0.25 - t, 0.05 + t]])  # noqa: E731
    best = table(corner_of(0.5, 0.25 / 0.6, 7.5) * 0.6)
    runs = [data_balance(start, targets, steps=k) for k in (2000, 4000)]
    far = [np.abs(run.table - best).max() for run in runs]
    assert far[1] < 1e-4 and 1.95 < far[0] / far[1] < 2.05
    assert 1.9 < runs[0].errors.max() / runs[1].errors.max() < 2.1
    for t in (0, 0.05, 0.15, 0.25):
        parts = kl_divergence(table(t), best), kl_divergence(best, start)
        assert abs(kl_divergence(table(t), start) - sum(parts)) < 1e-12 and 0.001 < parts[0] < np.inf


@pytest.mark.statement("2.8")
@fast
@given(seeds)
def test_pythagoras_for_the_limit(seed):
    table, targets = random_problem(seed)
    start = table / table.sum()
    limit = data_balance(start, targets, tol=1e-13).table
    rival = data_balance(np.random.default_rng(seed).gamma(2, size=table.shape), targets, tol=1e-13).table
    parts = kl_divergence(rival, limit), kl_divergence(limit, start)
    assert abs(kl_divergence(rival, start) - sum(parts)) < 1e-9
    assert parts[0] > 1e-9 and all(np.abs(marginal(limit, a) - targets[a]).max() < 1e-12 for a in (0, 1))


@pytest.mark.statement("2.8")
@pytest.mark.parametrize("q", [0.51, 0.6, 0.9])
def test_without_a_feasible_table_there_are_two_ends(q):
    """The error q - p is split over two limits, and each step removes a fixed amount."""
    goals = UNIFORM, [q, 1 - q]
    t = data_balance([[1, 1], [0, 1]], goals, steps=1200, keep_iterates=True).iterates
    assert abs(total_variation(t[-1], t[-2]) - (q - 0.5)) < 1e-9
    removed = [kl_divergence(goals[k % 2], marginal(t[k], k % 2)) for k in range(1200)]
    per_sweep = kl_divergence(*goals) + kl_divergence(*goals[::-1])
    assert abs(sum(removed[-100:]) - 50 * per_sweep) < 1e-9


@pytest.mark.statement("2.9")
@fast
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(-5, 5))
def test_two_by_two_limit_in_closed_form(a, b, log_theta):
    start = np.array([[np.exp(log_theta), 1], [1, 1]])
    run = data_balance(start, ([a, 1 - a], [b, 1 - b]), tol=1e-13, max_steps=100_000)
    assert run.converged
    assert abs(run.table[0, 0] - corner_of(a, b, np.exp(log_theta))) < 1e-9
    u, v = run.scalings
    assert np.abs(u[:, None] * start / start.sum() * v - run.table).max() < 1e-14
    assert all(np.isfinite(p).all() for p in run.potentials)


@pytest.mark.statement("2.9")
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_factors_are_found_up_to_one_constant_for_each_component(parts):
    rng = np.random.default_rng(parts)
    support = block_diag(*[np.array([[1, 1, 0], [0, 1, 1]])] * parts)
    u, v = rng.uniform(0.2, 5, size=2 * parts), rng.uniform(0.2, 5, size=3 * parts)
    start = rng.uniform(1, 5, size=support.shape) * support
    start /= start.sum()
    u /= (u[:, None] * start * v).sum()
    wanted = u[:, None] * start * v
    run = data_balance(start, (wanted.sum(axis=1), wanted.sum(axis=0)), tol=1e-13)
    assert np.abs(run.table - wanted).max() < 1e-11 and ((run.table > 0) == (support > 0)).all()
    by_row, by_column = run.scalings[0] / u, v / run.scalings[1]
    together = np.hstack([by_row.reshape(parts, 2), by_column.reshape(parts, 3)])
    assert np.ptp(together, axis=1).max() < 1e-9
    assert parts == 1 or np.ptp(together[:, 0]) > 0.01
    # the freedom: functions phi + psi that vanish on the support
    sums = marginal_sums(support.shape)[:, support.ravel() > 0]
    assert sum(support.shape) - np.linalg.matrix_rank(sums) == parts


@pytest.mark.statement("2.9")
def test_factors_run_away_where_a_cell_must_be_emptied():
    phi = [data_balance([[1, 1], [0, 1]], (UNIFORM, UNIFORM), steps=k).potentials[0] for k in (100, 10_000)]
    assert abs(np.ptp(phi[1]) - np.ptp(phi[0]) - np.log(100)) < 0.05


def dual_value(start, targets, z):
    """G and its gradient, by loops over the cells."""
    m, l = start.shape
    value, slopes = 1.0, [*targets[0], *targets[1]]
    value += sum(targets[0][x] * z[x] for x in range(m)) + sum(targets[1][y] * z[m + y] for y in range(l))
    for x in range(m):
        for y in range(l):
            cell = start[x, y] * np.exp(z[x] + z[m + y])
            value, slopes[x], slopes[m + y] = value - cell, slopes[x] - cell, slopes[m + y] - cell
    return value, np.array(slopes)


@pytest.mark.statement("2.10")
def test_dual_lies_below_every_feasible_table():
    table, targets = random_problem(7)
    start, (m, l), rng = table / table.sum(), table.shape, np.random.default_rng(7)
    point = rng.normal(size=m + l) / 3
    quotients = [
        (dual_value(start, targets, point + e)[0] - dual_value(start, targets, point - e)[0]) / 2e-6
        for e in 1e-6 * np.eye(m + l)
    ]
    slopes = dual_value(start, targets, point)[1]
    assert np.abs(quotients - slopes).max() < 1e-7 < np.abs(slopes).min()
    for _ in range(20):
        z = rng.normal(size=m + l) / 2
        rival = data_balance(rng.gamma(1.0, size=(m, l)), targets, tol=1e-13).table
        scaled = start * np.exp(z[:m, None] + z[m:])
        gap = kl_divergence(rival, start) - dual_value(start, targets, z)[0]
        assert abs(gap - (rel_entr(rival, scaled) - rival + scaled).sum()) < 1e-10 < gap


@pytest.mark.statement("2.10")
def test_half_steps_climb_the_dual_block_by_block():
    table, targets = random_problem(7)
    start, (m, l) = table / table.sum(), table.shape
    z, total = np.zeros(m + l), 0.0
    assert abs(dual_value(start, targets, z)[0]) < 1e-15
    for k in range(6):
        block = slice(0, m) if k % 2 == 0 else slice(m, None)
        found = marginal(data_balance(start, targets, steps=k).table, k % 2)
        before, z = z, np.concatenate(data_balance(start, targets, steps=k + 1).potentials)
        total += kl_divergence(targets[k % 2], found)
        assert abs(dual_value(start, targets, z)[0] - total) < 1e-13
        assert np.abs(dual_value(start, targets, z)[1][block]).max() < 1e-14
        assert np.delete(z, range(m + l)[block]).tolist() == np.delete(before, range(m + l)[block]).tolist()


@pytest.mark.statement("2.10")
def test_dual_supremum_and_whether_it_is_attained():
    table, targets = random_problem(7)
    start, (m, l) = table / table.sum(), table.shape
    down = lambda z: [-part for part in dual_value(start, targets, z)]  # noqa: E731
    options = {"ftol": 1e-15, "gtol": 1e-10}
    best = -minimize(down, np.zeros(m + l), jac=True, method="L-BFGS-B", options=options).fun
    run = data_balance(start, targets, tol=1e-14)
    value, slopes = dual_value(start, targets, np.concatenate(run.potentials))
    assert abs(best - kl_divergence(run.table, start)) < 1e-9 and abs(value - best) < 1e-9
    assert np.abs(slopes).max() < 1e-12
    wedge = np.array([[1, 1], [0, 1]]) / 3
    for q, expected in ((0.5, np.log(1.5)), (0.6, np.inf)):
        goals = UNIFORM, [q, 1 - q]
        at = [np.concatenate(data_balance(wedge, goals, steps=k).potentials) for k in (500, 1000)]
        (low, _), (high, slopes) = (dual_value(wedge, goals, z) for z in at)
        assert low < high < expected and np.abs(slopes).max() > 1e-4
        if q == 0.5:
            assert 0.99 < 2000 * (expected - high) < 1
        else:
            per_sweep = kl_divergence(*goals) + kl_divergence(*goals[::-1])
            assert abs(high - low - 250 * per_sweep) < 1e-8


@pytest.mark.statement("2.11")
@pytest.mark.parametrize(("p", "q"), [(0.6, 0.35), (0.3, 0.25), (0.4, 0.4), (0.45, 0.55), (0.2, 0.7)])
def test_three_regimes(p, q):
    """Runs of the package against the recursion, from the first sweep by hand."""
    rho, goals = q * (1 - p) / (p * (1 - q)), ([p, 1 - p], [q, 1 - q])
    start = np.array([[2.0, 3.0], [0.0, 4.0]]) / 9
    w = (1 - q) * (p * 3 / 5) / (p * 3 / 5 + 1 - p)
    first, tables = w, data_balance(start, goals, steps=2001, keep_iterates=True).iterates
    for t in range(1, 31):
        table = tables[2 * t]
        assert abs(table[0, 1] / w - 1) < 1e-10
        assert abs(total_variation(marginal(table, 0), goals[0]) - abs(q + w - p)) < 1e-14
        if p == q:
            closed = 1 / first + (t - 1) / (p * (1 - p))
        else:
            closed = 1 / (p - q) + rho ** (t - 1) * (1 / first - 1 / (p - q))
        assert abs(closed * w - 1) < 1e-10
        w = 1 / (rho / w + 1 / (p * (1 - q)))
    if q < p:
        assert np.abs([tables[2000] - [[q, p - q], [0, 1 - p]], tables[2001] - tables[2000]]).max() < 1e-12
    elif q > p:
        assert np.abs(tables[2000] - np.diag(goals[1])).max() < 1e-12
        assert np.abs(tables[2001] - np.diag(goals[0])).max() < 1e-12
        assert abs(total_variation(marginal(tables[2000], 0), goals[0]) - (q - p)) < 1e-12
        # rho^t w_t tends to a positive number
        assert abs(rho**99 * tables[200][0, 1] * (1 / first - 1 / (p - q)) - 1) < 1e-9
    else:
        assert np.abs(tables[2000] - np.diag(goals[0])).max() < 3e-4
        assert abs(1000 * tables[2000][0, 1] / (p * (1 - p)) - 1) < 0.01


@pytest.mark.statement("2.11")
def test_slow_convergence_has_a_closed_form():
    errors = data_balance([[1, 1], [0, 1]], (UNIFORM, UNIFORM), steps=60).history.max(axis=1)
    assert np.abs(errors[1:] - 1 / (2 * np.arange(2, 62))).max() < 1e-14


def principal_blocks(support, targets):
    """(lambda_i, A_i, B_i): take away the largest set of rows that is worst off, again and again."""
    rows, columns, found = list(range(support.shape[0])), np.ones(support.shape[1], bool), []
    while rows:
        sets = [list(a) for size in range(1, len(rows) + 1) for a in combinations(rows, size)]
        shares = [targets[0][a].sum() / targets[1][support[a].any(axis=0) & columns].sum() for a in sets]
        a = [a for a, share in zip(sets, shares, strict=True) if share > max(shares) - 1e-9][-1]
        found.append((max(shares), a, support[a].any(axis=0) & columns))
        rows, columns = [x for x in rows if x not in a], columns & ~found[-1][2]
    return found


@pytest.mark.statement("2.12")
@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_two_limits(seed):
    """Three blocks, rows and columns in random order: factors, zeros, rates and the nearest tables."""
    rng = np.random.default_rng(seed)
    lower = np.array([[1, 0, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [0, 1, 1, 0, 0], [1, 0, 1, 1, 1]])
    factors = np.array([1.5, 1.5, 1.1, 1.1, 0.0])
    order, turn = rng.permutation(5), rng.permutation(5)
    inner = np.array([0.1, 0.1, 0.2, 0.2, 0.4])
    columns = np.array([0.2, 0.15, 0.25, 0.3, 0.1])
    factors[4] = (1 - 1.5 * 0.2 - 1.1 * 0.4) / 0.4
    targets = (factors * inner)[order], columns[turn]
    table = (rng.uniform(1, 9, size=(5, 5)) * lower)[order][:, turn]
    t = data_balance(table, targets, steps=801, keep_iterates=True).iterates
    after_y, after_x, quotient = t[800], t[801], np.divide(t[202], t[200], where=table > 0, out=np.zeros((5, 5)))
    assert np.abs([after_y - t[798], after_x - t[799]]).max() < 1e-13
    assert abs(total_variation(after_y, after_x) - 0.5 * (0.2 * 0.5 + 0.4 * 0.1 + 0.4 * (1 - factors[4]))) < 1e-10
    found = principal_blocks(table > 0, targets)
    assert np.allclose([f for f, _, _ in found], [1.5, 1.1, factors[4]], rtol=1e-12)
    inside = np.zeros((5, 5), bool)
    for i, (factor, a, b) in enumerate(found):
        assert abs(targets[0][a].sum() / targets[1][b].sum() / factor - 1) < 1e-12
        assert np.abs(targets[0][a] / marginal(after_y, 0)[a] / factor - 1).max() < 1e-11
        assert np.abs(marginal(after_x, 1)[b] / targets[1][b] / factor - 1).max() < 1e-11
        inside |= np.outer(np.isin(range(5), a), b)
        for j, (other, _, c) in enumerate(found):
            used = table[np.ix_(a, c)] > 0
            if i < j:
                assert not used.any()
            elif i > j:
                assert np.abs(quotient[np.ix_(a, c)][used] / (factor / other) - 1).max() < 1e-9
    assert max(after_y[~inside].max(), after_x[~inside].max()) < 1e-13
    for limit in (after_y, after_x):
        rival = data_balance(
            rng.gamma(1.0, size=(5, 5)) * (table > 0) * inside, (marginal(limit, 0), marginal(limit, 1))
        )
        parts = kl_divergence(rival.table, limit), kl_divergence(limit, table / table.sum())
        assert abs(kl_divergence(rival.table, table / table.sum()) - sum(parts)) < 1e-6 < parts[0]


@pytest.mark.statement("2.12")
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seeds, st.floats(0.3, 0.6))
def test_largest_factor_is_the_worst_set(seed, density):
    table, targets = random_problem(seed, density=density)
    worst = violation(table > 0, targets)
    run = data_balance(table, targets, steps=3000)
    factor = (targets[0] / marginal(run.table, 0)).max()
    assert worst - 1e-9 <= factor < worst + 4e-3


@pytest.mark.statement("2.12")
def test_one_limit_if_a_table_fits():
    rng = np.random.default_rng(0)
    table = rng.gamma(1.0, size=(4, 4)) * np.tri(4)
    fitting = rng.gamma(1.0, size=(4, 4)) * np.tri(4)
    targets = marginal(fitting, 0), marginal(fitting, 1)
    assert [(round(f, 12), len(a)) for f, a, _ in principal_blocks(table > 0, targets)] == [(1, 4)]
    t = data_balance(table, targets, steps=4001, keep_iterates=True).iterates
    assert total_variation(t[4000], t[4001]) < 1e-9


def widest(support, targets):
    """The largest t such that a table with these marginals has mass t or more in each positive cell; None if none."""
    sums = marginal_sums(support.shape)[:, support.ravel()]
    low = sums.sum(axis=1)  # every cell is t and a remainder that is not negative
    answer = linprog([0] * sums.shape[1] + [-1], A_eq=np.column_stack([sums, low]), b_eq=np.concatenate(targets))
    return -answer.fun if answer.status == 0 else None


def hall(support, targets):
    """Whether (a) of Theorem 2.13 holds, whether (b), and the largest excess, for whole numbers."""
    m = len(support)
    sets = [list(a) for size in range(1, m + 1) for a in combinations(range(m), size)]
    reached = [support[a].any(axis=0) for a in sets]
    excess = [targets[0][a].sum() - targets[1][c].sum() for a, c in zip(sets, reached, strict=True)]
    crossed = [np.delete(support, a, axis=0)[:, c].any() for a, c in zip(sets, reached, strict=True)]
    tight = [gap == 0 and cross for gap, cross in zip(excess, crossed, strict=True)]
    return max(excess) <= 0, max(excess) <= 0 and not any(tight), max(excess)


@pytest.mark.statement("2.13")
@settings(max_examples=150, deadline=None, derandomize=True)
@given(seeds, st.floats(0.3, 0.8))
def test_hall_condition_against_a_linear_program(seed, density):
    """With targets in whole numbers, so that equality occurs."""
    rng = np.random.default_rng(seed)
    table, _ = random_problem(seed, density=density)
    m, l = table.shape
    targets = rng.multinomial(6, np.full(m, 1 / m)) + 1, rng.multinomial(6 + m - l, np.full(l, 1 / l)) + 1
    fits, full, gap = hall(table > 0, targets)
    best = widest(table > 0, targets)
    assert (best is not None) == fits and (best is not None and best > 1e-9) == full
    history = data_balance(table, targets, steps=9).history
    left = [history[k, k % 2] for k in range(1, len(history))]
    assert all(error >= gap / targets[0].sum() - 1e-12 for error in left)


@pytest.mark.statement("2.13")
def test_equality_in_hall_empties_cells():
    support = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]]) > 0
    tight = np.array([3, 3, 4]), np.array([2, 4, 4])
    slack = np.array([2, 3, 5]), np.array([2, 4, 4])
    emptied = data_balance(support, tight, steps=8000).table
    used = data_balance(support, slack, tol=1e-12)
    assert emptied[2, :2].max() < 1e-3 and used.converged and used.table[2, :2].min() > 0.01
    assert hall(support, tight) == (True, False, 0) and hall(support, slack) == (True, True, 0)
    assert solvable(support, tight) and widest(support, tight) < 1e-9 < widest(support, slack)
    # equality for a set from which no cell leads away empties nothing
    apart = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]]) > 0
    kept = data_balance(apart, tight, tol=1e-12)
    assert kept.converged and kept.table[apart].min() > 0.05 and hall(apart, tight) == (True, True, 0)


@pytest.mark.statement("2.13")
def test_unavoidable_error_is_attained_in_the_limit():
    history = data_balance([[1, 1], [0, 1]], (UNIFORM, [0.6, 0.4]), steps=400).history
    for k in range(1, 401):
        assert history[k, k % 2] >= 0.1 - 1e-12
    assert max(history[-1].max(), history[-2].max()) < 0.1 * (1 + 1e-9)


@pytest.mark.statement("2.14")
@fast
@given(seeds)
def test_scores_and_costs(seed):
    rng = np.random.default_rng(seed)
    scores, eps = rng.normal(size=(3, 4)), 0.5
    targets = rng.dirichlet(np.ones(3) * 3), rng.dirichlet(np.ones(4) * 3)
    plan = data_balance(np.exp(scores / eps), targets, tol=1e-13, max_steps=50_000).table
    other = data_balance(np.exp(-scores / eps), targets, tol=1e-13, max_steps=50_000).table
    value = lambda q: (scores * q).sum() - eps * (q * np.log(q)).sum()  # noqa: E731
    lost = value(plan) - value(other)
    assert abs(lost - eps * kl_divergence(other, plan)) < 1e-8 and lost > 0
    paid = lambda q: (-scores * q).sum() + eps * kl_divergence(q, np.outer(*targets))  # noqa: E731
    assert abs(paid(other) - paid(plan) - lost) < 1e-10
    # no other table near the plan is better
    circle = plan.min() / 2 * np.array([[1, -1, 0, 0], [-1, 1, 0, 0], [0, 0, 0, 0]])
    for near in (plan + circle, plan - circle):
        assert value(near) < value(plan) and paid(near) > paid(plan)
    sums, goal = marginal_sums((3, 4)), np.concatenate(targets)
    cheapest = linprog(-scores.ravel(), A_eq=sums, b_eq=goal).fun
    assert -1e-12 <= -(scores * plan).sum() - cheapest <= eps * np.log(3)


@pytest.mark.statement("2.14")
@pytest.mark.parametrize("shape", [(4, 4), (300, 300), (4, 8), (8, 4)])
def test_share_of_the_cost_bound_in_closed_form(shape):
    """Cost 1 off the diagonal, columns or rows copied: the copies do not enter the bound."""
    n = min(shape)
    cost = 1 - np.kron(np.eye(n), np.ones((shape[0] // n, shape[1] // n)))
    z = np.log(n) - np.log(np.log(n))
    plan = data_balance(np.exp(-cost * z), [np.full(k, 1 / k) for k in shape], steps=2).table
    share = (cost * plan).sum() / (np.log(min(shape)) / z)
    assert abs(share - z / np.log(n) / (1 + np.exp(z) / (n - 1))) < 1e-12 and share < 1
    assert n < 300 or share > 0.58


@pytest.mark.statement("2.14")
def test_cost_bound_is_sharp_for_large_tables():
    log_n = np.array([1e2, 1e3, 1e4, 1e5])
    z = log_n - np.log(log_n)
    share = z / log_n / (1 + np.exp(z - log_n))  # n - 1 is n to rounding
    assert (np.diff(share) > 0).all() and 0.9998 < share[-1] < 1


def several_axes(axes):
    table, targets = random_problem(axes, axes)
    if axes == 4:
        table, targets = table[:2, :2, :2, :2], [t[:2] / t[:2].sum() for t in targets]
    return table / table.sum(), targets


def product_of(factors):
    """u_1(x_1) ... u_N(x_N) as an array."""
    product = np.ones(())
    for factor in factors:
        product = np.multiply.outer(product, factor)
    return product


@pytest.mark.statement("2.15")
@pytest.mark.parametrize("axes", [3, 4])
def test_any_number_of_axes(axes):
    """Descent, limit, Pythagoras and the values of the dual."""
    start, targets = several_axes(axes)
    run = data_balance(start, targets, steps=600, keep_iterates=True)
    found = [marginal(t, k % axes) for k, t in enumerate(run.iterates)]
    removed = [kl_divergence(targets[k % axes], p) for k, p in enumerate(found)]
    errors = [total_variation(targets[k % axes], p) for k, p in enumerate(found)]
    assert run.converged and min(removed[:axes]) > 1e-4
    assert np.abs(run.history[range(601), np.arange(601) % axes] - errors).max() < 1e-14
    rng = np.random.default_rng(axes)
    rival = data_balance(rng.gamma(1.0, size=start.shape), targets, tol=1e-13).table
    for k in (1, 2, 3, 4, 5, 12):
        assert abs(kl_divergence(rival, run.iterates[k]) - kl_divergence(rival, start) + sum(removed[:k])) < 1e-11
        phi = data_balance(start, targets, steps=k).potentials
        value = sum(t @ f for t, f in zip(targets, phi, strict=True))  # the total mass is 1
        assert abs(value - sum(removed[:k])) < 1e-12
    parts = kl_divergence(rival, run.table), kl_divergence(run.table, start)
    assert abs(kl_divergence(rival, start) - sum(parts)) < 1e-11 and parts[0] > 1e-3
    assert abs(sum(removed) - parts[1]) < 1e-11
    keep = [i for i in range(sum(start.shape)) if i not in np.cumsum(start.shape)[:-1]]
    nearest = generic_projection(start, marginal_sums(start.shape)[keep], np.concatenate(targets)[keep])
    assert np.abs(nearest - run.table.ravel()).max() < 1e-4


@pytest.mark.statement("2.15")
@pytest.mark.parametrize("axes", [3, 4])
def test_each_step_is_a_projection_with_product_factors(axes):
    start, targets = several_axes(axes)
    rng = np.random.default_rng(axes)
    before = start
    for k in range(1, 2 * axes + 1):
        axis = (k - 1) % axes
        run = data_balance(start, targets, steps=k)
        flat = np.moveaxis(before, axis, 0).reshape(len(targets[axis]), -1)
        by_hand = project(flat, targets[axis], 0)
        assert np.abs(np.moveaxis(run.table, axis, 0).reshape(flat.shape) - by_hand).max() < 1e-14
        assert np.abs(run.table - start * product_of(run.scalings)).max() < 1e-14
        assert min(map(np.min, run.scalings)) > 0
        # Pythagoras, with a table that has this marginal only
        rival = project(rng.gamma(1.0, size=flat.shape), targets[axis], 0)
        removed = kl_divergence(targets[axis], marginal(before, axis))
        assert abs(kl_divergence(rival, flat) - kl_divergence(rival, by_hand) - removed) < 1e-12 < removed
        before = run.table


@pytest.mark.statement("2.15")
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 2, 3, 2)])
def test_odds_ratios_on_all_pairs_of_axes_leave_product_factors(shape):
    """The functions without mixed differences are the sums of functions of one coordinate."""
    cells, unit = np.prod(shape), np.eye(np.prod(shape)).reshape(-1, *shape)
    pairs = list(combinations(range(1, len(shape) + 1), 2))
    mixed = [np.diff(np.diff(unit, axis=a), axis=b).reshape(cells, -1) for a, b in pairs]
    sums = marginal_sums(shape)
    assert np.abs(sums @ np.hstack(mixed)).max() == 0
    dimension = sum(shape) - len(shape) + 1
    assert np.linalg.matrix_rank(sums) == dimension == cells - np.linalg.matrix_rank(np.hstack(mixed))
    assert cells - np.linalg.matrix_rank(np.hstack(mixed[:-1])) > dimension
    # balancing keeps them, with the other coordinates fixed
    rng = np.random.default_rng(0)
    start, targets = rng.gamma(1.0, size=shape), [rng.dirichlet(np.ones(n)) for n in shape]
    table = data_balance(start, targets, steps=5).table
    assert np.abs(np.log(table / start).ravel() @ np.hstack(mixed)).max() < 1e-11
    # and a table with product factors is the limit for its own marginals
    for support in (np.ones(shape), np.indices(shape).sum(axis=0) % 3 != 1):
        wanted = start * support * product_of([rng.uniform(0.3, 3, size=n) for n in shape])
        own = [marginal(wanted, a) for a in range(len(shape))]
        limit = data_balance(start * support, own, tol=1e-13).table
        assert np.abs(limit - wanted / wanted.sum()).max() < 1e-11
        assert ((limit > 0) == (support > 0)).all()


def dual_of_axes(start, targets, phi):
    """G of Proposition 2.15 (f), its gradient axis by axis, and the scaled table."""
    scaled = start * product_of([np.exp(f) for f in phi])
    value = sum(t @ f for t, f in zip(targets, phi, strict=True)) - scaled.sum() + 1
    axes = range(start.ndim)
    return value, [t - scaled.sum(axis=tuple({*axes} - {a})) for a, t in enumerate(targets)], scaled


@pytest.mark.statement("2.15")
@pytest.mark.parametrize("axes", [3, 4])
def test_dual_with_more_axes(axes):
    """The gradient, the gap to a feasible table, and the maximum over one block and over all."""
    start, targets = several_axes(axes)
    rng = np.random.default_rng(axes)
    phi = [rng.normal(size=n) / 3 for n in start.shape]
    value, slopes, scaled = dual_of_axes(start, targets, phi)
    for axis, n in enumerate(start.shape):
        for i in range(n):
            nudge = [1e-6 * (np.arange(k) == i) * (a == axis) for a, k in enumerate(start.shape)]
            up, down = (
                dual_of_axes(start, targets, [f + sign * e for f, e in zip(phi, nudge, strict=True)])[0]
                for sign in (1, -1)
            )
            assert abs((up - down) / 2e-6 - slopes[axis][i]) < 1e-8 < abs(slopes[axis][i])
    rival = data_balance(rng.gamma(1.0, size=start.shape), targets, tol=1e-13).table
    gap = kl_divergence(rival, start) - value
    assert abs(gap - (rel_entr(rival, scaled) - rival + scaled).sum()) < 1e-11 < gap
    for k in range(2 * axes):
        phi = data_balance(start, targets, steps=k + 1).potentials
        assert np.abs(dual_of_axes(start, targets, phi)[1][k % axes]).max() < 1e-14
    run = data_balance(start, targets, tol=1e-13)
    value, slopes, _ = dual_of_axes(start, targets, run.potentials)
    assert abs(value - kl_divergence(run.table, start)) < 1e-11 and max(np.abs(s).max() for s in slopes) < 1e-12


@pytest.mark.statement("2.15")
def test_a_supremum_that_is_not_attained_with_three_axes():
    """One feasible table, which empties two cells: G stays about 1/(4t) below the supremum after t sweeps."""
    start = np.multiply.outer([[1, 1], [0, 1]], [2, 3]) / 15
    goals = UNIFORM, UNIFORM, np.array([0.4, 0.6])
    for sweeps, low in ((100, 0.95), (1000, 0.99)):
        phi = data_balance(start, goals, steps=3 * sweeps).potentials
        assert low < 4 * sweeps * (np.log(3 / 2) - dual_of_axes(start, goals, phi)[0]) < 1


@pytest.mark.statement("2.15")
def test_an_infeasible_table_with_three_axes():
    """Pairs of axes see full tables, and yet nothing fits."""
    parity = np.indices((2, 2, 2)).sum(axis=0) % 2
    goals = [np.array([0.9, 0.1])] * 3
    assert not solvable(parity > 0, goals) and solvable(parity > 0, [np.array([0.6, 0.4])] * 3)
    t = data_balance(parity, goals, steps=301, keep_iterates=True).iterates
    assert abs(total_variation(t[-1], t[-2]) - total_variation(t[-2], t[-3])) < 1e-9 < total_variation(t[-1], t[-2])
    removed = [kl_divergence(goals[k % 3], marginal(t[k], k % 3)) for k in range(300)]
    assert min(removed) > 0.25 and abs(removed[-1] - removed[-4]) < 1e-9
    phi = data_balance(parity, goals, steps=300).potentials
    assert abs(sum(g @ f for g, f in zip(goals, phi, strict=True)) - sum(removed)) < 1e-8
