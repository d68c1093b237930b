"""What is known about the error of a balanced estimate, in one table (chapter 5 of the book)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["ErrorReport"]


class Bound(Protocol):
    """A bound on a root mean squared error, such as `balance.bounds.ErrorBound`."""

    @property
    def rmse(self) -> float: ...
    @property
    def oscillation(self) -> float: ...
    @property
    def vacuous(self) -> bool: ...


@dataclass(frozen=True)
class ErrorReport:
    """What is known about the error of a balanced estimate, from `error_report`. Printed, it is a table.

    All errors are root mean squared errors.

    Attributes
    ----------
    n, steps : int
        Number of observations and of half-steps.
    exact : bool
        Whether the error was computed as a sum over all count tables.
    error : float
        Exact, or simulated.
    standard_error : float
        Of `error`; 0 if it is exact.
    plain : float
        Error of the plain estimate P_n(h), sigma_0 / sqrt(n), exact at every n.
    first_order : float
        sigma_k / sqrt(n).
    expanded : float or None
        Root of sigma_k^2 / n + c_k / n^2; None for a table, or a number of half-steps, that is too large for
        `remainder_constant`, and where that sum is negative, as it can be when n is small.
    bounds : dict of str to `balance.bounds.ErrorBound`
        The bounds of this module, by the name of their function; `contraction_bound` only for a table without zeros.
    expected_least : float
        n p_*: the expected number of observations of the rarest value of X or Y.
    """

    n: int
    steps: int
    exact: bool
    error: float
    standard_error: float
    plain: float
    first_order: float
    expanded: float | None
    bounds: Mapping[str, Bound] = field(repr=False)
    expected_least: float

    @property
    def proved(self) -> float:
        """The smallest of the bounds, and of the oscillation of h, which needs no proof."""
        return min(min(b.rmse, b.oscillation) for b in self.bounds.values())

    @property
    def trust(self) -> str:
        """Which number to use, and why."""
        if self.exact:
            return "the exact error: every count table was enumerated"
        coarse = ""
        if self.standard_error > 0.05 * self.error:
            coarse = "; the simulation is coarse: pass more draws"
        if self.expanded is None:
            return f"the simulated error; the expansion is not available{coarse}"
        if abs(self.expanded - self.error) > 2 * self.standard_error + 0.01 * self.error:
            rare = f": the rarest value is expected {self.expected_least:.3g} times" if self.expected_least < 20 else ""
            return f"the simulated error; the expansion does not describe this n{rare}{coarse}"
        return f"the expansion: the simulation agrees with it within two standard errors and one percent{coarse}"

    def __str__(self) -> str:
        how = "exact" if self.exact else f"simulated, standard error {self.standard_error:.2g}"
        rows = [
            (how, self.error),
            ("plain estimate, no half-step", self.plain),
            ("first order, sigma_k / sqrt(n)", self.first_order),
            ("expanded to second order", self.expanded),
            *((f"proved: {name}", None if b.vacuous else b.rmse) for name, b in self.bounds.items()),
        ]
        plural = "" if self.steps == 1 else "s"
        lines = [f"Root mean squared error, n = {self.n:,}, {self.steps} half-step{plural}"]
        for name, value in rows:
            said = "says nothing here" if name.startswith("proved") else "not available"
            lines.append(f"  {name:42} {said if value is None else format(value, '.6g')}")
        return "\n".join([*lines, f"Use {self.trust}."])
