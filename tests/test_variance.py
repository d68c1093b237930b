"""First-order variances: by hand, at the ends of their range, by enumeration, and with bad input."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import linalg, optimize

from balance.operators import dependent_table, markov_svd
from balance.variance import (
    balanced_variance,
    decomposition,
    influence_function,
    limit_influence,
    limit_variance,
    variance_closed_form,
)
from helpers import H, P, two_by_two_counts


def test_decomposition_by_hand():
    law = np.array([[6, 2], [3, 9]]) * Fraction(1, 20)
    h = np.array([[1, -2], [Fraction(1, 2), 3]])
    parts = decomposition([[4, 2], [2, 2]], law, h, steps=1)
    expected = Fraction(-19, 40), Fraction(-2, 5), (Fraction(-3, 40),)
    assert (parts.error, parts.linear, parts.remainders) == expected


def test_two_steps_by_hand():
    two = Fraction(911, 440) - Fraction(6241, 11616)
    assert math.isclose(balanced_variance(P, H, 1), Fraction(441, 320))
    assert math.isclose(balanced_variance(P, H, 2), two)


@pytest.mark.parametrize(
    "table",
    [
        np.eye(3),
        linalg.block_diag([[1, 2, 3], [3, 1, 1]], [[2, 5], [1, 1], [4, 1]]),
        np.outer([1, 2, 3], [4, 3, 2, 1, 5]),
        np.outer([4, 3, 2, 1, 5], [1, 2, 3]),
        dependent_table(4, 1.0),
        dependent_table(4, 1 - 1e-7),
        [[1, 1, 0], [0, 0, 2]],
        [[1, 0], [1, 0], [0, 2]],
        [[3, 1, 2]],
        [[5.0]],
    ],
    ids=str,
)
def test_closed_form_at_the_ends_of_the_range_of_singular_values(table):
    h = np.random.default_rng(3).normal(size=np.shape(table))
    for first, k in itertools.product((0, 1), range(6)):
        expected = balanced_variance(table, h, k, first)
        assert math.isclose(variance_closed_form(table, h, k, first), expected, rel_tol=1e-9, abs_tol=1e-12)
    for first in (0, 1):
        expected = limit_variance(table, h)
        assert math.isclose(variance_closed_form(table, h, math.inf, first), expected, rel_tol=1e-8, abs_tol=1e-10)


def test_the_upper_bound_is_attained():
    svd = markov_svd(dependent_table(3, 0.8))
    h = svd.beta[:, 1] - 0.8 * svd.alpha[:, 1:2]
    sigma = [balanced_variance(svd.table, h, k) for k in (0, 1, 3, 5)]
    np.testing.assert_allclose(sigma, sigma[0] * 0.8 ** np.array([0, 0, 4, 8]))


def test_transposing_the_table_exchanges_the_orders():
    table, h = np.random.default_rng(5).random((2, 3, 4))
    for k in range(6):
        swapped = balanced_variance(table.T, h.T, k, first=1)
        assert math.isclose(balanced_variance(table, h, k), swapped)
        np.testing.assert_allclose(influence_function(table, h, k), influence_function(table.T, h.T, k, first=1).T)


def test_no_control_variate_does_better_than_the_limit():
    def spread(potentials):
        rest = H - potentials[:2, None] - potentials[2:]
        return np.sum(P * rest**2) - np.sum(P * rest) ** 2

    found = optimize.minimize(spread, np.zeros(4), method="Nelder-Mead", options={"maxiter": 4000})
    assert math.isclose(found.fun, limit_variance(P, H), rel_tol=1e-4)
    assert math.isclose(spread(np.zeros(4)), balanced_variance(P, H, 0))


def test_the_influence_functions_converge():
    table, h = np.random.default_rng(6).random((2, 3, 4))
    np.testing.assert_allclose(influence_function(table, h, 60), limit_influence(table, h), atol=1e-12)


def test_van_trees_bound_by_exact_enumeration():
    n, c, g = 24, 1.5, limit_influence(P, H)
    counts, ways = two_by_two_counts(n)
    targets = (P.sum(axis=1), P.sum(axis=0))
    worst, moved = 0.0, []
    for t in np.linspace(-c, c, 9) / n**0.5:
        law = P * (1 + t * g)
        np.testing.assert_allclose([law.sum(axis=1), law.sum(axis=0)], targets)
        moved.append(np.sum(law * H) - t * np.sum(P * g * H))
        chance = ways * np.prod(law**counts, axis=(1, 2))
        worst = max(worst, n * np.sum(chance * (np.sum(counts / n * H, axis=(1, 2)) - np.sum(law * H)) ** 2))
    np.testing.assert_allclose(moved, np.sum(P * H))
    sigma2 = limit_variance(P, H)
    assert worst >= sigma2**2 / (sigma2 / (1 - c**2 * np.max(g**2) / n) + (np.pi / c) ** 2)


def test_a_function_of_one_variable_broadcasts():
    f = np.array([[1.0], [4.0]])
    assert math.isclose(balanced_variance(P, f, 0), 0.24 * 9)
    assert balanced_variance(P, f, 1) < 1e-30 < 0.1 < balanced_variance(P, f, 1, first=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: influence_function(P, H, -1), "steps = -1"),
        (lambda: influence_function(P, H, 1.5), "steps = 1.5"),
        (lambda: influence_function(P, H, True), "steps = True"),
        (lambda: influence_function(P, H, 1, first=2), "first = 2"),
        (lambda: influence_function(P, [[1, 2, 3]], 1), "h has shape"),
        (lambda: influence_function(P, H * np.nan, 1), "finite"),
        (lambda: balanced_variance([[1, 0], [1, 0]], H, 1), "column 1"),
        (lambda: variance_closed_form(P, H, math.nan), "steps = nan"),
        (lambda: variance_closed_form(P, H, 2, first=-1), "first = -1"),
        (lambda: limit_variance(-P, H), "negative"),
        (lambda: decomposition([[1, 0], [1, 0]], P, H, 1), r"column 1 of the table \(axis 1\) is empty"),
        (lambda: decomposition([[1, 1]], P, H, 1), r"sample has shape \(1, 2\), expected \(2, 2\)"),
        (lambda: decomposition([[1, 1], [1, 1]], P, H[:1], 1), "h has shape"),
        (lambda: decomposition([[1, 1], [1, 1]], P, H, -1), "steps = -1: pass an integer >= 0"),
        (lambda: decomposition([[1, 1], [1, 1]], P, H, True), "steps = True: pass an integer >= 0"),
        (lambda: decomposition([[1, 1], [1, 1]], P, H, 1, first=3), "first = 3: choose an integer from 0 to 1"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
