"""The statements of chapter 3 by linear algebra, rational arithmetic and enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import Phase, assume, example, given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize, stats

from balance import data_balance, kl_divergence, marginal, operators, project, total_variation
from balance.datasets import load_table
from balance.operators import center, conditional_mean, markov_svd
from helpers import (
    SPARSE_COUNTS,
    UNIFORM,
    H,
    P,
    check_decomposition,
    random_function,
    random_problem,
    weighted_matrix,
)

# no shrinking: the tables are small as they are drawn, and planted errors must fail quickly
quick = settings(max_examples=60, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate))
BLOCKS = np.array([[0, 2, 0, 1], [3, 0, 4, 0], [1, 0, 2, 0]])


@st.composite
def counts(draw, least=1, most=5):
    """Tables of counts with empty cells but no empty row or column."""
    m, l = draw(st.integers(least, most)), draw(st.integers(least, most))
    cells = draw(st.lists(st.integers(0, 4), min_size=m * l, max_size=m * l))
    table = np.array(cells).reshape(m, l)
    assume(table.sum(axis=0).all() and table.sum(axis=1).all())
    return table


def exact_mean(table, h, axis):
    """Conditional means in rational arithmetic, by two loops over the cells."""
    total, mass = {}, {}
    for cell in np.ndindex(table.shape):
        weight, value = Fraction(int(table[cell])), Fraction(int(h[cell]))
        total[cell[axis]] = total.get(cell[axis], 0) + weight * value
        mass[cell[axis]] = mass.get(cell[axis], 0) + weight
    return [total[i] / mass[i] for i in range(table.shape[axis])]


def spans(table):
    """Indicators of the rows and of the columns as vectors of the positive cells, weighted for L2(P)."""
    x, y = np.nonzero(table)
    root = np.sqrt(table[x, y] / table.sum())[:, None]
    return root * (x[:, None] == np.arange(len(table))), root * (y[:, None] == np.arange(table.shape[1]))


def two_step(table):
    """Transition matrix of the chain x -> y -> x'."""
    return (table / table.sum(axis=1)[:, None]) @ (table / table.sum(axis=0)).T


def in_cells(table, h):
    """A function as a vector of the positive cells, in which L2(P) is Euclidean."""
    return np.sqrt(table[table > 0] / table.sum()) * np.broadcast_to(h, table.shape)[table > 0]


def rate_bound(s, k):
    """The factor of the inequality in (3.17)."""
    return s ** (2 * (k - 1))


def mixing_bounds(s_2, t, start):
    """Bounds on chi-square and on total variation after t rounds from chi-square `start`."""
    return s_2 ** (4 * t) * start, s_2 ** (2 * t) * math.sqrt(start) / 2


def largest_value(least):
    """How large s_2 may be if the smallest mass is `least`."""
    return least / (1 - least)


def second_bound(wrong, c, r, p):
    """The bound of Proposition 3.8 on the second term."""
    return np.abs(wrong).max() * np.abs(c).max() * np.abs(r - p).sum()


def below_one(values):
    """The largest singular value below 1, or 0 if there is none."""
    return values[values < 1 - 1e-9].max(initial=0)


@pytest.mark.statement("3.1")
@quick
@given(counts(), st.integers(0, 1), st.integers(0, 99))
def test_conditional_means_are_orthogonal_projections(table, axis, seed):
    rng = np.random.default_rng(seed)
    h, f = rng.integers(-9, 10, size=table.shape), rng.normal(size=table.shape[axis])
    mean = conditional_mean(table, h, axis)
    assert np.allclose(mean, np.array(exact_mean(table, h, axis), dtype=float), atol=1e-12)
    joint, f = table / table.sum(), np.expand_dims(f, 1 - axis)
    left = h - np.expand_dims(mean, 1 - axis)
    squares = [np.sum(joint * g**2) for g in (h - f, left, np.expand_dims(mean, 1 - axis) - f)]
    assert squares[0] == pytest.approx(squares[1] + squares[2])
    assert np.allclose(center(table, h, axis), left)
    assert np.allclose((joint * center(table, h, axis)).sum(axis=1 - axis), 0, atol=1e-12)
    g = rng.normal(size=table.shape)
    projected, other = (np.expand_dims(conditional_mean(table, a, axis), 1 - axis) for a in (h, g))
    assert np.allclose(conditional_mean(table, projected, axis), mean, atol=1e-12)
    assert np.sum(joint * projected * g) == pytest.approx(np.sum(joint * h * other), abs=1e-12)
    assert np.sum(joint * projected) == pytest.approx(np.sum(joint * h), abs=1e-12)
    assert np.sum(joint * projected**2) <= np.sum(joint * h**2) + 1e-12


