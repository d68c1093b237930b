"""The statements of chapter 4 against regression, enumeration and rational arithmetic."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import linalg

from balance import data_balance
from balance.datasets import load_population
from balance.operators import conditional_mean, dependent_table, markov_svd
from balance.variance import (
    balanced_variance,
    decomposition,
    influence_function,
    limit_influence,
    limit_variance,
    variance_closed_form,
)
from helpers import H, P, fast, two_by_two_counts

X_FIRST = (2.461875, 1.378125, 1.533178, 1.362242, 1.371354, 1.361308, 1.361844)
Y_FIRST = (2.461875, 2.070455, 1.365341, 1.402930, 1.361490, 1.363699)
# a table with much dependence, and a function for which sigma_k^2 jumps between even and odd k
NEAR, NEAR_H = np.array([[0.45, 0.1], [0.05, 0.4]]), np.array([[1.0, 1.0], [-0.5, -1.0]])
BLOCKS = linalg.block_diag([[1.0, 3.0, 2.0], [4.0, 1.0, 1.0]], [[2.0, 1.0], [1.0, 5.0], [3.0, 3.0]])


@st.composite
def laws(draw):
    """A table without empty rows and columns, sparse at times, and a function."""
    seed = draw(st.integers(0, 2**32 - 1))
    m, l = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    kept = draw(st.sampled_from((0.2, 0.5, 1.0)))
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 20, (m, l)) * (rng.random((m, l)) < kept)
    rows, columns = rng.permutation(max(m, l)) % m, rng.permutation(max(m, l)) % l
    table[rows, columns] += 1
    return table, rng.normal(size=(m, l))


def close(found, wanted, rel=1e-8, tiny=1e-11):
    """Equal up to rounding; `tiny` only covers numbers that are zero in truth."""
    np.testing.assert_allclose(found, wanted, rtol=rel, atol=tiny)


def variance(values, masses):
    """Variance of a function with these values under these masses."""
    values, masses = np.ravel(values), np.ravel(masses) / np.sum(masses)
    return masses @ (values - masses @ values) ** 2


def conditional_variance(table, h, axis):
    """E Var(h | the variable of the axis), value by value."""
    table, h = (table, h) if axis == 0 else (table.T, h.T)
    pairs = zip(table / table.sum(), h, strict=True)
    return sum(masses.sum() * variance(values, masses) for masses, values in pairs)


def by_formula(table, h, k, first):
    """sigma_inf^2 by (4.11) and sigma_k^2 by (4.12), from the singular functions."""
    table, h = (table.T, h.T) if first else (table, h)
    svd = markov_svd(table)
    s, (u, v) = svd.singular_values[1:], (c[1:] for c in svd.coefficients(h))
    residues = [
        conditional_mean(table, h, axis) - functions @ c
        for axis, functions, c in zip((0, 1), (svd.alpha, svd.beta), svd.coefficients(h), strict=True)
    ]
    delta_2 = sum(variance(r, table.sum(axis=1 - axis)) for axis, r in enumerate(residues))
    limit, terms = variance(h, table) - delta_2, 0.0
    for s_j, u_j, v_j in zip(s, u, v, strict=True):
        if s_j > 1 - 1e-9:
            limit -= u_j**2
            continue
        limit -= (u_j**2 + v_j**2 - 2 * s_j * u_j * v_j) / (1 - s_j**2)
        numerator = (v_j - s_j * u_j) if k % 2 else (u_j - s_j * v_j)
        terms += s_j ** (2 * (k - 1)) * numerator**2 / (1 - s_j**2)
    wide = table.shape[1] > table.shape[0]
    return limit, limit + terms + (delta_2 if k == 1 and wide else 0)


@pytest.mark.statement("4.1")
@fast
@example((np.array([[6, 2, 1], [3, 9, 4]]), np.array([[1.0, -2.0, 0.5], [0.5, 3.0, -1.0]])), 2, 0, 1)
@example((np.array([[6, 2], [0, 9], [4, 1]]), np.array([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0]])), 4, 1, 2)
@given(laws(), st.integers(0, 5), st.integers(0, 1), st.integers(0, 2**32 - 1))
def test_the_error_is_the_linear_term_plus_remainders_as_fractions(law, steps, first, seed):
    table, h = law
    rng = np.random.default_rng(seed)
    counts = table * 0 + rng.integers(0, 5, table.shape)
    counts[:, 0] += 1
    counts[0] += 1
    exact_h = np.vectorize(lambda v: Fraction(round(v * 100), 100), otypes=[object])(h)
    parts = decomposition(counts, table, exact_h, steps, first)
    assert isinstance(parts.error, Fraction)
    assert len(parts.remainders) == steps
    assert parts.error == parts.linear + sum(parts.remainders)

    joint, h = table / table.sum(), exact_h.astype(float)
    targets = joint.sum(axis=1), joint.sum(axis=0)
    path = [data_balance(counts, targets, steps=j, first=first).table for j in range(steps + 1)]
    close(float(parts.error), np.sum((path[-1] - joint) * h))
    close(float(parts.linear), np.sum((path[0] - joint) * influence_function(table, h, steps, first)))
    floats = decomposition(counts, table, h, steps, first)
    close(floats.remainders, [float(v) for v in parts.remainders])
    g = h
    for j in range(steps, 0, -1):  # V_j(C_j ... C_k h) by (4.4)
        axis = (first + j - 1) % 2
        g = g - np.expand_dims(conditional_mean(table, g, axis), 1 - axis)
        factor = np.expand_dims(targets[axis] / path[j - 1].sum(axis=1 - axis), 1 - axis)
        close(float(parts.remainders[j - 1]), np.sum((factor - 1) * g * path[j - 1]))
    close(float(parts.linear), np.sum((path[0] - joint) * g))


@pytest.mark.statement("4.2")
@fast
@given(laws())
def test_one_and_two_steps_follow_from_total_variance(law):
    table, h = law
    for first, (t, f) in enumerate(((table, h), (table.T, h.T))):
        p_x, p_y = t.sum(axis=1), t.sum(axis=0)
        mean_x, mean_y = (t * f).sum(axis=1) / p_x, (t * f).sum(axis=0) / p_y
        one = conditional_variance(t, f, 0)
        close(balanced_variance(table, h, 1, first), one)
        close(one, variance(f, t) - variance(mean_x, p_x))
        rest = (t * (f - mean_y)).sum(axis=1) / p_x
        two = conditional_variance(t, f, 1) - variance(rest, p_x)
        close(balanced_variance(table, h, 2, first), two)
        close(two, variance(f, t) - variance(mean_y, p_y) - variance(mean_x - t @ mean_y / p_x, p_x))


@pytest.mark.statement("4.3")
@pytest.mark.parametrize(
    "table", [P, BLOCKS, NEAR, np.arange(1.0, 11).reshape(2, 5), np.eye(3), np.outer([1, 2], [1, 2, 4])]
)
def test_closed_form_on_tables_of_all_kinds(table):
    h = np.random.default_rng(43).normal(size=table.shape)
    for first, k in itertools.product((0, 1), range(1, 6)):
        expected = limit_variance(table, h), balanced_variance(table, h, k, first)
        close(by_formula(table, h, k, first), expected, 1e-9, 1e-14)
        close([variance_closed_form(table, h, j, first) for j in (math.inf, k)], expected, 1e-9, 1e-14)


@pytest.mark.statement("4.3")
@fast
@given(laws(), st.integers(0, 1))
def test_closed_form_is_the_iteration(law, first):
    table, h = law
    for k in range(1, 6):
        expected = limit_variance(table, h), balanced_variance(table, h, k, first)
        close(by_formula(table, h, k, first), expected, 1e-7, 1e-9)
        close([variance_closed_form(table, h, j, first) for j in (math.inf, k)], expected, 1e-7, 1e-9)
    close(variance_closed_form(table, h, 0, first), variance(h, table))


def roof(table, h, k):
    """The upper bound of (4.18)."""
    s = max((v for v in markov_svd(table).singular_values if v < 1 - 1e-9), default=0.0)
    limit = limit_variance(table, h)
    return limit + s ** (2 * (k - 1)) * (balanced_variance(table, h, 0) - limit)


@pytest.mark.statement("4.4")
@pytest.mark.parametrize("table", [P, NEAR, BLOCKS, dependent_table(3, 0.9)])
def test_the_bounds_are_attained(table):
    svd = markov_svd(table)
    inside = limit_influence(table, np.random.default_rng(44).normal(size=table.shape))
    j = np.flatnonzero(svd.singular_values < 1 - 1e-9)[0]
    s, alpha, beta = svd.singular_values[j], svd.alpha[:, [j]], svd.beta[:, j]
    for first, k in itertools.product((0, 1), range(1, 7)):
        ends_on_x = (k % 2 == 1) == (first == 0)
        worst = inside + (beta - s * alpha if ends_on_x else alpha - s * beta)
        close(balanced_variance(table, worst, k, first), roof(table, worst, k), 1e-9, 0)
        close(balanced_variance(table, inside, k, first), limit_variance(table, inside), 1e-9, 0)
    sigma = np.array([balanced_variance(P, H, k) for k in range(1, 12)])
    assert np.all(sigma[2:] <= sigma[:-2] + 1e-12)


@pytest.mark.statement("4.4")
@fast
@given(laws(), st.integers(0, 1))
def test_bounds_and_monotonicity_two_steps_apart(law, first):
    table, h = law
    sigma = np.array([balanced_variance(table, h, k, first) for k in range(1, 9)])
    assert np.all(sigma <= np.array([roof(table, h, k) for k in range(1, 9)]) + 1e-9)
    assert np.all(sigma >= limit_variance(table, h) - 1e-9)
    assert np.all(sigma[2:] <= sigma[:-2] + 1e-9)


@pytest.mark.statement("4.5")
def test_the_worked_example_is_not_monotone():
    x_first = [balanced_variance(P, H, k) for k in range(len(X_FIRST))]
    y_first = [balanced_variance(P, H, k, first=1) for k in range(len(Y_FIRST))]
    np.testing.assert_allclose(x_first, X_FIRST, rtol=0, atol=6e-7)
    np.testing.assert_allclose(y_first, Y_FIRST, rtol=0, atol=6e-7)
    s_2, u, v = 8 / 33, math.sqrt(6 / 25) * 17 / 8, math.sqrt(99 / 400) * (23 / 11 - 5 / 6)
    svd = markov_svd(P)
    close(svd.singular_values[1] ** 2, s_2, 1e-12, 0)
    close([c[1] ** 2 for c in svd.coefficients(H)], [u**2, v**2], 1e-12, 0)
    odd, even = (v - math.sqrt(s_2) * u) ** 2 / (1 - s_2), (u - math.sqrt(s_2) * v) ** 2 / (1 - s_2)
    assert abs(odd - 0.01687) < 1e-5 and abs(even - 0.70920) < 1e-5
    for k in (1, 3, 5):
        assert x_first[k] < x_first[k + 1]
        close(x_first[k + 1] - x_first[k], s_2 ** (k - 1) * (s_2 * even - odd), 1e-8, 0)
    assert math.isclose(x_first[1], 1.378125) and 1.53317 < x_first[2] < 1.53318


@pytest.mark.statement("4.6")
def test_the_order_of_the_steps_in_the_example():
    svd = markov_svd(P)
    s, (u, v) = svd.singular_values[1], (c[1] for c in svd.coefficients(H))
    for k in range(2, 6):
        gain = balanced_variance(P, H, k) - balanced_variance(P, H, k, first=1)
        close(gain, (-1) ** k * s ** (2 * (k - 1)) * (u**2 - v**2), 1e-9, 0)
        assert gain * (-1) ** k > 0


@pytest.mark.statement("4.6")
@fast
@given(laws())
def test_the_order_of_the_steps(law):
    table, h = law
    svd = markov_svd(table)
    s, (u, v) = svd.singular_values, svd.coefficients(h)
    inside = s < 1 - 1e-9
    for k in range(2, 6):
        orders = [balanced_variance(table, h, k, first) for first in (0, 1)]
        weights = s[inside] ** (2 * (k - 1))
        x, y = weights @ u[inside] ** 2, weights @ v[inside] ** 2
        close(orders[0] - orders[1], (-1) ** k * (x - y), 1e-7, 1e-9)
        ends_on_x, ends_on_y = orders if k % 2 else orders[::-1]
        if abs(x - y) > 1e-9:
            assert (ends_on_x <= ends_on_y) == (x >= y)
        of_x = [balanced_variance(table, h[:, :1], k, first) for first in ((k + 1) % 2, k % 2)]
        assert of_x[0] <= of_x[1] + 1e-12  # u_j^2 >= s_j^2 u_j^2 = v_j^2
    difference = balanced_variance(table, h, 1) - balanced_variance(table, h, 1, first=1)
    means = [variance(conditional_mean(table, h, axis), table.sum(axis=1 - axis)) for axis in (0, 1)]
    close(difference, means[1] - means[0], 1e-8, 1e-10)


@pytest.mark.statement("4.7")
def test_explaining_more_is_not_enough():
    table, h = np.array([[3, 0, 0], [4, 4, 2], [3, 0, 0]]), np.array([[2, 2, 0], [1, 0, 0], [0, 1, 1]])
    means = [variance(conditional_mean(table, h, axis), table.sum(axis=1 - axis)) for axis in (0, 1)]
    close(means, [147 / 320, 15 / 64], 1e-12, 0)
    ends_on_y, ends_on_x = (balanced_variance(table, h, 2, first) for first in (0, 1))
    assert abs(ends_on_y) < 1e-15
    close(ends_on_x, 27 / 500, 1e-12, 0)
    assert means[0] > means[1] and ends_on_x > ends_on_y


@pytest.mark.statement("4.8")
@pytest.mark.parametrize(("table", "h"), [(P, H), (NEAR, NEAR_H), (BLOCKS, np.sin(np.arange(25.0)).reshape(5, 5))])
def test_many_steps_reach_the_limit(table, h):
    close(balanced_variance(table, h, 300), limit_variance(table, h), 1e-9, 1e-15)
    seen = table > 0  # elsewhere a function is not determined
    late = influence_function(table, h, 300)
    np.testing.assert_allclose(late[seen], limit_influence(table, h)[seen], rtol=0, atol=1e-12)
    close(limit_variance(P, H), (1 + 2 - 0.5 + 3) ** 2 / (1 / 0.3 + 1 / 0.1 + 1 / 0.15 + 1 / 0.45), 1e-12, 0)  # (4.26)
    assert limit_variance([[0.4, 0.1], [0.5, 0]], H) < 1e-28


@pytest.mark.statement("4.8")
@fast
@given(laws())
def test_the_limit_is_the_residual_of_additive_regression(law):
    table, h = law
    (m, l), joint = table.shape, table / table.sum()
    x, y = np.indices(table.shape).reshape(2, -1)
    design = np.column_stack([x[:, None] == range(m), y[:, None] == range(l)]).astype(float)
    root = np.sqrt(joint.ravel())
    fit = np.linalg.lstsq(root[:, None] * design, root * h.ravel(), rcond=None)[0]
    residual = (h.ravel() - design @ fit).reshape(h.shape)
    close(np.sum(joint * residual**2), limit_variance(table, h), 1e-8, 1e-10)
    close(variance(residual, joint), limit_variance(table, h), 1e-8, 1e-10)
    seen = table > 0
    np.testing.assert_allclose(limit_influence(table, h)[seen], residual[seen], rtol=0, atol=1e-8)
    f, g = fit[:m, None], fit[None, m:]
    for axis, own, other in ((0, f, g), (1, g, f)):  # (4.24)
        left = own.ravel() + conditional_mean(table, other, axis)
        np.testing.assert_allclose(left, conditional_mean(table, h, axis), rtol=0, atol=1e-9)


def balanced_errors(table, h, n, most):
    """Chances of all samples, and for k = 0..most the errors and linear terms, with P_n(h) off S."""
    counts, ways = two_by_two_counts(n)
    chance = ways * np.prod(table**counts, axis=(1, 2))
    assert math.isclose(chance.sum(), 1)
    seen = counts.any(axis=1).all(axis=1) & counts.any(axis=2).all(axis=1)
    targets, current = (table.sum(axis=1), table.sum(axis=0)), counts / n
    errors, linear = [], []
    for k in range(most + 1):
        if k:
            over = 1 + k % 2
            now = np.expand_dims(current.sum(axis=over), over)
            goal = np.expand_dims(targets[1 - k % 2], (0, over))
            current = np.where(seen[:, None, None], current * goal / np.where(now > 0, now, 1), current)
        errors.append(np.sum((current - table) * h, axis=(1, 2)))
        psi = influence_function(table, h, k)
        linear.append(np.where(seen, np.sum((counts / n - table) * psi, axis=(1, 2)), errors[-1]))
    return chance, np.array(errors), np.array(linear)


@pytest.mark.statement("4.9")
@pytest.mark.parametrize(("table", "h", "precision"), [(P, H, 0.005), (NEAR, NEAR_H, 0.02)])
def test_remainder_and_normal_limit_by_exact_enumeration(table, h, precision):
    sigma_2 = np.array([balanced_variance(table, h, k) for k in range(5)])
    mse, remainder = {}, {}
    for n in (25, 50, 100):
        chance, errors, linear = balanced_errors(table, h, n, 4)
        mse[n] = n * errors**2 @ chance
        remainder[n] = n**2 * (errors - linear) ** 2 @ chance
    # the parabola in 1/n through the three points meets 1/n = 0 at sigma_k^2
    np.testing.assert_allclose((mse[25] - 6 * mse[50] + 8 * mse[100]) / 3, sigma_2, rtol=precision)
    assert remainder[100][0] < 1e-20
    assert np.all(remainder[100][1:] < 1.1 * remainder[50][1:])
    assert np.all(remainder[100][1:] > 0.5 * remainder[50][1:])
    for z, wanted in ((1, 0.6827), (1.96, 0.95)):
        inside = (np.abs(errors) <= z * np.sqrt(sigma_2 / 100)[:, None]) @ chance
        assert np.all(np.abs(inside - wanted) < 0.025)


def van_trees(n, c, g, table):
    """The right-hand side of (4.30)."""
    spread = np.sum(table * g**2)
    return spread**2 / (spread / (1 - c**2 * np.max(g**2) / n) + math.pi**2 / c**2)


@pytest.mark.statement("4.10")
@pytest.mark.parametrize(("n", "c"), [(80, 2.0), (50, 3.0), (1000, 1.0)])
def test_van_trees_against_quadrature(n, c):
    delta = c / math.sqrt(n)
    t = np.linspace(-delta, delta, 40_001)
    prior = np.cos(np.pi * t / (2 * delta)) ** 2 / delta
    width = t[1] - t[0]
    assert math.isclose(np.sum(prior) * width, 1)
    fisher = np.sum(np.gradient(prior, t)[1:-1] ** 2 / prior[1:-1]) * width
    flat = np.array([[2.0, -2.0], [-2.0, 2.0]])  # |g| is constant: the last step of the proof is an equality
    information = 4 / (1 - 4 * delta**2)
    close(van_trees(n, c, flat, np.full((2, 2), 0.25)), 16 / (information + fisher / n), 1e-3, 0)
    # an estimator that knows P and t = 0, and the balanced one, are above the bound
    g = limit_influence(P, H)
    if c**2 * np.max(g**2) < n:
        assert (c * 1.36125) ** 2 >= van_trees(n, c, g, P) > 0
        # (4.30) is a little below the inequality with the mean of I(t) itself
        scores = np.sum(P * g**2 / (1 + t[:, None, None] * g), axis=(1, 2))
        better = limit_variance(P, H) ** 2 / (np.average(scores, weights=prior) + (math.pi / c) ** 2)
        assert 0.8 * better < van_trees(n, c, g, P) <= better


@pytest.mark.statement("4.10")
def test_van_trees_reaches_the_variance_of_the_limit_and_balancing_stays_above():
    g, n, c = limit_influence(P, H), 40, 2.0
    assert 0.99 * 1.36125 < van_trees(10**9, 100, g, P) < 1.36125
    counts, ways = two_by_two_counts(n)
    _, errors, _ = balanced_errors(P, H, n, 4)
    # Hodges' estimator, and one that always answers P(h)
    hodges = np.where(np.abs(errors[4]) < n**-0.25, 0, errors[4])
    errors = np.vstack([errors, hodges, 0 * hodges])
    mse = []
    for t in np.linspace(-c, c, 5) / math.sqrt(n):
        law = P * (1 + t * g)
        chance = ways * np.prod(law**counts, axis=(1, 2))
        mse.append(n * (errors + np.sum((P - law) * H)) ** 2 @ chance)
    bound = van_trees(n, c, g, P)
    assert np.all(np.max(mse, axis=0) >= bound)
    assert mse[2][6] < 1e-20 and mse[2][5] < 0.5 * mse[2][4]  # below it at P itself
    assert np.max(mse, axis=0)[5] > 1.5 * np.max(mse, axis=0)[4]  # and worse nearby


@pytest.mark.statement("4.10")
@fast
@given(laws())
def test_the_efficiency_bound_is_the_best_cramer_rao_bound(law):
    table, h = law
    joint = table / table.sum()
    x, y = np.nonzero(joint)
    mass, values = joint[x, y], h[x, y]
    m, l = table.shape
    margins = np.vstack([x == i for i in range(m)] + [y == j for j in range(l)]).astype(float)
    directions = linalg.null_space(margins, rcond=1e-10)  # P g for all scores g
    for direction in directions.T:  # (a): both conditional means of a score are zero
        score = np.zeros(table.shape)
        score[x, y] = direction / mass
        for axis in (0, 1):
            np.testing.assert_allclose(conditional_mean(table, score, axis), 0, atol=1e-9)
    g = limit_influence(table, h)[x, y]
    np.testing.assert_allclose(margins @ (mass * g), 0, atol=1e-10)  # and what is in W keeps the marginals
    information = directions.T @ (directions / mass[:, None])
    slope = directions.T @ values
    bound = slope @ np.linalg.solve(information, slope) if directions.size else 0.0
    close(bound, limit_variance(table, h), 1e-8, 1e-10)
    # (b): the control variate (4.25) is unbiased along the path and attains the bound
    additive = values - g
    for t in (-0.2, 0.1):
        law_t = mass * (1 + t * g)
        close(law_t @ g + mass @ additive, law_t @ values, 1e-8, 1e-9)
    close(variance(values - additive, mass), bound, 1e-8, 1e-10)
    for k in (1, 2, 3):  # an influence function has the efficient one in it
        psi = influence_function(table, h, k)[x, y]
        np.testing.assert_allclose(directions.T @ psi, slope, rtol=0, atol=1e-9)


def calibrated(table, R, F, slope, start):
    """R F(a + b) with the marginals of the table, by Newton's method."""
    m, l = table.shape
    design = np.vstack([np.eye(m).repeat(l, axis=1), np.tile(np.eye(l), m)])
    potentials = start.copy()
    for _ in range(10):
        phi = potentials @ design
        gap = design @ (table.ravel() - R.ravel() * F(phi))
        potentials += np.linalg.lstsq((design * R.ravel() * slope(phi)) @ design.T, gap, rcond=None)[0]
    return R * F(potentials @ design).reshape(table.shape)


