r"""How do times move so that a sampler ends where it should? By Levenberg–Marquardt on the steps' shares of the way.

The way is the range of $\sqrt\phi$, φ = atan(σ/α), and each step has a softmax share of it. The slopes of the ends are
differences of walks that begin where a time is moved: half of ``steps`` walks for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scoresde import ou
from scoresde.model import Model
from scoresde.sampler.base import StepSampler

__all__ = ["Shares", "Walks", "descend"]

_POWERS = (1.5, 2.0, 2.5, 3.0)
_TRIALS = 8


@dataclass(frozen=True, eq=False)
class Walks:
    """Walks of a sampler from some starts, and how far from the right ends they lead.

    Attributes:
        model: The network, in eval mode.
        sampler: A deterministic one.
        x: Starts, ``(B, *D)``.
        ends: Where they should lead, ``(B, *D)``.
        cond: Passed to the network.
    """

    model: Model
    sampler: StepSampler
    x: Tensor
    ends: Tensor
    cond: dict[str, Tensor]

    def end(self, taus: Sequence[float]) -> Tensor:
        """Where walks over ``taus`` lead, ``(B, *D)``."""
        return self._walk(taus, self.x, None)

    def error(self, taus: Sequence[float]) -> float:
        """Root mean square over all elements; infinite where the times do not fall or a walk blows up."""
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        error = float((self.end(taus) - self.ends).square().mean().sqrt())
        return error if math.isfinite(error) else math.inf

    def slopes(self, shares: Shares, places: list[float]) -> tuple[Tensor, Tensor]:
        """All errors as ``(n,)``, and their slopes in the places of the knots, ``(n, steps - 1)``, by differences.

        A step is pure: up to the knot that is moved, the walk need not be made again.
        """
        taus, along, columns = shares.times(places), [], []
        end, unit = self._walk(taus, self.x, None, along), self._unit()
        for i in range(1, len(taus) - 1):
            move = unit * min(places[i - 1] - places[i], places[i] - places[i + 1])
            moved = [taus[i - 1], shares.time(places[i] + move), *taus[i + 1 :]]
            columns.append(((self._walk(moved, *along[i - 1]) - end) / move).flatten())
        return (end - self.ends).flatten(), torch.stack(columns, 1)

    def _unit(self) -> float:
        """How far to move, as a share of a step: the cube root of what the coarsest type in use can tell apart."""
        types = {value.dtype for value in (self.x, *self.model.parameters()) if value.is_floating_point()}
        return max(torch.finfo(each).eps for each in types) ** (1 / 3)

    def _walk(self, taus: Sequence[float], x: Tensor, memory: Any, along: list[Any] | None = None) -> Tensor:
        predict = partial(self.model.predict, **self.cond)
        for tau, s in zip(taus, taus[1:]):
            if along is not None:
                along.append((x, memory))
            x, memory = self.sampler.step(predict, x, tau, s, _no_noise, memory)
        return x


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


@dataclass(frozen=True)
class Shares:
    r"""Times by their places $\sqrt\phi$, from that of ``first`` down to ``low``; places by the steps' shares.

    ``theta``, ``(steps,)``, is the logarithm of the shares up to a constant. A walk to 0 ends there, but its knots stay
    above ``tau_min``: below it no network is asked.

    Attributes:
        first, last: OU times of the start and the end.
        low: Down to which place the knots go.
    """

    first: float
    last: float
    low: float

    @staticmethod
    def make(own: list[float], tau_min: float) -> Shares:
        """Those of a grid's ends.

        Args:
            own: The grid.
            tau_min: Of the process.
        """
        return Shares(own[0], own[-1], _place(own[-1] or min(tau_min, 0.5 * own[-2])))

    def time(self, place: float) -> float:
        """The time at a place."""
        return ou.tau_from_angle(place * place)

    def times(self, places: Sequence[float]) -> list[float]:
        """The times at places; the ends are kept exactly."""
        return [self.first, *(self.time(place) for place in places[1:-1]), self.last]

    def places(self, theta: Tensor) -> list[float]:
        """``steps + 1`` places, falling."""
        high = _place(self.first)
        done = torch.cumsum(torch.softmax(theta, 0), 0).tolist()
        return [high, *(high + (self.low - high) * share for share in done[:-1]), self.low]

    def theta(self, places: Sequence[float]) -> Tensor:
        """The inverse of `places`."""
        steps = [max(a - b, 1e-12) for a, b in zip(places, places[1:])]  # times near infinity share a place
        return torch.tensor(steps, dtype=torch.float64).log()

    def slopes(self, theta: Tensor) -> Tensor:
        """Slopes of the knots' places in theta, ``(steps - 1, steps)``."""
        share = torch.softmax(theta, 0)
        done = torch.cumsum(share, 0)[:-1, None]
        before = torch.ones(len(theta), len(theta), dtype=torch.float64).tril()[:-1]
        return (self.low - _place(self.first)) * share * (before - done)

    def power(self, power: float, steps: int) -> list[float]:
        r"""Places even in $\phi^{1/power}$, ``steps + 1`` of them."""
        a, b = _place(self.first) ** (2 / power), self.low ** (2 / power)
        return [(a + (b - a) * i / steps) ** (power / 2) for i in range(steps + 1)]


def _place(tau: float) -> float:
    return math.sqrt(ou.angle(tau))


def descend(walks: Walks, own: list[float], iterations: int) -> Iterator[list[float]]:
    """Grids, each better than the one before; the first is the best of a few to start from.

    Args:
        walks: What must come near to its ends.
        own: The sampler's own times, falling; the first and the last stay.
        iterations: At most so many; it ends where one gains less than a thousandth.

    Yields:
        ``steps + 1`` times. None for a single step, which has nothing to move.

    Source: Marquardt 1963.
    """
    steps, shares = len(own) - 1, Shares.make(own, walks.model.sde.tau_min)
    if steps == 1:
        return
    starts = [[*map(_place, own[:-1]), shares.low], *(shares.power(power, steps) for power in _POWERS)]
    theta = shares.theta(min(starts, key=lambda places: walks.error(shares.times(places))))
    taus, damping = shares.times(shares.places(theta)), 1e-2
    error = walks.error(taus)
    yield taus
    for _ in range(iterations):
        move = _marquardt(walks, shares, theta)
        for _ in range(_TRIALS):
            trial = theta + move(damping)
            taus = shares.times(shares.places(trial))
            now = walks.error(taus)
            if now < error:
                break
            damping *= 10.0
        else:
            return
        yield taus
        if now > 0.999 * error:
            return
        theta, error, damping = trial, now, damping / 10.0


def _marquardt(walks: Walks, shares: Shares, theta: Tensor) -> Callable[[float], Tensor]:
    """The move of theta for a damping; no share more than doubles or halves."""
    residual, slopes = walks.slopes(shares, shares.places(theta))
    slopes = slopes @ shares.slopes(theta).to(slopes)
    hessian, gradient = torch.nan_to_num((slopes.T @ slopes).cpu().double()), (slopes.T @ residual).cpu().double()
    scale = hessian.diagonal() + 1e-3 * hessian.diagonal().mean() + 1e-300

    def move(damping: float) -> Tensor:
        step = torch.linalg.solve(hessian + damping * torch.diag(scale), -gradient)
        return (step - step.mean()).clamp(-math.log(2.0), math.log(2.0))

    return move
