"""The first-order variance of a balanced estimate (chapter 4 of the book).

P is the joint law of (X, Y), an m x l table with known marginals; h is a function of (x, y). After k half-steps
the balanced estimate has the influence function C_1 C_2 ... C_k h, where C_j subtracts the conditional mean given
the variable of half-step j: the `first` axis for odd j, the other one for even j. C_k acts first.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance._engine.targets import check_reachable
from balance.operators import center, conditional_mean, markov_svd

# Below this 1 - s_j^2 is rounding: alpha_j and beta_j are one function, and span a line instead of a plane.
_COLLAPSED = 1e-20


def influence_function(table: ArrayLike, h: ArrayLike, steps: int, first: int = 0) -> NDArray[np.float64]:
    r"""Influence function of k half-steps of balancing: :math:`C_1 C_2 \cdots C_k h`.

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0, no row or column empty; normalized first.
    h : array_like, shape (m, l), (m, 1) or (1, l)
        A function of (x, y), of x or of y.
    steps : int
        Number of half-steps k >= 0. For k = 0 the result is h itself.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.

    Returns
    -------
    ndarray, shape (m, l)

    Raises
    ------
    ValueError
        If an input has a non-finite entry or the wrong shape, a row or column is empty, or `steps` or `first`
        is out of range.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), error decomposition. Theorem 4.1 of the book.

    Examples
    --------
    >>> influence_function([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], steps=1).round(9).tolist()
    [[0.75, -2.25], [-1.875, 0.625]]
    """
    joint, values = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    for j in range(steps, 0, -1):
        values = center(joint, values, (first + j - 1) % 2)
    return values


def influence_functions(table: ArrayLike, h: ArrayLike, steps: int) -> NDArray[np.float64]:
    r"""Influence functions of 0, 1, ..., `steps` half-steps, for both orders, each by one centering of another.

    The function of r half-steps that begin on axis a is that of r - 1 half-steps that begin on the other axis,
    centered given the variable of axis a. So the functions :math:`g_j = C_j \cdots C_k h` of the error decomposition
    are entries k - j + 1 of it, for every k.

    Parameters
    ----------
    table, h, steps
        As in `influence_function`.

    Returns
    -------
    ndarray, shape (steps + 1, 2, m, l)
        Entry [r, a] is ``influence_function(table, h, r, first=a)``. All are held: for many half-steps of a large
        table call `influence_function` for one number of them, or `balanced_variances`.

    Raises
    ------
    ValueError
        As `influence_function`.

    References
    ----------
    Theorem 4.1 of the book.

    Examples
    --------
    >>> influence_functions([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], steps=1)[1, 0].round(9).tolist()
    [[0.75, -2.25], [-1.875, 0.625]]
    """
    joint, values = checks.as_law(table, h)
    return np.array(list(_levels(joint, values, checks.check_count(steps, "steps"))))


def balanced_variance(table: ArrayLike, h: ArrayLike, steps: int, first: int = 0) -> float:
    r"""First-order variance :math:`\sigma_k^2 = \operatorname{Var}_P(C_1 C_2 \cdots C_k h)`, by iteration.

    Parameters
    ----------
    table, h, steps, first
        As in `influence_function`.

    Returns
    -------
    float
        n times the mean squared error of the balanced estimate from n observations tends to it.

    Raises
    ------
    ValueError
        As `influence_function`.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), sigma_k. Theorem 4.9 of the book.

    Examples
    --------
    >>> [round(balanced_variance([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], k), 4) for k in range(5)]
    [2.4619, 1.3781, 1.5332, 1.3622, 1.3714]
    """
    return _variance(checks.as_law(table, h)[0], influence_function(table, h, steps, first))


def balanced_variances(table: ArrayLike, h: ArrayLike, steps: int, first: int = 0) -> NDArray[np.float64]:
    r"""The first-order variances :math:`\sigma_0^2, \sigma_1^2, \dots` of 0, 1, ..., `steps` half-steps.

    Parameters
    ----------
    table, h, steps, first
        As in `influence_function`.

    Returns
    -------
    ndarray, shape (steps + 1,)
        Entry k is ``balanced_variance(table, h, k, first)``.

    Raises
    ------
    ValueError
        As `influence_function`.

    Examples
    --------
    >>> balanced_variances([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], 2).round(4).tolist()
    [2.4619, 1.3781, 1.5332]
    """
    (joint, values), first = checks.as_law(table, h), checks.check_axis(first, 2, "first")
    levels = _levels(joint, values, checks.check_count(steps, "steps"))
    return np.array([_variance(joint, level[first]) for level in levels])


def variance_closed_form(table: ArrayLike, h: ArrayLike, steps: float, first: int = 0) -> float:
    r"""The same variance from the singular values and functions of the Markov operators of P.

    With :math:`u_j = \langle h, \alpha_j \rangle`, :math:`v_j = \langle h, \beta_j \rangle`, the X-step first and
    :math:`k \ge 1`,

    .. math:: \sigma_k^2 = \sigma_\infty^2 + \sum_{j \ge 2,\, s_j < 1} s_j^{2(k-1)} r_j^2, \qquad
              r_j^2 = \frac{(v_j - s_j u_j)^2}{1 - s_j^2} \ (k \text{ odd}), \quad
              \frac{(u_j - s_j v_j)^2}{1 - s_j^2} \ (k \text{ even}),

    plus, for k = 1, the squared norm of the part of h that is a function of y orthogonal to every
    :math:`\beta_j`. A plane with :math:`s_j = 1` is a line, which the first step removes.

    Parameters
    ----------
    table, h, first
        As in `influence_function`.
    steps : int or math.inf
        Number of half-steps k >= 0, or infinity for the limit.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `influence_function`.

    References
    ----------
    Theorem 4.3 of the book.

    Examples
    --------
    >>> [round(variance_closed_form([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], k), 6) for k in (1, 2, math.inf)]
    [1.378125, 1.533178, 1.36125]
    """
    joint, values = checks.as_law(table, h)
    steps = steps if steps == math.inf else checks.check_count(steps, "steps")
    if checks.check_axis(first, 2, "first") == 1:
        joint, values = joint.T, values.T
    if steps == 0:
        return _variance(joint, values)
    svd = markov_svd(joint)
    s, alpha, beta = svd.singular_values[1:], svd.alpha.T[1:, :, None], svd.beta.T[1:, None, :]
    outside = conditional_mean(joint, values, 1) - svd.beta @ svd.coefficients(values)[1]
    s_j = s[:, None, None]
    a, b = beta - s_j * alpha, alpha - s_j * beta
    width = np.sum(joint * a**2, axis=(1, 2))  # 1 - s_j^2, without cancellation
    plane = width > _COLLAPSED
    s, a, b, width = s[plane], a[plane], b[plane], width[plane]
    in_plane = np.tensordot(np.tensordot(a, joint * values) / width, a, 1)
    limit = _variance(joint, center(joint, values, 0) - in_plane - outside)
    if steps == math.inf:
        return limit
    last = np.tensordot(a if steps % 2 else b, joint * values)
    left = np.sum(s ** (2 * (steps - 1)) * last**2 / width)
    return float(limit + left + (_variance(joint, outside) if steps == 1 else 0.0))


def limit_influence(table: ArrayLike, h: ArrayLike) -> NDArray[np.float64]:
    r"""Residual of the regression of h on :math:`f(x) + g(y)` in L2(P): the limit of `influence_function` as k grows.

    It solves the two equations :math:`f + \mu_X g = \mu_X h` and :math:`\mu_Y f + g = \mu_Y h`.

    Parameters
    ----------
    table, h
        As in `influence_function`.

    Returns
    -------
    ndarray, shape (m, l)
        Both conditional means are zero. Where P is zero the values are arbitrary.

    Raises
    ------
    ValueError
        As `influence_function`.

    References
    ----------
    Bickel, Ritov, Wellner (1991). Proposition 4.8 of the book.

    Examples
    --------
    >>> limit_influence([[1, 1], [1, 1]], [[0, 0], [0, 4]]).round(9).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    joint, values = checks.as_law(table, h)
    m, l = joint.shape
    given_x, given_y = joint / joint.sum(axis=1, keepdims=True), (joint / joint.sum(axis=0)).T
    equations = np.block([[np.eye(m), given_x], [given_y, np.eye(l)]])
    means = np.concatenate([conditional_mean(joint, values, axis) for axis in (0, 1)])
    solution = np.linalg.lstsq(equations, means, rcond=None)[0]
    return values - solution[:m, None] - solution[m:]


