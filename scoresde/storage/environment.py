"""The environment of a run: versions of packages, processor, cores, device and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

__all__ = ["computer", "cores", "versions"]

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


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that results depend on."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def cores(workers: int = 1) -> int:
    """Number of cores that this process may use, or each of ``workers`` processes; at least 1."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, available // workers)


def computer(device: torch.device | str = "cpu", workers: int = 1) -> dict[str, Any]:
    """The computer: processor, cores, device, and the peak memory of all processes in GB (None if unknown).

    Args:
        device: Of the models.
        workers: Number of models that are evaluated in parallel.
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
    """GB, of this process plus ``children`` times that of its largest child process."""
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak += children * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(peak / (1e9 if sys.platform == "darwin" else 1e6), 2)
