"""The bound, its parts and the expansion: by plain loops, at their ends, and with bad input."""

import math
import tracemalloc

import numpy as np
import pytest

from balance.bounds import (
    contraction_bound,
    contraction_constant,
    exact_mse,
    expansion,
    explicit_bound,
    largest_log_odds_ratio,
    missing_probability,
    quadratic_bound,
    remainder_constant,
    simulated_mse,
    uniform_bound,
)
from balance.variance import influence_function
from helpers import SPARSE_LAW, WIDE, F, H, P


def test_missing_values_of_a_large_table_is_an_error():
    with pytest.raises(ValueError, match="20 together"):
        missing_probability(np.ones((10, 11)), 5)


@pytest.mark.parametrize(("table", "h", "first"), [(P, H, 0), (WIDE, F, 1), (SPARSE_LAW, F, 0)])
def test_parts_of_the_bound_by_plain_loops(table, h, first):
    n, k = 70, 3
    m, l = table.shape
    sides = [
        [sum(table[x][y] for y in range(l)) for x in range(m)],
        [sum(table[x][y] for x in range(m)) for y in range(l)],
    ]
    cells = [(x, y) for x in range(m) for y in range(l) if table[x][y] > 0]
    g = {z: h[z] for z in cells}
    spread = largest = 0.0
    for j in range(k, 0, -1):
        axis, moments = (first + j - 1) % 2, []
        for t, p in enumerate(sides[axis]):
            mean = sum(table[z] * g[z] for z in cells if z[axis] == t) / p
            g |= {z: g[z] - mean for z in cells if z[axis] == t}
            moments.append([sum(table[z] * g[z] ** r for z in cells if z[axis] == t) / p for r in (2, 4)])
        spread += sum((3 * v * v + q / (n * p)) ** 0.5 for (v, q), p in zip(moments, sides[axis], strict=True)) ** 0.5
        largest = max(largest, *map(abs, g.values()))
    k4 = sum((3 * (1 - t) ** 2 + (1 - t) / (n * t)) / t**2 for t in sides[0] + sides[1])
    sigma = sum(table[z] * g[z] ** 2 for z in cells) ** 0.5
    span = max(h[z] for z in cells) - min(h[z] for z in cells)
    bound = explicit_bound(table, h, n, k, first=first)
    assert np.isclose(bound.first_order, sigma / n**0.5, rtol=1e-10, atol=0)
    assert np.isclose(
        bound.remainder, (8 / 3 * k4**0.25 * spread + 32 / 9 * k * (k - 1) * largest * k4**0.5) / n, rtol=1e-10, atol=0
    )
    rare = span * (2 * (m + l)) ** 0.5 * math.exp(-n * min(sides[0] + sides[1]) / (72 * k * k))
    assert np.isclose(bound.rare_event, rare, rtol=1e-10, atol=0) and bound.oscillation == span


def test_looseness_of_the_bound():
    profile = expansion(P, H, 6)
    for n, expected in ((10**4, (1.10, 2.1, 5.5, 275)), (10**6, (1.01, 1.11, 1.20, 2.5))):
        ratios = [explicit_bound(P, H, n, k).rmse / np.sqrt(profile.mse(n)[k]) for k in (1, 2, 3, 6)]
        assert np.allclose(ratios, expected, rtol=0.01, atol=0)
    assert all(explicit_bound(P, H, 700, k).vacuous for k in (2, 3, 6))
    with pytest.raises(ValueError, match="at least 1"):
        explicit_bound(P, H, 10, 0)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: explicit_bound(P, H, 0, 2), "n = 0"),
        (lambda: explicit_bound(P, H, 10, 2.5), "steps = 2.5"),
        (lambda: explicit_bound([[1, 1], [0, 0]], H, 10, 2), "row 1"),
        (lambda: expansion(P, H, -1), "steps = -1"),
        (lambda: expansion(P, np.ones((3, 2)), 2), "shape"),
        (lambda: remainder_constant(P, H, 2, first=2), "first = 2"),
        (lambda: missing_probability(P, 1.5), "n = 1.5"),
        (lambda: simulated_mse(P, H, 10, 2, draws=1), "draws = 1"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_constants_of_the_example():
    result = expansion(P, H, 12)
    published = [1.48125, 3.46985, 4.62201, 5.64373, 5.45867, 5.59035, 5.55068, 5.54481]
    assert np.allclose(result.constants[[1, 2, 3, 4, 5, 6, 8, 12]], published, rtol=0, atol=1.1e-5)
    biases = [0, 0.4275, 0.6267, 0.6287, 0.6594, 0.6539, 0.6586, 0.6599]
    assert np.allclose(result.scaled_biases[[1, 2, 3, 4, 5, 6, 8, 12]], biases, rtol=0, atol=6e-5)


BLOCKS = np.array([[0.2, 0.1, 0], [0.1, 0.3, 0], [0, 0, 0.3]])
BOUNDS = (explicit_bound, quadratic_bound, contraction_bound, uniform_bound)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "at least 1 half-step"),
        ({"n": 0}, "n = 0"),
        ({"first": 2}, "first = 2"),
        ({"h": np.ones((3, 3))}, "h has shape"),
        ({"table": [[0, 0], [0.5, 0.5]]}, "row 0"),
    ],
)
def test_bounds_refuse_bad_input(bound, change, message):
    with pytest.raises(ValueError, match=message):
        bound(**{"table": P, "h": H, "n": 10, "steps": 2} | change)


