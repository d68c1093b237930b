"""Balancing: invariants, closed forms, why it stops, and bad input."""

import warnings
from fractions import Fraction

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance import ConvergenceWarning, data_balance, kl_divergence, marginal, project, total_variation
from helpers import UNIFORM, fast, random_problem, seeds, solvable, violation


def naive(table, targets, steps, first=0):
    """Every table of the iteration, by loops."""
    tables = [table / table.sum()]
    for k in range(steps):
        axis = (first + k) % table.ndim
        now = np.moveaxis(tables[-1].copy(), axis, 0)
        for i, goal in enumerate(targets[axis]):
            now[i] *= goal / now[i].sum()
        tables.append(np.moveaxis(now, 0, axis))
    return tables


@fast
@given(seeds, st.integers(2, 4), st.integers(0, 9), st.floats(0.3, 1))
def test_agrees_with_loops_on_any_number_of_axes(seed, axes, steps, density):
    table, targets = random_problem(seed, axes, density)
    for first in range(axes):
        run = data_balance(table, targets, steps=steps, first=first, keep_iterates=True)
        expected = naive(table, targets, steps, first)
        assert len(run.iterates) == steps + 1 == len(run.history)
        for ours, theirs in zip(run.iterates, expected, strict=True):
            assert np.abs(ours - theirs).max() < 1e-13
        for ours, row in zip(expected, run.history, strict=True):
            errors = [total_variation(marginal(ours, a), targets[a]) for a in range(axes)]
            assert np.abs(row - errors).max() < 1e-13


@fast
@given(seeds, st.integers(2, 3), st.integers(1, 8), st.floats(0.3, 1))
def test_invariants_of_a_half_step(seed, axes, steps, density):
    table, targets = random_problem(seed, axes, density)
    run = data_balance(table, targets, steps=steps)
    stepped = (steps - 1) % axes
    assert abs(run.table.sum() - 1) < 1e-13
    assert np.abs(marginal(run.table, stepped) - targets[stepped]).max() < 1e-14
    assert run.errors[stepped] < 1e-14
    assert ((run.table == 0) == (table == 0)).all()
    rebuilt = table / table.sum()
    for axis, scaling in enumerate(run.scalings):
        rebuilt = rebuilt * scaling.reshape([-1 if a == axis else 1 for a in range(axes)])
    assert np.allclose(rebuilt, run.table, rtol=1e-12, atol=0)
    for scaling, potential in zip(run.scalings, run.potentials, strict=True):
        assert np.allclose(np.log(scaling), potential, atol=1e-12, rtol=0)


@fast
@given(seeds, st.integers(0, 7))
def test_equivariant_under_permutations_and_transposition(seed, steps):
    table, targets = random_problem(seed, density=0.7)
    rng = np.random.default_rng(seed)
    p, q = rng.permutation(table.shape[0]), rng.permutation(table.shape[1])
    plain = data_balance(table, targets, steps=steps)
    permuted = data_balance(table[p][:, q], [targets[0][p], targets[1][q]], steps=steps)
    assert np.abs(permuted.table - plain.table[p][:, q]).max() < 1e-14
    other = data_balance(table.T, targets[::-1], steps=steps, first=1)
    assert np.abs(other.table.T - plain.table).max() < 1e-14
    assert np.abs(other.history[:, ::-1] - plain.history).max() < 1e-14


def test_project_is_one_half_step():
    table, targets = random_problem(1, axes=3)
    for axis in range(3):
        step = project(table, targets[axis], axis)
        assert np.abs(step - naive(table, targets, 1, axis)[1]).max() < 1e-15
    assert np.abs(project(7 * table, 3 * targets[0], 0) - project(table, targets[0], 0)).max() < 1e-15


def test_inputs_are_not_mutated_and_results_do_not_alias_them():
    table, targets = random_problem(2)
    table /= table.max()
    before = table.copy(), [t.copy() for t in targets]
    run = data_balance(table, targets, steps=5, keep_iterates=True)
    project(table, targets[0], 0)
    assert (table == before[0]).all()
    assert all((t == b).all() for t, b in zip(targets, before[1], strict=True))
    run.iterates[0][:] = 0
    run.targets[0][:] = 0
    assert (table == before[0]).all() and (targets[0] == before[1][0]).all()


