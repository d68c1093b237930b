"""A balanced estimate from records, with a standard error and an interval (chapter 4 of the book)."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from balance._engine import checks
from balance.projections import data_balance
from balance.variance import influence_function


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
    unseen : tuple of two tuples
        The values of X and of Y that have a target and no record. Both empty: the event S of the paper.
    plain : float
        Mean of the records, not balanced.
    weights : ndarray, shape (n,)
        Balanced mass of each record; the value is their inner product with the outcomes.
    table : ndarray, shape (m, l)
        The balanced table.
    """

    value: float
    standard_error: float
    interval: tuple[float, float]
    level: float
    degrees_of_freedom: int
    steps: int
    unseen: tuple[tuple[Hashable, ...], tuple[Hashable, ...]]
    plain: float
    weights: NDArray[np.float64] = field(repr=False)
    table: NDArray[np.float64] = field(repr=False)


def estimate(
    x: Sequence,
    y: Sequence,
    h: ArrayLike,
    targets: Sequence[ArrayLike | Mapping],
    *,
    steps: int,
    first: int = 0,
    level: float = 0.95,
) -> Estimate:
    r"""Estimate a mean from independent records of (X, Y) when both marginals are known.

    The records are balanced for `steps` half-steps. With weights :math:`w_i` and outcomes :math:`z_i`,

    .. math:: \hat\theta = \sum_i w_i z_i, \qquad
              \text{standard error}^2 = \frac{n}{n - d} \sum_i w_i^2 \psi_i^2, \qquad
              \psi_i = z_i - \bar z(x_i, y_i) + (C_1 \cdots C_k \bar z)(x_i, y_i),

    where :math:`\bar z` is the mean outcome of each cell, the :math:`C_j` are those of the balanced table, and d
    counts the fitted means: 1 without balancing, the number of values of the `first` variable for one half-step,
    m + l - 1 for more.

    Parameters
    ----------
    x, y : sequence, shape (n,)
        The values of each record: codes 0, 1, ... or, when the targets are mappings, their keys.
    h : array_like, shape (n,) or (m, l)
        The outcome of each record; or a function of the two values, h[i, j] for the i-th value of X and the j-th
        of Y.
    targets : two of array_like, shapes (m,) and (l,), or mappings from value to mass
        The known marginals, positive, with one common total.
    steps : int
        Number of half-steps, >= 0. If a value with a target was not seen, none is done.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.
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

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024) for the estimator. Theorem 4.8 and Proposition 4.11 of the book.

    Examples
    --------
    >>> x, y = ["a", "a", "a", "b", "b", "a"], [0, 1, 0, 0, 1, 1]
    >>> z = [1.0, 3.0, 2.0, 5.0, 6.0, 2.0]
    >>> result = estimate(x, y, z, ({"a": 0.5, "b": 0.5}, [0.4, 0.6]), steps=2)
    >>> round(result.value, 4), round(result.plain, 4), result.degrees_of_freedom
    (3.85, 3.1667, 3)
    """
    targets = tuple(targets)
    if len(targets) != 2:
        raise ValueError(f"{len(targets)} targets: pass one for x and one for y")
    labels, masses = zip(*(_target(t, f"targets[{a}]") for a, t in enumerate(targets)), strict=True)
    shape = tuple(len(v) for v in masses)
    targets = checks.as_targets(masses, [np.ones(n) for n in shape])
    x, y = (_codes(v, known, name) for v, known, name in zip((x, y), labels, "xy", strict=True))
    if len(x) != len(y):
        raise ValueError(f"x has {len(x)} records and y has {len(y)}")
    h = np.asarray(h)
    outcomes = checks.as_values(h, shape, "h")[x, y] if h.ndim == 2 else checks.as_values(h, x.shape, "h")
    first = checks.check_axis(first, 2, "first")
    steps = checks.check_count(steps, "steps")
    if not 0 < level < 1:
        raise ValueError(f"level = {level!r}: pass a number between 0 and 1, such as 0.95")
    n, fitted = len(x), (1, shape[first], sum(shape) - 1)
    counts, sums = np.zeros(shape), np.zeros(shape)
    np.add.at(counts, (x, y), 1)
    np.add.at(sums, (x, y), outcomes)
    unseen = tuple(
        tuple(known[i] for i in np.flatnonzero(counts.sum(axis=1 - a) == 0)) for a, known in enumerate(labels)
    )
    steps = 0 if any(unseen) else steps
    if steps == 0:
        table, influence = counts / n, outcomes - outcomes.mean()
    else:
        table = data_balance(counts, targets, steps=steps, first=first).table
        means = sums / np.maximum(counts, 1)
        influence = outcomes - means[x, y] + influence_function(table, means, steps, first)[x, y]
    weights = (table / np.maximum(counts, 1))[x, y]
    value, freedom = weights @ outcomes, n - fitted[min(steps, 2)]
    error = margin = np.inf
    if freedom > 0:
        error = np.sqrt(n / freedom * weights**2 @ influence**2)
        margin = stdtrit(freedom, (1 + level) / 2) * error
    return Estimate(
        value=float(value),
        standard_error=float(error),
        interval=(float(value - margin), float(value + margin)),
        level=level,
        degrees_of_freedom=freedom,
        steps=steps,
        unseen=unseen,
        plain=float(outcomes.mean()),
        weights=weights,
        table=table,
    )


def _target(target, name):
    """Return the values that have a target and their masses."""
    known = list(target) if isinstance(target, Mapping) else list(range(len(target)))
    masses = checks.as_masses(list(target.values()) if isinstance(target, Mapping) else target, name, ndim=1)
    if not masses.all():
        raise ValueError(f"{name}: value {known[int(np.argmin(masses))]!r} has mass 0: leave it out")
    return known, masses


def _codes(values, known, name):
    """Return the position of each value among the known ones."""
    position = {value: i for i, value in enumerate(known)}
    values = np.asarray(values)
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"{name} has shape {values.shape}: pass one value per record")
    codes = np.array([position.get(value, -1) for value in values.tolist()], dtype=np.intp)
    if (codes < 0).any():
        i = int(np.argmin(codes))
        raise ValueError(f"{name}[{i}] = {values[i]!r} has no target: add one, or drop or merge that value")
    return codes
