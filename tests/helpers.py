"""What several files of tests share: small tables, random problems, and second derivations."""

from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import torch
from hypothesis import settings
from scipy import linalg, special
from scipy.optimize import linprog

from balance.datasets import load_results
from balance.operators import markov_svd

# the example of chapters 3 to 5
P = np.array([[0.3, 0.1], [0.15, 0.45]])
H = np.array([[1.0, -2.0], [0.5, 3.0]])
# a wide one, and one with empty cells
WIDE = np.array([[0.20, 0.10, 0.15], [0.05, 0.30, 0.20]])
F = np.array([[1.0, -1.0, 2.0], [0.0, 3.0, 0.5]])
SPARSE_LAW = np.array([[0.3, 0.0, 0.2], [0.1, 0.4, 0.0]])
SPARSE_COUNTS = np.array([[4, 0, 2, 1, 0], [0, 3, 1, 0, 2], [1, 1, 0, 5, 1]])
# the example of chapter 6, with its marginals
LAW = np.array([[0.2, 0.25, 0.05], [0.1, 0.1, 0.3]])
LAW_H = np.array([[1.0, -0.5, 2.0], [0.25, 3.0, -1.0]])
RIGHT = (LAW.sum(axis=1), LAW.sum(axis=0))
UNIFORM = [0.5, 0.5]

seeds = st.integers(0, 2**32 - 1)
fast = settings(max_examples=40, deadline=None, derandomize=True)


def uniform(n):
    return np.full(n, 1 / n)


def random_law(rng, shape):
    """A table and a function of its cells."""
    return rng.dirichlet(np.ones(np.prod(shape))).reshape(shape), rng.normal(size=shape)


def random_case(rng, m=3, l=3):
    """A table, a function of its cells and two targets."""
    return *random_law(rng, (m, l)), (rng.dirichlet(np.ones(m)), rng.dirichlet(np.ones(l)))


def random_problem(seed, axes=2, density=1.0):
    """A random table, with no empty row, column or slice, and random targets."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 6 - (axes > 2), size=axes)
    table = rng.gamma(0.5, size=shape) + 1e-3
    keep = rng.random(shape) < density
    for axis, n in enumerate(shape):
        for i in range(n):
            if not keep.take(i, axis).any():
                keep[tuple(i if a == axis else 0 for a in range(axes))] = True
    return table * keep, [rng.dirichlet(np.ones(n) * 3) for n in shape]


def random_function(table, seed=0):
    return np.random.default_rng(seed).normal(size=table.shape)


def random_cosines(rows=6, columns=4, seed=0):
    """Scores of images with prototypes, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(rows, columns, generator=generator, dtype=torch.float64) - 1


def two_by_two_counts(n):
    """Every 2 x 2 table of n counts, and the number of samples that give it."""
    cells = np.indices((n + 1,) * 3).reshape(3, -1).T
    cells = cells[cells.sum(axis=1) <= n]
    counts = np.column_stack([cells, n - cells.sum(axis=1)]).reshape(-1, 2, 2)
    return counts, np.exp(special.gammaln(n + 1) - special.gammaln(counts + 1).sum(axis=(1, 2)))


def marginal_sums(shape):
    """The matrix that maps a flattened table to all its marginals, one after the other."""
    places = np.indices(shape)
    pairs = [(a, i) for a in range(len(shape)) for i in range(shape[a])]
    return np.array([(places[a] == i).ravel() for a, i in pairs]).astype(float)


def log_of(table):
    """Logarithms of masses in long double, -inf for 0."""
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(table, dtype=np.longdouble))


