"""`scheduler_config.json` of a `Scheduler`: its configuration and the sampler as text; moments in a file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import scoresde.process
import scoresde.sampling
from scoresde._core.atomic import atomic_file
from scoresde.bridges.diffusers.peer import CLASS_NAME
from scoresde.sampling import Moments, StepSampler, Whitened
from scoresde.storage import spec
from scoresde.storage.checkpoint import write_text

__all__ = ["read_scheduler", "sampler_of_text", "write_scheduler"]

_CONFIG, _MOMENTS = "scheduler_config.json", "moments.safetensors"


def write_scheduler(folder: Path, config: Mapping[str, Any], sampler: StepSampler | Whitened) -> None:
    """Writes the files of a scheduler.

    Args:
        folder: The folder; created if it does not exist.
        config: Its configuration.
        sampler: Its sampler; the moments of a `Whitened` go to ``moments.safetensors``.

    Raises:
        TypeError: If the sampler has no text form.
    """
    inner = sampler.sampler if isinstance(sampler, Whitened) else sampler
    entries = {
        "_class_name": CLASS_NAME,
        "_diffusers_version": version("diffusers"),
        **config,
        "sampler": spec.to_text(inner),
    }
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(sampler, Whitened):
        moments = sampler.moments
        entries |= {"moments": _MOMENTS, "rest": moments.rest}
        tensors = {"mean": moments.mean, "axes": moments.axes, "variances": moments.variances}
        with atomic_file(folder / _MOMENTS) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
    write_text(folder / _CONFIG, json.dumps(entries, indent=2, default=list) + "\n")


def read_scheduler(folder: Path) -> tuple[dict[str, Any], StepSampler | Whitened]:
    """The configuration and the sampler that `write_scheduler` wrote.

    Args:
        folder: The folder.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the configuration has no sampler, or its text does not describe a sampler.
    """
    path = folder / _CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    if "sampler" not in config:
        raise ValueError(
            f"{path} must be that of a Scheduler, got one of {config.get('_class_name')} without a sampler; write "
            "Scheduler.from_config(config, sampler=…)."
        )
    sampler = sampler_of_text(config.pop("sampler"))
    moments, rest = config.pop("moments", None), config.pop("rest", 0.0)
    if moments is None:
        return config, sampler
    return config, Whitened(sampler, Moments(**load_file(folder / _MOMENTS), rest=float(rest)))


def sampler_of_text(text: object) -> StepSampler:
    """The sampler of a text, such as ``"Adams(steps=20)"``; it is parsed, never evaluated.

    Args:
        text: The text.

    Raises:
        ValueError: If it is not a sampler of this package.
    """
    known = spec.known_classes(scoresde.sampling, scoresde.process)
    return spec.parse(str(text), known, kind=StepSampler, stored=True)
