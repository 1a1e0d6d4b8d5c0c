r"""How fast does the clock run? A schedule is an increasing map $u \in [0, 1] \mapsto \tau$ and nothing else.

A list of DDPM betas is such a clock with knots $\tau_k = -\tfrac12\sum_{j\le k}\log(1 - \beta_j)$ at $u = k/K$, and any
clock gives betas back: $\beta_k = 1 - e^{-2(\tau_k - \tau_{k-1})}$ with $\tau_0 = 0$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde import _tensor as t
from scoresde import ou
from scoresde._tensor import Scalar

__all__ = [
    "Cosine",
    "FromBetas",
    "Geometric",
    "Linear",
    "LinearBetas",
    "LogLinear",
    "Schedule",
    "Sigmoid",
    "Straight",
    "SubVPClock",
]


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
        return self._tau(t.as_time(u, "u", high=1.0))

    def u(self, tau: Scalar) -> Scalar:
        """Clock at OU time ``tau``, the inverse of `tau`.

        Raises:
            ValueError: If ``tau`` is NaN or outside the clock's range.
        """
        slack = 1e-6  # a float32 copy of an end of the clock is still that end
        low, high = self.tau_start * (1 - slack), self.tau_max * (1 + slack)
        return t.clamp(self._u(t.as_time(tau, low=low, high=high)), 0.0, 1.0)

    def rate(self, u: Scalar) -> Scalar:
        r"""$d\tau/du$ at clock ``u``; Song's $\beta(t)$ is twice this."""
        return self._rate(t.as_time(u, "u", high=1.0))

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
        _whole(steps)
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


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and 0 < value < math.inf):
            raise ValueError(f"{name} must be a positive finite number, got {value!r}.")


def _whole(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}.")


def _increasing(low_name: str, low: float, high_name: str, high: float) -> None:
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{low_name} must be below {high_name}, both finite, got {low!r} and {high!r}.")


