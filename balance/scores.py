"""Scores, as an input of `balance.data_balance`: logarithms of masses, which never underflow."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Scores(Generic[S]):
    r"""Logarithms S of masses: the table is :math:`e^S / \sum e^S`, and the balanced table is given as logarithms.

    Parameters
    ----------
    values : array_like or Tensor, shape (..., n_1, ..., n_d)
        Up to a constant; -inf is an empty cell. Not copied.

    Examples
    --------
    >>> from balance import data_balance
    >>> result = data_balance(Scores([[0.0, -2000.0], [-2000.0, 5.0]]), ([0.5, 0.5], [0.5, 0.5]), steps=1)
    >>> result.table.round(4).tolist()
    [[-0.6931, -2000.6931], [-2005.6931, -0.6931]]
    """

    values: S = field(repr=False)
