"""Where was a sample at any angle? On the polynomial over one of its steps; each sample has steps of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Path", "Piece", "Pieces", "piece"]


class Path(ABC):
    """Where each sample was at every angle."""

    @abstractmethod
    def at(self, phi: Tensor) -> Tensor:
        """States at angles of each sample's own, ``(B, N)``, between the path's ends: ``(B, N, d)``."""


class Piece(NamedTuple):
    """A step of some samples: x + h θ (a + bθ + cθ² + dθ³), θ in [0, 1].

    Attributes:
        rows: The samples, ``(R,)``.
        gone: How far each had gone, ``(R,)``.
        h: How far it goes, ``(R,)``.
        x: Where it starts, ``(R, d)``.
        quartic: a, b, c, d, ``(R, 4, d)``.
    """

    rows: Tensor
    gone: Tensor
    h: Tensor
    x: Tensor
    quartic: Tensor


def piece(rows: Tensor, gone: Tensor, h: Tensor, ends: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]) -> Piece:
    """The cubic between two states, ``(R, d)``, with given slopes there (Hermite's)."""
    mean = (ends[1] - ends[0]) / h.unsqueeze(1)
    first, last = slopes
    quartic = (first, 3 * mean - 2 * first - last, first + last - 2 * mean, torch.zeros_like(mean))
    return Piece(rows, gone, h, ends[0], torch.stack(quartic, 1))


class Pieces(Path):
    """The pieces that the samples' steps left behind; each sample has a number of its own.

    Args:
        pieces: Of all steps, each sample's in the order of its way.
        count: Number of samples; each has a piece.
        start: The angle where they began.
        sign: 1 if they went up in angle, else -1.
    """

    def __init__(self, pieces: list[Piece], count: int, start: float, sign: float) -> None:
        self.start, self.sign = start, sign
        joined = Piece(*(torch.cat(part) for part in zip(*pieces, strict=True)))
        order = torch.argsort(joined.rows, stable=True)
        self.pieces = Piece(*(part[order] for part in joined))
        rows = self.pieces.rows
        steps = torch.bincount(rows, minlength=count)
        self.first = steps.cumsum(0) - steps
        self.last = self.first + steps - 1
        self.begins = joined.gone.new_full((count, int(steps.max())), math.inf)
        self.begins[rows, torch.arange(len(rows), device=rows.device) - self.first[rows]] = self.pieces.gone

    def at(self, phi: Tensor) -> Tensor:
        """See the base class. Of a sample that did not arrive, what lies past its end is extrapolated."""
        gone = ((phi - self.start) * self.sign).contiguous()
        step = (torch.searchsorted(self.begins, gone, right=True) - 1).clamp(min=0)
        step = torch.minimum(step + self.first.unsqueeze(1), self.last.unsqueeze(1))
        _, before, h, x, quartic = self.pieces
        theta = ((gone - before[step]) / h[step]).unsqueeze(2)
        out = quartic[step, 3]
        for power in (2, 1, 0):
            out = out.mul_(theta).add_(quartic[step, power])
        return out.mul_(theta * h[step].unsqueeze(2)).add_(x[step])
