"""Batches of tables against one table at a time, and against rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance import data_balance
from balance._engine import stacks
from balance.batched import balance_many, balanced_means


@st.composite
def problems(draw):
    seed = draw(st.integers(0, 2**32 - 1))
    m, l, n = draw(st.integers(1, 6)), draw(st.integers(1, 6)), draw(st.integers(1, 60))
    if draw(st.booleans()):
        m, l = m + 14, l + 14  # beyond the size at which the kernel changes
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n, rng.dirichlet(np.ones(m * l)), size=20).reshape(-1, m, l)
    targets = (rng.dirichlet(np.full(m, 5.0)), rng.dirichlet(np.full(l, 5.0)))
    return counts, targets, rng.normal(size=(m, l))


@settings(max_examples=60, deadline=None)
@given(problems(), st.integers(0, 7), st.integers(0, 1))
def test_a_batch_is_what_data_balance_makes_of_each_table(problem, steps, first):
    counts, targets, h = problem
    before = counts.copy()
    many = balance_many(counts, targets, steps=steps, first=first)
    means = balanced_means(counts, h, targets, steps=steps, first=first)
    assert np.array_equal(counts, before)
    assert np.array_equal(many.complete, means.complete)
    for i, table in enumerate(counts):
        assert many.complete[i] == (table.any(axis=0).all() and table.any(axis=1).all())
        if many.complete[i]:
            one = data_balance(table, targets, steps=steps, first=first, keep_iterates=True)
            expected = [(h * iterate).sum() for iterate in one.iterates]
            np.testing.assert_allclose(many.table[i], one.table, atol=1e-13)
            np.testing.assert_allclose(means.values[i], expected, atol=1e-12)
        else:
            np.testing.assert_allclose(many.table[i], table / table.sum(), rtol=1e-14)
            np.testing.assert_allclose(means.values[i], (h * table).sum() / table.sum())


def test_three_half_steps_in_rational_arithmetic():
    counts = [[3, 1, 2], [1, 4, 1]]
    targets = ([Fraction(1, 3), Fraction(2, 3)], [Fraction(1, 4), Fraction(1, 4), Fraction(1, 2)])
    table = np.array([[Fraction(c, 12) for c in row] for row in counts])
    for k in range(3):
        axis = k % 2
        factor = np.array(targets[axis]) / table.sum(axis=1 - axis)
        table = table * (factor[:, None] if axis == 0 else factor)
    many = balance_many([counts], [[float(t) for t in v] for v in targets], steps=3)
    np.testing.assert_allclose(many.table[0], table.astype(float), rtol=1e-14)


def test_blocks_are_joined_in_order():
    rng = np.random.default_rng(3)
    counts = rng.integers(1, 9, size=(9_000, 8, 8))  # several blocks of 4 MB
    targets = (np.full(8, 1 / 8), np.full(8, 1 / 8))
    whole = balance_many(counts, targets, steps=3).table
    parts = [balance_many(counts[i : i + 100], targets, steps=3).table for i in (0, 4_500, 8_900)]
    np.testing.assert_array_equal(whole[[0, 4_500, 8_900]], [part[0] for part in parts])


def test_an_empty_batch_gives_empty_results():
    means = balanced_means(np.empty((0, 2, 2)), np.ones((2, 2)), ([1, 1], [1, 1]), steps=2)
    assert means.values.shape == (0, 3) and means.complete.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tables": np.ones((2, 2))}, "2 axes"),
        ({"tables": [[[1, -1], [1, 1]]]}, r"table\[0, 0, 1\] = -1.0 is negative"),
        ({"tables": [np.eye(2), [[np.nan, 1], [1, 1]]]}, r"table\[1, 0, 0\] = nan is not a finite"),
        ({"tables": [np.eye(2), np.zeros((2, 2))]}, r"table\[1\] has no mass"),
        ({"tables": [[["a", "b"], ["c", "d"]]]}, "dtype"),
        ({"targets": ([0.5, 0.5], [1, -1])}, r"targets\[1\]\[1\] = -1.0 is negative"),
        ({"targets": ([0.5, 0.5], [0.3, 0.3])}, "common total"),
        ({"targets": ([0.5, 0.5], [0.3, 0.3, 0.4])}, "length 3"),
        ({"steps": -1}, "steps = -1"),
        ({"steps": 1.5}, "steps = 1.5"),
        ({"first": 2}, "first = 2"),
        ({"h": np.ones((2, 3))}, r"h has shape \(2, 3\)"),
        ({"h": [[1, np.inf], [0, 0]]}, r"h\[0, 1\] = inf"),
    ],
)
def test_bad_input_is_named(change, message):
    arguments = {
        "tables": [np.eye(2)],
        "targets": ([0.5, 0.5], [0.5, 0.5]),
        "steps": 2,
        "first": 0,
        "h": np.ones((2, 2)),
    } | change
    tables, h, targets = (arguments.pop(name) for name in ("tables", "h", "targets"))
    with pytest.raises(ValueError, match=message):
        balanced_means(tables, h, targets, **arguments)


@pytest.mark.parametrize(("number", "pools"), [(0, 0), (3, 0), (800, 1)])
def test_a_single_block_starts_no_threads(monkeypatch, number, pools):
    started = []

    class Pool(stacks.ThreadPoolExecutor):
        def __init__(self, *arguments):
            started.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(stacks, "ThreadPoolExecutor", Pool)
    tables = np.ones((number, 30, 30))
    means = balanced_means(tables, np.ones((30, 30)), (np.ones(30), np.ones(30)), steps=2)
    assert len(started) == pools
    np.testing.assert_allclose(means.values, np.ones((number, 3)), rtol=1e-12)
