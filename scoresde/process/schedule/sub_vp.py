r"""Sub-VP clock over a VP clock $\tau_0(u)$: $\tau = \tfrac12\log(1 + 4\sinh^2\tau_0)$."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde.process.schedule.base import Schedule
from scoresde.process.schedule.vp import LinearVP

__all__ = ["SubVPClock"]


@dataclass(frozen=True)
class SubVPClock(Schedule):
    r"""The sub-VP clock over a VP clock: $\tau = \tfrac12\log(1 + 4\sinh^2\tau_0)$ with $\tau_0$ from ``inner``.

    Args:
        inner: The VP clock $\tau_0(u)$, which must end at a finite time.

    Raises:
        TypeError: If ``inner`` is not a `Schedule`.
        ValueError: If ``inner`` ends at an infinite time.

    Source: Song et al. 2021, eq. 29 ($\tilde\alpha = e^{-\tau_0}$, $\tilde\sigma = 1 - e^{-2\tau_0}$).
    """

    inner: Schedule = LinearVP()

    def __post_init__(self) -> None:
        check_kind("inner", self.inner, Schedule)
        if self.inner.tau_max == math.inf:
            raise ValueError("the inner clock must end at a finite tau, got infinity; use a clipped clock.")

    def _tau(self, u: Scalar) -> Scalar:
        ratio = 2.0 * ew.sinh(self.inner._tau(u))  # sigma over alpha
        return 0.5 * ew.log1p(ratio * ratio)

    def _u(self, tau: Scalar) -> Scalar:
        return self.inner._u(ew.asinh(0.5 * ew.sqrt(ew.expm1(2.0 * tau))))

    def _rate(self, u: Scalar) -> Scalar:
        inner_tau = self.inner._tau(u)
        ratio = 2.0 * ew.sinh(inner_tau)
        return 2.0 * ew.sinh(2.0 * inner_tau) / (1.0 + ratio * ratio) * self.inner._rate(u)
