"""Curating captions by keywords: match, cap the counts, balance, and know what was gained (chapter 9 of the book).

Captions are the rows (X) and keywords the columns (Y) of a sparse table of zeros and ones. How captions are drawn by
their mass, from a table or from a stream, is in `balance.sampling`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import ahocorasick
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, issparse

from balance._engine import checks
from balance._engine.numbers import as_array, entry
from balance.projections import data_balance
from balance.records import kish_size

_MARKS = str.maketrans({mark: f" {mark} " for mark in ",.;:?!`"})


def match_keywords(texts: Iterable[str], keywords: Sequence[str]) -> csr_array:
    """Which keywords stand in which texts, found in one pass over each text (Aho-Corasick).

    Parameters
    ----------
    texts : iterable of str
        Captions, n of them. For a stream, call this on blocks.
    keywords : sequence of str
        Words or phrases, K of them.

    Returns
    -------
    csr_array of int, shape (n, K)
        1 where the keyword stands in the text, however often.

    Raises
    ------
    TypeError
        If `texts` or `keywords` is a single string or holds something else than strings.
    ValueError
        If a keyword is empty, or two are the same to the rule.

    Notes
    -----
    The rule is MetaCLIP's. Each of the marks ``, . ; : ? ! ``` becomes a word of its own, other white space becomes
    spaces, and a space is put before and after: a keyword matches where it stands between two spaces, so that "art"
    is not found in "heart" nor in "art-house". Letters count as they are: make both sides lower case if "Heart" is to
    be found by "heart", at the price that "US" is then found in "us". MetaCLIP treats only the texts in this way, so
    that a keyword with one of the marks is never found; here keywords are treated alike.

    References
    ----------
    Xu et al. (2024), Demystifying CLIP data. Aho, Corasick (1975), Efficient string matching.

    Examples
    --------
    >>> match_keywords(["red heart, red", "heart-shaped", "Heart"], ["heart", "red", "red heart"]).toarray().tolist()
    [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    words = [_spaced(word) for word in _strings(keywords, "keywords")]
    automaton = ahocorasick.Automaton()
    for column, word in enumerate(words):
        if not word.strip():
            raise ValueError(f"keywords[{column}] = {keywords[column]!r} is empty: leave it out")
        if not automaton.add_word(word, column):
            first = words.index(word)
            raise ValueError(
                f"keywords[{first}] = {keywords[first]!r} and keywords[{column}] = {keywords[column]!r} match the"
                " same texts: keep one of them"
            )
    if not words:
        raise ValueError("keywords is empty: nothing can be matched")
    automaton.make_automaton()
    starts, columns = [0], []
    for text in _strings(texts, "texts"):
        columns += sorted({column for _, column in automaton.iter(_spaced(text))})
        starts.append(len(columns))
    return csr_array((np.ones(len(columns), np.int64), columns, starts), shape=(len(starts) - 1, len(words)))


def capped_target(counts: ArrayLike, cap: float) -> NDArray[np.float64]:
    r"""Target of the keywords: probabilities proportional to :math:`\min(c_y, t)`.

    Parameters
    ----------
    counts : array_like, shape (K,)
        Captions :math:`c_y` that each keyword matches, >= 0, not all zero.
    cap : float
        The cap t > 0. At most the smallest positive count, all matched keywords get the same; ``inf`` leaves the
        counts.

    Returns
    -------
    ndarray, shape (K,)
        0 for a keyword that matches nothing.

    Raises
    ------
    ValueError
        If a count is negative or not finite, all are zero, or the cap is not positive.

    References
    ----------
    Xu et al. (2024), Demystifying CLIP data. Liu, Mehta, Pal, Harchaoui (2024), section 2.

    Examples
    --------
    >>> capped_target([6, 2, 1, 0], cap=2).tolist()
    [0.4, 0.4, 0.2, 0.0]
    """
    capped = np.minimum(checks.as_masses(counts, "counts", ndim=1), _cap(cap))
    return capped / capped.sum()


@dataclass(frozen=True, eq=False)
class Curation:
    """Captions with masses, as `curate` found them.

    Attributes
    ----------
    weights : ndarray, shape (n,)
        Mass of each caption; 0 for a caption that matches nothing. The sum is 1.
    matched : ndarray of bool, shape (n,)
        Whether the caption matches a keyword.
    counts : ndarray of int, shape (K,)
        Captions that each keyword matches.
    target : ndarray, shape (K,)
        Capped target of the keywords.
    observed, balanced : ndarray, shape (K,)
        Marginal of the keywords before, ``counts / counts.sum()``, and after the steps.
    errors : ndarray, shape (2,)
        Total variation distance from the targets of captions (uniform on the matched) and of keywords.
    table : csr_array, shape (n, K)
        The balanced table, total mass 1.
    """

    weights: NDArray[np.float64] = field(repr=False)
    matched: NDArray[np.bool_] = field(repr=False)
    counts: NDArray[np.int64] = field(repr=False)
    target: NDArray[np.float64] = field(repr=False)
    observed: NDArray[np.float64] = field(repr=False)
    balanced: NDArray[np.float64] = field(repr=False)
    errors: NDArray[np.float64]
    table: csr_array = field(repr=False)

    @property
    def effective_sample_size(self) -> float:
        """That of the weights; see `effective_sample_size`."""
        return effective_sample_size(self.weights)


def curate(table: csr_array | ArrayLike, cap: float, *, steps: int = 2) -> Curation:
    r"""Balance captions and keywords to the capped target, and read off the mass of each caption.

    With :math:`d_x` keywords in caption x, :math:`R_y` the marginal of the keywords when each of the matched captions
    has the same mass, and the target :math:`T_y \propto \min(c_y, t)`, the two steps of the paper give

    .. math:: w(x) = \frac{1}{n} \sum_y \frac{A_{xy}}{d_x} \frac{T_y}{R_y} .

    Parameters
    ----------
    table : csr_array or array_like, shape (n, K)
        Zeros and ones A, as from `match_keywords`.
    cap : float
        The cap t > 0 of `capped_target`.
    steps : int
        Half-steps of `data_balance`. The first makes the captions uniform on the matched ones, the second gives the
        keywords their target, and so on in turn.

    Returns
    -------
    Curation

    Raises
    ------
    ValueError
        If an entry is neither 0 nor 1, no caption matches, or the cap is not positive.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), section 2, metadata curation.

    Examples
    --------
    >>> table = match_keywords(["red heart", "heart", "heart", "stone"], ["heart", "red"])
    >>> curation = curate(table, cap=1)
    >>> curation.weights.tolist(), curation.balanced.tolist()
    ([0.6, 0.2, 0.2, 0.0], [0.5, 0.5])
    """
    table = check_incidence(table)
    counts = table.sum(0)
    matched = np.diff(table.indptr) > 0
    target = capped_target(counts, cap)
    result = data_balance(table, (matched / matched.sum(), target), steps=steps)
    return Curation(
        weights=result.table.sum(1),
        matched=matched,
        counts=counts,
        target=target,
        observed=counts / counts.sum(),
        balanced=result.table.sum(0),
        errors=result.errors,
        table=result.table,
    )


def effective_sample_size(weights: ArrayLike) -> float:
    r"""Effective sample size :math:`(\sum w)^2 / \sum w^2`.

    A weighted mean of n independent values of variance :math:`\sigma^2`, whatever the weights that do not depend on
    the values, has variance :math:`\sigma^2` divided by it.

    Parameters
    ----------
    weights : array_like, shape (n,)
        Masses >= 0, not all zero.

    Returns
    -------
    float
        In [1, n].

    Raises
    ------
    ValueError
        If a weight is negative or not finite, or all are zero.

    References
    ----------
    Kish (1965), Survey sampling.

    Examples
    --------
    >>> effective_sample_size([1, 1, 2, 0])
    2.666...
    """
    return kish_size(checks.as_masses(weights, "weights", ndim=1))


def metaclip_inclusion(table: csr_array | ArrayLike, cap: float) -> NDArray[np.float64]:
    r"""Probability with which MetaCLIP keeps each caption: :math:`1 - \prod_y (1 - \min(1, t / c_y))^{A_{xy}}`.

    Each keyword in a caption is tossed for, independently, and one success is enough. So a caption with several
    keywords is kept more often than any of them asks for, and a keyword may be kept more than t times on average.

    Parameters
    ----------
    table : csr_array or array_like, shape (n, K)
        Zeros and ones, as from `match_keywords`.
    cap : float
        The cap t > 0.

    Returns
    -------
    ndarray, shape (n,)
        0 for a caption that matches nothing.

    Raises
    ------
    ValueError
        As for `curate`.

    References
    ----------
    Xu et al. (2024), Demystifying CLIP data, algorithm 1.

    Examples
    --------
    >>> table = match_keywords(["red heart", "heart", "heart", "heart", "stone"], ["heart", "red"])
    >>> metaclip_inclusion(table, cap=1).round(6).tolist()
    [1.0, 0.25, 0.25, 0.25, 0.0]
    """
    table = check_incidence(table)
    kept = np.minimum(1, _cap(cap) / np.maximum(table.sum(0), 1))
    with np.errstate(divide="ignore"):
        return np.abs(np.expm1(table @ np.log1p(-kept)))


def check_incidence(table: csr_array | ArrayLike) -> csr_array:
    """Return a copy of a table of zeros and ones, as csr_array of int64 in canonical form, or raise."""
    kept: csr_array | NDArray = table if issparse(table) else as_array(table, "table")
    if kept.ndim != 2 or kept.dtype.kind not in "biuf":
        raise ValueError(
            f"the table has {kept.ndim} axes of dtype {kept.dtype}: pass captions x keywords, zeros and ones, as from"
            " match_keywords"
        )
    table = csr_array(kept.astype(np.float64), copy=True)
    table.sum_duplicates()
    table.eliminate_zeros()
    wrong = np.flatnonzero(table.data != 1)
    if wrong.size:
        row = np.searchsorted(table.indptr, wrong[0], side="right") - 1
        place = entry("table", (int(row), int(table.indices[wrong[0]])))
        raise ValueError(f"{place} = {table.data[wrong[0]]:g} is neither 0 nor 1: a caption has a keyword or not")
    if not table.nnz:
        raise ValueError("no caption matches a keyword: look at the keywords, and at upper and lower case")
    return table.astype(np.int64)


def _cap(cap):
    return checks.check_number(cap, "cap", 0, np.inf, "a positive number of captions", ends=(False, True))


def _spaced(text):
    """One space between words and at both ends, punctuation marks being words."""
    return f" {' '.join(text.translate(_MARKS).split())} "


def _strings(values, name):
    if isinstance(values, str):
        raise TypeError(f"{name} is a single string: pass a sequence of strings")
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise TypeError(f"{name}[{i}] is of type {type(value).__name__}, not str")
        yield value
