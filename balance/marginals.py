"""Balancing with wrong or noisy marginals (chapter 6 of the book).

P is the joint law of (X, Y), an m x l table; h is a function of (x, y); Q_X and Q_Y are the targets, which need not be
the marginals of P. Writing h = residual + row(x) + column(y), one part for each kind of error, answers every question:
the sample is responsible for the residual, the targets for the two functions of one variable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance._engine.loop import safe_divide
from balance._engine.stacks import Stack
from balance._engine.targets import as_goals, as_vectors
from balance.operators import conditional_mean
from balance.variance import balanced_variance, limit_variance


class ErrorParts(NamedTuple):
    """A function of (x, y) as the sum ``residual + row[:, None] + column``."""

    residual: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]


class Unpaired(NamedTuple):
    """Mean squared errors from `unpaired_mse`: four uses of unpaired observations."""

    plain: float
    auxiliary: float
    pooled: float
    ridge: float


def attribute_error(table: ArrayLike, h: ArrayLike, steps: int, first: int = 0) -> ErrorParts:
    r"""Split h into what k half-steps leave to the sample and what they take from the targets.

    .. math:: h = \psi_k + \varphi_X + \varphi_Y, \qquad \psi_k = C_1 \cdots C_k h, \qquad
              \varphi_X = \sum_{j \text{ on } X} \mu_X C_{j+1} \cdots C_k h, \quad \varphi_Y \text{ likewise}

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0, no row or column empty; normalized first.
    h : array_like, shape (m, l), (m, 1) or (1, l)
        A function of (x, y), of x or of y.
    steps : int
        Number of half-steps k >= 0.
    first : {0, 1}
        The axis of the first half-step: 0 for X, 1 for Y.

    Returns
    -------
    ErrorParts
        psi_k (m, l), phi_X (m,) and phi_Y (l,).

    Raises
    ------
    ValueError
        If an input has a wrong entry or shape, a row or column is empty, or `steps` or `first` is out of range.

    References
    ----------
    Theorem 6.1 of the book.

    Examples
    --------
    >>> parts = attribute_error([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], steps=1)
    >>> parts.row.round(9).tolist(), parts.column.tolist()
    ([0.25, 2.375], [0.0, 0.0])
    """
    joint, residual = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    parts = [np.zeros(size) for size in joint.shape]
    for j in range(steps, 0, -1):
        axis = (first + j - 1) % 2
        mean = conditional_mean(joint, residual, axis)
        parts[axis] += mean
        residual = residual - np.expand_dims(mean, 1 - axis)
    return ErrorParts(residual, *parts)


def first_order_bias(table: ArrayLike, h: ArrayLike, targets: Sequence[ArrayLike], steps: int, first: int = 0) -> float:
    r"""First-order bias of balancing to targets that are not the marginals of P.

    .. math:: b_k = \sum_{j=1}^k (Q_j - P_j)(\mu_j C_{j+1} \cdots C_k h)
                  = (Q_X - P_X)(\varphi_X) + (Q_Y - P_Y)(\varphi_Y)

    Parameters
    ----------
    table, h, steps, first
        As in `attribute_error`.
    targets : two array_likes, shapes (m,) and (l,)
        Q_X and Q_Y: masses >= 0 with a common total, which is normalized to 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `attribute_error`, or if a target has a wrong entry or shape.

    References
    ----------
    Theorem 6.3 of the book.

    Examples
    --------
    >>> law, h = [[6, 2], [3, 9]], [[1, -2], [0.5, 3]]
    >>> round(first_order_bias(law, h, ([0.41, 0.59], [0.45, 0.55]), steps=1), 9)
    -0.02125
    """
    joint, _ = checks.as_law(table, h)
    parts = attribute_error(table, h, steps, first)
    q_x, q_y = as_vectors(targets, (joint.sum(axis=1), joint.sum(axis=0)))
    return float((q_x - joint.sum(axis=1)) @ parts.row + (q_y - joint.sum(axis=0)) @ parts.column)


def predicted_mse(
    table: ArrayLike, h: ArrayLike, n: int, targets: Sequence[ArrayLike], steps: int, first: int = 0
) -> float:
    r"""Mean squared error of the balanced estimate with fixed targets, :math:`\sigma_k^2 / n + b_k^2`.

    Parameters
    ----------
    table, h, targets, steps, first
        As in `first_order_bias`. With steps = 0 the empirical estimate: the targets play no part.
    n : int
        Number of pairs, >= 1.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `first_order_bias`, or if n is out of range.

    References
    ----------
    Theorem 6.5 of the book.

    Examples
    --------
    >>> law, h = [[6, 2], [3, 9]], [[1, -2], [0.5, 3]]
    >>> round(predicted_mse(law, h, 100, ([0.41, 0.59], [0.45, 0.55]), steps=1), 7)
    0.0142328
    """
    n = checks.check_count(n, "n", least=1)
    bias = first_order_bias(table, h, targets, steps, first)
    return balanced_variance(table, h, steps, first) / n + bias**2


def break_even(table: ArrayLike, h: ArrayLike, targets: Sequence[ArrayLike], steps: int, first: int = 0) -> float:
    r"""Sample size :math:`n^* = (\sigma_0^2 - \sigma_k^2) / b_k^2` above which these targets do more harm than good.

    Parameters
    ----------
    table, h, targets, steps, first
        As in `first_order_bias`.

    Returns
    -------
    float
        At n pairs the noise Q - P may be :math:`\sqrt{n^* / n}` times as large before balancing hurts. Infinite
        if the bias is zero.

    Raises
    ------
    ValueError
        As `first_order_bias`.

    References
    ----------
    Corollary 6.6 of the book.

    Examples
    --------
    >>> law, h = [[6, 2], [3, 9]], [[1, -2], [0.5, 3]]
    >>> round(break_even(law, h, ([0.41, 0.59], [0.45, 0.55]), steps=1))
    2400
    """
    bias = first_order_bias(table, h, targets, steps, first)
    gain = balanced_variance(table, h, 0) - balanced_variance(table, h, steps, first)
    return gain / bias**2 if bias else np.inf


def importance_weighted(tables: ArrayLike, targets: Sequence[ArrayLike]) -> NDArray[np.float64]:
    r"""Correct both marginals at once: :math:`P_n \, Q_X Q_Y / (P_{n,X} P_{n,Y})`. Its total mass is not 1.

    Parameters
    ----------
    tables : array_like, shape (..., m, l)
        Counts or masses, one table or a stack; each normalized first.
    targets : two array_likes, shapes (..., m) and (..., l)
        Masses, normalized first.

    Returns
    -------
    ndarray, shape (..., m, l)

    Raises
    ------
    ValueError
        If an entry is negative or not finite, a shape does not fit, a table is empty, or a target has mass on an
        empty row or column.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), experiments. Proposition 6.8 of the book.

    Examples
    --------
    >>> importance_weighted([[3, 1], [1, 3]], ([0.6, 0.4], [0.5, 0.5])).round(9).tolist()
    [[0.45, 0.15], [0.1, 0.3]]
    """
    stack, (q_x, q_y) = _stack(tables, targets)
    return (
        stack
        * safe_divide(*np.broadcast_arrays(q_x, stack.sum(-1)))[..., None]
        * safe_divide(*np.broadcast_arrays(q_y, stack.sum(-2)))[..., None, :]
    )


def importance_mse(table: ArrayLike, h: ArrayLike, n: int, targets: Sequence[ArrayLike]) -> float:
    r"""Mean squared error of importance weighting to first order.

    .. math:: \frac1n \operatorname{Var}_P(h - \mu_X h - \mu_Y h)
              + \bigl[ (Q_X - P_X)(\mu_X h) + (Q_Y - P_Y)(\mu_Y h) \bigr]^2

    Parameters
    ----------
    table, h, n, targets
        As in `predicted_mse`.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `predicted_mse`.

    References
    ----------
    Proposition 6.8 of the book.

    Examples
    --------
    >>> law, h = [[6, 2], [3, 9]], [[1, -2], [0.5, 3]]
    >>> round(importance_mse(law, h, 100, ([0.4, 0.6], [0.45, 0.55])), 7)
    0.0162807
    """
    joint, values = checks.as_law(table, h)
    parts = [attribute_error(joint, values, 1, axis) for axis in (0, 1)]
    residual = values - parts[0].row[:, None] - parts[1].column
    bias = sum(first_order_bias(joint, values, targets, 1, axis) for axis in (0, 1))
    return balanced_variance(joint, residual, 0) / checks.check_count(n, "n", least=1) + bias**2


def unpaired_mse(
    table: ArrayLike,
    h: ArrayLike,
    n: int,
    n_unpaired: int,
    steps: int,
    first: int = 0,
    *,
    one_survey: bool = False,
) -> Unpaired:
    r"""First-order mean squared errors when the marginals are known from unpaired observations only.

    A rule with split h = residual + f(x) + g(y) has
    :math:`\operatorname{Var}(\text{residual}) / n + (\operatorname{Var} f + \operatorname{Var} g) / N`
    if X and Y were observed in two separate surveys, and
    :math:`\operatorname{Var}(\text{residual}) / n + \operatorname{Var}(f + g) / N` if in one.

    Parameters
    ----------
    table, h, steps, first
        As in `attribute_error`.
    n : int
        Number of pairs.
    n_unpaired : int
        Number N of observations of X alone, and as many of Y alone, all independent.
    one_survey : bool
        Both marginals come from the same N people, who are not among the pairs.

    Returns
    -------
    Unpaired
        ``plain``: no balancing; ``auxiliary``: targets from the N observations; ``pooled``: targets from all n + N;
        ``ridge``: the best linear rule.

    Raises
    ------
    ValueError
        As `attribute_error`, or if n or `n_unpaired` is out of range.

    References
    ----------
    Theorem 6.10, Corollary 6.13 and Theorem 6.16 of the book.

    Examples
    --------
    >>> mse = unpaired_mse([[6, 2], [3, 9]], [[1, -2], [0.5, 3]], n=100, n_unpaired=100, steps=2)
    >>> [round(100 * value, 3) for value in mse]
    [2.462, 2.462, 1.885, 1.847]
    """
    joint, values = checks.as_law(table, h)
    n, n_unpaired = checks.check_count(n, "n", least=1), checks.check_count(n_unpaired, "n_unpaired", least=1)
    parts, kept = attribute_error(joint, values, steps, first), n / (n + n_unpaired)
    pooled = ErrorParts(kept * values + (1 - kept) * parts.residual, (1 - kept) * parts.row, (1 - kept) * parts.column)
    rules = (attribute_error(joint, values, 0), parts, pooled)
    mse = [_rule_mse(joint, rule, n, n_unpaired, one_survey) for rule in rules]
    if one_survey:
        # the best f + g is the share N / (n + N) of the projection of h on such sums: no ridge is needed
        best = kept * balanced_variance(joint, values, 0) + (1 - kept) * limit_variance(joint, values)
        mse.append(best / n)
    else:
        mse.append(_rule_mse(joint, ridge_split(joint, values, 1 - kept), n, n_unpaired, one_survey))
    return Unpaired(*mse)


def ridge_split(table: ArrayLike, h: ArrayLike, share: float) -> ErrorParts:
    r"""Split of the best linear rule: f and g minimize :math:`\operatorname{Var}(h - f - g)
    + \frac{1 - \theta}{\theta} (\operatorname{Var} f + \operatorname{Var} g)`.

    They solve :math:`f = \theta \mu_X (h - g)`, :math:`g = \theta \mu_Y (h - f)`.

    Parameters
    ----------
    table, h
        As in `attribute_error`.
    share : float
        theta = N / (n + N), in [0, 1): the share of the targets' observations.

    Returns
    -------
    ErrorParts

    Raises
    ------
    ValueError
        As `attribute_error`, or if the share is out of range.

    References
    ----------
    Theorem 6.16 of the book.

    Examples
    --------
    >>> ridge_split([[1, 1], [1, 1]], [[1, 1], [-1, -1]], 0.5).row.tolist()
    [0.5, -0.5]
    """
    joint, values = checks.as_law(table, h)
    share = checks.check_number(share, "share", 0, 1, "N / (n + N), at least 0 and less than 1", ends=(True, False))
    m, l = joint.shape
    to_x, to_y = joint / joint.sum(axis=1, keepdims=True), (joint / joint.sum(axis=0)).T
    equations = np.block([[np.eye(m), share * to_x], [share * to_y, np.eye(l)]])
    means = np.concatenate([conditional_mean(joint, values, axis) for axis in (0, 1)])
    f, g = np.split(np.linalg.solve(equations, share * means), [m])
    return ErrorParts(values - f[:, None] - g, f, g)


def pooled_targets(
    counts: ArrayLike, targets: Sequence[ArrayLike], prior_count: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Targets :math:`(n P_{n,X} + N Q_X) / (n + N)` and the same for Y.

    The posterior mean of the marginal under a Dirichlet prior with parameters :math:`N Q_X`: prior knowledge worth N
    observations.

    Parameters
    ----------
    counts : array_like of whole numbers, shape (..., m, l)
        One table of n observed pairs, or a stack.
    targets : two array_likes, shapes (..., m) and (..., l)
        Q_X and Q_Y, normalized first.
    prior_count : float
        N > 0, finite.

    Returns
    -------
    tuple of two ndarray, shapes (..., m) and (..., l)

    Raises
    ------
    ValueError
        As `importance_weighted`, or if a count is not a whole number or N is out of range.

    References
    ----------
    Theorem 6.10 of the book.

    Examples
    --------
    >>> x, y = pooled_targets([[3, 1], [1, 3]], ([0.6, 0.4], [0.9, 0.1]), prior_count=24)
    >>> x.round(9).tolist(), y.round(9).tolist()
    ([0.575, 0.425], [0.8, 0.2])
    """
    total = np.asarray(counts).sum(axis=(-2, -1))[..., None]
    tables, vectors = _stack(counts, targets, empty=True)
    if np.any(np.asarray(counts) % 1):
        raise ValueError("counts: pass whole numbers; their sum is the number of pairs")
    prior_count = checks.check_number(prior_count, "prior_count", 0, np.inf, "a positive number of observations")
    kept = total / (total + prior_count)
    return tuple(kept * tables.sum(-1 - a) + (1 - kept) * q for a, q in enumerate(vectors))


