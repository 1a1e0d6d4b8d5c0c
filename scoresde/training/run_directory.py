"""How is a run kept on disk, and how does it go on? Checkpoints hold all of its state and the settings that made it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from scoresde.storage import checkpoint, spec
from scoresde.training.processes import together
from scoresde.training.run_log import CONFIG, write_config
from scoresde.training.running_mean import RunningMeans
from scoresde.training.update import TrainingState

__all__ = ["RunDirectory", "differences"]


class RunDirectory:
    """The checkpoints and snapshots of one run; with path None it does nothing.

    Every process calls; the main one writes, and all read: several nodes must share the directory.

    Args:
        path: The directory.
        run: Whose state is kept there.
        keep: How many checkpoints stay.
        about: What else ``config.json`` shall say; a run that goes on keeps what it said, where this is empty.

    Attributes:
        latest: The newest checkpoint.

    Raises:
        TypeError: If a setting has no text form, such as a weighting that is a function.
    """

    def __init__(self, path: str | Path | None, run: TrainingState, keep: int, about: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.latest: Path | None = None
        self._run, self._keep, self._about = run, keep, about
        self._made_by = {} if path is None else _made_by(run)

    @contextmanager
    def held(self, resume: bool) -> Iterator[None]:
        """Takes the directory for this run, and begins or resumes it.

        Raises:
            FileNotFoundError: If there is nothing to resume.
            FileExistsError: If there is something where a run shall begin.
            ValueError: If what is there was made by another run.
            OSError: If it cannot be written.
            RuntimeError: If another run holds it, or all of its checkpoints are damaged.
        """
        if self.path is None:
            yield
            return
        with ExitStack() as held:
            with together(self._run.accelerator):
                self._take(held, resume)
            if resume:
                with together(self._run.accelerator):
                    self._restore(checkpoint.read_checkpoint(checkpoint.latest_checkpoint(self.path)))
                with together(self._run.accelerator):
                    self._tidy()
                    self._configure(self._about or _told(self.path / CONFIG))
            else:
                self.save()
            yield

    def save(self) -> None:
        """Writes the run's state as the next checkpoint."""
        run = self._run
        if self.path is None:
            return
        tallies = run.tallies()
        run.gather()
        with together(run.accelerator):
            if run.accelerator.is_main_process:
                self._write(self.path, tallies)
        if not run.accelerator.is_main_process:
            self.latest = next(iter(checkpoint.numbered(self.path)), None)

    def snapshot(self) -> None:
        """Stores the averages of ``settings.lengths``."""
        run = self._run
        if self.path is None or not run.lengths:
            return
        run.gather()
        with together(run.accelerator):
            if run.accelerator.is_main_process:
                nets = [average.net for average in run.lengths]
                checkpoint.save_snapshot(self.path, run.step, run.settings.lengths, nets)

    def _take(self, held: ExitStack, resume: bool) -> None:
        assert self.path is not None
        if not self._run.accelerator.is_main_process:
            return
        if resume:
            checkpoint.latest_checkpoint(self.path)  # nothing is made where there is nothing to resume
        elif any(next(self.path.glob(name), None) is not None for name in ("checkpoint-*", "averages/step-*")):
            raise FileExistsError(
                f"a run begins in a directory without checkpoints, of averages too, {self.path} holds some; pass "
                "resume=True to go on with that run, or another run_dir."
            )
        self._make()
        held.enter_context(checkpoint.only_writer(self.path))
        if not resume:
            self._configure(self._about)

    def _configure(self, about: Mapping[str, Any]) -> None:
        assert self.path is not None
        if self._run.accelerator.is_main_process:
            write_config(self.path, {"model": checkpoint.model_settings(self._run.model), **self._made_by}, about)

    def _write(self, path: Path, tallies: list[RunningMeans]) -> None:
        run = self._run
        tensors, text = checkpoint.optimizer_state(run.optimizer)
        groups = {"optimizer": tensors, **({"times": run.learning.state} if run.learning.state else {})}
        groups |= {f"average_{i}": checkpoint.weights_of(average.net) for i, average in enumerate(run.lengths)}
        scaler = run.accelerator.scaler
        meta: dict[str, Any] = {
            "step": run.step,
            **self._made_by,
            "lengths": list(run.settings.lengths),
            "optimizer": text,
            "scaler": None if scaler is None else scaler.state_dict(),
            "tallies": [tally.numbers for tally in tallies],
            "history": [list(point) for point in run.history],
            "torch": str(torch.__version__),
        }
        average = None if run.average is None else run.average.net
        self.latest = checkpoint.save(run.model, path, ema=average, tensors=groups, meta=meta, keep=self._keep)

    def _tidy(self) -> None:
        assert self.path is not None
        if self._run.accelerator.is_main_process:
            checkpoint.discard_after(self.path, self._run.step)

    def _make(self) -> None:
        assert self.path is not None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".lock").touch()
        except OSError as error:
            raise OSError(
                error.errno, f"a run directory must be writable, {self.path} is not ({error.strerror}); choose another."
            ) from error

    def _restore(self, found: checkpoint.Checkpoint) -> None:
        run, meta = self._run, found.meta
        if "step" not in meta or "training" not in meta:
            raise ValueError(f"a run is resumed from a checkpoint of a run, {found.path} holds a model alone.")
        checkpoint.require_same(found, run.model)
        wrong = differences(meta, self._made_by)
        if wrong:
            raise ValueError(
                f"a run is resumed with the settings and data it was begun with; {found.path} has {'; '.join(wrong)}. "
                "Use those, or begin anew in another run_dir."
            )
        if meta["step"] > run.settings.steps:
            raise ValueError(f"steps must be at least the {meta['step']} done, got {run.settings.steps}.")
        checkpoint.load_optimizer(run.optimizer, found.tensors["optimizer"], meta["optimizer"])
        checkpoint.load_into(run.model.net, found.tensors["model"])
        if run.average is not None:
            checkpoint.load_into(run.average.net, found.tensors["ema"])
        for i, length in enumerate(run.lengths):
            checkpoint.load_weights(length.net, found.tensors[f"average_{i}"])
        run.learning.restore(found.tensors.get("times", {}))
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(meta["scaler"])
        run.step, run.history = meta["step"], [(int(step), float(loss)) for step, loss in meta["history"]]
        tallies = [RunningMeans.read(numbers) for numbers in meta["tallies"]]
        here, n = run.accelerator.process_index, run.accelerator.num_processes
        run.tally = tallies[here] if len(tallies) == n else RunningMeans.joined(tallies)
        self.latest = found.path


