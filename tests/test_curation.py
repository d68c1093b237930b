"""Matching against a slow reference, masses against rational arithmetic and dense balancing, caps by their order."""

import re
import tracemalloc
from collections import Counter
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import coo_array, csc_array, csr_array

from balance.curation import (
    capped_target,
    curate,
    effective_sample_size,
    match_keywords,
    metaclip_inclusion,
)
from balance.datasets import icons, load_keywords
from balance.projections import data_balance
from benchmarks.curation import CAP, curate_by_loop, paper_size


def words_of(text):
    return tuple(re.findall(r"[,.;:?!`]|[^\s,.;:?!`]+", text))


def match_by_phrases(texts, keywords):
    """Look up every run of words of a text among the keywords."""
    index = {words_of(keyword): column for column, keyword in enumerate(keywords)}
    longest = max(map(len, index))
    found = []
    for words in map(words_of, texts):
        runs = (words[i : i + k] for k in range(1, longest + 1) for i in range(len(words) - k + 1))
        found.append({index[run] for run in runs if run in index})
    return found


def rows_of(table):
    return [set(table.indices[a:b].tolist()) for a, b in zip(table.indptr, table.indptr[1:], strict=False)]


def random_table(seed, n=9, keywords=6, density=0.4):
    """Zeros and ones with an empty row and an empty column."""
    table = (np.random.default_rng(seed).random((n, keywords)) < density).astype(int)
    table[3], table[:, 2], table[0, 0] = 0, 0, 1
    return table


tables = st.integers(0, 10_000).map(random_table)


def test_matches_icons_as_the_slow_reference():
    captions = [*icons.load_icons("train").captions, *icons.load_icons("brands").captions]
    rng = np.random.default_rng(0)
    captions += [
        rng.choice([",", ", ", ";", "!\t", " . ", "-"]).join(caption.split()).replace("a", rng.choice(["a", "A"]))
        for caption in captions[::5]
    ]
    keywords = load_keywords()
    table = match_keywords(captions, keywords)
    assert rows_of(table) == match_by_phrases(captions, keywords)
    assert table.nnz > 30_000 and set(table.data) == {1} and table.has_canonical_format


def test_rule_is_metaclips():
    """Substring search in spaced text, for keywords without the marks that their spacing does not reach."""
    keywords = [word for word in load_keywords() if not set(word) & set(",.;:?!`\N{NO-BREAK SPACE}")][::5]
    captions = [*icons.load_icons("artists").captions[:300], "an x-ray, a red heart: one star.", "Heart; heart?heart"]
    table = match_keywords(captions, keywords)
    for caption, row in zip(captions, rows_of(table), strict=True):
        for mark in ",.;:?!`":
            caption = caption.replace(mark, f" {mark} ")
        assert row == {column for column, word in enumerate(keywords) if f" {word} " in f" {caption} "}


@settings(deadline=None)
@given(
    st.lists(st.text("ab ,.A\t", max_size=12), max_size=4),
    st.lists(st.text("ab ,.A", min_size=1, max_size=4), min_size=1, max_size=6, unique_by=words_of),
)
def test_match_small_texts(texts, keywords):
    keywords = [keyword for keyword in keywords if keyword.strip()] or ["a"]
    table = match_keywords(texts, keywords)
    assert table.shape == (len(texts), len(keywords))
    assert rows_of(table) == match_by_phrases(texts, keywords)


def test_boundaries_case_and_marks():
    keywords = ["art", "red heart", "12:30", "US", "us", "wait..."]
    texts = [
        "heart art-house",
        "art",
        "a red  heart!",
        "red, heart",
        "at 12:30",
        "12 : 30",
        "the US",
        "Us and us",
        "wait...",
    ]
    expected = [set(), {0}, {1}, set(), {2}, {2}, {3}, {4}, {5}]
    assert rows_of(match_keywords(texts, keywords)) == expected
    assert rows_of(match_keywords((text for text in texts), keywords)) == expected
    assert match_keywords([], keywords).shape == (0, 6)


