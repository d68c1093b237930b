"""Wrong and noisy marginals: invariances, stacks of tables, and bad input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance import data_balance
from balance.marginals import (
    attribute_error,
    first_order_bias,
    importance_mse,
    importance_weighted,
    pooled_targets,
    predicted_mse,
    ridge_split,
    soft_balance,
    unpaired_mse,
)
from balance.variance import balanced_variance
from helpers import LAW, LAW_H, RIGHT, random_case, seeds


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(0, 6), st.sampled_from([0, 1]))
def test_true_marginals_give_no_bias(seed, steps, first):
    p, h, _ = random_case(np.random.default_rng(seed), 3, 4)
    right = p.sum(axis=1), p.sum(axis=0)
    assert first_order_bias(p, h, right, steps, first) == pytest.approx(0, abs=1e-12)
    assert predicted_mse(p, h, 7, right, steps, first) == pytest.approx(balanced_variance(p, h, steps, first) / 7)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(0, 6))
def test_first_axis_one_is_the_transposed_problem(seed, steps):
    p, h, (x, y) = random_case(np.random.default_rng(seed), 3, 4)
    bias = first_order_bias(p, h, (x, y), steps, first=1)
    assert first_order_bias(p.T, h.T, (y, x), steps) == pytest.approx(bias, abs=1e-12)
    ours, other = unpaired_mse(p, h, 30, 50, steps, first=1), unpaired_mse(p.T, h.T, 30, 50, steps)
    np.testing.assert_allclose(ours, other, rtol=1e-9)
    for running in (False, True):
        soft = soft_balance(p, (x, y), 0.7, steps=steps, accumulate=running, first=1)
        mirrored = soft_balance(p.T, (y, x), 0.7, steps=steps, accumulate=running)
        np.testing.assert_allclose(soft, mirrored.T, atol=1e-12)


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(0, 5), st.floats(-5, 5))
def test_bias_is_linear_and_blind_to_constants(seed, steps, c):
    p, h, targets = random_case(np.random.default_rng(seed))
    bias = first_order_bias(p, h, targets, steps)
    assert first_order_bias(p, c * h + c, targets, steps) == pytest.approx(c * bias, abs=1e-9)


def test_exponent_one_is_balancing_and_stacks_are_tables_one_by_one():
    rng = np.random.default_rng(2)
    tables = rng.integers(1, 9, (5, 3, 4))
    x, y = rng.dirichlet(np.ones(3), 5), rng.dirichlet(np.ones(4), 5)
    hard, weighted = soft_balance(tables, (x, y), 1, steps=5, first=1), importance_weighted(tables, (x, y))
    for i, table in enumerate(tables):
        np.testing.assert_allclose(hard[i], data_balance(table, (x[i], y[i]), steps=5, first=1).table)
        p = table / table.sum()
        direct = p * np.outer(x[i] / p.sum(axis=1), y[i] / p.sum(axis=0))
        np.testing.assert_allclose(weighted[i], direct)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: attribute_error(LAW, LAW_H, -1), "steps = -1"),
        (lambda: attribute_error(LAW, LAW_H, 1, first=2), "first = 2"),
        (lambda: attribute_error(LAW, LAW_H[:1, :2], 1), "h has shape"),
        (lambda: attribute_error([[1, 0], [1, 0]], np.eye(2), 1), "column 1"),
        (lambda: first_order_bias(LAW, LAW_H, ([0.5, 0.5], [0.5, 0.5]), 1), r"targets\[1\] has length 2"),
        (lambda: first_order_bias(LAW, LAW_H, ([1.5, -0.5], RIGHT[1]), 1), r"targets\[0\]\[1\]"),
        (lambda: predicted_mse(LAW, LAW_H, 0, RIGHT, 1), "n = 0"),
        (lambda: importance_mse(LAW, LAW_H, 2.5, RIGHT), "n = 2.5"),
        (lambda: unpaired_mse(LAW, LAW_H, 10, 0, 1), "n_unpaired = 0"),
        (lambda: ridge_split(LAW, LAW_H, 1), "share = 1"),
        (lambda: importance_weighted([[1, 1], [0, 0]], ([0.5, 0.5], [0.5, 0.5])), "empty row"),
        (lambda: importance_weighted([1, 1], ([1], [1])), "1 axes"),
        (lambda: importance_weighted([np.zeros((2, 2)), np.ones((2, 2))], ([1, 1], [1, 1])), "no mass"),
        (lambda: importance_weighted(LAW, (RIGHT[0], RIGHT[0])), r"targets\[1\] has length 2, axis 1 of the tables"),
        (lambda: importance_weighted([LAW] * 3, ([RIGHT[0]] * 3, [RIGHT[0]] * 3)), r"\(3, 2\)\] do not fit"),
        (lambda: pooled_targets(LAW, RIGHT, 10), "whole numbers"),
        (lambda: pooled_targets(np.ones((2, 3)), RIGHT, 0), "prior_count = 0"),
        (lambda: soft_balance(LAW, RIGHT, 0, steps=1), "exponent = 0"),
        (lambda: soft_balance(LAW, RIGHT, 1, steps=True), "steps = True"),
    ],
)
def test_invalid_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