def differences(found: dict[str, Any], asked: dict[str, Any]) -> list[str]:
    """Which settings differ, with both values.

    A longer run at a constant learning rate is no other run; nor is one whose shards are shared out otherwise among
    processes and accumulated parts.

    Args:
        found: Metadata of a checkpoint.
        asked: Those that a checkpoint of the run would now have.
    """
    was, now = _fields(found["training"]), _fields(asked["training"])
    was["accumulate"] = now["accumulate"]  # `shards` has it, times the processes
    if _number(was.get("lr_end")) == _number(now.get("lr_end")) == 1:
        was["steps"] = now["steps"]
    same = {n for n in (*was, *now) if _number(was.get(n)) == _number(now.get(n))}
    was |= {name: str(found.get(name)) for name in asked if name != "training"}
    now |= {name: str(value) for name, value in asked.items() if name != "training"}
    return [
        f"{n} = {was.get(n)}, asked for is {now.get(n)}"
        for n in dict.fromkeys([*was, *now])
        if was.get(n) != now.get(n) and n not in same
    ]


def _number(text: str | None) -> float | str | None:
    """The number that a text writes, 1 and 1.0 being one; any other text as it is."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _made_by(run: TrainingState) -> dict[str, Any]:
    return {"training": spec.to_text(run.settings), "events": run.batches.fingerprint, "shards": run.shards}


def _told(config: Path) -> dict[str, Any]:
    """What ``config.json`` says besides; nothing where it cannot be read."""
    try:
        return dict(json.loads(config.read_text(encoding="utf-8"))["about"])
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return {}


def _fields(text: str) -> dict[str, str]:
    """Field -> text of a call such as `Training(steps=10, ...)`, read and not evaluated."""
    call = ast.parse(text, mode="eval").body
    return {str(k.arg): ast.unparse(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
