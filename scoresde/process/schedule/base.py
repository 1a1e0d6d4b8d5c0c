"""What is a clock? A map with an inverse and a rate, its ends, and the chain of DDPM that stands on it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import as_time
from scoresde.process import ou

__all__ = ["Schedule"]


class Schedule(ABC):
    """A clock. Subclasses give `_tau`, `_u` and `_rate` for a float or a tensor, written with `_tensor`'s functions."""

    @abstractmethod
    def _tau(self, u: Scalar) -> Scalar: ...

    @abstractmethod
    def _u(self, tau: Scalar) -> Scalar: ...

    @abstractmethod
    def _rate(self, u: Scalar) -> Scalar: ...

    def tau(self, u: Scalar) -> Scalar:
        """OU time at clock ``u`` in [0, 1]; a number or a tensor of shape ``()`` or ``(B,)``, returned as the same.

        Raises:
            ValueError: If ``u`` is NaN or outside [0, 1].
        """
        return self._tau(as_time(u, "u", high=1.0))

    def u(self, tau: Scalar) -> Scalar:
        """Clock at OU time ``tau``, the inverse of `tau`.

        Raises:
            ValueError: If ``tau`` is NaN or outside the clock's range.
        """
        slack = 1e-6  # a float32 copy of an end of the clock is still that end
        low, high = self.tau_start * (1 - slack), self.tau_max * (1 + slack)
        return ew.clamp(self._u(as_time(tau, low=low, high=high)), 0.0, 1.0)

    def rate(self, u: Scalar) -> Scalar:
        r"""$d\tau/du$ at clock ``u``; Song's $\beta(t)$ is twice this."""
        return self._rate(as_time(u, "u", high=1.0))

    @cached_property
    def tau_start(self) -> float:
        """OU time at u = 0: 0, or more for clocks that begin on noised data."""
        return float(self._tau(0.0))

    @cached_property
    def tau_max(self) -> float:
        """OU time at u = 1; infinite for clocks with zero terminal signal-to-noise."""
        return float(self._tau(1.0))

    def knots(self, steps: int) -> list[float]:
        """The DDPM chain's times [τ_0 = 0, τ_1, …, τ_K], with τ_k = tau(k / steps).

        Raises:
            ValueError: If ``steps`` is not a positive integer.
        """
        check_integer("steps", steps)
        return [0.0, *(float(self._tau(k / steps)) for k in range(1, steps + 1))]

    def to_betas(self, steps: int) -> list[float]:
        """The chain's step variances [β_1, …, β_K].

        Raises:
            ValueError: If ``steps`` is not a positive integer, or so large that a step is none in double precision.
        """
        knots = self.knots(steps)
        betas = [float(ou.beta(tau, s)) for s, tau in zip(knots, knots[1:], strict=False)]
        if not min(betas) > 0:
            raise ValueError(
                f"every step must advance the clock, but {self} stands still at k = {1 + betas.index(min(betas))} of "
                f"{steps}; take fewer steps, or a clock that is less steep elsewhere."
            )
        return betas


def positive(**values: float) -> None:
    """Refuses a setting that is not a positive finite number."""
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive finite number, got {value!r}.")


def increasing(low_name: str, low: float, high_name: str, high: float) -> None:
    """Refuses two settings that are not finite, the first below the second."""
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{low_name} must be below {high_name}, both finite, got {low!r} and {high!r}.")
