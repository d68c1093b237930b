"""The statements of chapter 2, against general solvers and rational arithmetic."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize, minimize_scalar

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
    """One free cell is left, so that a scalar search finds the minimizer."""
    start = np.array([[4, 1, 2], [0, 3, 1], [0, 2, 5]]) / 18
    targets = [0.4, 0.3, 0.3], [0.4, 0.25, 0.35]
    table = lambda t: np.array([[0.4, 0, 0], [0, t, 0.3 - t], [0, 0.25 - t, 0.05 + t]])  # noqa: E731
    search = minimize_scalar(lambda t: kl_divergence(table(t), start), bounds=(0, 0.25), method="bounded")
    run = data_balance(start, targets, steps=4000)
    assert np.abs(run.table - table(search.x)).max() < 3e-4
    half = data_balance(start, targets, steps=2000)
    assert 1.9 < half.errors.max() / run.errors.max() < 2.1


@pytest.mark.statement("2.8")
@fast
@given(seeds)
def test_pythagoras_for_the_limit(seed):
    table, targets = random_problem(seed)
    start = table / table.sum()
    limit = data_balance(start, targets, tol=1e-13).table
    rival = data_balance(np.random.default_rng(seed).gamma(2, size=table.shape), targets, tol=1e-13).table
    parts = kl_divergence(rival, limit) + kl_divergence(limit, start)
    assert abs(kl_divergence(rival, start) - parts) < 1e-9


@pytest.mark.statement("2.9")
@fast
@given(st.floats(0.05, 0.95), st.floats(0.05, 0.95), st.floats(-5, 5))
def test_two_by_two_limit_in_closed_form(a, b, log_theta):
    start = np.array([[np.exp(log_theta), 1], [1, 1]])
    run = data_balance(start, ([a, 1 - a], [b, 1 - b]), tol=1e-13, max_steps=100_000)
    assert run.converged
    assert abs(run.table[0, 0] - corner_of(a, b, np.exp(log_theta))) < 1e-9
    assert all(np.isfinite(p).all() for p in run.potentials)


@pytest.mark.statement("2.9")
def test_support_of_the_limit_is_that_of_a_feasible_table():
    rng = np.random.default_rng(9)
    support = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1]])
    feasible = rng.gamma(2.0, size=(3, 3)) * support
    feasible /= feasible.sum()
    u, v = rng.gamma(2.0, size=3), rng.gamma(2.0, size=3)
    run = data_balance(feasible * u[:, None] * v, (feasible.sum(axis=1), feasible.sum(axis=0)), tol=1e-13)
    assert np.abs(run.table - feasible).max() < 1e-11
    ratio = run.scalings[0] * u
    assert np.allclose(ratio / ratio[0], 1, atol=1e-10)


@pytest.mark.statement("2.10")
def test_duality_against_a_quasi_newton_method():
    table, targets = random_problem(7)
    start, (m, l) = table / table.sum(), table.shape

    def dual(z):
        scaled = start * np.exp(z[:m, None] + z[m:])
        value = targets[0] @ z[:m] + targets[1] @ z[m:] - scaled.sum() + 1
        slopes = targets[0] - scaled.sum(axis=1), targets[1] - scaled.sum(axis=0)
        return -value, -np.concatenate(slopes)

    point = np.random.default_rng(7).normal(size=m + l) / 3
    quotients = [(dual(point + e)[0] - dual(point - e)[0]) / 2e-6 for e in 1e-6 * np.eye(m + l)]
    assert np.abs(quotients - dual(point)[1]).max() < 1e-7
    options = {"ftol": 1e-15, "gtol": 1e-10}
    best = -minimize(dual, np.zeros(m + l), jac=True, method="L-BFGS-B", options=options).fun
    run = data_balance(start, targets, steps=300, keep_iterates=True)
    assert abs(best - kl_divergence(run.table, start)) < 1e-9
    total = 0.0
    for k in range(1, 6):
        total += kl_divergence(targets[(k - 1) % 2], marginal(run.iterates[k - 1], (k - 1) % 2))
        potentials = np.concatenate(data_balance(start, targets, steps=k).potentials)
        assert abs(-dual(potentials)[0] - total) < 1e-13 and total <= best + 1e-12


@pytest.mark.statement("2.11")
@pytest.mark.parametrize("q", [Fraction(1, 3), Fraction(1, 2), Fraction(2, 3)])
def test_three_regimes(q):
    rho, goals = q / (1 - q), (UNIFORM, [float(q), float(1 - q)])
    start = [[1, 1], [0, 1]]
    w = float((1 - q) / 3)  # by hand, after the first sweep
    for t in range(1, 30):
        table = data_balance(start, goals, steps=2 * t).table
        assert abs(table[0, 1] / w - 1) < 1e-10
        assert abs(abs(table[0].sum() - 0.5) - abs(float(q) + w - 0.5)) < 1e-13
        w = 1 / (float(rho) / w + 1 / (0.5 * (1 - float(q))))
    if rho == 1:
        errors = data_balance(start, goals, steps=60).history.max(axis=1)
        assert np.abs(errors[1:] - 1 / (2 * np.arange(2, 62))).max() < 1e-14
    if rho > 1:
        t = data_balance(start, goals, steps=201, keep_iterates=True).iterates
        assert np.abs(t[200] - np.diag(goals[1])).max() < 1e-13
        assert np.abs(t[201] - np.diag(goals[0])).max() < 1e-13


@pytest.mark.statement("2.12")
def test_two_limits():
    table = np.array([[3, 0, 0, 0], [1, 0, 0, 0], [2, 5, 0, 4], [1, 1, 2, 0.0]])
    targets = np.array([0.25, 0.15, 0.2, 0.4]), np.array([0.3, 0.3, 0.2, 0.2])
    factors = np.array([4 / 3, 4 / 3, 6 / 7, 6 / 7])
    t = data_balance(table, targets, steps=401, keep_iterates=True).iterates
    assert np.abs(targets[0] / marginal(t[400], 0) - factors).max() < 1e-10
    assert np.abs(marginal(t[401], 1) / targets[1] - np.array([4, 0, 0, 0]) / 3)[0] < 1e-10
    assert np.abs(t[400] - t[398]).max() < 1e-13 and total_variation(t[400], t[401]) > 0.09
    assert abs(violation(table > 0, targets) - 4 / 3) < 1e-12
    blocks = table * (np.array([0, 0, 1, 1])[:, None] == np.array([0, 1, 1, 1]))
    direct = data_balance(blocks, (targets[0] / factors, targets[1]), tol=1e-13).table
    assert np.abs(direct - t[400]).max() < 1e-11


@pytest.mark.statement("2.12")
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seeds, st.floats(0.3, 0.6))
def test_largest_factor_is_the_worst_set(seed, density):
    table, targets = random_problem(seed, density=density)
    worst = violation(table > 0, targets)
    run = data_balance(table, targets, steps=3000)
    factor = (targets[0] / marginal(run.table, 0)).max()
    assert worst - 1e-9 <= factor < worst + 4e-3


@pytest.mark.statement("2.13")
@settings(max_examples=100, deadline=None, derandomize=True)
@given(seeds, st.floats(0.3, 0.7))
def test_hall_condition_against_a_linear_program(seed, density):
    table, targets = random_problem(seed, density=density)
    worst = violation(table > 0, targets)
    assert solvable(table > 0, targets) == (worst <= 1 + 1e-9)
    history = data_balance(table, targets, steps=20).history[1:].max(axis=1)
    m = len(table)
    sets = [list(a) for size in range(1, m + 1) for a in combinations(range(m), size)]
    columns = [(table[a] > 0).any(axis=0) for a in sets]
    gap = max(targets[0][a].sum() - targets[1][c].sum() for a, c in zip(sets, columns, strict=True))
    assert (history >= gap - 1e-12).all()


@pytest.mark.statement("2.13")
def test_equality_in_hall_empties_cells():
    support = np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
    tight = [0.3, 0.3, 0.4], [0.2, 0.4, 0.4]
    slack = [0.2, 0.3, 0.5], [0.2, 0.4, 0.4]
    emptied = data_balance(support, tight, steps=8000).table
    used = data_balance(support, slack, tol=1e-12)
    assert emptied[2, :2].max() < 1e-3 and used.converged and used.table[2, :2].min() > 0.01


@pytest.mark.statement("2.14")
@pytest.mark.parametrize("seed", range(4))
def test_local_rate(seed):
    rng = np.random.default_rng(seed)
    table = np.ones((3, 4)) + 9 * (rng.random((3, 4)) < 0.4)
    targets = rng.dirichlet(np.ones(3) * 5), rng.dirichlet(np.ones(4) * 5)
    limit = data_balance(table, targets, tol=1e-14).table
    rate = np.linalg.svd(limit / np.sqrt(np.outer(*targets)), compute_uv=False)[1] ** 2
    tables = data_balance(table, targets, steps=200, keep_iterates=True).iterates[2::2]
    errors = np.array([total_variation(marginal(t, 0), targets[0]) for t in tables])
    late = np.flatnonzero((errors < 1e-7) & (errors > 1e-11))
    assert late.size > 2
    slope = np.polyfit(late, np.log(errors[late]), 1)[0]
    assert abs(np.exp(slope) / rate - 1) < 0.02
    early = np.flatnonzero((errors < 1e-3) & (errors > 1e-6))
    divergence = [np.log(kl_divergence(targets[0], marginal(tables[t], 0))) for t in early]
    assert abs(np.polyfit(early, divergence, 1)[0] / (2 * np.log(rate)) - 1) < 0.1


@pytest.mark.statement("2.14")
def test_exact_recursion_of_the_errors():
    table, targets = random_problem(8)
    t = data_balance(table, targets, steps=4, keep_iterates=True).iterates
    e, f = marginal(t[2], 0) / targets[0] - 1, marginal(t[3], 1) / targets[1] - 1
    assert np.abs(f + t[3].T @ e / targets[1]).max() < 1e-13
    after = marginal(t[4], 0) / targets[0] - 1
    assert np.abs(after + t[4] @ f / targets[0]).max() < 1e-13 and np.abs(e).max() > 1e-6


@pytest.mark.statement("2.15")
@fast
@given(seeds)
def test_scores_and_costs(seed):
    rng = np.random.default_rng(seed)
    scores, eps = rng.normal(size=(3, 4)), 0.5
    targets = rng.dirichlet(np.ones(3) * 3), rng.dirichlet(np.ones(4) * 3)
    plan = data_balance(np.exp(scores / eps), targets, tol=1e-13, max_steps=50_000).table
    wrong = data_balance(np.exp(-scores / eps), targets, tol=1e-13, max_steps=50_000).table
    value = lambda q: (scores * q).sum() - eps * (q * np.log(q)).sum()  # noqa: E731
    assert abs(value(plan) - value(wrong) - eps * kl_divergence(wrong, plan)) < 1e-8
    sums, goal = marginal_sums((3, 4)), np.concatenate(targets)
    cheapest = linprog(-scores.ravel(), A_eq=sums, b_eq=goal).fun
    assert -1e-12 <= -(scores * plan).sum() - cheapest <= eps * np.log(3)


@pytest.mark.statement("2.16")
@pytest.mark.parametrize("axes", [3, 4])
def test_any_number_of_axes(axes):
    table, targets = random_problem(axes, axes)
    if axes == 4:
        table, targets = table[:2, :2, :2, :2], [t[:2] / t[:2].sum() for t in targets]
    start = table / table.sum()
    run = data_balance(start, targets, steps=600, keep_iterates=True)
    assert run.converged
    removed = [kl_divergence(targets[k % axes], marginal(t, k % axes)) for k, t in enumerate(run.iterates)]
    assert abs(sum(removed) - kl_divergence(run.table, start)) < 1e-11 and removed[0] > 1e-3
    keep = [i for i in range(sum(table.shape)) if i not in np.cumsum(table.shape)[:-1]]
    values = np.concatenate(targets)[keep]
    nearest = generic_projection(start, marginal_sums(table.shape)[keep], values)
    assert np.abs(nearest - run.table.ravel()).max() < 1e-4
