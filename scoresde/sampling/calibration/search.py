r"""Search for a sampler's times: their parameterization, Levenberg–Marquardt descent, and an evolution strategy.

The times are parameterized by the fractions that the steps take of the range of $\sqrt\phi$, with φ the angle. The
fractions are the softmax of unconstrained logits, so every vector of logits is a decreasing grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.process import ou
from scoresde.sampling.calibration.rollouts import Rollouts

__all__ = ["StepFractions", "descend", "evolve"]

_INITIAL_POWERS = (1.0, 1.5, 2.0, 3.0)
_DAMPING_TRIALS = 8
_POPULATION = 10
_PARENT_WEIGHTS = (0.4, 0.3, 0.2, 0.1)


@dataclass(frozen=True)
class StepFractions:
    r"""Grids with fixed ends, by positions $\sqrt\phi$ of their times, or by logits of the steps' fractions.

    A grid of n steps has n + 1 decreasing positions and n logits, which are determined up to a constant. If the last
    time is 0 it stays 0, but the position of the end, and so all interior times, stay above ``tau_min``: the network is
    not called below it.

    Attributes:
        first, last: OU times of the start and the end.
        last_position: Position that the fractions add up to.
    """

    first: float
    last: float
    last_position: float

    @staticmethod
    def from_grid(taus: Sequence[float], tau_min: float) -> StepFractions:
        """The parameterization of grids with the ends of ``taus``.

        Args:
            taus: A decreasing grid of times.
            tau_min: The smallest time of the process at which the network is called.
        """
        return StepFractions(taus[0], taus[-1], _position(taus[-1] or min(tau_min, 0.5 * taus[-2])))

    def time(self, position: float) -> float:
        """The OU time at a position."""
        return ou.tau_from_angle(position * position)

    def times(self, positions: Sequence[float]) -> list[float]:
        """The OU times at positions; the first and the last time are exact."""
        return [self.first, *(self.time(position) for position in positions[1:-1]), self.last]

    def positions(self, logits: Tensor) -> list[float]:
        """The ``steps + 1`` decreasing positions of logits ``(steps,)``."""
        high = _position(self.first)
        cumulative = torch.cumsum(torch.softmax(logits, 0), 0).tolist()
        interior = (high + (self.last_position - high) * fraction for fraction in cumulative[:-1])
        return [high, *interior, self.last_position]

    def logits(self, positions: Sequence[float]) -> Tensor:
        """The inverse of `positions`, float64."""
        # times near infinity have the same position in float64; the bound keeps the logarithm finite
        steps = [max(a - b, 1e-12) for a, b in zip(positions, positions[1:])]
        return torch.tensor(steps, dtype=torch.float64).log()

    def logits_of_times(self, taus: Sequence[float]) -> Tensor:
        """The logits of a grid with these ends."""
        return self.logits([*map(_position, taus[:-1]), self.last_position])

    def jacobian(self, logits: Tensor) -> Tensor:
        """Derivatives of the interior positions in the logits, ``(steps - 1, steps)``."""
        fractions = torch.softmax(logits, 0)
        cumulative = torch.cumsum(fractions, 0)[:-1, None]
        included = torch.ones(len(logits), len(logits), dtype=torch.float64).tril()[:-1]
        return (self.last_position - _position(self.first)) * fractions * (included - cumulative)

    def power_positions(self, power: float, steps: int) -> list[float]:
        r"""The ``steps + 1`` positions of a grid that is uniform in $\phi^{1/power}$."""
        a, b = _position(self.first) ** (2 / power), self.last_position ** (2 / power)
        return [(a + (b - a) * i / steps) ** (power / 2) for i in range(steps + 1)]


def _position(tau: float) -> float:
    return math.sqrt(ou.angle(tau))


def descend(
    rollouts: Rollouts, fractions: StepFractions, steps: int, iterations: int, starts: int
) -> Iterator[list[float]]:
    """Grids of Levenberg–Marquardt descents: the initial grids, and every improved grid of each descent.

    The initial grids are uniform in a power of the angle. The derivatives are finite differences of rollouts that begin
    at the moved time, so all of them together cost half of ``steps`` rollouts.

    Args:
        rollouts: The rollouts whose loss is minimized.
        fractions: Parameterization of the grids.
        steps: Number of steps.
        iterations: Iterations of one descent, at most. It ends when one lowers the loss by less than a thousandth.
        starts: Number of initial grids to descend from, those of smallest loss first.

    Yields:
        ``steps + 1`` times.

    Source: Marquardt 1963.
    """
    initial = [fractions.power_positions(power, steps) for power in _INITIAL_POWERS]
    initial.sort(key=lambda positions: rollouts.loss(fractions.times(positions)))
    for positions in initial[:starts]:
        yield fractions.times(positions)
        if steps > 1:
            yield from _levenberg_marquardt(rollouts, fractions, fractions.logits(positions), iterations)


def _levenberg_marquardt(
    rollouts: Rollouts, fractions: StepFractions, logits: Tensor, iterations: int
) -> Iterator[list[float]]:
    loss, damping = rollouts.loss(fractions.times(fractions.positions(logits))), 1e-2
    for _ in range(iterations):
        damped_step = _damped_step(rollouts, fractions, logits)
        for _ in range(_DAMPING_TRIALS):
            trial = logits + damped_step(damping)
            taus = fractions.times(fractions.positions(trial))
            trial_loss = rollouts.loss(taus)
            if trial_loss < loss:
                break
            damping *= 10.0
        else:
            return
        yield taus
        if trial_loss > 0.999 * loss:
            return
        logits, loss, damping = trial, trial_loss, damping / 10.0


def _damped_step(rollouts: Rollouts, fractions: StepFractions, logits: Tensor) -> Callable[[float], Tensor]:
    """The step of the logits as a function of the damping. It at most doubles or halves a fraction."""
    residual, jacobian = _linearize(rollouts, fractions, fractions.positions(logits))
    jacobian = jacobian @ fractions.jacobian(logits).to(jacobian)
    hessian = torch.nan_to_num((jacobian.T @ jacobian).cpu().double())
    gradient = (jacobian.T @ residual).cpu().double()
    scale = hessian.diagonal() + 1e-3 * hessian.diagonal().mean() + 1e-300

    def step(damping: float) -> Tensor:
        change = torch.linalg.solve(hessian + damping * torch.diag(scale), -gradient)
        return (change - change.mean()).clamp(-math.log(2.0), math.log(2.0))

    return step


def _linearize(rollouts: Rollouts, fractions: StepFractions, positions: list[float]) -> tuple[Tensor, Tensor]:
    """The errors and their derivatives in the interior positions."""
    shorter = (min(high - at, at - low) for high, at, low in zip(positions, positions[1:], positions[2:]))
    moves = [rollouts.relative_step * length for length in shorter]
    moved = [fractions.time(position + move) for position, move in zip(positions[1:-1], moves, strict=True)]
    return rollouts.linearize(fractions.times(positions), moved, moves)


def evolve(
    rollouts: Rollouts, fractions: StepFractions, taus: list[float], rounds: int, generator: torch.Generator
) -> list[float]:
    """A grid improved by an evolution strategy, for a loss too rough for a descent; ten rollouts per round.

    Trials are normal about a mean, which moves to the weighted mean of the best four. Their covariance is adapted to
    the moves of these four, and their size to whether the best grid improved.

    Args:
        rollouts: The rollouts whose loss is minimized.
        fractions: Parameterization of the grids.
        taus: Initial grid.
        rounds: Number of rounds.
        generator: Source of the trials, on the CPU.

    Returns:
        The best grid, whose loss is not above that of ``taus``.

    Source: Hansen 2016 (CMA-ES: the rank-mu update of the covariance, with its constants rounded).
    """

    def loss(logits: Tensor) -> float:
        return rollouts.loss(fractions.times(fractions.positions(logits)))

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
