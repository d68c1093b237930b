"""Conditional means as operators and their singular values (chapter 3 of the book).

The joint law P of (X, Y) is an m x l table. A function h of (x, y) is an array that broadcasts to the table: shape
(m, l), (m, 1) for a function of x, (1, l) for a function of y. Inner products are those of L2(P).
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csgraph, csr_array
from scipy.special import ndtr, ndtri

from balance._engine import checks

# Entries of nearly the largest size count as the largest: else rounding would choose the sign.
_TIE = 1e-9
_FAR = 12.0  # standard deviations: less than 1e-32 of a Gaussian lies beyond
# Gauss-Legendre on a cell at least a 200th of the mass: exact to rounding for the smooth density in it.
_NODES = 40


def conditional_mean(table: ArrayLike, h: ArrayLike, axis: int) -> NDArray[np.float64]:
    r"""Conditional mean of h given one variable.

    .. math:: (\mu_X h)(x) = \sum_y h(x, y) P(x, y) / P_X(x) \quad \text{(axis 0)}, \qquad
              (\mu_Y h)(y) = \sum_x h(x, y) P(x, y) / P_Y(y) \quad \text{(axis 1)}

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0; normalized first.
    h : array_like, shape (m, l), (m, 1) or (1, l)
        A function of (x, y), of x or of y.
    axis : int
        The variable conditioned on: 0 for X, 1 for Y.

    Returns
    -------
    ndarray, shape (table.shape[axis],)

    Raises
    ------
    ValueError
        If an input has a non-finite entry or the wrong shape, or a value conditioned on has no mass.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), the operators mu_X and mu_Y.

    Examples
    --------
    >>> conditional_mean([[3, 1], [1.5, 4.5]], [[1, -2], [0.5, 3]], axis=0).round(9).tolist()
    [0.25, 2.375]
    """
    joint = checks.as_joint(table)
    axis = checks.check_axis(axis, 2)
    masses = checks.check_positive(joint.sum(axis=1 - axis), axis)
    return (joint * checks.as_function(h, joint.shape)).sum(axis=1 - axis) / masses


def center(table: ArrayLike, h: ArrayLike, axis: int) -> NDArray[np.float64]:
    r"""Subtract from h its conditional mean: :math:`C_X h = h - \mu_X h` (axis 0) or :math:`C_Y h` (axis 1).

    Parameters
    ----------
    table, h, axis
        As in `conditional_mean`.

    Returns
    -------
    ndarray, shape of the table

    Raises
    ------
    ValueError
        As in `conditional_mean`.

    Examples
    --------
    >>> center([[3, 1], [1.5, 4.5]], [[1, -2], [0.5, 3]], axis=0).round(9).tolist()
    [[0.75, -2.25], [-1.875, 0.625]]
    """
    mean = conditional_mean(table, h, axis)
    return np.asarray(h, dtype=float) - np.expand_dims(mean, 1 - axis)


@dataclass(frozen=True, eq=False)
class MarkovSVD:
    r"""Singular value decomposition of the conditional mean operators of a table, from `markov_svd`.

    .. math:: \mu_X \beta_j = s_j \alpha_j, \qquad \mu_Y \alpha_j = s_j \beta_j, \qquad
              P(x, y) = P_X(x) P_Y(y) \sum_j s_j \alpha_j(x) \beta_j(y)

    Attributes
    ----------
    singular_values : ndarray, shape (r,), r = min(m, l)
        1 = s_1 >= s_2 >= ... >= s_r >= 0; as many are exactly 1 as the support has components, all others are below 1.
        The rate of balancing to this table is the square of the largest value below 1, which is s_2 only for one
        component.
    alpha : ndarray, shape (m, r)
        Column j - 1 is alpha_j. The columns are orthonormal in L2(P_X); the first is constant 1. The entry of
        largest modulus of every column (the first, on a tie) is positive.
    beta : ndarray, shape (l, r)
        The same for beta_j and L2(P_Y); the sign is that of mu_Y alpha_j.
    table : ndarray, shape (m, l)
        The joint law P.
    """

    singular_values: NDArray[np.float64]
    alpha: NDArray[np.float64] = field(repr=False)
    beta: NDArray[np.float64] = field(repr=False)
    table: NDArray[np.float64] = field(repr=False)

    @property
    def row_marginal(self) -> NDArray[np.float64]:
        """P_X, shape (m,)."""
        return self.table.sum(axis=1)

    @property
    def column_marginal(self) -> NDArray[np.float64]:
        """P_Y, shape (l,)."""
        return self.table.sum(axis=0)

    def coefficients(self, h: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        r"""Inner products :math:`u_j = \langle h, \alpha_j \rangle`, :math:`v_j = \langle h, \beta_j \rangle` in L2(P).

        Parameters
        ----------
        h : array_like, shape (m, l), (m, 1) or (1, l)

        Returns
        -------
        tuple of two ndarray, shape (r,)
            u and v.
        """
        weighted = self.table * checks.as_function(h, self.table.shape)
        return self.alpha.T @ weighted.sum(axis=1), self.beta.T @ weighted.sum(axis=0)


def markov_svd(table: ArrayLike) -> MarkovSVD:
    r"""Singular values and functions of the conditional mean operators of a table.

    The matrix :math:`D = \operatorname{diag}(P_X)^{-1/2} P \operatorname{diag}(P_Y)^{-1/2}` has the known singular
    vectors :math:`\sqrt{P_X}, \sqrt{P_Y}` with value 1. The rest of the decomposition is that of D on their
    orthogonal complements, so that the first functions are constant even when 1 is a multiple value. A table that
    decomposes has the value 1 once for each component of its support.

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0, no row or column empty; normalized first.

    Returns
    -------
    MarkovSVD

    Raises
    ------
    ValueError
        If an entry is negative or not finite, or a row or column is empty.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), singular values of mu_X and mu_Y. Buja (1990), Remarks on functional
    canonical variates, alternating least squares methods and ACE.

    Examples
    --------
    >>> svd = markov_svd([[3, 1], [1, 3]])
    >>> svd.singular_values.round(12).tolist()
    [1.0, 0.5]
    >>> svd.alpha.round(12).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    joint = checks.as_joint(table)
    root_x, root_y = (np.sqrt(checks.check_positive(joint.sum(axis=1 - a), a)) for a in (0, 1))
    complement_x, complement_y = _complement(root_x), _complement(root_y)
    inner = complement_x.T @ (joint / root_x[:, None] / root_y) @ complement_y
    left, values, right = np.linalg.svd(inner, full_matrices=False)
    alpha = np.column_stack([root_x, complement_x @ left]) / root_x[:, None]
    beta = np.column_stack([root_y, complement_y @ right.T]) / root_y[:, None]
    size = np.abs(alpha)
    leading = np.argmax(size >= (1 - _TIE) * size.max(axis=0), axis=0)
    signs = np.sign(alpha[leading, range(len(leading))])
    ones = components(joint)[0].max() + 1
    values = np.concatenate([np.ones(ones), np.minimum(values, np.nextafter(1, 0))[ones - 1 :]])
    return MarkovSVD(values, alpha * signs, beta * signs, joint)


