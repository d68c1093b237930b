"""Information projections and data balancing (chapter 2 of the book).

A *half-step* replaces one marginal of a table by its target and keeps the conditionals given that marginal.
It is the information projection of the table on the set of tables with that marginal. `data_balance` cycles
through the axes.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, sparray, spmatrix
from scipy.special import rel_entr

from balance._engine import checks
from balance._engine.numbers import Frame, is_frame, is_tensor
from balance._engine.read import read
from balance._engine.result import BalanceResult, ConvergenceWarning, of_problem, of_stack, warn_unless_reached
from balance._engine.stacks import Stack
from balance._engine.targets import as_sequence
from balance.records import Records
from balance.scores import Scores

__all__ = [
    "BalanceResult",
    "ConvergenceWarning",
    "Records",
    "Scores",
    "data_balance",
    "kl_divergence",
    "marginal",
    "marginals",
    "project",
    "total_variation",
]


class _Tensor(Protocol):
    """A torch tensor, without importing torch."""

    def detach(self) -> Any: ...


class _Options(TypedDict, total=False):
    steps: int | None
    tol: float | None
    max_steps: int
    first: int
    keep_iterates: bool


# tables that come back as they were passed
T = TypeVar("T", bound=Records | Frame | _Tensor)


def kl_divergence(q: ArrayLike, p: ArrayLike) -> float:
    r"""Kullback-Leibler divergence :math:`\sum q \log(q / p)` in nats.

    Parameters
    ----------
    q, p : array_like, one shape
        Probabilities: entries in [0, 1] with sum 1.

    Returns
    -------
    float
        In [0, inf]; inf as soon as q puts mass where p has none.

    Raises
    ------
    ValueError
        If the shapes differ, an entry is negative or not finite, or a sum is not 1.

    Examples
    --------
    >>> round(kl_divergence([0.5, 0.5], [0.25, 0.75]), 6)
    0.143841
    >>> kl_divergence([0.5, 0.5], [1, 0])
    inf
    """
    return float(max(rel_entr(*_pair(q, p, "q", "p")).sum(), 0.0))


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    r"""Total variation distance :math:`\tfrac12 \sum |p - q|`.

    Parameters
    ----------
    p, q : array_like, one shape
        Probabilities: entries in [0, 1] with sum 1.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If the shapes differ, an entry is negative or not finite, or a sum is not 1.

    Examples
    --------
    >>> total_variation([0.5, 0.5], [0.25, 0.75])
    0.25
    """
    masses, other = _pair(p, q, "p", "q")
    return float(0.5 * np.abs(masses - other).sum())


def marginal(table: Any, axis: int) -> NDArray[np.float64]:
    """Marginal of a table: its sum over all axes but one, normalized to total mass 1.

    Parameters
    ----------
    table : array_like or SciPy sparse array with two or more axes, Records, Scores or DataFrame
        Masses or counts, finite and >= 0, not all zero.
    axis : int
        The axis that is kept, counted from 0.

    Returns
    -------
    ndarray, shape (table.shape[axis],)
        For `Records` up to the largest code, or one entry for each label.

    Raises
    ------
    ValueError
        If an entry of the table is negative or not finite, or the axis does not exist.

    Examples
    --------
    >>> marginal([[3, 1], [1, 5]], 0).tolist()
    [0.4, 0.6]
    """
    problem = read(table)
    sums = problem.sums[checks.check_axis(axis, problem.masses.ndim)]
    return sums / sums.sum()


def marginals(table: Any) -> tuple[NDArray[np.float64], ...]:
    """All marginals of a table, one for each axis; see `marginal`.

    Examples
    --------
    >>> [p.tolist() for p in marginals([[3, 1], [1, 5]])]
    [[0.4, 0.6], [0.4, 0.6]]
    """
    return tuple(sums / sums.sum() for sums in read(table).sums)


@overload
def project(table: T, target: Any, axis: int) -> T: ...
@overload
def project(table: Scores[Any], target: Any, axis: int) -> Any: ...
@overload
def project(table: ArrayLike, target: Any, axis: int) -> NDArray[np.float64]: ...
@overload
def project(table: sparray | spmatrix, target: Any, axis: int) -> csr_array: ...
def project(table: Any, target: Any, axis: int) -> Any:
    r"""Information projection on the tables whose marginal on one axis is the target.

    For axis 0 (an X-step) the result is :math:`R(x, y) P_X(x) / R_X(x)`, for axis 1 (a Y-step)
    :math:`R(x, y) P_Y(y) / R_Y(y)`. It minimizes :math:`\operatorname{KL}(Q \,\|\, R)` over the tables Q
    with that marginal (Theorem 2.2 of the book). One half-step of `data_balance`.

    Parameters
    ----------
    table : as in `data_balance`
        Masses or counts R, finite and >= 0; normalized first.
    target : array_like, shape (table.shape[axis],), mapping or Series
        Masses >= 0; normalized first.
    axis : int
        The axis of the target, counted from 0.

    Returns
    -------
    As the table
        Total mass 1.

    Raises
    ------
    ValueError
        If an input has a negative or non-finite entry or the wrong shape, or if the target has mass on an
        empty row, column or slice.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), equation of the X- and Y-iterations. Csiszar (1975), I-divergence
    geometry of probability distributions and minimization problems.

    Examples
    --------
    >>> project([[1, 1], [1, 3]], [0.5, 0.5], axis=0).tolist()
    [[0.25, 0.25], [0.125, 0.375]]
    """
    ndim = _axes(table)
    targets = [None] * ndim
    targets[checks.check_axis(axis, ndim)] = target
    try:
        return data_balance(table, targets, steps=1, first=axis).table
    except ValueError as error:
        raise ValueError(str(error).replace(f"targets[{axis}]", "target")) from None


@overload
def data_balance(table: T, targets: Any, **options: Unpack[_Options]) -> BalanceResult[T]: ...
@overload
def data_balance(table: Scores[Any], targets: Any, **options: Unpack[_Options]) -> BalanceResult[Any]: ...
@overload
def data_balance(table: ArrayLike, targets: Any, **options: Unpack[_Options]) -> BalanceResult[NDArray[np.float64]]: ...
@overload
def data_balance(table: sparray | spmatrix, targets: Any, **options: Unpack[_Options]) -> BalanceResult[csr_array]: ...
def data_balance(
    table: Any,
    targets: Any,
    *,
    steps: int | None = None,
    tol: float | None = None,
    max_steps: int = 10_000,
    first: int = 0,
    keep_iterates: bool = False,
) -> BalanceResult[Any]:
    r"""Balance a table: match its marginals to the targets in turn.

    With :math:`R^{(0)}` the normalized table and a the axis of half-step k,

    .. math:: R^{(k)} = R^{(k-1)} \, T_a / R^{(k-1)}_a , \qquad k = 1, 2, \ldots

    Known as iterative proportional fitting, raking, RAS, matrix scaling and Sinkhorn's algorithm. `steps`
    counts half-steps; a full sweep is one per axis with a target.

    Parameters
    ----------
    table : array_like, Tensor, SciPy sparse array, DataFrame, Records or Scores
        Masses or counts, finite and >= 0; of `Scores` their logarithms. Zeros are legal and stay zero. Not modified,
        nor, if it is an array of doubles, copied. The last ``len(targets)`` axes of an array are balanced; earlier axes
        are a stack of tables. A half-step costs as much as there are cells: of a sparse table those that are stored, of
        `Records` the records.
    targets : sequence, one for each balanced axis
        Masses >= 0 with one common total, which is normalized to 1: a vector, or a mapping or Series from label to
        mass, which is aligned with the labels of the table (without labels, with the codes 0, 1, ...); for a stack also
        an array (..., n) with a vector for each table. None leaves an axis free. For `Records` with named columns also
        a mapping from names, or tuples of names for a margin on several columns, to targets.
    steps : int, optional
        Number of half-steps, exactly those of the formula. Not together with `tol`.
    tol : float, optional
        Stop once the total variation distance of every marginal from its target is at most `tol`; if neither is given
        1e-9, or for tensors of less precision what rounding leaves. With two targets, half-steps may be over-relaxed
        on the way, except with `keep_iterates`.
    max_steps : int
        Most half-steps tried for `tol`.
    first : int
        The axis of the first half-step; the next one with a target if that axis is free.
    keep_iterates : bool
        Keep every table on the way: (steps + 1) times the memory of the table.

    Returns
    -------
    BalanceResult
        Not reaching `tol` is reported there (`converged`, `reason`, `message`) and warned of. In a stack, a table in
        which a value with a target was not seen keeps its start and is flagged (`complete`).

    Raises
    ------
    ValueError
        If an entry is negative or not finite, a shape does not fit, labels do not match, the totals of the targets
        differ, or a target has mass on an empty row, column or slice of a single table.

    Warns
    -----
    ConvergenceWarning
        If `tol` is not reached.

    References
    ----------
    Liu, Mehta, Pal, Harchaoui (2024), section 2. Deming, Stephan (1940). Sinkhorn (1967).

    Examples
    --------
    >>> result = data_balance([[1, 1], [1, 3]], ([0.5, 0.5], [0.5, 0.5]), tol=1e-12)
    >>> result.table.round(4).tolist()
    [[0.317, 0.183], [0.183, 0.317]]
    >>> result.converged, result.reason
    (True, 'tolerance')
    >>> data_balance([[1, 1], [1, 3]], ([0.5, 0.5], [0.5, 0.5]), steps=1).table.tolist()
    [[0.25, 0.25], [0.125, 0.375]]
    """
    if steps is not None and tol is not None:
        raise ValueError("give one of steps (a number of half-steps) and tol (an error), not both")
    if steps is not None:
        steps = checks.check_count(steps, "steps")
    max_steps = checks.check_count(max_steps, "max_steps")
    if tol is not None:
        tol = checks.check_number(tol, "tol", 0, 1, "a total variation distance between 0 and 1")
    if not (isinstance(table, Records) and isinstance(targets, Mapping)):
        targets = as_sequence(targets)
    if is_tensor(table) or (isinstance(table, Scores) and is_tensor(table.values)):
        from balance._engine import tensors

        result = tensors.balance(table, targets, steps, tol, max_steps, first, keep_iterates)
        warn_unless_reached(result)
        return result
    if steps is None and tol is None:
        tol = 1e-9
    if _axes(table) > len(targets) >= 2 and not is_frame(table) and not isinstance(table, Records):
        if keep_iterates:
            raise ValueError("keep_iterates: pass one table at a time; the errors of a stack are in `history`")
        first = checks.check_axis(first, len(targets), "first")
        result = of_stack(Stack(table, targets), steps, tol, max_steps, first)
    else:
        result = of_problem(read(table, targets), steps, tol, max_steps, first, keep_iterates)
    warn_unless_reached(result)
    return result


def _axes(table: Any) -> int:
    """Return the number of axes of what was passed, 0 if it is no table."""
    if isinstance(table, Records):
        return len(table.columns)
    values = table.values if isinstance(table, Scores) else table
    if hasattr(values, "ndim"):
        return values.ndim
    try:
        return np.ndim(values)
    except ValueError:
        return 0


def _pair(
    first: ArrayLike, second: ArrayLike, name: str, other: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, q = checks.as_probabilities(first, name), checks.as_probabilities(second, other)
    if p.shape != q.shape:
        raise ValueError(f"{name} has shape {p.shape}, {other} has shape {q.shape}")
    return p, q
