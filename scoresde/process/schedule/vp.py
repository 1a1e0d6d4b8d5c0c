r"""Clocks of variance-preserving diffusion: linear, linear in ᾱ, cosine, log-linear and sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_increasing, check_integer, check_positive
from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule

__all__ = ["Cosine", "LinearAlphaBar", "LinearVP", "LogLinear", "Sigmoid"]


@dataclass(frozen=True)
class LinearVP(Schedule):
    r"""Song's linear VP-SDE, $\tau = \tfrac14u^2(\beta_1 - \beta_0) + \tfrac12u\beta_0$.

    Args:
        beta_min: Song's $\beta_0 = 2\,d\tau/du$ at u = 0.
        beta_max: Song's $\beta_1$ at u = 1.

    Raises:
        ValueError: If a value is not positive and finite, or ``beta_max`` is below ``beta_min``.

    Source: Song et al. 2021 (Score-based generative modeling through SDEs), eq. 32.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(f"beta_max must be at least beta_min, got {self.beta_max!r} < {self.beta_min!r}.")

    def _tau(self, u: Scalar) -> Scalar:
        return u * (0.25 * (self.beta_max - self.beta_min) * u + 0.5 * self.beta_min)

    def _u(self, tau: Scalar) -> Scalar:
        half = 0.5 * self.beta_min
        return 2.0 * tau / (half + ew.sqrt(half * half + (self.beta_max - self.beta_min) * tau))

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * (self.beta_min + (self.beta_max - self.beta_min) * u)


@dataclass(frozen=True)
class LinearAlphaBar(Schedule):
    r"""$\bar\alpha = 1 - u$: the remaining signal falls linearly and ends at 0.

    Its chain of K steps has $\beta_k = 1/(K - k + 1)$, with which each step erases the same share of the data.

    Source: Sohl-Dickstein et al. 2015, section 2.4.1 (binomial diffusion); Sahoo et al. 2024 (MDLM), its log-linear
    schedule.
    """

    def _tau(self, u: Scalar) -> Scalar:
        return -0.5 * ew.log1p(-u)

    def _u(self, tau: Scalar) -> Scalar:
        return ou.beta(tau, 0.0)

    def _rate(self, u: Scalar) -> Scalar:
        return ew.div(0.5, 1.0 - u)


@dataclass(frozen=True)
class Cosine(Schedule):
    r"""Cosine clock, $\bar\alpha = \cos^2 a / \cos^2 a_0$ with $a = \frac{u + shift}{1 + shift}\frac\pi2$, clipped.

    The cosine would end at $\bar\alpha = 0$. As in the source, the last of ``steps`` steps has $\beta$ = ``clip``
    instead of 1; within it $\bar\alpha$ is linear in u. With ``clip=1`` the clock ends without signal.

    Args:
        shift: Offset that keeps the first betas from being too small, positive.
        clip: $\beta$ of the last step, in (0, 1].
        steps: Length K of the chain whose last step is clipped.

    Raises:
        ValueError: If a value is out of range, or the clip would also change an earlier step; then pass the clipped
            list to `FromBetas`.

    Example:
        >>> from scoresde import Cosine
        >>> [round(beta, 4) for beta in Cosine().to_betas(5)[:3]]
        [0.1013, 0.2795, 0.4736]

    Source: Nichol & Dhariwal 2021 (Improved DDPM), eq. 17.
    """

    shift: float = 0.008
    clip: float = 0.999
    steps: int = 1000

    def __post_init__(self) -> None:
        check_positive(shift=self.shift, clip=self.clip)
        check_integer("steps", self.steps)
        if self.clip > 1:
            raise ValueError(f"clip must lie in (0, 1], got {self.clip!r}.")
        if self.steps > 1:
            previous_beta = float(ou.beta(self._cosine(1 - 1 / self.steps), self._cosine(1 - 2 / self.steps)))
            if previous_beta > self.clip:
                raise ValueError(
                    f"clip must touch the last step only, but step K - 1 has beta = {previous_beta:.3g} > "
                    f"{self.clip!r}; raise clip, or pass the clipped list to FromBetas."
                )

    @property
    def _angle_span(self) -> float:
        """The angle a at u = 1 minus a at u = 0."""
        return 0.5 * math.pi / (1.0 + self.shift)

    @property
    def _clip_start(self) -> float:
        """Clock value at which the clipped last step begins."""
        return 1.0 - 1.0 / self.steps

    def _cosine(self, u: Scalar) -> Scalar:
        first_angle = self._angle_span * self.shift
        # cos a - cos a0 as a product of sines, because the difference would cancel at small u
        product = ew.sin(0.5 * self._angle_span * u + first_angle) * ew.sin(0.5 * self._angle_span * u)
        return -ew.log1p(-2.0 * product / math.cos(first_angle))

    def _tau(self, u: Scalar) -> Scalar:
        fraction = ew.clamp((u - self._clip_start) * self.steps, high=1.0)
        end = float(self._cosine(self._clip_start)) - 0.5 * ew.log1p(-self.clip * fraction)
        return ew.where(u <= self._clip_start, self._cosine(ew.clamp(u, high=self._clip_start)), end)

    def _u(self, tau: Scalar) -> Scalar:
        clip_tau, first_angle = float(self._cosine(self._clip_start)), self._angle_span * self.shift
        cosine = math.cos(first_angle) * ou.alpha(tau)
        sine = ew.sqrt(math.sin(first_angle) ** 2 + math.cos(first_angle) ** 2 * ou.beta(tau, 0.0))
        smooth = (ew.atan2(sine, cosine) - first_angle) / self._angle_span
        return ew.where(tau <= clip_tau, smooth, self._clip_start + ou.beta(tau, clip_tau) / (self.clip * self.steps))

    def _rate(self, u: Scalar) -> Scalar:
        fraction = ew.clamp((u - self._clip_start) * self.steps, high=1.0)
        end = ew.div(0.5 * self.steps * self.clip, 1.0 - self.clip * fraction)
        a = self._angle_span * (ew.clamp(u, high=self._clip_start) + self.shift)
        return ew.where(u <= self._clip_start, self._angle_span * ew.tan(a), end)