def maximal_correlation(table: ArrayLike) -> float:
    r"""Largest correlation of a function of X with a function of Y: the second singular value s_2.

    It is exactly 1 if the support has several components. Then it does not set the rate of balancing to this table,
    which is the square of the largest singular value below 1; read that from `markov_svd`.

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts, finite and >= 0, no row or column empty.

    Returns
    -------
    float
        In [0, 1]; 0 if X and Y are independent (also if one of them is constant), 1 if the table decomposes.

    Raises
    ------
    ValueError
        As `markov_svd`.

    References
    ----------
    Hirschfeld (1935), Gebelein (1941), Renyi (1959).

    Examples
    --------
    >>> round(maximal_correlation([[3, 1], [1, 3]]), 12)
    0.5
    >>> maximal_correlation([[1, 2, 0, 0], [2, 1, 0, 0], [0, 0, 1, 3]])
    1.0
    """
    values = markov_svd(table).singular_values
    return float(values[1]) if len(values) > 1 else 0.0


def components(table: ArrayLike) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Connected components of the support: a row and a column are joined where their cell is positive.

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts, finite and >= 0, no row or column empty.

    Returns
    -------
    tuple of two ndarray of int, shapes (m,) and (l,)
        The component, counted from 0, of each row and of each column.

    Raises
    ------
    ValueError
        As `markov_svd`.

    Examples
    --------
    >>> rows, columns = components([[1, 0, 2], [0, 3, 0]])
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [0, 1, 0])
    """
    joint = checks.as_joint(table)
    for a in (0, 1):
        checks.check_positive(joint.sum(axis=1 - a), a)
    x, y = np.nonzero(joint)
    m, l = joint.shape
    graph = csr_array((np.ones(len(x)), (x, m + y)), shape=(m + l, m + l))
    _, labels = csgraph.connected_components(graph, directed=False)
    return labels[:m].astype(np.intp), labels[m:].astype(np.intp)


def dependent_table(m: int, s: float) -> NDArray[np.float64]:
    r"""Table :math:`P = \frac1m [\frac{1 - s}{m} + s 1\{x = y\}]`: uniform marginals, :math:`s_2 = \dots = s_m = s`.

    Parameters
    ----------
    m : int
        Number of values of X and of Y, at least 1.
    s : float
        In [0, 1]: 0 is independence, 1 is X = Y.

    Returns
    -------
    ndarray, shape (m, m)

    Raises
    ------
    ValueError
        If m or s is out of range.

    Examples
    --------
    >>> dependent_table(2, 0.5).tolist()
    [[0.375, 0.125], [0.125, 0.375]]
    """
    m = checks.check_count(m, "m", least=1)
    if not 0 <= s <= 1:
        raise ValueError(f"s = {s!r}: pass a number from 0 to 1")
    return (np.full((m, m), (1 - s) / m) + s * np.eye(m)) / m


def gaussian_table(rho: float, cells: int) -> NDArray[np.float64]:
    r"""Cell probabilities of two standard Gaussian variables with correlation rho, cut into cells.

    Both axes are cut at :math:`\sqrt3\,\Phi^{-1}(i / \text{cells})`, the cuts that lose least variance for many
    cells; then :math:`s_{j+1} \to |\rho|^j` as the number of cells grows.

    Parameters
    ----------
    rho : float
        In [-0.99, 0.99].
    cells : int
        Number of cells of each axis, from 1 to 200.

    Returns
    -------
    ndarray, shape (cells, cells)

    Raises
    ------
    ValueError
        If rho or cells is out of range.

    References
    ----------
    Mehler (1866); Lancaster (1958). Panter, Dite (1951) for the cuts.

    Examples
    --------
    >>> gaussian_table(0.5, 2).round(6).tolist()
    [[0.333333, 0.166667], [0.166667, 0.333333]]
    """
    if not abs(rho) <= 0.99:
        raise ValueError(f"rho = {rho!r}: pass a correlation from -0.99 to 0.99")
    if isinstance(cells, bool) or not isinstance(cells, (int, np.integer)) or not 1 <= cells <= 200:
        raise ValueError(f"cells = {cells!r}: pass an integer from 1 to 200")
    cuts = np.clip(np.sqrt(3) * ndtri(np.arange(cells + 1) / cells), -_FAR, _FAR)
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)
    half = np.diff(cuts)[:, None] / 2
    x = cuts[:-1, None] + half * (1 + nodes)
    below = ndtr((cuts - rho * x[..., None]) / np.sqrt(1 - rho**2))
    density = half * weights * np.exp(-(x**2) / 2)
    masses = np.einsum("in,inj->ij", density, np.maximum(np.diff(below), 0))
    return masses / masses.sum()


def table_with_singular_values(
    row_marginal: ArrayLike, column_marginal: ArrayLike, values: ArrayLike
) -> NDArray[np.float64]:
    r"""Table with given marginals and singular values :math:`s_2, s_3, \dots`

    .. math:: P(x, y) = P_X(x) P_Y(y) \Bigl[ 1 + \sum_{j \ge 2} s_j \alpha_j(x) \beta_j(y) \Bigr],

    where alpha_j and beta_j are the orthonormal polynomials of degree j - 1 in the index of the value, of positive
    sign at the last value: s_2 belongs to degree 1, s_3 to degree 2 and so on.

    Parameters
    ----------
    row_marginal, column_marginal : array_like, shapes (m,) and (l,)
        Positive masses; normalized first.
    values : array_like, shape (k,), k <= min(m, l) - 1
        s_2, s_3, ..., each in [0, 1], not increasing.

    Returns
    -------
    ndarray, shape (m, l)

    Raises
    ------
    ValueError
        If a marginal has an empty value, the values are out of range, or a cell would be negative: the message
        names the cell and the largest factor on the values that keeps all cells >= 0.

    References
    ----------
    Lancaster (1958), The structure of bivariate distributions.

    Examples
    --------
    >>> table_with_singular_values([1, 1], [1, 3], [0.5]).round(4).tolist()
    [[0.2333, 0.2667], [0.0167, 0.4833]]
    """
    marginals = [
        checks.as_masses(v, name, ndim=1)
        for v, name in ((row_marginal, "row_marginal"), (column_marginal, "column_marginal"))
    ]
    row, column = (checks.check_positive(v / v.sum(), a) for a, v in enumerate(marginals))
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) > min(len(row), len(column)) - 1:
        raise ValueError(f"values has shape {values.shape}: pass at most min(m, l) - 1 numbers")
    if not np.all((values >= 0) & (values <= 1)) or np.any(np.diff(values) > 0):
        raise ValueError("values: pass singular values in [0, 1] that do not increase")
    alpha, beta = (_polynomials(v, len(values)) for v in (row, column))
    ratio = (alpha * values) @ beta.T
    if 1 + ratio.min(initial=0.0) < -1e-12:
        cell = tuple(int(i) for i in np.unravel_index(ratio.argmin(), ratio.shape))
        raise ValueError(f"cell {cell} would be negative: multiply the values by at most {-1 / ratio.min():.6g}")
    return row[:, None] * column * np.maximum(1 + ratio, 0)


def _complement(unit):
    """Orthonormal basis (columns) of the vectors orthogonal to a unit vector with positive entries."""
    normal = unit.copy()
    normal[0] += 1
    reflection = np.outer(normal, normal) / (1 + unit[0]) - np.eye(len(unit))
    return reflection[:, 1:]


def _polynomials(marginal, degree):
    """Orthonormal polynomials of degrees 1..degree in L2(marginal), increasing at the last value."""
    scores = np.linspace(-1, 1, len(marginal))[:, None] ** np.arange(degree + 1)
    root = np.sqrt(marginal)[:, None]
    basis = np.linalg.qr(root * scores)[0] / root
    return (basis * np.sign(basis[-1]))[:, 1:]
