"""Information projections and data balancing (chapter 2 of the book).

A *half-step* replaces one marginal of a table by its target and keeps the conditionals given that marginal.
It is the information projection of the table on the set of tables with that marginal. `data_balance` cycles
through the axes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import rel_entr

from balance import _scaling
from balance._dense import DenseMasses
from balance._engine import checks
from balance._sparse import RecordMasses, SparseMasses
from balance.records import Records

_ROUNDING = 1e-12

TableLike = ArrayLike | sparse.sparray | sparse.spmatrix | Records
"""Masses: an array with two or more axes, a SciPy sparse table with two, or weighted records."""


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
    q, p = _pair(q, p, "q", "p")
    return float(max(rel_entr(q, p).sum(), 0.0))


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
    p, q = _pair(p, q, "p", "q")
    return float(0.5 * np.abs(p - q).sum())


def marginal(table: TableLike, axis: int) -> NDArray[np.float64]:
    """Marginal of a table: its sum over all axes but one, normalized to total mass 1.

    Parameters
    ----------
    table : array_like or SciPy sparse array with two or more axes, or Records
        Masses or counts, finite and >= 0, not all zero.
    axis : int
        The axis that is kept, counted from 0.

    Returns
    -------
    ndarray, shape (table.shape[axis],)
        For `Records` up to the largest code.

    Raises
    ------
    ValueError
        If an entry of the table is negative or not finite, or the axis does not exist.

    Examples
    --------
    >>> marginal([[3, 1], [1, 5]], 0).tolist()
    [0.4, 0.6]
    """
    start = _read(table)
    return start.sums(checks.check_axis(axis, start.ndim))


def project(table: TableLike, target: ArrayLike, axis: int) -> NDArray[np.float64] | sparse.csr_array | Records:
    r"""Information projection on the tables whose marginal on one axis is the target.

    For axis 0 (an X-step) the result is :math:`R(x, y) P_X(x) / R_X(x)`, for axis 1 (a Y-step)
    :math:`R(x, y) P_Y(y) / R_Y(y)`. It minimizes :math:`\operatorname{KL}(Q \,\|\, R)` over the tables Q
    with that marginal (Theorem 2.2 of the book).

    Parameters
    ----------
    table : array_like or SciPy sparse array with two or more axes, or Records
        Masses or counts R, finite and >= 0; normalized first.
    target : array_like, shape (table.shape[axis],)
        Masses >= 0; normalized first.
    axis : int
        The axis of the target, counted from 0.

    Returns
    -------
    ndarray, csr_array or Records, as the table
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
    start = _read(table)
    axis = checks.check_axis(axis, start.ndim)
    vector = checks.as_masses(target, "target", ndim=1)
    current = start.sums(axis)
    vector = checks.check_target(vector / vector.sum(), current, axis, start.ndim)
    scalings = [np.ones(n) for n in start.shape]
    scalings[axis] = _scaling.safe_divide(vector, current)
    return start.wrap(start.values * start.spread(scalings))


@dataclass(frozen=True, eq=False)
class BalanceResult:
    """Result of `data_balance`.

    Attributes
    ----------
    table : ndarray, csr_array or Records
        The balanced table, total mass 1, of the kind that was passed: dense, sparse, or records with their balanced
        weights.
    potentials : tuple of ndarray, one per axis
        Logarithms of the scaling vectors: ``table = start * outer(exp(potentials))`` with ``start`` the
        normalized input. A value of target 0 has potential -inf.
    targets : tuple of ndarray
        The targets, normalized.
    history : ndarray, shape (steps + 1, axes)
        Total variation distance of each marginal from its target, before and after every half-step.
    steps : int
        Half-steps done.
    converged : bool
        Whether every marginal error is at most `tol` (1e-12 when `steps` was given).
    reason : str
        Why the iteration ended: "tolerance", "steps" (as many as asked for), "max_steps", "stagnation"
        (the error stopped falling above `tol`), "infeasible" (no table with this support has these
        marginals) or "underflow".
    message : str
        The reason in a sentence, with what to do.
    iterates : tuple of tables or None
        The steps + 1 tables, from the normalized input on, if `keep_iterates`.
    """

    table: NDArray[np.float64] | sparse.csr_array | Records = field(repr=False)
    potentials: tuple[NDArray[np.float64], ...] = field(repr=False)
    targets: tuple[NDArray[np.float64], ...] = field(repr=False)
    history: NDArray[np.float64] = field(repr=False)
    steps: int
    converged: bool
    reason: str
    message: str
    iterates: tuple[NDArray[np.float64] | sparse.csr_array | Records, ...] | None = field(repr=False)

    @property
    def errors(self) -> NDArray[np.float64]:
        """Total variation distance of each marginal of the table from its target, shape (axes,)."""
        return self.history[-1]

    @property
    def scalings(self) -> tuple[NDArray[np.float64], ...]:
        """Scaling vectors, one per axis: ``table = start * outer(scalings)``."""
        return tuple(np.exp(p) for p in self.potentials)


