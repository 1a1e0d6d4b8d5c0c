r"""Clocks of DDPM betas, with knots $\tau_k = -\tfrac12\sum_{j\le k}\log(1 - \beta_j)$ at $u = k/K$."""

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
    r"""Clock of any list of DDPM betas: exact at $u = k/K$; between knots $\bar\alpha$ is linear in u.

    Args:
        betas: $\beta_1 \dots \beta_K$ in (0, 1); the last may be 1 (zero terminal signal-to-noise ratio).

    Raises:
        ValueError: If there is no beta; if one is outside (0, 1], is 1 before the last step, or is too small to advance
            the clock in double precision.
    """

    betas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(float(beta) for beta in self.betas))
        if not self.betas:
            raise ValueError("betas must have at least one entry, got none.")
        for k, beta in enumerate(self.betas, 1):
            if not 0 < beta <= 1 or (beta == 1 and k < len(self.betas)):
                raise ValueError(
                    f"betas must lie in (0, 1), or be 1 in the last step; got {beta!r} at k = {k} of {len(self.betas)}."
                )
            if not self._knots[k - 1] < self._knots[k]:
                raise ValueError(f"betas must advance the clock, got {beta!r}, too small to move the clock at k = {k}.")

    def __repr__(self) -> str:
        """The first and the last beta and their number; `scoresde.storage.spec.to_text` writes all of them."""
        if len(self.betas) <= 4:
            return f"{type(self).__name__}(betas={self.betas})"
        first, last = (f"{beta:.6g}" for beta in (self.betas[0], self.betas[-1]))
        return f"{type(self).__name__}({len(self.betas)} betas, {first} … {last})"

    @cached_property
    def _knots(self) -> tuple[float, ...]:
        taus = [0.0]
        for beta in self.betas:
            taus.append(taus[-1] - 0.5 * float(ew.log1p(-beta)))
        return tuple(taus)

    def _locate(self, u: Scalar) -> tuple[Scalar, Scalar, Scalar]:
        """The previous knot, the beta of the current step and the elapsed fraction of that step."""
        count = len(self.betas)
        if isinstance(u, Tensor):
            position = u * count
            k = position.detach().floor().clamp(max=count - 1)
            index = k.long()
            # take instead of []: indexing with a 0-d tensor would synchronize with the device
            return constant(self._knots, u).take(index), constant(self.betas, u).take(index), position - k
        index = min(int(u * count), count - 1)
        return self._knots[index], self.betas[index], u * count - index

    def _tau(self, u: Scalar) -> Scalar:
        knot, beta, fraction = self._locate(u)
        return knot - 0.5 * ew.log1p(-fraction * beta)

    def _rate(self, u: Scalar) -> Scalar:
        _, beta, fraction = self._locate(u)
        return ew.div(0.5 * len(self.betas) * beta, 1.0 - fraction * beta)

    def _u(self, tau: Scalar) -> Scalar:
        count = len(self.betas)
        if isinstance(tau, Tensor):
            knots = constant(self._knots, tau)
            index = (torch.searchsorted(knots, tau.detach().to(knots.dtype).contiguous()) - 1).clamp(0, count - 1)
            knot, beta = knots.take(index), constant(self.betas, tau).take(index)
        else:
            index = min(max(bisect_left(self._knots, tau) - 1, 0), count - 1)
            knot, beta = self._knots[index], self.betas[index]
        return (index + ou.beta(tau, knot) / beta) / count


@dataclass(frozen=True)
class LinearBetas(Schedule):
    r"""DDPM's betas, equally spaced from ``first`` to ``last``; between knots $\bar\alpha$ is linear in u.

    Args:
        first, last: $\beta_1$ and $\beta_K$, in (0, 1).
        steps: Length K of the chain.

    Raises:
        ValueError: If ``steps`` is not a positive integer, or `FromBetas` refuses a beta.

    Example:
        >>> from scoresde import LinearBetas
        >>> clock = LinearBetas()
        >>> [round(beta, 6) for beta in clock.to_betas(1000)[:3]]
        [0.0001, 0.00012, 0.00014]
        >>> round(clock.tau_max, 4)
        5.0589

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
