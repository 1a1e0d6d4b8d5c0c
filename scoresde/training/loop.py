"""How does a run go? Update after update, with a look, a point of the history, callbacks and a checkpoint when due."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde._core.progress import ProgressBar, interactive
from scoresde.data import Data
from scoresde.model import ScoreModel, evaluating
from scoresde.training.processes import Stop, accelerated, own_randomness, together
from scoresde.training.run_directory import RunDirectory
from scoresde.training.run_log import RunLog, check_trackers
from scoresde.training.settings import Training
from scoresde.training.update import TrainingState

__all__ = ["Callback", "CallbackState", "TrainingResult", "train"]

_LOOK = 20  # updates between two looks at what is summed on the device
_POINTS = 500  # of the history, at most
_SNAPSHOTS = 16  # of averages


@dataclass(frozen=True)
class CallbackState:
    """What a callback is told.

    Attributes:
        step: Updates done.
        loss: Mean training loss per dimension since the last point of the history.
        model: The model with the averaged weights (the raw ones where there is no average), in evaluation mode. The
            averaged weights have memory of their own: they are never swapped in, so the raw ones are never at risk.
        raw: The model in training.
    """

    step: int
    loss: float
    model: ScoreModel
    raw: ScoreModel


@dataclass(frozen=True)
class Callback:
    """A callback: ``call(moment)`` after each ``steps`` updates and after the last one, in the main process only.

    It may draw from global random state: each update seeds its own, and what was there before training is put back.
    """

    steps: int
    call: Callable[[CallbackState], object]

    def __post_init__(self) -> None:
        _check_whole("steps", self.steps)


@dataclass(frozen=True)
class TrainingResult:
    """The result of `train`.

    Attributes:
        model: With averaged weights (the raw ones where ``ema`` is None), in evaluation mode.
        raw: The model that was given, with the weights as trained, in evaluation mode.
        step: Updates done.
        history: (step, mean loss per dimension over the updates since the point before).
        checkpoint: The last one, or None without a run directory.
    """

    model: ScoreModel = field(repr=False)
    raw: ScoreModel = field(repr=False)
    step: int
    history: list[tuple[int, float]] = field(repr=False)
    checkpoint: Path | None = None


def train(
    model: ScoreModel,
    data: Data | Tensor,
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
    device: str | torch.device | None = None,
) -> TrainingResult:
    """Trains ``model`` in place, and returns it beside one with the averaged weights.

    Update k depends on the settings, the data and k alone: on the CPU a run that was stopped anywhere and resumed ends,
    bit for bit, as the run that was not. Global random state is left as it was. With ``run_dir``, Ctrl-C and SIGTERM
    save before they end the run. Under accelerate's launcher each process takes its share of every batch.

    Args:
        model: What to train; moved to the device that is used, and given the data's description if it has none.
        data: A data set (its train part; its labels go to a network with ``num_classes``), or events ``(N, *D)`` in the
            units of ``model.data`` if it has one, else in model units. Levels are dequantized anew in each update.
        settings: Of the run; default `Training()`.
        run_dir: Where checkpoints go: at the start, every ``save_every`` updates and at the end; with ``config.json``
            and ``metrics.jsonl``. None saves nothing. Several nodes must share it.
        resume: Go on from the newest good checkpoint of ``run_dir``, which must be there. False refuses to begin where
            there is one.
        save_every: Updates between checkpoints.
        snapshot_every: Updates between snapshots of the averages of ``settings.lengths``; default a 16th of the run.
        keep: How many checkpoints stay.
        callbacks: What to call while training; an exception in one ends it.
        trackers: Names of accelerate's trackers that get the metrics too, such as "tensorboard".
        about: What else ``config.json`` shall say, such as where the data came from; JSON. A run that goes on keeps
            what it said, where this is empty.
        progress: Whether to show a bar with the step count, loss, speed and time to go; default: on a terminal and in a
            notebook.
        device: Where to train in one process; None leaves device and processes to accelerate and its launcher.

    Returns:
        The trained model, and how it went.

    Raises:
        TypeError, ValueError: If an argument is out of its domain; if the data are not finite or not as described, or
            not what the model was made for; if ``run_dir`` was made with other settings, data or model (it lists them).
        FileNotFoundError, FileExistsError: If there is nothing to resume, or something where a run shall begin.
        RuntimeError: If ``settings.patience`` gradients in a row were not finite (the checkpoint from before is kept);
            if another process trains in ``run_dir``; if every checkpoint in it is damaged.
        OSError: If ``run_dir`` cannot be written, which shows before the first update.
        KeyboardInterrupt, SystemExit: After Ctrl-C and after SIGTERM.
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"a ScoreModel can be trained, got a {type(model).__name__}; train the ScoreModel inside of it."
        )
    if resume and run_dir is None:
        raise ValueError("resume=True needs the run to resume, got run_dir=None; pass its directory.")
    settings = Training() if settings is None else settings
    progress = interactive() if progress is None else progress
    snapshot_every = max(1, settings.steps // _SNAPSHOTS) if snapshot_every is None else snapshot_every
    for name, value in (("save_every", save_every), ("snapshot_every", snapshot_every)):
        _check_whole(name, value)
    check_trackers(tuple(trackers))
    with (
        accelerated(settings.precision, device, trackers, run_dir) as accelerator,
        own_randomness(accelerator.device),
    ):
        run = TrainingState(model, data, settings, accelerator)
        directory = RunDirectory(run_dir, run, keep, about or {})
        due = _Due(settings.steps, save_every, snapshot_every)
        with directory.held(resume), Stop(accelerator, waiting=run_dir is not None) as stop:
            record = RunLog(directory.path, accelerator, settings, run.step)
            try:
                run.start()
                _loop(run, directory, record, due, callbacks, stop, progress and accelerator.is_main_process)
                run.gather()
            finally:
                record.close()
                run.stop()
        accelerator.wait_for_everyone()
        return TrainingResult(run.averaged, model, run.step, run.history, directory.latest)


@dataclass(frozen=True)
class _Due:
    """When what is done between updates; the last one is always the end."""

    last: int
    save_every: int
    snapshot_every: int

    def end(self, step: int) -> bool:
        return step == self.last

    def look(self, step: int) -> bool:
        return step % _LOOK == 0 or self.end(step)

    def note(self, step: int) -> bool:
        spacing = _LOOK * -(-self.last // (_POINTS * _LOOK)) if self.last else 1
        return step % spacing == 0 or self.end(step)

    def save(self, step: int) -> bool:
        return step % self.save_every == 0 or self.end(step)

    def snapshot(self, step: int) -> bool:
        return step % self.snapshot_every == 0 or self.end(step)


def _loop(
    run: TrainingState,
    directory: RunDirectory,
    record: RunLog,
    due: _Due,
    callbacks: Sequence[Callback],
    stop: Stop,
    progress: bool,
) -> None:
    text = "loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} steps/s"
    with ProgressBar("training", due.last, run.step, enabled=progress, text=text, loss=float("nan"), speed=0.0) as bar:
        shown = time.monotonic()
        while run.step < due.last:
            before = run.step
            run.advance()
            step = run.step
            if step == before or due.look(step):
                run.check(directory.latest)
            if progress and time.monotonic() - shown > 0.5:
                bar.update(step, loss=run.look().mean, speed=bar.speed)
                shown = time.monotonic()
            if step == before:  # an overflow in fp16: the step comes again
                continue
            _between(run, directory, record, due, callbacks)
            if stop.agreed(due=due.look(step)):
                if not due.end(step):
                    directory.save()
                stop.leave()
        bar.update(run.step, loss=run.history[-1][1] if run.history else float("nan"), speed=bar.speed)


def _between(
    run: TrainingState, directory: RunDirectory, record: RunLog, due: _Due, callbacks: Sequence[Callback]
) -> None:
    """What is due after an update."""
    step, end = run.step, due.end(run.step)
    _call(run, [c for c in callbacks if step % c.steps == 0 or end])
    if due.note(step):
        tally = run.note()
        record.add(step, {"loss": tally.mean, "norm": tally.norm, "lr": run.settings.lr_at(step)})
    if due.snapshot(step):
        directory.snapshot()
    if due.save(step) and (end or not run.look().skipped):
        directory.save()


def _call(run: TrainingState, callbacks: Sequence[Callback]) -> None:
    if not callbacks:
        return
    run.gather()
    with together(run.accelerator):
        if run.accelerator.is_main_process:
            moment = CallbackState(run.step, run.look().mean, run.averaged, run.model)
            for callback in callbacks:
                with evaluating(run.averaged):
                    callback.call(moment)
            run.model.train()


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}.")