def limit_variance(table: ArrayLike, h: ArrayLike) -> float:
    r"""Efficiency bound :math:`\sigma_\infty^2 = \min_{f, g} \operatorname{Var}_P(h - f(X) - g(Y))`.

    Parameters
    ----------
    table, h
        As in `influence_function`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `influence_function`.

    References
    ----------
    Bickel, Ritov, Wellner (1991). Theorem 4.10 of the book.

    Examples
    --------
    >>> round(limit_variance([[6, 2], [3, 9]], [[1, -2], [0.5, 3]]), 6)
    1.36125
    """
    return _variance(checks.as_law(table, h)[0], limit_influence(table, h))


@dataclass(frozen=True)
class Decomposition:
    """Terms of the error of a balanced estimate, from `decomposition`.

    Attributes
    ----------
    error : float or Fraction
        P_n^(k)(h) - P(h), computed by balancing the sample.
    linear : float or Fraction
        (P_n - P)(C_1 ... C_k h).
    remainders : tuple of float or Fraction
        V_1, ..., V_k. The error is the linear term plus their sum.
    """

    error: Any
    linear: Any
    remainders: tuple[Any, ...]


def decomposition(sample: ArrayLike, table: ArrayLike, h: ArrayLike, steps: int, first: int = 0) -> Decomposition:
    r"""Split the error of a balanced estimate into its linear term and one remainder per half-step.

    .. math:: P_n^{(k)}(h) - P(h) = (P_n - P)(C_1 \cdots C_k h) + \sum_{j=1}^k V_j(C_j \cdots C_k h), \qquad
              V_j(g) = \sum_{x, y} \Bigl(\frac{P_j}{P_{n,j}^{(j-1)}} - 1\Bigr) g \, P_n^{(j-1)}

    where the marginals in V_j are those of the variable of half-step j.

    Parameters
    ----------
    sample : array_like, shape (m, l)
        Counts or masses, no row or column empty (the event S of the paper).
    table, h : array_like, shape (m, l)
        The joint law P, no row or column empty, and the function. If one of the three arrays holds
        ``fractions.Fraction`` (dtype object), all arithmetic is exact.
    steps : int
        Number of half-steps k >= 0.
    first : {0, 1}
        The axis of the first half-step.

    Returns
    -------
    Decomposition

    Raises
    ------
    ValueError
        If an input has a wrong entry or shape, or a row or column of the sample or of the table is empty.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), error decomposition. Theorem 4.1 of the book.

    Examples
    --------
    >>> law = np.array([[6, 2], [3, 9]]) * Fraction(1, 20)
    >>> h = np.array([[1, -2], [Fraction(1, 2), 3]])
    >>> parts = decomposition([[4, 2], [2, 2]], law, h, steps=1)
    >>> print(parts.error, parts.linear, *parts.remainders)
    -19/40 -2/5 -3/40
    """
    sample, table, h = (np.asarray(a) for a in (sample, table, h))
    for array, name in ((sample, "sample"), (table, "table")):
        masses = checks.as_masses(array.astype(float), name, ndim=2)
        for axis in (0, 1):
            current = masses.sum(axis=1 - axis)
            check_reachable(np.ones(masses.shape[axis]), current, f"{name}, positive marginal", axis, 2)
    checks.as_values(sample, table.shape, "sample")
    checks.as_values(h, table.shape, "h")
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    exact = object in (sample.dtype, table.dtype, h.dtype)
    number = np.vectorize(Fraction, otypes=[object]) if exact else np.float64
    sample, table, h = number(sample), number(table), number(h)
    law, current = table / table.sum(), sample / sample.sum()
    marginals = _marginals(law)
    chain = list(centerings(law, h, steps, first))[::-1]
    linear, remainders = ((current - law) * (chain[0][0] if chain else h)).sum(), []
    for g, axis in chain:
        ratio = marginals[axis] / current.sum(axis=1 - axis, keepdims=True)
        remainders.append(((ratio - 1) * g * current).sum())
        current = ratio * current
    return Decomposition(((current - law) * h).sum(), linear, tuple(remainders))


def centerings(law, h, steps, first):
    """Yield g_k, ..., g_1 with the axis of their half-step, one at a time: there may be many. Nothing is checked."""
    marginals = _marginals(law)
    for j in reversed(range(steps)):
        axis = (first + j) % 2
        h = _centered(law, h, axis, marginals)
        yield h, axis


def _levels(law, h, steps):
    """Yield, for r = 0..steps, the two results of r centerings of h that alternate and end on axis 0 or on axis 1."""
    marginals = _marginals(law)
    level = [h, h]
    yield level
    for _ in range(steps):
        level = [_centered(law, g, axis, marginals) for axis, g in enumerate(level[::-1])]
        yield level


def _marginals(law):
    return [law.sum(axis=1 - axis, keepdims=True) for axis in (0, 1)]


def _centered(law, g, axis, marginals):
    # a sum of products and no matrix product: the entries may be fractions
    return g - (law * g).sum(axis=1 - axis, keepdims=True) / marginals[axis]


def _variance(joint, values):
    return float(np.sum(joint * (values - np.sum(joint * values)) ** 2))
