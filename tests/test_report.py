"""The report on an error: which number to use, and what it prints."""

import numpy as np

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
    assert many.expanded is None and "not available" in str(many) and "simulated error" in many.trust
    useful = error_report(P, H, 10**7, 2, draws=50)
    assert useful.proved == min(b.rmse for b in useful.bounds.values()) < 1.1 * useful.first_order
    assert "contraction_bound" not in error_report(BLOCKS, np.arange(3.0)[None], 10, 2).bounds