@dataclass(frozen=True)
class LogLinear(Schedule):
    r"""Log-linear clock: log-SNR decreases linearly in u from ``log_snr_max`` to ``log_snr_min``, in nats.

    The weighting $\lambda$ of the evidence bound is then constant.

    Args:
        log_snr_max, log_snr_min: Log-SNR at u = 0 and at u = 1, finite.

    Raises:
        ValueError: If ``log_snr_min`` is not below ``log_snr_max``.

    Source: Kingma et al. 2021 (Variational diffusion models), whose fixed end points are the defaults here.
    """

    log_snr_max: float = 13.3
    log_snr_min: float = -5.0

    def __post_init__(self) -> None:
        check_increasing(log_snr_min=self.log_snr_min, log_snr_max=self.log_snr_max)

    @property
    def _span(self) -> float:
        return self.log_snr_max - self.log_snr_min

    def _tau(self, u: Scalar) -> Scalar:
        return ou.tau_from_log_snr(self.log_snr_max - self._span * u)

    def _u(self, tau: Scalar) -> Scalar:
        return (self.log_snr_max - ou.log_snr(tau)) / self._span

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * self._span * ew.sigmoid(self._span * u - self.log_snr_max)


@dataclass(frozen=True)
class Sigmoid(Schedule):
    r"""Sigmoid clock: $\bar\alpha$ falls from 1 to ``alpha_bar_min`` as $-\mathrm{sigmoid}(a / temperature)$.

    $a$ is linear in u from ``start`` to ``end``. ``alpha_bar_min`` rescales the curve instead of clipping it, so the
    clock stays invertible.

    Args:
        start, end: $a$ at u = 0 and at u = 1.
        temperature: Width of the sigmoid, positive.
        alpha_bar_min: $\bar\alpha$ at u = 1, in [0, 1); with 0 the clock ends without signal.

    Raises:
        ValueError: If a value is out of range.

    Source: Chen 2023 (On the importance of noise scheduling), after Jabri et al. 2022.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0
    alpha_bar_min: float = 1e-9

    def __post_init__(self) -> None:
        check_increasing(start=self.start, end=self.end)
        check_positive(temperature=self.temperature)
        if not 0 <= self.alpha_bar_min < 1:
            raise ValueError(f"alpha_bar_min must lie in [0, 1), got {self.alpha_bar_min!r}.")

    @staticmethod
    def _sigmoid_difference(a: Scalar, b: Scalar) -> Scalar:
        """sigmoid(a) - sigmoid(b), written as a product to avoid cancellation."""
        return -ew.expm1(b - a) * ew.sigmoid(a) * ew.sigmoid(-b)

    @property
    def _scaled_ends(self) -> tuple[float, float]:
        return self.start / self.temperature, self.end / self.temperature

    def _tau(self, u: Scalar) -> Scalar:
        first, last = self._scaled_ends
        a = first + (last - first) * u
        total = self._sigmoid_difference(last, first)
        noise = (1.0 - self.alpha_bar_min) * self._sigmoid_difference(a, first) / total  # 1 - alpha_bar
        signal = (
            self.alpha_bar_min + (1.0 - self.alpha_bar_min) * self._sigmoid_difference(last, a) / total
        )  # alpha_bar
        return ew.where(noise < 0.5, -0.5 * ew.log1p(-ew.clamp(noise, high=0.5)), -0.5 * ew.log(signal))

    def _u(self, tau: Scalar) -> Scalar:
        first, last = self._scaled_ends
        total = self._sigmoid_difference(last, first) / (1.0 - self.alpha_bar_min)
        sigmoid_a = ew.sigmoid(first) + total * ou.beta(tau, 0.0)
        complement = ew.sigmoid(-last) + total * (ou.alpha_bar(tau) - self.alpha_bar_min)  # 1 - sigmoid(a)
        return (ew.log(sigmoid_a) - ew.log(complement) - first) / (last - first)

    def _rate(self, u: Scalar) -> Scalar:
        first, last = self._scaled_ends
        a = first + (last - first) * u
        slope = (
            (1.0 - self.alpha_bar_min)
            * (last - first)
            * ew.sigmoid(a)
            * ew.sigmoid(-a)
            / self._sigmoid_difference(last, first)
        )
        return ew.div(0.5 * slope, ou.alpha_bar(self._tau(u)))
