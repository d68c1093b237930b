"""Sparse tables and records give what the dense table gives, at the cost of their cells."""

import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from balance import ConvergenceWarning, Records, Scores, data_balance, kl_divergence, marginal, project
from helpers import seeds

some = settings(max_examples=60, deadline=None, derandomize=True)
FORMATS = [sparse.csr_array, sparse.csc_array, sparse.coo_array, sparse.lil_array, sparse.dok_array, sparse.csr_matrix]


def sparse_problem(seed, density=0.5, feasible=True):
    """A table with holes and two targets, which a table with the same holes has or need not have."""
    rng = np.random.default_rng(seed)
    m, l = rng.integers(2, 7, size=2)
    support = rng.random((m, l)) < density
    support[np.arange(max(m, l)) % m, np.arange(max(m, l)) % l] = True
    table = rng.gamma(1.0, size=(m, l)) * support
    other = rng.gamma(1.0, size=(m, l)) * support
    targets = other.sum(axis=1), other.sum(axis=0)
    if not feasible:
        targets = tuple(rng.dirichlet(np.ones(n)) for n in (m, l))
    return table, targets


def records(table, rng):
    """Each cell as two records, in random order, and a record without weight."""
    x, y = np.nonzero(table)
    part = rng.random(len(x))
    weights = np.concatenate([table[x, y] * part, table[x, y] * (1 - part), [0.0]])
    order = rng.permutation(len(weights))
    x, y = (np.concatenate([v, v, [0]])[order] for v in (x, y))
    return Records(x, y, weights=weights[order])


def codes(samples):
    return tuple(column.codes for column in samples.columns)


def gathered(samples, shape):
    table = np.zeros(shape)
    np.add.at(table, codes(samples), samples.weights)
    return table


