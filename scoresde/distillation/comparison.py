"""Student and calibrated teacher at the same number of network calls, on held-out noises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from scoresde.distillation.flow_map import FlowMap
from scoresde.distillation.teacher_last import TeacherLast
from scoresde.distillation.trajectories import draw_conditions, draw_noises, solve
from scoresde.model import Model
from scoresde.sampling import Adams, Calibration, Jumps, Sampler, StepSampler, calibrate, sample

__all__ = ["StudentComparison", "compare"]

_CALLS = (1, 2, 4, 8)  # at which a student of any jumps is measured
_FIT_NOISES, _FINER = 75, 4


@dataclass(frozen=True)
class StudentComparison:
    """Errors on held-out noises: root mean squares over all elements, in x, against the teacher's ODE.

    Attributes:
        model: The better of student and teacher.
        sampler: With which it is sampled; `sample` of ``model`` with it is the best few-step sample known.
        student: Number of calls -> error of the student.
        calibrated: Number of calls -> error of the calibrated teacher; empty if it was not fitted.
        medians: Number of calls -> median over the samples of the student's error of one sample.
        calibration: Of the teacher, or None.
    """

    model: Model = field(repr=False)
    sampler: Sampler
    student: dict[int, float]
    calibrated: dict[int, float]
    medians: dict[int, float]
    calibration: Calibration | None = field(default=None, repr=False)


def compare(
    teacher: Model,
    student: FlowMap | TeacherLast,
    calls: int | None,
    *,
    calibrated: bool,
    noises: int,
    seed: int,
    batch_size: int,
    solver: StepSampler,
    cond: Mapping[str, Any],
    status: Callable[[str], None] | None,
) -> StudentComparison:
    """Measures a student, fits `calibrate` at the same number of calls, and chooses the better.

    Args:
        teacher, student: The models.
        calls: Calls that the student was trained for; None for any, measured at 1, 2, 4 and 8.
        calibrated: Whether to fit the teacher.
        noises: Number of held-out noises.
        seed: Of the run.
        batch_size: States in one network call.
        solver: Of the trajectories; the reference has four times its steps.
        cond: Given by the user, one entry per trajectory.
        status: Receives a sentence for each number of calls.
    """
    x = draw_noises(teacher, noises, seed, 1)
    conditions: dict[str, Any] = draw_conditions(teacher, x, seed, cond, 1)
    reference = replace(solver, steps=_FINER * solver.steps)
    ends = (teacher.sde.tau_max, student.jump_times[-1] if student.jump_times else teacher.sde.tau_min)
    truth = solve(teacher, x, ends, reference, conditions, batch_size=batch_size)[0][:, 1]

    def errors(model: Model, sampler: Sampler) -> tuple[float, float]:
        init = x * model.sde.scale(min(ends[0], 300.0))
        generator = torch.Generator(x.device).manual_seed(seed)  # without which sample would draw from the global one
        options = {"init": init, "batch_size": batch_size, "generator": generator, **conditions}
        result = sample(model, tuple(x.shape), sampler, **options)
        square = (result.x / model.sde.scale(result.tau) - truth).double().reshape(len(x), -1).square().mean(1)
        return float(square.mean().sqrt()), float(square.sqrt().median())

    counts = _CALLS if calls is None else (calls,)
    measured = {count: errors(student, Jumps(count)) for count in counts}
    best: tuple[Model, Sampler] = (student, Jumps() if calls is not None else Jumps(4))
    fitted, calibration = {}, None
    if calibrated and calls is not None:
        calibration = _calibration(teacher, calls, seed, batch_size, cond)
        fitted = {calls: errors(teacher, calibration.sampler)[0]}
        if fitted[calls] < measured[calls][0]:
            best = (teacher, calibration.sampler)
    if status is not None:
        for count, (error, median) in measured.items():
            other = f"; the calibrated teacher {fitted[count]:.3g}" if count in fitted else ""
            status(f"{count} calls: student {error:.3g} (median {median:.3g}){other}, rms on {noises} held-out noises")
    student_errors, medians = ({count: pair[i] for count, pair in measured.items()} for i in (0, 1))
    return StudentComparison(*best, student_errors, fitted, medians, calibration)


def _calibration(teacher: Model, calls: int, seed: int, batch_size: int, cond: Mapping[str, Any]) -> Calibration:
    x = draw_noises(teacher, 2 * _FIT_NOISES, seed, 2)
    conditions = draw_conditions(teacher, x, seed, cond, 2)
    generator = torch.Generator(x.device).manual_seed(seed)
    options: dict[str, Any] = {"noises": _FIT_NOISES, "batch_size": batch_size, "generator": generator, **conditions}
    return calibrate(teacher, Adams(), calls, **options)
