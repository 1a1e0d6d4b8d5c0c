"""``scoresde distill``: trains a few-step student of a trained model and writes its run directory."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options
from scoresde.cli.model_options import ModelOptions
from scoresde.cli.train_options import check_length

if TYPE_CHECKING:
    from scoresde.distillation import StudentComparison, Target
    from scoresde.model import ScoreModel
    from scoresde.storage.checkpoint import Checkpoint
    from scoresde.training import Training

__all__ = ["distill"]

_TRAJECTORIES = 16_384  # of a network, as in `scoresde.distillation.defaults`


def distill(
    checkpoint: options.Checkpoint,
    out: Path = typer.Option(..., "--out", help="Run directory to write.", show_default=False),
    calls: str = typer.Option(
        "2",
        "--calls",
        help="Network calls of a sample, for which the student is trained; any: for jumps of any length.",
    ),
    target: str = typer.Option(
        "Trajectory()", "--target", help="Where jumps should end: Trajectory(), Eulerian(nodes=1) or Semigroup()."
    ),
    trajectories: int = typer.Option(
        None,
        "--trajectories",
        min=1,
        help="Trajectories of the teacher; default 16384.",
        show_default=False,
    ),
    solver: str = typer.Option(
        "Adams(steps=16, predictor_order=2, corrector_order=3)",
        "--solver",
        help="Sampler that computes them, without noise.",
    ),
    base: bool = typer.Option(
        True, "--base/--no-base", help="Continue from the flow map of a Gaussian with the samples' mean and covariance."
    ),
    calibrated: bool = typer.Option(
        True, "--calibrated/--no-calibrated", help="Compare with the calibrated teacher at as many calls."
    ),
    steps: int = typer.Option(None, "--steps", min=1, help="Number of training steps; default 1000."),
    minutes: float = typer.Option(None, "--minutes", help="Train for about this time, in place of --steps."),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Trajectories per training step; default 256."),
    optimizer: str = typer.Option(None, "--optimizer", help="adamw, or muon (orthogonalized steps for matrices)."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    seed: int = typer.Option(0, "--seed", min=0, max=options.MOST_SEED, help="Random seed of noises and order."),
    resume: bool = typer.Option(False, "--resume", help="Continue the run in --out, with the same options."),
    save_every: int = typer.Option(1000, "--save-every", min=1, help="Training steps between checkpoints."),
    quiet: options.Quiet = False,
    *,
    weights: ModelOptions,
) -> None:
    """Train a few-step student of a trained model.

    The student starts as the model itself and learns to make long jumps along its trajectories. At the end it is
    compared with the calibrated model at the same number of network calls.

    For example:

        scoresde distill runs/digits --calls 2 --out runs/digits-2

        scoresde sample runs/digits-2 -n 64 --out grid.png

        scoresde distill runs/digits --calls any --minutes 5 --out runs/digits-any
    """
    from scoresde.cli.parsing import parse
    from scoresde.sampling import StepSampler

    count = _parsed_calls(calls)
    check_length(steps, minutes)
    modules = weights.modules(checkpoint)
    method, goal = parse(solver, StepSampler, modules), _parsed_target(target)

    from scoresde.cli import console
    from scoresde.cli.sample_output import default_output
    from scoresde.distillation import FlowMap
    from scoresde.distillation import distill as run
    from scoresde.storage.checkpoint import read_checkpoint

    stored = read_checkpoint(checkpoint)
    model = weights.load(stored, modules)
    if isinstance(model, FlowMap):
        raise ValueError(f"{checkpoint} holds a student; distill its teacher.")
    drawn, cond = _conditions(checkpoint, stored, model, trajectories)
    result = run(
        model,
        count,
        target=goal,
        base=base,
        trajectories=drawn,
        solver=method,
        training=_training(steps=steps, minutes=minutes, batch_size=batch_size, optimizer=optimizer, lr=lr, seed=seed),
        calibrated=calibrated,
        run_dir=out,
        resume=resume,
        save_every=save_every,
        about={"teacher": str(stored.path), "imports": weights.imports},
        progress=not quiet,
        status=None if os.environ.get("RANK", "0") != "0" else console.print_status,
        device=weights.device,
        **cond,
    )
    if os.environ.get("RANK", "0") != "0":
        return
    console.print_table(["calls", "student", "median", "calibrated teacher"], _errors(result.comparison))
    command = shlex.join(["scoresde", "sample", str(out), "--out", default_output(model)])
    console.print_done(f"{result.training.step} steps; saved in {result.training.checkpoint}", command)
    if result.comparison.model is model:
        better = ["scoresde", "calibrate", str(checkpoint), "--steps", calls]
        console.print_command("the calibrated teacher is better", shlex.join(better))


def _conditions(
    checkpoint: Path, stored: Checkpoint, model: ScoreModel, trajectories: int | None
) -> tuple[int | None, dict[str, Any]]:
    """The number of trajectories, and the conditions of training events for each; classes alone are drawn at random."""
    from scoresde.cli.given_conditions import recorded_conditions
    from scoresde.nn import Classes
    from scoresde.training.condition_checks import conditions_of

    if all(isinstance(condition, Classes) for condition in conditions_of(model.net).values()):
        return trajectories, {}
    count = _TRAJECTORIES if trajectories is None else trajectories
    return count, recorded_conditions(checkpoint, stored, model, count, "train")


def _parsed_calls(text: str) -> int | None:
    if text.strip() == "any":
        return None
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"--calls must be a positive integer, or any, got {text!r}; 2 is usual.")
    return int(text)


def _parsed_target(text: str) -> Target:
    import scoresde.distillation
    from scoresde.storage import spec

    known = spec.known_classes(scoresde.distillation)
    return spec.parse(text, known, kind=scoresde.distillation.Target)


def _training(steps: int | None, **changes: int | float | str | None) -> Training:
    from dataclasses import replace

    from scoresde.distillation.defaults import default_training

    settings = default_training() if steps is None else default_training().fitted(steps)
    return replace(settings, **{name: value for name, value in changes.items() if value is not None})


def _errors(comparison: StudentComparison) -> list[list[str]]:
    rows = []
    for calls, error in comparison.student.items():
        rival = comparison.calibrated.get(calls)
        median = comparison.medians[calls]
        rows.append([str(calls), f"{error:.3g}", f"{median:.3g}", "–" if rival is None else f"{rival:.3g}"])
    return rows
