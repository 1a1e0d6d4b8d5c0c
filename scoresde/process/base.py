"""Forward processes in general: a clock, a first usable time, the noised state and the prior.

`scoresde.process.sde` has the Gaussian ones, `scoresde.process.discrete` those of categories, `scoresde.process.mixed`
both in one event.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde.process import ou
from scoresde.process.schedule import Schedule

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Marginal", "Process"]

_TAU_CAP = 40.0  # there alpha < 1e-17, sigma rounds to 1, and 1/alpha² still fits float32


@dataclass(frozen=True)
class Marginal:
    """The kernel of x at one time, or at one time per sample, with the rate of the clock: the argument of a weighting.

    Args:
        tau: OU time, a float or ``(B,)``.
        rate: dτ/du at ``tau``, same shape.
        s: Time of the previous chain step, same shape; None without a chain.
    """

    tau: Scalar
    rate: Scalar
    s: Scalar | None = None

    @property
    def alpha(self) -> Scalar:
        """Signal scale."""
        return ou.alpha(self.tau)

    @property
    def sigma(self) -> Scalar:
        """Noise scale."""
        return ou.sigma(self.tau)

    @property
    def log_snr(self) -> Scalar:
        """Log signal-to-noise ratio, nats."""
        return ou.log_snr(self.tau)

    @property
    def snr(self) -> Scalar:
        """Signal-to-noise ratio α²/σ²."""
        return ew.exp(self.log_snr)

    @property
    def limit(self) -> Marginal:
        """This kernel with τ capped at 40, where all limits for α → 0 are reached; avoids 0 · ∞."""
        s = None if self.s is None else ew.clamp(self.s, high=_TAU_CAP)
        return Marginal(ew.clamp(self.tau, high=_TAU_CAP), self.rate, s)


class Process(CheckedArguments, ABC):
    """A forward process on a clock. Subclasses are frozen dataclasses with the fields ``schedule`` and ``tau_min``.

    Attributes:
        schedule: The clock.
        tau_min: OU time at which continuous solvers stop and training begins; the only cut-off of the library.
    """

    schedule: Schedule
    tau_min: float
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def _check_clock(self) -> None:
        """Checks ``schedule`` and ``tau_min``.

        Raises:
            TypeError: If ``schedule`` is not a `Schedule`.
            ValueError: If the clock contradicts itself, or ``tau_min`` is not positive or not inside it.
        """
        check_kind("schedule", self.schedule, Schedule)
        _check_consistent(self.schedule)
        low, high = self.schedule.tau_start, self.schedule.tau_max
        if not max(low, 0.0) * (1 - 1e-6) <= self.tau_min < high or self.tau_min <= 0:
            raise ValueError(
                f"tau_min must be positive and inside the clock [{low:.4g}, {high:.4g}), got {self.tau_min!r}; "
                "choose a later tau_min or a clock that begins earlier."
            )

    def with_schedule(self, schedule: Schedule) -> Self:
        """The same process on another clock.

        Args:
            schedule: The clock.
        """
        return replace(self, schedule=schedule)

    @property
    def tau_max(self) -> float:
        """OU time at the end of the clock."""
        return self.schedule.tau_max

    @property
    def u_min(self) -> float:
        """Clock value at ``tau_min``; u is uniform on [u_min, 1] in training."""
        return float(self.schedule.u(self.tau_min))

    def marginal(self, u: Scalar, s: Scalar | None = None) -> Marginal:
        """The kernel at clock value ``u``, a number or ``(B,)``; ``s`` is the OU time of the previous chain step."""
        return Marginal(self.schedule.tau(u), self.schedule.rate(u), s)

    def checked_state(self, x: Tensor) -> Tensor:
        """A state as networks take it, floating.

        Raises:
            TypeError: If ``x`` is not floating.
        """
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating tensor, got {x.dtype}; scale the data first (Description.to_model).")
        return x

    def network_input(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """A state in the type of a network's weights, ``(B, *D)``."""
        return x.to(dtype)

    def noise_free(self, x0: Tensor, tau: Scalar) -> Tensor:
        r"""Data at ``tau`` as if no noise had been added: $\alpha x_0$ of numbers, the codes of categories.

        Args:
            x0: Data, ``(B, *D)``; NaN stays NaN.
            tau: OU time, a number or ``(B,)``.

        Raises:
            TypeError: If the process has none; it is one of numbers, or of numbers and categories.
        """
        raise TypeError(f"known entries need a process of numbers, or of numbers and categories, got {self}.")

    @abstractmethod
    def scale(self, tau: Scalar) -> Scalar:
        r"""Factor c(τ) of the view, $\tilde x = c(\tau)\,x$; of the kind of ``tau``. 1 if there is no view."""

    @abstractmethod
    def draw_noise(self, like: Tensor, noise: Noise) -> Tensor:
        """The random numbers that `perturb` takes for a batch, ``(B, *D)``.

        Args:
            like: Shape, type and device, ``(B, *D)``.
            noise: Source of randomness.
        """

    @abstractmethod
    def perturb(self, x0: Tensor, tau: Scalar, noise: Tensor) -> Tensor:
        """The noised state at ``tau``, ``(B, *D)``; at ``tau`` = 0 the data.

        Args:
            x0: Data in model units, ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            noise: From `draw_noise`, shape of ``x0``.
        """

    @abstractmethod
    def prior(self, like: Tensor, noise: Noise, tau: float | None = None) -> Tensor:
        """Initial states of sampling, ``(B, *D)``.

        Args:
            like: Shape, type and device, ``(B, *D)``.
            noise: Source of randomness.
            tau: OU time of the start; default the end of the clock.
        """

    @abstractmethod
    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Log-density or log-probability of the prior, nats. ``(B, *D)`` -> ``(B,)`` float64."""


def _check_consistent(schedule: Schedule) -> None:
    """Checks at u = ½ that the inverse and the rate of a clock are those of its times, up to rounding.

    Raises:
        ValueError: If the clock does not increase, or its functions contradict each other.
    """
    u, step = 0.5, 1e-5
    before, tau, after = (float(schedule.tau(u + shift)) for shift in (-step, 0.0, step))
    if not before <= tau <= after:
        raise ValueError(
            f"a clock must increase, {schedule} has tau = {before:.6g}, {tau:.6g}, {after:.6g} around u = 0.5; correct "
            "_tau."
        )
    rate, inverse = float(schedule.rate(u)), float(schedule.u(tau))
    low, high = sorted(((tau - before) / step, (after - tau) / step))  # they differ at a knot
    rounding = 1e-15 * tau / step
    if not 0.999 * low - rounding <= rate <= 1.001 * high + rounding:
        raise ValueError(
            f"the rate of a clock must be the derivative of its time, {schedule} has the slope {high:.6g} at u = 0.5, "
            f"got {rate:.6g}; correct _rate."
        )
    if abs(inverse - u) * high > 1e-4 * high + rounding:
        raise ValueError(
            f"u(tau) must be the inverse of tau(u), {schedule} has tau = {tau:.6g} at u = 0.5, got u = {inverse:.6g} "
            "there; correct _u."
        )
