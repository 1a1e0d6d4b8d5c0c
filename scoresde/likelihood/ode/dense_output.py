"""Where was a sample at any angle? On the polynomial over one of its steps; each sample has steps of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DenseOutput", "StepPolynomial", "PiecewisePolynomial", "step_polynomial"]


class DenseOutput(ABC):
    """Where each sample was at every angle."""

    @abstractmethod
    def at(self, phi: Tensor) -> Tensor:
        """States at angles of each sample's own, ``(B, N)``, between the path's ends: ``(B, N, d)``."""

    @abstractmethod
    def slope(self, phi: Tensor) -> Tensor:
        """dx/dφ there, ``(B, N, d)``."""

    @abstractmethod
    def turn(self) -> Tensor:
        r"""The angle where the path turns most sharply for its scale, by $\varphi\,|d^2x/d\varphi^2|^2$, ``(B, 1)``."""


class StepPolynomial(NamedTuple):
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


def step_polynomial(
    rows: Tensor, gone: Tensor, h: Tensor, ends: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]
) -> StepPolynomial:
    """The cubic between two states, ``(R, d)``, with given slopes there (Hermite's)."""
    mean = (ends[1] - ends[0]) / h.unsqueeze(1)
    first, last = slopes
    quartic = (first, 3 * mean - 2 * first - last, first + last - 2 * mean, torch.zeros_like(mean))
    return StepPolynomial(rows, gone, h, ends[0], torch.stack(quartic, 1))


class PiecewisePolynomial(DenseOutput):
    """The pieces that the samples' steps left behind; each sample has a number of its own.

    Args:
        pieces: Of all steps, each sample's in the order of its way.
        count: Number of samples; each has a piece.
        start: The angle where they began.
        sign: 1 if they went up in angle, else -1.
    """

    def __init__(self, pieces: list[StepPolynomial], count: int, start: float, sign: float) -> None:
        self.start, self.sign = start, sign
        joined = StepPolynomial(*(torch.cat(part) for part in zip(*pieces, strict=True)))
        order = torch.argsort(joined.rows, stable=True)
        self.pieces = StepPolynomial(*(part[order] for part in joined))
        rows = self.pieces.rows
        steps = torch.bincount(rows, minlength=count)
        self.first = steps.cumsum(0) - steps
        self.last = self.first + steps - 1
        self.begins = joined.gone.new_full((count, int(steps.max())), math.inf)
        self.place = rows, torch.arange(len(rows), device=rows.device) - self.first[rows]
        self.begins[self.place] = self.pieces.gone

    def at(self, phi: Tensor) -> Tensor:
        """See the base class. Of a sample that did not arrive, what lies past its end is extrapolated."""
        step, theta = self._steps(phi)
        _, _, h, x, quartic = self.pieces
        out = quartic[step, 3]
        for power in (2, 1, 0):
            out = out.mul_(theta).add_(quartic[step, power])
        return out.mul_(theta * h[step].unsqueeze(2)).add_(x[step])

    def slope(self, phi: Tensor) -> Tensor:
        """See the base class."""
        step, theta = self._steps(phi)
        out = 4.0 * self.pieces.quartic[step, 3]
        for power in (2, 1, 0):
            out = out.mul_(theta).add_(self.pieces.quartic[step, power], alpha=power + 1)
        return out.mul_(self.sign)

    def turn(self) -> Tensor:
        """See the base class; looks at five places of each step."""
        _, gone, h, _, quartic = self.pieces
        theta = torch.linspace(0.0, 1.0, 5, dtype=h.dtype, device=h.device)
        powers = torch.stack([torch.full_like(theta, 2.0), 6.0 * theta, 12.0 * theta * theta], 1)
        bend = torch.einsum("tp,rpd->rtd", powers, quartic[:, 1:]) / h.reshape(-1, 1, 1)
        phi = self.start + self.sign * (gone.unsqueeze(1) + theta * h.unsqueeze(1))
        sharp, place = (bend.square().sum(2) * phi).max(1)
        each = torch.full_like(self.begins, -1.0)
        each[self.place] = sharp
        step = self.first + each.argmax(1)
        return phi[step].gather(1, place[step].unsqueeze(1))

    def _steps(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """The piece of each angle, ``(B, N)``, and how far into it that is, ``(B, N, 1)``."""
        gone = ((phi - self.start) * self.sign).contiguous()
        step = (torch.searchsorted(self.begins, gone, right=True) - 1).clamp(min=0)
        step = torch.minimum(step + self.first.unsqueeze(1), self.last.unsqueeze(1))
        return step, ((gone - self.pieces.gone[step]) / self.pieces.h[step]).unsqueeze(2)