def soft_balance(
    tables: ArrayLike,
    targets: Sequence[ArrayLike],
    exponent: float,
    *,
    steps: int,
    accumulate: bool = False,
    first: int = 0,
) -> NDArray[np.float64]:
    r"""Balance with an exponent: targets that are trusted in part.

    .. math:: u \leftarrow \Bigl( \frac{Q_X}{P_n v} \Bigr)^\theta, \qquad
              v \leftarrow \Bigl( \frac{Q_Y}{u P_n} \Bigr)^\theta, \qquad
              \text{result} \propto u(x) P_n(x, y) v(y)

    This is Sinkhorn's algorithm for unbalanced transport: each scaling vector is computed afresh. With `accumulate` the
    factor :math:`(Q_X / \text{current marginal})^\theta` is multiplied onto the table instead, whose marginals
    then tend to the targets all the same. With exponent 1 both forms are `data_balance`.

    Parameters
    ----------
    tables, targets
        As in `importance_weighted`.
    exponent : float
        theta in (0, 1]; N / (n + N) for targets known from N observations each.
    steps : int
        Number of half-steps, >= 0.
    accumulate : bool
        Multiply the factors onto the running table.
    first : {0, 1}
        The axis of the first half-step.

    Returns
    -------
    ndarray, shape (..., m, l)
        Of total mass 1 each.

    Raises
    ------
    ValueError
        As `importance_weighted`, or if the exponent, `steps` or `first` is out of range.

    References
    ----------
    Chizat, Peyre, Schmitzer, Vialard (2018). Theorem 6.17 and Proposition 6.18 of the book.

    Examples
    --------
    >>> soft_balance([[1, 1], [1, 1]], ([0.8, 0.2], [0.5, 0.5]), 0.5, steps=30).round(4).tolist()
    [[0.3333, 0.3333], [0.1667, 0.1667]]
    """
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    exponent = checks.check_number(exponent, "exponent", 0, 1, "a number in (0, 1]", ends=(False, True))
    stack, vectors = _stack(tables, targets)
    leading = np.broadcast_shapes(stack.shape[:-2], *(q.shape[:-1] for q in vectors))
    stack = np.broadcast_to(stack, leading + stack.shape[-2:])
    vectors = [q if q.ndim == 1 else np.broadcast_to(q, leading + q.shape[-1:]) for q in vectors]
    balanced = Stack(stack, vectors).balance(steps, first, exponent, accumulate).table()
    return balanced / balanced.sum(axis=(-2, -1), keepdims=True)


