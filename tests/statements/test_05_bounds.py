"""The statements of chapter 5 against exact enumeration, closed forms and second derivations."""

import math
from itertools import product

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import rel_entr
from scipy.stats import binom

from balance import data_balance, kl_divergence, total_variation
from balance.batched import balance_many
from balance.bounds import (
    exact_mse,
    expansion,
    explicit_bound,
    missing_probability,
    remainder_constant,
    simulated_mse,
)
from balance.enumeration import count_tables
from balance.operators import dependent_table, maximal_correlation
from balance.variance import balanced_variance, decomposition, influence_function, limit_variance
from helpers import SPARSE_LAW, WIDE, F, H, P, random_law


def marginals(table):
    return table.sum(axis=1), table.sum(axis=0)


def everything(n, table):
    return map(np.concatenate, zip(*count_tables(n, table), strict=True))


@pytest.mark.statement("5.1")
def test_shape_of_the_paper_bound():
    """Exact values fit the bound's shape with a falling constant; with a larger sigma_gap they would not."""
    s, limit = maximal_correlation(P), limit_variance(P, H)
    gap = balanced_variance(P, H, 0) - limit
    k = np.arange(2, 7)

    def constant(n, claimed):
        excess = n * exact_mse(P, H, n, 6).mse[k] - (limit + gap - claimed) - s**k * gap
        return np.max(excess * np.sqrt(n) / k**6)

    assert constant(30, gap) > constant(60, gap) > constant(120, gap) > 0
    assert constant(120, 1.25 * gap) > constant(60, 1.25 * gap)


@pytest.mark.statement("5.2")
@pytest.mark.parametrize("n", [4, 7, 25])
def test_step_on_the_wrong_variable_never_helps(n):
    table, b = np.outer([0.2, 0.8], [0.3, 0.1, 0.6]), np.array([[1.0, 0.0, -2.0]])
    variance = table.sum(axis=0) @ b[0] ** 2 - (table.sum(axis=0) @ b[0]) ** 2
    result = exact_mse(table, b, n, 1).mse
    assert abs(limit_variance(table, b)) < 1e-12 and maximal_correlation(table) < 1e-12
    assert np.isclose(n * result[0], variance) and n * result[1] > variance * (1 + 1e-9)


@pytest.mark.statement("5.3")
@pytest.mark.parametrize("table", [P, WIDE, SPARSE_LAW], ids=["P", "wide", "sparse"])
def test_missing_values(table):
    least = min(map(min, marginals(table)))
    for n in (1, 2, 5, 12):
        counts, chance = everything(n, table)
        lost = (counts.sum(axis=2) == 0).any(axis=1) | (counts.sum(axis=1) == 0).any(axis=1)
        value = missing_probability(table, n)
        assert np.isclose(value, chance[lost].sum(), rtol=1e-10, atol=1e-13)
        assert (1 - least) ** n <= value + 1e-12 <= sum(table.shape) * (1 - least) ** n + 2e-12


@pytest.mark.statement("5.4")
def test_method_of_types():
    p = np.array([0.15, 0.25, 0.6])
    reversed_fails = False
    for n in (1, 8, 30, 90):
        counts, chance = everything(n, p)
        divergence = rel_entr(counts / n, p).sum(axis=1)
        assert len(counts) <= (n + 1) ** 3
        assert np.all(chance <= np.exp(-n * divergence) * (1 + 1e-10))
        reversed_fails |= np.any(chance > 1.01 * np.exp(-n * rel_entr(p, counts / n).sum(axis=1)))
        for eps in (0.0, 0.03, 0.2):
            assert chance[divergence > eps].sum() <= (n + 1) ** 3 * np.exp(-n * eps)
    assert reversed_fails


@pytest.mark.statement("5.5")
def test_pinsker():
    rng = np.random.default_rng(55)
    for size in (2, 3, 10):
        for _ in range(100):
            q, p = rng.dirichlet(np.full(size, 0.5), size=2)
            assert total_variation(q, p) <= np.sqrt(kl_divergence(q, p) / 2)
    q, p = [0.505, 0.495], [0.5, 0.5]
    assert total_variation(q, p) > 0.9999 * np.sqrt(kl_divergence(q, p) / 2)


