"""The statements of chapter 6: wrong and noisy marginals."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binom

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
from balance.operators import conditional_mean, dependent_table, markov_svd
from balance.variance import balanced_variance, influence_function, limit_variance
from helpers import LAW, LAW_H, RIGHT, random_case, seeds

MOVE = (np.array([0.25, -0.25]), np.array([0.1, -0.3, 0.2]))


def variance(masses, f):
    return np.sum(masses * f**2) - np.sum(masses * f) ** 2


def at(t, move=MOVE, right=RIGHT):
    return tuple(p + t * d for p, d in zip(right, move, strict=True))


def population_bias(table, h, targets, steps, first=0):
    return np.sum((data_balance(table, targets, steps=steps, first=first).table - table) * h)


def to_infinity(values):
    """The limit of a + b/n + c/n^2 + ... from its values at n, 2 n, 4 n."""
    low, high = 2 * values[1] - values[0], 2 * values[2] - values[1]
    return (4 * high - low) / 3


def numerical_mse(rule, table, h, n, auxiliary, step=1e-5, one_survey=False):
    """First-order mean squared error of rule(pairs, x, y) by central differences in the samples: three, or two if
    x and y are the margins of one."""
    samples, total = [table, table.sum(axis=1), table.sum(axis=0)], 0
    if one_survey:
        samples, separate = [table, table], rule

        def rule(pairs, survey):
            return separate(pairs, survey.sum(axis=1), survey.sum(axis=0))

    for i, (masses, size) in enumerate(zip(samples, (n, *(len(samples) - 1) * [auxiliary]), strict=True)):
        for z in np.ndindex(masses.shape):
            point = np.zeros_like(masses)
            point[z] = 1
            ends = [
                np.sum(rule(*(q + t * (point - q) if j == i else q for j, q in enumerate(samples))) * h)
                for t in (step, -step)
            ]
            total += masses[z] * ((ends[0] - ends[1]) / (2 * step)) ** 2 / size
    return total


def worst_direction(table, gaps):
    """The additive h with the largest b^2 / Var, and that ratio, from the Gram matrix of the indicators."""
    gram = np.block([[np.diag(table.sum(axis=1)), table], [table.T, np.diag(table.sum(axis=0))]])
    gap = np.concatenate(gaps)
    f = np.linalg.pinv(gram, rcond=1e-10) @ gap
    return f[: len(table), None] + f[len(table) :], gap @ f


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


def factor_sizes(start, targets, steps):
    """T of Lemma 6.2, max |log r_j| and max |log R^(j) / R| over the support, for j = 1, ..., steps."""
    current, factors, moved = start / start.sum(), [], []
    spread = max(np.abs(np.log(q / current.sum(axis=1 - a))).max() for a, q in enumerate(targets))
    seen, total = current > 0, current
    for j in range(steps):
        ratio = targets[j % 2] / current.sum(axis=1 - j % 2)
        current = current * np.expand_dims(ratio, 1 - j % 2)
        factors.append(np.abs(np.log(ratio)).max())
        moved.append(np.abs(np.log(current[seen] / total[seen])).max())
    np.testing.assert_allclose(current, data_balance(start, targets, steps=steps).table, rtol=1e-9, atol=1e-15)
    return spread, np.array(factors), np.array(moved)


def check_sizes(spread, factors, moved):
    slack, powers = 1 + 1e-9, np.arange(1, 2 * len(moved), 2)
    assert factors[0] <= spread * slack
    assert factors[1:].max() <= 2 * spread * slack
    assert np.all(np.diff(factors[1:]) <= 1e-9)
    assert np.all(moved <= powers * spread * slack)


@pytest.mark.statement("6.2")
@settings(deadline=None, max_examples=50)
@given(seeds)
def test_correction_factors_do_not_grow(seed):
    start, _, targets = random_case(np.random.default_rng(seed), 3, 4)
    check_sizes(*factor_sizes(start, targets, 7))


@pytest.mark.statement("6.2")
def test_bounds_on_the_factors_are_attained():
    d = 0.002
    targets = (np.array([0.5 - d, 0.5 + d]), np.array([0.5 + d, 0.5 - d]))
    spread, factors, moved = factor_sizes(np.array([[0.5, 1e-8], [0, 0.5]]), targets, 7)
    check_sizes(spread, factors, moved)
    assert factors[0] == pytest.approx(spread)
    np.testing.assert_allclose(factors[1:], 2 * spread, rtol=0.01)
    np.testing.assert_allclose(moved, np.arange(1, 14, 2) * spread, rtol=0.01)


def share_of_bound(table, h, targets, steps, first):
    """The left side of (6.9) over its right side."""
    gap = population_bias(table, h, targets, steps, first) - first_order_bias(table, h, targets, steps, first)
    spread = max(np.abs(np.log(q / table.sum(axis=1 - a))).max() for a, q in enumerate(targets))
    bound = 0
    for j in range(2, steps + 1):
        g = influence_function(table, h, steps - j + 1, (first + j - 1) % 2)
        bound += np.expm1(2 * spread) * np.expm1((2 * j - 3) * spread) * np.sum(table * np.abs(g))
    return abs(gap) / bound


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
        if steps > 1:
            assert share_of_bound(LAW, LAW_H, at(t), steps, first) <= 1
        else:
            assert population_bias(LAW, LAW_H, at(t), 1, first) == pytest.approx(t * slope, abs=1e-12)


@pytest.mark.statement("6.3")
def test_bound_on_the_bias_is_nearly_attained():
    off, t = 1e-4, 0.005
    table = np.array([[0.5 - off, off], [off, 0.5 - off]])
    targets = (np.array([0.5 + t, 0.5 - t]), np.array([0.5 - t, 0.5 + t]))
    shares = [share_of_bound(table, np.array([[0, 1], [0, 0]]), targets, steps, 0) for steps in range(2, 9)]
    assert max(shares) <= 1
    np.testing.assert_allclose(shares[:3], [0.985, 0.738, 0.655], atol=0.01)


@pytest.mark.statement("6.3")
def test_bound_on_the_bias_where_the_residual_is_zero():
    table = np.array([[0.2, 0.1], [0.2, 0.3], [0.1, 0.1]])
    h = np.repeat(np.cross(*table.T)[:, None], 2, axis=1)  # a function of x with conditional means 0 given y
    np.testing.assert_allclose(influence_function(table, h, 2), 0, atol=1e-15)
    targets = (np.array([0.4, 0.3, 0.3]), table.sum(axis=0))
    assert 0.004 < share_of_bound(table, h, targets, 2, 0) < 0.005


@pytest.mark.statement("6.3")
def test_bias_by_hand():
    law, h, tiny = [[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], 1e-3
    for move, one, two in (((tiny, 0), -2.125, -1.49621), ((0, tiny), 0, -1.257576)):
        targets = ([0.4 + move[0], 0.6 - move[0]], [0.45 + move[1], 0.55 - move[1]])
        assert first_order_bias(law, h, targets, 1) / tiny == pytest.approx(one, abs=1e-9)
        assert first_order_bias(law, h, targets, 2) / tiny == pytest.approx(two, abs=1e-5)


def step_by_step(start, targets, steps, first=0):
    """Tables after 1, ..., steps half-steps, by a loop of its own."""
    for j in range(steps):
        axis = (first + j) % 2
        start = start * np.expand_dims(targets[axis] / start.sum(axis=1 - axis), 1 - axis)
        yield start


def on_a_line(table, t, rng):
    """A table and targets whose relative errors are t times fixed ones of mass 0."""
    for masses in (table, table.sum(axis=1), table.sum(axis=0)):
        u = rng.uniform(-1, 1, masses.shape)
        yield masses * (1 + t * (u - np.sum(masses * u)))


@pytest.mark.statement("6.4")
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("kind", ["dependent", "blocks", "zero"])
def test_one_expansion_for_every_number_of_half_steps(kind, first):
    tables = {
        "dependent": np.array([[0.46, 0.04], [0.06, 0.44]]),
        "blocks": np.array([[0.2, 0.1, 0], [0.1, 0.25, 0], [0, 0, 0.35]]),
        "zero": np.array([[0.3, 0.1, 0], [0.05, 0.2, 0.35]]),
    }
    law, steps, path = tables[kind], 50, {}
    h = np.random.default_rng(1).normal(size=law.shape)
    for t in (0.04, -0.04, 0.02, -0.02):
        start, *targets = on_a_line(law, t, np.random.default_rng(2))
        path[t] = np.array([np.sum((table - law) * h) for table in step_by_step(start, targets, steps, first)])
        assert path[t][-1] == pytest.approx(
            np.sum((data_balance(start, targets, steps=steps, first=first).table - law) * h), abs=1e-12
        )
        for k in range(1, steps + 1):
            psi = influence_function(law, h, k, first)
            path[t][k - 1] -= np.sum((start - law) * psi) + first_order_bias(law, h, targets, k, first)
    sums = [np.abs(path[t] + path[-t]) for t in (0.04, 0.02)]
    odd = [np.abs(path[t] - path[-t]).max() for t in (0.04, 0.02)]
    assert sums[0].max() / sums[1].max() == pytest.approx(4, rel=0.05)  # of order 2, for all k at once
    assert odd[0] / odd[1] == pytest.approx(8, rel=0.1)
    assert sums[0][25:].max() <= 1.1 * sums[0][:25].max()
    assert sums[1].max() / 0.02**2 > 0.05


@pytest.mark.statement("6.4")
def test_limits_along_odd_and_even_half_steps():
    law, cut = np.zeros((5, 4)), ((slice(0, 2), slice(0, 2)), (slice(2, 5), slice(2, 4)))
    law[cut[0]] = [[0.1, 0.15], [0.2, 0.05]]
    law[cut[1]] = [[0.1, 0.05], [0.05, 0.1], [0.05, 0.15]]
    h = np.random.default_rng(3).normal(size=law.shape)
    start, *targets = on_a_line(law, 0.15, np.random.default_rng(4))
    masses = [[q[part[axis]].sum() for part in cut] for axis, q in enumerate(targets)]
    means, true_means = [], []
    for part in cut:
        within = [targets[axis][part[axis]] / masses[axis][cut.index(part)] for axis in (0, 1)]
        *_, last = step_by_step(start[part] / start[part].sum(), within, 400)
        means.append(np.sum(last * h[part]))
        true_means.append(np.sum(law[part] * h[part]) / law[part].sum())
    tables = list(step_by_step(start, targets, 400))
    limits = [np.dot(masses[axis], means) for axis in (0, 1)]
    assert [np.sum(tables[k] * h) for k in (398, 399)] == pytest.approx(limits, abs=1e-12)
    assert abs(limits[0] - limits[1]) > 0.01
    biases = [first_order_bias(law, h, targets, k) for k in (399, 400)]
    assert biases[1] - biases[0] == pytest.approx(np.dot(np.subtract(masses[1], masses[0]), true_means), abs=1e-12)
    for part, of_x, of_y in zip(cut, *masses, strict=True):
        targets[1][part[1]] *= of_x / of_y
    tables = list(step_by_step(start, targets, 400))
    assert np.sum(tables[398] * h) == pytest.approx(np.sum(tables[399] * h), abs=1e-12)


@pytest.mark.statement("6.4")
@pytest.mark.parametrize("s", [0.5, 0.8])
def test_rate_of_the_estimates_near_the_truth(s):
    law, h = dependent_table(2, s), np.array([[1.0, 0.2], [-0.5, 2.0]])
    start, *targets = on_a_line(law, 0.002, np.random.default_rng(6))
    path = np.array([np.sum((table - law) * h) for table in step_by_step(start, targets, 14)])
    changes = np.abs(path[2:] - path[:-2])
    np.testing.assert_allclose(changes[2:] / changes[:-2], s**2, rtol=0.03)


@pytest.mark.statement("6.5")
@pytest.mark.parametrize("first", [0, 1])
def test_remainder_is_free_of_the_number_of_half_steps(first):
    law, h, steps = np.array([[0.3, 0.15], [0.2, 0.35]]), np.array([[1, -1], [0.4, 2.0]]), 50
    right, truth = (law.sum(axis=1), law.sum(axis=0)), np.sum(law * h)
    moves = np.array([0.45, -0.45]), np.array([-0.2, 0.2])
    lengths = np.array([30, 40, 60, 80])

    def mse(n, t):
        targets = [q + t * move for q, move in zip(right, moves, strict=True)]
        blocks = (
            w @ (balanced_means(counts, h, targets, steps=steps, first=first).values - truth) ** 2
            for counts, w in count_tables(n, law)
        )
        return sum(blocks)

    sigma = np.array([variance(law, influence_function(law, h, k, first)) for k in range(steps + 1)])
    parts = [attribute_error(law, h, k, first) for k in range(steps + 1)]
    biases = np.array([moves[0] @ part.row + moves[1] @ part.column for part in parts])
    ends = np.array([[mse(n, sign / n**0.5) for sign in (1, -1)] for n in lengths])
    exact, odd = lengths[:, None] * ends.mean(axis=1), lengths[:, None] ** 1.5 * (ends[:, 0] - ends[:, 1])
    second = [np.abs(n * (values - sigma - biases**2)).max() for n, values in zip(lengths, exact, strict=True)]
    assert np.max(biases**2 / sigma) > 0.2
    limits = np.linalg.solve(np.vander(1 / lengths, increasing=True), exact)[0]  # of a cubic in 1/n, for every k
    np.testing.assert_allclose(limits, sigma + biases**2, rtol=0.008)
    # n times the MSE minus the formula falls like 1/n, as a maximum over k; the third order like n^(-1/2)
    assert 0.7 * second[0] < second[3] < second[0]
    third = np.abs(odd).max(axis=1)
    assert 0.85 * third[0] < third[3] < third[0]
    right_targets = [np.abs(n * (n * mse(n, 0) - sigma)).max() for n in lengths]
    assert 0.5 * right_targets[0] < right_targets[3] < right_targets[0]
    tiny = [n * np.abs(mse(n, 1e-5) - mse(n, -1e-5)).max() / 2e-5 for n in lengths[::2]]  # per eps/n
    assert 0.6 < tiny[1] / tiny[0] < 1.2
    cubes = []
    for t in (0.01, 0.005):
        errors = [
            np.array(
                [np.sum((table - law) * h) for table in step_by_step(law, at(sign * t, moves, right), steps, first)]
            )
            for sign in (1, -1)
        ]
        cubes.append(np.abs(errors[0] ** 2 - errors[1] ** 2).max())
    assert cubes[0] / cubes[1] == pytest.approx(8, rel=0.05)


@pytest.mark.statement("6.5")
@pytest.mark.parametrize("first", [0, 1])
def test_mean_squared_error_against_enumeration(first):
    law, h, move = np.array([[0.3, 0.1], [0.15, 0.45]]), np.array([[1, -2], [0.5, 3]]), np.array([0.3, -0.3])
    right = law.sum(axis=1), law.sum(axis=0)
    values, odd = [], []
    for n in (30, 60, 120):
        ends = []
        for sign in (1, -1):
            targets = [q + sign * c * move / n**0.5 for q, c in zip(right, (0.8, 0.9), strict=True)]
            squares = [
                w @ (balanced_means(counts, h, targets, steps=3, first=first).values - np.sum(law * h)) ** 2
                for counts, w in count_tables(n, law)
            ]
            ends.append(n * sum(squares))
        values.append((ends[0] + ends[1]) / 2)
        odd.append(ends[0] - ends[1])
    limits = to_infinity(values)
    for steps in range(4):
        residual, row, column = attribute_error(law, h, steps, first)
        bias = 0.8 * move @ row + 0.9 * move @ column
        formula = np.sum(law * residual**2) - np.sum(law * residual) ** 2 + bias**2
        assert limits[steps] == pytest.approx(formula, rel=1.5e-3)
        targets = [q + c * move / 100 for q, c in zip(right, (0.8, 0.9), strict=True)]
        assert predicted_mse(law, h, 10_000, targets, steps, first) == pytest.approx(formula / 10_000, rel=1e-12)
        if steps:
            assert bias**2 > 0.05 * formula
            # the remainder is of the third order, not of the fourth
            assert 0.35 < odd[2][steps] / odd[0][steps] < 0.65


@pytest.mark.statement("6.5")
def test_mean_squared_error_by_simulation_with_first_axis_one():
    n, draws, rng, squares = 2000, 20_000, np.random.default_rng(4), []
    for sign in (1, -1):
        counts = rng.multinomial(n, LAW.ravel(), draws).reshape(-1, *LAW.shape)
        means = balanced_means(counts, LAW_H, at(0.06 * sign), steps=3, first=1).values[:, 3]
        squares.append((means - np.sum(LAW * LAW_H)) ** 2)
    predicted, error = predicted_mse(LAW, LAW_H, n, at(0.06), 3, first=1), np.std(squares) / (2 * draws) ** 0.5
    assert first_order_bias(LAW, LAW_H, at(0.06), 3, first=1) ** 2 > 0.3 * predicted
    assert np.mean(squares) == pytest.approx(predicted, abs=4 * error + 0.03 * predicted)


@pytest.mark.statement("6.6")
def test_break_even():
    targets = at(0.1)
    for steps, first in ((1, 0), (3, 1)):
        n = break_even(LAW, LAW_H, targets, steps, first)
        mse = predicted_mse(LAW, LAW_H, 10**9, targets, steps, first) - predicted_mse(
            LAW, LAW_H, 10**9, RIGHT, steps, first
        )
        assert n == pytest.approx((variance(LAW, LAW_H) - balanced_variance(LAW, LAW_H, steps, first)) / mse)
        plain, scaled = variance(LAW, LAW_H), at(0.1 * (n / 300) ** 0.5)
        assert break_even(LAW, LAW_H, scaled, steps, first) == pytest.approx(300)
        lost = [predicted_mse(LAW, LAW_H, size, scaled, steps, first) - plain / size for size in (299, 301)]
        assert lost[0] < 0 < lost[1]
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
        chi2 = sum(np.sum((q - r) ** 2 / r) for q, r in zip(worst, (px, py), strict=True))
        assert chi2 * break_even(p, h, worst, 200) >= 1 - s - 1e-9
        assert chi2 * break_even(p, a[:, None] - b, worst, 200) == pytest.approx(1 - s)


@pytest.mark.statement("6.7")
@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (2, 4), (4, 3)])
def test_exact_condition_for_no_harm(shape):
    rng = np.random.default_rng(shape)
    for _ in range(4):
        p, h, q = random_case(rng, *shape)
        right = p.sum(axis=1), p.sum(axis=0)
        gaps = [0.01 * (a - b) for a, b in zip(q, right, strict=True)]
        near = [b + gap for b, gap in zip(right, gaps, strict=True)]
        worst, kappa = worst_direction(p, gaps)
        svd = markov_svd(p)
        s, d, e = svd.singular_values[1:], (gaps[0] @ svd.alpha)[1:], (gaps[1] @ svd.beta)[1:]
        formula = np.sum((d**2 + e**2 - 2 * s * d * e) / (1 - s**2))
        formula += sum(np.sum(gap**2 / b) for gap, b in zip(gaps, right, strict=True)) - np.sum(d**2) - np.sum(e**2)
        assert kappa == pytest.approx(formula, rel=1e-8)
        assert break_even(p, worst, near, 400) == pytest.approx(1 / formula, rel=1e-6)
        assert break_even(p, h, near, 400) >= (1 - 1e-9) / formula


@pytest.mark.statement("6.7")
def test_exact_condition_for_a_table_of_blocks():
    p = np.zeros((4, 4))
    p[:2, :2], p[2:, 2:] = [[0.2, 0.1], [0.05, 0.15]], [[0.1, 0.1], [0.2, 0.1]]
    gaps = [np.array([0.03, -0.01, 0.01, -0.03]), np.array([0.01, 0.01, -0.04, 0.02])]
    right, svd = (p.sum(axis=1), p.sum(axis=0)), markov_svd(p)
    near, (worst, kappa) = [b + gap for b, gap in zip(right, gaps, strict=True)], worst_direction(p, gaps)
    s, d, e = svd.singular_values[1:], (gaps[0] @ svd.alpha)[1:], (gaps[1] @ svd.beta)[1:]
    assert s[0] == pytest.approx(1) and d[0] == pytest.approx(e[0]) and abs(d[0]) > 0.01
    formula = d[0] ** 2 + np.sum((d**2 + e**2 - 2 * s * d * e)[1:] / (1 - s[1:] ** 2))
    assert kappa == pytest.approx(formula, rel=1e-8)
    assert break_even(p, worst, near, 400) == pytest.approx(1 / formula, rel=1e-6)


@pytest.mark.statement("6.8")
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
    free, tied, h = np.outer([0.3, 0.7], [0.2, 0.8]), np.diag([0.4, 0.6]), LAW_H[:, :2]
    for table, variance_of in ((free, limit_variance(free, h)), (tied, variance(tied, h))):
        assert importance_mse(table, h, 1, (table.sum(axis=1), table.sum(axis=0))) == pytest.approx(variance_of)


@pytest.mark.statement("6.8")
def test_importance_weighting_against_enumeration():
    law, h = np.array([[0.3, 0.1], [0.15, 0.45]]), np.array([[1, -2], [0.5, 3]])
    right, truth, values = (law.sum(axis=1), law.sum(axis=0)), np.sum(law * h), []
    for n in (30, 60, 120):
        total = 0
        for sign in (1, -1):
            targets = [q + sign * np.array([c, -c]) / n**0.5 for q, c in zip(right, (0.3, 0.2), strict=True)]
            for counts, w in count_tables(n, law):
                tables = counts / n
                seen = (counts.sum(axis=1) > 0).all(axis=1) & (counts.sum(axis=2) > 0).all(axis=1)
                tables[seen] = importance_weighted(tables[seen], targets)
                total += n / 2 * (w @ (np.sum(tables * h, axis=(1, 2)) - truth) ** 2)
        values.append(total)
    means = [conditional_mean(law, h, axis) for axis in (0, 1)]
    bias = np.array([0.3, -0.3]) @ means[0] + np.array([0.2, -0.2]) @ means[1]
    formula = variance(law, h - means[0][:, None] - means[1]) + bias**2
    assert to_infinity(values) == pytest.approx(formula, rel=1.5e-3)


@pytest.mark.statement("6.8")
@settings(deadline=None, max_examples=30)
@given(seeds, st.sampled_from([(3, 4), (4, 3), (3, 3)]))
def test_importance_weighting_in_the_singular_basis(seed, shape):
    p, h, _ = random_case(np.random.default_rng(seed), *shape)
    right = p.sum(axis=1), p.sum(axis=0)
    svd = markov_svd(p)
    (u, v), s = svd.coefficients(h), svd.singular_values
    outside = variance(right[1], (p * h).sum(axis=0) / right[1]) - np.sum(v[1:] ** 2)
    outside += variance(right[0], (p * h).sum(axis=1) / right[0]) - np.sum(u[1:] ** 2)
    assert (shape == (3, 3)) == (abs(outside) < 1e-9)
    expected = variance(p, h) - np.sum((u**2 + v**2 - 2 * s * u * v)[1:]) - outside
    assert importance_mse(p, h, 1, right) == pytest.approx(expected, abs=1e-9)
    x, y = (conditional_mean(p, h, axis) for axis in (0, 1))
    saved = variance(p, x[:, None] - y)
    assert variance(p, h) - importance_mse(p, h, 1, right) == pytest.approx(saved, rel=1e-9, abs=1e-12)


@pytest.mark.statement("6.9")
def test_expected_mass_of_importance_weighting():
    excess, law = [], np.array([[0.35, 0.15], [0.1, 0.4]])
    for n in (30, 60, 120):
        counts, w = (np.concatenate(parts) for parts in zip(*count_tables(n, law), strict=True))
        seen = (counts.sum(axis=1) > 0).all(axis=1) & (counts.sum(axis=2) > 0).all(axis=1)
        masses = importance_weighted(counts[seen], (law.sum(axis=1), law.sum(axis=0))).sum(axis=(1, 2))
        excess.append(n * (w[seen] @ (masses - 1)))
    limit = markov_svd(law).singular_values[1] ** 2
    assert to_infinity(excess) == pytest.approx(limit, rel=1e-3)
    law = dependent_table(3, 0.6) + np.array([[0.03, -0.03, 0], [0, 0, 0], [-0.03, 0.03, 0]])
    counts = np.random.default_rng(7).multinomial(500, law.ravel(), 40_000).reshape(-1, 3, 3)
    masses = 500 * (importance_weighted(counts, (law.sum(axis=1), law.sum(axis=0))).sum(axis=(1, 2)) - 1)
    rho = [q / (counts[0] / 500).sum(axis=1 - a) - 1 for a, q in enumerate((law.sum(axis=1), law.sum(axis=0)))]
    assert masses[0] == pytest.approx(np.sum(counts[0] * np.outer(*rho)), abs=1e-9)
    limit = np.sum(markov_svd(law).singular_values[1:] ** 2)
    assert masses.mean() == pytest.approx(limit, abs=4 * masses.std() / 200 + 0.005)


@pytest.mark.statement("6.10")
@pytest.mark.parametrize(("steps", "first"), [(1, 0), (2, 1), (3, 0), (6, 1)])
def test_unpaired_targets_by_numerical_derivatives(steps, first):
    n, auxiliary = 100, 250
    theory = unpaired_mse(LAW, LAW_H, n, auxiliary, steps, first)
    kept = n / (n + auxiliary)
    psi, row, column = attribute_error(LAW, LAW_H, steps, first)
    noise = variance(RIGHT[0], row) + variance(RIGHT[1], column)
    pooled = variance(LAW, (1 - kept) * psi + kept * LAW_H) + kept * (1 - kept) * noise
    formulas = variance(LAW, LAW_H), variance(LAW, psi) + n / auxiliary * noise, pooled
    for share, value, formula in zip((1, 0, kept), theory[:3], formulas, strict=True):
        rule = balanced_to(share, 0 if share == 1 else steps, first)
        exact = numerical_mse(rule, LAW, LAW_H, n, auxiliary)
        assert exact == pytest.approx(formula / n, rel=1e-6)
        assert value == pytest.approx(exact, rel=1e-6)


@pytest.mark.statement("6.10")
@pytest.mark.parametrize("kind", ["dependent", "blocks"])
@pytest.mark.parametrize("kept", [0, 0.4])
def test_error_beyond_first_order_is_free_of_the_number_of_half_steps(kind, kept):
    law = {
        "dependent": np.array([[0.3, 0.03, 0.02], [0.02, 0.25, 0.05], [0.03, 0.05, 0.25]]),
        "blocks": np.array([[0.2, 0.1, 0], [0.1, 0.25, 0], [0, 0, 0.35]]),
    }[kind]
    right, steps, rng = (law.sum(axis=1), law.sum(axis=0)), 50, np.random.default_rng(12)
    h, sizes = rng.normal(size=(3, 3)), []
    ratio = kept / (1 - kept) if kept else 2  # n / N
    parts = [attribute_error(law, h, k) for k in range(1, steps + 1)]
    for n in (600, 2400, 9600):
        pairs = rng.multinomial(n, law.ravel(), 1500).reshape(-1, 3, 3) / n
        size = round(n / ratio)
        margins = [rng.multinomial(size, m, 1500) / size for m in right]
        targets = [kept * pairs.sum(axis=2 - a) + (1 - kept) * margins[a] for a in (0, 1)]
        table, beyond, values = pairs, [], []
        for k, (psi, row, column) in enumerate(parts):
            axis = k % 2
            table = table * np.expand_dims(targets[axis] / table.sum(axis=2 - axis), 2 - axis)
            values.append(np.sum((table - law) * h, axis=(1, 2)))
            linear = (targets[0] - right[0]) @ row + (targets[1] - right[1]) @ column
            beyond.append(values[-1] - np.sum((pairs - law) * psi, axis=(1, 2)) - linear)
        beyond, values = np.array(beyond), np.array(values)
        largest = np.abs(beyond).max(axis=0)
        sizes.append(n * np.mean(largest**2) ** 0.5)
        assert np.mean(largest**2) < 1.05 * np.mean(np.abs(beyond[:25]).max(axis=0) ** 2)
        # n (E e^2 - E L^2), the noise of L itself taken out
        remainders = n * np.mean(values**2 - (values - beyond) ** 2, axis=1)
        assert np.abs(remainders).max() < 20 / n + 0.02
    assert max(sizes) < 1.3 * min(sizes)
    one, other = (unpaired_mse(law, h, 100, round(100 / ratio), k)[2 if kept else 1] for k in (200, 201))
    assert one == pytest.approx(other, rel=1e-9)
    apart = 9600**0.5 * np.abs(values[-1] - values[-2]).mean()
    assert apart > 0.05 if kind == "blocks" else apart < 0.01


@pytest.mark.statement("6.10")
@pytest.mark.parametrize("pooled", [False, True])
def test_remainder_with_unpaired_targets_by_enumeration(pooled):
    law, h, steps, rest = np.array([[0.35, 0.2], [0.15, 0.3]]), np.array([[1.0, 0.3], [-0.5, 0.6]]), 10, []
    for n in (7, 14):
        size = 2 * n
        counts, w = (np.concatenate(part) for part in zip(*count_tables(n, law), strict=True))
        pairs, kept = counts / n, (1 / 3 if pooled else 0)
        errors = np.sum((pairs - law) * h, axis=(1, 2))
        usable = np.all(pairs.sum(axis=1) > 0, axis=1) & np.all(pairs.sum(axis=2) > 0, axis=1)
        mse = np.zeros(steps)
        for x in range(size + 1):
            for y in range(size + 1):
                chance = binom.pmf(x, size, 0.55) * binom.pmf(y, size, 0.5)
                if {x, y} & {0, size}:
                    mse += chance * (w @ errors**2)
                    continue
                table, after = pairs[usable], errors.copy()
                ends = [np.array([z, size - z]) / size for z in (x, y)]
                targets = [kept * table.sum(axis=2 - a) + (1 - kept) * end for a, end in enumerate(ends)]
                for k in range(steps):
                    ratio = targets[k % 2] / table.sum(axis=2 - k % 2)
                    table = table * (ratio[:, None, :] if k % 2 else ratio[:, :, None])
                    after[usable] = np.sum((table - law) * h, axis=(1, 2))
                    mse[k] += chance * (w @ after**2)
        formula = np.array([unpaired_mse(law, h, n, size, k)[2 if pooled else 1] for k in range(1, steps + 1)])
        rest.append(n**2 * (mse - formula))
    assert 0.7 < rest[1][0] / rest[0][0] < 1.05
    assert 0.3 < np.abs(rest[1]).max() / np.abs(rest[0]).max() < 1


@pytest.mark.statement("6.10")
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


def turning_point(p, f, steps):
    """Unpaired observations per pair from which auxiliary targets of two surveys pay, from the definitions."""
    psi, row, column = attribute_error(p, f, steps)
    noise = variance(p.sum(axis=1), row) + variance(p.sum(axis=0), column)
    return noise / (variance(p, f) - variance(p, psi))


@pytest.mark.statement("6.11")
def test_auxiliary_targets_for_a_table_of_blocks():
    p = np.kron(np.diag([0.3, 0.7]), [[0.4, 0.1], [0.1, 0.4]])
    svd, rng = markov_svd(p), np.random.default_rng(3)
    np.testing.assert_allclose(svd.singular_values, [1, 1, 0.6, 0.6])
    assert turning_point(p, svd.alpha[:, [1]] + svd.beta[:, 1], 200) == pytest.approx(1)
    assert turning_point(p, svd.alpha[:, [2]] - svd.beta[:, 2], 200) == pytest.approx(2.5)
    assert turning_point(p, svd.alpha[:, [2]] + svd.beta[:, 2], 200) == pytest.approx(1 / 1.6)
    for h in rng.normal(size=(20, 4, 4)):
        assert 1 / 1.6 < turning_point(p, h, 200) < 2.5


@pytest.mark.statement("6.11")
def test_auxiliary_targets_against_not_balancing():
    rng = np.random.default_rng(9)
    for _ in range(6):
        p, h, _ = random_case(rng, 3, 4)
        for steps in (1, 2):
            mse = unpaired_mse(p, h, 70, 70, steps)
            assert mse.auxiliary == pytest.approx(mse.plain)
        svd = markov_svd(p)
        s, a, b = svd.singular_values[1], svd.alpha[:, [1]], svd.beta[:, 1]
        assert abs(turning_point(p, h, 3) - 1) > 1e-4
        assert (1 - 1e-9) / (1 + s) <= turning_point(p, h, 200) <= (1 + 1e-9) / (1 - s)
        for f, auxiliary in ((a + b, 1 / (1 + s)), (a - b, 1 / (1 - s))):
            assert turning_point(p, f, 200) == pytest.approx(auxiliary, rel=1e-6)
            sizes = (int(10_000 * auxiliary * c) for c in (0.99, 1.01))
            worse, better = (unpaired_mse(p, f, 10_000, size, 200) for size in sizes)
            assert worse.auxiliary > worse.plain and better.auxiliary < better.plain


def excess_over_plain(law, h, n, size, kept, steps, rng, draws=4000):
    """n (e_k^2 - e_0^2) / Var h of balancing to targets with the share `kept` of the pairs, for k = 1, ..., steps."""
    table = rng.multinomial(n, law.ravel(), draws).reshape(-1, *law.shape) / n
    plain, excess = np.sum((table - law) * h, axis=(1, 2)), []
    right = law.sum(axis=1), law.sum(axis=0)
    targets = [
        kept * table.sum(axis=2 - a) + (1 - kept) * rng.multinomial(size, m, draws) / size for a, m in enumerate(right)
    ]
    for k in range(steps):
        table = table * np.expand_dims(targets[k % 2] / table.sum(axis=2 - k % 2), 2 - k % 2)
        excess.append(n * (np.sum((table - law) * h, axis=(1, 2)) ** 2 - plain**2) / variance(law, h))
    return np.mean(excess, axis=1), 4 * np.std(excess, axis=1) / draws**0.5


@pytest.mark.statement("6.11")
def test_order_of_the_errors_at_finite_n_for_every_number_of_half_steps():
    law, h, rng = LAW, LAW_H + np.array([[1.5], [-1.5]]), np.random.default_rng(20)
    turns = [turning_point(law, h, k) for k in range(1, 41)]
    for factor in (0.6, 1.7):
        size = round(2000 * factor * (min(turns) if factor < 1 else max(turns)))
        mean, error = excess_over_plain(law, h, 2000, size, 0, 40, rng)
        sign = 1 if factor < 1 else -1
        assert np.all(sign * mean > error)


@pytest.mark.statement("6.12")
@pytest.mark.parametrize("s", [0.3, 0.95])
def test_pooling_at_finite_n_for_every_large_number_of_half_steps(s):
    f, rng, threshold = np.array([1.0, -1.0]), np.random.default_rng(21), 1500 / 2500  # n = 1000, N = 500
    law = np.array([[1 + s, 1 - s], [1 - s, 1 + s]]) / 4
    mean, error = excess_over_plain(law, f[:, None] - f, 1000, 500, 2 / 3, 60, rng)
    sign = 1 if s > threshold else -1
    assert np.all((sign * mean > error)[30:])


@pytest.mark.statement("6.12")
@pytest.mark.parametrize("auxiliary", [30, 300])
def test_pooling_is_safe_up_to_the_threshold(auxiliary):
    n, rng = 100, np.random.default_rng(10)
    threshold = (n + auxiliary) / (2 * n + auxiliary)
    for s, sign in ((threshold - 1e-3, -1), (threshold, 0), (threshold + 1e-3, 1)):
        p = dependent_table(4, s)
        svd = markov_svd(p)
        worst = unpaired_mse(p, svd.alpha[:, [1]] - svd.beta[:, 1], n, auxiliary, 400)
        ratio = worst.pooled / worst.plain - 1
        assert abs(ratio) < 1e-9 if sign == 0 else sign * ratio > 1e-4
        if sign <= 0:
            for _ in range(10):
                mse = unpaired_mse(p, rng.normal(size=(4, 4)), n, auxiliary, 200)
                assert mse.pooled <= mse.plain


@pytest.mark.statement("6.12")
def test_pooling_is_safe_for_tables_of_blocks():
    rng = np.random.default_rng(2)
    diagonal, blocks = np.diag([0.3, 0.7]), np.kron(np.diag([0.3, 0.7]), [[0.35, 0.15], [0.15, 0.35]])
    for p in (diagonal, blocks):
        for _ in range(10):
            mse = unpaired_mse(p, rng.normal(size=p.shape), 100, 10, 200)
            assert mse.pooled < mse.plain
    mse = unpaired_mse(diagonal, np.array([[1, 0], [0, 3]]), 100, 100, 200)
    assert mse.pooled == pytest.approx(mse.plain / 2)


@pytest.mark.statement("6.13")
@pytest.mark.parametrize(("steps", "first"), [(1, 0), (2, 1), (3, 0), (6, 1)])
@pytest.mark.parametrize("auxiliary", [40, 250])
def test_margins_of_one_survey(steps, first, auxiliary):
    n = 100
    kept, psi = n / (n + auxiliary), attribute_error(LAW, LAW_H, steps, first).residual
    pooled = kept * variance(LAW, LAW_H) + (1 - kept) * variance(LAW, psi)
    formulas = variance(LAW, LAW_H), variance(LAW, psi) + n / auxiliary * variance(LAW, LAW_H - psi), pooled
    theory = unpaired_mse(LAW, LAW_H, n, auxiliary, steps, first, one_survey=True)
    for share, value, formula in zip((1, 0, kept), theory[:3], formulas, strict=True):
        rule = balanced_to(share, 0 if share == 1 else steps, first)
        exact = numerical_mse(rule, LAW, LAW_H, n, auxiliary, one_survey=True)
        assert exact == pytest.approx(formula / n, rel=1e-6)
        assert value == pytest.approx(exact, rel=1e-6)
    gain = variance(LAW, LAW_H) - variance(LAW, psi)
    saved = n * (theory.plain - theory.pooled)
    assert saved == pytest.approx(auxiliary / (n + auxiliary) * gain)


@pytest.mark.statement("6.13")
def test_when_the_margins_of_one_survey_pay():
    rng = np.random.default_rng(10)

    def turning_point(p, f, steps):
        psi = attribute_error(p, f, steps).residual
        return variance(p, f - psi) / (variance(p, f) - variance(p, psi))

    for _ in range(4):
        p, h, _ = random_case(rng, 3, 4)
        svd = markov_svd(p)
        a, b, s = svd.alpha[:, [1]], svd.beta[:, 1], svd.singular_values[1]
        assert turning_point(p, h, 1) == pytest.approx(1)
        assert turning_point(p, h, 400) == pytest.approx(1)
        assert 1 - s < turning_point(p, h, 2) < 1 + s
        assert turning_point(p, a + (1 - s - s**2) * b, 2) == pytest.approx(1 + s)
        assert turning_point(p, a - (1 + s - s**2) * b, 2) == pytest.approx(1 - s)
        for steps in (1, 2, 3):
            turn = turning_point(p, h, steps)
            worse, better = (
                unpaired_mse(p, h, 10_000, int(10_000 * turn * c), steps, one_survey=True) for c in (0.99, 1.01)
            )
            assert worse.auxiliary > worse.plain and better.auxiliary < better.plain
        mse = unpaired_mse(p, h, 100, 60, 400, one_survey=True)

        def objective(z, p=p, h=h):
            taken = z[:3, None] + z[3:]
            return variance(p, h - taken) + 100 / 60 * variance(p, taken)

        best = minimize(objective, np.zeros(7)).fun / 100
        assert mse.pooled == pytest.approx(best, rel=1e-6)
        assert mse.ridge == pytest.approx(best, rel=1e-6)


@pytest.mark.statement("6.13")
def test_margins_of_one_survey_by_simulation():
    n, auxiliary, draws, rng = 1000, 1500, 20_000, np.random.default_rng(4)
    pairs, survey = (rng.multinomial(size, LAW.ravel(), draws).reshape(-1, *LAW.shape) for size in (n, auxiliary))
    margins = survey.sum(axis=2), survey.sum(axis=1)
    theory = unpaired_mse(LAW, LAW_H, n, auxiliary, 3, one_survey=True)
    for targets, value in ((margins, theory.auxiliary), (pooled_targets(pairs, margins, auxiliary), theory.pooled)):
        squares = (np.sum(soft_balance(pairs, targets, 1, steps=3) * LAW_H, axis=(1, 2)) - np.sum(LAW * LAW_H)) ** 2
        assert squares.mean() == pytest.approx(value, abs=4 * squares.std() / draws**0.5 + 0.01 * value)


def people_needed(p, f, k):
    """Var phi, the gain Var h - Var psi_k and psi_k, by centering in turn."""
    psi = f - np.sum(p * f)
    for j in range(k, 0, -1):
        psi = psi - np.expand_dims(conditional_mean(p, psi, (j - 1) % 2), j % 2)
    return np.sum(p * (f - psi) ** 2) - np.sum(p * (f - psi)) ** 2, variance(p, f) - variance(p, psi), psi


@pytest.mark.statement("6.14")
@pytest.mark.parametrize("s", [0.3, 0.7, 0.95])
@pytest.mark.parametrize("steps", range(2, 9))
def test_range_of_the_survey_that_pays(s, steps):
    p, power = np.array([[1 + s, 1 - s], [1 - s, 1 + s]]) / 4, s ** (steps - 1)
    a, b = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    ends = (1 - power) / (1 + power), 1
    rules = s * a - b, a + 0 * b
    if steps % 2 == 0:
        ends = (1 - s**steps) / (1 + power), (1 - s**steps) / (1 - power)
        rules = a - (1 + power * (1 - s)) * b, a + (1 - power * (1 + s)) * b
    for rule, end in zip(rules, ends, strict=True):
        taken, gain, _ = people_needed(p, rule, steps)
        assert taken / gain == pytest.approx(end)
        sizes = (int(100_000 * end * c) for c in (0.999, 1.001))
        worse, better = (unpaired_mse(p, rule, 100_000, size, steps, one_survey=True) for size in sizes)
        assert worse.auxiliary > worse.plain and better.auxiliary < better.plain
    angles = np.linspace(0, np.pi, 721)
    found = [people_needed(p, np.cos(t) * a + np.sin(t) * b, steps) for t in angles]
    ratios = np.array([taken / gain for taken, gain, _ in found])
    assert ends[0] * (1 - 1e-9) <= ratios.min() < ends[0] * 1.01 + 1e-3
    assert ends[1] * 0.99 < ratios.max() <= ends[1] * (1 + 1e-9)
    signs = [
        np.sum(p * psi * (np.cos(t) * a + np.sin(t) * b - psi)) for t, (*_, psi) in zip(angles, found, strict=True)
    ]
    assert min(signs) > -1e-12 if steps % 2 else min(signs) < -1e-5 < 1e-5 < max(signs)
    if steps % 2 == 0:
        assert ratios.max() < steps / (steps - 1)
        nearly = 1 - 1e-6
        assert (1 - nearly**steps) / (1 - nearly ** (steps - 1)) > 0.999 * steps / (steps - 1)


@pytest.mark.statement("6.14")
def test_range_of_the_survey_that_pays_for_larger_tables():
    rng = np.random.default_rng(8)
    blocks = np.zeros((3, 3))
    blocks[:2, :2], blocks[2, 2] = [[0.3, 0.1], [0.05, 0.25]], 0.3
    for p in (rng.dirichlet(np.ones(12)).reshape(4, 3), blocks, np.outer([0.4, 0.6], [0.1, 0.3, 0.6])):
        below = markov_svd(p).singular_values
        s = below[below < 1 - 1e-9].max(initial=0)
        for steps in (1, 2, 3, 4, 5):
            power = s ** (steps - 1)
            low, high = (1 - power) / (1 + power), 1
            if steps % 2 == 0:
                low, high = (1 - s**steps) / (1 + power), (1 - s**steps) / (1 - power)
            for f in rng.normal(size=(30, *p.shape)):
                taken, gain, _ = people_needed(p, f, steps)
                if steps == 1:
                    assert taken == pytest.approx(gain)
                else:
                    assert low * (1 - 1e-9) <= taken / gain <= high * (1 + 1e-9)


@pytest.mark.statement("6.14")
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("auxiliary", [40, 900])
def test_best_share_with_the_margins_of_one_survey(steps, auxiliary):
    n, kept = 100, 100 / (100 + auxiliary)
    p = np.array([[0.4, 0.05, 0.05], [0.05, 0.1, 0.35]])
    h = np.array([[1.0, -0.5, 2.0], [0.25, 3.0, -1.0]])
    taken, gain, psi = people_needed(p, h, steps)
    cov = np.sum(p * psi * (h - psi))
    assert gain == pytest.approx(taken + 2 * cov)
    if steps == 1:
        assert cov == pytest.approx(0, abs=1e-12)
    else:
        assert (cov > 1e-4) if steps % 2 else abs(cov) > 1e-4
    shares = np.array([0, 0.3, 0.9])
    values = [n * numerical_mse(balanced_to(t, steps), p, h, n, auxiliary, one_survey=True) for t in shares]
    formulas = np.sum(p * psi**2) + 2 * shares * cov + shares**2 * taken + (1 - shares) ** 2 * n / auxiliary * taken
    np.testing.assert_allclose(values, formulas, rtol=1e-6)
    square, slope, free = np.polyfit(shares, values, 2)
    best = kept - (1 - kept) * cov / taken
    assert -slope / (2 * square) == pytest.approx(best, abs=1e-4)
    assert best < 1
    least, pooled = free - slope**2 / (4 * square), np.polyval([square, slope, free], kept)
    assert pooled - least == pytest.approx((1 - kept) * cov**2 / taken, abs=1e-7)
    assert n * unpaired_mse(p, h, n, auxiliary, steps, one_survey=True).pooled == pytest.approx(pooled, rel=1e-6)


@pytest.mark.statement("6.14")
@pytest.mark.parametrize("steps", [2, 3])
def test_a_best_share_below_zero(steps):
    p, s = np.array([[1.9, 0.1], [0.1, 1.9]]) / 4, 0.9
    a, b = np.array([[1.0], [-1.0]]), np.array([1.0, -1.0])
    h = s * a - b if steps % 2 else a - (1 + s * (1 - s)) * b  # these attain the lower ends
    taken, _, psi = people_needed(p, h, steps)
    best = 0.01 - 0.99 * np.sum(p * psi * (h - psi)) / taken
    assert best < -1
    values = [numerical_mse(balanced_to(t, steps), p, h, 1, 99, one_survey=True) for t in (0, 0.01, 0.5)]
    assert values[0] < values[1] < values[2]


@pytest.mark.statement("6.15")
def test_pooling_can_lose():
    f = np.array([-0.5, 0, 0.5])
    p, h, n = dependent_table(3, 0.9), f[:, None] - f, 400
    mse = unpaired_mse(p, h, n, n, 300)
    np.testing.assert_allclose(n * np.array(mse), [1 / 30, 1 / 3, 11 / 120, 1 / 33], rtol=1e-9, atol=0)
    np.testing.assert_allclose(np.array(mse[:3]) / mse.plain, [1, 10, 2.75], rtol=1e-9)
    one = unpaired_mse(p, h, n, n, 300, one_survey=True)
    np.testing.assert_allclose(n * np.array(one), [1 / 30, 1 / 30, 1 / 60, 1 / 60], rtol=1e-9, atol=0)
    rng = np.random.default_rng(11)
    pairs = rng.multinomial(n, p.ravel(), 10_000).reshape(-1, 3, 3)
    x, y = (rng.multinomial(n, np.ones(3) / 3, 10_000) for _ in range(2))
    rules = (pairs / n, soft_balance(pairs, (x, y), 1, steps=150))
    rules += (soft_balance(pairs, pooled_targets(pairs, (x, y), n), 1, steps=150),)
    rules += (soft_balance(pairs, (x, y), 0.5, steps=60),)
    for tables, value in zip(rules, mse, strict=True):
        squares = np.sum(tables * h, axis=(1, 2)) ** 2
        assert squares.mean() == pytest.approx(value, abs=4 * squares.std() / 100 + 0.04 * value)


@pytest.mark.statement("6.15")
def test_pooling_can_lose_in_whatever_order_the_limits_are_taken():
    f, limits = np.array([-0.5, 0, 0.5]), (1 / 3, 11 / 120)
    p, h, rng = dependent_table(3, 0.9), f[:, None] - f, np.random.default_rng(6)
    for n, steps in ((2000, 70), (2000, 600), (20_000, 70), (20_000, 200)):
        pairs = rng.multinomial(n, p.ravel(), 4000).reshape(-1, 3, 3)
        x, y = (rng.multinomial(n, np.ones(3) / 3, 4000) for _ in range(2))
        for targets, limit in zip(((x, y), pooled_targets(pairs, (x, y), n)), limits, strict=True):
            squares = n * np.sum(soft_balance(pairs, targets, 1, steps=steps) * h, axis=(1, 2)) ** 2
            assert squares.mean() == pytest.approx(limit, abs=4 * squares.std() / 4000**0.5)
            assert squares.std() / 4000**0.5 < 0.03 * limit


@pytest.mark.statement("6.16")
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
    np.testing.assert_allclose(parts.row, weight * conditional_mean(p, h - parts.column, 0), atol=1e-12)
    np.testing.assert_allclose(parts.column, weight * conditional_mean(p, h - parts.row[:, None], 1), atol=1e-12)
    mse = unpaired_mse(p, h, 100, 40, 3)
    assert mse.ridge < min(mse[:3])


@pytest.mark.statement("6.16")
@pytest.mark.parametrize("shape", [(3, 4), (4, 2)])
def test_best_linear_rule_of_any_shape(shape):
    rng = np.random.default_rng(shape)
    p, h, _ = random_case(rng, *shape)
    n, auxiliary, m = 100, 70, shape[0]
    weight = auxiliary / (n + auxiliary)
    right, f, g = (p.sum(axis=1), p.sum(axis=0)), rng.normal(size=m), rng.normal(size=shape[1])

    def rule(pairs, x, y):  # (6.28), as a table that is summed
        return pairs * (h - f[:, None] - g) + (x * f)[:, None] / shape[1] + y * g / m

    own = variance(right[0], f) + variance(right[1], g)
    exact = n * numerical_mse(rule, p, 1, n, auxiliary)
    assert exact == pytest.approx(variance(p, h - f[:, None] - g) + n / auxiliary * own, rel=1e-6)

    def objective(z):
        own = variance(right[0], z[:m]) + variance(right[1], z[m:])
        return variance(p, h - z[:m, None] - z[m:]) + n / auxiliary * own

    found, parts = minimize(objective, np.zeros(sum(shape)), tol=1e-12), ridge_split(p, h, weight)
    for mine, its, masses in zip(parts[1:], np.split(found.x, [m]), right, strict=True):
        np.testing.assert_allclose(mine - masses @ mine, its - masses @ its, atol=1e-4)
    svd = markov_svd(p)
    (u, v), s = svd.coefficients(h), svd.singular_values
    norms = sum(np.sum(r * conditional_mean(p, h, a) ** 2) for a, r in enumerate(right))
    outside = norms - np.sum(u**2) - np.sum(v**2)
    gain = np.sum((weight * (u**2 + v**2 - 2 * weight * s * u * v) / (1 - weight**2 * s**2))[1:])
    formula = variance(p, h) - gain - weight * outside
    assert outside > 1e-3
    assert found.fun == pytest.approx(formula, rel=1e-7)
    assert n * unpaired_mse(p, h, n, auxiliary, 2).ridge == pytest.approx(formula, rel=1e-9)


@pytest.mark.statement("6.17")
@pytest.mark.parametrize("first", [0, 1])
def test_unbalanced_steps_attain_the_best_linear_rule(first):
    n, auxiliary = 100, 60
    weight = auxiliary / (n + auxiliary)

    def rule(pairs, x, y):
        return soft_balance(pairs, (x, y), weight, steps=80, first=first)

    def objective(z):
        own = variance(RIGHT[0], z[:2]) + variance(RIGHT[1], z[2:])
        return variance(LAW, LAW_H - z[:2, None] - z[2:]) / n + own / auxiliary

    exact = numerical_mse(rule, LAW, LAW_H, n, auxiliary)
    assert exact == pytest.approx(minimize(objective, np.zeros(5)).fun, rel=1e-5)
    assert exact == pytest.approx(unpaired_mse(LAW, LAW_H, n, auxiliary, 1).ridge, rel=1e-6)


@pytest.mark.statement("6.17")
@pytest.mark.parametrize("exponent", [0.3, 0.6, 0.9])
def test_rate_of_unbalanced_steps(exponent):
    p, _, (x, y) = random_case(np.random.default_rng(13), 2, 3)
    v, logs = np.ones(3), []
    for _ in range(400):
        u = (x / (p @ v)) ** exponent
        v = (y / (u @ p)) ** exponent
        logs.append(np.log(np.concatenate([u, v])))
    far = np.abs(np.array(logs) - logs[-1]).max(axis=1)
    far = far[far > 1e-9]
    rates = far[1:] / far[:-1]
    assert rates.max() <= exponent**2 * (1 + 1e-6)
    assert rates[-1] == pytest.approx(exponent**2, rel=1e-3)
    table = u[:, None] * p * v
    np.testing.assert_allclose(soft_balance(p, (x, y), exponent, steps=800), table / table.sum(), atol=1e-12)


@pytest.mark.statement("6.17")
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
    weight, v = auxiliary / (n + auxiliary), np.ones(3)
    for _ in range(200):
        u = (x / (p @ v)) ** weight
        v = (y / (u @ p)) ** weight
    np.testing.assert_allclose(u[:, None] * p * v, best, atol=1e-5)
    assert best.sum() < 0.99  # so the terms with the masses matter
    np.testing.assert_allclose(soft_balance(p, (x, y), weight, steps=400), best / best.sum(), atol=1e-5)


@pytest.mark.statement("6.18")
@settings(deadline=None, max_examples=20)
@given(seeds, st.floats(0.2, 1))
def test_partial_steps_end_at_the_hard_constraint(seed, weight):
    rng = np.random.default_rng(seed)
    start, targets = rng.uniform(0.5, 2, (3, 4)), (rng.uniform(1, 2, 3), rng.uniform(1, 2, 4))
    targets = tuple(q / q.sum() for q in targets)
    hard = data_balance(start, targets, tol=1e-13).table
    running = soft_balance(start, targets, weight, steps=400, accumulate=True)
    np.testing.assert_allclose(running, hard, atol=1e-10)
    table = start
    for j in range(3):
        table = table / table.sum()
        table = table * np.expand_dims((targets[j % 2] / table.sum(axis=1 - j % 2)) ** weight, 1 - j % 2)
    np.testing.assert_allclose(soft_balance(start, targets, weight, steps=3, accumulate=True), table / table.sum())
    if weight < 0.9:
        assert np.abs(soft_balance(start, targets, weight, steps=400) - hard).max() > 1e-5


@pytest.mark.statement("6.18")
def test_partial_steps_on_a_table_with_empty_cells():
    start, goal = np.array([[0.2, 0.1, 0], [0, 0.3, 0.4]]), np.array([[0.1, 0.3, 0], [0, 0.1, 0.5]])
    targets = goal.sum(axis=1), goal.sum(axis=0)
    hard = data_balance(start, targets, steps=4000).table
    np.testing.assert_allclose(hard, goal, atol=1e-12)  # no other table with this support has these margins
    for weight in (0.2, 0.6, 1):
        running = soft_balance(start, targets, weight, steps=2000, accumulate=True)
        np.testing.assert_allclose(running, hard, atol=1e-9)


@pytest.mark.statement("6.19")
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
    square = data_balance(start[:2, :2], ([1, 1], [1, 1]), tol=1e-13).table
    of_square = abs(np.log(start[0, 0] * start[1, 1] / (start[0, 1] * start[1, 0])))
    for table, delta in ((limit, odds), (square, of_square)):
        assert markov_svd(table).singular_values[1] <= np.tanh(delta / 4) + 1e-9
    odds = of_square
    assert markov_svd(square).singular_values[1] == pytest.approx(np.tanh(odds / 4), abs=1e-9)
    # values that are counted twice change neither side
    larger = np.repeat(np.repeat(start[:2, :2], 3, axis=0), 2, axis=1)
    limit = data_balance(larger, (np.full(6, 1 / 6), np.full(4, 1 / 4)), tol=1e-13).table
    assert markov_svd(limit).singular_values[1] == pytest.approx(np.tanh(odds / 4), abs=1e-9)


@pytest.mark.statement("6.20")
def test_misspecified_support():
    p, h, q = dependent_table(3, 0.4), np.arange(9.0).reshape(3, 3) ** 1.5, 0.1
    third = np.ones(3) / 3
    for steps in (1, 2, 3, 6):
        gone = data_balance(p, ([0.4, 0.6, 0], third), steps=steps).table
        assert gone[2].sum() == 0
    assert data_balance(p, ([0.4, 0.6, 0], third), steps=1, first=1).table[2].sum() > 0.3  # no X-step yet
    assert data_balance(gone, ([0.1, 0.9, 0], [0.2, 0.2, 0.6]), steps=5).table[2].sum() == 0
    from_all = np.append((1 - q) * third, q)
    np.testing.assert_allclose(from_all[:3] / from_all[:3].sum(), third)
    for repaired in (data_balance, lambda *a, **k: soft_balance(*a, 0.5, **k)):
        with pytest.raises(ValueError, match="row"):
            repaired(gone, (third, third), steps=2)
    counts = np.zeros((200, 4, 3), dtype=int)
    counts[:, :3] = np.random.default_rng(16).multinomial(90, p.ravel(), 200).reshape(-1, 3, 3)
    means = balanced_means(counts, np.ones((4, 3)).cumsum(axis=0), ([0.3, 0.3, 0.3, 0.1], third), steps=4)
    plain = (counts.sum(axis=2) @ np.arange(1, 5)) / 90
    assert not means.complete.any()
    np.testing.assert_allclose(means.values, np.repeat(plain[:, None], 5, axis=1), rtol=1e-12)
    for x1 in range(3):
        kept = (third - q * (np.arange(3) == x1)) / (1 - q)
        formula = q / (1 - q) * (np.sum(p * h) - np.sum(p[x1] * h[x1]) / p[x1].sum())
        assert population_bias(p, h, (kept, third), 1) == pytest.approx(formula)
        assert first_order_bias(p, h, (kept, third), 1) == pytest.approx(formula)
