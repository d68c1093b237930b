"""Bounds on the error of a balanced estimate that hold at every n (chapter 5 of the book).

P is the joint law of (X, Y), an m x l table; n is the number of observations; the estimate is that of the paper,
P_n^(k)(h) on the event S that every row and every column was seen and P_n(h) off it. Four bounds are evaluated:

- `explicit_bound`, with a remainder of order k^2 / n, and an event that asks more of large k;
- `quadratic_bound`, which follows from it, without any event: it implies the bound of the paper;
- `contraction_bound`, for positive tables, bounded in k;
- `uniform_bound`, for every table, bounded in k, two-sided, of order n^-2 for the mean squared error.

They are proved; `error_report` sets them beside the exact or simulated error, and beside the expansion, which is
accurate and not a bound. The exact value, a sum over all count tables, is in `balance.enumeration`.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance.contraction import (
    contraction_coefficients,
    contraction_constant,
    largest_below_one,
    largest_log_odds_ratio,
)
from balance.enumeration import FEW_TABLES, exact_mse, mean_squared_error, number_of_tables, simulated_mse
from balance.expansion import Expansion, expansion, remainder_constant
from balance.report import ErrorReport
from balance.variance import balanced_variance, centerings, influence_functions, limit_influence

__all__ = [
    "ErrorBound",
    "ErrorReport",
    "Expansion",
    "UniformBound",
    "contraction_bound",
    "contraction_coefficients",
    "contraction_constant",
    "error_report",
    "exact_mse",
    "expansion",
    "explicit_bound",
    "largest_log_odds_ratio",
    "mean_squared_error",
    "missing_probability",
    "quadratic_bound",
    "remainder_constant",
    "simulated_mse",
    "uniform_bound",
]

# Inclusion and exclusion runs over all sets of rows and of columns: 2 to this power terms take about a second.
_MOST_VALUES = 20
# h is centered until it is this near to its limit, or so often, or has so many values in all; a bound stands for the
# rest.
_SETTLED = 1e-12
_MOST_CENTERINGS = 20_000
_MOST_NUMBERS = 2_000_000
# Centerings of more numbers in all would take a minute.
_MOST_CENTERED = 10**9
# In a report: errors of all count tables and half-steps; entries of drawn tables through all half-steps; counts.
_MOST_ERRORS = 20_000_000
_MOST_WORK = 2 * 10**10
_LEAST_SIZE = 400
_MOST_DRAWN = 10**18
# Sixth moments of a cell, fourth powers of h and squares of the bounds must be doubles.
_LEAST_MASS = 1e-50
_LEAST_RANGE, _MOST_RANGE = 1e-50, 1e50
# Above this coefficient of Birkhoff, one minus it is rounding.
_NO_CONTRACTION = 1 - 1e-9


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
    return float(np.clip(-np.sum(signs * powers), 0, 1)) + 0.0


@dataclass(frozen=True)
class ErrorBound:
    """Bound on the root mean squared error: the sum of three parts.

    Attributes
    ----------
    first_order : float
        sigma_k / sqrt(n).
    remainder : float
        What the corrections of second order add on the event on which they are small, of order 1 / n.
    rare_event : float
        What the complement of that event adds: osc(h) times the square root of the bound of its probability.
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


@dataclass(frozen=True)
class UniformBound(ErrorBound):
    r"""Bounds on the error from `uniform_bound`: of its root mean square as in `ErrorBound`, and of its mean square.

    Attributes
    ----------
    gamma : float
        The constant :math:`\Gamma` of the table.
    constant : float
        R: the mean squared error is at least :math:`\sigma_k^2 / n - R / n^2`.
    constant_above : float
        :math:`R_+`: it is at most :math:`\sigma_k^2 / n + R_+ / n^2`.
    lower, upper : float
        Bounds of the mean squared error. They have :math:`L_4(n)` and :math:`L_6(n)` where R has their values at
        n = 1, `upper` has the better of the two bounds for the rare event, and they are cut at 0 and at the square of
        the oscillation.
    """

    gamma: float
    constant: float
    constant_above: float
    lower: float
    upper: float