def data_balance(
    table: TableLike,
    targets: Sequence[ArrayLike],
    *,
    steps: int | None = None,
    tol: float | None = None,
    max_steps: int = 10_000,
    first: int = 0,
    keep_iterates: bool = False,
) -> BalanceResult:
    r"""Balance a table: match its marginals to the targets in turn.

    With :math:`R^{(0)}` the normalized table and a the axis of half-step k,

    .. math:: R^{(k)} = R^{(k-1)} \, T_a / R^{(k-1)}_a , \qquad k = 1, 2, \ldots

    Known as iterative proportional fitting, raking, RAS, matrix scaling and Sinkhorn's algorithm. `steps`
    counts half-steps; a full sweep is one per axis.

    Parameters
    ----------
    table : array_like with two or more axes, SciPy sparse array with two, or Records
        Masses or counts, finite and >= 0. Zeros are legal and stay zero. Not modified. A half-step costs as much as
        there are cells: of a sparse table those that are stored, of `Records` the records.
    targets : sequence of array_like, one vector per axis
        Masses >= 0 with one common total, which is normalized to 1.
    steps : int, optional
        Number of half-steps. Exactly one of `steps` and `tol` is given.
    tol : float, optional
        Stop once the total variation distance of every marginal from its target is at most `tol`.
    max_steps : int
        Most half-steps tried for `tol`.
    first : int
        The axis of the first half-step.
    keep_iterates : bool
        Keep every table on the way: (steps + 1) times the memory of the table.

    Returns
    -------
    BalanceResult
        Not reaching `tol` is reported there (`converged`, `reason`, `message`), not raised.

    Raises
    ------
    ValueError
        If an entry is negative or not finite, a shape does not fit, the totals of the targets differ, a
        target has mass on an empty row, column or slice, or not exactly one of `steps` and `tol` is given.

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
    targets = tuple(targets)
    start = _read(table, targets)
    sums = [start.sums(a) for a in range(start.ndim)]
    vectors = checks.as_targets(targets, sums)
    first = checks.check_axis(first, start.ndim, "first")
    if (steps is None) == (tol is None):
        raise ValueError("give exactly one of steps (a number of half-steps) and tol (an error)")
    for name, value in (("steps", steps), ("max_steps", max_steps)):
        if value is not None:
            checks.check_count(value, name)
    if tol is not None and not 0 < tol < 1:
        raise ValueError(f"tol = {tol!r}: pass a total variation distance between 0 and 1")
    state, history, iterates, reason, obstruction = _scaling.run(
        start, sums, vectors, steps, tol, max_steps, first, keep_iterates
    )
    errors = np.array(history)
    return BalanceResult(
        table=start.wrap(state.current()),
        potentials=state.potentials(),
        targets=vectors,
        history=errors,
        steps=len(history) - 1,
        converged=bool(errors[-1].max() <= (_ROUNDING if tol is None else tol)),
        reason=reason,
        message=_message(reason, errors, tol, obstruction),
        iterates=tuple(map(start.wrap, iterates)) if keep_iterates else None,
    )


def _read(table, targets=()) -> _scaling.Masses:
    """Return the normalized masses of a table. The axes of records are as long as their codes and targets need."""
    if isinstance(table, Records):
        known = [np.size(target) for target in targets] + [0] * len(table.codes)
        shape = tuple(max(int(codes.max()) + 1, n) for codes, n in zip(table.codes, known, strict=False))
        weights = checks.normalize(table.weights, checks.locate_entry("weights"))
        return RecordMasses(table.codes, weights, shape)
    if sparse.issparse(table):
        return SparseMasses(checks.as_sparse_table(table))
    return DenseMasses(checks.as_table(table))


def _message(reason, errors, tol, obstruction) -> str:
    worst, done = errors[-1].max(), len(errors) - 1
    text = {
        "tolerance": f"every marginal is within {tol} of its target after {done} half-steps",
        "steps": f"{done} half-steps done as asked; largest marginal error {worst:.3g}",
        "max_steps": f"largest marginal error {worst:.3g} after max_steps = {done} half-steps: convergence"
        " is slow; raise max_steps, or look for cells that must tend to zero",
        "stagnation": f"the largest marginal error stopped falling at {worst:.3g}: raise tol if that is"
        " rounding; otherwise no table with this support has these marginals",
        "infeasible": f"stopped after {done} half-steps at the marginal error {worst:.3g}",
        "underflow": f"a row, column or slice underflowed to zero after {done} half-steps: its entries"
        " are too far apart in size",
    }[reason]
    if obstruction is None:
        return text
    axis, values, reachable, excess = obstruction
    return (
        f"{text}; no table with this support has these marginals: values {values.tolist()} of axis {axis}"
        f" have target mass {excess:.3g} more than the values {reachable.tolist()} of axis {1 - axis}, the"
        " only ones where they are positive; change the targets, merge values, or add mass to an empty cell"
    )


def _pair(first, second, name, other):
    first, second = checks.as_probabilities(first, name), checks.as_probabilities(second, other)
    if first.shape != second.shape:
        raise ValueError(f"{name} has shape {first.shape}, {other} has shape {second.shape}")
    return first, second
