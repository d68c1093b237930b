"""The statements of chapter 5 against exact enumeration, closed forms and second derivations."""

import math
from itertools import pairwise, product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import binom, norm, poisson

from balance import data_balance, kl_divergence, total_variation
from balance.batched import balance_many, balanced_means
from balance.bounds import (
    contraction_bound,
    exact_mse,
    expansion,
    explicit_bound,
    largest_log_odds_ratio,
    missing_probability,
    quadratic_bound,
    remainder_constant,
    simulated_mse,
    uniform_bound,
)
from balance.contraction import contraction_coefficients, contraction_constant
from balance.enumeration import count_tables
from balance.operators import dependent_table, maximal_correlation
from balance.variance import balanced_variance, decomposition, influence_function, limit_variance
from helpers import SPARSE_LAW, WIDE, F, H, P, random_law, weighted_matrix


def marginals(table):
    return table.sum(axis=1), table.sum(axis=0)


def everything(n, table):
    return map(np.concatenate, zip(*count_tables(n, table), strict=True))


@pytest.mark.statement("5.8")
def test_shape_of_the_paper_bound():
    """One constant for all n and k; with a larger sigma_gap, or without a term, there would be none."""
    table, h = dependent_table(3, 0.5), np.array([[1.0, -1.0, 2.0], [0.0, 3.0, 0.5], [1.5, 1.0, -2.0]])
    s, limit, k = maximal_correlation(table), limit_variance(table, h), np.arange(1, 151)
    gap = balanced_variance(table, h, 0) - limit
    additive = h - influence_function(table, h, 200)
    above = np.array([balanced_variance(table, additive, j) for j in k])
    assert np.allclose(above[:9], [balanced_variance(table, h, j) - limit for j in k[:9]])
    constants = expansion(table, h, 16).constants[np.minimum(k, 16)]
    assert constants[-1] > 0

    def needed(n, excess, k):
        first = balanced_variance(table, h, 0) - gap
        # the two limits are equal but for rounding, which n = 1e28 would see
        difference = 0 if np.isclose(first, limit, rtol=1e-12) else limit - first
        return np.max((excess + difference) / (s**k + k**6.0 / n**0.5))

    enough = max(gap / s, constants.max())
    for n in (6, 10):
        assert needed(n, n * exact_mse(table, h, n, 4).mse[1:] - limit, k[:4]) <= enough
    for n in 10.0 ** np.arange(2, 29):
        assert needed(n, above + constants / n, k) <= enough


@pytest.mark.statement("5.9")
@pytest.mark.parametrize("n", [1, 4, 7, 25])
def test_step_on_the_wrong_variable_never_helps(n):
    table, b = np.outer([0.2, 0.8], [0.3, 0.1, 0.6]), np.array([[1.0, 0.0, -2.0]])
    variance = table.sum(axis=0) @ b[0] ** 2 - (table.sum(axis=0) @ b[0]) ** 2
    result = exact_mse(table, b, n, 1).mse
    assert abs(limit_variance(table, b)) < 1e-12 and maximal_correlation(table) < 1e-12
    assert np.isclose(n * result[0], variance, rtol=1e-9, atol=0)
    least = variance if n == 1 else variance * (1 + 1e-9)
    assert n * result[1] > least * (1 - 1e-12)
    assert n == 1 or exact_mse(table, b, n, 1, first=1).mse[1] < result[0] < result[1]


@pytest.mark.statement("5.9")
def test_loss_on_the_wrong_variable_is_of_second_order():
    table, b = np.outer([0.5, 0.5], [0.5, 0.5]), np.array([[1.0, -1.0]])
    plain, one = exact_mse(table, b, 120, 1).mse
    assert 1 < one / plain < 1.01
    dependent = np.array([[0.4, 0.1], [0.1, 0.4]])
    assert exact_mse(dependent, b, 120, 1).mse[1] < 0.7 * plain


def bounds_if_missing(table, n):
    """The lower and the upper bound of Lemma 5.1."""
    least = min(map(min, marginals(table)))
    return (1 - least) ** n, sum(table.shape) * (1 - least) ** n


@pytest.mark.statement("5.1")
@pytest.mark.parametrize("table", [P, WIDE, SPARSE_LAW], ids=["P", "wide", "sparse"])
def test_missing_values(table):
    for n in (1, 2, 5, 12):
        counts, chance = everything(n, table)
        lost = (counts.sum(axis=2) == 0).any(axis=1) | (counts.sum(axis=1) == 0).any(axis=1)
        value = missing_probability(table, n)
        assert np.isclose(value, chance[lost].sum(), rtol=1e-10, atol=0)
        low, high = bounds_if_missing(table, n)
        assert low <= value * (1 + 1e-12) <= high * (1 + 2e-12)


@pytest.mark.statement("5.1")
def test_missing_values_near_both_bounds():
    rare = np.outer([0.3, 0.7], [0.45, 0.55])
    for n, above in ((5, 2), (30, 1.01)):
        assert 1 <= missing_probability(rare, n) / bounds_if_missing(rare, n)[0] < above
    for shape in ((2, 2), (2, 6), (6, 2), (4, 4)):
        table = np.full(shape, 1 / math.prod(shape))
        share = missing_probability(table, 60) / bounds_if_missing(table, 60)[1]
        equally_rare = sum(shape) if shape[0] == shape[1] else max(shape)
        assert 0.999 * equally_rare / sum(shape) < share <= 1


@pytest.mark.statement("5.29")
@pytest.mark.parametrize("p", [[0.15, 0.25, 0.6], [0.5, 0.5], [1 / 9] * 9], ids=len)
def test_method_of_types(p):
    m = len(p)
    reversed_fails, worst = False, []
    for n in (1, 5, 9) if m == 9 else (1, 8, 30, 90):
        counts, chance = everything(n, p)
        divergence = rel_entr(counts / n, p).sum(axis=1)
        assert len(counts) <= (n + 1) ** m
        assert np.all(chance <= np.exp(-n * divergence) * (1 + 1e-10))
        reversed_fails |= np.any(chance > 1.01 * np.exp(-n * rel_entr(p, counts / n).sum(axis=1)))
        corner = counts.max(axis=1) == n
        assert np.allclose(chance[corner], np.exp(-n * divergence[corner]), rtol=1e-9, atol=0)
        # the supremum over eps: just below a value of the divergence
        for value in np.unique(divergence.round(10)):
            tail, factor = chance[divergence > value - 1e-9].sum(), (n + 1) ** m
            assert tail <= factor * np.exp(-n * value) * (1 + 1e-6)
            worst.append(tail * np.exp(n * value))
    assert reversed_fails and max(worst) > {2: 1.9, 3: 1.9, 9: 150}[m]


@pytest.mark.statement("5.30")
def test_pinsker():
    def right(q, p):
        return np.sqrt(kl_divergence(q, p) / 2)

    rng = np.random.default_rng(55)
    for size in (2, 3, 10):
        for _ in range(100):
            q, p = rng.dirichlet(np.full(size, 0.5), size=2)
            assert total_variation(q, p) <= right(q, p)
    q, p = [0.505, 0.495], [0.5, 0.5]
    assert 0.9999 * right(q, p) < total_variation(q, p) <= right(q, p)


@pytest.mark.statement("5.31")
def test_marginal_about_to_be_corrected():
    rng, targets = np.random.default_rng(56), marginals(WIDE)
    counts = rng.multinomial(40, WIDE.ravel(), size=150).reshape(-1, 2, 3)
    problems = [(c, targets) for c in counts if c.any(axis=0).all() and c.any(axis=1).all()]
    # a table whose divergences in a fixed direction grow, and one whose margins err in opposite directions
    problems.append((np.array([[1, 100], [100, 1]]), ([0.4, 0.6], [0.9, 0.1])))
    problems.append((np.diag([0.3, 0.3, 0.4]) + 1e-7, ([0.29, 0.31, 0.4], [0.31, 0.29, 0.4])))
    rises = np.zeros((len(problems), 5))
    for i, (start, goal) in enumerate(problems):
        tables = data_balance(start, goal, steps=7, keep_iterates=True).iterates
        pairs = [(tables[j].sum(axis=1 - j % 2), goal[j % 2]) for j in range(7)]
        d = [total_variation(*pair) for pair in pairs]
        x, y = (total_variation(start.sum(axis=1 - a) / start.sum(), goal[a]) for a in (0, 1))
        assert np.isclose(d[0], x, rtol=1e-12, atol=1e-15)
        assert d[1] <= x + y + 1e-12 and np.all(np.diff(d[1:]) <= 1e-12)
        chains = [d]
        for turn in (0, 1):
            chain = [kl_divergence(*pair[:: 1 if (j + turn) % 2 else -1]) for j, pair in enumerate(pairs)]
            assert np.all(np.diff(chain[1:]) <= 1e-12)
            chains.append(chain)
        fixed = [[kl_divergence(*pair[::way]) for pair in pairs[1:]] for way in (1, -1)]
        rises[i] = [c[1] - c[0] for c in chains] + [np.diff(c).max() for c in fixed]
    # no chain begins a term earlier, no fixed direction will do, and the sum is nearly attained
    assert np.all(rises.max(axis=0) > 1e-3) and d[1] > 0.99 * (x + y)


def worst_ratio(tables, targets, steps):
    """The largest |P_j(t) / P_{n,j}^(j-1)(t) - 1| for each table."""
    worst = np.zeros(len(tables))
    for j in range(steps):
        ratio = targets[j % 2] / balance_many(tables, targets, steps=j).table.sum(axis=2 - j % 2)
        worst = np.maximum(worst, np.abs(ratio - 1).max(axis=1))
    return worst


def ratio_bound(eps, least):
    tau = np.sqrt(2 * eps)
    return tau / (least - tau)


def failure_bound(eps, n, m, l):
    return ((n + 1) ** m + (n + 1) ** l) * np.exp(-n * eps)


@pytest.mark.statement("5.32")
@pytest.mark.parametrize(("table", "n"), [(WIDE, 30), (np.array([[0.1, 0.4], [0.4, 0.1]]), 110)])
def test_ratios_through_divergences(table, n):
    targets = marginals(table)
    least = min(map(min, targets))
    counts, chance = everything(n, table)
    divergence = np.max([rel_entr(counts.sum(axis=2 - a) / n, targets[a]).sum(axis=1) for a in (0, 1)], axis=0)
    for share in (0.1, 0.5, 0.96):
        eps = share * least**2 / 2
        close = divergence <= eps
        worst = worst_ratio(counts[close], targets, 4)  # refuses a table off S
        assert close.any() and np.all(np.isfinite(worst)) and worst.max() <= ratio_bound(eps, least)
        assert chance[~close].sum() <= failure_bound(eps, n, *table.shape)
    if n == 110:
        assert failure_bound(eps, n, 2, 2) < 0.2


@pytest.mark.statement("5.32")
def test_ratio_is_nearly_attained():
    """A diagonal sample, whose margins err in opposite directions; and one rare value, of X or of Y."""
    cases = []
    for q, delta, least in ((0.5, 0.01, 0.95), (0.5, 0.03, 0.83), (0.3, 0.01, 0.8)):
        targets = [np.array([q + d, 1 - q - d]) for d in (-delta, delta)]
        cases.append((np.diag([q, 1 - q]), targets, least))
    rare, off = np.outer([0.08, 0.92], [0.4, 0.6]), np.array([-0.001, 0.001])
    cases += [(law, [side + off for side in marginals(law)], 0.25) for law in (rare, rare.T)]
    for sample, targets, least in cases:
        eps = max(kl_divergence(*pair) for pair in zip(marginals(sample), targets, strict=True))
        share = worst_ratio(sample[None], targets, 3)[0] / ratio_bound(eps, min(map(min, targets)))
        assert least < share <= 1


def relative_error_bound(n, least, values, delta):
    return 2 * values * np.exp(-11 / 24 * n * least * delta**2)


@pytest.mark.statement("5.10")
def test_relative_errors_are_small():
    for n, delta in product((5, 50, 500), (0.05, 0.15, 0.25)):
        for p in (0.02, 0.3, 0.5, 0.9):
            above = binom.sf(math.ceil((1 + delta) * n * p - 1e-9) - 1, n, p)
            below = binom.cdf(math.floor((1 - delta) * n * p + 1e-9), n, p)
            assert max(above, below) <= relative_error_bound(n, p, 1 / 2, delta)
    counts, chance = everything(60, P)
    errors = np.hstack([counts.sum(axis=2 - a) / 60 / marginals(P)[a] - 1 for a in (0, 1)])
    tail = chance[np.abs(errors).max(axis=1) > 0.25].sum()
    assert tail <= relative_error_bound(60, 0.4, 4, 0.25)
    # the exponent is right at 1/4, and would be wrong at 1/2
    for n, delta, sign in ((10**8, 0.25, 1), (10**7, 0.5, -1)):
        rate = -binom.logsf(int((1 + delta) * n * 2e-4) - 1, n, 2e-4)
        stated = -np.log(relative_error_bound(n, 2e-4, 1 / 2, delta))
        assert 0 < sign * (rate / stated - 1) < 0.04


