"""The statements of chapter 4 against regression, enumeration and rational arithmetic."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize

from balance import data_balance
from balance.datasets import load_population
from balance.operators import markov_svd
from balance.variance import (
    balanced_variance,
    decomposition,
    influence_function,
    limit_influence,
    limit_variance,
    variance_closed_form,
)
from helpers import H, P, two_by_two_counts

X_FIRST = (2.46187, 1.37812, 1.53318, 1.36224, 1.37135, 1.36131)
Y_FIRST = (2.46187, 2.07045, 1.36534, 1.40293, 1.36149)


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


def conditional_variance(table, h, axis):
    """E Var(h | the variable of the axis), value by value."""
    table, h = (table, h) if axis == 0 else (table.T, h.T)
    total = 0.0
    for masses, values in zip(table / table.sum(), h, strict=True):
        mean = np.average(values, weights=masses)
        total += masses @ (values - mean) ** 2
    return total


@pytest.mark.statement("4.1")
@settings(max_examples=40, deadline=None)
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
    balanced = data_balance(counts, (joint.sum(axis=1), joint.sum(axis=0)), steps=steps, first=first)
    assert math.isclose(parts.error, np.sum((balanced.table - joint) * h), rel_tol=1e-9, abs_tol=1e-12)
    psi = influence_function(table, h, steps, first)
    linear = np.sum((counts / counts.sum() - joint) * psi)
    assert math.isclose(parts.linear, linear, rel_tol=1e-9, abs_tol=1e-12)
    floats = decomposition(counts, table, h, steps, first)
    np.testing.assert_allclose(floats.remainders, [float(v) for v in parts.remainders], atol=1e-11)


@pytest.mark.statement("4.2")
@settings(max_examples=30, deadline=None)
@given(laws())
def test_one_and_two_steps_follow_from_total_variance(law):
    table, h = law
    for first in (0, 1):
        one = conditional_variance(table, h, first)
        assert math.isclose(balanced_variance(table, h, 1, first), one, abs_tol=1e-12)
        other = 1 - first
        mean = np.average(h, axis=first, weights=table)
        rest = h - np.expand_dims(mean, first)
        explained = np.average(rest, axis=other, weights=table)
        weights = table.sum(axis=other) / table.sum()
        two = conditional_variance(table, h, other) - weights @ explained**2
        assert math.isclose(balanced_variance(table, h, 2, first), two, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.statement("4.3")
@settings(max_examples=40, deadline=None)
@given(laws(), st.integers(0, 1))
def test_closed_form_is_the_iteration(law, first):
    table, h = law
    for k in range(6):
        expected = balanced_variance(table, h, k, first)
        assert math.isclose(variance_closed_form(table, h, k, first), expected, rel_tol=1e-9, abs_tol=1e-11)
    limit = variance_closed_form(table, h, math.inf, first)
    assert math.isclose(limit, limit_variance(table, h), rel_tol=1e-8, abs_tol=1e-10)


@pytest.mark.statement("4.4")
@settings(max_examples=40, deadline=None)
@given(laws(), st.integers(0, 1))
def test_bounds_and_monotonicity_two_steps_apart(law, first):
    table, h = law
    sigma = np.array([balanced_variance(table, h, k, first) for k in range(9)])
    limit = limit_variance(table, h)
    s = max((v for v in markov_svd(table).singular_values if v < 1 - 1e-9), default=0.0)
    ceiling = limit + s ** (2.0 * np.arange(8)) * (sigma[0] - limit)
    assert np.all(sigma[1:] <= ceiling + 1e-9) and np.all(sigma >= limit - 1e-9)
    assert np.all(sigma[3:] <= sigma[1:-2] + 1e-9)


@pytest.mark.statement("4.5")
def test_the_worked_example_is_not_monotone():
    x_first = [balanced_variance(P, H, k) for k in range(len(X_FIRST))]
    y_first = [balanced_variance(P, H, k, first=1) for k in range(len(Y_FIRST))]
    np.testing.assert_allclose(x_first, X_FIRST, atol=6e-6)
    np.testing.assert_allclose(y_first, Y_FIRST, atol=6e-6)
    np.testing.assert_allclose(x_first, [variance_closed_form(P, H, k) for k in range(6)])
    np.testing.assert_allclose(y_first, [variance_closed_form(P, H, k, first=1) for k in range(5)])
    assert x_first[1] < x_first[2] and x_first[3] < x_first[4]
    assert math.isclose(limit_variance(P, H), 1.36125)


@pytest.mark.statement("4.6")
@settings(max_examples=30, deadline=None)
@given(laws())
def test_the_order_of_the_steps(law):
    table, h = law
    svd = markov_svd(table)
    s, (u, v) = svd.singular_values, svd.coefficients(h)
    inside = s < 1 - 1e-9
    for k in range(2, 6):
        difference = balanced_variance(table, h, k) - balanced_variance(table, h, k, first=1)
        formula = (-1) ** k * np.sum((s ** (2 * (k - 1)) * (u**2 - v**2))[inside])
        assert math.isclose(difference, formula, rel_tol=1e-7, abs_tol=1e-9)
    difference = balanced_variance(table, h, 1) - balanced_variance(table, h, 1, first=1)
    by_value = conditional_variance(table, h, 0) - conditional_variance(table, h, 1)
    assert math.isclose(difference, by_value, abs_tol=1e-9)


@pytest.mark.statement("4.7")
@settings(max_examples=30, deadline=None)
@given(laws())
def test_the_limit_is_the_residual_of_additive_regression(law):
    table, h = law
    (m, l), joint = table.shape, table / table.sum()
    x, y = np.indices(table.shape).reshape(2, -1)
    design = np.column_stack([x[:, None] == range(m), y[:, None] == range(l)]).astype(float)
    root = np.sqrt(joint.ravel())
    fit = np.linalg.lstsq(root[:, None] * design, root * h.ravel())[0]
    residual = (h.ravel() - design @ fit).reshape(h.shape)
    assert math.isclose(np.sum(joint * residual**2), limit_variance(table, h), rel_tol=1e-8, abs_tol=1e-10)
    seen = table > 0
    np.testing.assert_allclose(limit_influence(table, h)[seen], residual[seen], atol=1e-8)


@pytest.mark.statement("4.8")
def test_remainder_and_normal_limit_by_exact_enumeration():
    targets, truth = (P.sum(axis=1), P.sum(axis=0)), np.sum(P * H)
    remainder = {}
    for n in (24, 48):
        counts, ways = two_by_two_counts(n)
        chance = ways * np.prod(P**counts, axis=(1, 2))
        assert math.isclose(chance.sum(), 1)
        seen = counts.any(axis=1).all(axis=1) & counts.any(axis=2).all(axis=1)
        counts, chance = counts[seen], chance[seen]
        current, remainder[n] = counts / n, []
        for k in range(6):
            if k:
                over = 1 + k % 2
                ratio = targets[1 - k % 2] / current.sum(axis=over)
                current = current * np.expand_dims(ratio, over)
            error = np.sum(current * H, axis=(1, 2)) - truth
            linear = np.sum((counts / n - P) * influence_function(P, H, k), axis=(1, 2))
            remainder[n].append(n**2 * (chance @ (error - linear) ** 2))
            sigma = np.sqrt(balanced_variance(P, H, k) / n)
            inside = chance @ (np.abs(error) <= 1.96 * sigma) / chance.sum()
            assert n == 24 or abs(inside - 0.95) < 0.03
    assert np.all(np.array(remainder[48]) <= 1.1 * np.array(remainder[24]) + 1e-12)


@pytest.mark.statement("4.9")
@settings(max_examples=40, deadline=None)
@given(laws())
def test_the_efficiency_bound_is_the_best_cramer_rao_bound(law):
    table, h = law
    joint = table / table.sum()
    x, y = np.nonzero(joint)
    mass, values = joint[x, y], h[x, y]
    m, l = table.shape
    margins = np.vstack([x == i for i in range(m)] + [y == j for j in range(l)]).astype(float)
    directions = linalg.null_space(margins, rcond=1e-10)  # P g for all scores g
    information = directions.T @ (directions / mass[:, None])
    slope = directions.T @ values
    bound = slope @ np.linalg.solve(information, slope) if directions.size else 0.0
    assert math.isclose(bound, limit_variance(table, h), rel_tol=1e-8, abs_tol=1e-10)
    for k in (1, 2, 3):  # an influence function has the efficient one in it
        psi = influence_function(table, h, k)[x, y]
        np.testing.assert_allclose(directions.T @ psi, slope, atol=1e-9)


@pytest.mark.statement("4.10")
@pytest.mark.parametrize("kind", ["raking", "regression", "likelihood"])
def test_calibration_has_the_efficient_influence_function(kind):
    rng = np.random.default_rng(10)
    table, h = rng.random((3, 4)), rng.normal(size=(3, 4))
    table[0, 3] = 0
    table /= table.sum()
    targets = table.sum(axis=1), table.sum(axis=0)
    x, y = np.indices(table.shape).reshape(2, -1)
    design = np.vstack([x == i for i in range(3)] + [y == j for j in range(1, 4)]).astype(float)
    factor = {"regression": lambda e: 1 + e, "likelihood": lambda e: 1 / (1 - e)}.get(kind)

    def calibrated(start):
        if factor is None:
            return data_balance(start, targets, tol=1e-13).table

        def gap(potentials):
            return design @ (start.ravel() * factor(potentials @ design) - table.ravel())

        found = optimize.root(gap, np.zeros(len(design)), tol=1e-13)
        return start * factor(found.x @ design).reshape(start.shape)

    efficient, step = limit_influence(table, h), 1e-4
    for cell in zip(*np.nonzero(table), strict=True):
        toward = -table.copy()
        toward[cell] += 1
        up, down = (np.sum(calibrated(table + e * toward) * h) for e in (step, -step))
        assert abs((up - down) / (2 * step) - efficient[cell]) < 1e-5


@pytest.mark.statement("4.11")
def test_outcomes_of_their_own_add_the_noise_within_cells():
    gss = load_population("gss_vocab")
    cube = np.zeros((5, 5, 11))
    np.add.at(cube, tuple(gss.variables[v] for v in ("age", "education", "words")), 1 / gss.size)
    z = np.broadcast_to(np.arange(11.0), cube.shape)
    mean = np.average(z, axis=2, weights=cube)
    noise = np.sum(cube * (z - mean[:, :, None]) ** 2)
    for first, steps in itertools.product((0, 1), range(1, 5)):
        psi = z
        for j in range(steps, 0, -1):
            over = (1, 2) if (first + j) % 2 else (0, 2)
            psi = psi - np.sum(cube * psi, over, keepdims=True) / cube.sum(over, keepdims=True)
        expected = noise + balanced_variance(cube.sum(axis=2), mean, steps, first)
        assert math.isclose(np.sum(cube * psi**2), expected)
