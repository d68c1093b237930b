"""The statements of chapter 7, against NumPy, SciPy and finite differences."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax
from scipy.stats import multinomial

from balance import data_balance, kl_divergence, marginal, project
from balance.contrastive import balanced_loss, log_balance
from balance.operators import conditional_mean, markov_svd
from helpers import uniform


def gaussian_scores(m, seed, size=1.5):
    return size * np.random.default_rng(seed).normal(size=(m, m))


def balanced(scores, steps, first=0):
    m = len(scores)
    return data_balance(np.exp(scores), (uniform(m), uniform(m)), steps=steps, first=first).table


def limit(scores):
    m = len(scores)
    return data_balance(np.exp(scores), (uniform(m), uniform(m)), tol=1e-14).table


def half_loss(scores, steps, first=0):
    """The divergence of the table of pairs from the balanced table, by `data_balance`."""
    return kl_divergence(np.eye(len(scores)) / len(scores), balanced(scores, steps, first))


def loss(scores, steps):
    return balanced_loss(torch.tensor(scores), steps=steps).item()


@pytest.mark.statement("7.1")
@pytest.mark.parametrize("m", [2, 5, 9])
def test_losses_are_divergences(m):
    scores = gaussian_scores(m, seed=m)
    for k in range(6):
        halves = half_loss(scores, k), half_loss(scores, k, 1)
        assert min(halves) > 0
        assert loss(scores, k) == pytest.approx((halves[0] + halves[1]) / 2, abs=1e-12)
        for first in (0, 1):
            diagonal = log_balance(torch.tensor(scores), steps=k, first=first).diagonal().numpy()
            assert halves[first] == pytest.approx(-np.mean(diagonal + math.log(m)), abs=1e-12)
        assert half_loss(60 * np.eye(m), k) == pytest.approx(0, abs=1e-12)


@pytest.mark.statement("7.1")
def test_formulas_for_no_one_and_two_steps():
    scores, m = gaussian_scores(6, seed=1), 6
    assert loss(scores, 0) == pytest.approx(logsumexp(scores) - np.trace(scores) / m - math.log(m), abs=1e-12)
    rows, columns = softmax(scores, axis=1), softmax(scores, axis=0)
    images = (logsumexp(scores, axis=1) - np.diag(scores)).mean()
    texts = (logsumexp(scores, axis=0) - np.diag(scores)).mean()
    assert half_loss(scores, 1) == pytest.approx(images, abs=1e-12)
    assert half_loss(scores, 1, 1) == pytest.approx(texts, abs=1e-12)
    assert loss(scores, 1) == pytest.approx((images + texts) / 2, abs=1e-12)
    again = softmax(np.log(rows), axis=0), softmax(np.log(columns), axis=1)
    two = -sum(np.log(np.diag(table)) for table in again).mean() / 2
    assert loss(scores, 2) == pytest.approx(two, abs=1e-12)


@pytest.mark.statement("7.1")
def test_losses_by_hand():
    scores = np.log([[1.0, 1.0], [2.0, 8.0]])
    expected = [81 / 4, 135 / 16, 91 / 40 * 7 / 3, 81 / 16]
    for k, fraction in zip((0, 1, 2, 99), expected, strict=True):
        assert loss(scores, k) == pytest.approx(math.log(fraction) / 4, rel=1e-12)


@pytest.mark.statement("7.2")
@pytest.mark.parametrize("first", [0, 1])
def test_loss_falls_by_the_error_of_the_marginal(first):
    scores, m = gaussian_scores(6, seed=2), 6
    table = np.exp(scores) / np.exp(scores).sum()
    value = kl_divergence(np.eye(m) / m, table)
    for k in range(1, 8):
        axis = (first + k + 1) % 2
        error = kl_divergence(uniform(m), marginal(table, axis))
        table = project(table, uniform(m), axis)
        value -= error
        assert error > 0
        assert half_loss(scores, k, first) == pytest.approx(value, abs=1e-12)


@pytest.mark.statement("7.2")
def test_joint_loss_is_clip_and_a_penalty():
    scores, m = gaussian_scores(7, seed=3), 7
    table = np.exp(scores) / np.exp(scores).sum()
    penalty = sum(kl_divergence(uniform(m), marginal(table, axis)) for axis in (0, 1)) / 2
    assert loss(scores, 0) == pytest.approx(loss(scores, 1) + penalty, rel=1e-12)
    end = limit(scores)
    assert loss(scores, 3000) == pytest.approx(kl_divergence(np.eye(m) / m, end), rel=1e-9)
    assert loss(scores, 0) == pytest.approx(loss(scores, 3000) + kl_divergence(end, table), rel=1e-9)
    values = [loss(scores, k) for k in range(12)]
    assert np.all(np.diff(values) < 0)
    assert [loss(np.log(end), k) for k in range(12)] == pytest.approx([values[0] - kl_divergence(end, table)] * 12)


@pytest.mark.statement("7.3")
@pytest.mark.parametrize(("rows", "columns", "steps", "first"), [(1, 0, 1, 0), (0, 1, 1, 1), (1, 1, 2000, 0)])
def test_steps_minimize_over_offsets(rows, columns, steps, first):
    scores, m = gaussian_scores(5, seed=4), 5

    def shifted(offsets):
        a, b = np.split(offsets, 2)
        return scores + rows * a[:, None] + columns * b

    def joint(offsets):
        return logsumexp(shifted(offsets)) - np.trace(shifted(offsets)) / m - math.log(m)

    best = minimize(joint, np.zeros(2 * m), method="BFGS", tol=1e-9)
    assert best.fun == pytest.approx(half_loss(scores, steps, first), abs=1e-9)
    own = log_balance(torch.tensor(scores), steps=steps, first=first).diagonal().mean().item()
    assert best.fun == pytest.approx(-own - math.log(m), abs=1e-9)
    table = softmax(shifted(best.x))
    for axis, right in ((0, rows), (1, columns)):
        assert np.allclose(marginal(table, axis), 1 / m, atol=1e-5) == bool(right)
    # other offsets, with unequal sums, give more
    for seed in range(5):
        assert joint(best.x + np.random.default_rng(seed).normal(size=2 * m)) > best.fun + 1e-3


@pytest.mark.statement("7.4")
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 6])
def test_what_is_left_free(steps):
    rng = np.random.default_rng(5)
    scores, a, b = gaussian_scores(5, seed=5), rng.normal(size=(5, 1)), rng.normal(size=5)
    assert loss(scores + 3, steps) == pytest.approx(loss(scores, steps), abs=1e-12)
    for first, own, other in ((0, a, b), (1, b, a)):
        unseen = abs(half_loss(scores + own, steps, first) - half_loss(scores, steps, first)) < 1e-12
        assert unseen == (steps > 0)
        assert abs(half_loss(scores + other, steps, first) - half_loss(scores, steps, first)) > 1e-4
    top = end = np.log(limit(scores))
    # the last of these offsets leads from the scores to the limit
    for offset in (a + 0 * b, 0 * a + b, a + b, end - scores):
        assert loss(top + offset, steps) > loss(top, steps) + 1e-7
    assert half_loss(top + b, steps) > half_loss(top, steps) + 1e-7


@pytest.mark.statement("7.4")
def test_a_limit_that_is_not_invertible_sees_no_offset_from_two_steps_on():
    rng = np.random.default_rng(17)
    offset = rng.normal(size=(5, 1)) + rng.normal(size=5)
    for steps in range(5):
        rise = loss(offset, steps) - loss(0 * offset, steps)
        assert (rise == pytest.approx(0, abs=1e-12)) == (steps > 1)


@pytest.mark.statement("7.4")
def test_limit_leaves_all_offsets_free():
    rng = np.random.default_rng(6)
    scores = gaussian_scores(5, seed=6)
    shifted = scores + rng.normal(size=(5, 1)) + rng.normal(size=5)
    for first in (0, 1):
        assert half_loss(shifted, 3000, first) == pytest.approx(half_loss(scores, 3000, first), abs=1e-10)
    assert abs(loss(shifted, 2) - loss(scores, 2)) > 1e-4


def gradient(scores, k):
    """The formula of the theorem, with tables from `data_balance`."""
    m = len(scores)
    tables = [balanced(scores, j) for j in range(k + 1)]
    error = tables[k].sum(axis=0 if k % 2 else 1) - 1 / m
    result = tables[k] - np.eye(m) / m
    for j in range(k - 1, 0, -1):
        kernel = m * (tables[j] if j % 2 else tables[j].T)
        weighted = error[:, None] * kernel
        result -= weighted if j % 2 else weighted.T
        error = -error @ kernel
    return result, error


@pytest.mark.statement("7.5")
@pytest.mark.parametrize("k", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("first", [0, 1])
def test_gradient_through_the_steps(k, first):
    scores, step = gaussian_scores(4, seed=7), 1e-5

    def half(shift):
        return half_loss(scores + shift, k, first)

    formula, offsets = gradient(scores.T if first else scores, k)
    formula = formula.T if first else formula
    for i in range(4):
        offset = step * (np.eye(4)[:, [i]] if first else np.eye(4)[i])
        assert (half(offset) - half(-offset)) / (2 * step) == pytest.approx(offsets[i], abs=1e-9)
    for x, y in np.ndindex(4, 4):
        cell = np.zeros((4, 4))
        cell[x, y] = step
        assert (half(cell) - half(-cell)) / (2 * step) == pytest.approx(formula[x, y], abs=1e-9)
    leaf = torch.tensor(scores, requires_grad=True)
    (-log_balance(leaf, steps=k, first=first).diagonal().mean()).backward()
    np.testing.assert_allclose(leaf.grad, formula, atol=1e-12)
    np.testing.assert_allclose(formula.sum(axis=1 - first), 0, atol=1e-12)
    np.testing.assert_allclose(formula.sum(axis=first), offsets, atol=1e-12)


@pytest.mark.statement("7.6")
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_curvature_in_small_offsets(k):
    table = limit(gaussian_scores(6, seed=8, size=1.0))
    svd = markov_svd(table)
    s = svd.singular_values[1:]
    a, b = np.random.default_rng(9).normal(size=(2, 6))
    a_j, b_j = (svd.alpha.T @ a / 6)[1:], (svd.beta.T @ b / 6)[1:]
    size, both = 1e-3, a[:, None] + b

    def second_order(value):
        """Half of the second derivative along the offsets; of even order, so that the next term is the fourth."""
        ends = [value(np.log(table) + sign * size * both) for sign in (1, -1, 0)]
        return (ends[0] + ends[1] - 2 * ends[2]) / (2 * size**2)

    half_of_x, half_of_y = (second_order(lambda t, f=first: half_loss(t, k, f)) for first in (0, 1))
    if k == 0:
        variance = np.sum(a_j**2 + b_j**2 + 2 * s * a_j * b_j)
        assert np.sum(table * (both - both.mean()) ** 2) == pytest.approx(variance, rel=1e-9)
        assert [half_of_x, half_of_y] == pytest.approx([variance / 2] * 2, rel=1e-4)
        return
    sight = s ** (2 * (k - 1.0)) * (1 - s**2)
    assert half_of_x == pytest.approx(np.sum(sight * b_j**2) / 2, rel=1e-4)
    assert half_of_y == pytest.approx(np.sum(sight * a_j**2) / 2, rel=1e-4)
    assert second_order(lambda t: loss(t, k)) == pytest.approx(np.sum(sight * (a_j**2 + b_j**2)) / 4, rel=1e-4)


@pytest.mark.statement("7.6")
def test_offset_passes_through_conditional_means():
    """The same curvature without singular values: squared norms of alternating conditional means."""
    table = limit(gaussian_scores(5, seed=10, size=1.0))
    b = np.random.default_rng(11).normal(size=5)
    b -= b.mean()
    norms, current = [np.mean(b**2)], b
    for k in range(1, 6):
        axis = (k + 1) % 2
        function = current[None, :] * np.ones((5, 1)) if axis == 0 else current[:, None] * np.ones((1, 5))
        current = conditional_mean(table, function, axis)
        norms.append(np.mean(current**2))
        size = 1e-3
        rise = (half_loss(np.log(table) + size * b, k) - half_loss(np.log(table), k)) / size**2
        assert rise == pytest.approx((norms[k - 1] - norms[k]) / 2, rel=0.01)


def population_loss(weights, scores, k, first):
    """The X-first (0) or Y-first (1) half as a function of the law of the pairs; log m left out."""
    start = np.exp(scores) * np.outer(weights, weights)
    table = data_balance(start, (weights, weights), steps=k, first=first).table
    return -np.sum(weights * np.log(np.diag(table) / weights**2))


def influence_of_pairs(scores, k):
    """Values at the pairs, equally likely, of the function of the theorem; X-first half."""
    n = len(scores)
    densities = [n**2 * balanced(scores, j) for j in range(k + 1)]
    value = -np.log(np.diag(densities[k]))
    if k == 0:
        return value + densities[0].mean(axis=0) + densities[0].mean(axis=1)
    error = densities[k].mean(axis=0 if k % 2 else 1) - 1
    for j in range(k - 1, 0, -1):
        value = value + error
        kernel = densities[j] if j % 2 else densities[j].T
        error = -error @ kernel / n
    return value + error


@pytest.mark.statement("7.7")
@pytest.mark.parametrize("k", [0, 1, 2, 3, 6])
def test_derivative_of_the_loss_in_the_law(k):
    rng = np.random.default_rng(12)
    n, scores = 12, gaussian_scores(12, seed=12) + rng.normal(size=(12, 1)) + rng.normal(size=12)
    tilt = rng.normal(size=n)
    tilt = (tilt - tilt.mean()) / n
    for first, table in ((0, scores), (1, scores.T)):
        ends = [population_loss(1 / n + sign * 1e-5 * tilt, scores, k, first) for sign in (1, -1)]
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(tilt @ influence_of_pairs(table, k), abs=1e-8)


@pytest.mark.statement("7.7")
def test_loss_of_a_batch_is_a_function_of_its_law():
    """Pairs that occur twice get two rows, or one of twice the weight."""
    scores, draws = gaussian_scores(5, seed=13), np.array([0, 0, 1, 2, 2, 2, 3, 4])
    weights = np.bincount(draws) / 8
    for k in range(5):
        batch = half_loss(scores[np.ix_(draws, draws)], k)
        assert batch == pytest.approx(math.log(8) + population_loss(weights, scores, k, 0), abs=1e-12)


@pytest.mark.statement("7.7")
@pytest.mark.parametrize("k", [0, 1, 2, 3])
def test_law_over_all_batches_of_three_pairs(k):
    """No chance is left: every batch of 300 has its multinomial probability."""
    m, scores = 300, gaussian_scores(3, seed=27)
    times = np.array([(i, j, m - i - j) for i in range(m + 1) for j in range(m + 1 - i)])
    chance = multinomial(m, np.full(3, 1 / 3)).pmf(times)
    times, chance = times[chance > 1e-18], chance[chance > 1e-18]
    halves = np.empty((2, len(times)))
    for first in (0, 1):
        weights = torch.tensor(times / m)
        logs = torch.tensor(scores) + weights.log()[:, :, None] + weights.log()[:, None, :]
        logs = log_balance(logs, steps=k, targets=(weights, weights), first=first)
        logs = logs.diagonal(dim1=1, dim2=2) - 2 * weights.log()
        halves[first] = -(weights * logs).sum(1).numpy() - population_loss(uniform(3), scores, k, first)
    xi = [influence_of_pairs(scores, k), influence_of_pairs(scores.T, k)]
    cases = (halves[0], xi[0]), (halves[1], xi[1]), ((halves[0] + halves[1]) / 2, (xi[0] + xi[1]) / 2)
    for losses, function in cases:
        error, variance = math.sqrt(m) * losses, np.var(function)
        mean = chance @ error
        assert chance @ error**2 - mean**2 == pytest.approx(variance, rel=0.01)
        assert abs(mean) < 0.04 * math.sqrt(variance)
        for z, below in ((-1, 0.1587), (0, 0.5), (1, 0.8413)):
            assert chance @ (error < z * math.sqrt(variance)) == pytest.approx(below, abs=0.03)


@pytest.mark.statement("7.7")
def test_variance_over_batches():
    rng = np.random.default_rng(14)
    offsets = 0.7 * (rng.normal(size=(30, 1)) + rng.normal(size=30))
    scores = gaussian_scores(30, seed=14, size=0.8) + offsets
    draws = rng.integers(30, size=(1000, 120))
    stack = torch.tensor(scores)[draws[:, :, None], draws[:, None, :]]
    spread = {k: 120 * balanced_loss(stack, steps=k).var().item() for k in (0, 1, 2, 9)}
    for k, measured in spread.items():
        predicted = np.var((influence_of_pairs(scores, k) + influence_of_pairs(scores.T, k)) / 2)
        assert measured == pytest.approx(predicted, rel=0.15)
    end = -np.log(30**2 * np.diag(limit(scores)))
    np.testing.assert_allclose(influence_of_pairs(scores, 60), end, atol=1e-8)
