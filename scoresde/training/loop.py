"""The training loop: updates, and between them callbacks, the history, EMA snapshots and checkpoints."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_device, check_integer
from scoresde._core.progress import ProgressBar, interactive
from scoresde.data import Data
from scoresde.model import ScoreModel, evaluating
from scoresde.process.sde import SDE
from scoresde.training.data_checks import converted_data
from scoresde.training.data_scale import warn_if_unscaled
from scoresde.training.multi_process import StopSignal, accelerated, fail_together, preserved_random_state
from scoresde.training.pace import PaceReport
from scoresde.training.run_directory import RunDirectory
from scoresde.training.run_length import settled
from scoresde.training.run_log import RunLog, check_trackers
from scoresde.training.settings import Training
from scoresde.training.source import TrainingSource
from scoresde.training.state import TrainingState
from scoresde.training.timetable import Timetable

__all__ = ["Callback", "CallbackState", "TrainingResult", "train"]


@dataclass(frozen=True)
class CallbackState:
    """The argument of a callback.

    Attributes:
        step: Updates done.
        loss: Mean training loss per dimension since the last entry of the history.
        model: The model with the averaged weights (the raw ones if there is no EMA), in evaluation mode. It has its own
            memory: the raw weights are never overwritten.
        raw: The model in training.
    """

    step: int
    loss: float
    model: ScoreModel
    raw: ScoreModel


@dataclass(frozen=True)
class Callback(CheckedArguments):
    """A callback: ``call(state)`` after every ``steps`` updates and after the last one, in the main process only.

    It may draw from the global random state: each update seeds it, and `train` restores it.

    Args:
        steps: Updates between two calls.
        call: A function of a `CallbackState`.
    """

    steps: int
    call: Callable[[CallbackState], object]

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)


@dataclass(frozen=True)
class TrainingResult:
    """The result of `train`.

    Attributes:
        model: With averaged weights (the raw ones if ``ema`` is None), in evaluation mode.
        raw: The model passed to `train`, with the raw weights, in evaluation mode.
        step: Updates done.
        history: (step, mean loss per dimension over the updates since the entry before).
        checkpoint: The last one, or None without a run directory.
    """

    model: ScoreModel = field(repr=False)
    raw: ScoreModel = field(repr=False)
    step: int
    history: list[tuple[int, float]] = field(repr=False)
    checkpoint: Path | None = None


def train(
    model: ScoreModel,
    data: Data | ArrayLike | TrainingSource,
    settings: Training | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    save_every: int = 1000,
    snapshot_every: int | None = None,
    keep: int = 2,
    callbacks: Sequence[Callback] = (),
    trackers: Sequence[str] = (),
    about: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    status: Callable[[str], None] | None = None,
    device: str | torch.device | None = None,
) -> TrainingResult:
    """Trains ``model`` in place, and returns it together with the model of the averaged weights.

    Update k depends on the settings, the data and k alone. So on the CPU a run that was interrupted and resumed gives
    the same result, bit for bit, as an uninterrupted one. The global random state does not change. With ``run_dir``,
    Ctrl-C and SIGTERM save before they end the run. Under accelerate's launcher each process takes its share of every
    batch.

    Args:
        model: Moved to the device; it gets the data's description if it has none.
        data: A data set (its train part; a network with conditions gets those of its events), or events ``(N, *D)``
            in the units of ``model.data`` if it has one, else in model units. A NumPy array, a pandas frame or a list
            of numbers is converted. Events far from mean 0 and variance 1 in model units give a warning. A
            `TrainingSource` brings batches and a loss of its own.
        settings: Of the run; default `Training()`.
        run_dir: Directory of checkpoints (at the start, every ``save_every`` updates and at the end), ``config.json``
            and ``metrics.jsonl``. None saves nothing. Several nodes must share it.
        resume: Continue from the newest undamaged checkpoint of ``run_dir``, which must exist. False refuses a
            ``run_dir`` with checkpoints.
        save_every: Updates between checkpoints.
        snapshot_every: Updates between snapshots of the EMAs of ``settings.lengths``; default a 16th of the run.
        keep: Number of checkpoints that are kept.
        callbacks: Called between updates; an exception in one ends the training.
        trackers: Names of accelerate's trackers that get the metrics too, such as "tensorboard".
        about: Further content of ``config.json``, such as the source of the data; JSON. If empty, a resumed run keeps
            what is stored there.
        progress: Whether to show a bar with the step count, loss, speed and remaining time; default: on a terminal and
            in a notebook.
        status: Receives sentences, in the main process only: how many updates fit ``settings.minutes``; and, without a
            bar, the pace and the remaining time after each tenth of the run, at most every 5 seconds.
        device: Where to train in one process; None leaves device and processes to accelerate and its launcher.

    Returns:
        The trained models and the history of the loss.

    Raises:
        TypeError, ValueError: If an argument is out of its domain; if the data are not finite, not as described or not
            as the model's; if ``run_dir`` has other settings, data or model (the message lists the differences).
        FileNotFoundError, FileExistsError: If there is nothing to resume, or a new run finds checkpoints.
        RuntimeError: If ``settings.patience`` gradients in a row were not finite (the checkpoint from before is kept);
            if another process trains in ``run_dir``; if every checkpoint in it is damaged.
        OSError: If ``run_dir`` cannot be written; raised before the first update.
        KeyboardInterrupt, SystemExit: After Ctrl-C and after SIGTERM.
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a ScoreModel, got a {type(model).__name__}; train the ScoreModel inside it.")
    check_arguments(train, locals())
    if (chosen := check_device(device)) is not None and chosen.type == "meta":
        raise ValueError("device must hold values to train, got the meta device; pass 'cpu' or 'cuda'.")
    data = converted_data(data)
    if resume and run_dir is None:
        raise ValueError("resume=True needs the run to resume, got run_dir=None; pass its directory.")
    settings = Training() if settings is None else settings
    progress = interactive() if progress is None else progress
    Timetable(settings.steps, save_every, snapshot_every)  # checks both
    check_trackers(tuple(trackers))
    with (
        accelerated(settings.precision, device, trackers, run_dir) as accelerator,
        preserved_random_state(accelerator.device),
    ):
        called = [(callback.steps, getattr(callback.call, "evaluations", 0)) for callback in callbacks]
        settings = settled(model, data, settings, accelerator, run_dir, resume, status, called)
        run = TrainingState(model, data, settings, accelerator)
        if accelerator.is_main_process and isinstance(model.sde, SDE):
            warn_if_unscaled(data, model.data)
        directory = RunDirectory(run_dir, run, keep, about or {})
        timetable = Timetable(settings.steps, save_every, snapshot_every)
        progress = progress and accelerator.is_main_process
        with directory.opened(resume), StopSignal(accelerator, enabled=run_dir is not None) as stop:
            log = RunLog(directory.path, accelerator, settings, run.step)
            try:
                run.start()
                reported = status if accelerator.is_main_process and not progress else None
                report = PaceReport(run.step, settings.steps, reported)
                _loop(run, directory, log, timetable, callbacks, stop, progress, report)
                run.gather()
            finally:
                log.close()
                run.stop()
        accelerator.wait_for_everyone()
        return TrainingResult(run.ema_model, model, run.step, run.history, directory.latest)