def test_each_mark_parts_words():
    texts = [f"a{mark}b" for mark in ",.;:?!`\t\n\r-_'"]
    assert match_keywords(texts, ["a"]).toarray().ravel().tolist() == [1] * 10 + [0] * 3


@pytest.mark.parametrize(
    ("texts", "keywords", "error", "message"),
    [
        ("a text", ["a"], TypeError, "texts is a single string"),
        (["a"], "a", TypeError, "keywords is a single string"),
        (["a", 3], ["a"], TypeError, r"texts\[1\] is of type int"),
        (["a"], [], ValueError, "keywords is empty"),
        (["a"], ["b", " \t"], ValueError, r"keywords\[1\] = ' \\t' is empty"),
        (["a"], ["b", "a!", "a !"], ValueError, r"keywords\[1\] = 'a!' and keywords\[2\] = 'a !' match the same"),
    ],
)
def test_match_says_what_is_wrong(texts, keywords, error, message):
    with pytest.raises(error, match=message):
        match_keywords(texts, keywords)


counts_lists = st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any)


@settings(deadline=None)
@given(counts_lists, st.floats(0.5, 50))
def test_capped_target_by_fractions(counts, cap):
    capped = [min(Fraction(count), Fraction(cap)) for count in counts]
    expected = [float(value / sum(capped)) for value in capped]
    np.testing.assert_allclose(capped_target(counts, cap), expected, rtol=1e-14)


@settings(deadline=None)
@given(counts_lists, st.floats(0.5, 50), st.floats(0.5, 50))
def test_smaller_cap_is_majorized(counts, one, other):
    """The sums of the largest parts grow with the cap."""
    low, high = (np.sort(capped_target(counts, cap))[::-1] for cap in sorted([one, other]))
    assert (np.cumsum(low) <= np.cumsum(high) + 1e-12).all()


@settings(deadline=None)
@given(counts_lists)
def test_extreme_caps(counts):
    counts = np.array(counts)
    np.testing.assert_allclose(capped_target(counts, np.inf), counts / counts.sum())
    np.testing.assert_allclose(capped_target(counts, counts[counts > 0].min()), (counts > 0) / (counts > 0).sum())


@pytest.mark.parametrize("cap", [0, -1, np.nan])
def test_cap_must_be_positive(cap):
    for function in (lambda: capped_target([1, 2], cap), lambda: metaclip_inclusion([[1]], cap)):
        with pytest.raises(ValueError, match="pass a positive number of captions"):
            function()


def test_curate_by_hand():
    """Captions {1, 2}, {1}, {1}, {}: counts 3, 1; cap 1; R = (1/6 + 2/3, 1/6); T = (1/2, 1/2)."""
    curation = curate([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]], 1)
    np.testing.assert_allclose(curation.weights, [0.1 + 0.5, 0.2, 0.2, 0], rtol=1e-14)
    assert curation.matched.tolist() == [True, True, True, False]
    assert curation.counts.tolist() == [3, 1, 0]
    np.testing.assert_allclose(curation.target, [0.5, 0.5, 0])
    np.testing.assert_allclose(curation.observed, [0.75, 0.25, 0])
    np.testing.assert_allclose(curation.table.toarray(), [[0.1, 0.5, 0], [0.2, 0, 0], [0.2, 0, 0], [0, 0, 0]])
    assert curation.effective_sample_size == pytest.approx(1 / (0.36 + 0.04 + 0.04))


@settings(deadline=None)
@given(tables, st.integers(1, 6))
def test_curate_by_fractions(table, cap):
    rows = [[int(a) for a in row] for row in table]
    matched = sum(map(any, rows))
    first = [[Fraction(a, sum(row) * matched) if a else Fraction(0) for a in row] for row in rows]
    marginal = [sum(column) for column in zip(*first, strict=True)]
    capped = [min(sum(column), cap) for column in zip(*rows, strict=True)]
    worth = [Fraction(c, sum(capped)) / r if r else Fraction(0) for c, r in zip(capped, marginal, strict=True)]
    expected = [float(sum(a * w for a, w in zip(row, worth, strict=True))) for row in first]
    curation = curate(csr_array(table), cap)
    np.testing.assert_allclose(curation.weights, expected, rtol=1e-12)
    np.testing.assert_allclose(curation.balanced, [c / sum(capped) for c in capped], atol=1e-14)


