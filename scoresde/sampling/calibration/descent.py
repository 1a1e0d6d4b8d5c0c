r"""How do times move so that a sampler ends where it should? By Levenberg–Marquardt on the steps' shares of the way.

The slopes of the ends are differences of walks that begin where a time is moved: half of ``steps`` walks for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.step_fractions import StepFractions

__all__ = ["descend"]

_POWERS = (1.0, 1.5, 2.0, 3.0)
_TRIALS = 8


def descend(walks: Rollouts, shares: StepFractions, steps: int, iterations: int, starts: int) -> Iterator[list[float]]:
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


def _down(walks: Rollouts, shares: StepFractions, theta: Tensor, iterations: int) -> Iterator[list[float]]:
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


def _marquardt(walks: Rollouts, shares: StepFractions, theta: Tensor) -> Callable[[float], Tensor]:
    """The move of theta for a damping; no share more than doubles or halves."""
    residual, slopes = walks.slopes(shares, shares.places(theta))
    slopes = slopes @ shares.slopes(theta).to(slopes)
    hessian, gradient = torch.nan_to_num((slopes.T @ slopes).cpu().double()), (slopes.T @ residual).cpu().double()
    scale = hessian.diagonal() + 1e-3 * hessian.diagonal().mean() + 1e-300

    def move(damping: float) -> Tensor:
        step = torch.linalg.solve(hessian + damping * torch.diag(scale), -gradient)
        return (step - step.mean()).clamp(-math.log(2.0), math.log(2.0))

    return move
