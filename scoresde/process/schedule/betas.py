r"""Clocks of DDPM betas, with knots $\tau_k = -\tfrac12\sum_{j\le k}\log(1 - \beta_j)$ at $u = k/K$."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde._core.tables import place_in
from scoresde._core.tensors import constant
from scoresde.process import ou
from scoresde.process.schedule.base import Schedule

__all__ = ["FromBetas", "LinearBetas"]


_BETWEEN = ("alpha_bar", "sigma", "log_sigma")


@dataclass(frozen=True)
class FromBetas(Schedule):
    r"""Clock of any list of DDPM betas: exact at $u = k/K$; between knots $\bar\alpha$ is linear in u.

    Args:
        betas: $\beta_1 \dots \beta_K$ in (0, 1); the last may be 1 (zero terminal signal-to-noise ratio).
        between: What is linear in u between two knots: ``"alpha_bar"``; ``"sigma"``, $\tilde\sigma = \sigma/\alpha$; or
            ``"log_sigma"``, its logarithm. Before the first knot and in a last step to infinity it is
            $\bar\alpha$ in any case.

    Raises:
        ValueError: If there is no beta; if one is outside (0, 1], is 1 before the last step, or is too small to advance
            the clock in double precision; if ``between`` is unknown.

    Source: for ``between``, the schedulers of diffusers and k-diffusion that step in $\tilde\sigma$.
    """

    betas: tuple[float, ...]
    between: str = field(default="alpha_bar", metadata={"write": "if set"})

    def __post_init__(self) -> None:
        if self.between not in _BETWEEN:
            raise ValueError(f"no interpolation is named {self.between!r}; {nearest(str(self.between), _BETWEEN)}")
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
        between = "" if self.between == "alpha_bar" else f", between={self.between!r}"
        if len(self.betas) <= 4:
            return f"{type(self).__name__}(betas={self.betas}{between})"
        first, last = (f"{beta:.6g}" for beta in (self.betas[0], self.betas[-1]))
        return f"{type(self).__name__}({len(self.betas)} betas, {first} … {last}{between})"

    @property
    def steps(self) -> int:
        """Length K of the chain."""
        return len(self.betas)

    @cached_property
    def _knots(self) -> tuple[float, ...]:
        taus = [0.0]
        for beta in self.betas:
            taus.append(taus[-1] - 0.5 * float(ew.log1p(-beta)))
        return tuple(taus)

    @cached_property
    def _spans(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The coordinate of ``between`` at the start of each step and its increase; 0 where ᾱ is linear."""
        half_log = [-0.5 * ou.log_snr(tau) for tau in self._knots]
        values = half_log if self.between == "log_sigma" else [ew.exp(v) for v in half_log]
        spans = [(a, b - a) if k and b < math.inf else (0.0, 0.0) for k, (a, b) in enumerate(zip(values, values[1:]))]
        starts, gaps = zip(*spans)
        return starts, gaps

    def _span(self, index: Scalar, like: Scalar) -> tuple[Scalar, Scalar]:
        starts, gaps = self._spans
        if isinstance(index, Tensor) and isinstance(like, Tensor):
            return constant(starts, like).take(index), constant(gaps, like).take(index)
        return starts[int(index)], gaps[int(index)]

    def _locate(self, u: Scalar) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        """The previous knot, the beta of the current step, the elapsed fraction of that step, and its index."""
        count = len(self.betas)
        if isinstance(u, Tensor):
            position = u * count
            k = position.detach().floor().clamp(max=count - 1)
            index = k.long()
            # take instead of []: indexing with a 0-d tensor would synchronize with the device
            return constant(self._knots, u).take(index), constant(self.betas, u).take(index), position - k, index
        index = min(int(u * count), count - 1)
        return self._knots[index], self.betas[index], u * count - index, index

    def _tau(self, u: Scalar) -> Scalar:
        knot, beta, fraction, index = self._locate(u)
        tau = knot - 0.5 * ew.log1p(-fraction * beta)
        if self.between == "alpha_bar":
            return tau
        start, gap = self._span(index, u)
        coordinate = start + fraction * gap
        log_sigma = coordinate if self.between == "log_sigma" else ew.log(ew.where(gap == 0, 1.0 + 0.0 * u, coordinate))
        return ew.where(gap == 0, tau, ou.tau_from_log_snr(-2.0 * log_sigma))

    def _rate(self, u: Scalar) -> Scalar:
        _, beta, fraction, index = self._locate(u)
        rate = ew.div(0.5 * len(self.betas) * beta, 1.0 - fraction * beta)
        if self.between == "alpha_bar":
            return rate
        start, gap = self._span(index, u)
        coordinate = start + fraction * gap
        sigma = ew.exp(coordinate) if self.between == "log_sigma" else coordinate
        slope = sigma / (1.0 + sigma * sigma) * (sigma if self.between == "log_sigma" else 1.0)
        return ew.where(gap == 0, rate, len(self.betas) * gap * slope)

    def _u(self, tau: Scalar) -> Scalar:
        count = len(self.betas)
        if isinstance(tau, Tensor):
            knots = constant(self._knots, tau)
            index = (place_in(knots, tau) - 1).clamp(0, count - 1)
            knot, beta = knots.take(index), constant(self.betas, tau).take(index)
        else:
            index = min(max(bisect_left(self._knots, tau) - 1, 0), count - 1)
            knot, beta = self._knots[index], self.betas[index]
        fraction = ou.beta(tau, knot) / beta
        if self.between != "alpha_bar":
            start, gap = self._span(index, tau)
            half_log = -0.5 * ou.log_snr(tau)
            coordinate = half_log if self.between == "log_sigma" else ew.exp(half_log)
            linear = gap == 0
            fraction = ew.where(linear, fraction, ew.div(coordinate - start, ew.where(linear, 1.0 + 0.0 * tau, gap)))
        return (index + fraction) / count


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