def explicit_bound(table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0) -> ErrorBound:
    r"""Bound on the root mean squared error of :math:`P_n^{(k)}(h)` with explicit constants.

    .. math:: \frac{\sigma_k}{\sqrt n} + \frac{B_k}{n}
              + \operatorname{osc}(h) \sqrt{2 (m + l)} \exp\Bigl( - \frac{n p_*}{72 k^2} \Bigr)

    with :math:`B_k = \frac83 K_4^{1/4} \sum_j d_j + \frac{32}{9} k (k - 1) G K_4^{1/2}` (Theorem 5.14 of the book,
    where the symbols are defined). It holds for every n and k; it is sharp for few half-steps and useless for many.

    Parameters
    ----------
    table, h, n, first
        As in `exact_mse`. A positive mass is at least 1e-50, and the range of h on the support 0 or from 1e-50 to
        1e50.
    steps : int
        Number k of half-steps, from 1 to 20,000 (fewer for a table with more than 50,000 cells).

    Returns
    -------
    ErrorBound

    Raises
    ------
    ValueError
        If an input is out of range.

    References
    ----------
    Theorem 5.14 of the book.

    Examples
    --------
    >>> bound = explicit_bound([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=10**6, steps=2)
    >>> bound.vacuous, bool(bound.first_order < bound.rmse < 1.2 * bound.first_order)
    (False, True)
    """
    joint, values, n, steps, first = _inputs(table, h, n, steps, first)
    masses, k4 = _masses(joint, n)
    largest, spread = 0.0, 0.0
    for g, axis in centerings(joint, values, steps, first):
        spread += _spread(joint, g, axis, n)
        largest = max(largest, np.abs(g[joint > 0]).max())
    remainder = 8 / 3 * k4**0.25 * spread + 32 / 9 * steps * (steps - 1) * largest * np.sqrt(k4)
    oscillation = np.ptp(values[joint > 0])
    rare = oscillation * np.sqrt(2 * len(masses)) * np.exp(-n * masses.min() / (72 * steps**2))
    return ErrorBound(
        _first_order(joint, values, n, steps, first), float(remainder / n), float(rare), float(oscillation)
    )


def quadratic_bound(table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0) -> ErrorBound:
    r"""Bound :math:`\sigma_k / \sqrt n + A k^2 / n` on the root mean squared error, with an A that is free of n and k.

    .. math:: A = \frac83 K_4^{1/4} d + \frac{32}{9} G K_4^{1/2}
              + \frac{72}{e} \operatorname{osc}(h) \frac{\sqrt{2 (m + l)}}{p_*}

    with :math:`K_4` and d at n = 1, and with the least upper bounds of d and G over all k, or (where the functions g
    settle slowly) upper bounds of them. It follows from `explicit_bound`, and
    its square implies the bound of the paper, with k^4 for k^6 and without a condition on n.

    Parameters
    ----------
    table, h, n, steps, first
        As in `explicit_bound`.

    Returns
    -------
    ErrorBound
        The part `rare_event` is 0. A is `remainder` times n over k^2.

    Raises
    ------
    ValueError
        If an input is out of range.

    References
    ----------
    Corollary 5.15 of the book.

    Examples
    --------
    >>> bound = quadratic_bound([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=10**6, steps=2)
    >>> round(bound.remainder * 10**6 / 2**2, 1)
    1044.1
    """
    joint, values, n, steps, first = _inputs(table, h, n, steps, first)
    masses, k4 = _masses(joint, 1)
    largest, spread = _suprema(joint, values)
    oscillation = np.ptp(values[joint > 0])
    constant = 8 / 3 * k4**0.25 * spread + 32 / 9 * largest * np.sqrt(k4)
    constant += 72 / np.e * oscillation * np.sqrt(2 * len(masses)) / masses.min()
    remainder = constant * steps**2 / n
    return ErrorBound(_first_order(joint, values, n, steps, first), float(remainder), 0.0, float(oscillation))


