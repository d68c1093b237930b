"""Enumeration of count tables against brute force in rational arithmetic, and simulation against enumeration."""

from fractions import Fraction
from itertools import product
from math import factorial, prod

import numpy as np
import pytest

from balance.enumeration import (
    count_tables,
    exact_mse,
    mean_squared_error,
    number_of_tables,
    simulated_mse,
)
from helpers import H, P

WIDE = [[Fraction(2, 12), Fraction(1, 12), Fraction(3, 12)], [Fraction(1, 12), Fraction(4, 12), Fraction(1, 12)]]
VALUES = [[Fraction(1), Fraction(-1), Fraction(2)], [Fraction(0), Fraction(3), Fraction(1, 2)]]


def all_counts(n, cells):
    return [c for c in product(range(n + 1), repeat=cells) if sum(c) == n]


def chance(counts, law):
    ways = Fraction(factorial(sum(counts)), prod(map(factorial, counts)))
    return ways * prod(p**c for p, c in zip(law, counts, strict=True))


def estimates(counts, law, h, steps, first):
    """P_n^(k)(h), k = 0..steps, in fractions, from nested lists."""
    n = sum(map(sum, counts))
    table = [[Fraction(c, n) for c in row] for row in counts]
    targets = [sum(row) for row in law], [sum(column) for column in zip(*law, strict=True)]
    cells = list(product(range(len(law)), range(len(law[0]))))
    seen = all(map(sum, counts)) and all(map(sum, zip(*counts, strict=True)))
    out = [sum(table[x][y] * h[x][y] for x, y in cells)]
    for j in range(steps):
        if seen and (first + j) % 2 == 0:
            table = [[c * t / sum(row) for c in row] for row, t in zip(table, targets[0], strict=True)]
        elif seen:
            sums = [sum(column) for column in zip(*table, strict=True)]
            table = [[c * t / s for c, t, s in zip(row, targets[1], sums, strict=True)] for row in table]
        out.append(sum(table[x][y] * h[x][y] for x, y in cells))
    return out


@pytest.mark.parametrize("n", [1, 2, 5])
def test_tables_and_probabilities_are_those_of_the_multinomial_law(n):
    law = [Fraction(1, 2), Fraction(1, 8), Fraction(1, 8), Fraction(1, 4)]
    counts, probabilities = map(np.concatenate, zip(*count_tables(n, np.array(law, dtype=float)), strict=True))
    found = {tuple(c): p for c, p in zip(counts.tolist(), probabilities, strict=True)}
    expected = {c: chance(c, law) for c in all_counts(n, 4)}
    assert found.keys() == expected.keys() and len(counts) == number_of_tables(n, 4)
    assert all(abs(found[c] - expected[c]) < 1e-14 for c in expected)


def test_blocks_cover_all_tables_once():
    total, mass, codes = 0, 0.0, []
    for counts, probabilities in count_tables(120, P):
        total, mass = total + len(counts), mass + probabilities.sum()
        codes.append(counts.reshape(-1, 4)[:, :3] @ [121**2, 121, 1])
    codes = np.concatenate(codes)
    assert total == number_of_tables(120, 4) == len(np.unique(codes))
    assert len(codes) > 2 * 131072 and abs(mass - 1) < 1e-12


def test_cells_without_mass_stay_empty():
    counts, probabilities = map(np.concatenate, zip(*count_tables(6, [[3, 0], [0, 1]]), strict=True))
    assert len(counts) == 7 and not counts[:, 0, 1].any() and not counts[:, 1, 0].any()
    assert abs(probabilities.sum() - 1) < 1e-14


