"""The length of a run: seconds per update, measured on updates that are undone, and the updates that fit a time."""

from __future__ import annotations

import ast
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from scoresde.data import Data
from scoresde.data.conditions.parts import select
from scoresde.model import ScoreModel
from scoresde.storage import checkpoint
from scoresde.training.multi_process import accelerated, gather_numbers, preserved_random_state
from scoresde.training.run_directory import call_fields, refuse_checkpoints
from scoresde.training.settings import Training
from scoresde.training.source import TrainingSource
from scoresde.training.state import TrainingState

__all__ = ["estimate_seconds_per_update", "settled"]

_FEWEST = 20  # updates of a run whose length is a time
_SPARE = 0.03  # of the time, for the last checkpoint and callbacks
_SHORT = 60.0  # seconds: a run that takes less needs no precise estimate
_QUICK = 5.0  # seconds: an update that is expected to take longer is estimated from a smaller batch

Status = Callable[[str], None]


def settled(
    model: ScoreModel,
    data: Data | Tensor | TrainingSource,
    settings: Training,
    accelerator: Accelerator,
    run_dir: str | Path | None,
    resume: bool,
    status: Status | None = None,
    called: Sequence[tuple[int, int]] = (),
) -> Training:
    """The settings with a fixed number of updates: unchanged without ``minutes``, else as many as fit.

    A resumed run has the number of its checkpoint. Every process must call it; the main one decides.

    Args:
        model, data, settings, accelerator: As for `TrainingState`.
        run_dir: The run directory, or None.
        resume: Whether the run is resumed.
        status: Receives a sentence about the result, in the main process.
        called: For each callback the updates between two calls, and the events that the network sees in one; a forward
            pass takes a third of an update's time.

    Raises:
        FileExistsError: If a new run finds checkpoints.
        ValueError: If there is time for fewer than 20 updates.
    """
    if settings.minutes is None:
        return settings
    if run_dir is not None and resume:
        return _stored(Path(run_dir), settings)
    if run_dir is not None:
        refuse_checkpoints(Path(run_dir))
    begin, available = time.perf_counter(), 60.0 * settings.minutes
    pace = _seconds_per_update(
        model, data, settings, accelerator, seconds=min(15.0, max(1.0, 0.03 * available), 0.1 * available)
    )
    left = (available - (time.perf_counter() - begin)) * (1 - _SPARE)
    forward = pace / (3 * settings.batch_size)
    last = sum(forward * events for _, events in called)  # the call after the last update
    per_update = pace + sum(forward * events / every for every, events in called)
    steps = int(gather_numbers(accelerator, [(left - last) / per_update])[0][0])
    if steps < _FEWEST:
        needed = (available - left + last + _FEWEST * per_update / (1 - _SPARE)) / 60
        raise ValueError(
            f"minutes must be time for at least {_FEWEST} updates, got {settings.minutes:g}, time for {max(steps, 0)} "
            f"of {per_update:.3g} s here; give at least {1.1 * needed:.2g}, or take a smaller network or batch_size."
        )
    fitted = settings.fitted(steps)
    if status is not None and accelerator.is_main_process:
        ema = "" if fitted.ema is None else f", EMA decay {fitted.ema:.4g}"
        status(
            f"{steps} steps fit {settings.minutes:g} minutes at {1 / pace:.3g} steps/s, as measured; warmup "
            f"{fitted.warmup} steps{ema}"
        )
    return fitted


def _stored(run_dir: Path, settings: Training) -> Training:
    """The settings with the number of updates, warmup and EMA of the newest checkpoint."""
    meta = checkpoint.read_checkpoint(checkpoint.latest_checkpoint(run_dir)).meta
    fields = call_fields(meta["training"]) if "training" in meta else {}
    names = [name for name in ("steps", "warmup", "ema") if name in fields]
    return replace(settings, **{name: ast.literal_eval(fields[name]) for name in names})


def estimate_seconds_per_update(
    model: ScoreModel, data: Data | Tensor, settings: Training, device: str | torch.device | None = None
) -> float:
    """Seconds of one update on this machine, from a few updates that are undone, in one process.

    Where an update would take long, or the whole run is short, a part of the batch is measured and its time scaled.

    Args:
        model: Has the same weights afterwards; stays on the device.
        data: What it would be trained on.
        settings: Of the run.
        device: Where it would be trained; None takes a GPU if there is one.
    """
    with accelerated(settings.precision, device) as accelerator, preserved_random_state(accelerator.device):
        data = _first_events(data, settings.batch_size)
        few = replace(settings, batch_size=min(4, settings.batch_size), accumulate=1)
        part = _seconds_per_update(model, data, few, accelerator, seconds=0.0)
        whole = part * settings.batch_size / few.batch_size
        if whole * settings.steps < _SHORT:
            return whole
        if whole <= _QUICK:
            return _seconds_per_update(model, data, settings, accelerator, seconds=1.0)
        size = max(few.batch_size, min(settings.batch_size, int(_QUICK / whole * settings.batch_size)))
        more = replace(few, batch_size=size)
        return _seconds_per_update(model, data, more, accelerator, seconds=0.0) * settings.batch_size / size


def _first_events(data: Data | Tensor, count: int) -> Data | Tensor:
    """As many events, with their conditions: measuring needs no more."""
    if isinstance(data, Tensor):
        return data[:count]
    part = slice(0, count)
    none = slice(0, 0)
    return replace(
        data,
        train=data.train[part],
        train_cond=select(data.train_cond, part),
        test=data.test[none],
        test_cond=select(data.test_cond, none),
        rows=None,
    )


def _seconds_per_update(
    model: ScoreModel,
    data: Data | Tensor | TrainingSource,
    settings: Training,
    accelerator: Accelerator,
    seconds: float,
) -> float:
    """Seconds of one update, over about so many seconds and at least one update after the first; all are undone."""
    with _undone(model, accelerator):
        run = TrainingState(model, data, settings, accelerator)
        try:
            run.start()
            _time(run, 1)  # allocations, choice of kernels
            pace = gather_numbers(accelerator, [_time(run, 1)])[0][0]
            count = min(int(seconds / pace), 2000)
            if count < 2:
                return pace
            return gather_numbers(accelerator, [_time(run, count)])[0][0]
        finally:
            run.stop()


def _time(run: TrainingState, count: int) -> float:
    """Mean seconds of ``count`` updates."""
    begin = time.perf_counter()
    for _ in range(count):
        run.advance()
    run.read_means()  # waits for the device
    return (time.perf_counter() - begin) / count


@contextmanager
def _undone(model: ScoreModel, accelerator: Accelerator) -> Iterator[None]:
    """Restores weights, buffers and the scale of fp16 gradients, and releases what the block prepared."""
    before = [tensor.detach().to("cpu", copy=True) for tensor in (*model.parameters(), *model.buffers())]
    scale = None if accelerator.scaler is None else accelerator.scaler.state_dict()
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, saved in zip((*model.parameters(), *model.buffers()), before, strict=True):
                tensor.copy_(saved)
        if accelerator.scaler is not None and scale is not None:
            accelerator.scaler.load_state_dict(scale)
        accelerator.free_memory()
        gc.collect()  # a wrapper of several processes hooks into the weights as long as it lives