@pytest.mark.statement("5.6")
def test_marginal_about_to_be_corrected():
    rng, targets = np.random.default_rng(56), marginals(WIDE)
    swapped_fails = started_too_early_fails = False
    for counts in rng.multinomial(40, WIDE.ravel(), size=150).reshape(-1, 2, 3):
        if not (counts.any(axis=0).all() and counts.any(axis=1).all()):
            continue
        tables = data_balance(counts, targets, steps=7, keep_iterates=True).iterates
        pairs = [(tables[j].sum(axis=1 - j % 2), targets[j % 2]) for j in range(7)]
        d = [total_variation(*pair) for pair in pairs]
        start = d[0] + total_variation(counts.sum(axis=0) / 40, targets[1])
        assert d[1] <= start + 1e-12 and np.all(np.diff(d[1:]) <= 1e-12)
        for turn in (0, 1):
            chain = [kl_divergence(*pair[:: 1 if (j + turn) % 2 else -1]) for j, pair in enumerate(pairs)]
            assert np.all(np.diff(chain[1:]) <= 1e-12)
        started_too_early_fails |= d[1] > d[0] + 1e-6
    skew = data_balance([[1, 100], [100, 1]], ([0.4, 0.6], [0.9, 0.1]), steps=2, keep_iterates=True).iterates
    swapped_fails = kl_divergence([0.9, 0.1], skew[1].sum(axis=0)) < kl_divergence([0.4, 0.6], skew[2].sum(axis=1))
    assert swapped_fails and started_too_early_fails


@pytest.mark.statement("5.7")
def test_ratios_through_divergences():
    n, targets = 30, marginals(WIDE)
    least = min(map(min, targets))
    counts, chance = everything(n, WIDE)
    sides = [(counts.sum(axis=2 - a) / n, targets[a]) for a in (0, 1)]
    divergence = np.max([rel_entr(q, t).sum(axis=1) for q, t in sides], axis=0)
    seen, worst = np.min([q.min(axis=1) for q, _ in sides], axis=0) > 0, np.full(len(counts), np.inf)
    worst[seen] = 0
    for j in range(5):
        ratio = targets[j % 2] / balance_many(counts[seen], targets, steps=j).table.sum(axis=2 - j % 2)
        worst[seen] = np.maximum(worst[seen], np.abs(ratio - 1).max(axis=1))
    for eps in (0.002, 0.01, 0.025):
        close, tau = divergence <= eps, np.sqrt(2 * eps)
        assert close.any() and worst[close].max() <= tau / (least - tau)
        assert eps > 0.01 or worst[close].max() > 0.2 * tau / (least - tau)
        assert chance[~close].sum() <= ((n + 1) ** 2 + (n + 1) ** 3) * np.exp(-n * eps)


@pytest.mark.statement("5.8")
def test_relative_errors_are_small():
    constant = 11 / 24
    for n, delta in product((5, 50, 500), (0.05, 0.15, 0.25)):
        for p in (0.02, 0.3, 0.5, 0.9):
            above = binom.sf(math.ceil((1 + delta) * n * p - 1e-9) - 1, n, p)
            below = binom.cdf(math.floor((1 - delta) * n * p + 1e-9), n, p)
            assert max(above, below) <= np.exp(-constant * n * p * delta**2)
    counts, chance = everything(60, P)
    errors = np.hstack([counts.sum(axis=2 - a) / 60 / marginals(P)[a] - 1 for a in (0, 1)])
    tail = chance[np.abs(errors).max(axis=1) > 0.25].sum()
    assert tail <= 8 * np.exp(-constant * 60 * 0.4 * 0.25**2)
    n, p = 10**8, 2e-4
    rate = -binom.logsf(int(1.25 * n * p) - 1, n, p) / (n * p * 0.25**2)
    assert constant < rate < constant + 0.02


@pytest.mark.statement("5.9")
def test_factors_and_weights():
    rng, close = np.random.default_rng(59), 0
    for k, shape, _ in product((1, 2, 4, 9), ((2, 2), (3, 4)), range(25)):
        start = rng.dirichlet(np.full(math.prod(shape), 0.3)).reshape(shape) + 1e-9
        start /= start.sum()
        targets = [side * (1 + rng.uniform(-0.15, 0.15, len(side)) / k) for side in marginals(start)]
        targets = [side / side.sum() for side in targets]
        m = max(np.abs(a / b - 1).max() for a, b in zip(marginals(start), targets, strict=True))
        tables = data_balance(start, targets, steps=k, keep_iterates=True).iterates
        factors = np.array([tables[j + 1] / tables[j] for j in range(k)])
        assert np.abs(np.log(factors)).max() <= 2 * np.arctanh(m) + 1e-12
        if m <= 1 / (4 * k):
            close += 1
            assert np.abs(factors - 1).max() <= 8 / 3 * m + 1e-12
            for j in range(k):
                assert np.abs(tables[j] / start - 1).max() <= 8 / 3 * j * m + 1e-12
    assert close > 100
    tables = data_balance(
        np.array([[0.4999, 0.0001], [0.0001, 0.4999]]), ([0.49, 0.51], [0.51, 0.49]), steps=2, keep_iterates=True
    ).iterates
    assert np.log(tables[2] / tables[1]).max() > 0.95 * 2 * np.arctanh(0.5 / 0.49 - 1)


