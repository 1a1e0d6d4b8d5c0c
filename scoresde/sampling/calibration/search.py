"""Search for a sampler's times: Levenberg–Marquardt descent and an evolution strategy, on the logits of a grid."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde.sampling.calibration.fractions import StepFractions
from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.rows import FittedRollouts

__all__ = ["descend", "evolve"]

_POPULATION = 10
_PARENT_WEIGHTS = (0.4, 0.3, 0.2, 0.1)
_LEAST_DAMPING = 1e-9


def descend(
    rollouts: Rollouts | FittedRollouts,
    fractions: StepFractions,
    taus: list[float],
    iterations: int,
    *,
    settled: float = 1e-3,
    trials: int = 4,
) -> tuple[list[float], float]:
    r"""A grid improved by a Levenberg–Marquardt descent.

    The derivatives J of the errors r are finite differences of rollouts that begin at the moved time, so all of them
    together cost less than half of the number of steps in rollouts. Each iteration makes them once and then several
    trials, of one rollout each. A trial that moves the logits by δ corrects J by
    $(r_{new} - r - J\delta)\,\delta^T/\delta^T\delta$, whether or not it lowers the loss.

    Args:
        rollouts: The rollouts whose loss is minimized.
        fractions: Parameterization of the grids.
        taus: Initial grid.
        iterations: Iterations, at most.
        settled: The descent ends when an iteration lowers the loss by less than this share.
        trials: Trials of one iteration, at most.

    Returns:
        The last grid and its loss, which is not above that of ``taus``.

    Source: Marquardt 1963; Broyden 1965.
    """
    logits, loss, damping = fractions.logits_of_times(taus), rollouts.loss(taus), 1e-2
    for _ in range(iterations if len(taus) > 2 and math.isfinite(loss) else 0):
        before, weight = loss, rollouts.influence(taus)
        residual, jacobian = rollouts.residual(taus, weight), _jacobian(rollouts, fractions, logits, weight)
        for _ in range(trials):
            change = _damped_step(residual, jacobian, damping)
            trial = logits + change
            trial_taus = fractions.times(fractions.positions(trial))
            trial_loss = rollouts.loss(trial_taus)
            if not math.isfinite(trial_loss):
                damping *= 10.0
                continue
            new, move = rollouts.residual(trial_taus, weight), change.to(jacobian)
            jacobian = jacobian + torch.outer(new - residual - jacobian @ move, move / move.square().sum())
            if trial_loss >= loss:
                damping *= 10.0
                continue
            gain = 1.0 - trial_loss / loss
            taus, logits, loss, residual, damping = trial_taus, trial, trial_loss, new, damping / 10.0
            if gain < settled:
                break
        if loss > (1.0 - settled) * before:
            break
    return taus, loss


def _damped_step(residual: Tensor, jacobian: Tensor, damping: float) -> Tensor:
    """The step of the logits. It at most doubles or halves a fraction.

    Equal changes of all logits change no time, so the Hessian is singular, and the damping has a least value.
    """
    hessian = torch.nan_to_num((jacobian.T @ jacobian).cpu().double())
    gradient = torch.nan_to_num((jacobian.T @ residual).cpu().double())
    scale = hessian.diagonal() + 1e-3 * hessian.diagonal().mean() + 1e-300
    change = torch.linalg.solve(hessian + max(damping, _LEAST_DAMPING) * torch.diag(scale), -gradient)
    return (change - change.mean()).clamp(-math.log(2.0), math.log(2.0))


def _jacobian(rollouts: Rollouts | FittedRollouts, fractions: StepFractions, logits: Tensor, weight: Tensor) -> Tensor:
    """The derivatives of the weighted errors in the logits, ``(n, steps)``."""
    positions = fractions.positions(logits)
    shorter = (min(high - at, at - low) for high, at, low in zip(positions, positions[1:], positions[2:]))
    moves = [rollouts.relative_step * length for length in shorter]
    moved = [fractions.time(position + move) for position, move in zip(positions[1:-1], moves, strict=True)]
    jacobian = rollouts.jacobian(fractions.times(positions), moved, moves, weight)
    return jacobian @ fractions.jacobian(logits).to(jacobian)


def evolve(
    grid_loss: Callable[[list[float]], float],
    fractions: StepFractions,
    taus: list[float],
    rounds: int,
    generator: torch.Generator,
) -> list[float]:
    """A grid improved by an evolution strategy, for a loss too rough for a descent; ten rollouts per round.

    Trials are normal about a mean, which moves to the weighted mean of the best four. Their covariance is adapted to
    the moves of these four, and their size to whether the best grid improved.

    Args:
        grid_loss: The loss of a grid, one rollout each.
        fractions: Parameterization of the grids.
        taus: Initial grid.
        rounds: Number of rounds.
        generator: Source of the trials, on the CPU.

    Returns:
        The best grid, whose loss is not above that of ``taus``.

    Source: Hansen 2016 (CMA-ES: the rank-mu update of the covariance, with its constants rounded).
    """

    def loss(logits: Tensor) -> float:
        return grid_loss(fractions.times(fractions.positions(logits)))

    best = mean = fractions.logits_of_times(taus)
    best_loss, step_size, covariance = loss(best), 0.15, torch.eye(len(best), dtype=torch.float64)
    weights = torch.tensor(_PARENT_WEIGHTS, dtype=torch.float64)
    for _ in range(rounds if len(taus) > 2 else 0):
        factor = torch.linalg.cholesky(covariance + 1e-6 * torch.eye(len(best), dtype=torch.float64))
        moves = torch.randn(_POPULATION, len(best), generator=generator, dtype=torch.float64) @ factor.mT
        losses = [loss(mean + step_size * move) for move in moves]
        ranking = sorted(range(len(losses)), key=losses.__getitem__)
        if improved := losses[ranking[0]] < best_loss:
            best, best_loss = mean + step_size * moves[ranking[0]], losses[ranking[0]]
        parents = moves[ranking[: len(weights)]]
        mean = mean + step_size * (weights @ parents)
        covariance = 0.9 * covariance + 0.1 * (parents.mT * weights) @ parents
        step_size *= 1.05 if improved else 0.95
    return fractions.times(fractions.positions(best))