def contraction_bound(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0, delta: float | None = None
) -> ErrorBound:
    r"""Bound on the root mean squared error that stays bounded in k, for a table without zeros.

    .. math:: \frac{\sigma_k}{\sqrt n} + \frac{B_k'}{n} + \operatorname{osc}(h) \sqrt{\pi}, \qquad
              B_k' = \frac83 K_4^{1/4} \sum_j \gamma_j d_j
              + \frac{128}{9} \frac{G K_4^{1/2}}{1 - \tau_\delta} \sum_{j \ge 2} \gamma_j

    with :math:`\gamma_1 = 1` and :math:`\gamma_j = \min(1, (1 + \tau_\delta) \tau_\delta^{j - 2})` (Theorem 5.18 of
    the book, where the symbols are defined).

    Parameters
    ----------
    table, h, n, steps, first
        As in `explicit_bound`; no cell of the table may be 0.
    delta : float, optional
        Largest relative error of a cell on the event, in (0, 1/4]. It may depend on n, not on the data. By default
        the best of 81 values.

    Returns
    -------
    ErrorBound
        `remainder` is infinite where :math:`1 - \tau` is lost in double precision.

    Raises
    ------
    ValueError
        If an input is out of range or a cell is 0: `uniform_bound` allows zeros.

    References
    ----------
    Theorem 5.18 of the book.

    Examples
    --------
    >>> bounds = [
    ...     contraction_bound([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=10**6, steps=k)
    ...     for k in (6, 60)
    ... ]
    >>> bool(bounds[1].rmse < 1.03 * bounds[0].rmse)
    True
    """
    joint, values, n, steps, first = _inputs(table, h, n, steps, first)
    if not joint.all():
        raise ValueError("a cell of the table is 0, and its log odds ratios are not finite: use uniform_bound")
    if delta is not None and not 0 < delta <= 0.25:
        raise ValueError(f"delta = {delta}: choose a number above 0 and at most 1/4")
    deltas = np.array([delta]) if delta is not None else np.geomspace(0.25e-4, 0.25, 81)
    masses, k4 = _masses(joint, n)
    oscillation, sigma = np.ptp(values), _first_order(joint, values, n, steps, first)
    tau = np.tanh(largest_log_odds_ratio(joint) / 4)
    if tau > _NO_CONTRACTION:
        return ErrorBound(sigma, math.inf, float(oscillation), float(oscillation))
    sizes = [(_spread(joint, g, axis, n), np.abs(g).max()) for g, axis in centerings(joint, values, steps, first)]
    # from g_1 to g_k
    spreads, largest = np.array(sizes)[::-1, 0], np.array(sizes)[:, 1].max()
    tau = (tau + deltas) / (1 + tau * deltas)
    # gamma_1 = 1, and then a geometric sequence, one row for each delta
    gammas = np.minimum(1, (1 + tau)[:, None] * tau[:, None] ** (np.arange(steps) - 1.0))
    gammas[:, 0] = 1
    remainders = 8 / 3 * k4**0.25 * gammas @ spreads
    remainders += 128 / 9 * largest * np.sqrt(k4) * gammas[:, 1:].sum(axis=1) / (1 - tau)
    chance = 2 * joint.size * np.exp(-11 / 24 * n * joint.min() * deltas**2)
    chance += 2 * len(masses) * np.exp(-11 / 24 * n * masses.min() * (1 - tau) ** 2 / 64)
    rare = oscillation * np.sqrt(np.minimum(chance, 1))
    best = np.argmin(remainders / n + rare)
    return ErrorBound(sigma, float(remainders[best] / n), float(rare[best]), float(oscillation))


def uniform_bound(table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0) -> UniformBound:
    r"""Bounds of order 1/n^2 on mean squared error less :math:`\sigma_k^2 / n`, for every table, every n and every k.

    .. math:: - \frac{R}{n^2} \le \mathrm{MSE}_k - \frac{\sigma_k^2}{n}
              \le \frac{R}{n^2} + \operatorname{osc}(h)^2 \Pr(E^c) \le \frac{R_+}{n^2}

    R and :math:`R_+` are explicit and free of k; they depend on the table through :math:`\Gamma`, its smallest cell
    and its number of cells (Theorem 5.24 of the book). The theorem has the right shape; its constants are large.

    Parameters
    ----------
    table, h, n, steps, first
        As in `explicit_bound`. Zeros and several blocks are allowed.

    Returns
    -------
    UniformBound

    Raises
    ------
    ValueError
        If an input is out of range.

    References
    ----------
    Theorem 5.24 of the book.

    Examples
    --------
    >>> bound = uniform_bound([[0.3, 0.1], [0, 0.6]], [[1, -2], [0.5, 3]], n=10**7, steps=50)
    >>> bound.vacuous, bool(bound.lower < bound.first_order**2 < bound.upper)
    (False, True)
    """
    joint, values, n, steps, first = _inputs(table, h, n, steps, first)
    p, gamma = joint[joint > 0], np.float64(contraction_constant(joint))
    sigma0, oscillation = np.sqrt(balanced_variance(joint, values, 0)), np.ptp(values[joint > 0])
    (l4, l6), (l4_one, l6_one) = _cell_moments(p, n), _cell_moments(p, 1)
    if not oscillation:
        return UniformBound(0.0, 0.0, 0.0, 0.0, float(gamma), 0.0, 0.0, 0.0, 0.0)
    with np.errstate(over="ignore"):
        # E is the event that every cell is right within a fraction 1 / (13 Gamma^2)
        chernoff = 2 * p.size * np.exp(-n * p.min() / (370 * gamma**4))
        markov = 28561 * gamma**8 * l4 / n**2
        chance = min(chernoff, markov, 1.0)
        # the first term comes from a single observation, whatever n is
        constants = [
            sigma0**2 * gamma**2 * (24 * np.sqrt(l4_one) + gamma**2 * (750 * np.sqrt(sixth) + 1265 * fourth))
            for fourth, sixth in ((l4, l6), (l4_one, l6_one))
        ]
        above = constants[1] + 28561 * gamma**8 * oscillation**2 * l4_one
        sigma = _first_order(joint, values, n, steps, first)
        lower = sigma**2 - constants[0] / n**2
        upper = sigma**2 + constants[0] / n**2 + oscillation**2 * chance
    return UniformBound(
        first_order=sigma,
        remainder=float(28 * sigma0 * gamma**2 * np.sqrt(l4) / n),
        rare_event=float(oscillation * np.sqrt(chance)),
        oscillation=float(oscillation),
        gamma=float(gamma),
        constant=float(constants[1]),
        constant_above=float(above),
        lower=float(max(lower, 0.0)),
        upper=float(min(upper, oscillation**2)),
    )


