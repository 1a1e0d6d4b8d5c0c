"""Conditions in a ``.npz`` file: ``text`` beside ``x``, or ``train_text`` and ``test_text``; labels as ``labels``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from scoresde.data.conditions.fit import LABEL

__all__ = ["conditions_of_events", "entries_of", "warn_unread"]


def entries_of(name: str, conditions: Sequence[str]) -> dict[str, str]:
    """The entry of a file that holds each condition of the events ``x``, ``train`` or ``test``; labels always."""
    prefix = "" if name == "x" else f"{name}_"
    return {LABEL: f"{prefix}labels", **{c: f"{prefix}{c}" for c in conditions if c != LABEL}}


def conditions_of_events(
    arrays: dict[str, Tensor], name: str, conditions: Sequence[str], path: Path
) -> dict[str, Tensor]:
    """The conditions of the events ``x``, ``train`` or ``test``, by name.

    Args:
        arrays: All entries of the file.
        name: Of the events.
        conditions: Names of the conditions that are asked for.
        path: Of the file, for errors.

    Raises:
        ValueError: If an entry is absent, or does not have one entry per event.
    """
    events, cond = arrays[name], {}
    for condition, entry in entries_of(name, conditions).items():
        if entry not in arrays:
            if condition in conditions:
                raise ValueError(
                    f"condition={condition!r} needs the entry {entry!r}, {path} holds {', '.join(sorted(arrays))}; "
                    "rename it, or leave the condition out."
                )
            continue
        values = arrays[entry]
        if condition == LABEL and (values.ndim != 1 or len(values) != len(events)):
            raise ValueError(
                f"there must be one label per event, {path} holds {entry} of shape {tuple(values.shape)}, "
                f"{len(values)} labels, for {len(events)} events; store one integer for each event."
            )
        if values.ndim == 0 or len(values) != len(events):
            raise ValueError(
                f"a condition must have one entry per event, {path} holds {entry} of shape {tuple(values.shape)} for "
                f"{len(events)} events; store one for each event."
            )
        cond[condition] = values
    return cond


def warn_unread(arrays: dict[str, Tensor], names: Sequence[str], read: Sequence[str], path: Path) -> None:
    """Warns of entries of a file that are neither events nor conditions that are read.

    Args:
        arrays: All entries of the file.
        names: Those of the events.
        read: Those of the conditions.
        path: Of the file.
    """
    unread = sorted(arrays.keys() - {*names, *read})
    if unread:
        warnings.warn(
            f"{path} also holds {', '.join(unread)}, not read beside {' and '.join(names)}; labels are named "
            f"{' and '.join(entries_of(name, ())[LABEL] for name in names)}, and condition= names other conditions.",
            stacklevel=4,
        )
