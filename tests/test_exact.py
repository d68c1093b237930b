"""Half-steps of every kind of table against exact fractions, limits against a solver, gradients against differences."""

import gc
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from scipy.optimize import minimize
from torch.autograd import gradcheck

from balance import Records, Scores, data_balance, marginal

EXACT = 1e-14
STEPS = range(9)
fractions = np.vectorize(Fraction, otypes=[object])
floats = np.vectorize(float, otypes=[float])


# ---- problems and their answers ----------------------------------------------------------------


def sides(ndim, axis):
    """All axes but one."""
    return tuple(a for a in range(ndim) if a != axis)


def along(vector, ndim, axis):
    """A vector, shaped to be multiplied onto a table along one axis."""
    return np.asarray(vector).reshape([-1 if a == axis else 1 for a in range(ndim)])


def problem(seed, ndim):
    """A table with zeros and targets with zeros and, if there are enough axes, one free axis.

    Every value of positive target has a cell of positive mass that no zero target empties, so that no half-step is
    undefined.
    """
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 6 - (ndim > 2) - (ndim > 3), size=ndim)
    targets = [rng.dirichlet(np.full(n, 3.0)) for n in shape]
    for target in targets:
        if len(target) > 2 and rng.random() < 0.5:
            target[rng.integers(len(target))] = 0
            target /= target.sum()
    anchor = [int(np.argmax(target)) for target in targets]
    keep = rng.random(shape) < 0.7
    for axis, target in enumerate(targets):
        for value in np.flatnonzero(target):
            keep[tuple(value if a == axis else i for a, i in enumerate(anchor))] = True
    if ndim > 2 and seed % 3 == 0:
        targets[rng.integers(ndim)] = None
    return np.where(keep, rng.gamma(0.7, size=shape) + 1e-3, 0.0), targets


def free(targets):
    return [a for a, target in enumerate(targets) if target is None]


def order(targets, first):
    """The axes of the half-steps in turn: those with a target, from `first` on."""
    return [a for a in (*range(first, len(targets)), *range(first)) if targets[a] is not None]


def starts(targets):
    return [a for a in range(len(targets)) if targets[a] is not None]


def rounded(value):
    """A fraction to 400 binary digits, so that the number of its digits does not explode."""
    if not value:
        return value
    shift = 400 - value.numerator.bit_length() + value.denominator.bit_length()
    return Fraction(round(value * Fraction(2) ** shift)) / Fraction(2) ** shift


shorten = np.vectorize(rounded, otypes=[object])


def exact(table, targets, steps, first=0):
    """Every table of the iteration in rational arithmetic, right to 120 digits."""
    now = fractions(table) if table.dtype != object else table
    now = now / now.sum()
    tables, axes = [now], order(targets, first)
    for k in range(steps):
        axis = axes[k % len(axes)]
        goal = fractions(targets[axis])
        sums = now.sum(axis=sides(now.ndim, axis))
        factors = [q / goal.sum() / p if p else Fraction(0) for q, p in zip(goal, sums, strict=True)]
        now = shorten(now * along(factors, now.ndim, axis))
        tables.append(now)
    return tables


@cache
def answers(seed, ndim, first):
    table, targets = problem(seed, ndim)
    return exact(table, targets, max(STEPS), first)


def error(ours, right):
    """The largest relative error; infinite if an empty cell has mass."""
    right = floats(right)
    assert np.shape(ours) == right.shape
    assert not np.isnan(ours).any()
    empty = right == 0
    return np.inf if ours[empty].any() else np.abs(ours[~empty] / right[~empty] - 1).max()


# ---- kinds: how a table is passed, and how the answer is read --------------------------------


def scattered(table):
    """A copy whose entries do not lie side by side and run backwards along the last axis."""
    wide = np.zeros([2 * n for n in table.shape])
    view = wide[tuple(slice(None, None, 2) for _ in table.shape)][..., ::-1]
    view[...] = table
    return view


