"""The mean squared error of a balanced estimate to second order in 1/n (chapter 5 of the book).

P is the joint law of (X, Y), an m x l table; n is the number of observations; the estimate is that of the paper,
P_n^(k)(h) on the event S that every row and every column was seen and P_n(h) off it. The expansion holds uniformly
in the number k of half-steps (Theorem 5.28 of the book).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from balance._engine import checks
from balance.variance import balanced_variances, influence_functions

__all__ = ["Expansion", "expansion", "remainder_constant"]

# A table stands for each cell of the support: so many numbers are 40 MB, and a dozen such arrays are held.
_MOST_NUMBERS = 5_000_000
# Half-steps times numbers (a half-step takes no less than for a few thousand): about a minute.
_MOST_WORK = 4 * 10**8
_LEAST_WORK = 3000


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

    def mse(self, n: float) -> NDArray[np.float64]:
        """Expanded mean squared error, shape (steps + 1,). It can be negative where n is small."""
        if not n > 0:
            raise ValueError(f"n = {n}: pass a number of observations > 0")
        n = float(n)
        return self.variances / n + self.constants / n**2

    def best_steps(self, n: int, *, within: float = 0.0) -> int:
        r"""Smallest number of half-steps whose expanded mean squared error is as good as the best, or nearly so.

        Parameters
        ----------
        n : int
            Number of observations.
        within : float
            What may be lost against the smallest expanded error, >= 0, in units of the error
            :math:`\sigma_0^2 / n` of the plain estimate. These units make sense also where balancing can remove
            all of the first-order error.

        Returns
        -------
        int
            Between 0 and the largest number of half-steps expanded.

        Raises
        ------
        ValueError
            If `within` is negative or n is not positive.

        Examples
        --------
        >>> law, h = [[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]]
        >>> part = expansion(law, h, steps=12)
        >>> part.best_steps(10_000), part.best_steps(10_000, within=0.01)
        (11, 1)
        """
        if not within >= 0:
            raise ValueError(f"within = {within}: pass a share >= 0 of the error of the plain estimate")
        mse = self.mse(n)
        return int(np.argmax(mse <= mse.min() + within * self.variances[0] / n))


def expansion(table: ArrayLike, h: ArrayLike, steps: int, *, first: int = 0) -> Expansion:
    r"""Expand the mean squared error to order :math:`n^{-2}`, for every number of half-steps up to `steps`.

    Parameters
    ----------
    table, h, steps, first
        As in `exact_mse`.

    Returns
    -------
    Expansion

    Raises
    ------
    ValueError
        If an input is out of range, or the table has too many cells (of the support, times all: 5 million) or there
        are too many half-steps for a minute's work.

    References
    ----------
    Theorems 5.3 and 5.28 of the book.

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
    _check_size(joint, steps, steps * (steps + 1) // 2)
    functions = influence_functions(joint, h, steps)
    orders = [_second_order(joint, _sequence(functions, k, first)) for k in range(steps + 1)]
    return Expansion(balanced_variances(joint, h, steps, first), *np.array(orders).T)


def remainder_constant(table: ArrayLike, h: ArrayLike, steps: int, *, first: int = 0) -> float:
    r"""The constant :math:`c_k = \lim n^2 (\mathrm{MSE}_k - \sigma_k^2 / n)` (Theorem 5.3 of the book).

    Parameters
    ----------
    table, h, first
        As in `exact_mse`.
    steps : int
        Number k of half-steps.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        As `expansion`, whose work grows with the square of the number of half-steps. That of one constant grows with
        the number.

    References
    ----------
    Theorem 5.3 of the book.

    Examples
    --------
    >>> round(remainder_constant([[0.3, 0.1], [0.15, 0.45]], [[1, -2], [0.5, 3]], steps=1), 6)
    1.48125
    """
    joint, h = checks.as_law(table, h)
    steps, first = checks.check_count(steps, "steps"), checks.check_axis(first, 2, "first")
    _check_size(joint, steps, steps)
    return _second_order(joint, _sequence(influence_functions(joint, h, steps), steps, first))[0]


def _check_size(joint, steps, half_steps):
    """Raise if the tables of all cells are too large, or too many to be taken through so many half-steps in all."""
    numbers = np.count_nonzero(joint) * joint.size
    if numbers > _MOST_NUMBERS:
        raise ValueError(
            f"a table of {joint.size:,} cells, {np.count_nonzero(joint):,} of them positive, is too large for the"
            f" expansion: the product may be at most {_MOST_NUMBERS:,}; use simulated_mse"
        )
    if half_steps * max(numbers, _LEAST_WORK) > _MOST_WORK:
        raise ValueError(
            f"steps = {steps}: the expansion would take minutes for this table; pass fewer half-steps, or ask"
            " remainder_constant for one number of them"
        )


def _sequence(functions, steps, first):
    """Return the pairs (g_j, axis of step j), j = 1..steps, with g_j = C_j C_{j+1} ... C_k h."""
    axes = [(first + j) % 2 for j in range(steps)]
    return [(functions[steps - j, axis], axis) for j, axis in enumerate(axes)]


def _terms(joint, functions, directions):
    """Return F_2 and F_3 of each direction (B, m, l), and the matrix of the form F_2 on them."""
    # Lemma 5.2 with (5.5) and (5.6): q1 and q2 are the first and the second order of the table in 1 / sqrt(n)
    q1, q2 = directions, np.zeros_like(directions)
    f2, f3, form = 0.0, 0.0, 0.0
    for g, axis in functions:
        target = joint.sum(axis=1 - axis, keepdims=True)
        a1, a2 = (q.sum(axis=2 - axis, keepdims=True) / target for q in (q1, q2))
        # the factor of the half-step, 1 / (1 + a1 / sqrt(n) + a2 / n), to second order
        r1, r2 = -a1, a1**2 - a2
        b1, b2 = ((q * g).sum(axis=2 - axis, keepdims=True) for q in (q1, q2))
        f2 = f2 + (r1 * b1).sum(axis=(1, 2))
        f3 = f3 + (r2 * b1 + r1 * b2).sum(axis=(1, 2))
        form = form + r1.reshape(len(r1), -1) @ b1.reshape(len(b1), -1).T
        q1, q2 = q1 + r1 * joint, q2 + r1 * q1 + r2 * joint
    return f2, f3, form


def _second_order(joint, functions):
    """Return c_k and the limit of n times the bias."""
    if not functions:
        return 0.0, 0.0
    weights = joint[joint > 0]
    units = np.eye(joint.size).reshape(-1, *joint.shape)[joint.ravel() > 0] - joint
    # the directions U_z = delta_z - P, and psi P, the covariance of psi(Z) with U_Z, in (5.8)
    psi = functions[0][0]
    drift = psi * joint
    f2, _, form = _terms(joint, functions, units)
    bias = weights @ f2
    # F_3 is cubic: at psi P + U and at psi P - U, less twice at psi P, the terms are left in which U stands twice
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
