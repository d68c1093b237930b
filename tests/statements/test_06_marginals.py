"""The statements of chapter 6: wrong and noisy marginals."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from balance import data_balance
from balance.batched import balanced_means
from balance.enumeration import count_tables
from balance.marginals import (
    attribute_error,
    break_even,
    first_order_bias,
    importance_mse,
    importance_weighted,
    pooled_targets,
    predicted_mse,
    ridge_split,
    soft_balance,
    unpaired_mse,
)
from balance.operators import dependent_table, markov_svd
from balance.variance import balanced_variance, influence_function, limit_variance
from helpers import LAW, LAW_H, RIGHT, random_case, seeds

MOVE = (np.array([0.25, -0.25]), np.array([0.1, -0.3, 0.2]))


def variance(masses, f):
    return np.sum(masses * f**2) - np.sum(masses * f) ** 2


def at(t, move=MOVE):
    return tuple(p + t * d for p, d in zip(RIGHT, move, strict=True))


def population_bias(table, h, targets, steps, first=0):
    return np.sum((data_balance(table, targets, steps=steps, first=first).table - table) * h)


def numerical_mse(rule, table, h, n, auxiliary, step=1e-5):
    """First-order mean squared error of rule(pairs, x, y) by central differences in the three samples."""
    samples, total = [table, table.sum(axis=1), table.sum(axis=0)], 0
    for i, (masses, size) in enumerate(zip(samples, (n, auxiliary, auxiliary), strict=True)):
        for z in np.ndindex(masses.shape):
            point = np.zeros_like(masses)
            point[z] = 1
            ends = [
                np.sum(rule(*(q + t * (point - q) if j == i else q for j, q in enumerate(samples))) * h)
                for t in (step, -step)
            ]
            total += masses[z] * ((ends[0] - ends[1]) / (2 * step)) ** 2 / size
    return total


def balanced_to(kept, steps, first=0):
    def rule(pairs, x, y):
        targets = kept * pairs.sum(axis=1) + (1 - kept) * x, kept * pairs.sum(axis=0) + (1 - kept) * y
        return data_balance(pairs, targets, steps=steps, first=first).table

    return rule


@pytest.mark.statement("6.1")
def test_decomposition_is_exact_in_rational_arithmetic():
    def table(*rows):
        entries = np.array([[Fraction(v) for v in row] for row in rows], dtype=object)
        return entries / entries.sum()

    law, start = table([3, 1, 2], [2, 5, 1]), table([1, 4, 2], [3, 1, 7])
    h = np.array([[Fraction(1), Fraction(-2), Fraction(1, 3)], [Fraction(1, 2), Fraction(3), Fraction(-1)]])
    targets = [np.array([Fraction(3, 5), Fraction(2, 5)]), np.array([Fraction(1, 7), Fraction(4, 7), Fraction(2, 7)])]
    for steps in range(1, 6):
        for first in (0, 1):
            axes = [(first + j) % 2 for j in range(steps)]
            functions, bias = [h], Fraction(0)
            for axis in reversed(axes):
                masses = law.sum(axis=1 - axis)
                mean = (functions[0] * law).sum(axis=1 - axis) / masses
                bias += ((targets[axis] - masses) * mean).sum()
                functions.insert(0, functions[0] - np.expand_dims(mean, 1 - axis))
            current, remainders = start, Fraction(0)
            for axis, g in zip(axes, functions, strict=False):
                ratio = np.expand_dims(targets[axis] / current.sum(axis=1 - axis), 1 - axis)
                remainders += ((ratio - 1) * g * current).sum()
                current = ratio * current
            linear = ((start - law) * functions[0]).sum()
            assert ((current - law) * h).sum() == linear + remainders + bias
            ours = [np.array(a, dtype=float) for a in (law, h, *targets)]
            assert first_order_bias(*ours[:2], ours[2:], steps, first) == pytest.approx(float(bias), abs=1e-14)
            parts = attribute_error(*ours[:2], steps, first)
            np.testing.assert_allclose(parts.residual, functions[0].astype(float), atol=1e-13)
            np.testing.assert_allclose(parts.residual + parts.row[:, None] + parts.column, ours[1], atol=1e-13)
            np.testing.assert_allclose(parts.residual, influence_function(*ours[:2], steps, first), atol=1e-13)


@pytest.mark.statement("6.2")
@settings(deadline=None, max_examples=50)
@given(seeds)
def test_correction_factors_do_not_grow(seed):
    start, _, targets = random_case(np.random.default_rng(seed), 3, 4)
    iterates = data_balance(start, targets, steps=7, keep_iterates=True).iterates
    factors = [targets[j % 2] / t.sum(axis=1 - j % 2) for j, t in enumerate(iterates)]
    sizes = [np.abs(np.log(f)).max() for f in factors]
    spread = max(np.abs(np.log(q / start.sum(axis=1 - a))).max() for a, q in enumerate(targets))
    assert sizes[0] <= spread + 1e-9
    assert sizes[1] <= 2 * spread + 1e-9
    assert np.all(np.diff(sizes[1:]) <= 1e-9)


@pytest.mark.statement("6.3")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7])
def test_bias_is_the_derivative_of_the_population_bias(steps, first):
    step = 1e-4
    ends = [population_bias(LAW, LAW_H, at(t), steps, first) for t in (step, -step)]
    slope = first_order_bias(LAW, LAW_H, at(1), steps, first)
    assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(slope, abs=1e-6)
    assert abs(slope) > 0.01
    for t in (0.02, 0.2, 0.4):
        q = at(t)
        spread = max(np.abs(np.log(a / b)).max() for a, b in zip(q, RIGHT, strict=True))
        sizes = [
            np.sum(LAW * np.abs(influence_function(LAW, LAW_H, steps - j, (first + j) % 2))) for j in range(1, steps)
        ]
        bound = np.expm1(2 * spread) * sum(np.expm1(2 * j * spread) * a for j, a in enumerate(sizes, 1))
        assert abs(population_bias(LAW, LAW_H, q, steps, first) - t * slope) <= bound + 1e-12


@pytest.mark.statement("6.3")
def test_bias_by_hand():
    law, h, tiny = [[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], 1e-3
    for move, one, two in (((tiny, 0), -2.125, -1.49621), ((0, tiny), 0, -1.257576)):
        targets = ([0.4 + move[0], 0.6 - move[0]], [0.45 + move[1], 0.55 - move[1]])
        assert first_order_bias(law, h, targets, 1) / tiny == pytest.approx(one, abs=1e-9)
        assert first_order_bias(law, h, targets, 2) / tiny == pytest.approx(two, abs=1e-5)


@pytest.mark.statement("6.4")
@pytest.mark.parametrize("steps", [0, 1, 2, 5])
def test_mean_squared_error_against_enumeration(steps):
    law, h = np.array([[0.3, 0.1], [0.15, 0.45]]), np.array([[1, -2], [0.5, 3]])
    gaps = []
    for n in (20, 80):
        gap = 0
        for sign in (0.5, -0.5):
            move = sign / n**0.5 * np.array([[0.8, -0.8], [0.6, -0.6]])
            targets = law.sum(axis=1) + move[0], law.sum(axis=0) + move[1]
            gap -= n / 2 * predicted_mse(law, h, n, targets, steps)
            for counts, w in count_tables(n, law):
                means = balanced_means(counts, h, targets, steps=steps).values[:, steps]
                gap += n / 2 * (w @ (means - np.sum(law * h)) ** 2)
        gaps.append(gap)
    assert abs(gaps[1]) < max(0.3 * abs(gaps[0]), 1e-10)
    if steps:
        assert n * first_order_bias(law, h, targets, steps) ** 2 > 2 * abs(gaps[1])


@pytest.mark.statement("6.4")
def test_mean_squared_error_by_simulation_with_first_axis_one():
    n, draws, rng, squares = 2000, 20_000, np.random.default_rng(4), []
    for sign in (1, -1):
        counts = rng.multinomial(n, LAW.ravel(), draws).reshape(-1, *LAW.shape)
        means = balanced_means(counts, LAW_H, at(0.06 * sign), steps=3, first=1).values[:, 3]
        squares.append((means - np.sum(LAW * LAW_H)) ** 2)
    predicted, error = predicted_mse(LAW, LAW_H, n, at(0.06), 3, first=1), np.std(squares) / (2 * draws) ** 0.5
    assert first_order_bias(LAW, LAW_H, at(0.06), 3, first=1) ** 2 > 0.3 * predicted
    assert np.mean(squares) == pytest.approx(predicted, abs=4 * error + 0.03 * predicted)


@pytest.mark.statement("6.5")
def test_break_even():
    targets = at(0.1)
    for steps, first in ((1, 0), (3, 1)):
        n = break_even(LAW, LAW_H, targets, steps, first)
        mse = predicted_mse(LAW, LAW_H, 10**9, targets, steps, first) - predicted_mse(
            LAW, LAW_H, 10**9, RIGHT, steps, first
        )
        assert n == pytest.approx((variance(LAW, LAW_H) - balanced_variance(LAW, LAW_H, steps, first)) / mse)
    assert break_even(LAW, LAW_H, RIGHT, 3) > 1e25
    rng = np.random.default_rng(5)
    for _ in range(10):
        p, h, (x, _) = random_case(rng)
        px, py, svd = p.sum(axis=1), p.sum(axis=0), markov_svd(p)
        chi2, s = np.sum((x - px) ** 2 / px), svd.singular_values[1]
        assert chi2 * break_even(p, h, (x, py), 1) >= 1 - 1e-9
        assert chi2 * break_even(p, np.repeat((x / px)[:, None], 3, axis=1), (x, py), 1) == pytest.approx(1)
        a, b = svd.alpha[:, 1], svd.beta[:, 1]
        t = 0.5 / max(np.abs(a).max(), np.abs(b).max())
        worst = (px * (1 + t * a), py * (1 - t * b))
        assert 2 * t**2 * break_even(p, h, worst, 200) >= 1 - s - 1e-9
        assert 2 * t**2 * break_even(p, a[:, None] - b, worst, 200) == pytest.approx(1 - s)


@pytest.mark.statement("6.6")
def test_importance_weighting_to_first_order():
    targets, n = at(0.1), 3000

    def rule(pairs, x, y):
        return importance_weighted(pairs, (x, y))

    step = 1e-5
    pairs_only = numerical_mse(lambda t, x, y: rule(t, *RIGHT), LAW, LAW_H, n, 1)
    assert importance_mse(LAW, LAW_H, n, RIGHT) == pytest.approx(pairs_only, rel=1e-6)
    up, down = (np.sum(rule(LAW, *at(t)) * LAW_H) for t in (step, -step))
    slope = (up - down) / (2 * step)
    assert importance_mse(LAW, LAW_H, n, targets) - pairs_only == pytest.approx((0.1 * slope) ** 2, rel=1e-5)
    assert limit_variance(LAW, LAW_H) / n <= pairs_only <= balanced_variance(LAW, LAW_H, 0) / n


@pytest.mark.statement("6.6")
@settings(deadline=None, max_examples=30)
@given(seeds)
def test_importance_weighting_in_the_singular_basis(seed):
    p, h, _ = random_case(np.random.default_rng(seed), 3, 4)
    right = p.sum(axis=1), p.sum(axis=0)
    svd = markov_svd(p)
    (u, v), s = svd.coefficients(h), svd.singular_values
    outside = variance(right[1], (p * h).sum(axis=0) / right[1]) - np.sum(v[1:] ** 2)
    expected = variance(p, h) - np.sum((u**2 + v**2 - 2 * s * u * v)[1:]) - outside
    assert importance_mse(p, h, 1, right) == pytest.approx(expected, abs=1e-9)


@pytest.mark.statement("6.7")
def test_expected_mass_of_importance_weighting():
    excess, law = [], np.array([[0.35, 0.15], [0.1, 0.4]])
    for n in (30, 60):
        counts, w = (np.concatenate(parts) for parts in zip(*count_tables(n, law), strict=True))
        seen = (counts.sum(axis=1) > 0).all(axis=1) & (counts.sum(axis=2) > 0).all(axis=1)
        masses = importance_weighted(counts[seen], (law.sum(axis=1), law.sum(axis=0))).sum(axis=(1, 2))
        excess.append(n * (w[seen] @ (masses - 1)))
    limit = markov_svd(law).singular_values[1] ** 2
    assert abs(excess[1] - limit) < 0.6 * abs(excess[0] - limit)
    assert abs(2 * excess[1] - excess[0] - limit) < 0.01 * limit


@pytest.mark.statement("6.8")
@pytest.mark.parametrize(("steps", "first"), [(1, 0), (2, 1), (3, 0), (6, 1)])
def test_unpaired_targets_by_numerical_derivatives(steps, first):
    n, auxiliary = 100, 250
    theory = unpaired_mse(LAW, LAW_H, n, auxiliary, steps, first)
    kept = n / (n + auxiliary)
    for share, value in ((1, theory.plain), (0, theory.auxiliary), (kept, theory.pooled)):
        rule = balanced_to(share, 0 if share == 1 else steps, first)
        assert value == pytest.approx(numerical_mse(rule, LAW, LAW_H, n, auxiliary), rel=1e-6)


@pytest.mark.statement("6.8")
def test_pooled_targets_are_posterior_means():
    counts, prior, worth = np.array([[3, 1, 0], [2, 2, 4]]), (np.array([0.3, 0.7]), np.array([0.2, 0.2, 0.6])), 5
    for axis, target in enumerate(pooled_targets(counts, prior, worth)):
        observed = counts.sum(axis=1 - axis)
        draws = np.random.default_rng(1).dirichlet(worth * prior[axis], 400_000)
        weights = np.exp(np.log(draws) @ observed)
        posterior = (weights[:, None] * draws).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(target, posterior, atol=0.01)
    stack = pooled_targets(np.stack([counts, 2 * counts]), prior, worth)
    np.testing.assert_allclose(stack[1][0], pooled_targets(counts, prior, worth)[1])
    np.testing.assert_allclose(stack[1][1], pooled_targets(2 * counts, prior, worth)[1])


@pytest.mark.statement("6.9")
def test_auxiliary_targets_against_not_balancing():
    rng = np.random.default_rng(9)
    for _ in range(6):
        p, h, _ = random_case(rng, 3, 4)
        for steps in (1, 2):
            mse = unpaired_mse(p, h, 70, 70, steps)
            assert mse.auxiliary == pytest.approx(mse.plain)
        svd = markov_svd(p)
        s, a, b = svd.singular_values[1], svd.alpha[:, [1]], svd.beta[:, 1]
        for f, auxiliary in ((a + b, 1 / (1 + s)), (a - b, 1 / (1 - s))):
            parts = attribute_error(p, f, 200)
            noise = variance(p.sum(axis=1), parts.row) + variance(p.sum(axis=0), parts.column)
            assert noise / (variance(p, f) - balanced_variance(p, f, 200)) == pytest.approx(auxiliary, rel=1e-4)
            sizes = (int(10_000 * auxiliary * c) for c in (0.99, 1.01))
            worse, better = (unpaired_mse(p, f, 10_000, size, 200) for size in sizes)
            assert worse.auxiliary > worse.plain and better.auxiliary < better.plain


@pytest.mark.statement("6.10")
def test_pooling_is_safe_up_to_the_threshold():
    n, auxiliary = 100, 300
    threshold = (n + auxiliary) / (2 * n + auxiliary)
    rng = np.random.default_rng(10)
    for s, safe in ((threshold - 0.01, True), (threshold + 0.01, False)):
        p = dependent_table(4, s)
        svd = markov_svd(p)
        worst = unpaired_mse(p, svd.alpha[:, [1]] - svd.beta[:, 1], n, auxiliary, 200)
        assert (worst.pooled <= worst.plain) == safe
        if safe:
            for _ in range(20):
                mse = unpaired_mse(p, rng.normal(size=(4, 4)), n, auxiliary, 200)
                assert mse.pooled <= mse.plain


@pytest.mark.statement("6.11")
def test_pooling_can_lose():
    f = np.array([-0.5, 0, 0.5])
    p, h, n = dependent_table(3, 0.9), f[:, None] - f, 400
    mse = unpaired_mse(p, h, n, n, 300)
    np.testing.assert_allclose(n * np.array(mse), [1 / 30, 1 / 3, 11 / 120, 1 / 33], rtol=1e-6)
    rng = np.random.default_rng(11)
    pairs = rng.multinomial(n, p.ravel(), 10_000).reshape(-1, 3, 3)
    x, y = (rng.multinomial(n, np.ones(3) / 3, 10_000) for _ in range(2))
    rules = (pairs / n, soft_balance(pairs, (x, y), 1, steps=150))
    rules += (soft_balance(pairs, pooled_targets(pairs, (x, y), n), 1, steps=150),)
    rules += (soft_balance(pairs, (x, y), 0.5, steps=60),)
    for tables, value in zip(rules, mse, strict=True):
        squares = np.sum(tables * h, axis=(1, 2)) ** 2
        assert squares.mean() == pytest.approx(value, abs=4 * squares.std() / 100 + 0.04 * value)


@pytest.mark.statement("6.12")
@settings(deadline=None, max_examples=15)
@given(seeds, st.floats(0.05, 0.98))
def test_ridge_is_the_best_linear_rule(seed, weight):
    p, h, _ = random_case(np.random.default_rng(seed))
    penalty = (1 - weight) / weight

    def objective(z):
        own = variance(p.sum(axis=1), z[:3]) + variance(p.sum(axis=0), z[3:])
        return variance(p, h - z[:3, None] - z[3:]) + penalty * own

    parts = ridge_split(p, h, weight)
    value = objective(np.concatenate([parts.row, parts.column]))
    np.testing.assert_allclose(parts.residual + parts.row[:, None] + parts.column, h, atol=1e-12)
    assert value == pytest.approx(minimize(objective, np.zeros(6)).fun, abs=1e-6)
    svd = markov_svd(p)
    (u, v), s = svd.coefficients(h), svd.singular_values
    gain = weight * (u**2 + v**2 - 2 * weight * s * u * v) / (1 - weight**2 * s**2)
    assert value == pytest.approx(variance(p, h) - gain[1:].sum(), abs=1e-9)
    mse = unpaired_mse(p, h, 100, 40, 3)
    assert mse.ridge <= min(mse) + 1e-12


@pytest.mark.statement("6.13")
@pytest.mark.parametrize("first", [0, 1])
def test_unbalanced_steps_attain_the_best_linear_rule(first):
    n, auxiliary = 100, 60
    weight = auxiliary / (n + auxiliary)

    def rule(pairs, x, y):
        return soft_balance(pairs, (x, y), weight, steps=80, first=first)

    ridge = unpaired_mse(LAW, LAW_H, n, auxiliary, 1).ridge
    assert numerical_mse(rule, LAW, LAW_H, n, auxiliary) == pytest.approx(ridge, rel=1e-6)


@pytest.mark.statement("6.13")
def test_unbalanced_steps_minimize_the_sum_of_divergences():
    def divergence(a, b):
        return np.sum(a * np.log(a / b) - a + b)

    p, _, (x, y) = random_case(np.random.default_rng(13), 2, 3)
    n, auxiliary = 50, 80

    def energy(logs):
        t = np.exp(logs).reshape(p.shape)
        ends = divergence(t.sum(axis=1), x) + divergence(t.sum(axis=0), y)
        return n * divergence(t, p) + auxiliary * ends

    best = np.exp(minimize(energy, np.log(p).ravel(), tol=1e-10).x).reshape(p.shape)
    soft = soft_balance(p, (x, y), auxiliary / (n + auxiliary), steps=200)
    np.testing.assert_allclose(soft, best / best.sum(), atol=1e-5)


@pytest.mark.statement("6.14")
@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.2, 1))
def test_partial_steps_end_at_the_hard_constraint(seed, weight):
    rng = np.random.default_rng(seed)
    start, targets = rng.uniform(0.5, 2, (3, 4)), (rng.uniform(1, 2, 3), rng.uniform(1, 2, 4))
    targets = tuple(q / q.sum() for q in targets)
    hard = data_balance(start, targets, tol=1e-13).table
    running = soft_balance(start, targets, weight, steps=400, accumulate=True)
    np.testing.assert_allclose(running, hard, atol=1e-10)
    if weight < 0.9:
        assert np.abs(soft_balance(start, targets, weight, steps=400) - hard).max() > 1e-5


@pytest.mark.statement("6.15")
@settings(deadline=None, max_examples=25)
@given(seeds)
def test_no_targets_are_slow(seed):
    rng = np.random.default_rng(seed)
    start, targets = rng.uniform(0.2, 3, (3, 4)), (rng.uniform(0.1, 1, 3), rng.uniform(0.1, 1, 4))
    targets = tuple(q / q.sum() for q in targets)
    odds = max(
        np.log(start[a, c] * start[b, d] / (start[a, d] * start[b, c]))
        for a in range(3)
        for b in range(3)
        for c in range(4)
        for d in range(4)
    )
    limit = data_balance(start, targets, tol=1e-12).table
    assert markov_svd(limit).singular_values[1] <= np.tanh(odds / 4) + 1e-9
    square = data_balance(start[:2, :2], ([1, 1], [1, 1]), tol=1e-13).table
    odds = abs(np.log(start[0, 0] * start[1, 1] / (start[0, 1] * start[1, 0])))
    assert markov_svd(square).singular_values[1] == pytest.approx(np.tanh(odds / 4), abs=1e-9)


@pytest.mark.statement("6.16")
def test_misspecified_support():
    p, h, q = dependent_table(3, 0.4), np.arange(9.0).reshape(3, 3) ** 1.5, 0.1
    third = np.ones(3) / 3
    gone = data_balance(p, ([0.4, 0.6, 0], third), steps=3).table
    assert gone[2].sum() == 0
    for repaired in (data_balance, lambda *a, **k: soft_balance(*a, 0.5, **k)):
        with pytest.raises(ValueError, match="row"):
            repaired(gone, (third, third), steps=2)
    counts = np.zeros((200, 4, 3), dtype=int)
    counts[:, :3] = np.random.default_rng(16).multinomial(90, p.ravel(), 200).reshape(-1, 3, 3)
    means = balanced_means(counts, np.ones((4, 3)).cumsum(axis=0), ([0.3, 0.3, 0.3, 0.1], third), steps=4)
    assert not means.complete.any() and np.all(means.values == means.values[:, :1])
    for x1 in range(3):
        kept = (third - q * (np.arange(3) == x1)) / (1 - q)
        formula = q / (1 - q) * (np.sum(p * h) - np.sum(p[x1] * h[x1]) / p[x1].sum())
        assert population_bias(p, h, (kept, third), 1) == pytest.approx(formula)
        assert first_order_bias(p, h, (kept, third), 1) == pytest.approx(formula)
