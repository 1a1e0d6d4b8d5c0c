r"""Forward processes: the OU process $dx = -x\,d\tau + \sqrt2\,dW$ on a clock, and its views VP, VE, sub-VP and flow.

Its kernel is $x_\tau = \alpha x_0 + \sigma\varepsilon$, with the scalars of `scoresde.process.ou`. Variance exploding,
sub-VP and the straight flow path are this process under a scale, $\tilde x = c(\tau)\,x$. Networks, losses and
samplers work in x and do not depend on the view.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_event_shape, check_tensor
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, combine, expand, sum_event
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.schedule import GeometricSigma, LinearVP, Schedule, StraightPath, SubVPClock

__all__ = ["SDE", "VE", "VPSDE", "Flow", "SubVP"]


@dataclass(frozen=True)
class SDE(Process, ABC):
    """The OU process on a clock. Subclasses are views: they set the default clock, the scale and the prior.

    Args:
        schedule: The clock.
        tau_min: OU time at which continuous solvers stop and training begins; the only cut-off of the library. At the
            default 1e-5 the remaining noise is σ = 4.5e-3.

    Raises:
        TypeError: If ``schedule`` is not a `Schedule`.
        ValueError: If ``tau_min`` is not positive or not inside the clock.
    """

    diffusion: ClassVar[float] = math.sqrt(2.0)
    r"""Forward diffusion coefficient $\sqrt2$ per square root of $\tau$."""

    schedule: Schedule = LinearVP()
    tau_min: float = 1e-5

    def __post_init__(self) -> None:
        self._check_clock()

    @abstractmethod
    def scale(self, tau: Scalar) -> Scalar:
        r"""Factor c(τ) of the view, $\tilde x = c(\tau)\,x$; a float or of the shape of ``tau``."""

    @property
    @abstractmethod
    def prior_std(self) -> float:
        """Standard deviation, in x, of the prior, from which sampling starts at the end of the clock."""

    def draw_noise(self, like: Tensor, noise: Noise) -> Tensor:
        return noise.normal(like)

    def noise_free(self, x0: Tensor, tau: Scalar) -> Tensor:
        return expand(ou.alpha(tau), x0) * x0

    def perturb(self, x0: Tensor, tau: Scalar, noise: Tensor) -> Tensor:
        r"""The noised state $x_\tau = \alpha x_0 + \sigma\varepsilon$; at ``tau`` = 0 the data.

        Args:
            x0: Data, ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            noise: Unit normal noise ε, shape of ``x0``.

        Returns:
            The state in x, not in the coordinates of the view, ``(B, *D)``.

        Raises:
            TypeError: If ``x0`` is not floating.
            ValueError: If the shapes differ or ``tau`` is negative, NaN or past the end of the clock.
        """
        check_tensor("x0", x0)
        check_tensor("noise", noise)
        if not x0.is_floating_point():
            raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first.")
        if x0.shape != noise.shape:
            raise ValueError(f"noise must have the shape of x0, {tuple(x0.shape)}, got {tuple(noise.shape)}.")
        if x0.device != noise.device:
            raise ValueError(f"noise must be on the device of x0, {x0.device}, got {noise.device}; move one.")
        tau = as_time(tau, high=self.tau_max * (1 + 1e-6))
        return combine(ou.alpha(tau), x0, ou.sigma(tau), noise)

    def drift(self, x: Tensor) -> Tensor:
        r"""Forward drift $-x$ per unit of $\tau$."""
        check_tensor("x", x)
        return -x

    def posterior(self, x: Tensor, x0: Tensor, tau: Scalar, s: Scalar) -> tuple[Tensor, Scalar]:
        r"""$q(x_s \mid x_\tau, x_0)$: mean $\tilde\mu$ and variance $\tilde\beta$.

        $\tilde\mu = \frac{e^{-s}\beta}{\sigma_\tau^2}x_0 + \frac{e^{-\Delta}\sigma_s^2}{\sigma_\tau^2}x$ and
        $\tilde\beta = \beta\,\sigma_s^2/\sigma_\tau^2$, with $\Delta = \tau - s$.

        Args:
            x, x0: State at ``tau`` and data, ``(B, *D)``.
            tau, s: Numbers or ``(B,)`` with ``0 <= s < tau``.

        Returns:
            Mean, ``(B, *D)``, and variance, shape of ``tau``.

        Raises:
            ValueError: If the shapes differ, ``tau`` is past the end of the clock, or ``s`` is not below ``tau``. The
                values of tensors are checked on the CPU only.

        Source: Ho, Jain & Abbeel 2020, eq. 7, with $\sqrt{\alpha_t} = e^{-\Delta}$.
        """
        check_tensor("x", x)
        check_tensor("x0", x0)
        if x.device != x0.device:
            raise ValueError(f"x0 must be on the device of x, {x.device}, got {x0.device}; move one.")
        if x.shape != x0.shape:
            raise ValueError(f"x0 must have the shape of x, {tuple(x.shape)}, got {tuple(x0.shape)}.")
        tau, s = check_step(as_time(tau, high=self.tau_max * (1 + 1e-6)), s)
        x0_factor, x_factor, variance = posterior_coefficients(tau, s)
        return combine(x0_factor, x0, x_factor, x), variance

    def prior(self, like: Tensor, noise: Noise, tau: float | None = None) -> Tensor:
        """Initial states of sampling, in x.

        Args:
            like: Shape, type and device, ``(B, *D)``.
            noise: Source of randomness.
            tau: OU time of the start; default the end of the clock.

        Returns:
            Draws from the prior of the view at the end of the clock, from N(0, I) at any earlier time. ``(B, *D)``.
        """
        z = noise.normal(like)
        return z if tau is not None and tau < self.tau_max else self.prior_std * z

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Log-density in x of the prior at the end of the clock, nats. ``(B, *D)`` -> ``(B,)`` float64."""
        check_event_shape(z, None, "z")
        std = self.prior_std
        size = z[0].numel() if len(z) else 1
        return -0.5 * sum_event(z * z) / std**2 - size * (math.log(std) + 0.5 * math.log(2 * math.pi))