@pytest.mark.statement("5.10")
def test_remainders_are_of_second_order():
    rng, n, k, used = np.random.default_rng(60), 5000, 4, 0
    g = [influence_function(WIDE, F, k - j, first=j % 2) for j in range(k)]
    largest = max(np.abs(f).max() for f in g)
    for counts in rng.multinomial(n, WIDE.ravel(), size=40).reshape(-1, 2, 3):
        sample = counts / n
        tables = data_balance(counts, marginals(WIDE), steps=k, keep_iterates=True).iterates
        m = max(np.abs(a / b - 1).max() for a, b in zip(marginals(sample), marginals(WIDE), strict=True))
        for j, v in enumerate(decomposition(counts, WIDE, F, k).remainders):
            rho, w = tables[j + 1] / tables[j] - 1, tables[j] / sample
            delta = ((sample - WIDE) * g[j]).sum(axis=1 - j % 2, keepdims=True)
            assert abs(v - (rho * (sample - WIDE) * g[j]).sum() - (sample * rho * g[j] * (w - 1)).sum()) < 1e-14
            if m <= 1 / (4 * k):
                used += 1
                assert abs(v) <= 8 / 3 * m * np.abs(delta).sum() + 64 / 9 * j * largest * m**2
    assert used > 20


@pytest.mark.statement("5.11")
@pytest.mark.parametrize("n", [1, 4, 20])
def test_fourth_moments(n):
    counts, chance = everything(n, WIDE)
    masses = np.concatenate(marginals(WIDE))
    errors = np.hstack([counts.sum(axis=2 - a) / n / marginals(WIDE)[a] - 1 for a in (0, 1)])
    k4 = sum((3 * (1 - t) ** 2 + (1 - t) / (n * t)) / t**2 for t in masses)
    m4 = chance @ np.abs(errors).max(axis=1) ** 4
    assert k4 / (12 * n**2) < m4 <= k4 / n**2
    for axis in (0, 1):
        g = influence_function(WIDE, F, 1, first=axis)
        target = marginals(WIDE)[axis]
        v, kappa = ((WIDE * g**r).sum(axis=1 - axis) / target for r in (2, 4))
        delta = ((counts / n - WIDE) * g).sum(axis=2 - axis)
        for t, p in enumerate(target):
            exact = (3 * (p * v[t]) ** 2 + (p * kappa[t] - 3 * (p * v[t]) ** 2) / n) / n**2
            assert np.isclose(chance @ delta[:, t] ** 4, exact)
        d4 = np.sum(np.sqrt(3 * v**2 + kappa / (n * target))) ** 2
        assert d4 / (20 * n**2) < chance @ np.abs(delta).sum(axis=1) ** 4 <= d4 / n**2


@pytest.mark.statement("5.12")
@pytest.mark.parametrize("first", [0, 1])
def test_explicit_bound_holds_exactly(first):
    rng = np.random.default_rng(512 + first)
    cases = [random_law(rng, (2, 2)) for _ in range(8)] + [random_law(rng, (2, 3)) for _ in range(3)]
    for table, h in [*cases, (P, H), (SPARSE_LAW, F)]:
        for n in (1, 8, 20):
            values = exact_mse(table, h, n, 5, first=first).mse
            for k in range(1, 6):
                assert np.sqrt(values[k]) <= explicit_bound(table, h, n, k, first=first).rmse


@pytest.mark.statement("5.12")
def test_parts_without_the_exponential_bound_the_typical_error():
    """At sizes where the exponential part is negligible the other two must do."""
    for k in (1, 2):
        bound = explicit_bound(P, H, 20_000, k)
        drawn = simulated_mse(P, H, 20_000, k, draws=4000)
        assert bound.rare_event < 1e-8 and not bound.vacuous
        assert np.sqrt(drawn.mse[k]) < bound.rmse < (1.1, 2)[k - 1] * np.sqrt(drawn.mse[k])


def directly(table, h, v, axes):
    """F_1, F_2, F_3 of a direction by carrying the table itself to third order."""
    q1, q2, q3 = v, 0 * v, 0 * v
    for axis in axes:
        side = {"axis": 1 - axis, "keepdims": True}
        a1, a2, a3 = (q.sum(**side) / table.sum(**side) for q in (q1, q2, q3))
        r1, r2, r3 = -a1, a1**2 - a2, -a3 + 2 * a1 * a2 - a1**3
        q1, q2, q3 = q1 + r1 * table, q2 + r1 * q1 + r2 * table, q3 + r1 * q2 + r2 * q1 + r3 * table
    return [float(np.sum(q * h)) for q in (q1, q2, q3)]