@pytest.mark.statement("3.2")
@quick
@given(counts(), st.integers(0, 99))
def test_conditional_means_are_adjoint(table, seed):
    rng, joint = np.random.default_rng(seed), table / table.sum()
    f, g = rng.normal(size=(len(table), 1)), rng.normal(size=(1, table.shape[1]))
    middle = sum(f[x, 0] * g[0, y] * joint[x, y] for x, y in np.ndindex(table.shape))
    assert np.sum(f[:, 0] * conditional_mean(table, g, 0) * joint.sum(axis=1)) == pytest.approx(middle)
    assert np.sum(g[0] * conditional_mean(table, f, 1) * joint.sum(axis=0)) == pytest.approx(middle)
    matrix_x, matrix_y = table / table.sum(axis=1)[:, None], table.T / table.sum(axis=0)[:, None]
    assert np.allclose(conditional_mean(table, g, 0), matrix_x @ g[0])
    assert np.allclose(conditional_mean(table, f, 1), matrix_y @ f[:, 0])


@pytest.mark.statement("3.3")
@quick
@example(BLOCKS)
@given(counts())
def test_singular_functions(table):
    check_decomposition(table)


@pytest.mark.statement("3.3")
def test_two_by_two_by_hand():
    svd = markov_svd(P)
    assert svd.singular_values[1] ** 2 == pytest.approx(8 / 33, rel=1e-13)
    assert np.allclose(svd.alpha[:, 1], [math.sqrt(3 / 2), -math.sqrt(2 / 3)])
    assert np.allclose(svd.beta[:, 1], [math.sqrt(11 / 9), -math.sqrt(9 / 11)])
    assert np.allclose(center(P, H, 0), [[0.75, -2.25], [-1.875, 0.625]])
    assert np.allclose(center(P, H, 1), [[1 / 6, -45 / 11], [-1 / 3, 10 / 11]])
    flipped = markov_svd(P[:, ::-1])
    assert np.allclose(flipped.alpha, svd.alpha) and np.allclose(flipped.beta[:, 1], svd.beta[::-1, 1])


def best_correlation(table, known):
    """The largest correlation orthogonal to the first `known` pairs, by an optimizer."""
    joint, svd = table / table.sum(), markov_svd(table)
    roots = np.sqrt(joint.sum(axis=1)), np.sqrt(joint.sum(axis=0))
    functions = svd.alpha, svd.beta
    free = [linalg.null_space((r[:, None] * f[:, :known]).T) for r, f in zip(roots, functions, strict=True)]
    inner = free[0].T @ (joint / np.outer(*roots)) @ free[1]
    m = inner.shape[0]

    def minus(scores):
        f, g = scores[:m], scores[m:]
        return -f @ inner @ g / np.sqrt(f @ f * (g @ g))

    starts = np.random.default_rng(0).normal(size=(4, sum(inner.shape)))
    return max(-optimize.minimize(minus, start).fun for start in starts)


@pytest.mark.statement("3.4")
@pytest.mark.parametrize("table", [SPARSE_COUNTS, SPARSE_COUNTS.T, load_table("hair_eye").counts])
def test_maximal_correlation_against_an_optimizer(table):
    svd = markov_svd(table)
    x, y = (np.repeat(i, table.ravel()) for i in np.indices(table.shape).reshape(2, -1))
    for j in range(2, min(table.shape) + 1):
        value = svd.singular_values[j - 1]
        assert best_correlation(table, j - 1) == pytest.approx(value, abs=1e-7)
        assert np.corrcoef(svd.alpha[x, j - 1], svd.beta[y, j - 1])[0, 1] == pytest.approx(value, abs=1e-9)
    assert operators.maximal_correlation(table) == svd.singular_values[1]


@pytest.mark.statement("3.4")
@quick
@given(counts(least=2), st.integers(0, 99))
def test_no_pair_of_functions_correlates_more(table, seed):
    rng, s = np.random.default_rng(seed), operators.maximal_correlation(table)
    f, g = rng.normal(size=len(table)), rng.normal(size=table.shape[1])
    x, y = (np.repeat(i, table.ravel()) for i in np.indices(table.shape).reshape(2, -1))
    assert abs(np.corrcoef(f[x], g[y])[0, 1]) <= s + 1e-9
    assert (s < 1e-7) == (np.linalg.matrix_rank(table) == 1)


@pytest.mark.statement("3.5")
@quick
@example(BLOCKS)
@given(counts())
def test_planes(table):
    in_x, in_y = spans(table)
    s = markov_svd(table).singular_values
    angles = linalg.subspace_angles(in_x, in_y)
    assert np.allclose(np.cos(angles[::-1]), s, atol=1e-7)
    ranks = np.linalg.matrix_rank(np.hstack([in_x, in_y]))
    assert ranks == sum(table.shape) - np.sum(s == 1)