@fast
@given(seeds)
def test_extreme_magnitudes(seed):
    """diag(u) R diag(v) has the limit of R, whatever the sizes of u and v."""
    table, targets = random_problem(seed)
    rng = np.random.default_rng(seed)
    u, v = (10.0 ** rng.uniform(-60, 60, n) for n in table.shape)
    plain = data_balance(table, targets, tol=1e-13).table
    scaled = table * u[:, None] * v
    assert np.allclose(data_balance(scaled, targets, tol=1e-12).table, plain, rtol=1e-9, atol=1e-12)


def test_entries_of_1e_minus_200():
    run = data_balance([[1, 1e-200], [1e-200, 1]], ([0.5, 0.5], [0.6, 0.4]), steps=2)
    assert np.allclose(run.table[[0, 1], [0, 1]], [0.6, 0.4], rtol=1e-12, atol=0)
    assert run.table[0, 1] == pytest.approx(4e-201, rel=1e-12, abs=0)
    assert run.table[1, 0] == pytest.approx(6e-201, rel=1e-12, abs=0)
    tiny = data_balance(np.full((2, 3), 1e-200), (UNIFORM, [0.2, 0.3, 0.5]), tol=1e-12)
    assert tiny.converged and np.allclose(tiny.table, np.outer(UNIFORM, [0.2, 0.3, 0.5]), rtol=1e-10, atol=0)


def test_history_goes_on_when_the_scalings_become_extreme():
    """The first half-step multiplies the second row by 1e110; here against fractions."""
    table, targets = [[1, 1e-110], [1e-110, 1e-110]], ([0.2, 0.8], [0.3, 0.7])
    run = data_balance(table, targets, steps=8, keep_iterates=True)
    exact = np.array([[Fraction(v) for v in row] for row in table])
    goals = [[Fraction(2, 10), Fraction(8, 10)], [Fraction(3, 10), Fraction(7, 10)]]
    exact = exact / exact.sum()
    for k, (iterate, errors) in enumerate(zip(run.iterates, run.history, strict=True)):
        np.testing.assert_allclose(iterate, exact.astype(float), rtol=1e-12)
        gaps = [sum(abs(exact.sum(axis=1 - a) - goals[a])) / 2 for a in (0, 1)]
        assert errors == pytest.approx([float(g) for g in gaps], abs=1e-14)
        sums = exact.sum(axis=1 - k % 2, keepdims=True)
        exact = exact * np.expand_dims(goals[k % 2], 1 - k % 2) / sums
    assert run.potentials[0][1] - run.potentials[0][0] > 200


def test_zero_targets_empty_their_row_and_nothing_else():
    table = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]])
    run = data_balance(table, ([0.4, 0, 0.6], [0.2, 0.3, 0.5]), tol=1e-13)
    rest = data_balance(table[[0, 2]], ([0.4, 0.6], [0.2, 0.3, 0.5]), tol=1e-13)
    assert run.converged and (run.table[1] == 0).all()
    assert run.scalings[0][1] == 0 and run.potentials[0][1] == -np.inf
    assert np.abs(run.table[[0, 2]] - rest.table).max() < 1e-12
    empty = data_balance([[1, 2], [0, 0]], ([1, 0], UNIFORM), steps=2)
    assert empty.errors.max() < 1e-15


def test_targets_with_another_common_total_are_normalized():
    run = data_balance([[1, 2], [3, 4]], ([30, 70], [50, 50]), tol=1e-13)
    assert np.allclose(run.targets[0], [0.3, 0.7], rtol=1e-10, atol=0) and np.allclose(
        run.table.sum(axis=1), [0.3, 0.7], rtol=1e-10, atol=0
    )


def test_no_steps_returns_the_normalized_table():
    run = data_balance([[1, 2], [3, 4]], (UNIFORM, UNIFORM), steps=0)
    assert (run.steps, run.reason, run.converged, run.iterates) == (0, "steps", False, None)
    assert np.allclose(run.table, np.array([[1, 2], [3, 4]]) / 10, rtol=1e-10, atol=0)
    assert data_balance([[1, 1], [1, 1]], (UNIFORM, UNIFORM), steps=0).converged


def test_tolerance_is_met_at_the_first_step_that_meets_it():
    run = data_balance([[5, 1], [2, 4]], (UNIFORM, [0.3, 0.7]), tol=1e-6)
    assert run.converged and run.reason == "tolerance" and run.errors.max() <= 1e-6
    assert (run.history[:-1].max(axis=1) > 1e-6).all()
    plain = data_balance([[5, 1], [2, 4]], (UNIFORM, [0.3, 0.7]), tol=1e-6, keep_iterates=True)
    again = data_balance([[5, 1], [2, 4]], (UNIFORM, [0.3, 0.7]), steps=plain.steps)
    assert (again.table == plain.table).all() and not again.converged


