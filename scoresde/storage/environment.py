"""The environment of a run: versions of packages, processor, cores, device and memory."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
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
