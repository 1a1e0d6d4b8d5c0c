"""How does a run go? Update after update, with a look, a point of the history, callbacks and a checkpoint when due."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor

from scoresde.data import Data
from scoresde.model import ScoreModel, evaluating
from scoresde.training.directory import RunDirectory
from scoresde.training.progress import Bar
from scoresde.training.settings import Training
from scoresde.training.update import Run

__all__ = ["Every", "Moment", "Trained", "train"]

_LOOK = 20  # updates between two looks at what is summed on the device
_POINTS = 500  # of the history, at most


@dataclass(frozen=True)
class Moment:
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
class Every:
    """A callback: ``call(moment)`` after each ``steps`` updates and after the last one, in the main process only.

    It may draw from global random state: each update seeds its own, and what was there before training is put back.
    """

    steps: int
    call: Callable[[Moment], object]

    def __post_init__(self) -> None:
        _check_whole("steps", self.steps)


@dataclass(frozen=True)
class Trained:
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
    keep: int = 2,
    callbacks: Sequence[Every] = (),
    progress: bool = False,
    device: str | torch.device | None = None,
) -> Trained:
    """Trains ``model`` in place, and returns it beside one with the averaged weights.

    Update k depends on the settings, the data and k alone: on the CPU a run that was stopped anywhere and resumed ends,
    bit for bit, as the run that was not. Global random state is left as it was.

    Args:
        model: What to train; moved to the device that is used, and given the data's description if it has none.
        data: A data set (its train part; its labels go to a network with ``num_classes``), or events ``(N, *D)`` in the
            units of ``model.data`` if it has one, else in model units. Levels are dequantised anew in each update.
        settings: Of the run; default `Training()`.
        run_dir: Where checkpoints go: at the start, every ``save_every`` updates and at the end. None saves nothing.
        resume: Go on from the newest good checkpoint of ``run_dir``, which must be there. False refuses to begin where
            there is one.
        save_every: Updates between checkpoints.
        keep: How many checkpoints stay.
        callbacks: What to call while training; an exception in one ends it.
        progress: Show a bar with loss and speed.
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
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(
            f"a ScoreModel can be trained, got a {type(model).__name__}; train the ScoreModel inside of it."
        )
    if resume and run_dir is None:
        raise ValueError("resume=True needs the run to resume, got run_dir=None; pass its directory.")
    _check_whole("save_every", save_every)
    settings = Training() if settings is None else settings
    with _accelerate(settings.precision, device) as accelerator, _own_randomness(accelerator.device):
        run = Run(model, data, settings, accelerator)
        directory = RunDirectory(run_dir, run, keep)
        with directory.held(resume):
            try:
                run.start()
                _loop(run, directory, save_every, callbacks, progress and accelerator.is_main_process)
            finally:
                run.stop()
        accelerator.wait_for_everyone()
        return Trained(run.averaged, model, run.step, run.history, directory.latest)


def _loop(run: Run, directory: RunDirectory, save_every: int, callbacks: Sequence[Every], progress: bool) -> None:
    last = run.settings.steps
    spacing = _LOOK * -(-last // (_POINTS * _LOOK)) if last else 1
    with Bar(run.step, last, enabled=progress) as bar:
        shown = time.monotonic()
        while run.step < last:
            before = run.step
            run.advance()
            step, end = run.step, run.step == last
            if step == before or step % _LOOK == 0 or end:
                run.check(directory.latest)
            if progress and time.monotonic() - shown > 0.5:
                bar.show(step, run.look().mean)
                shown = time.monotonic()
            if step == before:  # an overflow in fp16: the step comes again
                continue
            _call(run, [c for c in callbacks if step % c.steps == 0 or end])
            if step % spacing == 0 or end:
                run.note()
            if end or (step % save_every == 0 and not run.look().skipped):
                directory.save()
        bar.show(run.step, run.history[-1][1] if run.history else float("nan"))


def _call(run: Run, callbacks: Sequence[Every]) -> None:
    if callbacks and run.accelerator.is_main_process:
        moment = Moment(run.step, run.look().mean, run.averaged, run.model)
        for callback in callbacks:
            with evaluating(run.averaged):
                callback.call(moment)
        run.model.train()


@contextmanager
def _accelerate(precision: str, device: str | torch.device | None) -> Iterator[Accelerator]:
    """An accelerator for one run. accelerate keeps its state per process; what is found there is put back."""
    states = [(s, dict(s._shared_state)) for s in (AcceleratorState, GradientState)]
    for state, _ in states:
        state._shared_state.clear()
    try:
        accelerator = Accelerator(mixed_precision=precision)
        if device is not None:
            accelerator.state.device = torch.device(device)  # pyright: ignore[reportAttributeAccessIssue]
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("fp16 needs a GPU, got the CPU; use precision='bf16' or 'no'.")
        yield accelerator
    finally:
        for state, found in states:
            state._shared_state.clear()
            state._shared_state.update(found)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Global random state, on the CPU and the device, is as before afterwards."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type == kind else []
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def _check_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}.")
