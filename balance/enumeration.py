"""All tables of n counts, and the exact mean squared error of a balanced estimate (chapter 5 of the book).

A sum over all count tables with their multinomial probabilities is an exact expectation: the check of a bound is
then free of sampling noise. Where there are too many tables, they are drawn.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln

from balance._engine import checks
from balance.batched import balanced_means
from balance.variance import balanced_variances, influence_functions

# Beginnings in one block: some megabytes, and long enough that the loop over cells costs nothing.
_BLOCK = 1 << 17
# An exact sum over more tables would take minutes; up to fewer, a method that may choose takes the exact one.
_MOST_TABLES = 50_000_000
FEW_TABLES = 2_000_000
# Numbers drawn at a time: 8 MB.
_BATCH_NUMBERS = 1 << 20


def number_of_tables(n: int, cells: int) -> int:
    r"""Number of tables with `cells` cells and n counts, :math:`\binom{n + c - 1}{c - 1}`.

    Parameters
    ----------
    n : int
        Sum of the counts, >= 1.
    cells : int
        Number c of cells, >= 1.

    Returns
    -------
    int

    Examples
    --------
    >>> number_of_tables(160, 4)
    708561
    """
    return math.comb(checks.check_count(n, "n", least=1) + cells - 1, cells - 1)


def count_tables(
    n: int, table: ArrayLike, *, cutoff: float = 0.0
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float64]]]:
    r"""Generate, in blocks, every table of n counts that has positive probability.

    .. math:: \Pr(N = c) = n! \prod_z P(z)^{c(z)} / c(z)!

    The cells are filled one after the other: given the cells before it, a cell is binomial. With a cutoff, a
    beginning whose probability falls below it is dropped with all its continuations. Which counts of the next
    cell can reach it is read off Hoeffding's inequality, so that dropped tables cost nothing.

    Parameters
    ----------
    n : int
        Sum of the counts, >= 1.
    table : array_like, any shape
        The law P: masses >= 0, normalized first. Cells without mass keep count 0.
    cutoff : float
        In [0, 1): 0 generates all tables.

    Yields
    ------
    counts : ndarray of int, shape (B, \*table.shape)
    probabilities : ndarray, shape (B,)
        One minus their sum over all blocks is the probability that was dropped.

    Raises
    ------
    ValueError
        If the table is not one of masses, n < 1 or the cutoff is out of range.

    Examples
    --------
    >>> for counts, probabilities in count_tables(2, [0.5, 0.25, 0.25]):
    ...     print(counts.tolist(), probabilities.round(4).tolist())
    [[0, 0, 2], [0, 1, 1], [0, 2, 0], [1, 0, 1], [1, 1, 0], [2, 0, 0]] [0.0625, 0.125, 0.0625, 0.25, 0.25, 0.25]
    """
    masses = checks.as_masses(table, "table")
    if not 0 <= cutoff < 1:
        raise ValueError(f"cutoff = {cutoff!r}: pass a probability from 0 to below 1")
    support = np.flatnonzero(masses)
    positive = masses.ravel()[support]
    conditional = positive / np.cumsum(positive[::-1])[::-1]
    least = math.log(cutoff) if cutoff else -math.inf
    return _generate(checks.check_count(n, "n", least=1), masses.shape, support, conditional, least)


@dataclass(frozen=True, eq=False)
class MeanSquaredError:
    """Mean squared error of P_n^(k)(h) for k = 0..steps.

    Attributes
    ----------
    n : int
        Number of observations.
    mse : ndarray, shape (steps + 1,)
        Mean squared error after k half-steps.
    biases : ndarray, shape (steps + 1,)
        Mean error after k half-steps.
    variances : ndarray, shape (steps + 1,)
        First-order variances sigma_k^2.
    standard_errors : ndarray, shape (steps + 1,)
        Of `mse`; 0 if they are exact.
    tables : int
        Number of count tables that were balanced.
    dropped : float
        Probability of the count tables left out of an enumeration with a cutoff: `mse` is too small by at
        most `dropped` times the squared oscillation of h.
    """

    n: int
    mse: NDArray[np.float64]
    biases: NDArray[np.float64] = field(repr=False)
    variances: NDArray[np.float64] = field(repr=False)
    standard_errors: NDArray[np.float64] = field(repr=False)
    tables: int
    dropped: float

    @property
    def remainders(self) -> NDArray[np.float64]:
        r"""Scaled remainders :math:`n^2 (\mathrm{MSE}_k - \sigma_k^2 / n)`, shape (steps + 1,)."""
        return self.n**2 * (self.mse - self.variances / self.n)


def exact_mse(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0, cutoff: float = 0.0
) -> MeanSquaredError:
    r"""Mean squared error by enumeration: a sum over all count tables with their multinomial probabilities.

    .. math:: \mathrm{MSE}_k = \sum_c \Pr(N = c) \bigl( P_c^{(k)}(h) - P(h) \bigr)^2, \qquad P_c^{(0)} = c / n

    Parameters
    ----------
    table : array_like, shape (m, l)
        Masses or counts P, finite and >= 0, no row or column empty; normalized first.
    h : array_like, shape (m, l), (m, 1) or (1, l)
        Values of the test function.
    n : int
        Number of observations, >= 1.
    steps : int
        Largest number of half-steps, >= 0.
    first : {0, 1}
        Axis of the first half-step.
    cutoff : float
        As in `balance.enumeration.count_tables`: 0 sums over all tables.

    Returns
    -------
    MeanSquaredError

    Raises
    ------
    ValueError
        If an input is out of range or there are more than 50 million tables to balance.

    Examples
    --------
    >>> result = exact_mse([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=20, steps=2)
    >>> result.remainders[1:].round(3).tolist()
    [1.861, 4.04]
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    cells = int(np.count_nonzero(joint))
    if not cutoff and number_of_tables(n, cells) > _MOST_TABLES:
        raise ValueError(
            f"n = {n}: {number_of_tables(n, cells):,} count tables are too many; pass a cutoff such as 1e-20,"
            " or use simulated_mse"
        )
    targets, truth = (joint.sum(axis=1), joint.sum(axis=0)), np.sum(joint * h)
    total, tables, mass = np.zeros((2, steps + 1)), 0, 0.0
    for counts, probabilities in count_tables(n, joint, cutoff=cutoff):
        tables += len(counts)
        if tables > _MOST_TABLES:
            raise ValueError(f"more than {_MOST_TABLES:,} count tables: raise the cutoff or use simulated_mse")
        errors = balanced_means(counts, h, targets, steps=steps, first=first).values - truth
        total += probabilities @ errors, probabilities @ errors**2
        mass += probabilities.sum()
    variances = balanced_variances(joint, h, steps, first)
    dropped = max(1 - mass, 0.0) if cutoff else 0.0
    return MeanSquaredError(n, total[1], total[0], variances, np.zeros(steps + 1), tables, dropped)


def simulated_mse(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0, draws: int = 100_000, seed: int = 0
) -> MeanSquaredError:
    r"""Mean squared error by simulation, with standard errors.

    The first-order error :math:`(P_n - P)(C_1 \cdots C_k h)` is a control variate: its mean square
    :math:`\sigma_k^2 / n` is known, so only the difference of the squares is averaged.

    Parameters
    ----------
    table, h, n, steps, first
        As in `exact_mse`.
    draws : int
        Number of tables drawn, at least 2.
    seed : int
        Seed of the generator.

    Returns
    -------
    MeanSquaredError

    Examples
    --------
    >>> result = simulated_mse([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=20, steps=2)
    >>> bool(abs(result.remainders[2] - 4.040) < 4 * 20**2 * result.standard_errors[2])
    True
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    n = checks.check_count(n, "n", least=1)
    targets, truth = (joint.sum(axis=1), joint.sum(axis=0)), np.sum(joint * h)
    influences = influence_functions(joint, h, steps)[:, first].reshape(steps + 1, -1)
    means = influences @ joint.ravel()
    if draws < 2:
        raise ValueError(f"draws = {draws}: a standard error needs at least 2")
    rng = np.random.default_rng(seed)
    sums = np.zeros((3, steps + 1))
    batch = max(1, _BATCH_NUMBERS // joint.size)
    for start in range(0, draws, batch):
        counts = rng.multinomial(n, joint.ravel(), size=min(batch, draws - start))
        first_order = counts @ influences.T / n - means
        tables = counts.reshape(-1, *joint.shape)
        errors = balanced_means(tables, h, targets, steps=steps, first=first).values - truth
        excess = errors**2 - first_order**2
        sums += (errors - first_order).sum(axis=0), excess.sum(axis=0), (excess**2).sum(axis=0)
    bias, excess, square = sums / draws
    variances = balanced_variances(joint, h, steps, first)
    spread = np.sqrt(np.maximum(square - excess**2, 0) / (draws - 1))
    return MeanSquaredError(n, variances / n + excess, bias, variances, spread, draws, 0.0)


def mean_squared_error(
    table: ArrayLike, h: ArrayLike, n: int, steps: int, *, first: int = 0, draws: int = 100_000, seed: int = 0
) -> MeanSquaredError:
    """Mean squared error: exact if there are at most two million count tables, simulated otherwise.

    Parameters
    ----------
    table, h, n, steps, first
        As in `exact_mse`.
    draws, seed
        As in `simulated_mse`.

    Returns
    -------
    MeanSquaredError
        ``standard_errors`` are 0 if it was computed exactly.

    Examples
    --------
    >>> mean_squared_error([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], n=40, steps=1).tables
    12341
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    if number_of_tables(n, int(np.count_nonzero(joint))) <= FEW_TABLES:
        return exact_mse(joint, h, n, steps, first=first)
    return simulated_mse(joint, h, n, steps, first=first, draws=draws, seed=seed)


def _generate(n, shape, support, conditional, least):
    # Depth first, with the beginnings of many tables in one entry of the stack: memory stays that of a few blocks.
    log_factorial = gammaln(np.arange(n + 1) + 1.0)
    stack = [(np.zeros((1, 0), dtype=np.intp), np.array([n], dtype=np.intp), np.zeros(1))]
    while stack:
        begun, left, logs = stack.pop()
        cell = begun.shape[1]
        if cell == len(support) - 1:
            counts = np.zeros((len(left), math.prod(shape)), dtype=np.intp)
            counts[:, support] = np.column_stack([begun, left])
            yield counts.reshape(-1, *shape), np.exp(logs)
            continue
        q = conditional[cell]
        low, high = _window(left, q, logs - least)
        sizes = high - low + 1
        if sizes.sum() > _BLOCK and len(left) > 1:
            # the first half is on top, so that tables come in lexicographic order
            half = len(left) // 2
            stack += [(begun[part], left[part], logs[part]) for part in (np.s_[half:], np.s_[:half])]
            continue
        # each beginning is continued by low, low + 1, ..., high counts in the next cell
        parent = np.repeat(np.arange(len(left)), sizes)
        count = np.arange(len(parent)) - np.repeat(np.cumsum(sizes) - sizes - low, sizes)
        rest = left[parent] - count
        # given the cells before it, a cell is binomial with the counts that are left
        logs = logs[parent] + (
            log_factorial[left[parent]]
            - log_factorial[count]
            - log_factorial[rest]
            + count * math.log(q)
            + rest * math.log1p(-q)
        )
        keep = logs >= least
        stack.append((np.column_stack([begun[parent], count])[keep], rest[keep], logs[keep]))


def _window(left, q, budget):
    """Return the counts outside of which exp(-2 (count - left q)^2 / left) is below exp(-budget)."""
    if np.isinf(budget).any():
        return np.zeros_like(left), left
    reach = np.sqrt(left * budget / 2)
    low = np.ceil(np.maximum(left * q - reach, 0)).astype(np.intp)
    return low, np.floor(np.minimum(left * q + reach, left)).astype(np.intp)
