"""How are results kept? `results.json` says everything that a report says; `arrays.npz` holds what it draws.

Both are written whole or not at all. JSON has no NaN: an unknown number is null.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import re
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoresde import spec

__all__ = [
    "FORMAT",
    "Results",
    "Stages",
    "brief",
    "computer",
    "cores",
    "read",
    "slug",
    "versions",
    "whole",
    "write",
]

FORMAT = {"format": "scoresde comparison", "version": 1}
"""What `results.json` begins with."""

_PACKAGES = (
    "scoresde",
    "torch",
    "numpy",
    "scipy",
    "scikit-learn",
    "torchdiffeq",
    "torchsde",
    "accelerate",
    "safetensors",
)


@dataclass(frozen=True, eq=False)
class Results:
    """What a comparison's folder holds.

    Attributes:
        folder: Where it is.
        said: The content of ``results.json``.
        arrays: Name -> array.
    """

    folder: Path
    said: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(folder: Path, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes ``arrays.npz``, then ``results.json``.

    Args:
        folder: Where to; made where it is missing.
        said: JSON, and NaN or infinities, which become null.
        arrays: Name -> array of numbers.

    Returns:
        The path of ``results.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with whole(folder / "arrays.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    with whole(folder / "results.json") as path:
        text = json.dumps(_plain({**FORMAT, **said}), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder / "results.json"


def read(folder: str | os.PathLike[str]) -> Results:
    """Reads what `write` wrote.

    Args:
        folder: A comparison's folder.

    Raises:
        FileNotFoundError: If there are no results.
        ValueError: If they are not a comparison's, or of a newer format.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file() or not (folder / "arrays.npz").is_file():
        raise FileNotFoundError(
            f"a comparison's folder holds results.json and arrays.npz, {folder} does not; make one: scoresde compare."
        )
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT["format"] or said["version"] > FORMAT["version"]:
            raise ValueError(f"it is of format {said['format']!r}, version {said['version']}, this reads {FORMAT}")
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be the results of a comparison, but {error}; make them anew.") from error
    return Results(folder, said, arrays)


def brief(obj: object) -> str:
    """The call that makes a setting, with what differs from the defaults, and its number of steps or method.

    Args:
        obj: A dataclass, as `scoresde.spec` writes it.

    Returns:
        E.g. ``DDPM(steps=1000)`` or ``ELBO()``.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        return spec.to_text(obj)
    said = []
    for field in (f for f in dataclasses.fields(obj) if f.init):
        value, default = getattr(obj, field.name), field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name in ("steps", "method") or type(value) is not type(default) or value != default:
            said.append(f"{field.name}={brief(value)}")
    return f"{type(obj).__name__}({', '.join(said)})"


def slug(obj: object) -> str:
    """Letters, digits and hyphens that name a setting's folder and arrays, e.g. ``snr-power-minus-0-5``.

    Args:
        obj: As for `brief`.
    """
    signed = re.sub(r"(?<![0-9a-z])-", "minus-", brief(obj).lower())
    return re.sub(r"[^a-z0-9]+", "-", signed).strip("-")


class Stages:
    """A clock for the parts of a run, seconds by name; a part that comes again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts what happens inside to ``name``."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds what another clock counted."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._begin


def versions() -> dict[str, str]:
    """Of Python and the packages that results depend on, those that are installed."""
    found = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    return {"Python": platform.python_version()} | {name: found[name] for name in _PACKAGES if name in found}


def cores(workers: int = 1) -> int:
    """How many cores this process may use, or each of so many workers; at least 1."""
    may = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, may // workers)


def computer(device: torch.device | str = "cpu", workers: int = 1) -> dict[str, Any]:
    """On what it ran: processor, cores, device, and the largest memory used so far, GB (or None), of all processes.

    Args:
        device: Of the models.
        workers: Models examined side by side.
    """
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {
        "processor": _processor(),
        "cores": cores(),
        "workers": workers,
        "threads": torch.get_num_threads() if workers == 1 else cores(workers),
        "device": name,
        "system": f"{platform.system()} {platform.release()}",
        "peak_memory_gb": _peak_memory(0 if workers == 1 else workers),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _peak_memory(children: int) -> float | None:
    """Of this process, and as many times that of its largest child as there are."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += children * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` when all is written; after a failure ``path`` is as it was.

    Args:
        path: The file.
    """
    aside = path.with_name(f".part-{path.name}")  # of the same suffix, which some writers go by
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
