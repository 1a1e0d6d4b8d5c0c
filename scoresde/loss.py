r"""What is minimised? $E_u[\lambda(u)\,\|\hat\varepsilon - \varepsilon\|^2]$, measured in the network's own target.

An error in the output times $\alpha/\det$ is the error in $\varepsilon$ (see `scoresde.parameterization`), so the loss
is $\lambda\,(\alpha/\det)^2\,\|out - target\|^2$: one function has one loss in whatever parameterization it is written.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde import _tensor as t
from scoresde import ou
from scoresde._tensor import Noise, Scalar
from scoresde.model import Model
from scoresde.sde import SDE, Marginal
from scoresde.weighting import ELBO, Simple, Weighting

__all__ = ["Draw", "Importance", "Knots", "LogNormal", "Loss", "Stratified", "Tabulated", "Times", "Uniform"]


class Draw(NamedTuple):
    """Times for a batch.

    Attributes:
        u: Clock, ``(B,)``.
        s: The chain's time before each, ``(B,)``, or None.
        correction: What multiplies the loss so that its expectation is that under uniform u; 1 or ``(B,)``.
    """

    u: Tensor
    s: Tensor | None = None
    correction: Scalar = 1.0


class Times(ABC):
    """How u is drawn. Whatever the density, the loss's expectation is the one under uniform u on [u_min, 1]."""

    @abstractmethod
    def draw(self, base: Tensor, sde: SDE) -> Draw:
        """Times from numbers uniform on [0, 1), ``(B,)``, one per sample."""

    def base(self, like: Tensor, noise: Noise) -> Tensor:
        """Those numbers: independent, ``(B,)``, of the widest type of the device of ``like``."""
        return noise.uniform(torch.empty(like.shape[:1], dtype=t.wide(like.device), device=like.device))


@dataclass(frozen=True)
class Uniform(Times):
    """Independent and uniform on [u_min, 1]."""

    def draw(self, base: Tensor, sde: SDE) -> Draw:
        """u = u_min + (1 - u_min) base."""
        return Draw(sde.u_min + (1.0 - sde.u_min) * base)


def _spread(base: Tensor) -> Tensor:
    """One number per sample, each uniform on [0, 1), together evenly spread: all from the first of ``base``."""
    count = max(len(base), 1)
    return (base[:1] + torch.arange(len(base), dtype=base.dtype, device=base.device) / count) % 1.0


@dataclass(frozen=True)
class Stratified(Times):
    """Evenly spread over [u_min, 1] with one random shift: each is uniform, the batch's mean has less variance.

    Source: Kingma et al. 2021, appendix I.1.
    """

    def draw(self, base: Tensor, sde: SDE) -> Draw:
        """u = u_min + (1 - u_min) ((shift + i/B) mod 1)."""
        return Draw(sde.u_min + (1.0 - sde.u_min) * _spread(base))


@dataclass(frozen=True)
class Knots(Times):
    """k uniform in ``first`` … ``steps`` and u = k / steps: DDPM's Algorithm 1.

    Args:
        steps: The chain's length K.
        first: The first k; 2 leaves out the step whose bound is a decoder's and not a regression.

    Source: Ho, Jain & Abbeel 2020.
    """

    steps: int = 1000
    first: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a positive integer, got {self.steps!r}.")
        if isinstance(self.first, bool) or not isinstance(self.first, int) or not 1 <= self.first <= self.steps:
            raise ValueError(f"first must be an integer in 1 … {self.steps}, got {self.first!r}.")

    def draw(self, base: Tensor, sde: SDE) -> Draw:
        """u = k/K and s = τ((k - 1)/K), which is 0 for k = 1."""
        count = self.steps - self.first + 1
        k = (base * count).floor().clamp(max=count - 1) + self.first
        before = torch.as_tensor(sde.schedule._tau((k - 1.0) / self.steps))
        return Draw(k / self.steps, torch.where(k == 1.0, torch.zeros_like(before), before))


