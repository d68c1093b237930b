"""The bound, its parts and the expansion: by plain loops, at their ends, and with bad input."""

import math

import numpy as np
import pytest

from balance.bounds import (
    expansion,
    explicit_bound,
    missing_probability,
    remainder_constant,
    simulated_mse,
)
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