@pytest.mark.statement("5.10")
def test_many_values_have_many_errors():
    """P diagonal with 80 equal masses: M is the largest error of a multinomial, summed by convolution."""
    n, m, delta = 24_000, 80, 0.25
    near = np.arange(math.ceil((1 - delta) * n / m), math.floor((1 + delta) * n / m) + 1)
    sums = np.ones(1)
    for _ in range(m):
        sums = np.convolve(sums, poisson.pmf(near, n / m))
    tail = 1 - sums[n - m * near[0]] / poisson.pmf(n, n)
    assert relative_error_bound(n, 1 / m, 1, delta) < tail <= relative_error_bound(n, 1 / m, 2 * m, delta) < 0.1


def opposite_errors(m, q):
    """A diagonal table but for 1e-13, and targets from which its two margins err by m in opposite ways."""
    low, high = q / (1 + m), q / (1 - m)
    start = np.diag([q, q, 1 - 2 * q]) + 1e-13
    return start / start.sum(), [np.array([low, high, 1 - low - high]), np.array([high, low, 1 - low - high])]


@pytest.mark.statement("5.11")
def test_factors_and_weights():
    rng, close = np.random.default_rng(59), 0
    problems = [(k, *opposite_errors(1 / (4 * k), 0.03)) for k in (1, 2, 3, 5, 80)]
    problems += [(2, *opposite_errors(m, 0.01)) for m in (0.4, 0.8, 0.95)]
    for k, shape, _ in product((1, 2, 4, 9), ((2, 2), (3, 4)), range(25)):
        start = rng.dirichlet(np.full(math.prod(shape), 0.3)).reshape(shape) + 1e-9
        start /= start.sum()
        targets = [side * (1 + rng.uniform(-0.15, 0.15, len(side)) / k) for side in marginals(start)]
        problems.append((k, start, [side / side.sum() for side in targets]))
    for i, (k, start, targets) in enumerate(problems):
        m = max(np.abs(a / b - 1).max() for a, b in zip(marginals(start), targets, strict=True))
        tables = data_balance(start, targets, steps=k, keep_iterates=True).iterates
        factors = np.array([tables[j + 1] / tables[j] for j in range(k)])
        largest = np.abs(np.log(factors)).max() / (2 * np.arctanh(m))
        assert largest <= 1 + 1e-9
        if i < 8 and k > 1:
            assert np.isclose(largest, 1, rtol=1e-7)
        if m <= 1 / (4 * k) + 1e-9:
            close += 1
            rho = np.abs(factors - 1).max() / (8 / 3 * m)
            weights = [np.abs(tables[j] / start - 1).max() / (8 / 3 * j * m) for j in range(1, k)]
            assert rho <= 1 and max(weights, default=0) <= 1
            assert np.allclose(tables[0], start, rtol=1e-12, atol=0)
            if i == 1:
                assert rho > 0.85
            if i == 4:
                assert weights[-1] > 0.955
    assert close > 100


def remainders(sample, law, f, k):
    """V_j, V_j by (5.18), the two terms of (5.19), and M."""
    m = max(np.abs(a / b - 1).max() for a, b in zip(marginals(sample), marginals(law), strict=True))
    tables = data_balance(sample, marginals(law), steps=k, keep_iterates=True).iterates
    g = [influence_function(law, f, k - j, first=j % 2) for j in range(k)]
    largest, rows = max(np.abs(values).max() for values in g), []
    for j in range(k):
        rho, w = tables[j + 1] / tables[j] - 1, tables[j] / sample
        delta = ((sample - law) * g[j]).sum(axis=1 - j % 2, keepdims=True)
        t = rho.max(axis=1 - j % 2, keepdims=True)
        by_formula = (t * delta).sum() + (sample * rho * g[j] * (w - 1)).sum()
        terms = 8 / 3 * m * np.abs(delta).sum(), 64 / 9 * j * largest * m**2
        rows.append(((tables[j] * rho * g[j]).sum(), by_formula, *terms))
    return *np.array(rows).T, m


@pytest.mark.statement("5.12")
def test_remainders_are_of_second_order():
    rng, n, k, used = np.random.default_rng(60), 5000, 4, 0
    for counts in rng.multinomial(n, WIDE.ravel(), size=40).reshape(-1, 2, 3):
        v, by_formula, first, second, m = remainders(counts / n, WIDE, F, k)
        assert np.allclose(v, decomposition(counts, WIDE, F, k).remainders, rtol=1e-9, atol=1e-15)
        assert np.allclose(v, by_formula, rtol=1e-9, atol=1e-15)
        if m <= 1 / (4 * k):
            used += 1
            assert np.all(np.abs(v) <= first + second)
    assert used > 20


@pytest.mark.statement("5.12")
def test_remainders_that_need_both_terms():
    m, q = 1 / 80, 0.35
    low, high, rest = q / (1 + m), q / (1 - m), 1 - q / (1 + m) - q / (1 - m)
    law = np.array([[0, low, 0], [high, 0, 0], [0, 0, rest]])
    law = 0.999 * law + 0.001 * np.outer(*marginals(law))
    sample = np.diag([q, q, 1 - 2 * q]) + 1e-13
    v, _, first, second, _ = remainders(sample, law, np.diag([1.0, -1.0, 0.0]), 2)
    assert 0.7 * (first + second)[1] < abs(v[1]) <= (first + second)[1]


@pytest.mark.statement("5.12")
def test_second_term_of_the_remainder():
    """Only the margin of Y is wrong, so that Delta_2 = 0."""
    column, change = WIDE.sum(axis=0), np.array([0.02, -0.03, 0.01])
    for scale in (1, 1e-3):  # of order M^2
        v, _, first, second, size = remainders(WIDE / column * (column + scale * change), WIDE, F, 2)
        assert size <= 1 / 8 and first[1] < 1e-12
        assert second[1] / 400 < abs(v[1]) <= second[1]
    # f(x) with conditional means zero given Y, so that g_1 = 0 but g_2 = f: the largest of the |g_j| counts
    law = np.array([[0.35, 0.1], [0.1, 0.05], [0.1, 0.3]])
    f, column = np.cross(*law.T)[:, None] * np.ones(2), law.sum(axis=0)
    v, _, first, second, _ = remainders(law / column * (column + np.array([0.05, -0.05])), law, f, 2)
    assert np.abs(influence_function(law, f, 2)).max() < 1e-12 and first[1] < 1e-12
    assert second[1] / 1000 < abs(v[1]) <= second[1]


def moment_bounds(law, n, g, axis):
    """K_4 and d_j^2 of Lemma 5.13."""
    masses, target = np.concatenate(marginals(law)), marginals(law)[axis]
    v, kappa = ((law * g**r).sum(axis=1 - axis) / target for r in (2, 4))
    k4 = sum((3 * (1 - t) ** 2 + (1 - t) / (n * t)) / t**2 for t in masses)
    return k4, np.sum(np.sqrt(3 * v**2 + kappa / (n * target)))


@pytest.mark.statement("5.13")
@pytest.mark.parametrize("n", [1, 4, 20])
def test_fourth_moments(n):
    counts, chance = everything(n, WIDE)
    errors = np.hstack([counts.sum(axis=2 - a) / n / marginals(WIDE)[a] - 1 for a in (0, 1)])
    m4 = chance @ np.abs(errors).max(axis=1) ** 4
    for axis in (0, 1):
        g = influence_function(WIDE, F, 1, first=axis)
        target = marginals(WIDE)[axis]
        v, kappa = ((WIDE * g**r).sum(axis=1 - axis) / target for r in (2, 4))
        delta = ((counts / n - WIDE) * g).sum(axis=2 - axis)
        for t, p in enumerate(target):
            exact = (3 * (p * v[t]) ** 2 + (p * kappa[t] - 3 * (p * v[t]) ** 2) / n) / n**2
            assert np.isclose(chance @ delta[:, t] ** 4, exact, rtol=1e-9, atol=0)
        k4, d2 = moment_bounds(WIDE, n, g, axis)
        assert k4 / (12 * n**2) < m4 <= k4 / n**2
        assert d2**2 / (20 * n**2) < chance @ np.abs(delta).sum(axis=1) ** 4 <= d2**2 / n**2


@pytest.mark.statement("5.13")
def test_fourth_moments_nearly_attained():
    for p, n, least in ((0.04, 4, 0.8), (0.1, 300, 0.97)):
        counts, chance = everything(n, [p, 1 - p])
        k4, _ = moment_bounds(np.array([[p], [1 - p]]), n, np.zeros((2, 1)), 0)
        assert least < n**2 * chance @ (counts / n / [p, 1 - p] - 1)[:, 0] ** 4 / k4 <= 1
    for n in (2, 5):  # one value, and g is large on a small part of it
        law, g = np.array([[0.06, 0.94]]), np.array([[0.94, -0.06]])
        counts, chance = everything(n, law)
        deltas = ((counts / n - law) * g).sum(axis=(1, 2))
        assert 0.85 < n**2 * chance @ deltas**4 / moment_bounds(law, n, g, 0)[1] ** 2 <= 1
    for m, n, least in ((1, 60, 0.97), (2, 60, 0.4)):
        law, g = np.full((m, 2), 1 / (2 * m)), np.tile([1.0, -1.0], (m, 1))
        counts, chance = everything(n, law)
        sums = np.abs(((counts / n - law) * g).sum(axis=2)).sum(axis=1)
        assert least < n**2 * chance @ sums**4 / moment_bounds(law, n, g, 0)[1] ** 2 <= 1


@pytest.mark.statement("5.14")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(("table", "h", "n"), [(P, H, 90), (WIDE, F, 18), (SPARSE_LAW, F, 30)])
def test_each_part_of_the_bound_exactly(table, h, n, first):
    """The three norms of the proof; the sum itself says nothing at these sizes."""
    counts, chance = everything(n, table)
    targets, truth = marginals(table), np.sum(table * h)
    values = balanced_means(counts, h, targets, steps=3, first=first).values
    errors = [np.abs(counts.sum(axis=2 - a) / n / targets[a] - 1).max(axis=1) for a in (0, 1)]
    for k in (1, 2, 3):
        inside = np.maximum(*errors) <= 1 / (4 * k)
        linear = ((counts / n - table) * influence_function(table, h, k, first=first)).sum(axis=(1, 2))
        rest = values[:, k] - truth - linear
        bound = explicit_bound(table, h, n, k, first=first)
        assert np.isclose(np.sqrt(chance @ linear**2), bound.first_order, rtol=1e-9, atol=0)
        assert np.sqrt(chance @ (inside * rest**2)) <= bound.remainder
        outside = np.sqrt(chance @ (~inside * (values[:, k] - truth) ** 2))
        assert outside <= bound.oscillation * np.sqrt(chance @ ~inside) <= bound.rare_event
        assert np.sqrt(chance @ (values[:, k] - truth) ** 2) <= bound.rmse


@pytest.mark.statement("5.14")
@pytest.mark.parametrize(("table", "h"), [(P, H), (WIDE, F), (SPARSE_LAW, F)])
@pytest.mark.parametrize("first", [0, 1])
def test_bound_is_that_of_the_formula(table, h, first):
    masses, support = np.concatenate(marginals(table)), table > 0
    for n, k in product((50, 4000), (1, 2, 5)):
        steps = [(influence_function(table, h, k - j, first=(first + j) % 2), (first + j) % 2) for j in range(k)]
        moments = [moment_bounds(table, n, *step) for step in steps]
        largest = max(np.abs(g[support]).max() for g, _ in steps)
        k4, spread = moments[0][0], sum(d2**0.5 for _, d2 in moments)
        remainder = 8 / 3 * k4**0.25 * spread + 32 / 9 * k * (k - 1) * largest * k4**0.5
        rare = np.ptp(h[support]) * np.sqrt(2 * len(masses)) * np.exp(-n * min(masses) / (72 * k**2))
        first_order = np.sqrt(np.sum(table * steps[0][0] ** 2) / n)
        bound = explicit_bound(table, h, n, k, first=first)
        parts = [bound.first_order, bound.remainder, bound.rare_event]
        assert np.allclose(parts, [first_order, remainder / n, rare], rtol=1e-9, atol=0)