@pytest.mark.parametrize("cutoff", [1e-4, 1e-9])
def test_cutoff_keeps_every_likely_table(cutoff):
    counts, probabilities = map(np.concatenate, zip(*count_tables(40, P), strict=True))
    kept, masses = map(np.concatenate, zip(*count_tables(40, P, cutoff=cutoff), strict=True))
    likely = {c.tobytes() for c in counts[probabilities >= 2 * cutoff]}
    assert likely <= {c.tobytes() for c in kept} and len(kept) < len(counts)
    result = exact_mse(P, H, 40, 3, cutoff=cutoff)
    full = exact_mse(P, H, 40, 3)
    assert np.isclose(result.dropped, 1 - masses.sum(), atol=1e-14, rtol=0) and result.dropped > 0
    short = full.mse - result.mse
    assert np.all(short > -1e-15) and np.all(short <= result.dropped * np.ptp(H) ** 2)
    assert full.dropped == 0 and full.tables == len(counts) > result.tables


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("n", [1, 3, 4])
def test_mse_and_bias_agree_with_fractions(n, first):
    law, values = [p for row in WIDE for p in row], [v for row in VALUES for v in row]
    truth = sum(p * v for p, v in zip(law, values, strict=True))
    square, bias = [Fraction(0)] * 4, [Fraction(0)] * 4
    for c in all_counts(n, 6):
        weight = chance(c, law)
        for k, value in enumerate(estimates([c[:3], c[3:]], WIDE, VALUES, 3, first)):
            square[k] += weight * (value - truth) ** 2
            bias[k] += weight * (value - truth)
    result = exact_mse(np.array(WIDE, float), np.array(VALUES, float), n, 3, first=first)
    assert np.allclose(result.mse, np.array(square, float), rtol=1e-12, atol=0)
    assert np.allclose(result.biases, np.array(bias, float), atol=1e-14, rtol=0)
    assert not result.standard_errors.any()


def test_plain_estimate_has_no_remainder():
    result = exact_mse(P, H, 30, 0)
    assert abs(result.remainders[0]) < 1e-11 and abs(result.biases[0]) < 1e-14


def test_remainders_of_the_example():
    published = {
        20: [0, 1.861, 4.040, 6.215, 8.073, 9.116, 9.788],
        40: [0, 1.631, 3.747, 5.307, 7.035, 7.200, 7.983],
        80: [0, 1.550, 3.605, 4.949, 6.317, 6.235, 6.650],
        160: [0, 1.515, 3.536, 4.781, 5.968, 5.821, 6.074],
    }
    for n, row in published.items():
        assert np.allclose(exact_mse(P, H, n, 6).remainders, row, rtol=0, atol=6e-4)


def test_transposing_the_table_exchanges_the_axes():
    law, values = np.array(WIDE, float), np.array(VALUES, float)
    one, other = exact_mse(law, values, 8, 3), exact_mse(law.T, values.T, 8, 3, first=1)
    assert np.allclose(one.mse, other.mse, rtol=1e-13, atol=0)


def test_simulation_has_honest_error_bars():
    full = exact_mse(P, H, 25, 3)
    scores = []
    for seed in range(30):
        drawn = simulated_mse(P, H, 25, 3, draws=2000, seed=seed)
        scores.append((drawn.mse - full.mse)[1:] / drawn.standard_errors[1:])
    scores = np.array(scores)
    assert np.abs(scores.mean(axis=0)).max() < 4 / np.sqrt(30)
    assert np.all((scores.std(axis=0) > 0.6) & (scores.std(axis=0) < 1.5))
    assert drawn.tables == 2000 and abs(drawn.mse[0] - full.mse[0]) < 1e-15


def test_simulated_bias():
    full, drawn = exact_mse(P, H, 25, 3), simulated_mse(P, H, 25, 3, draws=50_000)
    assert np.allclose(drawn.biases, full.biases, rtol=0, atol=1.5e-3)
    assert full.biases[2] > 0.01


def test_rule_between_enumeration_and_simulation():
    assert not mean_squared_error(P, H, 30, 1).standard_errors.any()
    law, values = np.full((3, 3), 1 / 9), np.arange(9.0).reshape(3, 3) ** 2
    assert number_of_tables(18, 9) < 2_000_000 < number_of_tables(19, 9)
    assert mean_squared_error(law, values, 19, 1, draws=500).standard_errors[1] > 0
    assert mean_squared_error(law, values, 6, 1).tables == number_of_tables(6, 9)


def test_too_many_tables_is_an_error_with_a_way_out():
    with pytest.raises(ValueError, match="cutoff"):
        exact_mse(np.full((4, 4), 1 / 16), np.eye(4), 100, 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n = 0"),
        ({"n": 2.5}, "n = 2.5"),
        ({"h": np.ones((3, 2))}, "shape"),
        ({"table": [[1, 1], [0, 0]]}, "row 1"),
        ({"steps": -1}, "steps = -1"),
        ({"cutoff": 1.5}, "cutoff = 1.5"),
        ({"first": 2}, "first = 2"),
    ],
)
def test_bad_input_is_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        exact_mse(**({"table": P, "h": H, "n": 5, "steps": 2} | arguments))
