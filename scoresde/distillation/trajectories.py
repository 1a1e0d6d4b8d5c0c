"""Trajectories of a teacher's probability-flow ODE at given times, and the batches of a run that trains on them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde._core.call_inputs import check_per_sample, cond_inputs, empty_state
from scoresde._core.noise import Noise
from scoresde.distillation.loss import JumpLoss
from scoresde.model import Model, evaluating, gaussian_process
from scoresde.nn.conditions import Classes, Condition
from scoresde.process import ou
from scoresde.sampling import DenseEnds, StepSampler
from scoresde.training.batches import fingerprint, seed_device
from scoresde.training.settings import Training
from scoresde.training.source import BatchSource, EventOrder, TrainingSource, derive

__all__ = ["Trajectories", "TrajectoryBatches", "draw_conditions", "draw_noises", "solve"]

_STEP, _NOISE, _LABELS = 3, 4, 5  # purposes of a derived seed


@dataclass(frozen=True, eq=False)
class Trajectories(TrainingSource):
    """What a student is trained on, and its loss.

    Attributes:
        states: States at the nodes, ``(N, K + 1, *D)``, or with velocities ``(N, 2 (K + 1), *D)``, see `JumpLoss`.
        loss: Of the student.
        cond: Inputs of the network, one entry per trajectory.
    """

    states: Tensor
    loss: JumpLoss
    cond: dict[str, Tensor] = dataclasses.field(default_factory=dict)

    def batches(self, settings: Training, device: torch.device, shards: int) -> BatchSource:
        return TrajectoryBatches(self, settings, device, shards)


class TrajectoryBatches(BatchSource):
    """Batches of trajectories, in the order of `EventOrder`.

    Args:
        source: The trajectories.
        settings: Of the run.
        device: Device of the batches.
        shards: Number of shards of each batch.
    """

    def __init__(self, source: Trajectories, settings: Training, device: torch.device, shards: int) -> None:
        self._states = source.states.to(device)
        self._cond = {name: value.to(device) for name, value in source.cond.items()}
        self._order = EventOrder(len(source.states), settings, shards, device)
        self._settings, self._device = settings, device
        self.observed_share = 1.0 / source.states.shape[1]  # one state of a trajectory is in the loss
        parts = [source.states, *source.cond.values()]
        self.fingerprint = hashlib.sha256("".join(map(fingerprint, parts)).encode()).hexdigest()[:16]

    def draw(self, step: int, shard: int) -> tuple[Tensor, dict[str, Any]]:
        seed_device(derive(self._settings.seed, _STEP, step, shard), self._device)
        index = self._order.indices(step, shard)
        return self._states[index], {name: value[index] for name, value in self._cond.items()}


def draw_noises(model: Model, count: int, seed: int, purpose: int = 0) -> Tensor:
    """Draws from the prior, in x, ``(count, *D)``, where the model is.

    Args:
        model: It must know its event shape.
        count: Number of draws.
        seed: Of the run.
        purpose: Draws of different purposes are independent.

    Raises:
        ValueError: If the model states no event shape.
    """
    if model.event_shape is None:
        raise ValueError("distill needs the shape of an event, and the model states none; pass event_shape to it.")
    like = empty_state(model)
    generator = torch.Generator(like.device).manual_seed(derive(seed, _NOISE, purpose))
    return model.sde.prior(like.new_empty(count, *model.event_shape), Noise(generator), model.sde.tau_max)


def draw_conditions(
    model: Model, x: Tensor, seed: int, given: Mapping[str, Any], purpose: int = 0
) -> dict[str, Tensor]:
    """Inputs of the network for each state: those given, and random labels, null ones too, for its other classes.

    Args:
        model: The teacher.
        x: States, ``(B, *D)``.
        seed: Of the run.
        given: By the user, one entry per trajectory. For another number of states they are repeated in order.
        purpose: As in `draw_noises`.

    Raises:
        TypeError, ValueError: If a value has no entries.
    """
    cond = {name: value.to(x.device) for name, value in cond_inputs(model, given).items()}
    if purpose == 0:
        check_per_sample(cond, len(x), "trajectory")
    cond = {name: value[torch.arange(len(x), device=x.device) % len(value)] for name, value in cond.items()}
    generator = torch.Generator().manual_seed(derive(seed, _LABELS, purpose))
    conditions: Mapping[str, Condition] = getattr(getattr(model, "net", None), "conditions", {})
    for name, condition in conditions.items():
        if name not in cond and isinstance(condition, Classes):
            count = condition.count + bool(condition.null)
            cond[name] = torch.randint(count, (len(x),), generator=generator).to(x.device)
    return cond


@torch.no_grad()
def solve(
    model: Model,
    x: Tensor,
    taus: tuple[float, ...],
    solver: StepSampler,
    cond: dict[str, Tensor],
    *,
    velocities: bool = False,
    batch_size: int = 1024,
    progress: Callable[[float], object] | None = None,
) -> tuple[Tensor, int]:
    """The teacher's states at given times.

    Args:
        model: The teacher.
        x: States at ``taus[0]``, ``(N, *D)``.
        taus: Falling times.
        solver: A deterministic step sampler; its grid is replaced by one that contains ``taus``.
        cond: Inputs of the network, one entry per state.
        velocities: Whether to append the teacher's velocities at ``taus``; one more network call each.
        batch_size: States in one network call.
        progress: Receives the share that is done.

    Returns:
        ``(N, K + 1, *D)``, with velocities ``(N, 2 (K + 1), *D)``, and the number of network calls for each trajectory.
    """
    times, parts, calls = grid_through(model, taus, solver), [], 0
    with evaluating(model):
        for begin in range(0, len(x), batch_size):
            rows = slice(begin, begin + batch_size)
            predict = _CountedCalls(model, {name: value[rows] for name, value in cond.items()})
            state, memory, states = x[rows], None, [x[rows]]
            for tau, s in zip(times, times[1:]):
                state, memory = solver.step(predict, state, tau, s, _no_noise, memory)
                if s in taus:
                    states.append(state)
            if velocities:
                states += [predict(each, tau).v for each, tau in zip(states, taus)]
            parts.append(torch.stack(states, 1))
            calls = predict.calls
            if progress is not None:
                progress(min(begin + batch_size, len(x)) / len(x))
    states = torch.cat(parts)
    if not bool(torch.isfinite(states).all()):
        raise RuntimeError(
            f"the teacher's trajectories by {solver} must be finite, got NaN or infinity; sample(model, …) with this "
            "solver names the network call that returned them."
        )
    return states, calls


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")


def grid_through(model: Model, taus: tuple[float, ...], solver: StepSampler) -> list[float]:
    """The times of `DenseEnds`, of which the nearest in the angle are replaced by ``taus``."""
    steps = max(solver.steps, 2 * (len(taus) - 1))
    sde = gaussian_process(model)
    sde = dataclasses.replace(sde, tau_min=taus[-1]) if taus[-1] > 0 else sde
    fine = DenseEnds().times(sde, steps, taus[0])
    inner = fine[1:-1]
    for tau in sorted(set(taus[1:-1]) - set(inner)):
        others = [i for i, time in enumerate(inner) if time not in taus]
        nearest = min(others, key=lambda i: abs(ou.angle(inner[i]) - ou.angle(tau)))
        inner[nearest] = tau
    return [taus[0], *sorted(inner, reverse=True), taus[-1]]


class _CountedCalls:
    """The teacher's network call, counted."""

    def __init__(self, model: Model, cond: dict[str, Tensor]) -> None:
        self._model, self._cond, self.calls = model, cond, 0

    def __call__(self, x: Tensor, tau: float) -> Any:
        self.calls += self._model.cost
        return self._model.predict(x, tau, **self._cond)