@pytest.mark.statement("5.14")
@pytest.mark.parametrize(("k", "n", "factor"), [(1, 3000, 1.2), (1, 20_000, 1.1), (2, 20_000, 2), (3, 50_000, 2)])
def test_bound_where_it_says_something(k, n, factor):
    bound, drawn = explicit_bound(P, H, n, k), simulated_mse(P, H, n, k, draws=4000)
    assert bound.rare_event < 1e-5 and not bound.vacuous
    assert np.sqrt(drawn.mse[k]) < bound.rmse < factor * np.sqrt(drawn.mse[k])
    assert np.sqrt(drawn.mse[k]) < bound.first_order + bound.remainder


def span_bound(p, q):
    """Right side of Lemma 5.16, by loops."""
    logs = [math.log(a / b) for a, b in zip(p, q, strict=True)]
    return math.tanh((max(logs) - min(logs)) / 4)


@pytest.mark.statement("5.16")
def test_distance_of_laws_with_bounded_log_ratio():
    laws = [(i / 12, j / 12, (12 - i - j) / 12) for i in range(1, 11) for j in range(1, 12 - i)]
    shares = []
    for p, q in product(laws, laws):
        distance = sum(max(a - b, 0) for a, b in zip(p, q, strict=True))
        if distance > 1e-9:
            shares.append(distance / span_bound(p, q))
    assert len(shares) == 55 * 54 and 0.8 < max(shares) <= 1
    for i in range(1, 50):
        distance = abs(2 * i - 100) / 100
        assert math.isclose(span_bound((i / 100, 1 - i / 100), (1 - i / 100, i / 100)), distance, rel_tol=1e-9)
        assert distance <= abs(math.log(i / (100 - i))) / 2
    assert distance > 0.999 * abs(math.log(i / (100 - i))) / 2
    # large ratios: the bound stays below 1, and is not attained by the largest of the |log ratios| alone
    assert span_bound((0.5, 0.5), (1e-6, 1 - 1e-6)) > 0.499998


def tilted(matrix, f):
    """Both oscillations of Lemma 5.17, over that of f times tanh(Omega / 4), by loops."""
    rows, columns = range(len(matrix)), range(len(matrix[0]))
    omega = max(
        math.log(matrix[y][x] * matrix[v][u] / (matrix[y][u] * matrix[v][x]))
        for y, v, x, u in product(rows, rows, columns, columns)
    )
    assert math.isclose(omega, largest_log_odds_ratio(matrix), rel_tol=1e-9, abs_tol=1e-12)
    means = [sum(matrix[y][x] * f[x] for x in columns) for y in rows]
    logs = [math.log(sum(matrix[y][x] * math.exp(f[x]) for x in columns)) for y in rows]
    factor = math.tanh(omega / 4) * (max(f) - min(f))
    return (max(means) - min(means)) / factor, (max(logs) - min(logs)) / factor


@pytest.mark.statement("5.17")
def test_contraction_of_logarithms():
    rng = np.random.default_rng(5123)
    for rows, columns, size in product((2, 4), (2, 3), (0.1, 3, 50)):
        for weights in rng.gamma(0.7, size=(15, rows, columns)) + 1e-6:
            matrix = weights / weights.sum(axis=1, keepdims=True)
            assert max(tilted(matrix.tolist(), (size * rng.normal(size=columns)).tolist())) <= 1 + 1e-9
    for t in (0.3, 0.52, 0.9):
        linear, logarithm = tilted([[t, 1 - t], [1 - t, t]], [0.0, 2e-4])
        assert math.isclose(linear, 1, rel_tol=1e-9) and 0.9999 < logarithm < 1
    # a third column in which the rows agree keeps the factor for a function of the other two
    linear, _ = tilted([[0.001, 0.009, 0.99], [0.009, 0.001, 0.99]], [1.0, 0.0, 0.0])
    assert linear < 0.02


def decay(sample, law, first, steps):
    """The lambda_j by scaling vectors; M and Lambda."""
    targets = marginals(law)
    table, logs = sample / sample.sum(), []
    errors = [np.abs(a / b - 1).max() for a, b in zip(marginals(table), targets, strict=True)]
    largest = np.abs(table / law - 1).max()
    for j in range(steps):
        axis = (first + j) % 2
        factor = targets[axis] / table.sum(axis=1 - axis)
        table = table * (factor[:, None] if axis == 0 else factor)
        logs.append(np.log(factor))
    return logs, max(errors), largest


def decay_bounds(law, worst, delta, steps):
    """Right sides of (5.30): for |lambda_j|, j = 1, ..., and for osc lambda_j, j = 2, ..."""
    # the addition theorem of tanh, not used
    tau = math.tanh(largest_log_odds_ratio(law) / 4 + math.atanh(delta))
    unit, spans = 2 * math.atanh(worst), []
    for _ in range(2, steps + 1):
        spans.append(spans[-1] * tau if spans else (1 + tau) * unit)
    return [unit, *(min(unit, span) for span in spans)], spans


@pytest.mark.statement("5.18")
@pytest.mark.parametrize("first", [0, 1])
def test_corrections_shrink_from_the_second_on(first):
    rng = np.random.default_rng(5124)
    for shape, spread in product(((2, 2), (3, 3), (2, 5)), (0.002, 0.1, 0.3)):
        for _ in range(15):
            law, _ = random_law(rng, shape)
            law = (law + 1e-5) / (1 + 1e-5 * law.size)
            logs, worst, delta = decay(law * (1 + rng.uniform(-spread, spread, shape)), law, first, 7)
            sizes, spans = decay_bounds(law, worst, delta, 7)
            assert all(np.abs(f).max() <= size * (1 + 1e-9) for f, size in zip(logs, sizes, strict=True))
            assert all(np.ptp(f) <= span * (1 + 1e-9) for f, span in zip(logs[1:], spans, strict=True))


@pytest.mark.statement("5.18")
@pytest.mark.parametrize("first", [0, 1])
def test_decay_is_nearly_attained(first):
    for diagonal, least in ((0.3, 0.98), (0.45, 0.99), (0.4999, 0.99)):
        law = np.array([[diagonal, 0.5 - diagonal], [0.5 - diagonal, diagonal]])
        tilt = np.array([1.0005, 0.9995])
        logs, worst, delta = decay(law * np.outer(tilt, 1 / tilt), law, first, 5)
        sizes, spans = decay_bounds(law, worst, delta, 5)
        shares = [np.ptp(f) / span for f, span in zip(logs[1:], spans, strict=True)]
        assert least < min(shares) and max(shares) <= 1 + 1e-9
    assert 0.999 < np.abs(logs[1]).max() / sizes[1] <= 1  # nearly diagonal: the second is as large as M allows
    assert np.abs(logs[1]).max() > 1.9 * np.abs(logs[0]).max()
    # P uniform, the sample dependent: each later step has exactly the factor tau_delta = delta
    law, tilt = np.full((2, 2), 0.25), 1 + 1e-6 * np.array([1, -1])
    logs, _, delta = decay(np.array([[6, 4], [4, 6]]) / 20 * np.outer(tilt, 1 / tilt), law, first, 4)
    assert math.isclose(delta, 0.2, rel_tol=1e-4)
    for before, after in pairwise(logs[1:]):
        assert math.isclose(np.ptp(after) / np.ptp(before), delta, rel_tol=1e-4)


@pytest.mark.statement("5.18")
@pytest.mark.parametrize(("tau", "least"), [(0.01, 0.99), (0.2, 0.9), (0.9, 0.6)])
def test_sum_of_all_factors(tau, least):
    total, limit = 1 + sum(min(1, (1 + tau) * tau**i) for i in range(400)), 2 / (1 - tau)
    assert least * limit < total <= limit


def by_loops(table, h, n, k, delta, first=0):
    """The three parts of (5.31), term by term."""
    masses = [float(t) for t in np.concatenate(marginals(table))]
    tau = math.tanh(largest_log_odds_ratio(table) / 4)
    tau = (tau + delta) / (1 + tau * delta)
    functions = [(influence_function(table, h, k - j, first=(first + j) % 2), (first + j) % 2) for j in range(k)]
    spread, later, largest = 0.0, 0.0, 0.0
    for j, (g, axis) in enumerate(functions, 1):
        gamma = 1.0 if j == 1 else min(1.0, (1 + tau) * tau ** (j - 2))
        k4, d2 = moment_bounds(table, n, g, axis)
        spread, later, largest = spread + gamma * d2**0.5, later + gamma * (j > 1), max(largest, np.abs(g).max())
    assert 1 + later <= 2 / (1 - tau)
    chance = 2 * table.size * math.exp(-11 * n * table.min() * delta**2 / 24)
    chance += 2 * len(masses) * math.exp(-11 * n * min(masses) * ((1 - tau) / 8) ** 2 / 24)
    remainder = 8 / 3 * k4**0.25 * spread + 128 / 9 * largest * k4**0.5 * later / (1 - tau)
    sigma = np.sqrt(np.sum(table * functions[0][0] ** 2))
    return sigma / n**0.5, remainder / n, np.ptp(h) * min(1, chance) ** 0.5


@pytest.mark.statement("5.18")
@pytest.mark.parametrize("first", [0, 1])
def test_contraction_bound_is_that_of_the_formula(first):
    cases = [(P, H), (WIDE, F), (dependent_table(3, 0.3), np.vander([1.0, -2.0, 0.5])), (WIDE[:, :1], F[:, :1])]
    for (table, h), n, k, delta in product(cases, (700, 30_000, 10**6), (1, 2, 5), (0.02, 0.1, 0.25)):
        law = table / table.sum()
        bound = contraction_bound(law, h, n, k, first=first, delta=delta)
        parts = by_loops(law, h, n, k, delta, first)
        assert np.allclose([bound.first_order, bound.remainder, bound.rare_event], parts, rtol=1e-9, atol=1e-15)
        assert contraction_bound(law, h, n, k, first=first).rmse <= 1.2 * sum(parts)
    with pytest.raises(ValueError, match="cell"):
        contraction_bound(SPARSE_LAW, F, 100, 2)
    with pytest.raises(ValueError, match="1/4"):
        contraction_bound(P, H, 100, 2, delta=0.3)


@pytest.mark.statement("5.18")
def test_contraction_bound_each_part_exactly():
    n, delta = 18, 0.25
    law = np.full((2, 3), 1 / 6)  # tau_delta = delta, and n = 18 allows counts near 3 only
    counts, chance = everything(n, law)
    values = balanced_means(counts, F, marginals(law), steps=5, first=1).values - np.sum(law * F)
    errors = [np.abs(counts.sum(axis=2 - a) / n / marginals(law)[a] - 1).max(axis=1) for a in (0, 1)]
    inside = (np.abs(counts / n / law - 1).max(axis=(1, 2)) <= 0.25) & (np.maximum(*errors) <= 0.75 / 8)
    assert 0 < chance @ inside < 1
    for k in range(1, 6):
        linear = ((counts / n - law) * influence_function(law, F, k, first=1)).sum(axis=(1, 2))
        first_order, remainder, rare = by_loops(law, F, n, k, delta, first=1)
        assert np.isclose(np.sqrt(chance @ linear**2), first_order, rtol=1e-9, atol=0)
        assert np.sqrt(chance @ (inside * (values[:, k] - linear) ** 2)) <= remainder
        assert np.sqrt(chance @ (~inside * values[:, k] ** 2)) <= np.ptp(F) * np.sqrt(chance @ ~inside) <= rare


def poisson_tail(n, m, delta):
    """Exact chance that one of m equally likely counts with sum n is off by more than a fraction delta."""
    near = [c for c in range(n + 1) if abs(c * m - n) <= delta * n + 1e-9]
    ways, weights = np.ones(1), poisson.pmf(near, n / m)
    for _ in range(m):
        ways = np.convolve(ways, weights)
    return 1 - ways[n - m * near[0]] / poisson.pmf(n, n)


@pytest.mark.statement("5.18")
def test_probability_of_the_rare_event():
    law, delta = np.full((8, 8), 1 / 64), 0.25  # independent: tau_delta = delta; osc(h) = 1
    h = np.zeros((8, 8))
    h[0, 0] = 1
    for n, most in ((16_000, 0.12), (20_000, 0.02)):
        squared = contraction_bound(law, h, n, 3, delta=delta).rare_event ** 2
        cells, one = poisson_tail(n, 64, delta), poisson_tail(n, 8, (1 - delta) / 8)
        # the counts of X and of Y are independent; one of the conditions fails at least as often as each
        assert squared / 200 < max(cells, 1 - (1 - one) ** 2) <= squared < most
    # one rare value: the exponents of cells and of marginals, at delta = 1/4 and at a small delta
    for n, p, delta, ends, width in ((10**8, 2e-4, 0.25, 6, 3 / 32), (10**10, 2e-4, 0.02, 4, 0.02)):
        squared = contraction_bound(np.array([[p, 1 - p]]), h[:1, :2], n, 1, delta=delta).rare_event ** 2
        rate = -binom.logsf(int((1 + width) * n * p) - 1, n, p)
        assert 1 < rate / -math.log(squared / ends) < 1.11


@pytest.mark.statement("5.18")
@pytest.mark.parametrize(("k", "n", "factor"), [(3, 60_000, 8), (30, 300_000, 4)])
def test_contraction_bound_where_it_says_something(k, n, factor):
    bound, drawn = contraction_bound(P, H, n, k), simulated_mse(P, H, n, k, draws=1500)
    assert not bound.vacuous and np.sqrt(drawn.mse[k]) < bound.rmse < factor * np.sqrt(drawn.mse[k])


LONE = np.array([[0.4, 0.4, 0.0005], [0.1, 0.05, 0.0495]])  # one rare cell
TWIST = np.array([[0, 1, -1], [0, -1, 1]]) / LONE  # a function of it that no centering changes


def squared(first_order, sigma, a, n):
    """The second right side of (5.35)."""
    return first_order**2 + (2 * sigma * a + a * a) / n**1.5


def all_sizes(table, h, delta):
    """A_1 and A_2 of Corollary 5.19; the suprema are reached early."""
    tau = math.tanh(largest_log_odds_ratio(table) / 4 + math.atanh(delta))
    steps = [(influence_function(table, h, r, first=axis), axis) for r in range(1, 40) for axis in (0, 1)]
    k4, spread = moment_bounds(table, 1, *steps[0])[0], max(moment_bounds(table, 1, *s)[1] for s in steps) ** 0.5
    largest, least = max(np.abs(g).max() for g, _ in steps), min(map(min, marginals(table)))
    a1 = 16 / 3 * k4**0.25 * spread / (1 - tau) + 128 / 9 * (1 + tau) * largest * k4**0.5 / (1 - tau) ** 2
    a2 = 48 * math.sqrt(2 * table.size) / (11 * math.e * table.min() * delta**2)
    a2 += 3072 * math.sqrt(2 * sum(table.shape)) / (11 * math.e * least * (1 - tau) ** 2)
    return a1, np.ptp(h) * a2, largest, spread, tau, k4


@pytest.mark.statement("5.19")
@pytest.mark.parametrize(("table", "h"), [(P, H), (WIDE, F), (np.outer([0.3, 0.7], [0.4, 0.6]), H), (LONE, TWIST)])
@pytest.mark.parametrize("delta", [0.1, 0.25])
def test_one_constant_for_every_size_and_number(table, h, delta):
    a1, a2, largest, spread, tau, k4 = all_sizes(table, h, delta)
    sigma = balanced_variance(table, h, 0) ** 0.5
    assert largest <= sigma / table.min() ** 0.5
    for k, n in product((1, 3, 20), (1, 10, 1000, 10**5, 10**8, 10**20)):
        bound = contraction_bound(table, h, n, k, delta=delta)
        assert n * bound.remainder <= a1 and n * bound.rare_event <= a2
        total, a = bound.rmse, a1 + a2
        assert total <= bound.first_order + a / n
        assert total**2 <= squared(bound.first_order, sigma, a, n)
    assert math.isclose(squared(sigma, sigma, a, 1), (sigma + a) ** 2, rel_tol=1e-12)
    if table is LONE:
        assert largest > 0.97 * sigma / table.min() ** 0.5
    # the sum over all steps, with every g_j as large as it can be, is the constant
    gammas = [1, *((1 + tau) * tau**i for i in range(600))]
    sums = sum(gammas) * 8 / 3 * k4**0.25 * spread + sum(gammas[1:]) * 8 / 3 * 16 / 3 * largest * k4**0.5 / (1 - tau)
    assert math.isclose(a1, sums, rel_tol=1e-9)
    # n exp(-c n) is largest at n = 1 / c, for each of the two parts
    peaks, least = [], min(map(min, marginals(table)))
    for mass, width, ends in ((table.min(), delta, table.size), (least, (1 - tau) / 8, sum(table.shape))):
        rate = 11 * mass * width**2 / 48
        peaks.append(math.sqrt(2 * ends) * math.exp(-1) / rate)
    assert math.isclose(a2, np.ptp(h) * sum(peaks), rel_tol=1e-9)


def directly(table, h, v, axes):
    """F_1, F_2, F_3 of a direction by carrying the table itself to third order."""
    q1, q2, q3 = v, 0 * v, 0 * v
    for axis in axes:
        side = {"axis": 1 - axis, "keepdims": True}
        a1, a2, a3 = (q.sum(**side) / table.sum(**side) for q in (q1, q2, q3))
        r1, r2, r3 = -a1, a1**2 - a2, -a3 + 2 * a1 * a2 - a1**3
        q1, q2, q3 = q1 + r1 * table, q2 + r1 * q1 + r2 * table, q3 + r1 * q2 + r2 * q1 + r3 * table
    return [float(np.sum(q * h)) for q in (q1, q2, q3)]


def paper_constant(table, h):
    """A of (5.24), with suprema over the first 120 half-steps."""
    sides, size, cells = marginals(table), sum(table.shape), table > 0
    p, levels = np.concatenate(sides), [np.asarray(h, float)] * 2
    largest = spread = 0.0
    for _ in range(120):
        mean = [
            (table * levels[1 - a]).sum(axis=1 - a, keepdims=True) / table.sum(axis=1 - a, keepdims=True)
            for a in (0, 1)
        ]
        levels = [levels[1] - mean[0], levels[0] - mean[1]]
        for axis, g in enumerate(levels):
            v, q = ((table * g**power).sum(axis=1 - axis) / sides[axis] for power in (2, 4))
            spread = max(spread, sum((3 * a * a + b / t) ** 0.5 for a, b, t in zip(v, q, sides[axis], strict=True)))
            largest = max(largest, np.abs(g[cells]).max())
    fourth = sum(3 * (1 - t) ** 2 / t**2 + (1 - t) / t**3 for t in p)
    constant = 8 / 3 * fourth**0.25 * spread**0.5 + 32 / 9 * largest * fourth**0.5
    return constant + 72 / math.e * (h[cells].max() - h[cells].min()) * (2 * size) ** 0.5 / min(p)


def paper_sides(table, h, constant, n, k):
    """The right sides of (5.25) and (5.26)."""
    svd = np.linalg.svd(table / np.sqrt(np.outer(*marginals(table))))[1]
    s = max((x for x in svd if x < 1 - 1e-9), default=0.0)
    limit, plain = limit_variance(table, h), balanced_variance(table, h, 0)
    rmse = (balanced_variance(table, h, k) / n) ** 0.5 + constant * k**2 / n
    last = (2 * plain**0.5 * constant + constant**2) * k**4 / n**1.5
    return rmse, limit / n + s ** (2 * k - 2) * (plain - limit) / n + last


@pytest.mark.statement("5.15")
def test_explicit_bound_implies_the_bound_of_the_paper():
    rng = np.random.default_rng(512)
    tables = [WIDE, SPARSE_LAW, np.diag([0.2, 0.3, 0.5]), np.full((3, 1), 1 / 3), random_law(rng, (3, 4))[0]]
    for table in tables:
        h = rng.normal(size=table.shape)
        constant = paper_constant(table, h)
        assert np.isclose(quadratic_bound(table, h, 1, 1).remainder, constant, rtol=1e-8, atol=0)
        # u exp(-u) is 1 / e at u = 1, where the two bounds of the rare event touch
        least, k = min(map(min, marginals(table))), 7
        touching = explicit_bound(table, h, round(72 * k**2 / least), k).rare_event
        rare = 72 / math.e * np.ptp(h[table > 0]) * (2 * sum(table.shape)) ** 0.5 / least
        assert np.isclose(touching, rare * k**2 / round(72 * k**2 / least), rtol=1e-3)
        for n, k in product((1, 30, 10**4, 10**9, 10**14), (1, 2, 5, 40)):
            rmse, square = paper_sides(table, h, constant, n, k)
            assert explicit_bound(table, h, n, k).rmse <= rmse * (1 + 1e-12)
            assert rmse**2 <= square * (1 + 1e-12)
            assert np.isclose(quadratic_bound(table, h, n, k).rmse, rmse, rtol=1e-8, atol=0)


@pytest.mark.statement("5.15")
def test_bound_of_the_paper_is_touched():
    # h(y) of independent variables: sigma_1 = sigma_0, and at n = k = 1 nothing was given away in the square
    table, h = np.outer([0.3, 0.7], [0.2, 0.3, 0.5]), np.ones((2, 1)) * np.array([[1.0, -1.0, 4.0]])
    rmse, square = paper_sides(table, h, paper_constant(table, h), 1, 1)
    assert np.isclose(rmse**2, square, rtol=1e-12, atol=0)
    # a function without a part on alpha_2 uses the middle term up, at odd k
    s, sign = 0.4, np.array([[1.0], [-1.0]])
    two = (1 + s * sign * sign.T) / 4
    for k in (1, 3, 5):
        f = sign.T - s * sign
        rmse, square = paper_sides(two, f, paper_constant(two, f), 1e34, k)
        assert np.isclose(rmse**2, square, rtol=1e-4, atol=0)
    # the root is no more than twice the truth when n is large enough
    profile = expansion(P, H, 4)
    for k, n in ((1, 10**6), (2, 2 * 10**7), (4, 4 * 10**8)):
        error, bound = profile.mse(n)[k] ** 0.5, quadratic_bound(P, H, n, k).rmse
        assert error <= bound < 2 * error


@pytest.mark.statement("5.2")
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_expansion_of_the_iteration(steps):
    v = np.array([[0.3, -0.2, 0.1], [0.1, -0.15, -0.15]])
    terms = directly(WIDE, F, v, [j % 2 for j in range(steps)])
    assert np.isclose(terms[0], np.sum(v * influence_function(WIDE, F, steps)))
    q1, q2, f2, f3 = v, 0 * v, 0.0, 0.0
    for j in range(steps):
        g, side = influence_function(WIDE, F, steps - j, first=j % 2), {"axis": 1 - j % 2, "keepdims": True}
        a1, a2 = (q.sum(**side) / WIDE.sum(**side) for q in (q1, q2))
        f2, f3 = f2 - np.sum(a1 * q1 * g), f3 + np.sum((a1**2 - a2) * q1 * g - a1 * q2 * g)
        q1, q2 = q1 - a1 * WIDE, q2 - a1 * q1 + (a1**2 - a2) * WIDE
    assert np.allclose(terms[1:], [f2, f3], rtol=1e-10, atol=0)
    scaled = directly(WIDE, F, -2 * v, [j % 2 for j in range(steps)])
    assert np.allclose(scaled, np.multiply(terms, [-2, 4, -8]), rtol=1e-10, atol=0)
    gaps = []
    for eps in (0.02, 0.01):
        value = np.sum(data_balance(WIDE + eps * v, marginals(WIDE), steps=steps).table * F) - np.sum(WIDE * F)
        gaps.append(value - eps * terms[0] - eps**2 * terms[1] - eps**3 * terms[2])
    assert 13 < gaps[0] / gaps[1] < 19


def constants_directly(table, h, steps, first=0):
    """(c_k, limit of n times the bias) of formula (5.8), the forms by polarization of `directly`."""
    axes = [(first + j) % 2 for j in range(steps)]
    weights = table.ravel()
    units = [e.reshape(table.shape) - table for e in np.eye(table.size)]
    f2, f3 = (lambda v: directly(table, h, v, axes)[1]), (lambda v: directly(table, h, v, axes)[2])
    psi = influence_function(table, h, steps, first=first)
    drift, own = psi * table, np.array([f2(d) for d in units])
    pairs = np.array([[f2(d + e) - f2(d) - f2(e) for e in units] for d in units])
    cubic = np.array([f3(drift + d) + f3(drift - d) - 2 * f3(drift) for d in units])
    bias = weights @ own
    constant = 2 * weights @ (psi.ravel() * own) + bias**2 + weights @ pairs**2 @ weights / 2 + weights @ cubic
    return constant, bias


