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


def close(number, fraction):
    return number == pytest.approx(float(fraction), rel=1e-12, abs=1e-15)


@pytest.mark.statement("1.1")
@given(COUNTS, ROW_TARGET, COLUMN_TARGET)
def test_half_step_makes_one_marginal_exact_and_keeps_the_conditionals(counts, rows, columns):
    targets = [r / sum(rows) for r in rows], [c / sum(columns) for c in columns]
    _, first, second = data_balance(counts, targets, steps=2, keep_iterates=True).iterates
    exact = [[Fraction(rows[x] * c, sum(rows) * sum(counts[x])) for c in counts[x]] for x in range(2)]
    for x in range(2):
        assert close(first[x].sum(), Fraction(rows[x], sum(rows)))
        for y in range(3):
            conditional = Fraction(counts[x][y], sum(counts[x]))
            assert close(first[x, y] / first[x].sum(), conditional)
    for y in range(3):  # the Y-step, from the fractions after the X-step
        assert close(second[:, y].sum(), Fraction(columns[y], sum(columns)))
        for x in range(2):
            conditional = exact[x][y] / (exact[0][y] + exact[1][y])
            assert close(second[x, y] / second[:, y].sum(), conditional)


@pytest.mark.statement("1.1")
@pytest.mark.parametrize("axis", [0, 1])
def test_a_value_of_target_zero_and_a_value_that_was_not_seen(axis):
    table = np.array([[1, 2], [3, 5], [0, 0], [6, 1]])
    table = table if axis == 0 else table.T
    step = project(table, [0, 0.2, 0, 0.8], axis=axis)
    step = step if axis == 0 else step.T
    assert step[[0, 2]].tolist() == [[0, 0], [0, 0]]
    for x, masses in ((1, (3, 5, 40)), (3, (6 * 4, 1 * 4, 35))):  # of total 1/5 and 4/5
        assert all(close(step[x, y], Fraction(masses[y], masses[2])) for y in (0, 1))
    # every function of x alone has the mean that the target gives it
    assert close(step.sum(axis=1) @ [9, -2, 4, 3], Fraction(-2 * 1 + 3 * 4, 5))
    with pytest.raises(ValueError, match="is empty"):  # R_X(x) = 0 < P_X(x)
        project(table, [0, 0.2, 0.1, 0.7], axis=axis)


@pytest.mark.statement("1.2")
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1)), max_size=12), st.permutations([1, 4, 5]))
def test_weighted_mean_of_the_list_is_the_mean_after_an_x_step(pairs, shares):
    pairs = [*pairs, (0, 0), (1, 1), (2, 0), (2, 1)]  # every class occurs
    n, h = len(pairs), [[3, -1], [0, 2], [5, 8]]
    size = [sum(x == c for x, _ in pairs) for c in range(3)]
    weighted = sum(Fraction(shares[x], 10) / Fraction(size[x], n) * h[x][y] for x, y in pairs) / n
    means = [Fraction(sum(h[x][y] for x, y in pairs if x == c), size[c]) for c in range(3)]
    assert weighted == sum(Fraction(shares[c], 10) * means[c] for c in range(3))
    counts = [[pairs.count((x, y)) for y in range(2)] for x in range(3)]
    after = data_balance(counts, ([s / 10 for s in shares], [0.5, 0.5]), steps=1).table
    assert close(np.vdot(h, after), weighted)


@pytest.mark.statement("1.2")
def test_classes_without_share_need_not_occur_and_others_must():
    pairs, shares, h = (
        [(0, 0), (0, 1), (2, 1)],
        [Fraction(3, 5), 0, 0, Fraction(2, 5)],
        [[3, -1], [0, 2], [5, 8], [1, 4]],
    )
    counts = [[pairs.count((x, y)) for y in range(2)] for x in range(4)]
    weights = {x: shares[x] / Fraction(sum(counts[x]), 3) for x in (0, 2)}
    # class 3 has a share and was not seen: the weights do not make up for it, and there is no X-step
    assert sum(weights[x] for x, _ in pairs) / 3 == 1 - shares[3]
    with pytest.raises(ValueError, match="is empty"):
        project(counts, [float(s) for s in shares], axis=0)
    pairs.append((3, 0))  # class 1, of share 0, is still missing
    counts[3][0] = 1
    weighted = sum(shares[x] / Fraction(sum(counts[x]), 4) * h[x][y] for x, y in pairs) / 4
    assert weighted == Fraction(3, 5) * 1 + Fraction(2, 5) * 1
    assert close(np.vdot(h, project(counts, [float(s) for s in shares], axis=0)), weighted)


def moments(outcomes):
    mean = sum(outcomes) * Fraction(1, len(outcomes))
    return mean, sum((o - mean) ** 2 for o in outcomes) / len(outcomes)


SAMPLES = [
    ([[0, 1, 5], [2, 2, 3, 7]], (5, 6), (1, 3)),
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
        assert mean == sum(Fraction(N, sum(sizes)) * moments(c)[0] for N, c in zip(sizes, classes, strict=True))
        # one column per pair of the sample, so that the X-step of the package sees the same h
        width = max(n_x)
        counts = np.array([[i < n for i in range(width)] for n in n_x], dtype=float)
        h = np.array([[*c, *[0] * (width - len(c))] for c in classes], dtype=float)
        assert close(np.vdot(h, project(counts, sizes, axis=0)), mean)


@pytest.mark.statement("1.3")
@pytest.mark.parametrize("scheme", ["over", "under"])
def test_mean_squared_error_given_that_every_class_was_seen(scheme):
    """Both sides of (1.7) over all samples of three from five pairs: classes 0 and 1, h in {0, 2, 7} and {1, 4}."""
    population, theta = [(0, 0), (0, 2), (0, 7), (1, 1), (1, 4)], Fraction(9, 4)
    left, right, seen = 0, 0, 0
    for sample in product(population, repeat=3):
        a, b = ([h for x, h in sample if x == c] for c in (0, 1))
        if not a or not b:
            continue
        seen += 1
        n_a, n_b = len(a), len(b)
        if scheme == "over":  # one more of the larger class, two more of the other
            N_a, N_b = n_a + 1 + (n_a < n_b), n_b + 1 + (n_b < n_a)
            sums_a = [sum(a) + sum(d) for d in product(a, repeat=N_a - n_a)]
            sums_b = [sum(b) + sum(d) for d in product(b, repeat=N_b - n_b)]
            added = (N_a - n_a) * moments(a)[1] + (N_b - n_b) * moments(b)[1]
        else:  # one of each
            N_a, N_b = 1, 1
            sums_a, sums_b = a, b
            added = moments(a)[1] * (n_a > 1) + moments(b)[1] * (n_b > 1)
        N = N_a + N_b
        outcomes = [Fraction(s + t, N) for s, t in product(sums_a, sums_b)]
        left += sum((o - theta) ** 2 for o in outcomes) / len(outcomes)
        step = Fraction(N_a, N) * moments(a)[0] + Fraction(N_b, N) * moments(b)[0]
        right += (step - theta) ** 2 + added / N**2
    assert left == right > 0 and seen == 5**3 - 3**3 - 2**3
