"""The expansion: all numbers of half-steps at once, the choice of one, and bad input."""

import tracemalloc

import numpy as np
import pytest

from balance.expansion import Expansion, expansion, remainder_constant
from balance.variance import balanced_variance, balanced_variances, influence_function, influence_functions
from helpers import WIDE, F, H, P


@pytest.mark.parametrize("first", [0, 1])
def test_all_numbers_of_half_steps_at_once(first):
    result = expansion(WIDE, F, 5, first=first)
    for k in range(6):
        assert np.isclose(result.constants[k], remainder_constant(WIDE, F, k, first=first), rtol=1e-12, atol=1e-14)
        assert np.isclose(result.variances[k], balanced_variance(WIDE, F, k, first), rtol=1e-12, atol=0)
    assert np.array_equal(result.variances, balanced_variances(WIDE, F, 5, first))
    functions = influence_functions(WIDE, F, 5)
    for r in range(6):
        assert np.allclose(functions[r, first], influence_function(WIDE, F, r, first=first), rtol=0, atol=1e-14)


def test_best_number_of_half_steps_within_a_share_of_the_plain_error():
    result = Expansion(np.array([4.0, 2.0, 1.0, 0.99]), np.array([0.0, 1.0, 3.0, 30.0]), np.zeros(4))
    # n MSE at n = 100: 4, 2.01, 1.03, 1.29
    assert result.best_steps(100) == 2 and result.best_steps(100, within=0.24) == 2
    assert result.best_steps(100, within=0.25) == 1 and result.best_steps(100, within=1.0) == 0
    additive = np.add.outer([0.0, 1.0], [0.0, 2.0])
    part = expansion(P, additive, 20)
    # h is additive: every sweep improves, and the error tends to 0
    assert part.best_steps(1000) >= 19 and part.best_steps(1000, within=0.01) == 4
    with pytest.raises(ValueError, match="within"):
        expansion(P, H, 2).best_steps(10, within=-0.1)


def test_expansion_refuses_what_memory_or_time_do_not_allow():
    with pytest.raises(ValueError, match="40,000 cells, 40,000 of them positive, is too large"):
        expansion(np.ones((200, 200)), np.ones((200, 1)), 1)
    with pytest.raises(ValueError, match="steps = 5000: the expansion would take minutes"):
        expansion(P, H, 5000)
    # a sparse table of the same size is a matter of its positive cells, and one constant of one sequence
    assert np.isfinite(remainder_constant(np.eye(100), np.arange(100.0)[None], 1))
    assert np.isclose(remainder_constant(P, H, 1000), remainder_constant(P, H, 200), rtol=1e-9)


@pytest.mark.parametrize("n", [0, -3, np.nan])
def test_expanded_error_refuses_n(n):
    for call in (expansion(P, H, 2).mse, expansion(P, H, 2).best_steps):
        with pytest.raises(ValueError, match=r"n = .*: pass a number of observations > 0"):
            call(n)


def test_expanded_error_at_very_large_n():
    mse = expansion(P, H, 2).mse(10**30)
    assert mse.dtype == float and np.allclose(mse * 1e30, expansion(P, H, 2).variances, rtol=1e-12)


def test_variances_of_many_half_steps_hold_two_functions_at_a_time():
    table, h = np.random.default_rng(8).random((2, 60, 50)) + 0.1
    tracemalloc.start()
    variances = balanced_variances(table, h, 300)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # all functions of both orders would be 14 MB
    assert peak < 2e6 and np.isclose(variances[300], balanced_variance(table, h, 300), rtol=1e-12, atol=0)
