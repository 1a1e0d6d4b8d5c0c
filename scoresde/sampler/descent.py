r"""How do times move so that a sampler ends where it should? By Levenberg–Marquardt on the steps' shares of the way.

The way is the range of $\sqrt\phi$, φ = atan(σ/α), and each step has a softmax share of it. The slopes of the ends are
differences of walks that begin where a time is moved: half of ``steps`` walks for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde import ou
from scoresde.model import Model
from scoresde.sampler.base import Predict, StepSampler

__all__ = ["Shares", "Walks", "descend", "evolve", "unit"]

_POWERS = (1.0, 1.5, 2.0, 3.0)
_TRIALS = 8


@dataclass(frozen=True, eq=False)
class Walks:
    r"""Walks of a sampler from some starts, and how far from the right ends they lead.

    A walk that ends at another part of the data is as far off as such parts are apart, and no small move of a time
    brings it back. So the descent lowers the mean of $c^2\log(1 + e^2/c^2)$, with e the root mean square error of a
    walk and c the spread of the ends: the mean square, but for such walks.

    Attributes:
        predict: The network call.
        sampler: A deterministic one.
        x: Starts, ``(B, *D)``, in the coordinates of ``predict``.
        ends: Where they should lead, ``(B, *D)``, in x.
        leave: Takes the last state to x.
        unit: How far a time is moved for a difference, as a share of a step: see `unit`.
        weights: Of the walks in the loss, ``(B,)``; None for equal ones.
    """

    predict: Predict
    sampler: StepSampler
    x: Tensor
    ends: Tensor
    leave: Callable[[Tensor], Tensor]
    unit: float
    weights: Tensor | None = None

    def end(self, taus: Sequence[float]) -> Tensor:
        """Where walks over ``taus`` lead, ``(B, *D)``, in x."""
        return self._walk(taus, self.x, None)

    def error(self, taus: Sequence[float]) -> float:
        """Root mean square over all elements; infinite where the times do not fall or a walk blows up."""
        return self._judged(taus, lambda squares: math.sqrt(squares.mean()))

    def loss(self, taus: Sequence[float]) -> float:
        """What the descent lowers; infinite as `error` is."""
        return self._judged(taus, lambda squares: float(((squares / self._spread).log1p() * self._weights).mean()))

    def slopes(self, shares: Shares, places: list[float]) -> tuple[Tensor, Tensor]:
        """All errors as ``(n,)``, and their slopes in the places of the knots, ``(n, steps - 1)``, by differences.

        Both are weighted as the loss weighs their walks. A step is pure: up to the knot that is moved, the walk need
        not be made again.
        """
        taus, along, columns = shares.times(places), [], []
        end = self._walk(taus, self.x, None, along)
        weight = (self._weights / (1.0 + self._squares(end) / self._spread)).sqrt().reshape(-1, *[1] * (end.ndim - 1))
        for i in range(1, len(taus) - 1):
            move = self.unit * min(places[i - 1] - places[i], places[i] - places[i + 1])
            moved = [taus[i - 1], shares.time(places[i] + move), *taus[i + 1 :]]
            columns.append(((self._walk(moved, *along[i - 1]) - end) / move * weight).flatten())
        return ((end - self.ends) * weight).flatten(), torch.stack(columns, 1)

    @cached_property
    def _spread(self) -> float:
        """Mean square of the ends about their mean; 1 where they are one point."""
        return float((self.ends - self.ends.mean(0)).square().mean()) or 1.0

    @cached_property
    def _weights(self) -> Tensor:
        return torch.ones_like(self._squares(self.ends)) if self.weights is None else self.weights.to(self.ends)

    def _squares(self, end: Tensor) -> Tensor:
        return (end - self.ends).reshape(len(end), -1).square().mean(1)

    def _judged(self, taus: Sequence[float], judge: Callable[[Tensor], float]) -> float:
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        value = judge(self._squares(self.end(taus)))
        return value if math.isfinite(value) else math.inf

    def _walk(self, taus: Sequence[float], x: Tensor, memory: Any, along: list[Any] | None = None) -> Tensor:
        for tau, s in zip(taus, taus[1:]):
            if along is not None:
                along.append((x, memory))
            x, memory = self.sampler.step(self.predict, x, tau, s, _no_noise, memory)
        return self.leave(x)


def unit(model: Model, x: Tensor) -> float:
    """The cube root of what the coarsest type in use can tell apart."""
    types = {value.dtype for value in (x, *model.parameters()) if value.is_floating_point()}
    return max(torch.finfo(each).eps for each in types) ** (1 / 3)


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


def descend(walks: Walks, shares: Shares, steps: int, iterations: int, starts: int) -> Iterator[list[float]]:
    """Grids: some that are even in a power of the angle, and from there on each that is better than the one before.

    Args:
        walks: What must come near to its ends.
        shares: Of the way.
        steps: How many.
        iterations: From each start at most so many; a descent ends where one gains less than a thousandth.
        starts: From how many, the best first.

    Yields:
        ``steps + 1`` times.

    Source: Marquardt 1963.
    """
    firsts = [shares.power(power, steps) for power in _POWERS]
    for places in sorted(firsts, key=lambda places: walks.loss(shares.times(places)))[:starts]:
        yield shares.times(places)
        if steps > 1:
            yield from _down(walks, shares, shares.theta(places), iterations)


def _down(walks: Walks, shares: Shares, theta: Tensor, iterations: int) -> Iterator[list[float]]:
    loss, damping = walks.loss(shares.times(shares.places(theta))), 1e-2
    for _ in range(iterations):
        move = _marquardt(walks, shares, theta)
        for _ in range(_TRIALS):
            trial = theta + move(damping)
            taus = shares.times(shares.places(trial))
            now = walks.loss(taus)
            if now < loss:
                break
            damping *= 10.0
        else:
            return
        yield taus
        if now > 0.999 * loss:
            return
        theta, loss, damping = trial, now, damping / 10.0


def evolve(walks: Walks, shares: Shares, taus: list[float], rounds: int, generator: torch.Generator) -> list[float]:
    """A better grid by trial, where the loss is too rough for a descent; ten walks a round.

    Trials are drawn about a mean that moves to the best of them, with the covariance of the moves that helped.

    Args:
        walks: What must come near to its ends.
        shares: Of the way.
        taus: Where to begin.
        rounds: How many.
        generator: Source of the trials, on the CPU.

    Source: Hansen 2016 (the covariance's rank-mu update, with its constants rounded).
    """

    def loss(theta: Tensor) -> float:
        return walks.loss(shares.times(shares.places(theta)))

    best = mean = shares.theta([*map(_place, taus[:-1]), shares.low])
    least, size, spread = loss(best), 0.15, torch.eye(len(best), dtype=torch.float64)
    shared = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    for _ in range(rounds if len(taus) > 2 else 0):
        root = torch.linalg.cholesky(spread + 1e-6 * torch.eye(len(best), dtype=torch.float64))
        moves = torch.randn(10, len(best), generator=generator, dtype=torch.float64) @ root.mT
        found = [loss(mean + size * move) for move in moves]
        order = sorted(range(len(found)), key=found.__getitem__)
        if better := found[order[0]] < least:
            best, least = mean + size * moves[order[0]], found[order[0]]
        helped = moves[order[: len(shared)]]
        mean = mean + size * (shared @ helped)
        spread = 0.9 * spread + 0.1 * (helped.mT * shared) @ helped
        size *= 1.05 if better else 0.95
    return shares.times(shares.places(best))


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
