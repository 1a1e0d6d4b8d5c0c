r"""Which clock is a list of DDPM betas? The one with knots at $\tau_k = -\tfrac12\sum_{j\le k}\log(1 - \beta_j)$."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import constant
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule

__all__ = ["FromBetas", "LinearBetas"]


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
            taus.append(taus[-1] - 0.5 * float(ew.log1p(-beta)))
        return tuple(taus)

    def _locate(self, u: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """The last knot, the step's beta and the fraction of the step that is gone."""
        count = len(self.betas)
        if isinstance(u, Tensor):
            place = u * count
            k = place.detach().floor().clamp(max=count - 1)
            index = k.long()
            # take, not []: a 0-d index would be read back from the device
            return constant(self._table, u).take(index), constant(self.betas, u).take(index), place - k
        index = min(int(u * count), count - 1)
        return self._table[index], self.betas[index], u * count - index

    def _tau(self, u: Scalar) -> Scalar:
        knot, beta, fraction = self._locate(u)
        return knot - 0.5 * ew.log1p(-fraction * beta)

    def _rate(self, u: Scalar) -> Scalar:
        _, beta, fraction = self._locate(u)
        return ew.div(0.5 * len(self.betas) * beta, 1.0 - fraction * beta)

    def _u(self, tau: Scalar) -> Scalar:
        count = len(self.betas)
        if isinstance(tau, Tensor):
            knots = constant(self._table, tau)
            index = (torch.searchsorted(knots, tau.detach().to(knots.dtype).contiguous()) - 1).clamp(0, count - 1)
            knot, beta = knots.take(index), constant(self.betas, tau).take(index)
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
        check_integer("steps", self.steps)
        gap = (self.last - self.first) / max(self.steps - 1, 1)
        return FromBetas(tuple(self.first + gap * k for k in range(self.steps)))

    def _tau(self, u: Scalar) -> Scalar:
        return self._clock._tau(u)

    def _u(self, tau: Scalar) -> Scalar:
        return self._clock._u(tau)

    def _rate(self, u: Scalar) -> Scalar:
        return self._clock._rate(u)