@pytest.mark.statement("5.3")
@pytest.mark.parametrize(("table", "h", "first"), [(P, H, 0), (WIDE, F, 0), (WIDE, F, 1), (SPARSE_LAW, F, 1)])
def test_constants_by_a_second_derivation(table, h, first):
    result = expansion(table, h, 4, first=first)
    for k in range(1, 5):
        assert np.allclose([result.constants[k], result.scaled_biases[k]], constants_directly(table, h, k, first))
        assert remainder_constant(table, h, k, first=first) == result.constants[k]
    assert result.constants[0] == result.scaled_biases[0] == 0


def extrapolated(sizes, rows):
    return np.linalg.solve(np.power.outer(1 / np.array(sizes), np.arange(len(sizes))), rows)[0]


@pytest.mark.statement("5.3")
def test_constants_are_the_limits_of_exact_remainders():
    sizes = (80, 113, 160, 226, 300)
    exact = [exact_mse(P, H, n, 6, cutoff=1e-17) for n in sizes]
    result = expansion(P, H, 6)
    limits = extrapolated(sizes, [e.remainders for e in exact])
    assert np.allclose(limits, result.constants, rtol=0, atol=6e-4)
    assert np.allclose(limits[1:4], result.constants[1:4], rtol=0, atol=2e-5)
    biases = extrapolated(sizes, [e.n * e.biases for e in exact])
    assert np.allclose(biases, result.scaled_biases, rtol=0, atol=1e-4)
    first_order = extrapolated(sizes, [e.n * e.mse for e in exact])
    assert np.allclose(first_order, result.variances, rtol=0, atol=1e-4)


@pytest.mark.statement("5.3")
def test_constants_of_a_larger_table_by_simulation():
    rng = np.random.default_rng(514)
    table = dependent_table(3, 0.4)
    h = rng.normal(size=(3, 3))
    n, result = 400, expansion(table, h, 3)
    drawn = simulated_mse(table, h, n, 3, draws=200_000)
    assert np.all(np.abs(drawn.remainders - result.constants)[1:] < n**2 * 4 * drawn.standard_errors[1:] + 0.1)
    assert np.all(np.abs(result.constants[1:]) > n**2 * 8 * drawn.standard_errors[1:])


@pytest.mark.statement("5.4")
@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (6, 2)])
def test_one_half_step(shape):
    table, h = random_law(np.random.default_rng(sum(shape)), shape)
    row = table.sum(axis=1)
    within = [np.average((h[x] - np.average(h[x], weights=p)) ** 2, weights=p) for x, p in enumerate(table)]
    result = expansion(table, h, 1)
    assert np.isclose(result.constants[1], (1 - row) @ within) and abs(result.scaled_biases[1]) < 1e-12
    if shape == (2, 2):
        for n in (3, 10, 30):
            bias = abs(exact_mse(table, h, n, 1).biases[1])
            assert 0 < bias <= np.ptp(h) * missing_probability(table, n)


@pytest.mark.statement("5.4")
def test_bias_of_one_half_step_is_nearly_half_of_its_bound():
    column, h, n = np.array([[0.52], [0.48]]), np.array([[1.0], [0.0]]), 100
    bias = exact_mse(column, h, n, 1).biases[1]
    # a row is missing: all observations in the first, or all in the second
    assert np.isclose(bias, 0.48 * 0.52**n - 0.52 * 0.48**n, rtol=1e-9, atol=0)
    claimed = np.ptp(h) * missing_probability(column, n)
    assert 0.47 * claimed < bias <= claimed


@pytest.mark.statement("5.4")
@pytest.mark.parametrize("n", [40, 160])
def test_expansion_of_one_half_step(n):
    within = (P * influence_function(P, H, 1) ** 2).sum(axis=1) / P.sum(axis=1)
    claimed = P.sum(axis=1) @ within / n + (1 - P.sum(axis=1)) @ within / n**2
    mse = exact_mse(P, H, n, 1).mse[1]
    assert abs(mse - claimed) < 7 / n**3


@pytest.mark.statement("5.5")
@pytest.mark.parametrize(("table", "h"), [(P, H), (WIDE, F), (dependent_table(3, 0.5), F[[0, 1, 0]])])
def test_constant_converges(table, h):
    s, k = maximal_correlation(table), np.arange(31)
    result = expansion(table, h, 30)
    for values in (result.constants, result.scaled_biases):
        distance, envelope = np.abs(values - values[-1]), (1 + k) ** 2 * s**k
        scale = np.max(distance[1:6] / envelope[1:6])
        assert np.all(distance[6:25] <= scale * envelope[6:25] + 1e-9)
    assert abs(result.constants[20] - result.constants[-1]) < 1e-2 * abs(result.constants[-1])


@pytest.mark.statement("5.5")
def test_rate_of_the_constant():
    s, k = maximal_correlation(P), np.arange(41)
    result = expansion(P, H, 40)
    for values in (result.constants, result.scaled_biases):
        distance, rate = np.abs(values - values[-1]), s**k
        share = distance / ((1 + k) ** 2 * rate)
        assert np.all(share[6:35] <= share[1:6].max())
        settled = (distance / rate)[14:35:2]
        assert np.all((settled > 0.3) & (settled < 0.5))


@pytest.mark.statement("5.5")
def test_rate_is_the_largest_singular_value_below_one():
    """Two blocks, with the singular values 1, 1, 0.492 and 0.12."""
    table, k = np.zeros((4, 4)), np.arange(41)
    table[:2, :2], table[2:, 2:] = 0.3 * P.T, 0.7 * np.array([[0.28, 0.22], [0.22, 0.28]])
    s, result = below_one(table), expansion(table, np.kron(np.eye(2), H.T), 40, first=1)
    for values in (result.constants, result.scaled_biases):
        settled = (np.abs(values - values[-1]) / s**k)[14:35:2]
        assert settled.min() > 0.1 and settled.max() < 1.35 * settled.min()


@pytest.mark.statement("5.5")
@pytest.mark.parametrize("first", [0, 1])
def test_constant_of_independent_variables_stops(first):
    result = expansion(np.outer(*marginals(WIDE)), F, 9, first=first)
    for values in (result.constants, result.scaled_biases):
        assert np.allclose(values[3:], values[3], rtol=1e-10, atol=1e-12)
    assert not np.isclose(result.constants[1], result.constants[3])
    assert not np.isclose(result.constants[2], result.constants[3], rtol=1e-3)


@pytest.mark.statement("5.5")
def test_constant_of_blocks_that_are_products_stops():
    rng = np.random.default_rng(516)
    table = np.zeros((5, 6))
    table[:2, :3] = 0.5 * np.outer([0.3, 0.7], [0.2, 0.3, 0.5])
    table[2:4, 3:5] = 0.3 * np.outer([0.1, 0.9], [0.6, 0.4])
    table[4, 5] = 0.2
    for _ in range(3):
        h = rng.normal(size=table.shape)
        values = expansion(table, h, 7).constants
        assert np.allclose(values[3:], values[3], rtol=1e-10, atol=1e-12)
        assert not np.isclose(values[2], values[3], rtol=1e-3)


BLOCKS = np.array([[0.25, 0.1, 0.0, 0.0], [0.05, 0.2, 0.0, 0.0], [0.0, 0.0, 0.1, 0.3]])
BLOCKS_H = np.array([[1.0, -1.0, 0.0, 0.0], [2.0, 0.5, 0.0, 0.0], [0.0, 0.0, 3.0, -1.0]])
BLOCK_OF = ([0, 0, 1], [0, 0, 1, 1])


def below_one(table):
    values = np.linalg.svd(weighted_matrix(table), compute_uv=False)
    return max(values[values < 1 - 1e-9])


def minus_block_means(table, values, block):
    masses, block = table.sum(axis=0), np.array(block)
    means = [np.average(values[block == b], weights=masses[block == b]) for b in block]
    return values - means


@pytest.mark.statement("5.27")
@pytest.mark.parametrize(("table", "block"), [(WIDE, [0, 0, 0]), (SPARSE_LAW, [0, 0, 0]), (BLOCKS, BLOCK_OF[1])])
def test_derivative_of_a_sweep(table, block):
    """By central differences, from the column factors of two half-steps of the package."""
    step, columns = 1e-4, []
    for direction in np.eye(table.shape[1]):
        ends = []
        for sign in (1, -1):
            start = table * np.exp(sign * step * direction)
            x_step, y_step = (data_balance(start, marginals(table), steps=k).table for k in (1, 2))
            new = sign * step * direction + np.log(y_step.sum(axis=0) / x_step.sum(axis=0))
            ends.append(minus_block_means(table, new, block))
        columns.append((ends[0] - ends[1]) / (2 * step))
    row, column = marginals(table)
    kernel = np.array(
        [[table[:, y] / column[y] @ (table[:, z] / row) for z in range(len(column))] for y in range(len(column))]
    )
    claimed = np.array([minus_block_means(table, e, block) for e in kernel.T])
    assert np.allclose(columns, claimed, rtol=0, atol=1e-7)
    norm = np.linalg.norm(np.sqrt(column)[:, None] * np.array(columns).T / np.sqrt(column), 2)
    assert np.isclose(norm, below_one(table) ** 2, rtol=1e-5, atol=0)


@pytest.mark.statement("5.27")
@pytest.mark.parametrize(("table", "h"), [(WIDE, F), (SPARSE_LAW, F), (BLOCKS, BLOCKS_H)])
def test_rate_with_wrong_targets(table, h):
    rng = np.random.default_rng(5120)
    start, row, column = (p * (1 + 0.01 * rng.normal(size=p.shape)) for p in (table, *marginals(table)))
    if table is BLOCKS:
        row[2], column[2:] = row[2] * 1.01, column[2:] * 1.03
    values = []
    tables = {}
    for k in range(1, 12):
        targets = (row / row.sum(), column / column.sum())
        tables[k] = data_balance(start, targets, steps=k).table
        values.append(np.sum(tables[k] * h))
    moved = np.abs(np.subtract(values[2:], values[:-2]))
    assert np.allclose(moved[4:8] / moved[2:6], below_one(table) ** 2, rtol=0.06, atol=0)


@pytest.mark.statement("5.27")
def test_two_limits_where_the_blocks_disagree():
    targets = (np.array([0.36, 0.23, 0.41]), np.array([0.29, 0.34, 0.09, 0.28]))
    odd, even = (data_balance(BLOCKS, targets, steps=k).table for k in (401, 400))
    ratios = np.array([(0.29 + 0.34) / (0.36 + 0.23), (0.09 + 0.28) / 0.41])
    assert np.allclose(even, odd * ratios[np.array(BLOCK_OF[0])][:, None], rtol=1e-12, atol=0)
    agreeing = (targets[0], np.array([0.29, 0.30, 0.12, 0.29]))
    odd, even = (data_balance(BLOCKS, agreeing, steps=k).table for k in (401, 400))
    assert np.allclose(even, odd, rtol=1e-12, atol=0)


def complex_values(start, h, targets, steps):
    values, table = [], start
    for j in range(steps):
        side = {"axis": 1 - j % 2, "keepdims": True}
        table = table * np.expand_dims(targets[j % 2], 1 - j % 2) / table.sum(**side)
        values.append(np.sum(table * h))
    return np.array(values)


@pytest.mark.statement("5.27")
@pytest.mark.parametrize(("table", "h"), [(WIDE, F), (BLOCKS, BLOCKS_H)])
def test_taylor_coefficients_are_bounded_in_k(table, h):
    rng, radius = np.random.default_rng(5121), 0.1
    w = [rng.uniform(-1, 1, size=p.shape) for p in (table, *marginals(table))]

    def value(zeta, steps=50):
        start, *targets = (p * (1 + zeta * x) for p, x in zip((table, *marginals(table)), w, strict=True))
        return complex_values(start, h, targets, steps) - np.sum(table * h)

    circle = radius * np.exp(2j * np.pi * np.arange(40) / 40)
    on_circle = np.array([value(zeta) for zeta in circle])
    top = np.abs(on_circle).max()
    assert top <= 5 * np.sum(table * np.abs(h))
    taylor = [np.mean(on_circle * (circle / radius)[:, None] ** -i, axis=0) / radius**i for i in range(5)]
    assert np.allclose(taylor[1], (value(1e-4) - value(-1e-4)) / 2e-4, rtol=1e-5, atol=1e-6)
    for i in range(1, 5):
        assert np.all(np.abs(taylor[i]) <= top / radius**i)
        assert np.abs(taylor[i][25:]).max() < 1.01 * np.abs(taylor[i][:25]).max()
    for d in (1, 2, 3):
        left = [np.abs(value(z) - sum(z**i * taylor[i] for i in range(d + 1))).max() for z in (0.05, 0.004, 0.002)]
        for z, rest in zip((0.05, 0.004, 0.002), left, strict=True):
            assert rest <= 2 * top * (z / radius) ** (d + 1)
        assert 0.85 < left[1] / left[2] / 2 ** (d + 1) < 1.15