@pytest.mark.parametrize("delta", [0, 0.26, -0.1, np.nan])
def test_contraction_bound_refuses_delta(delta):
    with pytest.raises(ValueError, match="delta"):
        contraction_bound(P, H, 100, 2, delta=delta)


def test_contraction_bound_is_for_positive_tables():
    with pytest.raises(ValueError, match="use uniform_bound"):
        contraction_bound(BLOCKS, np.arange(3.0)[None], 100, 2)


def test_contraction_bound_takes_the_best_delta():
    for n in (10_000, 10**6):
        chosen = contraction_bound(P, H, n, 6)
        others = [contraction_bound(P, H, n, 6, delta=d).rmse for d in np.geomspace(1e-3, 0.25, 40)]
        assert chosen.rmse <= min(others) * 1.02
    # the first half-step is on the other axis: the same as the transposed problem
    for bound in BOUNDS:
        assert np.isclose(bound(WIDE, F, 10**5, 3, first=1).rmse, bound(WIDE.T, F.T, 10**5, 3).rmse, rtol=1e-12)


def test_bounds_hold_beside_exact_errors_on_hard_tables():
    rng = np.random.default_rng(512)
    diagonal, thin = np.array([[0.499, 0.001], [0.001, 0.499]]), np.array([[0.02, 0.49], [0, 0.49]])
    for table in (P, diagonal, thin, BLOCKS[1:, 1:], np.full((1, 3), 1 / 3), np.diag([0.3, 0.7])):
        table = table / table.sum()
        h = rng.normal(size=table.shape)
        for n in (1, 2, 7, 30):
            mse = exact_mse(table, h, n, 12).mse
            for k in (1, 2, 5, 12):
                for bound in BOUNDS:
                    if bound is not contraction_bound or table.all():
                        assert np.sqrt(mse[k]) <= bound(table, h, n, k).rmse * (1 + 1e-12)
                both = uniform_bound(table, h, n, k)
                assert both.lower <= mse[k] * (1 + 1e-12) and mse[k] <= both.upper * (1 + 1e-12)


def test_constants_of_the_quadratic_bound_are_suprema():
    """A has the largest G and the largest d over k; for a slow table, upper bounds of them."""

    def sizes(table, h, k):
        largest, spread = 0.0, 0.0
        for j in range(k):
            axis = j % 2
            g, target = influence_function(table, h, k - j, first=axis), table.sum(axis=1 - axis)
            v, q = ((table * g**r).sum(axis=1 - axis) / target for r in (2, 4))
            spread = max(spread, np.sqrt(np.sum(np.sqrt(3 * v**2 + q / target))))
            largest = max(largest, np.abs(g[table > 0]).max())
        return largest, spread

    def constant(table, h, ks):
        p = np.concatenate([table.sum(axis=1), table.sum(axis=0)])
        k4 = np.sum((3 * (1 - p) ** 2 + (1 - p) / p) / p**2)
        largest, spread = np.max([sizes(table, h, k) for k in ks], axis=0)
        rare = 72 / np.e * np.ptp(h[table > 0]) * np.sqrt(2 * len(p)) / p.min()
        return 8 / 3 * k4**0.25 * spread + 32 / 9 * largest * np.sqrt(k4) + rare

    for table, h in ((P, H), (WIDE, F), (SPARSE_LAW, F), (np.outer([0.4, 0.6], [0.5, 0.5]), H)):
        value = quadratic_bound(table, h, 1, 1).remainder
        assert np.isclose(value, constant(table, h, (1, 2, 3, 4, 150, 151)), rtol=1e-9, atol=0)
    slow = np.array([[0.5 - 1e-5, 1e-5], [1e-5, 0.5 - 1e-5]])
    assert constant(slow, H, (1, 2, 50)) <= quadratic_bound(slow, H, 1, 1).remainder < np.inf


