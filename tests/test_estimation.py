"""Estimates from records against tables, weights by hand, and samples from a known population."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from balance import ConvergenceWarning, Records, data_balance
from balance.datasets import load_population
from balance.estimation import estimate
from balance.variance import balanced_variance, influence_function

THIRDS = np.full(3, 1 / 3)


@st.composite
def samples(draw):
    """Records in which every value occurs, outcomes and targets."""
    seed = draw(st.integers(0, 2**32 - 1))
    m, l = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    n = draw(st.integers(m + l + 1, 60))
    rng = np.random.default_rng(seed)
    x, y = rng.integers(m, size=n), rng.integers(l, size=n)
    x[:m], y[:l] = np.arange(m), np.arange(l)
    targets = rng.dirichlet(np.full(m, 5.0)), rng.dirichlet(np.full(l, 5.0))
    return x, y, rng.normal(size=n), targets


@settings(max_examples=60, deadline=None)
@given(samples(), st.integers(0, 4), st.integers(0, 1))
def test_value_and_error_are_those_of_the_table_of_x_y_and_record(sample, steps, first):
    x, y, z, targets = sample
    n, shape = len(x), tuple(len(t) for t in targets)
    result = estimate((x, y), z, targets, steps=steps, first=first)
    # every record is a layer of its own: the half-steps act on x and y
    weights, psi = np.full(n, 1 / n), z
    axes = [((x, targets[0]), (y, targets[1]))[(first + j) % 2] for j in range(steps)]
    for codes, target in axes:
        current = np.bincount(codes, weights, len(target))
        weights = weights * (target / current)[codes]
    for codes, target in reversed(axes):
        mass = np.bincount(codes, weights, len(target))
        psi = psi - (np.bincount(codes, weights * psi, len(target)) / mass)[codes]
    if steps == 0:
        psi = z - z.mean()
    freedom = n - (1, shape[first], sum(shape) - 1)[min(steps, 2)]
    error = np.sqrt(n / freedom * np.sum((weights * psi) ** 2))
    np.testing.assert_allclose(result.weights, weights)
    np.testing.assert_allclose(result.value, weights @ z, atol=1e-12)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-9)
    half = stats.t.ppf(0.975, freedom) * error
    np.testing.assert_allclose(result.interval, (result.value - half, result.value + half))
    assert (result.degrees_of_freedom, result.steps) == (freedom, steps)


def test_without_balancing_it_is_students_interval():
    x, y = np.random.default_rng(1).integers(3, size=(2, 40))
    z = np.random.default_rng(2).exponential(size=40)
    result = estimate((x, y), z, (THIRDS, THIRDS), steps=0, level=0.9)
    expected = stats.ttest_1samp(z, 0).confidence_interval(0.9)
    np.testing.assert_allclose(result.interval, expected)
    assert result.value == result.plain == pytest.approx(z.mean())


def test_a_function_of_the_cell_is_the_outcome_at_the_cell():
    rng = np.random.default_rng(3)
    x, y, h = rng.integers(3, size=50), rng.integers(3, size=50), rng.normal(size=(3, 3))
    by_cell = estimate((x, y), h, (THIRDS, THIRDS), steps=3)
    by_record = estimate((x, y), h[x, y], (THIRDS, THIRDS), steps=3)
    assert by_cell.interval == by_record.interval
    counts = np.zeros((3, 3))
    np.add.at(counts, (x, y), 1)
    table = data_balance(counts, (THIRDS, THIRDS), steps=3).table
    np.testing.assert_allclose(by_cell.table, table)
    np.testing.assert_allclose(by_cell.value, np.sum(table * h))
    psi = influence_function(table, h, 3)
    np.testing.assert_allclose(by_cell.standard_error**2, 50 / 45 * np.sum(table**2 / np.maximum(counts, 1) * psi**2))


def test_to_first_order_the_error_is_the_plug_in_variance():
    rng = np.random.default_rng(4)
    law, h = rng.dirichlet(np.full(12, 4.0)).reshape(3, 4), rng.normal(size=(3, 4))
    cells = rng.choice(12, size=20_000, p=law.ravel())
    for steps in range(4):
        result = estimate((cells // 4, cells % 4), h, (law.sum(axis=1), law.sum(axis=0)), steps=steps)
        expected = balanced_variance(law, h, steps) / 20_000
        np.testing.assert_allclose(result.standard_error**2, expected, rtol=0.03)


def test_labels_and_codes_agree():
    x, y, z = ["b", "a", "b", "c", "a"], [10, 20, 20, 10, 20], [1.0, 2, 3, 4, 5]
    named = estimate((x, y), z, ({"a": 1, "b": 2, "c": 2}, {20: 3, 10: 2}), steps=2)
    coded = estimate(([1, 0, 1, 2, 0], [1, 0, 0, 1, 0]), z, ([0.2, 0.4, 0.4], [0.6, 0.4]), steps=2)
    assert (*named.interval, named.value) == pytest.approx((*coded.interval, coded.value), rel=1e-13)


def test_off_the_event_s_it_returns_the_plain_mean_and_says_so():
    x, y, z = [0, 0, 1, 1], ["u", "v", "u", "v"], [1.0, 2.0, 4.0, 8.0]
    targets = ([0.5, 0.3, 0.2], {"u": 0.1, "v": 0.9})
    with pytest.warns(ConvergenceWarning, match="no record has 2: not balanced, the plain mean"):
        result = estimate((x, y), z, targets, steps=2)
    assert result.unseen == ((2,), ())
    assert (result.value, result.steps, result.plain) == (3.75, 0, 3.75)
    np.testing.assert_allclose(result.standard_error, np.std(z, ddof=1) / 2)
    with pytest.warns(ConvergenceWarning):
        assert estimate((x, y), z, targets, steps=0).interval == result.interval


def test_too_few_records_give_an_infinite_interval():
    result = estimate(([0, 1, 0], [0, 1, 1]), [1.0, 2, 4], ([0.5, 0.5], [0.5, 0.5]), steps=2)
    assert result.degrees_of_freedom == 0
    assert result.interval == (-np.inf, np.inf) and np.isfinite(result.value)


def test_coverage_and_length_in_samples_from_a_known_population():
    gss, rng = load_population("gss_vocab"), np.random.default_rng(5)
    x, y, z = (gss.variables[v] for v in ("age", "education", "words"))
    targets = np.bincount(x) / len(x), np.bincount(y) / len(y)
    hits, lengths, errors, runs = np.zeros(2), np.zeros(2), [], 400
    for _ in range(runs):
        i = rng.integers(len(x), size=300)
        both = [estimate((x[i], y[i]), z[i], targets, steps=k) for k in (0, 2)]
        low, high = np.transpose([e.interval for e in both])
        hits += (low <= z.mean()) & (z.mean() <= high)
        lengths += high - low
        errors.append([e.value - z.mean() for e in both])
    monte_carlo = np.sqrt(0.95 * 0.05 / runs)
    assert np.all(np.abs(hits / runs - 0.95) < 3.5 * monte_carlo)
    assert 0.85 < lengths[1] / lengths[0] < 0.92
    plain, balanced = np.mean(np.square(errors), axis=0)
    assert balanced < 0.9 * plain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": [0, 3, 1, 2]}, "record 1 has the code 3 on axis 0, which has no target"),
        ({"x": [0, 1, 2]}, "the variables have 3, 4 records"),
        ({"x": []}, "column 0 is empty"),
        ({"x": [[0, 1, 2, 0]]}, "column 0"),
        ({"outcome": [1.0, 2.0]}, "outcome has shape"),
        ({"outcome": [1.0, np.nan, 0.0, 0.0]}, r"outcome\[1\] = nan"),
        ({"outcome": np.zeros((2, 2))}, r"outcome has shape \(2, 2\), expected \(3, 2\)"),
        ({"targets": ([1, 1, 0], [1, 1])}, "targets.0.: value 2 has mass 0"),
        ({"targets": ([1, 1, 1], [1, 1])}, "common total"),
        ({"targets": ([1, 1, 1],)}, "1 targets"),
        ({"steps": -1}, "steps = -1"),
        ({"steps": 1.5}, "steps = 1.5"),
        ({"first": 2}, "first = 2"),
        ({"level": 95}, "level = 95"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {
        "x": [0, 1, 2, 0],
        "y": [0, 1, 1, 0],
        "outcome": [1.0, 2.0, 3.0, 4.0],
        "targets": (THIRDS, [0.5, 0.5]),
        "steps": 2,
    }
    arguments = good | change
    columns = arguments.pop("x"), arguments.pop("y")
    with pytest.raises(ValueError, match=message):
        estimate(columns, **arguments)


def test_to_convergence_it_is_the_linearization_of_raking_with_base_weights_and_three_variables():
    """Residuals of the weighted regression on the indicators of all variables, by least squares."""
    rng = np.random.default_rng(9)
    codes = [np.r_[np.arange(k), rng.integers(k, size=300 - k)] for k in (2, 3, 4)]
    base, z = rng.gamma(3.0, size=300), rng.normal(size=300) + codes[1]
    targets = [rng.dirichlet(np.full(k, 20.0)) for k in (2, 3, 4)]
    result = estimate(Records(*codes, weights=base), z, targets)
    weights = data_balance(Records(*codes, weights=base), targets, tol=1e-12).table.weights
    design = np.column_stack([np.eye(k)[c] for k, c in zip((2, 3, 4), codes, strict=True)])
    root = np.sqrt(weights)
    slopes = np.linalg.lstsq(design * root[:, None], z * root, rcond=None)[0]
    residuals = z - design @ slopes
    expected = np.sqrt(300 / (300 - 7) * np.sum((weights * residuals) ** 2))
    assert result.degrees_of_freedom == 300 - 7
    assert result.value == pytest.approx(weights @ z, abs=1e-8)
    assert result.standard_error == pytest.approx(expected, rel=1e-6)
    assert result.plain == pytest.approx(base @ z / base.sum())
    assert result.table.shape == (2, 3, 4)