@pytest.mark.statement("3.5")
@quick
@example(BLOCKS)
@example(BLOCKS.T)
@given(counts(least=2))
def test_both_projections_in_each_space(table):
    mu_x, mu_y = (b @ np.linalg.pinv(b) for b in spans(table))
    svd = markov_svd(table)
    s, r = svd.singular_values, min(table.shape)
    a = np.array([in_cells(table, f[:, None]) for f in svd.alpha.T]).T
    b = np.array([in_cells(table, g) for g in svd.beta.T]).T
    assert np.allclose(a.T @ b, np.diag(s), atol=1e-9)
    for mu, own, other in ((mu_x, a, b), (mu_y, b, a)):
        assert np.allclose(own.T @ own, np.eye(r), atol=1e-9)
        assert np.allclose(mu @ own, own, atol=1e-9) and np.allclose(mu @ other, s * own, atol=1e-9)
    lines = np.linalg.norm(a - b, axis=0) < 1e-6
    assert np.array_equal(lines, s == 1)
    longer, shorter = (mu_x, mu_y) if len(table) > table.shape[1] else (mu_y, mu_x)
    pairs = linalg.orth(np.hstack([a, b]), rcond=1e-9)
    left, sizes, _ = np.linalg.svd(longer - longer @ pairs @ pairs.T)
    rest = left[:, sizes > 1e-8]
    assert rest.shape[1] == abs(table.shape[0] - table.shape[1])
    assert np.allclose(longer @ rest, rest, atol=1e-8) and np.allclose(shorter @ rest, 0, atol=1e-8)
    kernel = linalg.null_space(np.vstack([mu_x, mu_y]), rcond=1e-9)
    assert np.allclose(mu_x @ kernel, 0, atol=1e-8) and np.allclose(mu_y @ kernel, 0, atol=1e-8)
    assert len(a) == np.sum(np.where(lines, 1, 2)) + rest.shape[1] + kernel.shape[1]


@pytest.mark.statement("3.5")
def test_centerings_commute_only_if_every_value_is_0_or_1():
    two = linalg.block_diag(np.ones((2, 2)), np.ones((2, 2)))
    for table, same in ((two, True), (np.outer([1, 2], [1, 1, 3]), True), (SPARSE_COUNTS, False)):
        h = random_function(table)
        orders = [in_cells(table, center(table, center(table, h, a), 1 - a)) for a in (0, 1)]
        assert np.allclose(*orders) == same


@pytest.mark.statement("3.5")
@quick
@given(counts(least=2), st.integers(0, 99))
def test_length_of_the_component_in_each_plane(table, seed):
    svd, h = markov_svd(table), random_function(table, seed)
    s, (u, v) = svd.singular_values, svd.coefficients(h)
    inside = s < 1 - 1e-6
    root = np.sqrt(svd.table)
    for j in np.flatnonzero(inside):
        basis = np.stack([(root * svd.alpha[:, [j]]).ravel(), (root * svd.beta[:, j]).ravel()], axis=1)
        fitted = basis @ np.linalg.lstsq(basis, (root * h).ravel())[0]
        length = (u[j] ** 2 + v[j] ** 2 - 2 * s[j] * u[j] * v[j]) / (1 - s[j] ** 2)
        assert np.sum(fitted**2) == pytest.approx(length, rel=1e-6, abs=1e-12)


@pytest.mark.statement("3.6")
@quick
@example(BLOCKS, 0)
@given(counts(), st.integers(0, 99))
def test_alternating_projections(table, seed):
    svd, h = markov_svd(table), random_function(table, seed)
    root, basis = np.sqrt(svd.table), linalg.orth(np.hstack(spans(table)))
    vector = (root * h)[table > 0]
    limit = vector - basis @ (basis.T @ vector)
    s = svd.singular_values
    below = s < 1
    first = center(table, h, 0)
    squares = svd.coefficients(first)[1][below] ** 2 / (1 - s[below] ** 2)
    current = first
    for k in range(2, 7):
        current = center(table, current, 1 if k % 2 == 0 else 0)
        length = np.sum(((root * current)[table > 0] - limit) ** 2)
        predicted = np.sum(s[below] ** (2 * k - 2) * squares)
        assert length == pytest.approx(predicted, rel=1e-6, abs=1e-12)
        start = np.sum(((root * first)[table > 0] - limit) ** 2)
        assert length <= rate_bound(below_one(s), k) * start + 1e-12


@pytest.mark.statement("3.6")
@pytest.mark.parametrize("table", [SPARSE_COUNTS, SPARSE_COUNTS.T, linalg.block_diag([[1]], SPARSE_COUNTS)])
def test_slowest_plane_attains_the_rate(table):
    svd = markov_svd(table)
    s = below_one(svd.singular_values)
    slow = svd.beta[:, np.argmax(svd.singular_values < 1)]
    kernel = np.zeros(table.shape)
    # add a function with both conditional means zero, which must stay
    x, y = np.nonzero(table)
    both = np.vstack([(x == i) * table[x, y] for i in range(len(table))] + [(y == i) * table[x, y] for i in range(99)])
    kernel[x, y] = linalg.null_space(both)[:, 0]
    h = slow + kernel
    lengths = []
    for k in range(1, 8):
        h = center(table, h, 0 if k % 2 else 1)
        lengths.append(np.sum(in_cells(table, h - kernel) ** 2))
    for k in range(2, 8):
        assert lengths[k - 1] == pytest.approx(rate_bound(s, k) * lengths[0], rel=1e-9, abs=0)


@pytest.mark.statement("3.6")
@pytest.mark.parametrize("table", [np.eye(3), [[1, 2, 3]], [[1, 2, 0], [0, 0, 4]], np.outer([1, 3], [2, 1, 1])])
def test_two_half_steps_suffice_if_no_value_lies_between_0_and_1(table):
    table = np.array(table)
    assert below_one(markov_svd(table).singular_values) < 1e-9
    second = center(table, center(table, random_function(table), 0), 1)
    third = center(table, second, 0)
    assert np.allclose(in_cells(table, third), in_cells(table, second), atol=1e-12)


