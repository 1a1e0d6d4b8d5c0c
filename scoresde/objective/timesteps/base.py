"""Uniform, stratified and discrete timesteps: the draw $u = F^{-1}(r)$ of each sample from uniform numbers r."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.process import ou
from scoresde.process.base import Process

__all__ = [
    "DiscreteTimesteps",
    "StratifiedTimesteps",
    "TimestepDraw",
    "Timesteps",
    "UniformTimesteps",
    "log_snr_bin_edges",
    "stratify",
]


_LAST_WIDTH = 2.0**-40  # least width in u of the last of `log_snr_bin_edges`, so that no bin rounds to 0


class TimestepDraw(NamedTuple):
    """Timesteps of a batch.

    Attributes:
        u: Clock, ``(B,)``.
        s: OU time of the chain's previous knot for each, ``(B,)``; None in continuous time.
        correction: Factor of the loss that makes its expectation the one under uniform u; 1 or ``(B,)``.
    """

    u: Tensor
    s: Tensor | None = None
    correction: Scalar = 1.0


class Timesteps(CheckedArguments, ABC):
    """How u is drawn. Whatever the density, the loss's expectation is the one under uniform u on [u_min, 1]."""

    @abstractmethod
    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        """Timesteps of a batch.

        Args:
            uniforms: Independent numbers, uniform on [0, 1), one per sample, ``(B,)``.
            sde: The process.
        """

    def inverse_cdf(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        """Timesteps by the inverse distribution function, each from its own number; the batch is not stratified.

        Args:
            uniforms: Numbers in [0, 1), ``(N,)``, which the caller may have stratified.
            sde: The process.
        """
        return self.draw(uniforms, sde)

    @property
    def chain(self) -> DiscreteTimesteps | None:
        """The chain's knots that u is drawn from; None in continuous time."""
        return None

    def uniforms(self, like: Tensor, noise: Noise) -> Tensor:
        """Independent numbers, uniform on [0, 1), one per sample of ``like``.

        Returns:
            ``(B,)``, of the widest type of the device of ``like``.
        """
        return noise.uniform(torch.empty(like.shape[:1], dtype=widest_dtype(like.device), device=like.device))


@dataclass(frozen=True)
class UniformTimesteps(Timesteps):
    r"""Independent and uniform: $u = u_{min} + (1 - u_{min})\,r$."""

    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        return TimestepDraw(sde.u_min + (1.0 - sde.u_min) * uniforms)


def stratify(uniforms: Tensor) -> Tensor:
    """Evenly spaced numbers (r_0 + i/B) mod 1, ``(B,)``, each uniform on [0, 1), from the first of ``uniforms``."""
    count = max(len(uniforms), 1)
    return (uniforms[:1] + torch.arange(len(uniforms), dtype=uniforms.dtype, device=uniforms.device) / count) % 1.0


@dataclass(frozen=True)
class StratifiedTimesteps(Timesteps):
    """Evenly spaced over [u_min, 1] with one random shift: each is uniform, and the batch mean has less variance.

    Source: Kingma et al. 2021, appendix I.1.
    """

    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        return self.inverse_cdf(stratify(uniforms), sde)

    def inverse_cdf(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        return UniformTimesteps().draw(uniforms, sde)


@dataclass(frozen=True)
class DiscreteTimesteps(Timesteps):
    """The chain's knots u = k / K, with k uniform in ``first`` … K: DDPM's Algorithm 1.

    Args:
        steps: The chain's length K.
        first: The first k; 2 leaves out the step whose bound is a decoder's likelihood and not a regression.

    Source: Ho, Jain & Abbeel 2020.
    """

    steps: int = 1000
    first: int = 1

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_integer("first", self.first, most=self.steps)

    @property
    def chain(self) -> DiscreteTimesteps | None:
        return self

    @property
    def count(self) -> int:
        """Number of knots that are drawn from."""
        return self.steps - self.first + 1

    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        return self.at((uniforms * self.count).floor().clamp(max=self.count - 1) + self.first, sde)

    def at(self, k: Tensor, sde: Process) -> TimestepDraw:
        """The draw of given knots: u = k/K and s = τ((k - 1)/K), which is 0 for k = 1.

        Args:
            k: Whole numbers of the widest floating type, ``(B,)``.
            sde: The process.
        """
        s = torch.as_tensor(sde.schedule._tau((k - 1.0) / self.steps))
        return TimestepDraw(k / self.steps, torch.where(k == 1.0, torch.zeros_like(s), s))


@lru_cache(maxsize=32)
def log_snr_bin_edges(sde: Process, bins: int) -> tuple[float, ...]:
    """Edges in u, from u_min to 1, of bins of equal width in log-SNR (the last begins at OU time 20 or before).

    Args:
        sde: The process.
        bins: Number of bins.
    """
    last = min(20.0, float(sde.schedule.tau(1.0 - _LAST_WIDTH)))
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(last))
    taus = [float(ou.tau_from_log_snr(high + (low - high) * i / bins)) for i in range(1, bins)]
    return sde.u_min, *(float(sde.schedule.u(min(tau, sde.tau_max))) for tau in taus), 1.0