def _rule_mse(joint, rule, n, n_unpaired, one_survey):
    row, column = rule.row[:, None], rule.column[None]
    # f and g are averaged over the same people in one survey, over other people in two
    averages = (row + column,) if one_survey else (row, column)
    noise = sum(balanced_variance(joint, f, 0) for f in averages)
    return balanced_variance(joint, rule.residual, 0) / n + noise / n_unpaired


def _stack(
    tables: ArrayLike, targets: Sequence[ArrayLike], empty: bool = False
) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Return tables (..., m, l) and two targets (..., m), (..., l), each normalized."""
    masses = checks.as_masses(tables, "tables")
    if masses.ndim < 2:
        raise ValueError(f"tables has {masses.ndim} axes: pass a table or a stack of shape (..., m, l)")
    totals = masses.sum(axis=(-2, -1), keepdims=True)
    if not totals.all():
        raise ValueError("tables: one of the tables has no mass")
    given = as_goals(targets, stacked=True)
    goals = [g for g in given if g is not None]
    if len(given) != 2 or len(goals) != 2:
        raise ValueError(f"{len(given)} targets: pass one for the rows and one for the columns")
    vectors = [
        g.aligned(None, size, a, "the tables") if g.values.ndim == 1 else g.values
        for a, (g, size) in enumerate(zip(goals, masses.shape[-2:], strict=True))
    ]
    if [q.shape[-1:] for q in vectors] != [(size,) for size in masses.shape[-2:]]:
        shapes = [q.shape for q in vectors]
        raise ValueError(f"targets of shapes {shapes} do not fit tables of shape {masses.shape}")
    for a, q in enumerate(vectors):
        if not empty and np.any((q > 0) & (masses.sum(-1 - a) == 0)):
            raise ValueError(
                f"targets[{a}] has mass on an empty {('row', 'column')[a]}, where no rescaling can put any"
            )
    return masses / totals, [q / q.sum(axis=-1, keepdims=True) for q in vectors]
