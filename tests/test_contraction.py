"""Contraction coefficients: by their definition, and bad input."""

import numpy as np
import pytest

from balance.contraction import (
    contraction_coefficients,
    contraction_constant,
    largest_below_one,
    largest_log_odds_ratio,
)
from helpers import WIDE, P


def test_coefficients_are_the_largest_ratios_of_oscillations():
    rng = np.random.default_rng(12)
    to_x, to_y = WIDE / WIDE.sum(axis=1, keepdims=True), (WIDE / WIDE.sum(axis=0)).T
    coefficients = contraction_coefficients(WIDE, 4)
    ratios = np.zeros(4)
    # indicators of sets are extreme, so all of them give the maximum
    functions = [[np.array([i >> b & 1 for b in range(size)], float) for i in range(1, 2**size - 1)] for size in (2, 3)]
    for axis in (0, 1):
        for f in functions[axis] + list(rng.normal(size=(20, (2, 3)[axis]))):
            g, on = f, axis
            for r in range(4):
                ratios[r] = max(ratios[r], np.ptp(g) / np.ptp(f))
                g, on = (to_y if on == 0 else to_x) @ g, 1 - on
    assert np.allclose(coefficients, ratios, rtol=1e-12)
    assert np.isclose(contraction_constant(WIDE), contraction_coefficients(WIDE, 200).sum(), rtol=1e-10)


def test_blocks_are_apart():
    two = np.kron(np.diag([0.4, 0.6]), P)
    assert np.allclose(contraction_coefficients(two, 6), contraction_coefficients(P, 6), rtol=1e-12)
    assert np.array_equal(contraction_coefficients(np.eye(4), 3), [1, 0, 0])


def test_bad_input():
    with pytest.raises(ValueError, match="count = 0"):
        contraction_coefficients(P, 0)
    with pytest.raises(ValueError, match="row 1"):
        contraction_constant([[1, 1], [0, 0]])
    with pytest.raises(ValueError, match="is negative"):
        largest_log_odds_ratio([[1, -1], [1, 1]])


@pytest.mark.parametrize("e", [1e-4, 1e-9, 1e-13, 1e-17, 1e-30])
def test_constant_is_an_upper_bound_where_the_second_singular_value_is_near_one(e):
    """Two values: Gamma_r is s^r, and 1 - s is 4 e for the rows (1/2 - e, e) and (e, 1/2 - e)."""
    exact = 1 / (4 * e)
    assert exact * (1 - 1e-9) <= contraction_constant([[0.5 - e, e], [e, 0.5 - e]]) <= exact * 1.001 + 1e4


def test_large_tables_take_few_products():
    """A sum that is cut off is bounded from above, and does not take minutes."""
    rng = np.random.default_rng(2)
    table = np.eye(150) + np.eye(150, k=1) * 0.01 + 1e-3 * rng.random((150, 150))
    coefficients = contraction_coefficients(table, 60)
    assert contraction_constant(table) >= coefficients.sum()


def test_largest_singular_value_below_one():
    for e in (1e-3, 1e-9, 1e-14):
        s, gap = largest_below_one([[0.5 - e, e], [e, 0.5 - e]])
        assert np.isclose(s, 1 - 4 * e, rtol=1e-12) and np.isclose(gap, 4 * e, rtol=1e-3, atol=0)
    assert largest_below_one(np.eye(3)) == (0.0, 1.0)
    two = np.kron(np.diag([0.4, 0.6]), P)
    assert np.isclose(largest_below_one(two)[0], largest_below_one(P)[0], rtol=1e-12)
