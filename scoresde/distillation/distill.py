r"""Distillation: trains a few-step student on trajectories of its teacher's probability-flow ODE.

Each update takes jumps from states on the teacher's trajectories and lowers the error of their average velocity
(`JumpLoss`). The loop, checkpoints, averages and processes are those of `scoresde.training.train`. At the end student
and calibrated teacher are compared at the same number of calls, on held-out noises.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import device_of
from scoresde._core.checks import check_integer
from scoresde._core.progress import ProgressBar, interactive
from scoresde.distillation.comparison import StudentComparison, compare
from scoresde.distillation.defaults import (
    base_moments,
    checked_solver,
    checked_training,
    checked_trajectories,
    damping_of,
)
from scoresde.distillation.flow_map import FlowMap
from scoresde.distillation.grids import ALL_NODES, jump_times, nodes_between
from scoresde.distillation.loss import JumpLoss
from scoresde.distillation.storage import read_trajectories, weights_hash, write_trajectories
from scoresde.distillation.targets import Target, Trajectory
from scoresde.distillation.teacher_last import TeacherLast
from scoresde.distillation.trajectories import Trajectories, draw_conditions, draw_noises, solve
from scoresde.model import Model, check_model, gaussian_process, refuse_unknown
from scoresde.sampling import Moments, StepSampler
from scoresde.training import Callback, Training, TrainingResult, train
from scoresde.training.run_directory import refuse_checkpoints

__all__ = ["Distillation", "distill"]

_INNER_NODES = 8  # intervals within a jump, for targets that need states there


@dataclass(frozen=True)
class Distillation:
    """The result of `distill`. Errors are root mean squares over all elements against the teacher's ODE, in x.

    Attributes:
        student: The student, with averaged weights, in evaluation mode. With ``last_call`` it ends before the data;
            ``comparison.model`` makes all calls.
        comparison: Errors of student and calibrated teacher on held-out noises, and the better of the two.
        training: Of the run.
        record: The teacher's hash, times and cost.
    """

    student: FlowMap
    comparison: StudentComparison
    training: TrainingResult = field(repr=False)
    record: dict[str, Any] = field(repr=False)


def distill(
    model: Model,
    calls: int | None = 2,
    *,
    target: Target | None = None,
    last_call: bool = False,
    taus: Sequence[float] | None = None,
    base: bool | Moments = True,
    net: nn.Module | None = None,
    trajectories: int | None = None,
    solver: StepSampler | None = None,
    training: Training | None = None,
    calibrated: bool = True,
    noises: int = 512,
    batch_size: int = 1024,
    run_dir: str | Path | None = None,
    resume: bool = False,
    save_every: int = 1000,
    callbacks: Sequence[Callback] = (),
    about: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    status: Callable[[str], None] | None = None,
    device: str | torch.device | None = None,
    **cond: Tensor,
) -> Distillation:
    """Trains a few-step student of a model, and compares it with the calibrated model at the same number of calls.

    Args:
        model: The teacher: a network's, an exact or a guided model; run in eval mode, without gradients.
        calls: Network calls of a sample: the student is trained for these jumps alone. None: for jumps between any two
            times, and on the diagonal; this takes about three times as long for the same error.
        target: Where jumps should end; default `Trajectory`.
        last_call: Whether the last of the calls is the teacher's, see `TeacherLast`; with two calls or more.
        taus: The ``calls + 1`` times of the jumps, falling from ``tau_max``; default see `jump_times`.
        base: Whether the student continues from the flow map of a Gaussian with the mean and covariance of the
            teacher's samples, or their `Moments`. True leaves it out for events of more than 1024 elements.
        net: A new network with ``delta=True``; default the teacher's, see `FlowMap.new`.
        trajectories: Number of trajectories of the teacher to train on; default 16,384 of a network, and as many of an
            exact model as have 17 million elements in all, up to 262,144.
        solver: The deterministic step sampler that computes them; its number of steps is used, not its grid. Default
            ``Adams(16, predictor_order=2, corrector_order=3)``.
        training: Settings of the run; default `scoresde.distillation.defaults.default_training`. Its loss is not used;
            its seed also draws the noises, the labels and new weights.
        calibrated: Whether to fit `calibrate` to the teacher at the same number of calls, for comparison.
        noises: Held-out noises on which both are compared.
        batch_size: Trajectories in one network call of the teacher.
        run_dir: Directory of checkpoints, as in `scoresde.training.train`; it also holds the trajectories.
        resume: Continue the run of ``run_dir``.
        save_every: Updates between checkpoints.
        callbacks: Called between updates.
        about: Further content of ``config.json``, such as where the teacher is; JSON. A resumed run keeps what it has.
        progress: Whether to show bars; default: on a terminal and in a notebook.
        status: Receives sentences: what the trajectories cost, and the errors at the end.
        device: Where to train; default where the teacher is, or with several processes where each of them computes.
        **cond: Inputs of the network, one entry per trajectory. A network of classes gets random labels by default.

    Returns:
        The student, its errors, and the better one of student and calibrated teacher.

    Raises:
        TypeError: If ``model`` is not a `Model`, or its network does not read the angle of a jump and ``net`` is None.
        ValueError: If a number is out of its range, the times do not fit, or the loss of ``training`` is not the
            default; as `scoresde.training.train`.
        RuntimeError: If the teacher's trajectories are not finite.

    Example:
        >>> from scoresde import Gaussian, Training
        >>> from scoresde.distillation import distill
        >>> import torch
        >>> few = {"trajectories": 64, "noises": 16, "calibrated": False, "progress": False}
        >>> result = distill(Gaussian(torch.ones(2), 0.3), 1, training=Training(steps=2, batch_size=8), **few)
        >>> result.comparison.student[1] < 0.1
        True
    """
    check_model(model)
    gaussian_process(model, "distill")
    check_arguments(distill, locals())
    refuse_unknown(distill, model, cond)
    check_integer("noises", noises)
    check_integer("batch_size", batch_size)
    settings = checked_training(model, net, training)
    count, solver = checked_trajectories(model, trajectories), checked_solver(solver)
    progress = interactive() if progress is None else progress
    loss, jumps = _loss(model, calls, taus, Trajectory() if target is None else target, last_call)
    folder = None if run_dir is None else Path(run_dir)
    if folder is not None and not resume and folder.exists():
        refuse_checkpoints(folder)
    begin = time.perf_counter()
    source, cost = _teach(model, loss, count, solver, settings, batch_size, cond, folder if resume else None, progress)
    if folder is not None and not resume:
        write_trajectories(folder, source, cost)
    seconds = time.perf_counter() - begin
    if status is not None:
        status(f"{count} trajectories of {cost} network calls each, {seconds:.1f} s")
    record = _record(model, calls, last_call, jumps, count, cost, seconds, solver)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # of new weights
        student = FlowMap.new(model, taus=jumps, moments=base_moments(base, source), net=net, damping=damping_of(model))
    result = train(
        student.model,
        source,
        settings,
        run_dir=run_dir,
        resume=resume,
        save_every=save_every,
        callbacks=callbacks,
        about={} if resume else {**(about or {}), "distillation": record},  # a resumed run keeps what it has stored
        progress=progress,
        status=status,
        device=_training_device(model) if device is None else device,
    )
    record["training_seconds"] = time.perf_counter() - begin - seconds
    student = FlowMap(result.model).to(device_of(model)).eval()
    settings_of_fit = {"noises": noises, "seed": settings.seed, "batch_size": batch_size, "solver": solver}
    sampled = TeacherLast(student, model) if last_call else student
    comparison = compare(model, sampled, calls, calibrated=calibrated, cond=cond, status=status, **settings_of_fit)
    return Distillation(student, comparison, result, record)


def _loss(
    model: Model, calls: int | None, taus: Sequence[float] | None, target: Target, last_call: bool
) -> tuple[JumpLoss, tuple[float, ...]]:
    """The loss of a run, and the times of the student's jumps; empty for any jumps."""
    if last_call and (calls is None or calls < 2):
        raise ValueError(f"last_call=True needs a fixed number of calls, 2 or more, got calls={calls}; leave it out.")
    if calls is None:
        if taus is not None:
            raise ValueError("taus are the times of fixed jumps, got calls=None; state calls, or leave taus out.")
        ends = (model.sde.tau_max, model.sde.tau_min)
        return JumpLoss(nodes_between(ends, ALL_NODES), None, target), ()
    times = jump_times(model.sde, calls, taus)
    times = times[:-1] if last_call else times
    every = _INNER_NODES if target.inner_nodes else 1
    return JumpLoss(nodes_between(times, every), every, target), times