def error_report(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0, draws: int = 20_000, seed: int = 0
) -> ErrorReport:
    """Set the error of a balanced estimate beside its expansion and all bounds, and say which number to use.

    What is proved: if the table is the law P of the observations and its marginals are the targets, the bounds hold
    at this n (Theorems 5.14, 5.18, 5.24 and Corollary 5.15 of the book), and the expansion has an error of order
    n^-3 in the mean square, uniformly in the number of half-steps (Theorem 5.28). What is not: the size of that
    error at this n, which is why a simulation stands beside it; and anything about a law that is only estimated.
    For a sample, pass its balanced table: the report is then about that table in the place of P.

    Parameters
    ----------
    table, h, n, steps, first
        As in `explicit_bound`.
    draws, seed
        As in `simulated_mse`, used if there are more than two million count tables (fewer where there are many
        half-steps: 20 million errors in all).

    Returns
    -------
    ErrorReport

    Raises
    ------
    ValueError
        If an input is out of range, or the simulation would take minutes.

    References
    ----------
    Theorems 5.14, 5.18, 5.24 and 5.28, Corollary 5.15 of the book.

    Examples
    --------
    >>> print(error_report([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=100, steps=1))
    Root mean squared error, n = 100, 1 half-step
      exact                                      0.118046
      plain estimate, no half-step               0.156904
      first order, sigma_k / sqrt(n)             0.117394
      expanded to second order                   0.118023
      proved: explicit_bound                     says nothing here
      proved: quadratic_bound                    says nothing here
      proved: contraction_bound                  says nothing here
      proved: uniform_bound                      says nothing here
    Use the exact error: every count table was enumerated.
    """
    n, draws = checks.check_count(n, "n", least=1), checks.check_count(draws, "draws", least=2)
    joint, values, _, steps, first = _inputs(table, h, n, steps, first)
    tables = number_of_tables(n, int(np.count_nonzero(joint)))
    few = tables <= FEW_TABLES and tables * steps <= _MOST_ERRORS
    if few:
        drawn = exact_mse(joint, values, n, steps, first=first)
    elif n <= _MOST_DRAWN and steps * max(joint.size, _LEAST_SIZE) * draws <= _MOST_WORK:
        drawn = simulated_mse(joint, values, n, steps, first=first, draws=draws, seed=seed)
    elif n > _MOST_DRAWN:
        raise ValueError(
            f"n = {n}: samples of more than {_MOST_DRAWN:.0e} are not drawn; use `expansion` and the bounds"
        )
    else:
        raise ValueError(
            f"draws = {draws}: so many tables of {joint.size:,} cells, {steps} half-steps each, would take minutes;"
            f" pass draws={max(_MOST_WORK // (steps * max(joint.size, _LEAST_SIZE)), 2)} or fewer half-steps"
        )
    error = float(np.sqrt(max(drawn.mse[steps], 0.0)))
    # of the root; where the mean square is no larger than its standard error, the root of that
    spread = float(np.sqrt(error**2 + drawn.standard_errors[steps]) - error)
    first_order = _first_order(joint, values, n, steps, first)
    try:
        second = first_order**2 + remainder_constant(joint, values, steps, first=first) / float(n) ** 2
    except ValueError:
        # too large a table, or too many half-steps
        second = -1.0
    functions = [explicit_bound, quadratic_bound, contraction_bound, uniform_bound]
    if not joint.all():
        functions.remove(contraction_bound)
    bounds = {f.__name__: f(joint, values, n, steps, first=first) for f in functions}
    return ErrorReport(
        n=n,
        steps=steps,
        exact=few,
        error=error,
        standard_error=spread,
        plain=float(np.sqrt(balanced_variance(joint, values, 0) / n)),
        first_order=first_order,
        expanded=float(np.sqrt(second)) if second >= 0 else None,
        bounds=bounds,
        expected_least=float(n * _masses(joint, n)[0].min()),
    )