@pytest.mark.statement("5.27")
def test_constant_of_the_bound():
    """The largest modulus of an even table over P, for entries of modulus 1/10, step by step."""
    off = np.exp(2j * np.pi * np.arange(360) / 360) / 10
    first = np.abs((1 + off[:, None]) * np.exp(off) - 1).max()
    second = np.abs((1 + off[:, None]) / (1 + 2.2 * off) - 1).max()
    third = np.abs((1 + off[:, None]) * (1 + 4.2 * off) - 1).max()
    assert 0.21 < first < 0.22 and 0.41 < second < 0.42 and 0.56 < third < 0.57
    largest = 1.1 * 1.42 * np.abs((1 + off[:, None]) / (1 + 5.7 * off)).max()
    claimed = 5
    assert 0.99 * claimed < 1 + largest < claimed


def scaled_rest(table, h, n, result, steps, first=0):
    found = exact_mse(table, h, n, steps, first=first)
    expected = result.variances / n + result.constants / n**2
    return n**3 * np.abs(found.mse - expected)[1:], n**2 * np.abs(found.biases - result.scaled_biases / n)[1:]


@pytest.mark.statement("5.28")
@pytest.mark.parametrize(
    ("table", "h", "sizes", "first"),
    [
        (np.array([[0.35, 0.15], [0.10, 0.40]]), H, (10, 20, 40, 80), 1),
        (np.array([[0.25, 0.25], [0.0, 0.5]]), H, (10, 20, 40, 80), 0),
        (np.array([[0.3, 0.15, 0.0], [0.1, 0.2, 0.0], [0.0, 0.0, 0.25]]), F[[0, 1, 0]], (8, 14, 20, 28), 0),
        (np.diag([0.2, 0.3, 0.5]), F[[0, 1, 0]], (10, 20, 40, 60), 1),
    ],
)
def test_one_constant_for_all_steps(table, h, sizes, first):
    result = expansion(table, h, 16, first=first)
    rests = [scaled_rest(table, h, n, result, 16, first) for n in sizes]
    for part in zip(*rests, strict=True):
        tops = [p.max() for p in part]
        assert np.argmax(tops) < len(sizes) - 1
        assert np.all([p[8:].max() < 1.5 * max(tops) for p in part])
    s, c, k = maximal_correlation(table), result.constants, np.arange(1, 13)
    if 0 < s < 1:
        share = np.abs(c[k] - c[16]) / (s + 0.08) ** k
        assert share.argmax() < 6 and share[-3:].max() < share.max() / 1.5


@pytest.mark.statement("5.28")
def test_order_and_constant_of_one_half_step():
    table = np.array([[0.35, 0.15], [0.10, 0.40]])
    row, within = table.sum(axis=1), (table * influence_function(table, H, 1) ** 2).sum(axis=1)
    third = np.sum(within * (1 - row) * (2 - row) / row**2)
    result = expansion(table, H, 1)
    (near, _), (far, _) = (scaled_rest(table, H, n, result, 1) for n in (60, 120))
    assert np.isclose(2 * far[0] - near[0], third, rtol=0.01)


@pytest.mark.statement("5.28")
def test_rests_settle():
    """With another constant of order n^-2, or another bias, they would grow with n."""
    table = np.array([[0.25, 0.25], [0.0, 0.5]])
    result = expansion(table, H, 16)
    for near, far in zip(*(scaled_rest(table, H, n, result, 16) for n in (200, 400)), strict=True):
        assert np.abs(far - near).max() < 0.05 * near.max()
    near, far = (rest_at_convergence(np.array([[0.27, 0.23], [0.23, 0.27]]), n, 30) for n in (80, 100))
    assert 0.94 * near < far < near


def rest_at_convergence(table, n, steps):
    c, limit = expansion(table, H, 20).constants[-1], limit_variance(table, H)
    return (exact_mse(table, H, n, steps, cutoff=1e-13).mse[-1] - limit / n - c / n**2) * n**3


@pytest.mark.statement("5.28")
def test_balancing_to_convergence():
    table = np.array([[0.35, 0.15], [0.10, 0.40]])
    sup = max(abs(rest_at_convergence(table, n, 250)) for n in (10, 20))
    assert sup < 1.3 * 20**3 * np.abs(exact_mse(table, H, 20, 20).mse - expansion(table, H, 20).mse(20)).max()


def crossing(profile, k, more):
    gain = profile.variances[k] - profile.variances[more]
    return (profile.constants[more] - profile.constants[k]) / gain


@pytest.mark.statement("5.6")
def test_crossing():
    profile = expansion(P, H, 9)
    assert profile.constants[0] == 0 and np.isclose(30 * exact_mse(P, H, 30, 1).mse[0], profile.variances[0])
    for k, more in ((0, 1), (1, 3), (3, 5), (5, 7), (7, 9)):
        n = crossing(profile, k, more)

        def difference(size, k=k, more=more):
            return (profile.mse(size)[k] - profile.mse(size)[more]) * size**2

        assert np.isclose(brentq(difference, 0.5 * n, 2 * n), n)
        assert difference(0.9 * n) < 0 < difference(1.1 * n)
    assert [profile.best_steps(n) for n in (100, 197, 198, 896, 897)] == [1, 1, 3, 3, 5]


@pytest.mark.statement("5.6")
def test_best_number_of_half_steps_exactly():
    best = {n: int(np.argmin(exact_mse(P, H, n, 5, cutoff=1e-10).mse)) for n in (203, 204, 930, 931)}
    assert best == {203: 1, 204: 3, 930: 3, 931: 5}


FOUR_BY_FOUR = np.array([[0.2, 0.1, 0.0, 0.0], [0.05, 0.15, 0.0, 0.0], [0.0, 0.0, 0.1, 0.2], [0.0, 0.0, 0.15, 0.05]])
STAIRCASE = (np.eye(9) + np.eye(9, k=1)) / 17
SYMMETRIC = np.array([[0.425, 0.075], [0.075, 0.425]])
UNIFORM_LAWS = {
    "P": P,
    "wide": WIDE,
    "sparse": SPARSE_LAW,
    "blocks": FOUR_BY_FOUR,
    "staircase": STAIRCASE,
    "symmetric": SYMMETRIC,
    "tiny": np.array([[1e-4, 0.4], [0.3, 0.2999]]),
    "dependent": dependent_table(5, 0.6),
}


def block_labels(table):
    """Labels of rows and columns by walking along cells."""
    m, l = table.shape
    labels = list(range(m + l))
    for _ in range(m + l):
        for x, y in zip(*np.nonzero(table), strict=True):
            labels[x] = labels[m + y] = min(labels[x], labels[m + y])
    return np.array(labels[:m]), np.array(labels[m:])


def block_range(values, labels):
    return max(np.ptp(values[labels == b]) for b in np.unique(labels))


def cond_mean(table, f, axis):
    """Conditional mean given the variable of the axis of a function of the other one."""
    joint = table if axis == 0 else table.T
    return joint @ f / joint.sum(axis=1)


def coefficients_by_functions(table, count):
    """Gamma_r by its definition, over all sets of values within a block as indicators."""
    labels, best = block_labels(table), np.zeros(count)
    best[0] = 1.0
    for start in (0, 1):
        size = table.shape[start]
        for f in product((0.0, 1.0), repeat=size):
            f, axis = np.array(f), start
            if block_range(f, labels[start]) == 0:
                continue
            for r in range(1, count):
                axis = 1 - axis
                f = cond_mean(table, f, axis)
                best[r] = max(best[r], block_range(f, labels[axis]))
    return best


def rate_and_least(table):
    """The largest singular value below 1 by the eigenvalues of mu_X mu_Y, and p_*."""
    rows, columns = marginals(table)
    squares = np.linalg.eigvals((table / columns) @ (table / rows[:, None]).T).real
    return np.sqrt(max([0.0, *squares[squares < 1 - 1e-9]])), min(rows.min(), columns.min())


def claimed_coefficient(table, r):
    s, least = rate_and_least(table)
    return np.minimum(1.0, s**r * (2 * least) ** -0.5)


def claimed_constant(table):
    s, least = rate_and_least(table)
    return -np.log(2 * least) / (2 * np.log(1 / s)) + 1 / (1 - s)


def claimed_by_odds(table):
    m, l = table.shape
    odds = [
        table[x, y] * table[v, w] / (table[x, w] * table[v, y])
        for x, v, y, w in product(range(m), range(m), range(l), range(l))
    ]
    root = max(odds) ** 0.5
    return (root + 1) / 2  # 1 / (1 - tau) with tau = (root - 1) / (root + 1)


@pytest.mark.statement("5.20")
@pytest.mark.parametrize("name", UNIFORM_LAWS)
def test_contraction_constant(name):
    table, r = UNIFORM_LAWS[name], np.arange(1, 25)
    values = contraction_coefficients(table, 1500)
    assert np.allclose(values[:8], coefficients_by_functions(table, 8), rtol=1e-9, atol=1e-13)
    assert np.isclose(contraction_constant(table), values.sum(), rtol=1e-7)
    assert np.all(values[r] <= claimed_coefficient(table, r) + 1e-13)
    for q in (1, 2, 5):
        assert np.all(values[r + q] <= values[q] * values[r] + 1e-13)
    assert values.sum() <= claimed_constant(table) * (1 + 1e-9)
    if table.all():
        assert values.sum() <= claimed_by_odds(table) * (1 + 1e-9)


