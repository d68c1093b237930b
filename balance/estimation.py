"""A balanced estimate from records, with a standard error and an interval (chapter 4 of the book)."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from balance._engine import checks
from balance._engine.numbers import as_doubles, is_series
from balance._engine.read import Problem, read
from balance._engine.result import ConvergenceWarning, of_problem, warn_unless_reached
from balance._engine.targets import as_sequence
from balance.records import Records

# How near the marginals are brought when no number of half-steps is given: that of `data_balance`.
_TOL = 1e-9
# Sweeps of centering after which the linearization of a limit is taken as it is; far more than rates below 0.99 need.
_MOST_SWEEPS = 2000
_SETTLED = 1e-12
# Cells up to which the balanced table is written out even if there are fewer records.
_MOST_CELLS = 10**6


@dataclass(frozen=True, eq=False)
class Estimate:
    """Result of `estimate`.

    Attributes
    ----------
    value : float
        The balanced estimate; the plain mean if a value with a target was not seen.
    standard_error : float
        Infinite if there are no degrees of freedom.
    interval : tuple of float
        Confidence interval: value -+ a quantile of Student's t times the standard error.
    level : float
        Confidence level of the interval.
    degrees_of_freedom : int
        n minus the number of fitted means, of the variance estimate and of Student's t.
    steps : int
        Half-steps done: 0 if a value was not seen.
    unseen : tuple of tuples, one per variable
        The values that have a target and no record. All empty: the event S of the paper.
    plain : float
        Mean of the records with their base weights, not balanced.
    weights : ndarray, shape (n,)
        Balanced mass of each record, of total 1; the value is their inner product with the outcomes.
    table : ndarray, one axis per variable, or None
        The balanced table; None if it would have more than a million cells and more cells than there are records.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    level: float
    degrees_of_freedom: int
    steps: int
    unseen: tuple[tuple[Hashable, ...], ...]
    plain: float
    weights: NDArray[np.float64] = field(repr=False)
    table: NDArray[np.float64] | None = field(repr=False)


