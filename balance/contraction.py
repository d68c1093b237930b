"""How fast the corrections of balancing shrink: contraction coefficients of a table (chapter 5 of the book).

P is the joint law of (X, Y), an m x l table. After a half-step the logarithm of the next correction is, to first
order, a conditional mean of the last one. Its oscillation is the largest difference of its values on one block of P,
a connected component of the support.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import pdist

from balance._engine import checks
from balance.operators import components, markov_svd

# So many products are formed, and fewer of large matrices, which take longer; what is left of the sum is bounded by a
# geometric series.
_MOST_PRODUCTS = 2000
_MOST_TERMS = 5 * 10**9
_ROUNDING = 1e-13


def largest_log_odds_ratio(table: ArrayLike) -> float:
    r"""Largest log odds ratio of a positive table.

    .. math:: \Omega = \max \log \frac{P(x, y) P(x', y')}{P(x, y') P(x', y)}

    Balancing keeps odds ratios. From the third half-step on the logarithm of a correction oscillates at most
    :math:`\tanh(\Omega / 4)` times as much as the one before (Birkhoff).

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts, all positive.

    Returns
    -------
    float
        0 for a table with one row or one column; infinity if a cell is 0.

    Raises
    ------
    ValueError
        If an entry is negative or not finite.

    References
    ----------
    Birkhoff (1957). Lemma 5.17 of the book.

    Examples
    --------
    >>> round(largest_log_odds_ratio([[6, 2], [3, 9]]), 6) == round(float(np.log(9)), 6)
    True
    """
    joint = checks.as_joint(table)
    if not joint.all():
        return float("inf") if min(joint.shape) > 1 else 0.0
    logs = np.log(joint)
    # for two rows, the largest minus the smallest difference of their logarithms
    return float(max((np.ptp(logs[x + 1 :] - logs[x], axis=1).max() for x in range(len(logs) - 1)), default=0.0))


def contraction_coefficients(table: ArrayLike, count: int) -> NDArray[np.float64]:
    r"""The coefficients :math:`\Gamma_0, \Gamma_1, \dots`: how much r conditional means in turn shrink oscillations.

    :math:`\Gamma_r` is the largest ratio of the oscillations of :math:`\mu \cdots \mu f` (r factors) and of f, over
    functions f of x and of y. It is the largest total variation distance between two rows, in one block, of the
    product of the r matrices of conditional probabilities (Dobrushin's coefficient).

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0, no row or column empty; normalized first.
    count : int
        Number of coefficients, at least 1.

    Returns
    -------
    ndarray, shape (count,)
        From 1 down.

    Raises
    ------
    ValueError
        If an input is out of range or a row or column is empty.

    References
    ----------
    Dobrushin (1956). Lemma 5.20 of the book.

    Examples
    --------
    >>> contraction_coefficients([[6, 2], [3, 9]], 3).round(6).tolist()
    [1.0, 0.5, 0.242424]
    """
    joint = checks.as_law(table, [[0.0]])[0]
    count = checks.check_count(count, "count", least=1)
    return np.array([value for _, value in zip(range(count), _coefficients(joint), strict=False)])


def contraction_constant(table: ArrayLike) -> float:
    r"""The constant :math:`\Gamma = \sum_r \Gamma_r` of the uniform bound, or an upper bound of it.

    The coefficients are added until those that are left are at most 1e-12 of the sum, or 2,000 are (fewer for a table
    with more than 100 rows and columns). What is left is bounded by :math:`\Gamma_r \min(1, s^i / \sqrt{2 p_*})` for
    the i-th coefficient after the r-th, and added: for a table with s near 1 the result is an upper bound of
    :math:`\Gamma`, up to rounding.

    Parameters
    ----------
    table : array_like, shape (m, l)
        As in `contraction_coefficients`.

    Returns
    -------
    float
        At least 1, always finite.

    Raises
    ------
    ValueError
        As `contraction_coefficients`.

    References
    ----------
    Lemma 5.20 of the book.

    Examples
    --------
    >>> round(contraction_constant([[6, 2], [3, 9]]), 6)
    1.98
    """
    joint = checks.as_law(table, [[0.0]])[0]
    s, gap = largest_below_one(joint)
    least = min(joint.sum(axis=1).min(), joint.sum(axis=0).min())
    # the coefficients after the r-th add up to at most `after` times Gamma_r
    after = 0.0
    if s > 0:
        rate = -np.log1p(-gap) if s > 0.5 else -np.log(s)
        reach = np.log(1 / np.sqrt(2 * least)) / rate
        after = float(max(reach, 0) + 1 + s / gap)
    count = min(_MOST_PRODUCTS, max(20, _MOST_TERMS // (joint.size * sum(joint.shape))))
    total = 0.0
    for r, value in enumerate(_coefficients(joint)):
        total += value
        if value * after <= 1e-12 * total or r + 1 == count:
            return float(total + value * after)
    raise AssertionError("the coefficients do not end")


def largest_below_one(table: ArrayLike) -> tuple[float, float]:
    r"""Largest singular value s of the conditional means that is below 1, and 1 - s with its digits where s is near 1.

    Parameters
    ----------
    table : array_like, shape (m, l)
        As in `contraction_coefficients`.

    Returns
    -------
    tuple of float
        s, which is 0 if no singular value is below 1, and 1 - s.

    Raises
    ------
    ValueError
        As `contraction_coefficients`.

    References
    ----------
    The s of Corollary 4.4 and of Lemma 5.20 of the book.

    Examples
    --------
    >>> s, gap = largest_below_one([[0.5, 1e-18], [1e-18, 0.5]])
    >>> s == 1, bool(np.isclose(gap, 4e-18))
    (True, True)
    """
    joint = checks.as_law(table, [[0.0]])[0]
    svd = markov_svd(joint)
    below = np.flatnonzero(svd.singular_values < 1)
    if not below.size:
        return 0.0, 1.0
    s = svd.singular_values[below[0]]
    if s <= 0.5:
        return float(s), float(1 - s)
    gaps = []
    for i in below[svd.singular_values[below] > s - 1e-6]:
        # 1 - s^2 = || beta - s alpha ||^2, term by term; a difference that is rounding counts as 0, which lowers 1 - s
        s, beta = svd.singular_values[i], svd.beta[:, i]
        difference = beta - s * svd.alpha[:, [i]]
        difference[np.abs(difference) < _ROUNDING * np.abs(beta)] = 0
        gaps.append(np.sum(joint * difference**2) / (1 + s))
    return float(1 - min(gaps)), float(min(gaps))


def _coefficients(joint):
    """Yield Gamma_0, Gamma_1, ..."""
    rows, columns = components(joint)
    kernels, labels = [joint / joint.sum(axis=1, keepdims=True), (joint / joint.sum(axis=0)).T], (rows, columns)
    # products[a] takes functions of the variable that r factors lead to, to functions of the variable a
    products = [np.eye(size) for size in joint.shape]
    yield 1.0
    while True:
        products = [kernels[0] @ products[1], kernels[1] @ products[0]]
        yield max(_largest_distance(product, labels[a]) for a, product in enumerate(products))


def _largest_distance(product, labels):
    """Return the largest total variation distance between two rows in one block."""
    distances = [pdist(product[labels == b], "cityblock") / 2 for b in range(labels.max() + 1)]
    return max((float(d.max()) for d in distances if d.size), default=0.0)