def _inputs(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, first: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], Any, int, int]:
    """Return the law, h less its least value on the support and 0 off it, and the rest, checked."""
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    if steps < 1:
        raise ValueError(f"steps = {steps}: the bound is for at least 1 half-step; without any it is sigma_0 / sqrt(n)")
    longest = min(_MOST_CENTERINGS, max(_MOST_CENTERED // joint.size, 1))
    if steps > longest:
        raise ValueError(f"steps = {steps}: at most {longest:,} half-steps are evaluated for {joint.size:,} cells")
    support = joint > 0
    if joint[support].min() < _LEAST_MASS:
        cell = tuple(int(i) for i in np.argwhere(support & (joint < _LEAST_MASS))[0])
        raise ValueError(f"cell {cell} has mass {joint[cell]:.3g}: set a mass below {_LEAST_MASS:g} to 0, or merge it")
    least, most = h[support].min(), h[support].max()
    if not (least == most or _LEAST_RANGE <= most / 2 - least / 2 <= _MOST_RANGE):
        raise ValueError(
            f"h ranges from {least:.6g} to {most:.6g}: multiply it by a number that brings its range near 1;"
            " a root mean squared error is multiplied by the same number"
        )
    return joint, np.where(support, h - least, 0.0), float(checks.check_count(n, "n", least=1)), steps, first


def _first_order(joint, h, n, steps, first):
    return float(np.sqrt(balanced_variance(joint, h, steps, first) / n))


def _masses(joint, n):
    """Return the masses of all values of X and Y, and K_4 of Lemma 5.13."""
    # a sum that should be 1 may be rounded above it
    masses = np.minimum(np.concatenate([joint.sum(axis=1), joint.sum(axis=0)]), 1.0)
    return masses, np.sum((3 * (1 - masses) ** 2 + (1 - masses) / (n * masses)) / masses**2)


def _spread(joint, g, axis, n):
    """Return d_j of Lemma 5.13 for a function g of a step on the axis, or for each of a stack of functions."""
    target = joint.sum(axis=1 - axis)
    second, fourth = ((joint * g**power).sum(axis=-1 - axis) / target for power in (2, 4))
    return np.sqrt(np.sum(np.sqrt(3 * second**2 + fourth / (n * target)), axis=-1))


def _suprema(joint, h):
    """Return the largest |g_j| and the largest d_j at n = 1, over all numbers of half-steps."""
    support, limit = joint > 0, limit_influence(joint, h)
    s, below = largest_below_one(joint)
    # after r centerings the distance from the limit is at most s^(r - 1) sigma_gap in L2(P)
    gap = np.sqrt(balanced_variance(joint, h - limit, 0) / joint[support].min())
    log_s = math.log1p(-below) if s > 0.5 else math.log(s) if s else -math.inf
    enough = 1 + math.ceil(math.log(_SETTLED) / log_s)
    count = max(1, min(enough, _MOST_CENTERINGS, _MOST_NUMBERS // joint.size))
    functions = influence_functions(joint, h, count)[1:]
    # what comes later differs from the limit by at most this; both sizes are norms
    tail, sizes = gap * s**count, [limit, np.ones(joint.shape)]
    largest = max(np.abs(functions[:, :, support]).max(), np.abs(limit[support]).max() + tail)
    ends = [_spread(joint, np.array(sizes), axis, 1) @ [1, tail] for axis in (0, 1)]
    return largest, max(*ends, *(_spread(joint, functions[:, axis], axis, 1).max() for axis in (0, 1)))


def _cell_moments(p, n):
    """Return L_4 and L_6 of Lemma 5.21 for the masses p of the cells."""
    q = 1 - p
    fourth = np.sum((3 * q**2 + q / (n * p)) / p**2)
    return fourth, np.sum((15 * q**3 + 25 * q**2 / (n * p) + q / (n * p) ** 2) / p**3)
