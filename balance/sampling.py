"""Drawing captions by their mass: from a vector, or from a stream that is read once (chapter 9 of the book).

A stream comes in blocks: rows of the table of `balance.curation.match_keywords`, or arrays of masses. The functions
that take streams hold no more than one block, a few vectors over the keywords, and what they return.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from balance._engine import checks
from balance._engine.loop import safe_divide
from balance.curation import capped_target


def resample(weights: ArrayLike, size: int, *, replace: bool, rng: np.random.Generator) -> NDArray[np.intp]:
    r"""Draw rows with probabilities proportional to their masses.

    Parameters
    ----------
    weights : array_like, shape (n,)
        Masses >= 0, not all zero.
    size : int
        Number of draws.
    replace : bool
        True: independent draws. False: one draw after the other, each from the rows that are left.
    rng : Generator

    Returns
    -------
    ndarray of int, shape (size,)
        Row numbers, in the order drawn.

    Raises
    ------
    ValueError
        If a mass is negative or not finite, all are zero, or, without replacement, `size` is more than the number
        of positive masses.

    Notes
    -----
    Without replacement the rows race: row x arrives after a time that is exponential with rate w(x), and the first
    ones to arrive are taken. Those times are :math:`-\log(u) / w(x)` with u uniform, in the reference the keys
    :math:`u^{1 / w(x)}`.

    References
    ----------
    Efraimidis, Spirakis (2006), Weighted random sampling with a reservoir.

    Examples
    --------
    >>> rng = np.random.default_rng(7)
    >>> sorted(resample([0.5, 0.25, 0, 0.25], 3, replace=False, rng=rng).tolist())
    [0, 1, 3]
    >>> np.bincount(resample([0.5, 0.25, 0, 0.25], 1000, replace=True, rng=rng)).tolist()
    [501, 246, 0, 253]
    """
    weights = checks.as_masses(weights, "weights", ndim=1)
    checks.check_count(size, "size")
    if replace:
        return rng.choice(len(weights), size, p=weights / weights.sum()).astype(np.intp, copy=False)
    if size > (weights > 0).sum():
        raise ValueError(
            f"size = {size}, but only {(weights > 0).sum()} rows have mass: draw fewer, or with replacement"
        )
    return weighted_reservoir([weights], size, rng)


@dataclass(frozen=True, eq=False)
class KeywordCounts:
    r"""What one pass over the captions leaves behind.

    Attributes
    ----------
    counts : ndarray of int, shape (K,)
        Captions :math:`c_y` that each keyword matches.
    shares : ndarray, shape (K,)
        The same with each caption divided among its keywords: :math:`r_y = \sum_x A_{xy} / d_x`.
    matched : int
        Captions that match a keyword.
    """

    counts: NDArray[np.int64] = field(repr=False)
    shares: NDArray[np.float64] = field(repr=False)
    matched: int


def count_keywords(blocks: Iterable[csr_array]) -> KeywordCounts:
    """First pass: count the keywords.

    Parameters
    ----------
    blocks : iterable of csr_array, shape (any, K)
        Zeros and ones, as from `match_keywords`.

    Returns
    -------
    KeywordCounts

    Raises
    ------
    ValueError
        If there is no block, or the blocks differ in their number of keywords.

    Examples
    --------
    >>> from balance.curation import match_keywords
    >>> blocks = [match_keywords(block, ["heart", "red"]) for block in (["red heart", "stone"], ["heart"])]
    >>> count_keywords(blocks).shares.tolist()
    [1.5, 0.5]
    """
    counts, matched = None, 0
    for block in blocks:
        if counts is None:
            counts, shares = np.zeros(block.shape[1], np.int64), np.zeros(block.shape[1])
        if block.shape[1] != len(counts):
            raise ValueError(f"blocks have {len(counts)} and {block.shape[1]} keywords: match all with the same")
        each = np.diff(block.indptr)
        counts += block.sum(0)
        shares += block.T @ _inverse(each)
        matched += int((each > 0).sum())
    if counts is None:
        raise ValueError("there is no block: an iterator that was read before is empty")
    return KeywordCounts(counts, shares, matched)


def stream_weights(blocks: Iterable[csr_array], known: KeywordCounts, cap: float) -> Iterator[NDArray[np.float64]]:
    r"""Second pass: the mass of each caption, the same as ``curate(table, cap).weights``.

    .. math:: w(x) = \frac{1}{d_x} \sum_y A_{xy} \frac{T_y}{r_y}, \qquad T_y \propto \min(c_y, t) .

    Parameters
    ----------
    blocks : iterable of csr_array, shape (any, K)
        The captions once more.
    known : KeywordCounts
        From the first pass.
    cap : float
        The cap t > 0.

    Yields
    ------
    ndarray
        One mass for each row of the block. The sum over all blocks is 1.

    Raises
    ------
    ValueError
        If the cap is not positive.

    Examples
    --------
    >>> from balance.curation import match_keywords
    >>> blocks = [match_keywords(block, ["heart", "red"]) for block in (["red heart", "stone"], ["heart", "heart"])]
    >>> [masses.tolist() for masses in stream_weights(blocks, count_keywords(blocks), cap=1)]
    [[0.6, 0.0], [0.2, 0.2]]
    """
    worth = safe_divide(capped_target(known.counts, cap), known.shares)
    for block in blocks:
        yield block @ worth * _inverse(np.diff(block.indptr))


def weighted_reservoir(weights: Iterable[ArrayLike], size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw a fixed number of rows without replacement from a stream of masses, in one pass.

    Parameters
    ----------
    weights : iterable of array_like
        Masses >= 0 in blocks. Their total need not be known.
    size : int
        Number of rows; fewer are returned if the stream has fewer with mass.
    rng : Generator

    Returns
    -------
    ndarray of int
        Row numbers, counted through the stream, in the order of arrival of the race in `resample`.

    Raises
    ------
    ValueError
        If a block is not a vector, a mass is negative or not finite, or `size` is not an integer >= 0.

    References
    ----------
    Efraimidis, Spirakis (2006), Weighted random sampling with a reservoir.

    Examples
    --------
    >>> stream = (np.full(1000, 0.001) for _ in range(1000))
    >>> weighted_reservoir(stream, 5, np.random.default_rng(7)).shape
    (5,)
    """
    checks.check_count(size, "size")
    rows, times = np.empty(0, np.intp), np.empty(0)
    for start, masses in _numbered(weights):
        with np.errstate(divide="ignore"):
            arrivals = rng.exponential(size=len(masses)) / masses
        rows = np.concatenate([rows, start + np.arange(len(masses))])
        times = np.concatenate([times, arrivals])
        first = np.argsort(times, kind="stable")[:size]
        rows, times = rows[first], times[first]
    return rows[np.isfinite(times)]


