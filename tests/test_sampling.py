"""Samples against probabilities found by enumeration, streams against the table that they never hold."""

import tracemalloc
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import binom, chisquare

from balance.curation import curate
from balance.sampling import count_keywords, poisson_sample, resample, stream_weights, weighted_reservoir

WEIGHTS = np.array([4.0, 1.0, 0.0, 2.0, 3.0])


def blocks_of(array, cuts):
    return [array[a:b] for a, b in zip([0, *cuts], [*cuts, array.shape[0]], strict=True)]


cuts = st.lists(st.integers(0, 40), max_size=5).map(sorted)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), cuts, st.integers(1, 20))
def test_stream_is_the_table(seed, cuts, cap):
    """Also with captions and keywords without a match, and with empty blocks."""
    table = (np.random.default_rng(seed).random((40, 6)) < [0.6, 0.1, 0, 0.05, 0.3, 0.02]).astype(int)
    table[:5], table[7, 0] = 0, 1
    blocks = blocks_of(csr_array(table), cuts)
    known = count_keywords(iter(blocks))
    curation = curate(table, cap)
    assert known.counts.tolist() == curation.counts.tolist()
    assert known.matched == curation.matched.sum()
    degrees = table.sum(1, keepdims=True)
    np.testing.assert_allclose(known.shares, (table / np.maximum(degrees, 1)).sum(0))
    masses = list(stream_weights(iter(blocks), known, cap))
    assert [len(block) for block in masses] == [block.shape[0] for block in blocks]
    np.testing.assert_allclose(np.concatenate(masses), curation.weights, rtol=1e-12, atol=1e-16)


def test_draws_with_replacement():
    rows = resample(WEIGHTS, 100_000, replace=True, rng=np.random.default_rng(0))
    counts = np.bincount(rows, minlength=5)
    assert counts[2] == 0
    keep = WEIGHTS > 0
    assert chisquare(counts[keep], 10_000 * WEIGHTS[keep]).pvalue > 0.001
    pairs = np.bincount(5 * rows[::2] + rows[1::2], minlength=25)
    expected = 50_000 * np.outer(WEIGHTS, WEIGHTS).ravel() / 100
    assert chisquare(pairs[expected > 0], expected[expected > 0]).pvalue > 0.001


def sequences(weights, size):
    """Probability of each sequence of rows, drawn one after the other from those that are left."""
    law = {}
    for rows in permutations(range(len(weights)), size):
        left, probability = weights.sum(), 1.0
        for row in rows:
            probability *= weights[row] / left
            left -= weights[row]
        law[rows] = probability
    return law


@pytest.mark.parametrize("cuts", [None, [1, 3, 3]])
def test_draws_without_replacement(cuts):
    """The order in which the rows are drawn has the probabilities of the enumeration; so does the reservoir."""
    rng, number = np.random.default_rng(1), 20_000
    law = {rows: p for rows, p in sequences(WEIGHTS, 3).items() if p > 0}
    assert sum(law.values()) == pytest.approx(1)
    if cuts is None:
        drawn = [resample(WEIGHTS, 3, replace=False, rng=rng) for _ in range(number)]
    else:
        drawn = [weighted_reservoir(blocks_of(WEIGHTS, cuts), 3, rng) for _ in range(number)]
    codes, counts = np.unique(np.array(drawn) @ [25, 5, 1], return_counts=True)
    known = {25 * a + 5 * b + c: number * p for (a, b, c), p in law.items()}
    assert set(codes) == set(known)
    assert chisquare(counts, [known[code] for code in codes]).pvalue > 0.001


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), cuts, st.integers(0, 30))
def test_reservoir_is_resample(seed, cuts, size):
    weights = np.random.default_rng(seed).gamma(0.3, size=40)
    whole = resample(weights, size, replace=False, rng=np.random.default_rng(3))
    stream = weighted_reservoir(iter(blocks_of(weights, cuts)), size, np.random.default_rng(3))
    assert whole.tolist() == stream.tolist()
    assert len(set(whole.tolist())) == size


def test_reservoir_of_too_few():
    assert sorted(weighted_reservoir([WEIGHTS], 10, np.random.default_rng(0)).tolist()) == [0, 1, 3, 4]
    assert len(weighted_reservoir([], 10, np.random.default_rng(0))) == 0


def test_poisson_keeps_independently():
    """Each row with its probability, one surely; the number kept has the variance of independent tosses."""
    rng, number, size = np.random.default_rng(2), 20_000, 2.6
    chances = np.minimum(1, size * WEIGHTS / 10)
    kept = np.zeros((number, 5))
    for row in kept:
        row[poisson_sample(blocks_of(WEIGHTS / 10, [2]), size, rng)] = 1
    assert chances[0] == 1 and kept[:, 0].all() and not kept[:, 2].any()
    for row in (1, 3, 4):
        assert 0.0005 < binom.cdf(kept[:, row].sum(), number, chances[row]) < 0.9995
    assert kept.sum(1).var() == pytest.approx((chances * (1 - chances)).sum(), rel=0.05)


def test_streams_are_not_held():
    """A million masses pass in blocks of 1,000."""
    stream = (np.full(1000, 1e-6) for _ in range(1000))
    tracemalloc.start()
    rows = weighted_reservoir(stream, 50, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(rows.tolist())) == 50
    assert rows.max() > 900_000
    assert peak < 1e6


@pytest.mark.parametrize("sample", [weighted_reservoir, poisson_sample])
def test_streams_say_what_is_wrong(sample):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"row 4 of the stream has mass -1.0"):
        sample([[1, 2, 3], [1, -1]], 2, rng)
    with pytest.raises(ValueError, match=r"row 0 of the stream has mass nan"):
        sample([[np.nan]], 2, rng)
    with pytest.raises(ValueError, match=r"has 0 axes: pass vectors of masses, \[vector\] for one"):
        sample([0.5, 0.5], 2, rng)
    with pytest.raises(ValueError, match="size = -1"):
        sample([[1.0]], -1, rng)


def test_resample_says_what_is_wrong():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="only 4 rows have mass"):
        resample(WEIGHTS, 5, replace=False, rng=rng)
    with pytest.raises(ValueError, match=r"weights\[1\] = -1.0 is negative"):
        resample([1, -1.0], 1, replace=True, rng=rng)
    with pytest.raises(ValueError, match=r"size = 1\.5"):
        resample(WEIGHTS, 1.5, replace=True, rng=rng)


def test_blocks_must_fit():
    with pytest.raises(ValueError, match="blocks have 2 and 3 keywords"):
        count_keywords([csr_array([[1, 1]]), csr_array([[1, 1, 1]])])
    with pytest.raises(ValueError, match="there is no block"):
        count_keywords(iter([]))