@pytest.mark.statement("3.8")
@quick
@given(counts(least=2, most=4), st.integers(0, 99))
def test_half_step_to_first_order(table, seed):
    rng, p = np.random.default_rng(seed), table / table.sum()
    r = rng.dirichlet(np.ones(p.size)).reshape(p.shape)
    h = rng.normal(size=p.shape)
    for axis in (0, 1):
        target, current = p.sum(axis=1 - axis), r.sum(axis=1 - axis)
        error, c = target / current - 1, center(p, h, axis)
        second = np.sum(error * ((r - p) * c).sum(axis=1 - axis))
        moved = ((project(r, target, axis) - p) * h).sum()
        assert moved == pytest.approx(((r - p) * c).sum() + second, abs=1e-10)
        assert abs(second) <= second_bound(error, c, r, p) + 1e-12


@pytest.mark.statement("3.8")
def test_bound_on_the_second_term_is_nearly_attained():
    p, signs, rows = np.full((2, 2), 0.25), np.array([[1, -1], [-1, 1]]), np.array([[1], [-1]])
    r = p - signs * rows / 10 + rows / 2000
    for h in (signs, 3 * signs, signs / 3):
        moved = ((project(r, p.sum(axis=1), 0) - p) * h).sum()
        second = moved - ((r - p) * center(p, h, 0)).sum()
        bound = second_bound(p.sum(axis=1) / r.sum(axis=1) - 1, center(p, h, 0), r, p)
        assert 0.99 * bound < second <= bound


@pytest.mark.statement("3.8")
def test_density_moves_by_centering():
    p, h = SPARSE_COUNTS / 21, random_function(SPARSE_COUNTS)
    h = h - (p * h).sum()
    for axis in (0, 1):
        gaps = [
            np.abs(project(p * (1 + t * h), p.sum(axis=1 - axis), axis) - p * (1 + t * center(p, h, axis))).max()
            for t in (1e-3, 5e-4)
        ]
        assert gaps[0] / gaps[1] == pytest.approx(4, abs=0.05)


@pytest.mark.statement("3.10")
@quick
@given(counts(least=2))
def test_chi_square(table):
    values = markov_svd(table).singular_values
    pearson = stats.chi2_contingency(table, correction=False).statistic
    assert table.sum() * np.sum(values[1:] ** 2) == pytest.approx(pearson, abs=1e-9)


@pytest.mark.statement("3.10")
def test_published_inertias_of_hair_and_eyes():
    values = markov_svd(load_table("hair_eye").counts).singular_values
    assert np.allclose(values[1:] ** 2, [0.208773, 0.022227, 0.002598], atol=5e-7)


@pytest.mark.statement("3.11")
@pytest.mark.parametrize("rho", [0.7, -0.5])
def test_mehler(rho):
    nodes, weights = np.polynomial.hermite_e.hermegauss(30)
    weights = weights / weights.sum()
    x = np.linspace(-2, 2, 5)
    for j in range(7):
        psi = np.polynomial.hermite_e.HermiteE.basis(j)
        mean = psi(rho * x[:, None] + math.sqrt(1 - rho**2) * nodes) @ weights
        assert np.allclose(mean, rho**j * psi(x), atol=1e-10)
    svd = markov_svd(operators.gaussian_table(rho, 100))
    assert np.allclose(svd.singular_values[:4], np.abs(rho) ** np.arange(4), atol=3e-3)
    cuts = math.sqrt(3) * stats.norm.ppf(np.arange(101) / 100)
    means = -np.diff(stats.norm.pdf(cuts)) / np.diff(stats.norm.cdf(cuts))
    linear = abs(np.sum(means * svd.alpha[:, 1] * svd.row_marginal))
    assert linear == pytest.approx(1, abs=1e-3)


@pytest.mark.statement("3.11")
@pytest.mark.parametrize("rho", [0.7, -0.5])
def test_density_of_a_gaussian_pair(rho):
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    norm = [math.sqrt(math.factorial(j)) for j in range(60)]
    psi = [lambda x, j=j: np.polynomial.hermite_e.HermiteE.basis(j)(x) / norm[j] for j in range(60)]
    gram = [[np.sum(weights * psi[i](nodes) * psi[j](nodes)) for i in range(6)] for j in range(6)]
    assert np.allclose(gram, np.eye(6))
    for x, y in ((0.3, -0.8), (1.1, 0.9), (-1.5, 0.2)):
        q = (x**2 - 2 * rho * x * y + y**2) / (1 - rho**2)
        ratio = math.exp(-q / 2 + (x**2 + y**2) / 2) / math.sqrt(1 - rho**2)
        series = sum(rho**j * psi[j](x) * psi[j](y) for j in range(60))
        closed = math.exp((2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))) / math.sqrt(1 - rho**2)
        assert series == pytest.approx(ratio, rel=1e-6) and closed == pytest.approx(ratio, rel=1e-12)