@pytest.mark.statement("4.11")
@pytest.mark.parametrize("kind", ["raking", "regression", "likelihood", "logit"])
def test_calibration_has_the_efficient_influence_function(kind):
    F, slope = {
        "raking": (np.exp, np.exp),
        "regression": (lambda e: 1 + e, np.ones_like),
        "likelihood": (lambda e: 1 / (1 - e), lambda e: (1 - e) ** -2),
        # between 0 and 2, with F(0) = F'(0) = 1
        "logit": (lambda e: 1 + np.tanh(e), lambda e: np.cosh(e) ** -2),
    }[kind]
    rng = np.random.default_rng(10)
    table, h = rng.random((3, 4)), rng.normal(size=(3, 4))
    table[0, 3] = 0
    table /= table.sum()
    targets, zero = (table.sum(axis=1), table.sum(axis=0)), np.zeros(7)

    def error(R):
        return np.sum((calibrated(table, R, F, slope, zero) - table) * h)

    efficient, step, slopes = limit_influence(table, h), 1e-4, []
    for cell in zip(*np.nonzero(table), strict=True):
        toward = -table.copy()
        toward[cell] += 1
        slopes.append((error(table + step * toward) - error(table - step * toward)) / (2 * step))
        assert abs(slopes[-1] - efficient[cell]) < 1e-5
    close(table[table > 0] @ np.square(slopes), limit_variance(table, h), 1e-4, 0)

    moved = table * rng.normal(size=table.shape)
    moved -= table * moved.sum()
    linear = np.sum(moved * efficient)
    rest = [error(table + e * moved) - e * linear for e in (2e-4, 1e-4)]
    assert 3.9 < rest[0] / rest[1] < 4.1  # a remainder of the second order

    R = table + 0.05 * moved
    found = calibrated(table, R, F, slope, zero)
    for axis, target in enumerate(targets):
        np.testing.assert_allclose(found.sum(axis=1 - axis), target, rtol=1e-12)
    for _ in range(4):  # one solution near zero
        np.testing.assert_allclose(calibrated(table, R, F, slope, rng.uniform(-0.1, 0.1, 7)), found, rtol=0, atol=1e-12)
    if kind == "raking":
        np.testing.assert_allclose(data_balance(R, targets, tol=1e-13).table, found, rtol=0, atol=1e-12)