@dataclass(frozen=True)
class Linear(Schedule):
    r"""Song's linear VP-SDE, $\tau = \tfrac14u^2(\beta_1 - \beta_0) + \tfrac12u\beta_0$.

    Args:
        beta_min: His $\beta_0 = 2\,d\tau/du$ at u = 0.
        beta_max: His $\beta_1$ at u = 1.

    Source: Song et al. 2021 (Score-based generative modeling through SDEs), eq. 32.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        _positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(f"beta_max must be at least beta_min, got {self.beta_max!r} < {self.beta_min!r}.")

    def _tau(self, u: Scalar) -> Scalar:
        return u * (0.25 * (self.beta_max - self.beta_min) * u + 0.5 * self.beta_min)

    def _u(self, tau: Scalar) -> Scalar:
        half = 0.5 * self.beta_min
        return 2.0 * tau / (half + t.sqrt(half * half + (self.beta_max - self.beta_min) * tau))

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * (self.beta_min + (self.beta_max - self.beta_min) * u)


@dataclass(frozen=True)
class FromBetas(Schedule):
    r"""Any list of DDPM betas: exact at $u = k/K$; between knots $\bar\alpha$ is linear in u.

    Args:
        betas: $\beta_1 \dots \beta_K$ in (0, 1); the last may be 1 (zero terminal signal-to-noise).

    Raises:
        ValueError: If a beta is outside (0, 1], or is 1 before the last step.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if not self.betas:
            raise ValueError("betas must have at least one entry, got none.")
        for k, beta in enumerate(self.betas, 1):
            if not 0 < beta <= 1 or (beta == 1 and k < len(self.betas)):
                raise ValueError(
                    f"betas must lie in (0, 1), 1 only in the last place; got {beta!r} at k = {k} of {len(self.betas)}."
                )
            if not self._table[k - 1] < self._table[k]:
                raise ValueError(f"betas must advance the clock, got {beta!r}, too small to move the clock at k = {k}.")

    @cached_property
    def _table(self) -> tuple[float, ...]:
        taus = [0.0]
        for beta in self.betas:
            taus.append(taus[-1] - 0.5 * float(t.log1p(-beta)))
        return tuple(taus)

    def _locate(self, u: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """The last knot, the step's beta and the fraction of the step that is gone."""
        count = len(self.betas)
        if isinstance(u, Tensor):
            place = u * count
            k = place.detach().floor().clamp(max=count - 1)
            index = k.long()
            # take, not []: a 0-d index would be read back from the device
            return t.table(self._table, u).take(index), t.table(self.betas, u).take(index), place - k
        index = min(int(u * count), count - 1)
        return self._table[index], self.betas[index], u * count - index

    def _tau(self, u: Scalar) -> Scalar:
        knot, beta, fraction = self._locate(u)
        return knot - 0.5 * t.log1p(-fraction * beta)

    def _rate(self, u: Scalar) -> Scalar:
        _, beta, fraction = self._locate(u)
        return t.div(0.5 * len(self.betas) * beta, 1.0 - fraction * beta)

    def _u(self, tau: Scalar) -> Scalar:
        count = len(self.betas)
        if isinstance(tau, Tensor):
            knots = t.table(self._table, tau)
            index = (torch.searchsorted(knots, tau.detach().to(knots.dtype).contiguous()) - 1).clamp(0, count - 1)
            knot, beta = knots.take(index), t.table(self.betas, tau).take(index)
        else:
            index = min(max(bisect_left(self._table, tau) - 1, 0), count - 1)
            knot, beta = self._table[index], self.betas[index]
        return (index + ou.beta(tau, knot) / beta) / count


@dataclass(frozen=True)
class LinearBetas(Schedule):
    r"""DDPM's betas, equally spaced from ``first`` to ``last``; between knots $\bar\alpha$ is linear in u.

    Source: Ho, Jain & Abbeel 2020, section 4 (1e-4 … 0.02, K = 1000).
    """

    first: float = 1e-4
    last: float = 0.02
    steps: int = 1000

    def __post_init__(self) -> None:
        _ = self._clock

    @cached_property
    def _clock(self) -> FromBetas:
        _whole(self.steps)
        gap = (self.last - self.first) / max(self.steps - 1, 1)
        return FromBetas(tuple(self.first + gap * k for k in range(self.steps)))

    def _tau(self, u: Scalar) -> Scalar:
        return self._clock._tau(u)

    def _u(self, tau: Scalar) -> Scalar:
        return self._clock._u(tau)

    def _rate(self, u: Scalar) -> Scalar:
        return self._clock._rate(u)


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
        _positive(shift=self.shift, clip=self.clip)
        _whole(self.steps)
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
        product = t.sin(0.5 * self._quarter * u + first) * t.sin(0.5 * self._quarter * u)
        return -t.log1p(-2.0 * product / math.cos(first))

    def _tau(self, u: Scalar) -> Scalar:
        fraction = t.clamp((u - self._knee) * self.steps, high=1.0)
        end = float(self._cosine(self._knee)) - 0.5 * t.log1p(-self.clip * fraction)
        return t.where(u <= self._knee, self._cosine(t.clamp(u, high=self._knee)), end)

    def _u(self, tau: Scalar) -> Scalar:
        knee_tau, first = float(self._cosine(self._knee)), self._quarter * self.shift
        cosine = math.cos(first) * ou.alpha(tau)
        sine = t.sqrt(math.sin(first) ** 2 + math.cos(first) ** 2 * ou.beta(tau, 0.0))
        smooth = (t.atan2(sine, cosine) - first) / self._quarter
        return t.where(tau <= knee_tau, smooth, self._knee + ou.beta(tau, knee_tau) / (self.clip * self.steps))

    def _rate(self, u: Scalar) -> Scalar:
        fraction = t.clamp((u - self._knee) * self.steps, high=1.0)
        end = t.div(0.5 * self.steps * self.clip, 1.0 - self.clip * fraction)
        a = self._quarter * (t.clamp(u, high=self._knee) + self.shift)
        return t.where(u <= self._knee, self._quarter * t.tan(a), end)


@dataclass(frozen=True)
class LogLinear(Schedule):
    r"""Log-SNR falls linearly from ``log_snr_max`` to ``log_snr_min``, nats; the bound's $\lambda$ is constant.

    Source: Kingma et al. 2021 (Variational diffusion models), whose fixed end points are the defaults.
    """

    log_snr_max: float = 13.3
    log_snr_min: float = -5.0

    def __post_init__(self) -> None:
        _increasing("log_snr_min", self.log_snr_min, "log_snr_max", self.log_snr_max)

    @property
    def _span(self) -> float:
        return self.log_snr_max - self.log_snr_min

    def _tau(self, u: Scalar) -> Scalar:
        return ou.tau_from_log_snr(self.log_snr_max - self._span * u)

    def _u(self, tau: Scalar) -> Scalar:
        return (self.log_snr_max - ou.log_snr(tau)) / self._span

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * self._span * t.sigmoid(self._span * u - self.log_snr_max)


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
        _increasing("start", self.start, "end", self.end)
        _positive(temperature=self.temperature)
        if not 0 <= self.alpha_bar_min < 1:
            raise ValueError(f"alpha_bar_min must lie in [0, 1), got {self.alpha_bar_min!r}.")

    @staticmethod
    def _gap(a: Scalar, b: Scalar) -> Scalar:
        """sigmoid(a) - sigmoid(b) as a product: no cancellation."""
        return -t.expm1(b - a) * t.sigmoid(a) * t.sigmoid(-b)

    @property
    def _ends(self) -> tuple[float, float]:
        return self.start / self.temperature, self.end / self.temperature

    def _tau(self, u: Scalar) -> Scalar:
        first, last = self._ends
        a = first + (last - first) * u
        total = self._gap(last, first)
        lost = (1.0 - self.alpha_bar_min) * self._gap(a, first) / total
        left = self.alpha_bar_min + (1.0 - self.alpha_bar_min) * self._gap(last, a) / total
        return t.where(lost < 0.5, -0.5 * t.log1p(-t.clamp(lost, high=0.5)), -0.5 * t.log(left))

    def _u(self, tau: Scalar) -> Scalar:
        first, last = self._ends
        total = self._gap(last, first) / (1.0 - self.alpha_bar_min)
        value = t.sigmoid(first) + total * ou.beta(tau, 0.0)
        rest = t.sigmoid(-last) + total * (ou.alpha_bar(tau) - self.alpha_bar_min)
        return (t.log(value) - t.log(rest) - first) / (last - first)

    def _rate(self, u: Scalar) -> Scalar:
        first, last = self._ends
        a = first + (last - first) * u
        slope = (1.0 - self.alpha_bar_min) * (last - first) * t.sigmoid(a) * t.sigmoid(-a) / self._gap(last, first)
        return t.div(0.5 * slope, ou.alpha_bar(self._tau(u)))


@dataclass(frozen=True)
class Geometric(Schedule):
    r"""The variance-exploding clock: $\tilde\sigma = \sigma_{min}(\sigma_{max}/\sigma_{min})^u$.

    $\tau = \tfrac12\log(1 + \tilde\sigma^2)$; it begins on data that are already noised by ``sigma_min``.

    Source: Song & Ermon 2020; Song et al. 2021, eq. 31.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        _positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        _increasing("sigma_min", self.sigma_min, "sigma_max", self.sigma_max)

    @property
    def _span(self) -> float:
        return 2.0 * math.log(self.sigma_max / self.sigma_min)

    def _log_variance(self, u: Scalar) -> Scalar:
        return 2.0 * math.log(self.sigma_min) + self._span * u

    def _tau(self, u: Scalar) -> Scalar:
        return ou.tau_from_log_snr(-self._log_variance(u))

    def _u(self, tau: Scalar) -> Scalar:
        return (-ou.log_snr(tau) - 2.0 * math.log(self.sigma_min)) / self._span

    def _rate(self, u: Scalar) -> Scalar:
        return 0.5 * self._span * t.sigmoid(self._log_variance(u))


@dataclass(frozen=True)
class SubVPClock(Schedule):
    r"""The sub-VP clock over a VP one: $\tau = \tfrac12\log(1 + 4\sinh^2\tau_0)$ with $\tau_0$ from ``inner``.

    Source: Song et al. 2021, eq. 29 ($\tilde\alpha = e^{-\tau_0}$, $\tilde\sigma = 1 - e^{-2\tau_0}$).
    """

    inner: Schedule = Linear()

    def __post_init__(self) -> None:
        if self.inner.tau_max == math.inf:
            raise ValueError("the inner clock must end at a finite tau, got infinity; use a clipped clock.")

    def _tau(self, u: Scalar) -> Scalar:
        odds = 2.0 * t.sinh(self.inner._tau(u))
        return 0.5 * t.log1p(odds * odds)

    def _u(self, tau: Scalar) -> Scalar:
        return self.inner._u(t.asinh(0.5 * t.sqrt(t.expm1(2.0 * tau))))

    def _rate(self, u: Scalar) -> Scalar:
        inner = self.inner._tau(u)
        odds = 2.0 * t.sinh(inner)
        return 2.0 * t.sinh(2.0 * inner) / (1.0 + odds * odds) * self.inner._rate(u)


@dataclass(frozen=True)
class Straight(Schedule):
    r"""The straight path's clock: $\tilde\alpha = 1 - u$ and $\tilde\sigma = u$.

    $\tau = \tfrac12\log(1 + u^2/(1-u)^2)$, infinite at u = 1.

    Source: Lipman et al. 2023 (Flow matching for generative modeling); Liu et al. 2023 (rectified flow).
    """

    def _tau(self, u: Scalar) -> Scalar:
        odds = t.div(u, 1.0 - u)
        return 0.5 * t.log1p(odds * odds)

    def _u(self, tau: Scalar) -> Scalar:
        return ou.sigma(tau) / (ou.alpha(tau) + ou.sigma(tau))

    def _rate(self, u: Scalar) -> Scalar:
        return t.div(u, (1.0 - u) * ((1.0 - u) ** 2 + u * u))