def estimate(
    records: Records | Sequence[Any],
    outcome: ArrayLike,
    targets: Any,
    *,
    steps: int | None = None,
    first: int = 0,
    level: float = 0.95,
) -> Estimate:
    r"""Estimate a mean from independent records of some variables when their marginals are known.

    The records are balanced. With weights :math:`w_i` of total 1 and outcomes :math:`z_i`,

    .. math:: \hat\theta = \sum_i w_i z_i, \qquad
              \text{standard error}^2 = \frac{n}{n - d} \sum_i w_i^2 \psi_i^2, \qquad
              \psi = C_1 \cdots C_k z,

    where :math:`C_j z` is z minus its weighted mean given the variable of half-step j (without balancing, :math:`\psi`
    is z minus its weighted mean), and d counts the fitted means: 1 without balancing, the number of values of the first
    variable after one half-step, and one less for each further variable after its half-step: m + l - 1 for two of
    them. To convergence this is the linearization of raking.

    Parameters
    ----------
    records : Records, or sequence of columns, shape (n,) each
        The values of the variables in each record: codes 0, 1, ... or labels. `Records` may carry base weights, those
        of a sampling design with independent draws.
    outcome : array_like, shape (n,), or one axis per variable
        The outcome of each record; or a function of the values of the variables, h[i, j] for the i-th value of the
        first and the j-th of the second one.
    targets : as for `balance.data_balance`
        The known marginals, positive, with one common total; None for a variable whose marginal is not known.
    steps : int, optional
        Number of half-steps, >= 0; to convergence if not given. If a value with a target was not seen, none is done.
    first : int
        The axis of the first half-step.
    level : float
        Confidence level, in (0, 1).

    Returns
    -------
    Estimate

    Raises
    ------
    ValueError
        If a record has a value without target, an outcome is not finite, a target is not positive, or a shape,
        `steps`, `first` or `level` does not fit.

    Warns
    -----
    ConvergenceWarning
        If a value with a target was not seen: the plain mean is returned.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024) for the estimator. Theorem 4.9 and Proposition 4.12 of the book. Deville, Sarndal
    (1992), Calibration estimators in survey sampling, for the linearization.

    Examples
    --------
    >>> x, y = ["a", "a", "a", "b", "b", "a"], [0, 1, 0, 0, 1, 1]
    >>> z = [1.0, 3.0, 2.0, 5.0, 6.0, 2.0]
    >>> result = estimate((x, y), z, ({"a": 0.5, "b": 0.5}, [0.4, 0.6]), steps=2)
    >>> round(result.value, 4), round(result.plain, 4), result.degrees_of_freedom
    (3.85, 3.1667, 3)
    """
    if not isinstance(records, Records):
        if not isinstance(records, Sequence) or isinstance(records, str):
            raise ValueError(
                f"records is a {type(records).__name__}: pass Records, or a tuple with one column per variable"
            )
        records = Records(*records)
    problem = read(records, targets if isinstance(targets, Mapping) else as_sequence(targets), may_miss=True)
    codes, shape = problem.codes, problem.masses.shape
    for axis, target in enumerate(problem.targets):
        if target is not None and not target.all():
            value = problem.label(axis, int(np.argmin(target)))
            raise ValueError(f"targets[{axis}]: value {value!r} has mass 0: leave it out, with its records")
    if is_series(outcome) and records.index is not None and not outcome.index.equals(records.index):
        raise ValueError("outcome is a Series with another index than the records: bring them into one order")
    values = as_doubles(outcome, "outcome")
    if values.ndim > 1:
        values = checks.as_values(values, shape, "outcome")[codes]
    values = checks.as_values(values, (len(records),), "outcome")
    first = checks.check_axis(first, len(shape), "first")
    steps = None if steps is None else checks.check_count(steps, "steps")
    level = checks.check_number(level, "level", 0, 1, "a number between 0 and 1, such as 0.95")
    unseen = tuple(
        () if t is None else tuple(problem.label(a, int(i)) for i in np.flatnonzero(problem.sums[a] == 0))
        for a, t in enumerate(problem.targets)
    )
    base = records.weights / records.weights.sum()
    weights, done = base, 0
    if any(unseen):
        text = ", ".join(repr(label) for labels in unseen for label in labels[:3])
        warnings.warn(f"no record has {text}: not balanced, the plain mean", ConvergenceWarning, stacklevel=2)
    elif steps != 0:
        result = of_problem(problem, steps, None if steps is not None else _TOL, first=first)
        warn_unless_reached(result)
        weights, done = result.table.weights, result.steps
    # to convergence all marginals are matched, however few half-steps that took
    matched = done if steps is not None or any(unseen) else len(shape)
    axes = [a % len(shape) for a in range(first, first + len(shape)) if problem.targets[a % len(shape)] is not None]
    value, n = float(weights @ values), len(records)
    freedom = n - 1 - sum(shape[a] - 1 for a in axes[:matched])
    error = margin = np.inf
    if freedom > 0:
        influence = _influence(problem, weights, values, axes, matched if steps is not None or any(unseen) else None)
        error = np.sqrt(n / freedom * (weights**2 @ influence**2))
        margin = stdtrit(freedom, (1 + level) / 2) * error
    return Estimate(
        value=value,
        standard_error=float(error),
        interval=(float(value - margin), float(value + margin)),
        level=level,
        degrees_of_freedom=freedom,
        steps=done,
        unseen=unseen,
        plain=float(base @ values),
        weights=weights,
        table=_table(codes, weights, shape),
    )


def _influence(problem: Problem, weights, values, axes: list[int], steps: int | None) -> NDArray[np.float64]:
    """Return C_1 ... C_k z on the records, k = `steps` or so many that nothing changes."""
    if steps == 0:
        return values - weights @ values
    scale = max(float(np.abs(values - weights @ values).max()), np.finfo(np.float64).tiny)
    order = [axes[j % len(axes)] for j in range(steps)] if steps is not None else axes
    for _ in range(1 if steps is not None else _MOST_SWEEPS):
        before = values
        # the operator of the last half-step acts first
        for axis in reversed(order):
            codes, size = problem.codes[axis], problem.masses.shape[axis]
            mass = np.bincount(codes, weights, minlength=size)
            total = np.bincount(codes, weights * values, minlength=size)
            mean = np.divide(total, mass, out=np.zeros(size), where=mass > 0)
            values = values - mean[codes]
        if np.abs(values - before).max() <= _SETTLED * scale:
            break
    return values


def _table(codes, weights, shape) -> NDArray[np.float64] | None:
    """Return the balanced table, unless it would be much larger than the records."""
    cells = prod(shape)
    if cells > max(_MOST_CELLS, len(weights)):
        return None
    return np.bincount(np.ravel_multi_index(codes, shape), weights, minlength=cells).reshape(shape)