@pytest.mark.statement("5.13")
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
    assert np.allclose(terms[1:], [f2, f3], atol=1e-13)
    gaps = []
    for eps in (0.02, 0.01):
        value = np.sum(data_balance(WIDE + eps * v, marginals(WIDE), steps=steps).table * F) - np.sum(WIDE * F)
        gaps.append(value - eps * terms[0] - eps**2 * terms[1] - eps**3 * terms[2])
    assert 13 < gaps[0] / gaps[1] < 19


def constants_directly(table, h, steps, first=0):
    """(c_k, b_k) of formula (5.22), the forms by polarization of `directly`."""
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


@pytest.mark.statement("5.14")
@pytest.mark.parametrize(("table", "h", "first"), [(P, H, 0), (WIDE, F, 0), (WIDE, F, 1), (SPARSE_LAW, F, 1)])
def test_constants_by_a_second_derivation(table, h, first):
    result = expansion(table, h, 4, first=first)
    for k in range(1, 5):
        assert np.allclose([result.constants[k], result.scaled_biases[k]], constants_directly(table, h, k, first))
        assert remainder_constant(table, h, k, first=first) == result.constants[k]
    assert result.constants[0] == result.scaled_biases[0] == 0


def extrapolated(sizes, rows):
    return np.linalg.solve(np.power.outer(1 / np.array(sizes), np.arange(len(sizes))), rows)[0]


@pytest.mark.statement("5.14")
def test_constants_are_the_limits_of_exact_remainders():
    sizes = (80, 113, 160, 226, 300)
    exact = [exact_mse(P, H, n, 6, cutoff=1e-17) for n in sizes]
    result = expansion(P, H, 6)
    limits = extrapolated(sizes, [e.remainders for e in exact])
    assert np.allclose(limits, result.constants, rtol=0, atol=6e-4)
    assert np.allclose(limits[1:4], result.constants[1:4], rtol=0, atol=2e-5)
    biases = extrapolated(sizes, [e.n * e.biases for e in exact])
    assert np.allclose(biases, result.scaled_biases, rtol=0, atol=1e-4)


@pytest.mark.statement("5.14")
def test_constants_of_a_larger_table_by_simulation():
    rng = np.random.default_rng(514)
    table = dependent_table(3, 0.4)
    h = rng.normal(size=(3, 3))
    n, result = 400, expansion(table, h, 3)
    drawn = simulated_mse(table, h, n, 3, draws=200_000)
    assert np.all(np.abs(drawn.remainders - result.constants)[1:] < n**2 * 4 * drawn.standard_errors[1:] + 0.1)
    assert np.all(np.abs(result.constants[1:]) > n**2 * 8 * drawn.standard_errors[1:])


@pytest.mark.statement("5.15")
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
            assert 0 < bias <= 2 * np.ptp(h) * missing_probability(table, n)


@pytest.mark.statement("5.16")
@pytest.mark.parametrize(("table", "h"), [(P, H), (WIDE, F), (dependent_table(3, 0.5), F[[0, 1, 0]])])
def test_constant_converges(table, h):
    s, k = maximal_correlation(table), np.arange(31)
    result = expansion(table, h, 30)
    for values in (result.constants, result.scaled_biases):
        distance, envelope = np.abs(values - values[-1]), (1 + k) ** 2 * s**k
        scale = np.max(distance[1:6] / envelope[1:6])
        assert np.all(distance[6:25] <= scale * envelope[6:25] + 1e-9)
    assert abs(result.constants[20] - result.constants[-1]) < 1e-2 * abs(result.constants[-1])


@pytest.mark.statement("5.16")
def test_constant_of_independent_variables_stops():
    constants = expansion(np.outer(*marginals(WIDE)), F, 9).constants
    assert np.allclose(constants[6:], constants[6]) and not np.isclose(constants[1], constants[6])


def crossing(profile, k, more):
    gain = profile.variances[k] - profile.variances[more]
    return (profile.constants[more] - profile.constants[k]) / gain


@pytest.mark.statement("5.17")
def test_crossing():
    profile = expansion(P, H, 9)
    for k, more in ((0, 1), (1, 3), (3, 5), (5, 7), (7, 9)):
        n = crossing(profile, k, more)

        def difference(size, k=k, more=more):
            return (profile.mse(size)[k] - profile.mse(size)[more]) * size**2

        assert np.isclose(brentq(difference, 0.5 * n, 2 * n), n)
        assert difference(0.9 * n) < 0 < difference(1.1 * n)
    assert [profile.best_steps(n) for n in (100, 197, 198, 896, 897)] == [1, 1, 3, 3, 5]


@pytest.mark.statement("5.17")
def test_best_number_of_half_steps_exactly():
    best = {n: int(np.argmin(exact_mse(P, H, n, 5, cutoff=1e-10).mse)) for n in (203, 204, 930, 931)}
    assert best == {203: 1, 204: 3, 930: 3, 931: 5}