def _loop(
    run: TrainingState,
    directory: RunDirectory,
    log: RunLog,
    timetable: Timetable,
    callbacks: Sequence[Callback],
    stop: StopSignal,
    progress: bool,
    report: PaceReport,
) -> None:
    last, text = timetable.last, "loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} steps/s"
    with ProgressBar("training", last, run.step, enabled=progress, text=text, loss=float("nan"), speed=0.0) as bar:
        refreshed = time.monotonic()
        while run.step < last:
            before = run.step
            run.advance()
            step = run.step
            if step == before or timetable.check(step):
                run.check_gradients(directory.latest)
            if progress and time.monotonic() - refreshed > 0.5:
                bar.update(step, loss=run.read_means().loss, speed=bar.speed)
                refreshed = time.monotonic()
            if step == before:  # an overflow in fp16: the step is repeated
                continue
            report.update(step, lambda: run.read_means().loss)
            _after_update(run, directory, log, timetable, callbacks)
            if stop.agreed(synchronize=timetable.check(step)):
                if not timetable.is_last(step):
                    directory.save()
                stop.leave()
        bar.update(run.step, loss=run.history[-1][1] if run.history else float("nan"), speed=bar.speed)


def _after_update(
    run: TrainingState, directory: RunDirectory, log: RunLog, timetable: Timetable, callbacks: Sequence[Callback]
) -> None:
    step, last = run.step, timetable.is_last(run.step)
    _call(run, [callback for callback in callbacks if step % callback.steps == 0 or last])
    if timetable.history(step):
        means = run.record_history()
        log.add(step, {"loss": means.loss, "norm": means.norm, "lr": run.settings.lr_at(step)})
    if timetable.snapshot(step):
        directory.snapshot()
    if timetable.save(step) and (last or not run.read_means().skipped):
        directory.save()


def _call(run: TrainingState, callbacks: Sequence[Callback]) -> None:
    if not callbacks:
        return
    run.gather()
    with fail_together(run.accelerator):
        if run.accelerator.is_main_process:
            state = CallbackState(run.step, run.read_means().loss, run.ema_model, run.model)
            for callback in callbacks:
                with evaluating(run.ema_model):
                    callback.call(state)
            run.model.train()