def posterior_coefficients(tau: Scalar, s: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    r"""Factors of x_0 and of x in $\tilde\mu$, and $\tilde\beta$; see `SDE.posterior`. Does not check its arguments."""
    beta, var, var_s = ou.beta(tau, s), ou.beta(tau, 0.0), ou.beta(s, 0.0)
    return ou.alpha(s) * beta / var, ou.alpha(tau - s) * var_s / var, beta * var_s / var


def check_step(tau: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """Two checked times with ``0 <= s < tau``.

    Raises:
        ValueError: If ``s`` is not below ``tau``. The values of tensors are checked on the CPU only.
    """
    tau, s = as_time(tau), as_time(s, "s")
    readable = not any(isinstance(v, Tensor) and v.device.type != "cpu" for v in (tau, s))
    if readable and bool(torch.as_tensor(s >= tau).any()):
        raise ValueError(f"s must be below tau, got s = {s} and tau = {tau}; a reverse step decreases tau.")
    return tau, s


@dataclass(frozen=True)
class VPSDE(SDE):
    """Variance preserving: the OU process without a scale, c = 1, with prior N(0, I). The fields are those of `SDE`.

    Example:
        >>> from scoresde import Cosine, VPSDE
        >>> sde = VPSDE(Cosine(), tau_min=1e-4)
        >>> round(float(sde.schedule.tau(0.5)), 4), sde.tau_min
        (0.3528, 0.0001)
    """

    prior_std: ClassVar[float] = 1.0

    def scale(self, tau: Scalar) -> Scalar:
        return 0.0 * tau + 1.0


@dataclass(frozen=True)
class VE(SDE):
    r"""Variance exploding: $\tilde x = x_0 + \tilde\sigma\varepsilon$, so $c = e^\tau$.

    The prior is $N(0, \tilde\sigma_{max}^2)$ in $\tilde x$. Sampling ends at ``tau_min``, where
    $\tilde\sigma^2 = e^{2\tau} - 1$. At the default 1e-4 the remaining noise is $\tilde\sigma = 0.014$, even if the
    clock begins at a smaller $\tilde\sigma$.

    Source: Song et al. 2021, section 3.4.
    """

    schedule: Schedule = GeometricSigma()
    tau_min: float = 1e-4

    def scale(self, tau: Scalar) -> Scalar:
        return ew.exp(tau)

    @property
    def prior_std(self) -> float:
        return float(ou.sigma(self.tau_max))  # σ̃_max / √(1 + σ̃_max²)


@dataclass(frozen=True)
class SubVP(SDE):
    r"""Sub-VP: $\tilde\alpha = e^{-\tau_0}$ and $\tilde\sigma = 1 - e^{-2\tau_0}$ on a VP clock $\tau_0$.

    The prior is N(0, I) in $\tilde x$.

    Source: Song et al. 2021, section 3.4.
    """

    schedule: Schedule = SubVPClock()

    def scale(self, tau: Scalar) -> Scalar:
        r"""Factor $e^{\tau - \tau_0}$ of the view, with $2\sinh\tau_0 = \sqrt{e^{2\tau} - 1}$."""
        return ew.exp(tau - ew.asinh(0.5 * ew.sqrt(ew.expm1(2.0 * tau))))

    @property
    def prior_std(self) -> float:
        return 1.0 / float(self.scale(self.tau_max))


@dataclass(frozen=True)
class Flow(SDE):
    r"""The straight path of flow matching: $\tilde x = (1 - u)x_0 + u\varepsilon$; the prior is N(0, I) in $\tilde x$.

    Its clock ends without signal, where only `V`, `Velocity`, `X0` and `PosteriorMean` determine x_0.

    Source: Lipman et al. 2023.
    """

    schedule: Schedule = StraightPath()

    def scale(self, tau: Scalar) -> Scalar:
        r"""Factor $e^\tau/(1 + \sqrt{e^{2\tau} - 1}) = 1/(\alpha + \sigma)$ of the view."""
        return 1.0 / (ou.alpha(tau) + ou.sigma(tau))

    @property
    def prior_std(self) -> float:
        return 1.0 / float(self.scale(self.tau_max))