def log_loop(logs, targets, steps, first=0, exponent=1, kept=0):
    """Logarithms of the table after some half-steps, in long double; of mass 1 only if the exponent is 1."""
    logs = np.asarray(logs, dtype=np.longdouble)
    logs = logs - special.logsumexp(logs)
    axes = [a for a in (*range(first, logs.ndim), *range(first)) if targets[a] is not None]
    others = [tuple(b for b in range(logs.ndim) if b != a) for a in range(logs.ndim)]
    potentials = [np.zeros(n, dtype=np.longdouble) for n in logs.shape]
    for k in range(steps):
        axis = axes[k % len(axes)]
        goal = np.asarray(targets[axis], dtype=np.longdouble)
        rest = logs + sum(np.expand_dims(potentials[a], others[a]) for a in others[axis])
        with np.errstate(divide="ignore", invalid="ignore"):
            fresh = (
                np.log(goal / goal.max())
                - np.log((goal / goal.max()).sum())
                - special.logsumexp(rest, axis=others[axis])
            )
        fresh = np.where(goal > 0, fresh, -np.inf)
        potentials[axis] = exponent * fresh + (kept * potentials[axis] if kept else 0)
    return logs + sum(np.expand_dims(p, others[a]) for a, p in enumerate(potentials))


def half_steps(table, targets, steps, first=0):
    """The table after some half-steps, by way of logarithms in long double."""
    return np.exp(log_loop(log_of(table), targets, steps, first)).astype(float)


def solvable(support, targets):
    """Whether some table with this support has these marginals, by linear programming."""
    sums = marginal_sums(support.shape)[:, support.ravel()]
    goal = np.concatenate(targets)
    return linprog(np.zeros(sums.shape[1]), A_eq=sums, b_eq=goal).status == 0


def violation(support, targets):
    """The largest of P_X(A) / P_Y(N(A)) over the nonempty sets A of rows."""
    m = len(support)
    sets = [list(a) for size in range(1, m + 1) for a in combinations(range(m), size)]
    return max(targets[0][a].sum() / targets[1][support[a].any(axis=0)].sum() for a in sets)


def weighted_matrix(table):
    return table / np.sqrt(np.outer(table.sum(axis=1), table.sum(axis=0)))


def check_decomposition(table):
    table = np.asarray(table, dtype=float)
    joint, svd = table / table.sum(), markov_svd(table)
    p_x, p_y = joint.sum(axis=1), joint.sum(axis=0)
    s, alpha, beta = svd.singular_values, svd.alpha, svd.beta
    r = min(table.shape)
    assert s.shape == (r,) and alpha.shape == (len(p_x), r) and beta.shape == (len(p_y), r)
    assert s[0] == 1 and np.all(np.diff(s) <= 0) and s[-1] >= 0
    assert np.allclose(alpha[:, 0], 1, rtol=1e-10, atol=0) and np.allclose(beta[:, 0], 1, rtol=1e-10, atol=0)
    assert np.allclose(s, np.linalg.svd(weighted_matrix(joint), compute_uv=False), atol=1e-10, rtol=0)
    assert np.allclose(alpha.T @ (p_x[:, None] * alpha), np.eye(r), atol=1e-10, rtol=0)
    assert np.allclose(beta.T @ (p_y[:, None] * beta), np.eye(r), atol=1e-10, rtol=0)
    assert np.allclose(joint / np.sqrt(p_x)[:, None] @ beta, s * alpha * np.sqrt(p_x)[:, None], atol=1e-10, rtol=0)
    assert np.allclose((joint / np.sqrt(p_y)).T @ alpha, s * beta * np.sqrt(p_y)[:, None], atol=1e-10, rtol=0)
    assert np.allclose(np.outer(p_x, p_y) * ((s * alpha) @ beta.T), joint, atol=1e-12, rtol=0)
    assert np.allclose(svd.row_marginal, p_x, rtol=1e-10, atol=0) and np.allclose(
        svd.column_marginal, p_y, rtol=1e-10, atol=0
    )
    for function, weights in ((alpha, p_x), (beta, p_y)):
        others = linalg.null_space((weights[:, None] * function).T)
        images = joint.T @ others if function is alpha else joint @ others
        assert np.allclose(images, 0, atol=1e-10, rtol=0)
    leading = np.argmax(np.abs(alpha) > np.abs(alpha).max(axis=0) * (1 - 1e-6), axis=0)
    assert np.all(alpha[leading, range(r)] > 0)


def stored(name, grid, row):
    """The columns that a table of results holds for the cell and the iteration of a measured row."""
    keys = {key: value for key, value in row.items() if key in (*grid[0], "iteration", "k")}
    found = load_results(name).where(**keys)
    assert len(found) == 1
    return {column: found[column][0] for column in found.columns if column not in keys}
