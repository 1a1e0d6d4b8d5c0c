"""Opened models as runs: checkpoints with the origin, the findings and the peer's sampler as metadata."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

from scoresde._core.annotations import check_arguments
from scoresde.bridges.opened import Opened
from scoresde.storage import spec
from scoresde.storage.checkpoint import save
from scoresde.training import Training

__all__ = ["save_opened"]


def save_opened(opened: Opened, path: str | os.PathLike[str]) -> Path:
    """Writes a run directory that every command takes, and `scoresde.load`.

    Args:
        opened: The model; a network that cannot be rebuilt from a text must be passed to ``load(path, net=…)`` again.
        path: The run directory; created if it does not exist.

    Returns:
        The checkpoint's directory.

    Raises:
        OSError: If it cannot be written.
    """
    check_arguments(save_opened, locals())
    meta: dict[str, Any] = {
        "origin": opened.origin,
        "findings": [dataclasses.asdict(finding) for finding in opened.findings],
    }
    with contextlib.suppress(TypeError):  # a sampler without a text form is left out
        meta["sampler"] = None if opened.sampler is None else spec.to_text(opened.sampler)
    # other code bases train on bin centers; `scoresde train --from` continues so
    quantized = opened.model.data is not None and opened.model.data.bins is not None
    meta["training"] = spec.to_text(Training(dequantize=not quantized))
    return save(opened.model, path, meta={**meta, "start": opened.start})
