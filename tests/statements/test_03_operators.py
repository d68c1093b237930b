"""The statements of chapter 3 by linear algebra, rational arithmetic and enumeration."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize, stats

from balance import operators, project, total_variation
from balance.datasets import load_table
from balance.operators import center, conditional_mean, markov_svd
from helpers import SPARSE_COUNTS, H, P, check_decomposition, random_function, weighted_matrix

quick = settings(max_examples=60, deadline=None)
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
    return (table / table.sum(axis=1)[:, None]) @ (table / table.sum(axis=0)).T


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


@pytest.mark.statement("3.2")
@quick
@given(counts(), st.integers(0, 99))
def test_conditional_means_are_adjoint(table, seed):
    rng, joint = np.random.default_rng(seed), table / table.sum()
    f, g = rng.normal(size=(len(table), 1)), rng.normal(size=(1, table.shape[1]))
    middle = sum(f[x, 0] * g[0, y] * joint[x, y] for x, y in np.ndindex(table.shape))
    assert np.sum(f[:, 0] * conditional_mean(table, g, 0) * joint.sum(axis=1)) == pytest.approx(middle)
    assert np.sum(g[0] * conditional_mean(table, f, 1) * joint.sum(axis=0)) == pytest.approx(middle)


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


@pytest.mark.statement("3.4")
def test_maximal_correlation_against_an_optimizer():
    for table in (SPARSE_COUNTS, SPARSE_COUNTS.T, load_table("hair_eye").counts):
        m, joint = len(table), table / table.sum()

        def minus(scores, joint=joint, m=m):
            f, g = scores[:m, None], scores[None, m:]
            f, g = f - (joint * f).sum(), g - (joint * g).sum()
            return -(joint * f * g).sum() / np.sqrt((joint * f**2).sum() * (joint * g**2).sum())

        starts = np.random.default_rng(0).normal(size=(4, sum(table.shape)))
        best = max(-optimize.minimize(minus, start).fun for start in starts)
        assert operators.maximal_correlation(table) == pytest.approx(best, abs=1e-7)


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
        assert length <= s[below].max(initial=0) ** (2 * k - 2) * start + 1e-12


@pytest.mark.statement("3.7")
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
        assert abs(second) <= np.abs(error).max() * np.abs(c).max() * np.abs(r - p).sum() + 1e-12


@pytest.mark.statement("3.7")
def test_density_moves_by_centering():
    p, h = SPARSE_COUNTS / 21, random_function(SPARSE_COUNTS)
    h = h - (p * h).sum()
    for axis in (0, 1):
        gaps = [
            np.abs(project(p * (1 + t * h), p.sum(axis=1 - axis), axis) - p * (1 + t * center(p, h, axis))).max()
            for t in (1e-3, 5e-4)
        ]
        assert gaps[0] / gaps[1] == pytest.approx(4, abs=0.05)


@pytest.mark.statement("3.8")
@quick
@given(counts(least=2))
def test_chi_square(table):
    values = markov_svd(table).singular_values
    pearson = stats.chi2_contingency(table, correction=False).statistic
    assert table.sum() * np.sum(values[1:] ** 2) == pytest.approx(pearson, abs=1e-9)


@pytest.mark.statement("3.8")
def test_published_inertias_of_hair_and_eyes():
    values = markov_svd(load_table("hair_eye").counts).singular_values
    assert np.allclose(values[1:] ** 2, [0.208773, 0.022227, 0.002598], atol=5e-7)


@pytest.mark.statement("3.9")
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


@pytest.mark.statement("3.10")
@quick
@given(counts(least=3), st.data())
def test_merging_lowers_singular_values(table, data):
    rows = data.draw(st.lists(st.integers(0, 1), min_size=len(table), max_size=len(table)))
    columns = data.draw(st.lists(st.integers(0, 2), min_size=table.shape[1], max_size=table.shape[1]))
    assume(set(rows) == {0, 1} and set(columns) == {0, 1, 2})
    merged = np.zeros((2, 3))
    np.add.at(merged, (np.array(rows)[:, None], np.array(columns)), table)
    assert np.all(markov_svd(merged).singular_values <= markov_svd(table).singular_values[:2] + 1e-10)


@pytest.mark.statement("3.11")
@pytest.mark.parametrize("rho", [0.3, 0.9, -0.6])
def test_cells_of_a_gaussian_pair(rho):
    errors, size = [], np.array([4, 16, 64, 128])
    for n in size:
        table = operators.gaussian_table(rho, int(n))
        cuts = math.sqrt(3) * stats.norm.ppf(np.arange(n + 1) / n)
        lost = 1 - np.sum(np.diff(stats.norm.pdf(cuts)) ** 2 / np.diff(stats.norm.cdf(cuts)))
        value, strength = operators.maximal_correlation(table), abs(rho)
        assert strength - strength * lost / (1 - lost) <= value <= strength - strength * (1 - strength) * lost
        errors.append(strength - value)
    assert lost * 128**2 == pytest.approx(math.sqrt(3) * math.pi / 2, rel=0.02)
    assert np.polyfit(np.log(size[1:]), np.log(errors[1:]), 1)[0] == pytest.approx(-2, abs=0.1)


@pytest.mark.statement("3.12")
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
        bound = s[1] ** (2 * t) * math.sqrt(1 / p_x[start] - 1)
        assert distance <= bound**2 + 1e-10
        assert total_variation(law / law.sum(), p_x) <= bound / 2 + 1e-10


@pytest.mark.statement("3.13")
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


@pytest.mark.statement("3.14")
@quick
@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 99))
def test_prescribed_singular_values(m, l, seed):
    rng = np.random.default_rng(seed)
    row, column = rng.dirichlet(2 * np.ones(m)), rng.dirichlet(2 * np.ones(l))
    least = min(row.min(), column.min())
    values = np.sort(rng.dirichlet(np.ones(min(m, l) - 1)))[::-1] * least / (1 - least)
    table = operators.table_with_singular_values(row, column, values)
    assert table.min() >= 0
    assert np.allclose(table.sum(axis=1), row) and np.allclose(table.sum(axis=0), column)
    found = np.linalg.svd(weighted_matrix(table), compute_uv=False)
    assert np.allclose(found, np.append(1, values), atol=1e-10)


@pytest.mark.statement("3.14")
def test_which_function_carries_which_value():
    """s_2 belongs to the polynomials of degree 1, s_3 to those of degree 2, found here by Gram and Schmidt."""

    def polynomials(masses):
        x, found = np.arange(len(masses)), [np.ones(len(masses))]
        for degree in (1, 2):
            f = x**degree - sum((masses @ (x**degree * g)) * g for g in found)
            found.append(f / np.sqrt(masses @ f**2))
        return found[1:]

    row, column, values = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.2, 0.4, 0.1]), [0.2, 0.05]
    f, g = polynomials(row), polynomials(column)
    ratio = 1 + sum(s * np.outer(a, b) for s, a, b in zip(values, f, g, strict=True))
    table = operators.table_with_singular_values(row, column, values)
    np.testing.assert_allclose(table, np.outer(row, column) * ratio, rtol=1e-12)
    # by hand: f is (-sqrt 3, 1 / sqrt 3) and g is (-1, 1)
    small = operators.table_with_singular_values([0.25, 0.75], [0.5, 0.5], [0.5])
    u, v = math.sqrt(3) / 2, 1 / math.sqrt(12)
    np.testing.assert_allclose(small, np.array([[1 + u, 1 - u], [3 * (1 - v), 3 * (1 + v)]]) / 8, rtol=1e-12)


@pytest.mark.statement("3.14")
def test_largest_prescribed_value():
    table = operators.table_with_singular_values([1, 1], [1, 3], [1 / math.sqrt(3)])
    assert np.allclose(table, [[0.25, 0.25], [0, 0.5]])
    with pytest.raises(ValueError, match=r"cell \(1, 0\) .* at most 0\.9622"):
        operators.table_with_singular_values([1, 1], [1, 3], [0.6])
    uniform = operators.table_with_singular_values(np.ones(2), np.ones(2), [1])
    assert np.allclose(uniform, np.eye(2) / 2)


@pytest.mark.statement("3.15")
@quick
@example(BLOCKS)
@example(BLOCKS[:2, :3])
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


@pytest.mark.statement("3.16")
@pytest.mark.parametrize(("x", "y"), [((0, 0, 1, 1, 1), (0, 1, 1, 2, 2)), ((0, 0, 1, 2, 2, 2), (0, 0, 1, 1, 1, 1))])
def test_spurious_dependence(x, y):
    inertias = []
    for matching in itertools.permutations(y):
        table = np.zeros((max(x) + 1, max(y) + 1))
        np.add.at(table, (np.array(x), np.array(matching)), 1)
        inertias.append(np.sum(markov_svd(table).singular_values[1:] ** 2))
    assert np.mean(inertias) == pytest.approx(max(x) * max(y) / (len(x) - 1), rel=1e-10)
