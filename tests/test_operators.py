"""Conditional means and their singular values: degenerate tables, invariances, and bad input."""

import math

import numpy as np
import pytest
from scipy import linalg, stats

from balance import operators
from balance.operators import center, conditional_mean, markov_svd
from helpers import SPARSE_COUNTS, H, P, check_decomposition, random_function


@pytest.mark.parametrize(
    "table",
    [
        np.ones((1, 4)),
        np.ones((3, 1)),
        np.ones((3, 5)),
        np.eye(4),
        operators.dependent_table(5, 0.4),
        linalg.block_diag(np.ones((2, 3)), np.ones((1, 1)), np.ones((2, 2))),
        np.kron(P, P),
        np.diag([1e-12, 1, 1]) + 1e-15,
    ],
    ids=["row", "column", "independent", "diagonal", "multiple", "blocks", "product", "tiny"],
)
def test_degenerate_tables(table):
    check_decomposition(table)


def test_coefficients_are_inner_products():
    h, svd = random_function(SPARSE_COUNTS), markov_svd(SPARSE_COUNTS)
    u, v = svd.coefficients(h)
    for j in range(3):
        cells = list(np.ndindex(SPARSE_COUNTS.shape))
        assert u[j] == pytest.approx(sum(SPARSE_COUNTS[x, y] * h[x, y] * svd.alpha[x, j] for x, y in cells) / 21)
        assert v[j] == pytest.approx(sum(SPARSE_COUNTS[x, y] * h[x, y] * svd.beta[y, j] for x, y in cells) / 21)
    assert np.allclose(svd.coefficients(svd.beta[None, :, 1])[0], svd.singular_values * [0, 1, 0], rtol=0, atol=1e-14)


@pytest.mark.parametrize("rho", [0.8, -0.4])
def test_cell_masses_of_a_gaussian_pair(rho):
    cuts = np.clip(math.sqrt(3) * stats.norm.ppf(np.arange(6) / 5), -12, 12)
    below = [[stats.multivariate_normal.cdf([a, b], cov=[[1, rho], [rho, 1]]) for b in cuts] for a in cuts]
    cells = np.diff(np.diff(np.array(below), axis=0), axis=1)
    assert np.allclose(operators.gaussian_table(rho, 5), cells, atol=1e-9, rtol=0)


def test_scale_and_input_do_not_matter():
    before = SPARSE_COUNTS.copy()
    small, large = markov_svd(SPARSE_COUNTS * 1e-300), markov_svd(SPARSE_COUNTS)
    assert np.allclose(small.singular_values, large.singular_values, rtol=1e-10, atol=0)
    assert np.allclose(small.alpha, large.alpha, rtol=1e-10, atol=0) and np.array_equal(SPARSE_COUNTS, before)
    assert operators.maximal_correlation([[1, 2, 3]]) == 0


def test_conditional_mean_needs_only_its_own_variable():
    table, h = [[1, 0], [1, 0]], np.ones((2, 2))
    assert np.allclose(conditional_mean(table, h, 0), [1, 1], rtol=1e-10, atol=0)
    with pytest.raises(ValueError, match=r"column 1 \(axis 1\) has no mass.*drop or merge"):
        conditional_mean(table, h, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: markov_svd([[1, 2], [0, 0]]), r"row 1 \(axis 0\) has no mass.*drop or merge"),
        (lambda: operators.components([[1, 0], [1, 0]]), r"column 1 \(axis 1\) has no mass"),
        (lambda: markov_svd([[1, -2], [1, 1]]), r"table\[0, 1\]"),
        (lambda: markov_svd(np.ones((2, 2, 2))), "3 axes"),
        (lambda: conditional_mean(P, [1, 2], 0), r"h\[:, None\]"),
        (lambda: center(P, np.ones((3, 2)), 0), "h has shape"),
        (lambda: center(P, [[np.nan, 1], [0, 1]], 0), "finite"),
        (lambda: conditional_mean(P, H, 2), "axis = 2"),
        (lambda: markov_svd(P).coefficients([["a", "b"]]), "h has dtype <U1: pass real numbers"),
        (lambda: operators.dependent_table(0, 0.5), "m = 0"),
        (lambda: operators.dependent_table(2, 1.1), "s = 1.1"),
        (lambda: operators.gaussian_table(1.0, 5), "rho = 1.0"),
        (lambda: operators.gaussian_table(0.5, 201), "cells = 201"),
        (lambda: operators.table_with_singular_values([1, 1], [1, 0], [0.1]), "column 1"),
        (lambda: operators.table_with_singular_values([1, 1], [1, 1], [0.1, 0.1]), "at most min"),
        (lambda: operators.table_with_singular_values(np.ones(3), np.ones(3), [0.1, 0.2]), "do not increase"),
    ],
)
def test_errors_name_the_entry(call, message):
    with pytest.raises(ValueError, match=message):
        call()
