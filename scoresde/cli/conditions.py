"""Conditions that a command line names: options of the data reader, and inputs of the network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.reader_options import has_option

if TYPE_CHECKING:
    from scoresde.data import Description

__all__ = ["used_conditions", "with_conditions"]

_LABEL, _KNOWN = "label", "known"


def with_conditions(source: dict[str, Any], text: str | None) -> dict[str, Any]:
    """The arguments of `load_data` with the conditions of ``--condition`` among the options of the reader.

    Args:
        source: The arguments.
        text: Names, separated by commas; a folder of images becomes an absolute path. None adds none.

    Raises:
        ValueError: If the reader reads no conditions but labels, and others are named.
    """
    names = [str(Path(name).absolute()) if Path(name).is_dir() else name for name in _names(text) if name != _KNOWN]
    if not names:
        return source
    if has_option(source["data"], "condition"):
        return {**source, "read": [*source["read"], f"condition={','.join(names)}"]}
    others = [name for name in names if name != _LABEL]
    if others:
        raise ValueError(
            f"{source['data']} has no conditions but its labels, got --condition {text}; write --condition label or "
            "--condition known, or read the data from a .npz file, a table or folders of images."
        )
    return source


def used_conditions(description: Description, text: str | None) -> list[str] | None:
    """Names of the conditions that the network reads: all that were read, and what ``--condition`` names of labels and
    of the known entries of the events themselves.
    """
    names = [name for name in description.conditions if name != _LABEL]
    names += [_KNOWN] if _KNOWN in _names(text) else []
    if _LABEL not in _names(text):
        return names
    if _LABEL not in description.conditions:
        raise ValueError(
            f"--condition label needs classes, {description.name!r} has none; name their column by label=…, or "
            "store labels beside the events."
        )
    return [_LABEL, *names]


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",") if name.strip()]
