"""What does a run write down while it goes on? Its settings, once, and a line of numbers at each point of its history.

``config.json`` has what reproduces the run, ``metrics.jsonl`` one JSON object a line; the same numbers go to
accelerate's trackers (TensorBoard, Weights & Biases, …) where any were asked for.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from scoresde._core.suggest import nearest
from scoresde.storage import checkpoint
from scoresde.training.settings import Training

__all__ = ["CONFIG", "METRICS", "RunLog", "check_trackers", "lines_until", "write_config"]

CONFIG, METRICS = "config.json", "metrics.jsonl"

_FORMAT = {"format": "scoresde run", "version": 1}


def check_trackers(names: tuple[str, ...]) -> None:
    """Refuses a tracker that accelerate does not know or that is not installed; it would leave it out unsaid.

    Raises:
        ValueError: Naming those there are.
    """
    there = [str(tracker) for tracker in get_available_trackers()]
    for name in names:
        if name not in there:
            raise ValueError(
                f"no tracker {name!r} is installed here; {nearest(name, there)} See scoresde[tensorboard]."
            )


def write_config(folder: Path, parts: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes ``config.json``.

    Args:
        folder: The run directory.
        parts: Texts of model and settings.
        about: What only the caller knows, such as where the data came from; JSON.

    Raises:
        OSError: If it cannot be written.
    """
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    text = json.dumps({**_FORMAT, **parts, "about": dict(about), "versions": versions}, indent=1)
    checkpoint.write_text(folder / CONFIG, text + "\n")


class RunLog:
    """Where the numbers of a run go; nowhere, if there is neither a folder nor a tracker.

    Args:
        folder: The run directory, or None.
        accelerator: Of the run, with its trackers.
        settings: Told to the trackers.
        step: Where the run begins: later lines, from before it was broken off, are dropped.
    """

    def __init__(self, folder: Path | None, accelerator: Accelerator, settings: Training, step: int) -> None:
        self._accelerator, self._began = accelerator, time.monotonic()
        self._path = folder / METRICS if folder is not None and accelerator.is_main_process else None
        if self._path is not None and self._path.exists():
            checkpoint.write_text(self._path, "".join(lines_until(self._path, step)))
        if accelerator.log_with:
            accelerator.init_trackers("scoresde", {k: _plain(v) for k, v in _fields(settings).items()})

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a line; every process may call, the main one writes."""
        if self._path is not None:
            row = {k: v if math.isfinite(v) else None for k, v in values.items()}
            row["seconds"] = round(time.monotonic() - self._began, 3)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        if self._accelerator.trackers:
            self._accelerator.log(dict(values), step=step)

    def close(self) -> None:
        """Lets the trackers finish."""
        for tracker in self._accelerator.trackers:
            tracker.finish()


def lines_until(path: Path, step: int) -> list[str]:
    """The lines of JSON in a file that are whole and of no later ``step``."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line + "\n" for line in lines if _step(line) <= step]


def _step(line: str) -> float:
    """Of a line; infinite if it is torn, by the end of the process that wrote it."""
    try:
        return float(json.loads(line)["step"])
    except (json.JSONDecodeError, KeyError, TypeError):
        return math.inf


def _fields(settings: Training) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    return value if isinstance(value, (bool, int, float, str)) else str(value)
