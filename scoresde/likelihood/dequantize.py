r"""Where in its unit cell does a level lie? A law q(u | k), u in [0, 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde import _tensor as t
from scoresde._tensor import Noise

__all__ = ["Dequantization", "Uniform"]


class Dequantization(ABC):
    """A law q of the place inside a level's unit cell."""

    @abstractmethod
    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """One draw.

        Args:
            levels: Integer levels k, ``(B, *D)``.
            noise: Source of randomness.

        Returns:
            y = k + u in data units, ``(B, *D)``, with u in [0, 1), and log q(u | k), nats, ``(B,)`` float64.
        """


@dataclass(frozen=True)
class Uniform(Dequantization):
    """u uniform on [0, 1), so log q = 0.

    Source: Theis, van den Oord & Bethge 2016, section 3.1.
    """

    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """See the base class; a sum that would round up to k + 1 is the float just below it."""
        k = levels.to(t.wide(levels.device))
        y = torch.minimum(k + noise.uniform(k), torch.nextafter(k + 1, k))
        return y, t.sum_event(torch.zeros_like(k))
