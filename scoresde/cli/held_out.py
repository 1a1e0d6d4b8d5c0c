"""Which events are scored? Those that a run held out, or all of data that it never saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde._core.suggest import nearest
from scoresde.cli.parsing import load_data
from scoresde.cli.recorded_config import check_columns, recorded_source, source
from scoresde.model import ScoreModel
from scoresde.storage.checkpoint import Checkpoint
from scoresde.training.batches import fingerprint

__all__ = ["check", "check_part", "chosen_events"]

_PARTS = {"test": "test part", "train": "train part", "all": "train and test part"}


def check_part(part: str | None, test_fraction: float | None) -> None:
    """Refuses a part that there is not, and a split of what is not split.

    Raises:
        ValueError: If it is one.
    """
    if part not in (None, *_PARTS):
        raise ValueError(f"no part of the data is named {part!r}; {nearest(str(part), tuple(_PARTS))}")
    if part == "all" and test_fraction is not None:
        raise ValueError(f"--part all leaves nothing out, got --test-fraction {test_fraction}; leave one of them out.")


def chosen_events(
    checkpoint: Path, stored: Checkpoint, part: str | None, limit: int | None, said: Mapping[str, Any]
) -> tuple[Tensor, str, str]:
    """The events to score, in data units, the name of their data, and how many of them these are, in words.

    Args:
        checkpoint: As it was named, a run directory or a checkpoint.
        stored: What was found there; it knows what it was trained on.
        part: test, train, all, or None: what was held out, and all of data that the model was not trained on.
        limit: At most so many, the first; None for all.
        said: ``data``, ``bins``, ``test_fraction``, ``split_seed`` and ``read``, None or empty where nothing was said.

    Raises:
        ValueError: If what was held out is asked for, and not known or no longer there; if there are no events.
    """
    data, recorded = said["data"], recorded_source(checkpoint)
    if data is None and not recorded:
        raise ValueError(
            f"what a run held out is scored, {checkpoint} does not say where its data came from; name data by --data."
        )
    loaded = load_data(**source(recorded, **said))
    check_columns(recorded, loaded)
    trained_on = stored.meta.get("events")
    own = fingerprint(loaded.train) == trained_on
    split = said["test_fraction"] is not None or said["split_seed"] is not None or bool(said["read"])
    if not (own or data or split or part == "all"):
        raise ValueError(
            f"what a run held out is scored, and {recorded['data']} holds other events than it was trained on, or in "
            "another order; bring those back, or have all of these scored by --part all, or name others by --data."
        )
    part = part or ("test" if own or None in (trained_on, data) or said["test_fraction"] is not None else "all")
    parts = [each for name, each in (("train", loaded.train), ("test", loaded.test)) if part in (name, "all")]
    events = parts[0][:limit] if len(parts) == 1 else torch.cat([each[:limit] for each in parts])[:limit]
    name = loaded.description.name
    if not len(events):
        raise ValueError(
            f"there must be events to score, the {_PARTS[part]} of {name} has none; choose another --part."
        )
    return events, name, f"{_PARTS[part]}, {len(events)} of {sum(map(len, parts))} events"


def check(model: ScoreModel, events: Tensor) -> None:
    """Refuses data that the model does not describe.

    Raises:
        ValueError: If levels are wanted and there are none, a shape does not fit, or a value is out of range.
    """
    about = model.data
    assert about is not None
    if about.bins is not None and events.is_floating_point():
        raise ValueError(
            f"bits per dimension need levels 0 … {about.bins - 1} of {about.name!r}, got {events.dtype}; if the file "
            f"holds levels, say --bins {about.bins}."
        )
    about.validate(events)