def test_max_steps_is_reported_as_not_converged():
    with pytest.warns(ConvergenceWarning, match="0.00333 after max_steps = 50"):
        run = data_balance([[1, 1], [0, 1]], (UNIFORM, UNIFORM), tol=1e-9, max_steps=50)
    assert (run.steps, run.reason, run.converged) == (50, "max_steps", False)
    assert "50" in run.message and run.errors.max() > 1e-9
    done = data_balance([[5, 1], [2, 4]], (UNIFORM, UNIFORM), tol=1e-3, max_steps=50)
    assert done.converged and "0.001" in done.message


def test_functions_separate_where_no_pair_of_axes_is_to_blame():
    parity = np.indices((2, 2, 2)).sum(axis=0) % 2
    with pytest.warns(ConvergenceWarning, match="the functions of result.obstruction"):
        run = data_balance(parity, [[0.9, 0.1]] * 3, tol=1e-6)
    assert not solvable(parity > 0, [np.array([0.9, 0.1])] * 3)
    assert (run.converged, run.reason) == (False, "infeasible") and run.errors.max() > 0.1
    f, g, h = run.obstruction.functions
    largest = (f[:, None, None] + g[:, None] + h)[parity > 0].max()
    assert (f + g + h) @ [0.9, 0.1] - largest == pytest.approx(run.obstruction.gap) and run.obstruction.gap > 1


def test_reasons_and_message_of_an_infeasible_problem():
    """Half-steps that were asked for are done; with a tolerance the proof is looked for at the end at the latest."""
    problem = [[1, 1], [0, 1]], ([0.3, 0.7], [0.6, 0.4])
    asked = data_balance(*problem, steps=400)
    assert (asked.reason, asked.steps, asked.converged) == ("steps", 400, False)
    assert asked.message.startswith("400 half-steps done as asked; largest marginal error 0.3; no table")
    with pytest.warns(ConvergenceWarning, match="stopped after 50 half-steps at the marginal error 0.3; no table"):
        run = data_balance(*problem, tol=1e-9, max_steps=50)
    assert (run.reason, run.steps, run.converged) == ("infeasible", 50, False)
    for result in (asked, run):
        assert f"the marginal error {result.errors.max():.3g}" in result.message.replace("largest", "the")
        proof = result.obstruction
        assert (proof.axis, proof.values.tolist(), proof.other, proof.reachable.tolist()) == (0, [1], 1, [1])
        assert proof.excess == pytest.approx(0.3, rel=1e-12)
    # after an odd number of half-steps the other marginal is wrong
    assert data_balance(*problem, steps=401).errors == pytest.approx([0, 0.3], abs=1e-12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seeds, st.floats(0.25, 0.7))
def test_infeasible_support_is_found_and_never_reported_as_success(seed, density):
    table, targets = random_problem(seed, density=density)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        run = data_balance(table, targets, tol=1e-9, max_steps=20_000)
    worst = violation(table > 0, targets)
    if solvable(table > 0, targets):
        assert run.converged or (run.reason == "max_steps" and worst > 1 - 1e-9)
    elif worst > 1 + 1e-6:
        assert (run.converged, run.reason) == (False, "infeasible")
        assert "Change the targets" in run.message


def test_the_certificate_names_rows_and_columns():
    table = np.array([[3, 0, 0], [1, 0, 0], [1, 1, 1]])
    targets = [0.3, 0.2, 0.5], [0.4, 0.3, 0.3]
    for first in (0, 1):
        with pytest.warns(ConvergenceWarning, match="no table with this support"):
            run = data_balance(table, targets, tol=1e-9, first=first)
        assert run.reason == "infeasible"
        by_rows = "values [0, 1] of axis 0" in run.message and "values [0] of axis 1" in run.message
        by_columns = "values [1, 2] of axis 1" in run.message and "[2] of axis 0" in run.message
        assert (by_rows or by_columns) and "0.1 more" in run.message


