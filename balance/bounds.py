"""The mean squared error of a balanced estimate, bounded and expanded (chapter 5 of the book).

P is the joint law of (X, Y), an m x l table; n is the number of observations; the estimate is that of the paper,
P_n^(k)(h) on the event S that every row and every column was seen and P_n(h) off it. The exact value, a sum over
all count tables, is in `balance.enumeration`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance.enumeration import exact_mse, mean_squared_error, simulated_mse
from balance.variance import balanced_variance, influence_function

__all__ = [
    "Expansion",
    "ExplicitBound",
    "exact_mse",
    "expansion",
    "explicit_bound",
    "mean_squared_error",
    "missing_probability",
    "remainder_constant",
    "simulated_mse",
]

# Inclusion and exclusion runs over all sets of rows and of columns: 2 to this power terms take about a second.
_MOST_VALUES = 20


def missing_probability(table: ArrayLike, n: int) -> float:
    r"""Probability that some row or column is missing from n observations, by inclusion and exclusion.

    .. math:: \Pr(S^c) = \sum_{(A, B) \ne (\emptyset, \emptyset)} (-1)^{|A| + |B| + 1} P(X \notin A, Y \notin B)^n

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P; normalized first. At most 20 rows and columns together.
    n : int
        Number of observations.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If the table has more than 20 rows and columns: the sum has 2^(m + l) terms.

    Examples
    --------
    >>> missing_probability([[0.5, 0], [0, 0.5]], 3)
    0.25
    """
    joint = checks.as_table(table)
    m, l = joint.shape
    if m + l > _MOST_VALUES:
        raise ValueError(f"{m} rows and {l} columns: inclusion and exclusion is for {_MOST_VALUES} together")
    rows, columns = (np.arange(2**size)[:, None] >> np.arange(size) & 1 for size in (m, l))
    signs = np.multiply.outer((-1.0) ** (m - rows.sum(axis=1)), (-1.0) ** (l - columns.sum(axis=1)))
    powers = np.minimum(rows @ joint @ columns.T, 1.0) ** checks.check_count(n, "n", least=1)
    signs[-1, -1] = 0
    return float(np.clip(-np.sum(signs * powers), 0, 1))


@dataclass(frozen=True)
class ExplicitBound:
    """Bound on the root mean squared error, from `explicit_bound`: the sum of three parts.

    Attributes
    ----------
    first_order : float
        sigma_k / sqrt(n).
    remainder : float
        B_k / n.
    rare_event : float
        Part of the event that a marginal frequency is off by more than a fraction 1 / (4 k).
    oscillation : float
        max h - min h on the support: a bound that needs no proof.
    """

    first_order: float
    remainder: float
    rare_event: float
    oscillation: float

    @property
    def rmse(self) -> float:
        """The bound."""
        return self.first_order + self.remainder + self.rare_event

    @property
    def vacuous(self) -> bool:
        """Whether the bound is no better than the oscillation of h."""
        return self.rmse >= self.oscillation


def explicit_bound(table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0) -> ExplicitBound:
    r"""Bound on the root mean squared error of :math:`P_n^{(k)}(h)` with explicit constants.

    .. math:: \frac{\sigma_k}{\sqrt n} + \frac{B_k}{n}
              + \operatorname{osc}(h) \sqrt{2 (m + l)} \exp\Bigl( - \frac{n p_*}{72 k^2} \Bigr)

    with :math:`B_k = \frac83 K_4^{1/4} \sum_j d_j + \frac{32}{9} k (k - 1) G K_4^{1/2}` (Theorem 5.12 of the book,
    where the symbols are defined).

    Parameters
    ----------
    table, h, n, first
        As in `exact_mse`.
    steps : int
        Number k of half-steps, >= 1.

    Returns
    -------
    ExplicitBound

    Raises
    ------
    ValueError
        If an input is out of range.

    Examples
    --------
    >>> bound = explicit_bound([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=10**6, steps=2)
    >>> bound.vacuous, bool(bound.first_order < bound.rmse < 1.2 * bound.first_order)
    (False, True)
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    n = checks.check_count(n, "n", least=1)
    if steps < 1:
        raise ValueError(f"steps = {steps}: the bound is for at least 1 half-step; without any it is sigma_0 / sqrt(n)")
    masses = np.concatenate([joint.sum(axis=1), joint.sum(axis=0)])
    k4 = np.sum((3 * (1 - masses) ** 2 + (1 - masses) / (n * masses)) / masses**2)
    largest, spread = 0.0, 0.0
    for g, axis in _functions(joint, h, steps, first):
        target = joint.sum(axis=1 - axis)
        second, fourth = ((joint * g**power).sum(axis=1 - axis) / target for power in (2, 4))
        spread += np.sqrt(np.sum(np.sqrt(3 * second**2 + fourth / (n * target))))
        largest = max(largest, np.abs(g[joint > 0]).max())
    remainder = 8 / 3 * k4**0.25 * spread + 32 / 9 * steps * (steps - 1) * largest * np.sqrt(k4)
    oscillation = np.ptp(h[joint > 0])
    rare = oscillation * np.sqrt(2 * len(masses)) * np.exp(-n * masses.min() / (72 * steps**2))
    sigma = np.sqrt(balanced_variance(joint, h, steps, first) / n)
    return ExplicitBound(float(sigma), float(remainder / n), float(rare), float(oscillation))


@dataclass(frozen=True, eq=False)
class Expansion:
    """Second-order expansion of mean squared error and bias for k = 0..steps, from `expansion`.

    Attributes
    ----------
    variances : ndarray, shape (steps + 1,)
        sigma_k^2.
    constants : ndarray, shape (steps + 1,)
        c_k, of either sign for k >= 2: the mean squared error is sigma_k^2 / n + c_k / n^2 + O(n^-3).
    scaled_biases : ndarray, shape (steps + 1,)
        The limit of n times the bias: the bias is scaled_biases / n + O(n^-2). The `biases` that `exact_mse`
        returns are the biases at its n, not multiplied by it.
    """

    variances: NDArray[np.float64]
    constants: NDArray[np.float64]
    scaled_biases: NDArray[np.float64]

    def mse(self, n: int) -> NDArray[np.float64]:
        """Expanded mean squared error, shape (steps + 1,)."""
        return self.variances / n + self.constants / n**2

    def best_steps(self, n: int) -> int:
        """Number of half-steps with the smallest expanded mean squared error at n observations."""
        return int(np.argmin(self.mse(n)))


def expansion(table: ArrayLike, h: ArrayLike, steps: int, *, first: int = 0) -> Expansion:
    r"""Expand the mean squared error to order :math:`n^{-2}`, for every number of half-steps up to `steps`.

    Parameters
    ----------
    table, h, steps, first
        As in `exact_mse`.

    Returns
    -------
    Expansion

    Examples
    --------
    >>> result = expansion([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], steps=3)
    >>> result.constants.round(2).tolist()
    [0.0, 1.48, 3.47, 4.62]
    >>> result.best_steps(150), result.best_steps(300)
    (1, 3)
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    rows = [(balanced_variance(joint, h, k, first), *_second_order(joint, h, k, first)) for k in range(steps + 1)]
    return Expansion(*np.array(rows).T)


def remainder_constant(table: ArrayLike, h: ArrayLike, steps: int, *, first: int = 0) -> float:
    r"""The constant :math:`c_k = \lim n^2 (\mathrm{MSE}_k - \sigma_k^2 / n)` (Theorem 5.14 of the book).

    Parameters
    ----------
    table, h, first
        As in `exact_mse`.
    steps : int
        Number k of half-steps.

    Returns
    -------
    float

    Examples
    --------
    >>> round(remainder_constant([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], steps=1), 6)
    1.48125
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    return _second_order(joint, h, steps, first)[0]


def _functions(joint, h, steps, first):
    """Return the pairs (g_j, axis of step j), j = 1..steps, with g_j = C_j C_{j+1} ... C_k h."""
    axes = [(first + j) % 2 for j in range(steps)]
    return [(influence_function(joint, h, steps - j, first=axis), axis) for j, axis in enumerate(axes)]


def _terms(joint, functions, directions):
    """Return F_2 and F_3 of each direction (B, m, l), and the factors (R, G) of the form F_2 at each step."""
    # Lemma 5.13 with (5.19) and (5.20): q1 and q2 are the first and the second order of the table in 1 / sqrt(n)
    q1, q2 = directions, np.zeros_like(directions)
    f2, f3, factors = 0.0, 0.0, []
    for g, axis in functions:
        target = joint.sum(axis=1 - axis, keepdims=True)
        a1, a2 = (q.sum(axis=2 - axis, keepdims=True) / target for q in (q1, q2))
        # the factor of the half-step, 1 / (1 + a1 / sqrt(n) + a2 / n), to second order
        r1, r2 = -a1, a1**2 - a2
        b1, b2 = ((q * g).sum(axis=2 - axis, keepdims=True) for q in (q1, q2))
        f2 = f2 + (r1 * b1).sum(axis=(1, 2))
        f3 = f3 + (r2 * b1 + r1 * b2).sum(axis=(1, 2))
        factors.append([v.reshape(len(v), -1) for v in (r1, b1)])
        q1, q2 = q1 + r1 * joint, q2 + r1 * q1 + r2 * joint
    return f2, f3, factors


def _second_order(joint, h, steps, first):
    """Return c_k and the limit of n times the bias."""
    if steps == 0:
        return 0.0, 0.0
    functions = _functions(joint, h, steps, first)
    weights = joint[joint > 0]
    units = np.eye(joint.size).reshape(-1, *joint.shape)[joint.ravel() > 0] - joint
    # the directions D_z = delta_z - P, and a = psi P, the covariance of psi(Z) with D_Z, in (5.22)
    psi = functions[0][0]
    drift = psi * joint
    f2, _, factors = _terms(joint, functions, units)
    form = sum(r @ b.T for r, b in factors)
    bias = weights @ f2
    # F_3 is cubic: its values at a + D and a - D, less twice that at a, leave the terms in which D stands twice
    _, plus, _ = _terms(joint, functions, drift + units)
    _, minus, _ = _terms(joint, functions, drift - units)
    _, center, _ = _terms(joint, functions, drift[None])
    constant = (
        2 * np.sum(weights * psi[joint > 0] * f2)
        + bias**2
        + 0.5 * weights @ (form + form.T) ** 2 @ weights
        + weights @ (plus + minus)
        - 2 * center[0]
    )
    return float(constant), float(bias)