@pytest.mark.statement("3.12")
@quick
@given(counts(least=3), st.data())
def test_merging_lowers_singular_values(table, data):
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(table), max_size=len(table)))
    columns = data.draw(st.lists(st.integers(0, 2), min_size=table.shape[1], max_size=table.shape[1]))
    assume(set(rows) == {0, 1} and set(columns) == {0, 1, 2})
    merged = np.zeros((2, 3))
    np.add.at(merged, (np.array(rows)[:, None], np.array(columns)), table)
    found = markov_svd(merged).singular_values
    assert np.allclose(found, np.linalg.svd(weighted_matrix(merged), compute_uv=False), atol=1e-10)
    assert np.all(found <= markov_svd(table).singular_values[:2] + 1e-10)


@pytest.mark.statement("3.12")
@quick
@given(counts(least=2), st.integers(0, 99))
def test_merging_proportional_rows_and_columns_loses_nothing(table, seed):
    a, b = np.random.default_rng(seed).uniform(0.1, 0.9, size=2)
    finer = np.vstack([a * table[0], (1 - a) * table[0], table[1:]])
    finer = np.column_stack([b * finer[:, 0], (1 - b) * finer[:, 0], finer[:, 1:]])
    s = markov_svd(table).singular_values
    assert np.allclose(markov_svd(finer).singular_values[: len(s)], s, atol=1e-7)


def sides(rho, lost):
    """Both bounds of (3.26)."""
    return rho * (1 - lost), rho * (1 - lost) + rho**2 * lost


@pytest.mark.statement("3.13")
@pytest.mark.parametrize("rho", [0.3, 0.9, -0.6])
def test_cells_of_a_gaussian_pair(rho):
    errors, size = [], np.array([4, 16, 64, 128])
    for n in size:
        table = operators.gaussian_table(rho, int(n))
        cuts = math.sqrt(3) * stats.norm.ppf(np.arange(n + 1) / n)
        lost = 1 - np.sum(np.diff(stats.norm.pdf(cuts)) ** 2 / np.diff(stats.norm.cdf(cuts)))
        value, strength = operators.maximal_correlation(table), abs(rho)
        low, high = sides(strength, lost)
        assert low <= value <= high
        errors.append(strength - value)
    assert lost * 128**2 == pytest.approx(math.sqrt(3) * math.pi / 2, rel=0.02)
    assert np.polyfit(np.log(size[1:]), np.log(errors[1:]), 1)[0] == pytest.approx(-2, abs=0.1)


@pytest.mark.statement("3.13")
@pytest.mark.parametrize("rho", [1e-3, 0.1, 0.5, 0.9, 0.9999])
def test_two_cells_in_closed_form(rho):
    value, (low, high) = 2 / math.pi * math.asin(rho), sides(rho, 1 - 2 / math.pi)
    assert low <= value <= high
    if rho < 0.01:
        assert value < 1.001 * low
    if rho > 0.99:
        assert value - low > 0.97 * (high - low)
    else:
        assert operators.maximal_correlation(operators.gaussian_table(rho, 2)) == pytest.approx(value, rel=1e-9)


@pytest.mark.statement("3.13")
@pytest.mark.parametrize("rho", [0.05, 0.1, 0.3, 0.8])
def test_cells_that_are_not_symmetric(rho):
    """Three cells by Gauss-Legendre: where the cut is far out, the second-order term in rho is needed."""
    x, w = np.polynomial.legendre.leggauss(60)
    for cuts in ([-9, 1.2, 2.0, 9], [-9, -1.6, -1.5, 9], [-9, 0.2, 1.5, 9]):
        table = np.zeros((3, 3))
        for i in range(3):
            z = (cuts[i] + cuts[i + 1]) / 2 + (cuts[i + 1] - cuts[i]) / 2 * x
            density = w * (cuts[i + 1] - cuts[i]) / 2 * stats.norm.pdf(z)
            below = stats.norm.cdf((np.array(cuts) - rho * z[:, None]) / math.sqrt(1 - rho**2))
            table[i] = density @ np.diff(below)
        lost = 1 - np.sum(np.diff(stats.norm.pdf(cuts)) ** 2 / np.diff(stats.norm.cdf(cuts)))
        low, high = sides(rho, lost)
        assert low - 1e-9 <= operators.maximal_correlation(table) <= high + 1e-9


@pytest.mark.statement("3.14")
@quick
@given(counts(least=2), st.integers(0, 1))
def test_mixing(table, start):
    svd, chain = markov_svd(table), two_step(table)
    s, p_x = svd.singular_values, svd.row_marginal
    flow = p_x[:, None] * chain
    assert np.allclose(flow, flow.T)
    eigenvalues = np.sort(np.linalg.eigvals(chain).real)[::-1]
    assert np.allclose(eigenvalues, np.append(s**2, np.zeros(len(table) - len(s))), atol=1e-6)
    law = np.eye(len(table))[start]
    for t in range(1, 5):
        law = law @ chain
        distance = np.sum((law - p_x) ** 2 / p_x)
        predicted = np.sum(s[1:] ** (4 * t) * svd.alpha[start, 1:] ** 2)
        assert distance == pytest.approx(predicted, abs=1e-10)
        chi, tv = mixing_bounds(s[1], t, 1 / p_x[start] - 1)
        assert distance <= chi + 1e-10
        assert total_variation(law / law.sum(), p_x) <= tv + 1e-10
    assert np.allclose(chain @ svd.alpha, s**2 * svd.alpha, atol=1e-9)