NAN = float("nan")
BAD_TABLES = [
    ([[1, -2], [3, 4]], r"table\[0, 1\] = -2\.0 is negative"),
    ([[1, 2], [NAN, 4]], r"table\[1, 0\] = nan is not a finite"),
    ([[1, 2], [3, float("inf")]], r"table\[1, 1\] = inf is not a finite"),
    ([[1e300, 2], [1e-310, 4]], r"table\[1, 0\] = 1e-310 is lost in double precision"),
    ([[0, 0], [0, 0]], "table has no mass"),
    ([1, 2], "table has 1 axes"),
    ([["a", "b"], ["c", "d"]], "table has dtype"),
    ([[1, 2], [0, 0]], r"targets\[0\]\[1\] = 0\.5, but row 1"),
    ([[1, 0], [1, 0]], r"targets\[1\]\[1\] = 0\.5, but column 1"),
]
BAD_TARGETS = [
    ((UNIFORM,), "1 targets for a table with 2 axes"),
    ((UNIFORM, [0.2, 0.3, 0.5]), r"targets\[1\] has length 3"),
    ((UNIFORM, [0.5, 0.6]), r"targets\[0\] sums to 1 and targets\[1\] to 1\.1"),
    ((UNIFORM, [1.5, -0.5]), r"targets\[1\]\[1\] = -0\.5 is negative"),
    (([NAN, 1], UNIFORM), r"targets\[0\]\[0\] = nan is not a finite"),
    (([[0.5, 0.5]], UNIFORM), r"targets\[0\] has 2 axes"),
    (([0, 0], UNIFORM), r"targets\[0\] has no mass"),
]
BAD_OPTIONS = [
    ({"steps": 2, "tol": 1e-3}, "give one of steps .* and tol .*, not both"),
    ({"steps": -1}, "steps = -1"),
    ({"steps": 1.5}, r"steps = 1\.5"),
    ({"tol": 0.0}, r"tol = 0\.0"),
    ({"tol": 1.0}, r"tol = 1\.0"),
    ({"tol": NAN}, "tol = nan"),
    ({"tol": 1e-3, "max_steps": -5}, "max_steps = -5"),
    ({"steps": 2, "first": 2}, "first = 2: choose an integer from 0 to 1"),
    ({"steps": 2, "first": -1}, "first = -1"),
]


@pytest.mark.parametrize(("table", "message"), BAD_TABLES)
def test_bad_table(table, message):
    with pytest.raises(ValueError, match=message):
        data_balance(table, (UNIFORM, UNIFORM), steps=1)


@pytest.mark.parametrize(("targets", "message"), BAD_TARGETS)
def test_bad_targets(targets, message):
    with pytest.raises(ValueError, match=message):
        data_balance([[1, 2], [3, 4]], targets, steps=1)


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        data_balance([[1, 2], [3, 4]], (UNIFORM, UNIFORM), **options)


def test_bad_input_of_the_small_functions():
    with pytest.raises(ValueError, match=r"q sums to 0\.9, not 1"):
        kl_divergence([0.5, 0.4], UNIFORM)
    with pytest.raises(ValueError, match=r"p\[1\] = -0\.5 is negative"):
        kl_divergence(UNIFORM, [1.5, -0.5])
    with pytest.raises(ValueError, match=r"p has shape \(2,\), q has shape \(3,\)"):
        total_variation(UNIFORM, [0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="axis = 2"):
        marginal([[1, 2], [3, 4]], 2)
    with pytest.raises(ValueError, match=r"target\[0\] = 0\.5, but row 0"):
        project([[0, 0], [1, 1]], UNIFORM, 0)


@pytest.mark.parametrize("axis", [-1, 2, True, 1.0])
def test_project_names_a_bad_axis(axis):
    with pytest.raises(ValueError, match=f"axis = {axis}: choose an integer from 0 to 1"):
        project([[1, 1], [1, 3]], UNIFORM, axis)


def test_divergence_and_distance_by_hand():
    assert abs(kl_divergence([1, 0], [0.25, 0.75]) - np.log(4)) < 1e-15
    assert kl_divergence([0.5, 0.5], [1, 0]) == np.inf and kl_divergence([1, 0], [1, 0]) == 0
    assert total_variation([1, 0], [0, 1]) == 1
    assert abs(total_variation([0.2, 0.8], [0.5, 0.5]) - 0.3) < 1e-15


@fast
@given(seeds)
def test_peer_sinkhorn(seed):
    """The Python Optimal Transport library finds the same plan from exp(-cost / eps)."""
    rng = np.random.default_rng(seed)
    a, b = rng.dirichlet(np.ones(4) * 3), rng.dirichlet(np.ones(6) * 3)
    cost = rng.random((4, 6))
    plan = ot.sinkhorn(a, b, cost, reg=0.2, numItermax=20_000, stopThr=1e-13, warn=False)
    ours = data_balance(np.exp(-cost / 0.2), (a, b), tol=1e-13).table
    assert np.abs(plan - ours).max() < 1e-9
