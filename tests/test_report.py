"""The report on an error: which number to use, and what it prints."""

import dataclasses

import numpy as np
import pytest

from balance.bounds import error_report, exact_mse
from balance.variance import balanced_variance
from helpers import H, P

BLOCKS = np.array([[0.2, 0.1, 0], [0.1, 0.3, 0], [0, 0, 0.3]])


def test_report_says_which_number_to_use():
    exact = error_report(P, H, 50, 3)
    assert exact.exact and exact.standard_error == 0 and "exact error" in exact.trust
    assert np.isclose(exact.error**2, exact_mse(P, H, 50, 3).mse[3])
    assert np.isclose(exact.plain**2, balanced_variance(P, H, 0) / 50)
    table = np.random.default_rng(3).dirichlet(np.full(16, 5.0)).reshape(4, 4)
    h = np.add.outer(np.arange(4.0), np.arange(4.0) ** 2) + np.eye(4)
    large, small = error_report(table, h, 3000, 4), error_report(table, h, 12, 4)
    assert not large.exact and "the expansion" in large.trust and "Use the expansion" in str(large)
    assert "the simulated error" in small.trust and "the rarest value is expected" in small.trust
    assert large.proved <= np.ptp(h) and "says nothing here" in str(large)
    many = error_report(np.ones((50, 50)), np.arange(50.0)[None], 10**5, 1, draws=50)
    assert many.expanded is None and "not available" in str(many) and "expansion is not available" in many.trust
    useful = error_report(P, H, 10**7, 2, draws=50)
    assert useful.proved == min(b.rmse for b in useful.bounds.values()) < 1.1 * useful.first_order
    assert "contraction_bound" not in error_report(BLOCKS, np.arange(3.0)[None], 10, 2).bounds


def test_report_of_a_constant_does_not_call_a_simulation_exact():
    ones = error_report(np.ones((10, 10)), np.full((10, 10), 3.0), 1000, 2, draws=50)
    assert ones.error == ones.standard_error == ones.proved == 0
    assert not ones.exact and "exact" not in ones.trust
    assert error_report(P, np.ones((2, 2)), 20, 2).exact


def test_report_says_that_a_simulation_is_coarse():
    table = np.random.default_rng(4).dirichlet(np.full(36, 2.0)).reshape(6, 6)
    additive = np.add.outer(np.arange(6.0), np.arange(6.0) ** 2)
    report = error_report(table, additive, 2000, 4, draws=20)
    assert report.standard_error > 0.05 * report.error and "pass more draws" in report.trust
    fine = error_report(table, np.random.default_rng(1).normal(size=(6, 6)), 2000, 4, draws=4000)
    assert "pass more draws" not in fine.trust
    # the simulated mean square may come out negative: 0 is then within the error that is stated
    zero = dataclasses.replace(fine, error=0.0, standard_error=0.1)
    assert "pass more draws" in zero.trust
    assert "not available" in dataclasses.replace(fine, expanded=None).trust


def test_standard_error_of_the_root():
    """To first order that of the mean square over twice the root, also seen over seeds."""
    table = np.random.default_rng(3).dirichlet(np.full(16, 5.0)).reshape(4, 4)
    h = np.add.outer(np.arange(4.0), np.arange(4.0) ** 2) + np.eye(4)
    reports = [error_report(table, h, 200, 3, draws=500, seed=i) for i in range(60)]
    ratio = np.std([r.error for r in reports]) / np.mean([r.standard_error for r in reports])
    assert 0.7 < ratio < 1.4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 1}, "draws = 1"),
        ({"draws": 1e4}, "draws = 10000.0"),
        ({"n": 10**19}, "not drawn; use `expansion`"),
        ({"n": 10**6, "steps": 20_000}, "would take minutes; pass draws=2500 or fewer half-steps"),
        ({"table": np.ones((300, 300)), "h": np.ones((300, 1)), "steps": 50}, "90,000 cells.*pass draws=4444"),
    ],
)
def test_report_refuses_what_would_take_minutes(change, message):
    with pytest.raises(ValueError, match=message):
        error_report(**{"table": P, "h": H, "n": 1000, "steps": 2} | change)
