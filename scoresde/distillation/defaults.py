"""Default settings of a distillation, and their checks: training, number of trajectories, solver, base map, damping."""

from __future__ import annotations

import math

from torch import nn

from scoresde._core.checks import check_integer
from scoresde.distillation.trajectories import Trajectories
from scoresde.model import Model, ScoreModel, gaussian_output, wrapped_models
from scoresde.objective import Loss
from scoresde.sampling import Adams, Moments, StepSampler
from scoresde.sampling.base import check_deterministic
from scoresde.training import Training

__all__ = [
    "base_moments",
    "checked_solver",
    "checked_training",
    "checked_trajectories",
    "damping_of",
    "default_training",
]

_MOST_AXES = 1024  # elements of an event of which a base map is computed by default
_ELEMENTS = 1 << 24  # in the last states of an exact model's trajectories
_DAMPING = 0.3  # of students of eps and score networks; see AverageVelocity


def default_training(new: bool = False) -> Training:
    """Settings of a run that trains a student: AdamW for a teacher's network, Muon for a new one.

    Args:
        new: Whether the network is new.
    """
    if new:
        return Training(1500, 1024, optimizer="muon", lr=1e-2, lr_end=0.0, ema=0.99, condition_dropout=0.0)
    return Training(1000, 256, lr=2e-3, betas=(0.9, 0.99), lr_end=0.0, ema=0.99, condition_dropout=0.0)


def _default_count(model: Model) -> int:
    """The default number of trajectories."""
    if isinstance(model, ScoreModel) or wrapped_models(model):
        return 16_384
    return max(16_384, min(262_144, _ELEMENTS // math.prod(model.event_shape or (1,))))


def checked_training(model: Model, net: nn.Module | None, training: Training | None) -> Training:
    """The settings of a run, or the defaults.

    Raises:
        ValueError: If they have a loss, which a distillation does not use.
    """
    if training is None:
        return default_training(new=net is not None or not isinstance(model, ScoreModel))
    if training.loss != Loss():
        raise ValueError(
            f"a distillation has a loss of its own, got Training(loss={training.loss}); leave it out; target= chooses "
            "where jumps should end."
        )
    return training


def checked_trajectories(model: Model, count: int | None) -> int:
    """The number of trajectories, or the default.

    Raises:
        ValueError: If it is not a positive integer.
    """
    if count is None:
        return _default_count(model)
    check_integer("trajectories", count)
    return count


def checked_solver(solver: StepSampler | None) -> StepSampler:
    """The solver of the trajectories, or the default.

    Raises:
        TypeError, ValueError: If it is not a deterministic step sampler.
    """
    if solver is None:
        return Adams(16, predictor_order=2, corrector_order=3)
    check_deterministic(solver, "distill")
    return solver


def base_moments(base: bool | Moments, source: Trajectories) -> Moments | None:
    """The moments of the base map; None for no base map."""
    if isinstance(base, Moments):
        return base
    ends = source.states[:, len(source.loss.taus) - 1]
    if not base or len(ends) < 2 or ends[0].numel() > _MOST_AXES:
        return None
    return Moments.of(ends)


def damping_of(model: Model) -> float:
    """The damping of a student: none where the teacher's target determines v at every noise level."""
    if not isinstance(model, ScoreModel):
        return 0.0
    determinant = abs(float(gaussian_output(model).determinant(model.sde.tau_max)))
    return _DAMPING if determinant < _DAMPING else 0.0