def entries(table, pieces=1):
    """Columns of codes and weights of shuffled records, every cell in some pieces whose sum is exact."""
    codes = np.repeat(np.argwhere(table), pieces, axis=0)
    shares = np.array([[1.0], [0.5, 0.5], [0.5, 0.25, 0.25]][pieces - 1])
    weights = np.ravel(table[table > 0][:, None] * shares)
    mixed = np.random.default_rng(len(codes)).permutation(len(codes))
    return codes[mixed].T, weights[mixed]


def of_records(pieces, labels=False):
    def run(table, targets, **options):
        codes, weights = entries(table, pieces)
        if labels:
            frame = pd.DataFrame({f"v{a}": [f"c{i}" for i in c] for a, c in enumerate(codes)})
            named = [None if t is None else {f"c{i}": q for i, q in enumerate(t)} for t in targets]
            result = data_balance(Records(frame, weights=weights), named, **options)
        else:
            result = data_balance(Records(*codes, weights=weights), targets, **options)
        cells = np.zeros(table.shape)
        np.add.at(cells, tuple(codes), np.asarray(result.weights))
        shares = np.asarray(result.weights) / cells[tuple(codes)].clip(1e-300)
        split = weights / table[tuple(codes)]
        assert np.abs(shares - split)[cells[tuple(codes)] > 0].max() < EXACT
        return cells, result

    return run


def of_array(change):
    def run(table, targets, **options):
        result = data_balance(change(table), targets, **options)
        assert type(result.table) is np.ndarray
        return result.table, result

    return run


def of_sparse(kind):
    def run(table, targets, **options):
        result = data_balance(kind(table), targets, **options)
        assert sparse.issparse(result.table)
        return result.table.toarray(), result

    return run


def of_frame(table, targets, **options):
    rows, columns = [f"r{i}" for i in range(table.shape[0])], [10 * j for j in range(table.shape[1])]
    frame = pd.DataFrame(table, index=rows, columns=columns)
    goals = pd.Series(targets[0], index=rows)[::-1], {c: q for c, q in zip(columns, targets[1], strict=True)}
    result = data_balance(frame, goals, **options)
    assert isinstance(result.table, pd.DataFrame)
    assert result.table.index.equals(frame.index)
    assert result.table.columns.equals(frame.columns)
    return result.table.to_numpy(), result


def of_tensor(table, targets, **options):
    goals = [None if t is None else torch.tensor(t) for t in targets]
    result = data_balance(torch.tensor(table), goals, **options)
    assert result.table.dtype == torch.float64
    return result.table.numpy(), result


KINDS = {
    "C order": of_array(np.array),
    "Fortran order": of_array(np.asfortranarray),
    "scattered": of_array(scattered),
    "nested lists": of_array(np.ndarray.tolist),
    "records": of_records(1),
    "records, several a cell": of_records(3),
    "records of labels": of_records(2, labels=True),
    "tensor": of_tensor,
}
TWO_WAY = {
    "csr": of_sparse(sparse.csr_array),
    "csc": of_sparse(sparse.csc_array),
    "coo": of_sparse(sparse.coo_array),
    "frame": of_frame,
}
CASES = [(kind, ndim) for kind in KINDS for ndim in (2, 3, 4)] + [(kind, 2) for kind in TWO_WAY]
SEEDS = range(5)