@pytest.mark.statement("5.20")
def test_bounds_of_the_contraction_constant_are_needed():
    r = np.arange(1, 25)
    values = contraction_coefficients(SYMMETRIC, 300)
    assert np.allclose(values[r], 0.7**r) and np.allclose(values[r], claimed_coefficient(SYMMETRIC, r))
    assert np.allclose(values.sum(), [claimed_by_odds(SYMMETRIC), claimed_constant(SYMMETRIC)])
    stairs = contraction_constant((np.eye(12) + np.eye(12, k=1)) / 23)
    assert 0.5 < stairs / claimed_constant((np.eye(12) + np.eye(12, k=1)) / 23) <= 1
    # a staircase of 15 cells, each step to the end a thousandth: Gamma_1, ..., Gamma_6 are nearly 1
    peak = np.zeros((8, 8))
    for i in range(15):
        peak[i // 2, (i + 1) // 2] = 1000.0 ** -abs(i - 7)
    assert 0.7 < contraction_constant(peak) / claimed_constant(peak / peak.sum()) < 1
    tiny = UNIFORM_LAWS["tiny"]
    assert contraction_constant(tiny) < 2.5 and claimed_by_odds(tiny) > 20
    for table in (np.outer(*marginals(WIDE)), np.diag([0.2, 0.3, 0.5]), np.full((1, 4), 0.25)):
        assert np.isclose(contraction_constant(table), 1)


def l_four(table, n):
    return sum((3 * (1 - p) ** 2 + (1 - p) / (n * p)) / p**2 for p in table[table > 0])


def l_six(table, n):
    cells = table[table > 0]
    return sum((15 * (1 - p) ** 3 + 25 * (1 - p) ** 2 / (n * p) + (1 - p) / (n * p) ** 2) / p**3 for p in cells)


def chernoff(table, n, delta):
    cells = table[table > 0]
    return 2 * len(cells) * math.exp(-n * cells.min() * delta**2 * 11 / 24)


def markov(table, n, delta):
    return l_four(table, n) / (delta**4 * n**2)


def largest_cell_error(tables, law):
    cells = law > 0
    return np.abs(tables[:, cells] / law[cells] - 1).max(axis=1)


@pytest.mark.statement("5.21")
@pytest.mark.parametrize(("name", "n"), [("P", 3), ("P", 33), ("wide", 7), ("sparse", 12), ("blocks", 4)])
def test_moments_of_the_largest_cell_error(name, n):
    table = UNIFORM_LAWS[name]
    counts, chance = everything(n, table)
    errors = largest_cell_error(counts / n, table)
    for power, bound in ((4, l_four(table, n) / n**2), (6, l_six(table, n) / n**3)):
        assert 0.1 < chance @ errors**power / bound <= 1
    for delta in (0.1, 0.25):
        tail = chance @ (errors > delta)
        assert tail <= min(chernoff(table, n, delta), markov(table, n, delta))
    assert l_four(table, n + 1) < l_four(table, n) and l_six(table, n + 1) < l_six(table, n)


@pytest.mark.statement("5.21")
@pytest.mark.parametrize(("p", "n"), [(2e-4, 1), (1e-4, 2000), (5e-4, 1000), (0.001, 200_000), (0.15, 80_000)])
def test_moments_are_sharp_for_one_small_cell(p, n):
    law, count = np.array([[1 - p, p]]), np.arange(n + 1)
    errors, weights = np.abs(count / (n * p) - 1), binom.pmf(count, n, p)
    assert 0.99 < n**2 * (weights @ errors**4) / l_four(law, n) <= 1
    assert 0.99 < n**3 * (weights @ errors**6) / l_six(law, n) <= 1


@pytest.mark.statement("5.21")
def test_exponent_of_the_cells():
    p, n = 1e-4, 2 * 10**8
    for sign, above in ((1, 1.06), (-1, 1.25)):
        edge = (1 + sign / 4) * n * p
        tail = -(binom.logsf(int(edge), n, p) if sign > 0 else binom.logcdf(math.ceil(edge) - 1, n, p))
        exponent = -math.log(chernoff(np.array([[p, 1 - p]]), n, 1 / 4) / 4)
        assert 1 < tail / exponent < above
    # where Markov's inequality is within a factor 10 of the truth
    n, delta = 10_000, 0.022
    tail = 2 * binom.cdf(math.ceil((1 - delta) * n / 2) - 1, n, 0.5)
    assert 0.1 * markov(np.full((1, 2), 0.5), n, delta) < tail <= markov(np.full((1, 2), 0.5), n, delta)


def flow(start, law, steps):
    """xi, the lambda_j in log space and the omega_j."""
    labels, logs, found = block_labels(law), np.log(np.where(start > 0, start, 1)), []
    for j in range(steps):
        now = np.where(law > 0, np.exp(logs), 0).sum(axis=1 - j % 2)
        found.append(np.log(marginals(law)[j % 2]) - np.log(now))
        logs = logs + (found[-1][:, None] if j % 2 == 0 else found[-1])
    xi = math.atanh(largest_cell_error(start[None], law)[0])
    return xi, found, np.array([2 * xi] + [block_range(f, labels[j % 2]) for j, f in enumerate(found) if j])


def perturbed(law, signs, size):
    u = np.where(law > 0, signs - np.sum(law * signs), 0.0)
    return law * (1 + size * u / np.abs(u).max())


def claimed_total(xi, gamma):
    return 5 * gamma * xi


def claimed_step(before, xi, gamma):
    return 4 * gamma * xi + gamma * (xi * before + before**2 / 4)


def hard_cases():
    e, rng = 5e-4, np.random.default_rng(512)
    rare = np.outer([e, 1 - 2 * e, e], [1 - 2 * e, e, e])
    yield rare, np.clip(np.add.outer([1.0, 0, -1], [0.0, 1, -1]), -1, 1)
    yield np.full((6, 1), 1 / 6), np.array([[1.0], [-1], [0], [0], [0], [0]])
    for law in UNIFORM_LAWS.values():
        for _ in range(6):
            signs = np.sign(np.add.outer(*map(rng.normal, (0, 0), (1, 1), law.shape)))
            if np.ptp(signs[law > 0]):
                yield law, signs


@pytest.mark.statement("5.22")
def test_all_corrections_together():
    shares, single = [], []
    for law, signs in hard_cases():
        gamma = contraction_constant(law)
        for size in (1e-4 / gamma**2, 1 / (13 * gamma**2), 0.4):
            xi, found, omega = flow(perturbed(law, signs, size), law, 50)
            sums = np.cumsum(omega)
            assert np.all(sums[1:] <= claimed_step(sums[:-1], xi, gamma) * (1 + 1e-9))
            if size < 0.4:
                shares.append(sums[-1] / claimed_total(xi, gamma))
                assert np.abs(found[0]).max() <= 2 * xi
                single += [np.abs(f).max() / w for f, w in zip(found[1:], omega[1:], strict=True) if w > 1e-12]
    assert 0.799 < max(shares) <= 1 and 0.99 < max(single) <= 1 + 1e-9


@pytest.mark.statement("5.22")
def test_recursion_put_together():
    """The bound of the sum from its terms, one by one; the odd steps correct, and only early ones."""
    xi, omega, decay_of = 0.15, [0.3, *[0.0, 0.012] * 60, *[0.0] * 200], 0.6
    sums = [2 * xi]
    for j in range(2, len(omega) + 1):
        sums.append(2 * xi * (decay_of ** (j - 1) + decay_of ** (j - 2)))
        for i in range(1, min(j, 122)):
            same = sum(omega[a - 1] for a in range(1, i) if (i - a) % 2 == 0)
            error = omega[i - 1] * (omega[i - 1] / 8 + 2 * (2 * xi + same) / 4)
            sums[-1] += decay_of ** (j - 1 - i) * error
    share = sum(sums) / claimed_step(sum(omega[:-1]), xi, 1 / (1 - decay_of))
    assert 0.98 < share <= 1
    rest = math.atanh(1 / 13)
    room = 4 + 5 * rest + 25 / 4 * rest
    assert 0.97 * claimed_total(1, 1) < room <= claimed_total(1, 1)


@pytest.mark.statement("5.22")
def test_corrections_on_a_staircase_need_the_constant():
    law = STAIRCASE
    gamma = contraction_constant(law)
    xi, _, omega = flow(perturbed(law, np.add.outer(np.arange(9), -np.arange(9)), 1e-6), law, 600)
    assert 10 * xi < omega.sum() <= claimed_total(xi, gamma)


def densities(start, law, steps):
    """Norms of the densities of V, F_2 and V - F_2 by finite differences of the iteration: no recursion."""
    cells = law > 0

    def after(eps):
        table = law + eps * (start - law)
        return (data_balance(table, marginals(law), steps=steps).table - law)[cells] / law[cells]

    one, e = after(1.0), 0.02
    # five values on both sides of 0 give the first two derivatives up to e^4
    left, right, far_left, far_right = after(-e), after(e), after(-2 * e), after(2 * e)
    first = (8 * (right - left) - (far_right - far_left)) / (12 * e)
    second = (16 * (right + left) - (far_right + far_left)) / (24 * e**2)
    norm = [math.sqrt(law[cells] @ d**2) for d in (one - first, second, one - first - second)]
    return np.array(norm)


def claimed_remainders(size, gamma):
    return np.array([28 * (gamma * size) ** 2, 12 * (gamma * size) ** 2, 375 * gamma**4 * size**3])


@pytest.mark.statement("5.23")
def test_constants_of_the_remainder():
    ratio, big, small, sums = 13 * math.atanh(1 / 13), 5 / 4, 3 / 5, 5
    whole = big * sums + 14 / 13 * big**2 * sums**2 / 2
    error = 13 / 12 + sums + sums**2 / 4 + sums**2 / 8
    factor = small * sums**2 + error
    third = factor + (big * sums) ** 2 / 2 + factor * big * sums + 4 * factor
    built = np.array([whole * ratio**2, 4 + 4**2 / 2, third * ratio**3])
    assert np.all(built <= claimed_remainders(1, 1)) and np.all(built > 0.95 * claimed_remainders(1, 1))
    assert math.expm1(0.386) < big * 0.386 and math.expm1(0.386) - 0.386 < small * 0.386**2
    assert sums * ratio / 13 < 0.386 and error < 15.5 and factor < 31


@pytest.mark.statement("5.23")
@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_remainder_of_the_worst_function(steps):
    for law, signs in hard_cases():
        gamma = contraction_constant(law)
        size = 1 / (13 * gamma**2)
        assert np.all(densities(perturbed(law, signs, size), law, steps) <= claimed_remainders(size, gamma))


@pytest.mark.statement("5.23")
def test_orders_of_the_remainder():
    law, signs = np.outer([0.35, 0.65], [0.25, 0.75]), np.array([[1.0, -1.0], [-0.5, 0.3]])
    for law_, signs_ in ((law, signs), (SPARSE_LAW, np.array([[1.0, 0, -1], [-1, 0.5, 0]]))):
        sizes = 0.04, 0.02, 0.01
        values = np.array([densities(perturbed(law_, signs_, size), law_, 4) for size in sizes])
        assert np.allclose(values[:-1] / values[1:], [4, 4, 8], rtol=0.06)
    tiny = 0.001
    assert np.all(densities(perturbed(law, signs, tiny), law, 2)[:2] > tiny * claimed_remainders(tiny, 1)[:2])
    limit = claimed_remainders(1, 1) / claimed_remainders(0.5, 1)
    assert np.allclose(limit, [4, 4, 8])


def sizes_of(law, h):
    mean = np.sum(law * h)
    return math.sqrt(np.sum(law * (h - mean) ** 2)), np.ptp(h[law > 0])


def claimed_root(law, h, n, k):
    """The three parts of (5.48)."""
    (sigma0, width), gamma, cells = sizes_of(law, h), contraction_constant(law), law[law > 0]
    exponent = -n * cells.min() / (370 * gamma**4)
    chance = min(1.0, 2 * len(cells) * math.exp(exponent), 28561 * gamma**8 * l_four(law, n) / n**2)
    second = 28 * sigma0 * gamma**2 * math.sqrt(l_four(law, n)) / n
    return [math.sqrt(balanced_variance(law, h, k) / n), second, width * math.sqrt(chance)], chance


def claimed_two_sided(law, h, n):
    """R with the moments at n, and what the rare event adds to R_+."""
    (sigma0, width), gamma = sizes_of(law, h), contraction_constant(law)
    first = 24 * gamma**2 * math.sqrt(l_four(law, 1))
    rest = 750 * math.sqrt(l_six(law, n)) + 1265 * l_four(law, n)
    return sigma0**2 * (first + gamma**4 * rest), 28561 * gamma**8 * width**2 * l_four(law, 1)


@pytest.mark.statement("5.24")
@pytest.mark.parametrize(("law", "h"), [(WIDE, F), (SPARSE_LAW, F), (FOUR_BY_FOUR, np.arange(16.0).reshape(4, 4) ** 2)])
def test_uniform_bound_by_its_formulas(law, h):
    for n, k in product((3, 10**5, 10**9, 10**13), (1, 2, 7)):
        bound = uniform_bound(law, h, n, k)
        parts, chance = claimed_root(law, h, n, k)
        assert np.allclose([bound.first_order, bound.remainder, bound.rare_event], parts, rtol=1e-9, atol=0)
        R, (R_one, extra) = claimed_two_sided(law, h, n)[0], claimed_two_sided(law, h, 1)
        assert np.isclose(bound.constant, R_one) and np.isclose(bound.constant_above, R_one + extra)
        square, width = parts[0] ** 2, sizes_of(law, h)[1]
        assert np.isclose(bound.lower, max(square - R / n**2, 0), rtol=1e-9, atol=0)
        assert np.isclose(bound.upper, min(square + R / n**2 + width**2 * chance, width**2), rtol=1e-9, atol=0)


@pytest.mark.statement("5.24")
def test_constants_of_the_uniform_bound():
    whole, form, third = claimed_remainders(1, 1)
    assert [2 * form, 2 * third, 2 * form * 13 + whole**2 + 13**2, 13**4] == [24, 750, 1265, 28561]
    assert 24 / 11 * 169 < 370 < 1.01 * 24 / 11 * 169


@pytest.mark.statement("5.24")
def test_parts_of_the_mean_squared_error():
    """Each part of the proof against its bound, where the event E has a fair probability."""
    law, h, n, k = np.full((2, 2), 0.25), np.array([[2.0, 0.0], [-1.0, 0.5]]), 300, 2
    counts, chance = map(np.concatenate, zip(*count_tables(n, law, cutoff=1e-12), strict=True))
    v = counts / n - law
    e = balanced_means(counts, h, marginals(law), steps=k).values[:, k] - np.sum(law * h)
    L = (v * influence_function(law, h, k)).sum(axis=(1, 2))
    g, last = influence_function(law, h, 2), influence_function(law, h, 1, first=1)
    a1 = v.sum(axis=2, keepdims=True) / law.sum(axis=1, keepdims=True)
    a2 = (v - a1 * law).sum(axis=1, keepdims=True) / law.sum(axis=0)
    F2 = -(v * a1 * g).sum(axis=(1, 2)) - ((v - a1 * law) * a2 * last).sum(axis=(1, 2))
    on = largest_cell_error(counts / n, law) <= 1 / 13
    parts = [2 * L * F2, -2 * ~on * L * F2, 2 * on * L * (e - L - F2), on * (e - L) ** 2, ~on * (e**2 - L**2)]
    values = n**2 * np.array([chance @ part for part in parts])
    sigma0, width = sizes_of(law, h)
    four, six, outside = l_four(law, n), l_six(law, n), chance @ ~on
    high = [24 * l_four(law, 1) ** 0.5, 312 * four, 750 * six**0.5, 784 * four, (width * n / sigma0) ** 2 * outside]
    low = [-high[0], -high[1], -high[2], 0, -169 * four]
    assert np.all(np.multiply(low, sigma0**2) <= values) and np.all(values <= np.multiply(high, sigma0**2))
    assert 0.05 < 1 - outside < 0.5
    assert np.isclose(values.sum(), exact_mse(law, h, n, k, cutoff=1e-12).remainders[k], rtol=1e-2)
    single = np.eye(4).reshape(4, 2, 2) - law
    f2 = [directly(law, h, u, [0, 1])[1] for u in single]
    assert np.isclose(values[0], 2 * law.ravel() @ (influence_function(law, h, k).ravel() * f2), rtol=1e-3)


def claimed_limit(law, h, n, k):
    """Right side of (5.51)."""
    limit, s = limit_variance(law, h), rate_and_least(law)[0]
    gap = balanced_variance(law, h, 0) - limit
    return limit / n + s ** (2 * (k - 1)) * gap / n + sum(claimed_two_sided(law, h, 1)) / n**2


@pytest.mark.statement("5.24")
@pytest.mark.parametrize(("law", "h", "sizes"), [(WIDE, F, (1, 6, 12)), (SPARSE_LAW, F, (2, 9, 30)), (P, H, (3, 50))])
def test_uniform_bound_against_exact_values(law, h, sizes):
    (R, extra), far = claimed_two_sided(law, h, 1), expansion(law, h, 6)
    for n in sizes:
        rest = exact_mse(law, h, n, 30).remainders[1:]
        assert np.all(rest >= -R) and np.all(rest <= R + extra) and np.abs(rest).max() < 60
        assert np.abs(rest[15:]).max() < 1.05 * np.abs(rest[:15]).max()
    for n, k in product((1e9, 1e15, 1e20), range(1, 7)):
        mse = far.variances[k] / n + far.constants[k] / n**2
        assert mse <= claimed_limit(law, h, n, k) * (1 + 1e-12)
        assert math.sqrt(mse) <= sum(claimed_root(law, h, n, k)[0]) * (1 + 1e-12)
        assert far.constants[k] / n**2 <= uniform_bound(law, h, int(n), k).constant_above / n**2
        assert uniform_bound(law, h, int(n), k).lower <= mse <= uniform_bound(law, h, int(n), k).upper * (1 + 1e-12)


@pytest.mark.statement("5.24")
def test_uniform_bound_is_sharp_to_first_order():
    x, y = np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])
    for k in range(1, 6):
        h = y - 0.7 * x if k % 2 else x - 0.7 * y
        assert np.isclose(balanced_variance(SYMMETRIC, h, k) / 1e30, claimed_limit(SYMMETRIC, h, 1e30, k), rtol=1e-6)
    # the term of order n^-2 vanishes against the first order, at this rate
    for n in (1e12, 1e14):
        rest = claimed_limit(SYMMETRIC, h, n, 5) - balanced_variance(SYMMETRIC, h, 5) / n
        assert np.isclose(rest * n**2, sum(claimed_two_sided(SYMMETRIC, h, 1)), rtol=1e-2)