def poisson_sample(weights: Iterable[ArrayLike], size: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Keep each row of a stream with probability min(1, size * mass), independently of the others.

    Parameters
    ----------
    weights : iterable of array_like
        Masses >= 0 in blocks, with total 1.
    size : float
        Number of rows that are kept on average, if no mass is more than 1 / size; fewer otherwise.
    rng : Generator

    Returns
    -------
    ndarray of int
        Row numbers, counted through the stream, increasing.

    Raises
    ------
    ValueError
        If a block is not a vector, a mass is negative or not finite, or `size` is not positive.

    Examples
    --------
    >>> stream = (np.full(1000, 0.001 / 50) for _ in range(50))
    >>> len(poisson_sample(stream, 500, np.random.default_rng(7)))
    483
    """
    if not size > 0:
        raise ValueError(f"size = {size!r}: pass a positive number of rows")
    kept = [np.empty(0, np.intp)]
    for start, masses in _numbered(weights):
        kept.append(start + np.flatnonzero(rng.random(len(masses)) < size * masses))
    return np.concatenate(kept)


def _numbered(blocks):
    """Blocks of masses, each with the number of its first row."""
    start = 0
    for block in blocks:
        masses = np.asarray(block, dtype=np.float64)
        if masses.ndim != 1:
            raise ValueError(f"a block of the stream has {masses.ndim} axes: pass vectors of masses, [vector] for one")
        wrong = np.flatnonzero(~((masses >= 0) & (masses < np.inf)))
        if wrong.size:
            raise ValueError(
                f"row {start + wrong[0]} of the stream has mass {masses[wrong[0]]}: masses are finite and >= 0"
            )
        yield start, masses
        start += len(masses)


def _inverse(degrees):
    """1 / d, and 0 for a caption without keywords."""
    return np.divide(1.0, degrees, out=np.zeros(len(degrees)), where=degrees > 0)