def balance_in_silence(*arguments, **options):
    """Of an infeasible or slow problem: that it warns is tested elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return data_balance(*arguments, **options)


@some
@given(seeds, st.booleans(), st.integers(0, 7), st.integers(0, 1))
def test_sparse_equals_dense(seed, feasible, steps, first):
    table, targets = sparse_problem(seed, feasible=feasible)
    form = FORMATS[seed % len(FORMATS)]
    for how in ({"steps": steps, "keep_iterates": True}, {"tol": 1e-9, "max_steps": 700, "keep_iterates": True}):
        dense = balance_in_silence(table, targets, first=first, **how)
        run = balance_in_silence(form(table), targets, first=first, **how)
        assert isinstance(run.table, sparse.csr_array)
        assert np.abs(run.table.toarray() - dense.table).max() < 1e-12
        assert run.steps == dense.steps and np.abs(run.history - dense.history).max() < 1e-12
        assert (run.reason, run.converged) == (dense.reason, dense.converged)
        scaled = np.multiply.outer(*run.scalings) * (table / table.sum())
        assert np.abs(scaled - dense.table).max() < 1e-12
        for ours, theirs in zip(run.iterates or (), dense.iterates or (), strict=True):
            assert np.abs(ours.toarray() - theirs).max() < 1e-12


@some
@given(seeds, st.booleans(), st.integers(0, 7), st.integers(0, 1))
def test_records_equal_their_table(seed, feasible, steps, first):
    table, targets = sparse_problem(seed, feasible=feasible)
    samples = records(table, np.random.default_rng(seed))
    for how in ({"steps": steps, "keep_iterates": True}, {"tol": 1e-9, "max_steps": 700, "keep_iterates": True}):
        dense = balance_in_silence(table, targets, first=first, **how)
        run = balance_in_silence(samples, targets, first=first, **how)
        assert len(run.table) == len(samples) and abs(run.table.weights.sum() - 1) < 1e-12
        assert np.abs(gathered(run.table, table.shape) - dense.table).max() < 1e-12
        assert run.reason == dense.reason and np.abs(run.history - dense.history).max() < 1e-12
        x, y = codes(samples)
        scaled = run.scalings[0][x] * run.scalings[1][y] * samples.weights
        assert np.abs(scaled / samples.weights.sum() - run.table.weights).max() < 1e-12
        for ours, theirs in zip(run.iterates or (), dense.iterates or (), strict=True):
            assert np.abs(gathered(ours, table.shape) - theirs).max() < 1e-12


@some
@given(seeds)
def test_records_of_three_variables(seed):
    rng = np.random.default_rng(seed)
    columns = [np.concatenate([np.arange(n), rng.integers(n, size=30)]) for n in (3, 3, 3)]
    weights = rng.gamma(1.0, size=33)
    targets = [rng.dirichlet(np.ones(3) * 9) for _ in range(3)]
    samples = Records(*columns, weights=weights)
    dense = data_balance(gathered(samples, (3, 3, 3)), targets, steps=8, first=2)
    run = data_balance(samples, targets, steps=8, first=2)
    assert np.abs(gathered(run.table, (3, 3, 3)) - dense.table).max() < 1e-13
    assert np.abs(run.history - dense.history).max() < 1e-13


@some
@given(seeds, st.integers(0, 1))
def test_one_projection_and_the_marginals(seed, axis):
    table, targets = sparse_problem(seed)
    samples = records(table, np.random.default_rng(seed))
    step = project(table, targets[axis], axis)
    assert np.abs(project(sparse.coo_array(table), targets[axis], axis).toarray() - step).max() < 1e-14
    assert np.abs(gathered(project(samples, targets[axis], axis), table.shape) - step).max() < 1e-14
    for kind in (sparse.csc_array(table), samples):
        assert np.abs(marginal(kind, axis) - marginal(table, axis)).max() < 1e-14


def test_infeasible_problems_are_proved_as_for_dense_tables():
    reasons = Counter()
    for seed in range(100):
        table, targets = sparse_problem(seed, density=0.4, feasible=False)
        dense = balance_in_silence(table, targets, tol=1e-6, max_steps=2000)
        for kind in (sparse.csr_array(table), records(table, np.random.default_rng(seed))):
            run = balance_in_silence(kind, targets, tol=1e-6, max_steps=2000)
            assert (run.reason, run.steps) == (dense.reason, dense.steps)
            if dense.reason == "infeasible":
                assert (run.obstruction.axis, run.obstruction.other) == (
                    dense.obstruction.axis,
                    dense.obstruction.other,
                )
                assert run.obstruction.values.tolist() == dense.obstruction.values.tolist()
                assert run.obstruction.reachable.tolist() == dense.obstruction.reachable.tolist()
                assert run.obstruction.excess == pytest.approx(dense.obstruction.excess, rel=1e-9)
                assert run.message == dense.message
                check_obstruction(run.obstruction, table, targets)
        reasons[dense.reason] += 1
    assert min(reasons["tolerance"], reasons["infeasible"]) >= 10


def check_obstruction(proof, table, targets):
    """Some values need more mass than all the values of the other axis in which they have a cell."""
    targets = [np.asarray(t) / np.sum(t) for t in targets]
    support = table > 0 if proof.axis == 0 else table.T > 0
    assert proof.other == 1 - proof.axis
    assert proof.reachable.tolist() == np.flatnonzero(support[proof.values].any(axis=0)).tolist()
    excess = targets[proof.axis][proof.values].sum() - targets[proof.other][proof.reachable].sum()
    assert proof.excess == pytest.approx(excess, rel=1e-9) and excess > 0


def test_what_has_no_mass_is_no_support():
    """The first row needs the cell of a stored zero, or of a record of weight zero."""
    x, y, masses = [0, 1, 2, 0, 1], [0, 0, 1, 1, 2], np.array([3.0, 2.0, 4.0, 0.0, 1.0])
    targets = [0.5, 0.3, 0.2], [0.3, 0.5, 0.2]
    stored = sparse.csr_array(sparse.coo_array((masses, (x, y)), shape=(3, 3)))
    assert stored.nnz == 5
    for table in (stored.toarray(), stored, Records(x, y, weights=masses)):
        with pytest.warns(ConvergenceWarning, match="no table with this support has these marginals"):
            run = data_balance(table, targets, tol=1e-9)
        assert (run.reason, run.converged) == ("infeasible", False)
        check_obstruction(run.obstruction, stored.toarray(), targets)
    assert data_balance(Records(x, y, weights=np.maximum(masses, 1e-3)), targets, tol=1e-9).converged


@some
@given(seeds, st.booleans(), st.integers(0, 1))
def test_over_relaxed_runs_end_as_the_plain_one(seed, feasible, first):
    """On the way they may differ: where no limit is near, over-relaxation makes rounding errors grow."""
    table, targets = sparse_problem(seed, feasible=feasible)
    plain = balance_in_silence(table, targets, first=first, tol=1e-10, max_steps=700, keep_iterates=True)
    for kind in (table, sparse.csr_array(table), records(table, np.random.default_rng(seed))):
        run = balance_in_silence(kind, targets, first=first, tol=1e-10, max_steps=700)
        ours = gathered(run.table, table.shape) if isinstance(kind, Records) else run.table
        ours = ours.toarray() if sparse.issparse(ours) else ours
        assert abs(ours.sum() - 1) < 1e-9
        assert run.reason == plain.reason or (run.reason, plain.reason) == ("tolerance", "max_steps")
        if plain.reason == "tolerance":
            assert np.abs(ours - plain.table).max() < 1e-7


def test_duplicate_cells_are_added():
    rows, columns, masses = [0, 1, 0, 1, 0], [0, 0, 0, 1, 1], [1, 2, 3, 4, 5]
    coo = sparse.coo_array((masses, (rows, columns)), shape=(2, 2))
    csr = sparse.csr_array((masses, [0, 0, 1, 0, 1], [0, 3, 5]), shape=(2, 2))
    assert project(coo, [1, 1], 0).toarray() == pytest.approx(project([[4, 5], [2, 4]], [1, 1], 0))
    assert marginal(csr, 0).tolist() == pytest.approx([6 / 15, 9 / 15])
    assert csr.nnz == 5 and not csr.has_canonical_format


@pytest.mark.parametrize("kind", ["sparse", "records"])
def test_nothing_is_as_large_as_the_dense_table(kind):
    """The dense table would have 10^10 cells, 80 GB."""
    n, rng = 100_000, np.random.default_rng(0)
    rows = np.concatenate([np.arange(n), np.arange(n)])
    columns = np.concatenate([np.arange(n), rng.permutation(n)])
    masses = rng.gamma(2.0, size=2 * n)
    table = sparse.coo_array((masses, (rows, columns)), shape=(n, n))
    table = table if kind == "sparse" else Records(rows, columns, weights=masses)
    tracemalloc.start()
    run = data_balance(table, (np.ones(n), np.ones(n)), steps=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
    assert run.errors[1] < 1e-12 and 0 < run.errors[0] < run.history[0, 0] / 5


def test_input_and_results_share_no_memory():
    table = sparse.csr_array(np.array([[1.0, 0, 2], [0, 3, 4]]))
    before = table.copy()
    run = data_balance(table, ([1, 1], [0, 1, 1]), steps=2, keep_iterates=True)
    for result in (*run.iterates, run.table):
        result.data[:] = 7
        result.indices[:] = 0
    assert (table != before).nnz == 0
    again = data_balance(table, ([1, 1], [0, 1, 1]), steps=2)
    assert again.table.toarray()[:, 1].tolist() == pytest.approx([0, 0.5])
    weights = np.array([1.0, 2.0])
    samples = Records([0, 1], [1, 0], weights=weights)
    data_balance(samples, ([1, 1], [1, 1]), steps=3).table.weights[:] = 7
    assert weights.tolist() == samples.weights.tolist() == [1, 2]


def test_entries_far_apart():
    table = np.array([[1.0, 1e-180, 0], [1e-200, 1e-190, 1e-150]])
    targets = [0.5, 0.5], [0.2, 0.4, 0.4]
    dense = data_balance(table, targets, steps=40)
    for kind in (sparse.csr_array(table), Records(*np.nonzero(table), weights=table[table > 0])):
        run = data_balance(kind, targets, steps=40)
        assert run.history == pytest.approx(dense.history, abs=1e-12)
        assert all(a == pytest.approx(b, rel=1e-12) for a, b in zip(run.potentials, dense.potentials, strict=True))


@pytest.mark.parametrize(
    "table, message",
    [
        (sparse.csr_array(np.array([[1.0, 0], [0, np.nan]])), r"table\[1, 1\] = nan is not a finite"),
        (sparse.csc_array(np.array([[1.0, 0, 1], [0, 2, -3]])), r"table\[1, 2\] = -3.0 is negative"),
        (sparse.csr_array((2, 2)), "table has no mass"),
        (sparse.csr_array(np.array([[1j, 0], [0, 1]])), "dtype complex128"),
        (sparse.coo_array(np.ones(3)), "sparse with 1 axes"),
        (sparse.csr_array(np.array([[1e300, 0], [0, 1e-320]])), r"table\[1, 1\] = 1e-320 is lost"),
        (sparse.csr_array(np.array([[1.0, 0], [1, 0]])), r"targets\[1\]\[1\] = 0.5, but column 1"),
        (sparse.csr_array(np.ones((2, 3))), r"targets\[1\] has length 2, axis 1 of the table has length 3"),
        (Records([0, 0], [0, 1]), r"targets\[0\]\[1\] = 0.5, but row 1 of the table"),
        (Records([0, 1, 2], [0, 1, 1]), r"record 2 has the code 2 on axis 0, .* targets\[0\] has length 2"),
        (Records([0, 1], [0, 1], [0, 1]), "2 targets for records of 3 variables"),
    ],
)
def test_bad_tables(table, message):
    with pytest.raises(ValueError, match=message):
        data_balance(table, ([1, 1], [1, 1]), steps=1)


def test_divergences_say_that_they_are_dense():
    with pytest.raises(ValueError, match="q is sparse: pass a dense array"):
        kl_divergence(sparse.eye_array(2) / 2, np.eye(2) / 2)


@pytest.mark.parametrize("how", ({"steps": 2}, {"steps": 0}, {"tol": 1e-9}))
@pytest.mark.parametrize("scores", (False, True))
def test_what_is_told_of_a_table_that_keeps_its_start_is_told_of_its_start(how, scores):
    tables, even = np.array([[[1.0, 0], [3, 0]], [[1, 2], [3, 4]]]), ([0.5, 0.5], [0.5, 0.5])
    with np.errstate(divide="ignore"):
        given = np.log(tables) if scores else tables
    kinds = [Scores(make(given)) if scores else make(given) for make in (np.asarray, torch.tensor)]
    array, tensor = (data_balance(kind, even, **how) for kind in kinds)
    assert array.complete.tolist() == tensor.complete.tolist() == [False, True]
    assert array.errors[0] == pytest.approx([0.25, 0.5]) and array.marginals[1][0] == pytest.approx([1, 0])
    assert tensor.errors == pytest.approx(array.errors, abs=1e-9)
    assert tensor.history[:, 0] == pytest.approx(np.tile([0.25, 0.5], (tensor.steps + 1, 1)))
    for ours, theirs in zip(tensor.marginals, array.marginals, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-9)
    for ours, theirs in zip(tensor.potentials, array.potentials, strict=True):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-12)