@pytest.mark.statement("4.12")
def test_outcomes_of_their_own_add_the_noise_within_cells():
    gss = load_population("gss_vocab")
    cube = np.zeros((5, 5, 11))
    np.add.at(cube, tuple(gss.variables[v] for v in ("age", "education", "words")), 1 / gss.size)
    z = np.broadcast_to(np.arange(11.0), cube.shape)
    joint = cube.sum(axis=2)
    targets = joint.sum(axis=1), joint.sum(axis=0)
    mean = np.average(z, axis=2, weights=cube)
    noise = np.sum(cube * (z - mean[:, :, None]) ** 2)

    def estimate(masses, steps, first):
        seen = masses.sum(axis=2)
        return np.sum(data_balance(seen, targets, steps=steps, first=first).table * (masses * z).sum(axis=2) / seen)

    cells = np.random.default_rng(11).permutation(np.argwhere(cube))[:12]
    for first, steps in itertools.product((0, 1), range(1, 5)):
        psi = z - mean[:, :, None] + influence_function(joint, mean, steps, first)[:, :, None]  # (4.33)
        centered = z
        for j in range(steps, 0, -1):
            over = (1, 2) if (first + j) % 2 else (0, 2)
            centered = centered - np.sum(cube * centered, over, keepdims=True) / cube.sum(over, keepdims=True)
        np.testing.assert_allclose(psi, centered, rtol=0, atol=1e-10)
        expected = noise + balanced_variance(joint, mean, steps, first)
        assert math.isclose(np.sum(cube * psi**2), expected)
        for cell in map(tuple, cells):  # the derivative of the estimate by the weight of one record
            ends = []
            for weight in (1e-5, -1e-5):
                moved = (1 - weight) * cube
                moved[cell] += weight
                ends.append(estimate(moved, steps, first))
            assert abs((ends[0] - ends[1]) / 2e-5 - psi[cell]) < 1e-4