def claimed_stopped(law, h, n, least):
    """Right side of (5.54)."""
    (sigma0, width), gamma, limit = sizes_of(law, h), contraction_constant(law), max(limit_variance(law, h), 0)
    gap, root = math.sqrt(sigma0**2 - limit), math.sqrt(l_four(law, n))
    middle = rate_and_least(law)[0] ** (least - 1) * gap * root**0.5 / math.sqrt(n)
    last = (28 * sigma0 + 169 * gamma**2 * width) * gamma**2 * root / n
    return math.sqrt(limit / n) + middle + last


def claimed_together(law, h, n):
    """Right side of (5.53)."""
    return 784 * sizes_of(law, h)[0] ** 2 * contraction_constant(law) ** 4 * l_four(law, n) / n**2


@pytest.mark.statement("5.25")
@pytest.mark.parametrize(("law", "h"), [(P, H), (WIDE, F), (SPARSE_LAW, F)])
def test_steps_chosen_from_the_data(law, h):
    sigma0, width = sizes_of(law, h)
    for n, k0 in product((20, 10**7, 10**14, 10**22), (1, 2, 4)):
        parts = claimed_root(law, h, n, k0)[0]
        markov = width * math.sqrt(l_four(law, n) * 13**4 * contraction_constant(law) ** 8) / n
        middle = rate_and_least(law)[0] ** (k0 - 1) * math.sqrt(sigma0**2 - limit_variance(law, h))
        middle *= (l_four(law, n) / n**2) ** 0.25
        value = math.sqrt(limit_variance(law, h) / n) + middle + parts[1] + markov
        assert np.isclose(claimed_stopped(law, h, n, k0), value, rtol=1e-9, atol=0)
        assert np.isclose(claimed_together(law, h, n), parts[1] ** 2, rtol=1e-9, atol=0)
    n = 7 if law is WIDE else 14
    counts, chance = everything(n, law)
    errors = balanced_means(counts, h, marginals(law), steps=10).values - np.sum(law * h)
    for k0 in (1, 3):
        assert math.sqrt(chance @ (errors[:, k0:] ** 2).max(axis=1)) <= claimed_stopped(law, h, n, k0)


@pytest.mark.statement("5.25")
def test_first_step_of_a_weakly_dependent_table():
    """With s = 0.04 and no limit variance nothing but the right exponent of s bounds the first-order error."""
    x, y = np.array([[1.0], [-1.0]]), np.array([[1.0, -1.0]])
    law = np.full((2, 2), 0.25) + 0.01 * x * y
    for k0, h in ((1, y - 0.04 * x), (2, x - 0.04 * y), (3, y - 0.04 * x)):
        true = math.sqrt(balanced_variance(law, h, k0) / 1e30)
        assert 0.3 < true / claimed_stopped(law, h, 1e30, k0) <= 1


@pytest.mark.statement("5.25")
def test_supremum_over_the_steps():
    law, h, n = np.full((2, 2), 0.25), np.array([[2.0, 0.0], [-1.0, 0.5]]), 250
    counts, chance = map(np.concatenate, zip(*count_tables(n, law, cutoff=1e-10), strict=True))
    on = largest_cell_error(counts / n, law) <= 1 / 13
    counts, chance = counts[on], chance[on]
    errors = balanced_means(counts, h, marginals(law), steps=8).values[:, 1:] - np.sum(law * h)
    linear = np.array([(counts / n * influence_function(law, h, k)).sum(axis=(1, 2)) for k in range(1, 9)]).T
    assert 0 < chance @ ((errors - linear) ** 2).max(axis=1) <= claimed_together(law, h, n)


def claimed_normal(law, h, n, k):
    """The three parts of (5.55) and the least n / log n."""
    psi, cells, gamma = influence_function(law, h, k), law[law > 0], contraction_constant(law)
    sigma = math.sqrt(np.sum(law * psi**2))
    one = 0.48 * np.sum(law * np.abs(psi) ** 3) / sigma**3
    two = 12.3 * sizes_of(law, h)[0] * gamma**2 * math.log(n) / (sigma * cells.min())
    return np.array([one, two, 2 * len(cells)]) / math.sqrt(n), 185 * gamma**4 / cells.min()


def kolmogorov(values, weights, sigma):
    """Distance from the normal law; values equal up to rounding are merged."""
    grid, place = np.unique(np.round(values / sigma, 9), return_inverse=True)
    jumps = np.bincount(place, weights)
    upper = np.cumsum(jumps)
    return max(np.abs(upper - norm.cdf(grid)).max(), np.abs(upper - jumps - norm.cdf(grid)).max())


@pytest.mark.statement("5.26")
@pytest.mark.parametrize(("law", "h", "n"), [(P, H, 30), (SPARSE_LAW, F, 25), (WIDE, F, 9)])
def test_normal_approximation(law, h, n):
    counts, chance = everything(n, law)
    errors = balanced_means(counts, h, marginals(law), steps=5).values - np.sum(law * h)
    for k in (1, 2, 5):
        psi = influence_function(law, h, k)
        sigma, linear = math.sqrt(np.sum(law * psi**2) / n), (counts / n * psi).sum(axis=(1, 2))
        whole, own = kolmogorov(errors[:, k], chance, sigma), kolmogorov(linear, chance, sigma)
        parts = claimed_normal(law, h, n, k)[0]
        assert own <= parts[0] and whole <= parts.sum()
        for t in (0.1, 0.5):
            moved = chance @ (np.abs(errors[:, k] - linear) > sigma * t)
            assert whole <= own + t * norm.pdf(0) + moved


@pytest.mark.statement("5.26")
def test_constants_of_the_normal_approximation():
    p = (4 - math.sqrt(10)) / 2
    for n in (900, 5000):
        count, law = np.arange(n + 1), np.array([[p], [1 - p]])
        sigma = math.sqrt(p * (1 - p) / n)
        far = kolmogorov(count / n - p, binom.pmf(count, n, p), sigma)
        # two cells that are the two rows; after the Y-step, which changes nothing, the error is linear
        psi = influence_function(law, np.array([[1.0], [0.0]]), 1, first=1)
        first = claimed_normal(law.T, np.array([[1.0, 0.0]]), n, 1)[0][0]
        assert np.allclose(psi.ravel(), [1 - p, -p]) and 0.84 < far / first <= 1
    for law, h, k in ((WIDE, F, 2), (SPARSE_LAW, F, 3)):
        n, least_cell, gamma = 10**12, law[law > 0].min(), contraction_constant(law)
        parts, least = claimed_normal(law, h, n, k)
        squared = 12 * math.log(n) / (11 * n * least_cell)
        shift = 28 * sizes_of(law, h)[0] * gamma**2 * squared * math.sqrt(n / balanced_variance(law, h, k))
        assert 0.99 * parts[1] < shift * norm.pdf(0) <= parts[1]
        tail = 2 * np.sum(law > 0) * math.exp(-n * 11 / 24 * least_cell * squared)
        assert np.isclose(parts[2], tail, rtol=1e-9, atol=0)
        # the condition says that the level is at most 1 / (13 Gamma^2)
        assert 0.99 * least < 12 / 11 / least_cell * 169 * gamma**4 <= least
        assert 0.4748 < 0.48


AGREEING = np.array([[0.48, 0.02], [0.02, 0.48]])
INTERACTION = np.array([[1, -1], [-1, 1]]) / AGREEING


@pytest.mark.statement("5.7")
def test_below_the_efficiency_bound_with_three_observations():
    """By hand from the six kinds of samples, and by enumeration; both orders, by symmetry."""
    bound = 625 / 6
    assert np.isclose(limit_variance(AGREEING, INTERACTION), bound, rtol=1e-12)
    assert np.allclose([balanced_variance(AGREEING, INTERACTION, k) for k in range(9)], bound, rtol=1e-12)
    likely, rare = 12 * 0.48**2 * 0.02, 12 * 0.48 * 0.02**2
    for k, mass in enumerate((1 / 3, 1 / 4, 1 / 6)):
        squares = [((1 - q) * 25 / 12 - 50 * q) ** 2 for q in (mass, 1 - mass, 1 / 3, 2 / 3)]
        claimed = bound / 3 + likely * (squares[0] - squares[2]) + rare * (squares[1] - squares[3])
        stated = (1, 16777 / 20000, 3701 / 5000)[k] * bound / 3
        assert np.isclose(claimed, stated, rtol=1e-12, atol=0)
        for first in (0, 1):
            exact = exact_mse(AGREEING, INTERACTION, 3, 2, first=first).mse[k]
            assert np.isclose(exact, stated, rtol=1e-12, atol=0)


@pytest.mark.statement("5.7")
def test_constants_below_the_efficiency_bound():
    claimed = [625 / 6, -219841 / 1250]
    assert np.allclose(expansion(AGREEING, INTERACTION, 2).constants[1:], claimed, rtol=1e-10, atol=0)
    directly_found = [constants_directly(AGREEING, INTERACTION, k)[0] for k in (1, 2)]
    assert np.allclose(directly_found, claimed, rtol=1e-9, atol=0)
    sizes = (60, 120)
    rests = [exact_mse(AGREEING, INTERACTION, n, 2, cutoff=1e-15).remainders[1:] for n in sizes]
    assert np.allclose(2 * rests[1] - rests[0], claimed, rtol=5e-3, atol=0)
    for n in (200, 400):
        expected = expansion(AGREEING, INTERACTION, 2).mse(n)[2]
        assert expected < 625 / 6 / n
