"""Which clocks does variance-preserving diffusion run on? Linear, cosine, log-linear, sigmoid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule, increasing, positive

__all__ = ["Cosine", "LinearVP", "LogLinear", "Sigmoid"]


@dataclass(frozen=True)
class LinearVP(Schedule):
    r"""Song's linear VP-SDE, $\tau = \tfrac14u^2(\beta_1 - \beta_0) + \tfrac12u\beta_0$.

    Args:
        beta_min: His $\beta_0 = 2\,d\tau/du$ at u = 0.
        beta_max: His $\beta_1$ at u = 1.

    Source: Song et al. 2021 (Score-based generative modeling through SDEs), eq. 32.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        positive(beta_min=self.beta_min, beta_max=self.beta_max)
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
class Cosine(Schedule):
    r"""Cosine clock, $\bar\alpha = \cos^2 a / \cos^2 a_0$ with $a = \frac{u + shift}{1 + shift}\frac\pi2$, clipped.

    The cosine would end at $\bar\alpha = 0$. As in the source, the last of ``steps`` steps has $\beta$ = ``clip``
    instead of 1; within it $\bar\alpha$ is linear in u. With ``clip=1`` the clock ends without signal.

    Raises:
        ValueError: If the clip would also change an earlier step (pass the clipped list to `FromBetas`).

    Source: Nichol & Dhariwal 2021 (Improved DDPM), eq. 17.
    """

    shift: float = 0.008
    clip: float = 0.999
    steps: int = 1000

    def __post_init__(self) -> None:
        positive(shift=self.shift, clip=self.clip)
        check_integer("steps", self.steps)
        if self.clip > 1:
            raise ValueError(f"clip must lie in (0, 1], got {self.clip!r}.")
        if self.steps > 1:
            before = float(ou.beta(self._cosine(1 - 1 / self.steps), self._cosine(1 - 2 / self.steps)))
            if before > self.clip:
                raise ValueError(
                    f"clip must touch the last step only, but step K - 1 has beta = {before:.3g} > {self.clip!r}; "
                    "raise clip, or pass the clipped list to FromBetas."
                )

    @property
    def _quarter(self) -> float:
        return 0.5 * math.pi / (1.0 + self.shift)

    @property
    def _knee(self) -> float:
        return 1.0 - 1.0 / self.steps

    def _cosine(self, u: Scalar) -> Scalar:
        first = self._quarter * self.shift
        # cos a - cos a0 as a product of sines: exact for small u, where the difference would cancel
        product = ew.sin(0.5 * self._quarter * u + first) * ew.sin(0.5 * self._quarter * u)
        return -ew.log1p(-2.0 * product / math.cos(first))

    def _tau(self, u: Scalar) -> Scalar:
        fraction = ew.clamp((u - self._knee) * self.steps, high=1.0)
        end = float(self._cosine(self._knee)) - 0.5 * ew.log1p(-self.clip * fraction)
        return ew.where(u <= self._knee, self._cosine(ew.clamp(u, high=self._knee)), end)

    def _u(self, tau: Scalar) -> Scalar:
        knee_tau, first = float(self._cosine(self._knee)), self._quarter * self.shift
        cosine = math.cos(first) * ou.alpha(tau)
        sine = ew.sqrt(math.sin(first) ** 2 + math.cos(first) ** 2 * ou.beta(tau, 0.0))
        smooth = (ew.atan2(sine, cosine) - first) / self._quarter
        return ew.where(tau <= knee_tau, smooth, self._knee + ou.beta(tau, knee_tau) / (self.clip * self.steps))

    def _rate(self, u: Scalar) -> Scalar:
        fraction = ew.clamp((u - self._knee) * self.steps, high=1.0)
        end = ew.div(0.5 * self.steps * self.clip, 1.0 - self.clip * fraction)
        a = self._quarter * (ew.clamp(u, high=self._knee) + self.shift)
        return ew.where(u <= self._knee, self._quarter * ew.tan(a), end)


@dataclass(frozen=True)
class LogLinear(Schedule):
    r"""Log-SNR falls linearly from ``log_snr_max`` to ``log_snr_min``, nats; the bound's $\lambda$ is constant.

    Source: Kingma et al. 2021 (Variational diffusion models), whose fixed end points are the defaults.
    """

    log_snr_max: float = 13.3
    log_snr_min: float = -5.0

    def __post_init__(self) -> None:
        increasing("log_snr_min", self.log_snr_min, "log_snr_max", self.log_snr_max)

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

    Here a goes evenly from ``start`` to ``end``.

    The floor rescales the curve (it does not clip it), so the clock stays invertible.

    Source: Chen 2023 (On the importance of noise scheduling), after Jabri et al. 2022.
    """

    start: float = -3.0
    end: float = 3.0
    temperature: float = 1.0
    alpha_bar_min: float = 1e-9

    def __post_init__(self) -> None:
        increasing("start", self.start, "end", self.end)
        positive(temperature=self.temperature)
        if not 0 <= self.alpha_bar_min < 1:
            raise ValueError(f"alpha_bar_min must lie in [0, 1), got {self.alpha_bar_min!r}.")

    @staticmethod
    def _gap(a: Scalar, b: Scalar) -> Scalar:
        """sigmoid(a) - sigmoid(b) as a product: no cancellation."""
        return -ew.expm1(b - a) * ew.sigmoid(a) * ew.sigmoid(-b)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.start / self.temperature, self.end / self.temperature

    def _tau(self, u: Scalar) -> Scalar:
        first, last = self._ends
        a = first + (last - first) * u
        total = self._gap(last, first)
        lost = (1.0 - self.alpha_bar_min) * self._gap(a, first) / total
        left = self.alpha_bar_min + (1.0 - self.alpha_bar_min) * self._gap(last, a) / total
        return ew.where(lost < 0.5, -0.5 * ew.log1p(-ew.clamp(lost, high=0.5)), -0.5 * ew.log(left))

    def _u(self, tau: Scalar) -> Scalar:
        first, last = self._ends
        total = self._gap(last, first) / (1.0 - self.alpha_bar_min)
        value = ew.sigmoid(first) + total * ou.beta(tau, 0.0)
        rest = ew.sigmoid(-last) + total * (ou.alpha_bar(tau) - self.alpha_bar_min)
        return (ew.log(value) - ew.log(rest) - first) / (last - first)

    def _rate(self, u: Scalar) -> Scalar:
        first, last = self._ends
        a = first + (last - first) * u
        slope = (1.0 - self.alpha_bar_min) * (last - first) * ew.sigmoid(a) * ew.sigmoid(-a) / self._gap(last, first)
        return ew.div(0.5 * slope, ou.alpha_bar(self._tau(u)))