@settings(deadline=None, max_examples=40)
@given(tables, st.integers(1, 6), st.integers(0, 7))
def test_curate_is_dense_balancing(table, cap, steps):
    matched = table.any(1).astype(float)
    dense = data_balance(table, (matched / matched.sum(), capped_target(table.sum(0), cap)), steps=steps)
    for form in (csr_array, csc_array, coo_array, np.asarray):
        curation = curate(form(table), cap, steps=steps)
        np.testing.assert_allclose(curation.table.toarray(), dense.table, atol=1e-14)
        np.testing.assert_allclose(curation.weights, dense.table.sum(1), atol=1e-14)
        np.testing.assert_allclose(curation.balanced, dense.table.sum(0), atol=1e-14)
        np.testing.assert_allclose(curation.errors, dense.errors, atol=1e-14)


@settings(deadline=None)
@given(tables, st.integers(1, 6), st.sampled_from([1, 3, 9]))
def test_captions_last_is_match_only(table, cap, steps):
    curation = curate(table, cap, steps=steps)
    np.testing.assert_allclose(curation.weights, curation.matched / curation.matched.sum(), atol=1e-14)


def test_input_is_not_changed():
    table = csr_array((np.ones(4), [2, 0, 1, 1], [0, 2, 4]), shape=(2, 3))
    table.data[1] = 0
    with pytest.raises(ValueError, match=r"table\[1, 1\] = 2 is neither 0 nor 1"):
        curate(table, 1)
    assert table.indices.tolist() == [2, 0, 1, 1] and table.data.tolist() == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([[1, 0.5]], r"table\[0, 1\] = 0.5 is neither"),
        ([[0, 0], [1, -1]], r"table\[1, 1\] = -1 is neither"),
        ([[0, 0]], "no caption matches"),
        ([1, 1], "1 axes"),
    ],
)
def test_tables_are_zeros_and_ones(table, message):
    for function in (curate, metaclip_inclusion):
        with pytest.raises(ValueError, match=message):
            function(table, 1)


@settings(deadline=None)
@given(tables, st.integers(1, 6))
def test_metaclip_inclusion_by_enumeration(table, cap):
    """Over all outcomes of one toss for each keyword of a caption."""
    counts = table.sum(0)
    expected = []
    for row in table:
        chances = [min(1, cap / count) for a, count in zip(row, counts, strict=True) if a]
        outcomes = product([False, True], repeat=len(chances))
        expected.append(
            sum(
                np.prod([p if hit else 1 - p for p, hit in zip(chances, outcome, strict=True)])
                for outcome in outcomes
                if any(outcome)
            )
        )
    np.testing.assert_allclose(metaclip_inclusion(table, cap), expected, atol=1e-14)


def test_effective_sample_size_is_a_variance():
    """Of a weighted mean of independent signs, over all of them."""
    weights = np.array([3, 1, 0, 2, 0.5, 1])
    means = [weights @ signs / weights.sum() for signs in product([-1, 1], repeat=6)]
    assert effective_sample_size(weights) == pytest.approx(1 / np.var(means))
    assert effective_sample_size(1e300 * weights) == pytest.approx(1 / np.var(means))
    assert effective_sample_size(np.full(7, 0.3)) == pytest.approx(7)


def test_size_of_the_paper():
    """Megabytes where the dense table takes 12.8 GB, and the masses of a loop in plain Python."""
    tracemalloc.start()
    table = paper_size(np.random.default_rng(7))
    curation = curate(table, CAP)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (table.shape, table.nnz) == ((87_235, 18_300), 209_382)
    assert peak < 200e6 < 8 * table.shape[0] * table.shape[1]
    rows = [sorted(row) for row in rows_of(table)]
    np.testing.assert_allclose(curation.weights, curate_by_loop(rows, CAP), rtol=1e-12)
    counts = Counter(column for row in rows for column in row)
    assert [counts[column] for column in range(18_300)] == curation.counts.tolist()
