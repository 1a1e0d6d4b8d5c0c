"""What is a draw of times? u for each sample, and what keeps the loss's expectation that of uniform u on [u_min, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.process import ou
from scoresde.process.sde import SDE

__all__ = [
    "TimestepDraw",
    "DiscreteTimesteps",
    "StratifiedTimesteps",
    "Timesteps",
    "UniformTimesteps",
    "edges",
    "spread",
]


class TimestepDraw(NamedTuple):
    """Times for a batch.

    Attributes:
        u: Clock, ``(B,)``.
        s: The chain's time before each, ``(B,)``, or None.
        correction: What multiplies the loss so that its expectation is that under uniform u; 1 or ``(B,)``.
    """

    u: Tensor
    s: Tensor | None = None
    correction: Scalar = 1.0


class Timesteps(ABC):
    """How u is drawn. Whatever the density, the loss's expectation is the one under uniform u on [u_min, 1]."""

    @abstractmethod
    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """Times from numbers uniform on [0, 1), ``(B,)``, one per sample."""

    def place(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """Times from numbers in [0, 1), ``(N,)``, each time from its own number: who calls has spread them."""
        return self.draw(base, sde)

    @property
    def chain(self) -> DiscreteTimesteps | None:
        """The knots that are drawn from; None in continuous time."""
        return None

    def base(self, like: Tensor, noise: Noise) -> Tensor:
        """Those numbers: independent, ``(B,)``, of the widest type of the device of ``like``."""
        return noise.uniform(torch.empty(like.shape[:1], dtype=widest_dtype(like.device), device=like.device))


@dataclass(frozen=True)
class UniformTimesteps(Timesteps):
    """Independent and uniform on [u_min, 1]."""

    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """u = u_min + (1 - u_min) base."""
        return TimestepDraw(sde.u_min + (1.0 - sde.u_min) * base)


def spread(base: Tensor) -> Tensor:
    """Numbers, each uniform on [0, 1), together evenly spread: all from the first of ``base``, ``(B,)``."""
    count = max(len(base), 1)
    return (base[:1] + torch.arange(len(base), dtype=base.dtype, device=base.device) / count) % 1.0


@dataclass(frozen=True)
class StratifiedTimesteps(Timesteps):
    """Evenly spread over [u_min, 1] with one random shift: each is uniform, the batch's mean has less variance.

    Source: Kingma et al. 2021, appendix I.1.
    """

    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """u = u_min + (1 - u_min) ((shift + i/B) mod 1)."""
        return self.place(spread(base), sde)

    def place(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """As `Uniform`."""
        return UniformTimesteps().draw(base, sde)


@dataclass(frozen=True)
class DiscreteTimesteps(Timesteps):
    """k uniform in ``first`` … ``steps`` and u = k / steps: DDPM's Algorithm 1.

    Args:
        steps: The chain's length K.
        first: The first k; 2 leaves out the step whose bound is a decoder's and not a regression.

    Source: Ho, Jain & Abbeel 2020.
    """

    steps: int = 1000
    first: int = 1

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        if isinstance(self.first, bool) or not isinstance(self.first, int) or not 1 <= self.first <= self.steps:
            raise ValueError(f"first must be an integer in 1 … {self.steps}, got {self.first!r}.")

    @property
    def chain(self) -> DiscreteTimesteps | None:
        """These."""
        return self

    @property
    def count(self) -> int:
        """How many there are to draw from."""
        return self.steps - self.first + 1

    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """u = k/K and s = τ((k - 1)/K), which is 0 for k = 1."""
        return self.at((base * self.count).floor().clamp(max=self.count - 1) + self.first, sde)

    def at(self, k: Tensor, sde: SDE) -> TimestepDraw:
        """The draw of steps ``k``, whole numbers of the widest type, ``(B,)``."""
        before = torch.as_tensor(sde.schedule._tau((k - 1.0) / self.steps))
        return TimestepDraw(k / self.steps, torch.where(k == 1.0, torch.zeros_like(before), before))


@lru_cache(maxsize=32)
def edges(sde: SDE, bins: int) -> tuple[float, ...]:
    """Edges in u, from u_min to 1, of ``bins`` cells of equal width in log-SNR (the last reaches from OU time 20 on).

    Args:
        sde: The process.
        bins: Number of cells.
    """
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 20.0)))
    taus = [float(ou.tau_from_log_snr(high + (low - high) * i / bins)) for i in range(1, bins)]
    return sde.u_min, *(float(sde.schedule.u(min(tau, sde.tau_max))) for tau in taus), 1.0