@pytest.mark.statement("3.14")
@pytest.mark.parametrize("s", [0.2, 0.8])
@pytest.mark.parametrize("law", [[1, 0], [0.6, 0.4]])
def test_both_bounds_on_mixing_are_attained(s, law):
    chain, half = two_step(operators.dependent_table(2, s)), np.array([0.5, 0.5])
    start = np.sum((np.array(law) - half) ** 2 / half)
    for t in range(1, 5):
        law = law @ chain
        reached = np.sum((law - half) ** 2 / half), total_variation(law, half)
        assert reached == pytest.approx(mixing_bounds(s, t, start), rel=1e-9)


@pytest.mark.statement("3.15")
@quick
@given(st.integers(2, 8), st.fractions(0, 1, max_denominator=20))
def test_dependent_table(m, s):
    table = operators.dependent_table(m, float(s))
    for x, y in np.ndindex(table.shape):
        exact = ((1 - s) / m + s * (x == y)) / m
        assert table[x, y] == pytest.approx(float(exact), abs=1e-15)
    values = np.linalg.svd(m * table, compute_uv=False)
    assert np.allclose(values, [1] + (m - 1) * [float(s)])
    assert np.allclose(markov_svd(table).singular_values, values)
    pair = np.random.default_rng(m).normal(size=m)
    pair = pair - pair.mean()
    for axis in (0, 1):
        image = conditional_mean(table, np.expand_dims(pair, axis), axis)
        assert np.allclose(image, float(s) * pair)
    assert np.allclose(table.sum(axis=0), 1 / m) and np.allclose(table.sum(axis=1), 1 / m)


@pytest.mark.statement("3.16")
@quick
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 99))
def test_prescribed_singular_values(m, l, seed):
    rng = np.random.default_rng(seed)
    row, column = rng.dirichlet(2 * np.ones(m)), rng.dirichlet(2 * np.ones(l))
    least = min(row.min(), column.min())
    values = np.sort(rng.uniform(size=min(m, l) - 1))[::-1]
    values = largest_value(least) * values / values[0]
    table = operators.table_with_singular_values(row, column, values)
    assert table.min() >= 0
    assert np.allclose(table.sum(axis=1), row) and np.allclose(table.sum(axis=0), column)
    found = np.linalg.svd(weighted_matrix(table), compute_uv=False)
    assert np.allclose(found, np.append(1, values), atol=1e-10)


def polynomials(masses):
    """Orthonormal polynomials of degrees 1 and 2 in the index, by Gram and Schmidt."""
    x, found = np.arange(len(masses)), [np.ones(len(masses))]
    for degree in (1, 2):
        f = x**degree - sum((masses @ (x**degree * g)) * g for g in found)
        found.append(f / np.sqrt(masses @ f**2))
    return found[1:]


@pytest.mark.statement("3.16")
def test_which_function_carries_which_value():
    """s_2 belongs to the polynomials of degree 1, s_3 to those of degree 2."""
    row, column, values = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.2, 0.4, 0.1]), [0.2, 0.05]
    f, g = polynomials(row), polynomials(column)
    ratio = 1 + sum(s * np.outer(a, b) for s, a, b in zip(values, f, g, strict=True))
    table = operators.table_with_singular_values(row, column, values)
    np.testing.assert_allclose(table, np.outer(row, column) * ratio, rtol=1e-12)
    rng = np.random.default_rng(14)
    for _ in range(25):
        row, column = rng.dirichlet([3, 3, 3]), rng.dirichlet([3, 3, 3, 3])
        least = min(row.min(), column.min())
        values = np.array([0.9, 0.4]) * largest_value(least)
        ratio = 1 + sum(
            s * np.outer(a, b) for s, a, b in zip(values, polynomials(row), polynomials(column), strict=True)
        )
        table = operators.table_with_singular_values(row, column, values)
        np.testing.assert_allclose(table, np.outer(row, column) * ratio, rtol=1e-8)
    # by hand: f is (-sqrt 3, 1 / sqrt 3) and g is (-1, 1)
    small = operators.table_with_singular_values([0.25, 0.75], [0.5, 0.5], [0.5])
    u, v = math.sqrt(3) / 2, 1 / math.sqrt(12)
    np.testing.assert_allclose(small, np.array([[1 + u, 1 - u], [3 * (1 - v), 3 * (1 + v)]]) / 8, rtol=1e-12)