@pytest.mark.parametrize("kind, ndim", CASES)
def test_half_steps_are_exact(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    for seed in SEEDS:
        table, targets = problem(seed, ndim)
        for k in STEPS:
            first = starts(targets)[(seed + k) % len(starts(targets))]
            ours, result = run(table, targets, steps=k, first=first)
            assert error(ours, answers(seed, ndim, first)[k]) < EXACT
            assert (result.steps, result.reason) == (k, "steps")


@pytest.mark.parametrize("ndim", (2, 3))
def test_half_steps_of_a_stack_are_exact_with_a_target_for_all_or_one_for_each(ndim):
    rng = np.random.default_rng(ndim)
    shape = (2, 3, 4)[:ndim]
    tables = rng.gamma(0.7, size=(2, 3, *shape)) + 1e-3
    tables[0, 0].flat[0] = 0
    shared = [rng.dirichlet(np.full(n, 3.0)) for n in shape]
    each = [rng.dirichlet(np.full(n, 3.0), size=(2, 3)) for n in shape]
    for k in STEPS:
        first = k % ndim
        for targets in (shared, [each[0], *shared[1:]], each):
            result = data_balance(tables, targets, steps=k, first=first)
            for place in np.ndindex(2, 3):
                mine = [t if t.ndim == 1 else t[place] for t in targets]
                right = exact(tables[place], mine, k, first)
                assert error(result.table[place], right[-1]) < EXACT
                for a in range(ndim):
                    tv = np.abs(floats(right[-1].sum(axis=sides(ndim, a))) - mine[a]).sum() / 2
                    assert abs(result.errors[(*place, a)] - tv) < EXACT
            assert result.history.shape == (k + 1, 2, 3, ndim)
            assert np.all(result.complete)


def logs_of(table):
    """Scores of a table, and the table of which they are exactly the logarithms."""
    with np.errstate(divide="ignore"):
        scores = np.log(table)
    with localcontext(prec=60):
        masses = [Fraction(Decimal(s).exp()) if np.isfinite(s) else Fraction(0) for s in scores.ravel().tolist()]
    return scores, np.array(masses, dtype=object).reshape(table.shape)


def log_of(value):
    with localcontext(prec=60):
        return float((Decimal(value.numerator) / Decimal(value.denominator)).ln()) if value else -np.inf


@pytest.mark.parametrize("ndim", (2, 3, 4))
@pytest.mark.parametrize("backend", ("numpy", "torch"))
def test_half_steps_of_scores_are_exact(backend, ndim):
    for seed in SEEDS:
        table, targets = problem(seed, ndim)
        scores, masses = logs_of(table)
        for first in starts(targets)[:2]:
            right = exact(masses, targets, max(STEPS), first)
            for k in STEPS:
                passed = torch.tensor(scores) if backend == "torch" else scores
                result = data_balance(Scores(passed), targets, steps=k, first=first)
                assert isinstance(result.table, torch.Tensor if backend == "torch" else np.ndarray)
                ours, logs = np.asarray(result.table), np.vectorize(log_of)(right[k])
                assert ((ours == -np.inf) == (logs == -np.inf)).all()
                there = np.isfinite(logs)
                assert np.abs(ours[there] - logs[there]).max() < EXACT * max(1, np.abs(logs[there]).max() / 4)


def test_half_steps_in_float32_are_as_good_as_float32():
    for seed in SEEDS:
        table, targets = problem(seed, 2)
        narrow = torch.tensor(table, dtype=torch.float32)
        goals = [torch.tensor(t, dtype=torch.float32) for t in targets]
        for k in STEPS:
            right = exact(narrow.double().numpy(), [t.double().numpy() for t in goals], k)[-1]
            for passed, read in ((narrow, torch.Tensor.clone), (Scores(narrow.log()), torch.exp)):
                result = data_balance(passed, goals, steps=k)
                assert result.table.dtype in (torch.float32, torch.float64)
                assert error(read(result.table).double().numpy(), right) < 2e-6


# ---- what a result says of itself -------------------------------------------------------------


def dense(table):
    if isinstance(table, torch.Tensor):
        return table.numpy()
    return table.toarray() if sparse.issparse(table) else np.asarray(table)


@pytest.mark.parametrize("kind, ndim", [c for c in CASES if not c[0].startswith("records")])
def test_potentials_and_scalings_rebuild_the_table(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    for seed in SEEDS:
        table, targets = problem(seed, ndim)
        for k in (0, 1, 5):
            ours, result = run(table, targets, steps=k, first=starts(targets)[0])
            built = table / table.sum()
            through = np.zeros(table.shape)
            for axis in range(ndim):
                scaling, potential = dense(result.scalings[axis]), dense(result.potentials[axis])
                built = built * along(scaling, ndim, axis)
                through = through + along(potential, ndim, axis)
                if axis in free(targets):
                    assert (scaling == scaling[0]).all()
                elif axis in order(targets, starts(targets)[0])[:k]:
                    assert ((potential == -np.inf) == (np.asarray(targets[axis]) == 0)).all()
            assert np.abs(built - ours).max() < EXACT
            assert np.abs(table / table.sum() * np.exp(through) - ours).max() < EXACT * 10


@pytest.mark.parametrize("kind, ndim", CASES)
def test_history_marginals_and_errors_are_those_of_the_iterates(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    for seed in SEEDS:
        table, targets = problem(seed, ndim)
        first = starts(targets)[-1]
        _, result = run(table, targets, steps=6, first=first)
        right = answers(seed, ndim, first)[:7]
        assert result.history.shape == (7, ndim)
        for axis, target in enumerate(targets):
            laws = [floats(t.sum(axis=sides(ndim, axis))) for t in right]
            if target is None:
                continue
            assert np.abs(dense(result.marginals[axis]) - laws[-1]).max() < EXACT
            goal = np.asarray(target) / np.sum(target)
            assert np.abs(np.asarray(dense(result.targets[axis])) - goal).max() < EXACT
            for row, law in zip(result.history, laws, strict=True):
                assert abs(row[axis] - np.abs(law - goal).sum() / 2) < EXACT
        assert np.array_equal(result.errors, result.history[-1], equal_nan=True)
        worst = max(result.errors[a] for a in starts(targets))
        assert result.converged == (worst <= 1e-12)


@pytest.mark.parametrize("kind, ndim", [c for c in CASES if not c[0].startswith("records")])
def test_iterates_are_all_the_tables(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    for seed in SEEDS:
        table, targets = problem(seed, ndim)
        first = starts(targets)[0]
        _, result = run(table, targets, steps=8, first=first, keep_iterates=True)
        assert len(result.iterates) == 9
        for ours, right in zip(result.iterates, answers(seed, ndim, first), strict=True):
            assert type(ours) is type(result.table)
            assert error(dense(ours), right) < EXACT


@pytest.mark.parametrize("kind, ndim", [c for c in CASES if not c[0].startswith("records")])
def test_kept_iterates_up_to_a_tolerance_are_plain_half_steps(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    table, targets = solvable(3, ndim)
    _, result = run(table, targets, tol=1e-3, keep_iterates=True)
    right = exact(table, targets, result.steps)
    assert len(result.iterates) == len(result.history) == result.steps + 1
    for ours, theirs in zip(result.iterates, right, strict=True):
        assert error(dense(ours), theirs) < 3 * EXACT
    assert result.errors.max() <= 1e-3 < result.history[-2].max()


def test_iterates_are_not_kept_unless_asked_for():
    table, targets = problem(1, 2)
    assert data_balance(table, targets, steps=2).iterates is None


def test_weights_of_records_have_the_total_of_the_targets():
    table = np.array([[3.0, 1.0], [1.0, 5.0]])
    codes, weights = entries(table, 2)
    for total in (1, 250, 1e9):
        result = data_balance(
            Records(*codes, weights=weights), ([total * 0.25, total * 0.75], [total / 2] * 2), steps=7
        )
        right = exact(table, ([0.25, 0.75], [0.5, 0.5]), 7)[-1]
        cells = np.zeros((2, 2))
        np.add.at(cells, tuple(codes), result.weights)
        assert error(cells / total, right) < EXACT
        share = np.asarray(result.weights) / np.sum(result.weights)
        assert result.effective_sample_size == pytest.approx(1 / np.sum(share**2), rel=1e-12)


# ---- limits -----------------------------------------------------------------------------------


def solvable(seed, ndim):
    """A table with zeros, and targets that are the marginals of another table with the same zeros."""
    rng = np.random.default_rng(seed)
    shape = rng.integers(2, 5, size=ndim)
    table = rng.gamma(1.0, size=shape) + 0.05
    table[rng.random(shape) < 0.25] = 0
    other = np.where(table > 0, rng.gamma(1.0, size=shape) + 0.05, 0)
    full = [np.flatnonzero(table.sum(axis=sides(ndim, a))) for a in range(ndim)]
    table, other = table[np.ix_(*full)], other[np.ix_(*full)]
    other /= other.sum()
    return table, [other.sum(axis=sides(ndim, a)) for a in range(ndim)]


def by_bfgs(table, targets):
    """The information projection by a generic solver of the dual problem."""
    ends = np.cumsum([0, *table.shape])

    def law(x):
        logs = sum(along(x[ends[a] : ends[a + 1]], table.ndim, a) for a in range(table.ndim))
        masses = table * np.exp(logs)
        return masses, masses.sum()

    def loss(x):
        return np.log(law(x)[1]) - x @ np.concatenate(targets)

    def slope(x):
        masses, total = law(x)
        return np.concatenate(
            [masses.sum(axis=sides(table.ndim, a)) / total for a in range(table.ndim)]
        ) - np.concatenate(targets)

    found = minimize(loss, np.zeros(ends[-1]), jac=slope, method="BFGS", options={"gtol": 1e-11, "maxiter": 2000})
    masses, total = law(found.x)
    assert np.abs(slope(found.x)).max() < 1e-7
    return masses / total


LIMITS = [*((kind, ndim) for kind in KINDS for ndim in (2, 3)), *((kind, 2) for kind in TWO_WAY)]


@pytest.mark.parametrize("kind, ndim", LIMITS)
def test_limit_is_that_of_a_generic_solver(kind, ndim):
    run = (KINDS | TWO_WAY)[kind]
    for seed in range(4):
        table, targets = solvable(seed, ndim)
        ours, result = run(table, targets, tol=1e-11)
        assert (result.converged, result.reason) == (True, "tolerance")
        assert result.errors.max() <= 1e-11
        assert np.abs(ours - limit(seed, ndim)).max() < 1e-6


@cache
def limit(seed, ndim):
    return by_bfgs(*solvable(seed, ndim))


@pytest.mark.parametrize("backend", (np.asarray, torch.tensor))
@pytest.mark.parametrize("ndim", (2, 3))
def test_limit_of_scores_is_that_of_a_generic_solver(backend, ndim):
    for seed in range(4):
        table, targets = solvable(seed, ndim)
        with np.errstate(divide="ignore"):
            scores = backend(np.log(table))
        result = data_balance(Scores(scores), targets)
        assert (result.converged, result.reason) == (True, "tolerance")
        assert np.abs(np.exp(np.asarray(result.table)) - limit(seed, ndim)).max() < 1e-6


def test_limits_of_a_stack_are_those_of_its_tables():
    rng = np.random.default_rng(5)
    tables = rng.gamma(1.0, size=(6, 3, 4)) + 0.05
    targets = rng.dirichlet(np.ones(3) * 3, size=6), rng.dirichlet(np.ones(4) * 3)
    result = data_balance(tables, targets)
    assert np.all(result.converged)
    assert result.errors.max() <= 1e-9
    for table, goal, ours in zip(tables, targets[0], result.table, strict=True):
        assert np.abs(ours - by_bfgs(table, [goal, targets[1]])).max() < 1e-6


def test_limit_with_a_free_axis_is_that_of_the_rest():
    table, targets = solvable(2, 3)
    result = data_balance(table, (targets[0], None, targets[2]), tol=1e-12)
    pair = data_balance(table.sum(axis=1), (targets[0], targets[2]), tol=1e-12).table
    assert np.abs(result.table.sum(axis=1) - pair).max() < 1e-11
    given = table / table.sum(axis=1, keepdims=True).clip(1e-300)
    assert np.abs(result.table - given * pair[:, None]).max() < 1e-11


def test_limit_does_not_depend_on_the_first_axis():
    for seed in range(4):
        table, targets = solvable(seed, 3)
        tables = [data_balance(table, targets, tol=1e-12, first=first).table for first in range(3)]
        assert max(np.abs(t - tables[0]).max() for t in tables) < 1e-9


def test_default_is_a_tolerance_of_1e_9():
    table, targets = solvable(0, 2)
    result = data_balance(table, targets)
    assert result.reason == "tolerance"
    assert result.errors.max() <= 1e-9
    loose = data_balance(table, targets, tol=1e-3)
    assert loose.steps < result.steps
    assert loose.errors.max() <= 1e-3


@pytest.mark.parametrize("kind", (np.array, sparse.csr_array, torch.tensor, pd.DataFrame))
def test_marginal_is_exact_and_of_every_kind(kind):
    table, _ = problem(3, 2)
    right = fractions(table) / fractions(table).sum()
    for axis in (0, 1):
        ours = dense(marginal(kind(table), axis))
        assert error(ours, right.sum(axis=1 - axis)) < EXACT


# ---- gradients --------------------------------------------------------------------------------


def smooth(seed, ndim):
    """A mask of zeros, positive parameters that are masked, and targets with a zero."""
    rng = np.random.default_rng(seed)
    shape = (3, 4, 2)[:ndim]
    mask = np.ones(shape, dtype=bool)
    mask[(0,) * ndim] = mask[(1,) * ndim] = False
    targets = [rng.dirichlet(np.full(n, 4.0)) for n in shape]
    targets[1][2] = 0
    targets[1] /= targets[1].sum()
    x = torch.tensor(rng.gamma(2.0, size=shape) + 0.3, requires_grad=True)
    return torch.tensor(mask), x, [torch.tensor(t) for t in targets]


@pytest.mark.parametrize("ndim", (2, 3))
@pytest.mark.parametrize("steps", (0, 1, 2, 5))
def test_gradient_of_a_fixed_number_of_steps(ndim, steps):
    mask, x, targets = smooth(ndim, ndim)
    for first in range(ndim):
        assert gradcheck(lambda v, a=first: data_balance(v * mask, targets, steps=steps, first=a).table, x)


@pytest.mark.parametrize("steps", (0, 1, 2, 5))
def test_gradient_of_a_fixed_number_of_steps_of_scores(steps):
    mask, x, targets = smooth(2, 2)
    empty = torch.tensor(-torch.inf, dtype=x.dtype)

    def masses(v):
        return data_balance(Scores(torch.where(mask, v, empty)), targets, steps=steps).table.exp()

    assert gradcheck(masses, x)


def test_gradient_of_a_stack_and_of_a_free_axis():
    _, x, targets = smooth(3, 3)
    positive = [targets[0], torch.full((4,), 0.25, dtype=torch.float64), targets[2]]
    assert gradcheck(lambda v: data_balance(v, positive[1:], steps=3).table, x)
    assert gradcheck(lambda v: data_balance(v, (positive[0], None, positive[2]), steps=3).table, x)


def test_gradient_of_the_targets():
    _, x, _ = smooth(2, 2)
    logits = [torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (3, 4)]
    for option in ({"steps": 1}, {"steps": 4}, {"tol": 1e-12}):

        def table(a, b, option=option):
            return data_balance(x.detach(), (a.softmax(0), b.softmax(0)), **option).table

        assert gradcheck(table, [v.requires_grad_() for v in logits], atol=1e-4)


def test_gradient_at_an_empty_cell_is_the_one_sided_derivative():
    mask, x, targets = smooth(2, 2)
    weights = torch.arange(12, dtype=torch.float64).reshape(3, 4)
    for option in ({"steps": 3}, {"tol": 1e-13}):
        start = (x * mask).detach().requires_grad_()
        (data_balance(start, targets, **option).table * weights).sum().backward()
        assert torch.isfinite(start.grad).all()
        shifted = start.detach().clone()
        shifted[0, 0] += 1e-6
        after = (data_balance(shifted, targets, **option).table * weights).sum()
        before = (data_balance(start.detach(), targets, **option).table * weights).sum()
        assert abs((after - before) / 1e-6 - start.grad[0, 0]) < 1e-4


@pytest.mark.parametrize("ndim", (2, 3))
def test_implicit_gradient_is_that_of_differences_and_of_many_steps(ndim):
    mask, x, targets = smooth(ndim, ndim)
    weights = torch.arange(x.numel(), dtype=x.dtype).reshape(x.shape).sin()

    def loss(v, **option):
        return (data_balance(v * mask, targets, **option).table * weights).sum()

    assert gradcheck(lambda v: loss(v, tol=1e-13), x, atol=1e-5)
    (implicit,) = torch.autograd.grad(loss(x, tol=1e-13), x)
    (unrolled,) = torch.autograd.grad(loss(x, steps=600), x)
    assert (implicit - unrolled).abs().max() < 1e-9


def test_implicit_gradient_of_scores_is_that_of_differences_and_of_many_steps():
    mask, x, targets = smooth(2, 2)
    empty = torch.tensor(-torch.inf, dtype=x.dtype)
    weights = torch.arange(12, dtype=x.dtype).reshape(3, 4).sin()

    def loss(v, **option):
        return (data_balance(Scores(torch.where(mask, v, empty)), targets, **option).table.exp() * weights).sum()

    assert gradcheck(lambda v: loss(v, tol=1e-13), x, atol=1e-5)
    (implicit,) = torch.autograd.grad(loss(x, tol=1e-13), x)
    (unrolled,) = torch.autograd.grad(loss(x, steps=600), x)
    assert (implicit - unrolled).abs().max() < 1e-9


def tensors():
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]


def kept(run):
    """Bytes of tensors that are kept for the backward pass, by autograd or by Python objects, and the half-steps."""
    saved = {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    gc.collect()
    before = set(map(id, tensors()))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
        table = result.table
    gc.collect()
    for tensor in tensors():
        if id(tensor) not in before:
            pack(tensor)
    assert table.requires_grad
    return sum(saved.values()), result.steps


@pytest.mark.parametrize("read", (torch.exp, Scores), ids=("linear", "scores"))
def test_memory_of_the_implicit_gradient_does_not_grow_with_the_steps(read):
    rng = np.random.default_rng(0)
    # one strong and one weak link between two blocks: balancing takes long
    logs = torch.tensor(rng.normal(size=(30, 30)))
    logs[:15, 15:] -= 5
    logs[15:, :15] -= 5
    targets = [torch.tensor(rng.dirichlet(np.full(30, 5.0))) for _ in range(2)]

    def run(**option):
        return kept(lambda: data_balance(read(logs.clone().requires_grad_()), targets, **option))

    short, few = run(tol=1e-2)
    long, many = run(tol=1e-10)
    assert many > 3 * few
    # the vectors of the history aside, the same is kept
    assert long < short + 4 * logs.nbytes


def test_no_gradient_is_asked_for_where_none_is():
    mask, x, targets = smooth(2, 2)
    for option in ({"steps": 3}, {"tol": 1e-9}):
        assert not data_balance((x * mask).detach(), targets, **option).table.requires_grad
        with torch.no_grad():
            assert not data_balance(x * mask, targets, **option).table.requires_grad