def _teach(
    model: Model,
    loss: JumpLoss,
    count: int,
    solver: StepSampler,
    settings: Training,
    batch_size: int,
    cond: Mapping[str, Any],
    stored: Path | None,
    progress: bool,
) -> tuple[Trajectories, int]:
    """The teacher's trajectories, computed or read from a run that is resumed, and the network calls of each."""
    if stored is not None:
        return read_trajectories(stored, loss)
    x = draw_noises(model, count, settings.seed)
    conditions = draw_conditions(model, x, settings.seed, cond)
    velocities = loss.every is None
    with ProgressBar("trajectories", enabled=progress) as bar:
        options = {"velocities": velocities, "batch_size": batch_size, "progress": bar.update}
        states, cost = solve(model, x, loss.taus, solver, conditions, **options)
    return Trajectories(states, loss, conditions), cost


def _record(
    model: Model,
    calls: int | None,
    last_call: bool,
    jumps: tuple[float, ...],
    count: int,
    cost: int,
    seconds: float,
    solver: StepSampler,
) -> dict[str, Any]:
    return {
        "teacher_sha256": weights_hash(model),
        "calls": calls,
        "last_call": last_call,
        "taus": list(jumps),
        "trajectories": count,
        "calls_per_trajectory": cost,
        "solver": repr(solver),
        "trajectory_seconds": round(seconds, 3),
    }


def _training_device(model: Model) -> torch.device | None:
    """Where the teacher is; None under a launcher of several processes, which have devices of their own."""
    return None if int(os.environ.get("WORLD_SIZE", "1")) > 1 else device_of(model)