@pytest.mark.statement("3.16")
@pytest.mark.parametrize("third", [0, 0.5, 1])
def test_two_rare_values_attain_the_condition(third):
    """alpha_2 and -beta_2 are the indicators of the rarest values, centered; alpha_3 and beta_3 vanish there."""
    row, column = np.array([0.1, 0.4, 0.5]), np.array([0.3, 0.1, 0.25, 0.35])
    functions = []
    for masses, other in ((row, [0, 1, -1]), (column, [1, 0, -2, 3])):
        root = np.sqrt(masses)[:, None]
        basis = np.linalg.qr(root * np.array([np.ones(len(masses)), masses == 0.1, other]).T)[0] / root
        functions.append(basis * np.where(basis[masses == 0.1] < 0, -1, 1))
    f, g = functions
    values = largest_value(0.1) * np.array([1, third])
    ratio = 1 - values[0] * np.outer(f[:, 1], g[:, 1]) + values[1] * np.outer(f[:, 2], g[:, 2])
    table = np.outer(row, column) * ratio
    assert abs(table.min()) < 1e-15 and table.argmin() == 1
    found = np.linalg.svd(weighted_matrix(table), compute_uv=False)
    assert np.allclose(found, [1, *values], atol=1e-12)


@pytest.mark.statement("3.16")
def test_largest_prescribed_value():
    table = operators.table_with_singular_values([1, 1], [1, 3], [1 / math.sqrt(3)])
    assert np.allclose(table, [[0.25, 0.25], [0, 0.5]])
    with pytest.raises(ValueError, match=r"cell \(1, 0\) .* at most 0\.9622"):
        operators.table_with_singular_values([1, 1], [1, 3], [0.6])
    uniform = operators.table_with_singular_values(np.ones(2), np.ones(2), [1])
    assert np.allclose(uniform, np.eye(2) / 2)


@pytest.mark.statement("3.16")
@pytest.mark.parametrize("p", [0.1, 0.25, 0.4])
def test_condition_is_sharp_and_the_allowed_values_are_convex(p):
    limit = largest_value(p)
    edge = operators.table_with_singular_values([p, 1 - p], [1 - p, p], [limit])
    assert abs(edge.min()) < 1e-15 and operators.maximal_correlation(edge) == pytest.approx(limit)
    with pytest.raises(ValueError, match="would be negative"):
        operators.table_with_singular_values([p, 1 - p], [1 - p, p], [1.01 * limit])
    row, column = [p, 0.6 - p, 0.4], [0.3, 0.3, 0.4]
    far = []
    for direction in ([0.95, 0.6], [0.9, 0.1]):
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            try:
                operators.table_with_singular_values(row, column, middle * np.array(direction))
                low = middle
            except ValueError:
                high = middle
        far.append(low * np.array(direction))
    for share in (0.2, 0.5, 0.8):
        between = share * far[0] + (1 - share) * far[1]
        assert operators.table_with_singular_values(row, column, between).min() >= 0


@pytest.mark.statement("3.7")
@quick
@example(BLOCKS)
@example(BLOCKS[:2, :3])
@example(np.array([[4, 4, 2, 2]]))
@given(counts())
def test_ones_count_components(table):
    groups = [{("x", x)} for x in range(len(table))] + [{("y", y)} for y in range(table.shape[1])]
    for x, y in np.argwhere(table):
        touched = [g for g in groups if g & {("x", x), ("y", y)}]
        groups = [g for g in groups if g not in touched] + [set.union(*touched)]
    values = np.linalg.svd(weighted_matrix(table), compute_uv=False)
    assert np.sum(values > 1 - 1e-9) == len(groups)
    assert np.sum(markov_svd(table).singular_values == 1) == len(groups)
    rows, columns = operators.components(table)
    found = {
        frozenset([("x", x) for x in np.flatnonzero(rows == c)] + [("y", y) for y in np.flatnonzero(columns == c)])
        for c in range(rows.max() + 1)
    }
    assert found == {frozenset((k, int(i)) for k, i in g) for g in groups}
    if min(table.shape) > 1:
        assert (operators.maximal_correlation(table) == 1) == (len(groups) > 1)
    # linalg.null_space measures against the largest value, which is 0 for one row
    _, sizes, vectors = np.linalg.svd(two_step(table) - np.eye(len(table)))
    fixed = vectors[sizes < 1e-8].T
    assert fixed.shape[1] == len(groups)
    for group in groups:
        inside = [i for kind, i in group if kind == "x"]
        assert np.allclose(fixed[inside], fixed[inside][0], atol=1e-6)


@pytest.mark.statement("3.17")
@pytest.mark.parametrize(("x", "y"), [((0, 0, 1, 1, 1), (0, 1, 1, 2, 2)), ((0, 0, 1, 2, 2, 2), (0, 1, 1, 2, 3, 3))])
def test_spurious_dependence(x, y):
    inertias = []
    for matching in itertools.permutations(y):
        table = np.zeros((max(x) + 1, max(y) + 1))
        np.add.at(table, (np.array(x), np.array(matching)), 1)
        inertias.append(np.sum(markov_svd(table).singular_values[1:] ** 2))
    assert np.mean(inertias) == pytest.approx(max(x) * max(y) / (len(x) - 1), rel=1e-10)


