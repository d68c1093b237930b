"""Over-relaxation of Sinkhorn's iteration, with the rate that it shows and a way back.

Near the limit the error of a sweep is that of the sweep before times s^2, with s the second singular value of the
limit (chapter 3). A half-step with exponent w > 1 turns s^2 into w - 1 if w = 2 / (1 + sqrt(1 - s^2)): the theory of
successive over-relaxation (Young 1971) at the fixed point; Lehmann, von Renesse, Sambale, Uschmajew (2022). Far from it
there is no guarantee, so that w stays 1 until the observed rate is steady, and becomes 1 again when the error does not
fall: the run goes on from where the over-relaxation began.
"""

from math import ceil, inf, log, sqrt

# Rates of two sweeps that differ by less are a geometric decay; at more the start still shows.
_STEADY = 0.1
# Never nearer to 2, where nothing contracts: reached at s^2 = 0.9999.
_MOST = 1.98
_TRIES = 2
# With more sweeps than this to go, some plain ones are worth it that measure the rate again.
_LONG = 20
# Exponents whose distances to 2 differ by less than this factor are the same.
_SAME = 1.25


class Overrelaxation:
    """The exponent of the half-steps to come, from the errors of the sweeps so far."""

    def __init__(self, tol: float):
        self.tol = tol
        self.exponent = 1.0
        self.failed = self.used = False
        self._errors: list[float] = []
        self._tries = 0
        # the exponent whose rate is being measured again, and whether that has confirmed it
        self._doubted = 0.0
        self._confirmed = False

    def __call__(self) -> float:
        return self.exponent

    def stop(self) -> None:
        """Go on with plain half-steps for good."""
        self.exponent, self._tries = 1.0, _TRIES

    def observe(self, error: float) -> None:
        """Take note of the largest marginal error after a sweep; `failed` says whether it was given up."""
        self.failed = False
        self._errors.append(error)
        if self.exponent != 1:
            self._revise()
        elif self._tries < _TRIES and len(self._errors) >= 4:
            self._begin()

    def _begin(self) -> None:
        third, second, first = self._errors[-3:]
        if not 0 < first < second < third:
            return
        rate, before = first / second, second / third
        left = log(self.tol / first) / log(rate)
        # less than three plain sweeps to go: nothing to win
        if abs(log(rate) / log(before) - 1) < _STEADY and left > 3:
            self._set(rate)

    def _revise(self) -> None:
        # an optimal exponent lets the error rise before it falls: the window grows with 1 / (2 - w)
        window = max(6, ceil(2 / (2 - self.exponent)))
        if len(self._errors) <= window:
            return
        ratio = self._errors[-1] / self._errors[-1 - window] if self._errors[-1 - window] else inf
        if not ratio < 1:
            self.exponent, self._errors, self._tries, self.failed = 1.0, [], self._tries + 1, True
            return
        rate, w = ratio ** (1 / window), self.exponent
        if rate > 1.1 * (w - 1):
            # Young's relation between this rate and s^2, for an exponent below the optimal one
            self._set(max((rate + w - 1) ** 2 / (rate * w**2), 4 * (w - 1) / w**2))
        elif not self._confirmed and log(self.tol / self._errors[-1]) / log(rate) > _LONG:
            # At and above the optimal exponent the rate is w - 1 whatever s is: only plain sweeps tell the two apart.
            self.exponent, self._errors, self._doubted = 1.0, [], w

    def _set(self, squared: float) -> None:
        self.used = True
        self.exponent = min(2 / (1 + sqrt(max(1 - squared, 0))), _MOST)
        self._confirmed = 1 / _SAME < (2 - self.exponent) / (2 - self._doubted) < _SAME
        self._errors = []
