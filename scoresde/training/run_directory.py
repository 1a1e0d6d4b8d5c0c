"""Run directories: checkpoints that hold the complete state of a training run, and the settings that identify it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from scoresde.storage import checkpoint, spec
from scoresde.training.adapters import adapter_tensors, check_same_adapters, has_adapters, load_either
from scoresde.training.multi_process import fail_together
from scoresde.training.run_log import CONFIG, write_config
from scoresde.training.running_mean import RunningMeans
from scoresde.training.state import TrainingState

__all__ = ["RunDirectory", "call_fields", "differences", "refuse_checkpoints"]


class RunDirectory:
    """The checkpoints and EMA snapshots of one run; with path None it does nothing.

    Every process calls the methods, the main one writes and all read: several nodes must share the directory.

    Args:
        path: The directory.
        run: Its state.
        keep: Number of checkpoints that are kept.
        about: Further content of ``config.json``; if empty, a resumed run keeps what is stored there.

    Attributes:
        latest: The newest checkpoint.

    Raises:
        TypeError: If a setting has no text form, such as a weighting that is a function.
    """

    def __init__(self, path: str | Path | None, run: TrainingState, keep: int, about: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.latest: Path | None = None
        self._run, self._keep, self._about = run, keep, about
        self._identity = {} if path is None else _identity(run)

    @contextmanager
    def opened(self, resume: bool) -> Iterator[None]:
        """Locks the directory for this run, and starts or resumes it.

        Raises:
            FileNotFoundError: If there is nothing to resume.
            FileExistsError: If a new run finds checkpoints.
            ValueError: If the checkpoints are another run's.
            OSError: If it cannot be written.
            RuntimeError: If another process trains in it, or all of its checkpoints are damaged.
        """
        if self.path is None:
            yield
            return
        with ExitStack() as lock:
            with fail_together(self._run.accelerator):
                self._lock(lock, resume)
            if resume:
                with fail_together(self._run.accelerator):
                    self._restore(checkpoint.read_checkpoint(checkpoint.latest_checkpoint(self.path)))
                with fail_together(self._run.accelerator):
                    if self._run.accelerator.is_main_process:
                        checkpoint.discard_after(self.path, self._run.step)
                    self._write_config(self._about or _stored_about(self.path / CONFIG))
            else:
                self.save()
            yield

    def save(self) -> None:
        """Writes the run's state as the next checkpoint."""
        run = self._run
        if self.path is None:
            return
        means = run.means_by_process()
        run.gather()
        with fail_together(run.accelerator):
            if run.accelerator.is_main_process:
                self._write_checkpoint(self.path, means)
        if not run.accelerator.is_main_process:
            self.latest = next(iter(checkpoint.numbered(self.path)), None)

    def snapshot(self) -> None:
        """Stores the EMAs of ``settings.lengths``."""
        run = self._run
        if self.path is None or not run.power_emas:
            return
        run.gather()
        with fail_together(run.accelerator):
            if run.accelerator.is_main_process:
                nets = [ema.net for ema in run.power_emas]
                checkpoint.save_snapshot(self.path, run.step, run.settings.lengths, nets)

    def _lock(self, lock: ExitStack, resume: bool) -> None:
        assert self.path is not None
        if not self._run.accelerator.is_main_process:
            return
        if resume:
            checkpoint.latest_checkpoint(self.path)  # before anything is created
        else:
            refuse_checkpoints(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / ".lock").touch()
        except OSError as error:
            raise OSError(
                error.errno, f"a run directory must be writable, {self.path} is not ({error.strerror}); choose another."
            ) from error
        lock.enter_context(checkpoint.only_writer(self.path))
        if not resume:
            self._write_config(self._about)

    def _write_config(self, about: Mapping[str, Any]) -> None:
        assert self.path is not None
        if self._run.accelerator.is_main_process:
            write_config(self.path, {"model": checkpoint.model_settings(self._run.model), **self._identity}, about)

    def _write_checkpoint(self, path: Path, means: list[RunningMeans]) -> None:
        run = self._run
        tensors, text = checkpoint.optimizer_state(run.optimizer)
        groups = {"optimizer": tensors, **({"timesteps": run.timesteps.state} if run.timesteps.state else {})}
        groups |= {f"average_{i}": checkpoint.weights_of(ema.net) for i, ema in enumerate(run.power_emas)}
        if has_adapters(run.model.net):
            groups["adapters"] = adapter_tensors(run.model.net)
            groups |= {} if run.ema is None else {"adapters_ema": adapter_tensors(run.ema.net)}
        scaler = run.accelerator.scaler
        meta: dict[str, Any] = {
            "step": run.step,
            **self._identity,
            "lengths": list(run.settings.lengths),
            "optimizer": text,
            "scaler": None if scaler is None else scaler.state_dict(),
            "running_means": [part.numbers for part in means],
            "history": [list(entry) for entry in run.history],
            "torch": str(torch.__version__),
        }
        ema = None if run.ema is None else run.ema.net
        self.latest = checkpoint.save(run.model, path, ema=ema, tensors=groups, meta=meta, keep=self._keep)

    def _restore(self, stored: checkpoint.Checkpoint) -> None:
        run, meta = self._run, stored.meta
        if "step" not in meta or "training" not in meta:
            raise ValueError(f"a run is resumed from a checkpoint of a run, {stored.path} holds a model alone.")
        checkpoint.require_same(stored, run.model)
        wrong = differences(meta, self._identity)
        if wrong:
            raise ValueError(
                f"a run is resumed with its own settings and data; {stored.path} has {'; '.join(wrong)}. Use those, or "
                "start a new run in another run_dir."
            )
        if meta["step"] > run.settings.steps:
            raise ValueError(f"steps must be at least the {meta['step']} done, got {run.settings.steps}.")
        check_same_adapters(run.model.net, stored)
        checkpoint.load_optimizer(run.optimizer, stored.tensors["optimizer"], meta["optimizer"])
        load_either(run.model.net, stored, "model", "adapters")
        if run.ema is not None:
            load_either(run.ema.net, stored, "ema", "adapters_ema")
        for i, ema in enumerate(run.power_emas):
            checkpoint.load_weights(ema.net, stored.tensors[f"average_{i}"])
        run.timesteps.restore(stored.tensors.get("timesteps", {}))
        if run.accelerator.scaler is not None:
            run.accelerator.scaler.load_state_dict(meta["scaler"])
        run.step, run.history = meta["step"], [(int(step), float(loss)) for step, loss in meta["history"]]
        means = [RunningMeans.from_numbers(numbers) for numbers in meta["running_means"]]
        index, count = run.accelerator.process_index, run.accelerator.num_processes
        run.means = means[index] if len(means) == count else RunningMeans.merged(means)
        self.latest = stored.path


