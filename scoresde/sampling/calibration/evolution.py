"""How do times move where the loss is too rough for a descent? By trial: an evolution strategy on the steps' shares."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.step_fractions import StepFractions

__all__ = ["evolve"]


def evolve(
    walks: Rollouts, shares: StepFractions, taus: list[float], rounds: int, generator: torch.Generator
) -> list[float]:
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

    best = mean = shares.theta_of(taus)
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