class Tabulated(Times):
    """u drawn from a density that is tabulated, evenly spread over the batch; the loss is divided by the density.

    The density is constant on cells of equal width in log-SNR, so the correction has no error of its own. Subclasses
    are frozen dataclasses with the fields ``even`` and ``bins`` and give `density`.

    Attributes:
        even: Share of the draws that is spread evenly over log-SNR, so that no time is starved.
        bins: Number of cells.
    """

    even: float
    bins: int

    @abstractmethod
    def density(self, m: Marginal) -> Scalar:
        """What the density of u is proportional to, > 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.even < 1:
            raise ValueError(f"even must lie in [0, 1), got {self.even!r}; 0 keeps the density as it is.")
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 1:
            raise ValueError(f"bins must be a positive integer, got {self.bins!r}.")

    def draw(self, base: Tensor, sde: SDE) -> Draw:
        """The inverse of the piecewise linear distribution function at evenly spread numbers."""
        edges, mass = _cells(self, sde)
        upper = t.table(tuple(accumulate(mass)), base)
        edge, share = t.table(edges, base), t.table(mass, base)
        r = _spread(base)
        cell = torch.searchsorted(upper, r, right=True).clamp(max=self.bins - 1)
        left, width = edge[cell], edge[cell + 1] - edge[cell]
        u = (left + width * ((r - (upper[cell] - share[cell])) / share[cell]).clamp(0.0, 1.0)).clamp(max=1.0)
        return Draw(u, None, width / (share[cell] * (1.0 - sde.u_min)))


@lru_cache(maxsize=32)
def _cells(times: Tabulated, sde: SDE) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges of the cells in u, and the cells' probabilities by the midpoint rule."""
    last = min(sde.tau_max, 20.0)
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(last))
    taus = [float(ou.tau_from_log_snr(high + (low - high) * i / times.bins)) for i in range(times.bins + 1)]
    edges = [sde.u_min, *(float(sde.schedule.u(min(tau, sde.tau_max))) for tau in taus[1:-1]), 1.0]
    mass = []
    for a, b in zip(edges, edges[1:], strict=False):
        mass.append(float(times.density(sde.marginal(0.5 * (a + b)).limit)) * (b - a))
    total = math.fsum(mass)
    if not all(value > 0 for value in mass) or not math.isfinite(total):
        raise ValueError(
            f"the density {times} must be positive and finite on the clock, got a mass of {min(mass)!r}; use another "
            "weighting or a wider law."
        )
    return tuple(edges), tuple((1.0 - times.even) * value / total + times.even / times.bins for value in mass)


@dataclass(frozen=True)
class Importance(Tabulated):
    """u drawn in proportion to a weighting.

    Args:
        weighting: To what the density is proportional; `ELBO` makes it uniform in log-SNR.
        even, bins: See `Tabulated`.

    Source: Song et al. 2021 (Maximum likelihood training), section 5.1.
    """

    weighting: Weighting = ELBO()
    even: float = 0.0
    bins: int = 256

    def density(self, m: Marginal) -> Scalar:
        """λ."""
        return self.weighting(m)