def errors_of(table, targets, limit, size):
    """e_t, f_t, e_{t+1} and the table, at the first sweep t with largest error below a size."""
    tables = data_balance(table, targets, steps=800, keep_iterates=True).iterates
    e = [marginal(r, 0) / targets[0] - 1 for r in tables[::2]]
    t = next(t for t in range(1, len(e)) if np.abs(e[t]).max() < size)
    return e[t], marginal(tables[2 * t + 1], 1) / targets[1] - 1, e[t + 1], tables[2 * t]


TWO_BLOCKS = linalg.block_diag([[5, 1], [2, 4]], [[9, 1, 2, 1], [1, 7, 3, 1]])
LOCAL = [
    (np.array([[1, 1], [0, 1]]), ([0.5, 0.5], [1 / 3, 2 / 3])),
    (np.array([[9, 1, 1, 1], [1, 9, 1, 9], [1, 1, 1, 1]]), ([0.3, 0.4, 0.3], [0.1, 0.3, 0.2, 0.4])),
    (TWO_BLOCKS, ([0.3, 0.2, 0.3, 0.2], [0.1, 0.4, 0.2, 0.1, 0.1, 0.1])),
]


@pytest.mark.statement("3.9")
@pytest.mark.parametrize(("table", "targets"), LOCAL)
def test_local_rate(table, targets):
    targets = [np.array(t) for t in targets]
    limit = data_balance(table, targets, tol=1e-14).table
    rate = below_one(np.linalg.svd(limit / np.sqrt(np.outer(*targets)), compute_uv=False)) ** 2
    tables = data_balance(table, targets, steps=400, keep_iterates=True).iterates[2::2]
    errors = np.array([total_variation(marginal(t, 0), targets[0]) for t in tables])
    late = np.flatnonzero((errors < 1e-7) & (errors > 1e-12))
    assert late.size > 2
    slope = np.polyfit(late, np.log(errors[late]), 1)[0]
    assert np.exp(slope) == pytest.approx(rate, rel=0.01)
    early = np.flatnonzero((errors < 1e-4) & (errors > 1e-6))
    divergence = [np.log(kl_divergence(targets[0], marginal(tables[t], 0))) for t in early]
    assert np.polyfit(early, divergence, 1)[0] == pytest.approx(2 * np.log(rate), rel=0.01)


@pytest.mark.statement("3.9")
@pytest.mark.parametrize(("table", "targets"), LOCAL)
def test_errors_and_table_near_the_limit(table, targets):
    targets = [np.array(t) for t in targets]
    limit = data_balance(table, targets, tol=1e-15).table
    s = below_one(np.linalg.svd(limit / np.sqrt(np.outer(*targets)), compute_uv=False))
    e, f, following, r = errors_of(table, targets, limit, 1e-6)
    mean = limit.T @ e / targets[1]
    size = np.abs(e).max()
    assert np.allclose(following, s**2 * e, rtol=0, atol=1e-2 * s**2 * size)
    assert np.allclose(limit @ mean / targets[0], s**2 * e, rtol=0, atol=1e-2 * s**2 * size)
    assert np.allclose(f, -mean, rtol=0, atol=1e-4 * size)
    norms = [math.sqrt(np.sum(t * a**2)) for t, a in zip(targets, (e, f), strict=True)]
    assert norms[1] == pytest.approx(s * norms[0], rel=1e-2)
    assert kl_divergence(targets[0], marginal(r, 0)) == pytest.approx(norms[0] ** 2 / 2, rel=1e-3, abs=0)
    seen = limit > 0
    moved = (r[seen] / limit[seen] - 1) * (1 - s**2)
    assert np.allclose(moved, (e[:, None] - mean)[seen], rtol=0, atol=1e-2 * np.abs(moved).max())


@pytest.mark.statement("3.9")
@pytest.mark.parametrize(
    ("table", "targets"),
    [
        (np.outer([1, 2], [3, 1, 1]), ([0.3, 0.7], [0.2, 0.5, 0.3])),
        (np.array([[1, 2, 3]]), ([1], [0.2, 0.5, 0.3])),
        (np.diag([1, 2]), (UNIFORM, UNIFORM)),
        (np.array([[1, 2, 0], [0, 0, 4]]), ([0.3, 0.7], [0.2, 0.1, 0.7])),
    ],
)
def test_one_sweep_suffices_if_s_is_zero(table, targets):
    run = data_balance(table, targets, steps=6, keep_iterates=True)
    assert below_one(markov_svd(run.table).singular_values) < 1e-9
    assert run.history[0].max() > 0.05
    assert np.abs(run.iterates[2] - run.table).max() < 1e-15 and run.history[2].max() < 1e-15


@pytest.mark.statement("3.9")
def test_exact_recursion_of_the_errors():
    table, targets = random_problem(8)
    t = data_balance(table, targets, steps=4, keep_iterates=True).iterates
    e, f = marginal(t[2], 0) / targets[0] - 1, marginal(t[3], 1) / targets[1] - 1
    assert np.abs(f + t[3].T @ e / targets[1]).max() < 1e-13
    after = marginal(t[4], 0) / targets[0] - 1
    assert np.abs(after + t[4] @ f / targets[0]).max() < 1e-13 and np.abs(e).max() > 1e-6