def test_constants_of_a_table_by_their_definitions():
    rng = np.random.default_rng(7)
    table = rng.dirichlet(np.ones(12)).reshape(3, 4)
    logs = np.log(table)
    ratios = [
        logs[x, y] + logs[i, j] - logs[x, j] - logs[i, y]
        for x in range(3) for i in range(3) for y in range(4) for j in range(4)
    ]  # fmt: skip
    assert np.isclose(largest_log_odds_ratio(table), max(ratios), rtol=1e-12)
    assert largest_log_odds_ratio([[0.2, 0.8]]) == 0 and largest_log_odds_ratio(BLOCKS) == np.inf
    assert contraction_constant(np.diag([0.3, 0.7])) == contraction_constant([[0.2, 0.8]]) == 1
    slow = np.array([[0.5 - 1e-6, 1e-6], [1e-6, 0.5 - 1e-6]])
    # for two values Gamma_r is s^r
    assert 1 / (4e-6) <= contraction_constant(slow) < 1.001 / (4e-6)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("factor", "shift"), [(7.0, 0.0), (-1e-40, 0.0), (1e40, 0.0), (1.0, 4096.0)])
def test_bounds_follow_the_scale_of_h_and_not_its_level(bound, factor, shift):
    """Errors are those of h less a constant, and proportional to it."""
    one, other = bound(P, H, 10**6, 3), bound(P, factor * np.array(H) + shift, 10**6, 3)
    for name in ("first_order", "remainder", "rare_event", "oscillation"):
        assert np.isclose(getattr(other, name), abs(factor) * getattr(one, name), rtol=1e-9, atol=0)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_constant_is_estimated_without_error(bound):
    result = bound(P, np.full((2, 2), 1e9), 10, 3)
    assert result.rmse == result.oscillation == 0 and result.vacuous
    if bound is uniform_bound:
        assert result.lower == result.upper == result.constant == result.constant_above == 0


@pytest.mark.parametrize("bound", [explicit_bound, quadratic_bound, uniform_bound])
def test_values_of_h_off_the_support_do_not_matter(bound):
    table, h = np.array([[0.3, 0.2], [0.0, 0.5]]), np.array([[1.0, -2.0], [0.5, 3.0]])
    far = h.copy()
    far[1, 0] = 1e300
    assert bound(table, h, 10**6, 3) == bound(table, far, 10**6, 3)


@pytest.mark.parametrize("bound", BOUNDS)
def test_bounds_at_very_large_n(bound):
    """First order is all that is left, and numbers above the 64-bit integers are taken."""
    for n in (10**18, 10**30):
        result = bound(P, H, n, 4)
        assert np.isclose(result.rmse * math.sqrt(n), math.sqrt(expansion(P, H, 4).variances[4]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 10**5}, "at most 20,000 half-steps are evaluated for 4 cells"),
        ({"h": [[0, 1e60], [1, 1]]}, "ranges from 0 to 1e[+]60: multiply it"),
        ({"h": [[0, 1e-60], [0, 0]]}, "ranges from 0 to 1e-60: multiply it"),
        ({"h": [[-1e308, 1e308], [0, 0]]}, "multiply it"),
        ({"table": [[1e-60, 1], [1, 1]]}, r"cell \(0, 0\) has mass 3.33e-61: set a mass below 1e-50 to 0"),
    ],
)
def test_what_doubles_or_time_do_not_allow_is_refused(bound, change, message):
    with pytest.raises(ValueError, match=message):
        bound(**{"table": P, "h": H, "n": 10, "steps": 2} | change)


def test_many_half_steps_of_a_large_table_take_little_memory():
    table, h = np.random.default_rng(5).random((2, 60, 60)) + 0.1
    tracemalloc.start()
    for bound in (explicit_bound, contraction_bound):
        bound(table, h, 10**6, 400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # all functions of both orders would be 23 MB
    assert peak < 4e6


def test_no_contraction_that_doubles_can_see():
    bound = contraction_bound([[0.5, 1e-20], [1e-20, 0.5]], H, 10**6, 3)
    assert bound.remainder == math.inf and bound.vacuous
    assert uniform_bound([[0.5, 1e-45], [1e-45, 0.5]], H, 10**6, 3).vacuous


def test_missing_probability_is_not_negative():
    assert str(missing_probability(P, 10**30)) == "0.0"


def test_quadratic_bound_where_s_rounds_to_one():
    slow = np.array([[0.5, 1e-18], [1e-18, 0.5]])
    bound = quadratic_bound(slow, H, 1000, 2)
    assert np.isfinite(bound.rmse) and bound.remainder > 0
