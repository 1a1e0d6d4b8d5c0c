r"""Base class of clocks $\tau(u)$: inverse $u(\tau)$, rate $d\tau/du$, end points, and the DDPM chain at $u = k/K$."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import as_time
from scoresde.process import ou

__all__ = ["Schedule"]


class Schedule(CheckedArguments, ABC):
    """A clock. Subclasses define ``_tau``, ``_u`` and ``_rate`` for floats and tensors, with ``_core.elementwise``."""

    @abstractmethod
    def _tau(self, u: Scalar) -> Scalar: ...

    @abstractmethod
    def _u(self, tau: Scalar) -> Scalar: ...

    @abstractmethod
    def _rate(self, u: Scalar) -> Scalar: ...

    def tau(self, u: Scalar) -> Scalar:
        """OU time at clock value ``u`` in [0, 1]; a number or a tensor of shape ``()`` or ``(B,)``, same kind returned.

        Raises:
            ValueError: If ``u`` is NaN or outside [0, 1].
        """
        return self._tau(as_time(u, "u", high=1.0))

    def u(self, tau: Scalar) -> Scalar:
        """Clock value at OU time ``tau``, the inverse of `tau`.

        Raises:
            ValueError: If ``tau`` is NaN or outside the range of the clock.
        """
        tolerance = 1e-6  # accepts end points of the clock that were rounded to float32
        low, high = self.tau_start * (1 - tolerance), self.tau_max * (1 + tolerance)
        return ew.clamp(self._u(as_time(tau, low=low, high=high)), 0.0, 1.0)

    def rate(self, u: Scalar) -> Scalar:
        r"""Rate $d\tau/du$ at clock value ``u``; Song's $\beta(t)$ is twice this."""
        return self._rate(as_time(u, "u", high=1.0))

    @cached_property
    def tau_start(self) -> float:
        """OU time at u = 0; positive for clocks that begin at noised data."""
        return float(self._tau(0.0))

    @cached_property
    def tau_max(self) -> float:
        """OU time at u = 1; infinite for clocks with zero terminal signal-to-noise ratio."""
        return float(self._tau(1.0))

    def knots(self, steps: int) -> list[float]:
        """OU times [τ_0 = 0, τ_1, …, τ_K] of the DDPM chain, with τ_k = tau(k / steps).

        Raises:
            ValueError: If ``steps`` is not a positive integer.
        """
        check_integer("steps", steps)
        return [0.0, *(float(self._tau(k / steps)) for k in range(1, steps + 1))]

    def to_betas(self, steps: int) -> list[float]:
        """Step variances [β_1, …, β_K] of the DDPM chain.

        Raises:
            ValueError: If ``steps`` is not a positive integer, or so large that a step rounds to 0 in double precision.
        """
        knots = self.knots(steps)
        betas = [float(ou.beta(tau, s)) for s, tau in zip(knots, knots[1:], strict=False)]
        if not min(betas) > 0:
            raise ValueError(
                f"every step must advance the clock, but {self} does not advance at k = "
                f"{1 + betas.index(min(betas))} of {steps}; take fewer steps, or a clock that is less steep elsewhere."
            )
        return betas