@dataclass(frozen=True)
class LogNormal(Tabulated):
    r"""$\tilde\sigma = \sigma/\alpha$ log-normal: $\ln\tilde\sigma \sim N(P_{mean}, P_{std}^2)$, so log-SNR is normal.

    Args:
        p_mean, p_std: Mean and standard deviation of $\ln\tilde\sigma$; log-SNR has -2 and 2 times these.
        even, bins: See `Tabulated`. Without an even share the far ends of the clock would practically never be drawn.

    Source: Karras et al. 2022, table 1 (there without the correction, which makes it part of their weighting).
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    even: float = 0.1
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.p_std > 0:
            raise ValueError(f"p_std must be positive, got {self.p_std!r}.")

    def density(self, m: Marginal) -> Scalar:
        r"""$e^{-z^2/2}\,|d\ell/du|$ with $z = (-\ell/2 - P_{mean})/P_{std}$."""
        z = (-0.5 * m.log_snr - self.p_mean) / self.p_std
        return t.exp(-0.5 * z * z) * ELBO()(m)


@dataclass(frozen=True)
class Loss:
    r"""Denoising score matching: per sample $c\,\lambda\,\|\hat\varepsilon - \varepsilon\|^2$ at one random time.

    The squares are summed over the event.

    Args:
        weighting: λ.
        times: How u is drawn; c is its correction.

    Source: Vincent 2011; Ho, Jain & Abbeel 2020; Song et al. 2021.
    """

    weighting: Weighting = Simple()
    times: Times = Uniform()

    def __post_init__(self) -> None:
        for name, value, kind in (("weighting", self.weighting, Weighting), ("times", self.times, Times)):
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} must be a {kind.__name__}, got {value!r}; pass an object, not its class or name."
                )

    def __call__(self, model: Model, x0: Tensor, generator: torch.Generator | None = None, **cond: object) -> Tensor:
        """The loss of each sample.

        Args:
            model: Trained or exact.
            x0: Data in the model's units, ``(B, *D)``.
            generator: Source of times and noise; default torch's global one.
            **cond: Passed to the network.

        Returns:
            ``(B,)``, at least float32, differentiable in the model's parameters. Not divided by the event's size.

        Raises:
            ValueError: If λ is negative, NaN, infinite or of a wrong shape.
        """
        if not x0.is_floating_point():
            raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first.")
        noise = Noise(generator)
        draw = self.times.draw(self.times.base(x0, noise), model.sde)
        return self.at(model, x0, draw, noise.normal(x0), **cond)

    def at(self, model: Model, x0: Tensor, draw: Draw, eps: Tensor, **cond: object) -> Tensor:
        """The loss at given times and noise, ``(B,)``; see the call."""
        if not (x0.device.type == "meta" or isinstance(x0, FakeTensor)):
            check_weighting(self.weighting, self.times, model.sde)
        m = Marginal(model.sde.schedule._tau(draw.u), model.sde.schedule._rate(draw.u), draw.s)
        prediction = model(model.sde.perturb(x0, m.tau, eps), m.tau, **cond)
        target = prediction.parameterization.target(x0, eps, m.tau)
        weight = _weigh(self.weighting, m, draw.u)
        factor = prediction.parameterization.eps_factor(m.limit.tau)
        error = (prediction.out - target).flatten(1) if x0.ndim > 1 else (prediction.out - target).unsqueeze(1)
        return draw.correction * weight * (factor * factor) * error.square().sum(1, dtype=t.wide(x0.device))


def _weigh(weighting: Weighting, m: Marginal, u: Tensor) -> Tensor:
    weight = weighting(m.limit)
    if not isinstance(weight, Tensor) or weight.shape != u.shape:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(
            f"a weighting must return one number per time, but {weighting} gave {shape} for {tuple(u.shape)}."
        )
    return weight


def check_weighting(weighting: Weighting, times: Times, sde: SDE) -> None:
    """Looks at λ at 4096 evenly spread draws of the times, once per (weighting, times, process).

    Raises:
        ValueError: Naming the weighting and the first time at which λ is negative, NaN or infinite.
        TypeError: If one of the three cannot be hashed.
    """
    for part in (weighting, times, sde):
        if type(part).__hash__ is None:
            raise TypeError(f"{part!r} must be hashable; write its class as @dataclass(frozen=True).")
    _check_once(weighting, times, sde)


@lru_cache(maxsize=64)
def _check_once(weighting: Weighting, times: Times, sde: SDE) -> None:
    with torch.inference_mode(False), torch.no_grad():
        draw = times.draw(torch.arange(4096, dtype=torch.float64, device="cpu") / 4096, sde)
        weight = _weigh(weighting, sde.marginal(draw.u, draw.s), draw.u)
        bad = ~(torch.isfinite(weight) & (weight >= 0))
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            u = draw.u[i].item()
            raise ValueError(
                f"a weighting must be finite and not negative, but {weighting} is {weight[i].item():g} at "
                f"tau = {float(sde.schedule.tau(u)):.4g} (u = {u:.4g}); change it there, or draw other times."
            )
