"""Files of a run next to its checkpoints: ``config.json`` holds its settings, ``metrics.jsonl`` its history.

``config.json`` has what reproduces the run, ``metrics.jsonl`` one JSON object per line. The same numbers go to
accelerate's trackers (TensorBoard, Weights & Biases, …), if any are named.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from scoresde._core.suggest import nearest
from scoresde.storage import checkpoint
from scoresde.training.pace import PaceMeter
from scoresde.training.settings import Training

__all__ = ["CONFIG", "METRICS", "RunLog", "check_trackers", "lines_until", "write_config"]

CONFIG, METRICS = "config.json", "metrics.jsonl"

_FORMAT = {"format": "scoresde run", "version": 1}


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuses a tracker that accelerate does not know or that is not installed; accelerate would silently ignore it.

    Raises:
        ValueError: Names the installed ones.
    """
    installed = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in installed:
            raise ValueError(
                f"tracker {name!r} is not installed; {nearest(name, installed)} See scoresde[tensorboard]."
            )


def write_config(folder: Path, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes ``config.json``.

    Args:
        folder: The run directory.
        settings: Of model and run, as text.
        about: What only the caller knows, such as the source of the data; JSON.

    Raises:
        OSError: If it cannot be written.
    """
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    text = json.dumps({**_FORMAT, **settings, "about": dict(about), "versions": versions}, indent=1)
    checkpoint.write_text(folder / CONFIG, text + "\n")


class RunLog:
    """Writes the numbers of a run to ``metrics.jsonl`` and to trackers.

    Args:
        folder: The run directory; None writes no file.
        accelerator: Of the run, with its trackers.
        settings: Passed to the trackers.
        step: Where the run starts; lines of later steps, from before it was interrupted, are dropped.
    """

    def __init__(self, folder: Path | None, accelerator: Accelerator, settings: Training, step: int) -> None:
        self._accelerator, self._meter = accelerator, PaceMeter(step, settings.steps)
        self._path = folder / METRICS if folder is not None and accelerator.is_main_process else None
        if self._path is not None and self._path.exists():
            checkpoint.write_text(self._path, "".join(lines_until(self._path, step)))
        if accelerator.log_with:
            values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
            plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in values.items()}
            accelerator.init_trackers("scoresde", plain)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line, with the pace; every process may call it, the main one writes.

        Raises:
            OSError: If the line cannot be written.
        """
        rate, left = self._meter.read(step)
        if self._path is not None:
            row = {k: v if math.isfinite(v) else None for k, v in values.items()}
            row |= {"seconds": round(self._meter.seconds, 3), "steps_per_second": round(rate, 3)}
            row["seconds_left"] = round(left, 1) if math.isfinite(left) else None
            try:
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"step": step, **row}) + "\n")
            except OSError as error:
                raise OSError(
                    error.errno,
                    f"the metrics of a run must be writable, {self._path} is not ({error.strerror}); make room and "
                    "resume the run. Its checkpoints are unchanged.",
                ) from error
        if self._accelerator.trackers:
            self._accelerator.log({**values, "steps_per_second": rate}, step=step)

    def close(self) -> None:
        """Closes the trackers."""
        for tracker in self._accelerator.trackers:
            tracker.finish()


def lines_until(path: Path, step: int) -> list[str]:
    """The complete JSON lines of a file up to and including ``step``."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line + "\n" for line in lines if _step(line) <= step]


def _step(line: str) -> float:
    """Of a line; infinite if the line is incomplete because the process that wrote it ended."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf
