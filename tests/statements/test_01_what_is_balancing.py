"""The statements of chapter 1, by rational arithmetic and by listing every outcome."""

from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance import data_balance, project

COUNTS = st.lists(st.lists(st.integers(1, 9), min_size=3, max_size=3), min_size=2, max_size=2)
ROW_TARGET = st.lists(st.integers(1, 9), min_size=2, max_size=2)
COLUMN_TARGET = st.lists(st.integers(1, 9), min_size=3, max_size=3)


@pytest.mark.statement("1.1")
@given(COUNTS, ROW_TARGET, COLUMN_TARGET)
def test_half_step_makes_one_marginal_exact_and_keeps_the_conditionals(counts, rows, columns):
    targets = [r / sum(rows) for r in rows], [c / sum(columns) for c in columns]
    _, first, second = data_balance(counts, targets, steps=2, keep_iterates=True).iterates
    exact = [[Fraction(rows[x] * c, sum(rows) * sum(counts[x])) for c in counts[x]] for x in range(2)]
    for x in range(2):
        assert first[x].sum() == pytest.approx(rows[x] / sum(rows), rel=1e-12)
        for y in range(3):
            conditional = Fraction(counts[x][y], sum(counts[x]))
            assert first[x, y] / first[x].sum() == pytest.approx(float(conditional), rel=1e-12)
    for y in range(3):  # the Y-step, from the fractions after the X-step
        assert second[:, y].sum() == pytest.approx(columns[y] / sum(columns), rel=1e-12)
        conditional = exact[0][y] / (exact[0][y] + exact[1][y])
        assert second[0, y] / second[:, y].sum() == pytest.approx(float(conditional), rel=1e-12)


@pytest.mark.statement("1.1")
def test_row_of_target_zero_becomes_zero():
    step = project([[1, 2], [3, 4], [0, 0]], [0, 1, 0], axis=0)
    assert step[[0, 2]].tolist() == [[0, 0], [0, 0]]
    assert step[1].tolist() == pytest.approx([3 / 7, 4 / 7])


@pytest.mark.statement("1.2")
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=12), st.permutations([1, 4, 5]))
def test_weighted_mean_of_the_list_is_the_mean_after_an_x_step(pairs, shares):
    pairs = [*pairs, (0, 0), (1, 1), (2, 0)]  # every class occurs
    n, h = len(pairs), [[3, -1], [0, 2], [5, 8]]
    size = [sum(x == c for x, _ in pairs) for c in range(3)]
    weighted = sum(Fraction(shares[x], 10) / Fraction(size[x], n) * h[x][y] for x, y in pairs) / n
    counts = [[pairs.count((x, y)) for y in range(2)] for x in range(3)]
    after = data_balance(counts, ([s / 10 for s in shares], [0.5, 0.5]), steps=1).table
    assert np.vdot(h, after) == pytest.approx(float(weighted), rel=1e-12, abs=1e-12)


def moments(outcomes):
    mean = sum(outcomes) * Fraction(1, len(outcomes))
    return mean, sum((o - mean) ** 2 for o in outcomes) / len(outcomes)


SAMPLES = [
    ([[0, 1, 5], [2, 2, 3, 7]], (5, 5), (2, 2)),
    ([[4], [1, 0, 6, 2]], (2, 4), (1, 2)),
    ([[1, 3], [0, 2], [5, 5, 8]], (2, 4, 4), (1, 2, 2)),
]


@pytest.mark.statement("1.3")
@pytest.mark.parametrize(("classes", "over", "under"), SAMPLES)
def test_mean_and_variance_over_all_outcomes_of_resampling(classes, over, under):
    spread = [moments(c)[1] for c in classes]
    n_x = [len(c) for c in classes]
    kept = [[sum(c) + sum(d) for d in product(c, repeat=N - len(c))] for c, N in zip(classes, over, strict=True)]
    drawn = [[sum(d) for d in combinations(c, N)] for c, N in zip(classes, under, strict=True)]
    terms_over = [N - n for N, n in zip(over, n_x, strict=True)]
    terms_under = [Fraction(N * (n - N), max(n - 1, 1)) for N, n in zip(under, n_x, strict=True)]
    for sums, sizes, terms in ((kept, over, terms_over), (drawn, under, terms_under)):
        mean, variance = moments([Fraction(sum(s), sum(sizes)) for s in product(*sums)])
        assert variance == sum(t * v for t, v in zip(terms, spread, strict=True)) / sum(sizes) ** 2
        # one column per pair of the sample, so that the X-step of the package sees the same h
        width = max(n_x)
        counts = np.array([[i < n for i in range(width)] for n in n_x], dtype=float)
        h = np.array([[*c, *[0] * (width - len(c))] for c in classes], dtype=float)
        assert np.vdot(h, project(counts, sizes, axis=0)) == pytest.approx(float(mean), rel=1e-12)


@pytest.mark.statement("1.3")
def test_mean_squared_error_adds_the_mean_of_the_variances():
    """Both sides of (1.7) over all 3^4 samples of four pairs in two classes of two, for undersampling to one each."""
    values, theta = (0, 1, 4), Fraction(7, 5)
    left = right = 0
    for a, b, c, d in product(values, repeat=4):
        outcomes = [Fraction(x + y, 2) for x, y in product((a, b), (c, d))]
        left += sum((o - theta) ** 2 for o in outcomes) / 4
        added = (moments([a, b])[1] + moments([c, d])[1]) / 2**2
        right += (Fraction(a + b + c + d, 4) - theta) ** 2 + added
    assert left == right