def refuse_checkpoints(path: Path) -> None:
    """Refuses the directory of an earlier run for a new one.

    Raises:
        FileExistsError: If it holds checkpoints or averages.
    """
    if any(next(path.glob(name), None) is not None for name in ("checkpoint-*", "averages/step-*")):
        raise FileExistsError(
            f"a new run needs a directory without checkpoints and averages, {path} holds some; pass resume=True to "
            "continue that run, or another run_dir."
        )


def differences(stored: dict[str, Any], requested: dict[str, Any]) -> list[str]:
    """Settings that differ between a checkpoint and a run, with both values.

    Not counted: more steps at a constant learning rate, in place of minutes too, and another division of the shards
    between processes and accumulated parts.

    Args:
        stored: Metadata of the checkpoint.
        requested: Metadata that a checkpoint of the run would have.
    """
    was, now = call_fields(stored["training"]), call_fields(requested["training"])
    was["accumulate"] = now["accumulate"]  # `shards` is its product with the number of processes
    if _number(was.get("lr_end")) == _number(now.get("lr_end")) == 1:
        was["steps"] = now["steps"]
        if "minutes" not in now:
            was.pop("minutes", None)
    same = {n for n in (*was, *now) if _number(was.get(n)) == _number(now.get(n))}
    was |= {name: str(stored.get(name)) for name in requested if name != "training"}
    now |= {name: str(value) for name, value in requested.items() if name != "training"}
    return [
        f"{n} = {was.get(n)}, asked for is {now.get(n)}"
        for n in dict.fromkeys([*was, *now])
        if was.get(n) != now.get(n) and n not in same
    ]


def _number(text: str | None) -> float | str | None:
    """The number in a text, so that 1 equals 1.0; another text itself."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _identity(run: TrainingState) -> dict[str, Any]:
    identity = {"training": spec.to_text(run.settings), "events": run.batches.fingerprint, "shards": run.shards}
    if run.batches.cond_fingerprint is not None:
        identity["conditions"] = run.batches.cond_fingerprint
    own = run.loss is not run.settings.loss
    return {**identity, "objective": spec.to_text(run.loss)} if own else identity


def _stored_about(config: Path) -> dict[str, Any]:
    """``about`` of ``config.json``; empty if it cannot be read."""
    try:
        return dict(json.loads(config.read_text(encoding="utf-8"))["about"])
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, ValueError):
        return {}


def call_fields(text: str) -> dict[str, str]:
    """Field -> text of a call such as `Training(steps=10, ...)`, parsed and not evaluated."""
    call = ast.parse(text, mode="eval").body
    return {str(k.arg): ast.unparse(k.value) for k in call.keywords} if isinstance(call, ast.Call) else {}
