"""Reading of checkpoints: finding them, checking every byte against its checksum, loading without unpickling.

A run directory holds `checkpoint-000001`, `checkpoint-000002` ..., numbered in the order of saving. Each holds one
`.safetensors` file per group of tensors and `state.json`: format version, size and SHA-256 of each file, names of tied
tensors, the caller's metadata, and a SHA-256 of all this. The checksums detect damage, not malice; a malicious
checkpoint can hold wrong numbers, but no code.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scoresde._core.annotations import check_arguments

__all__ = [
    "FORMAT",
    "Checkpoint",
    "damage",
    "digest",
    "digest_file",
    "latest_checkpoint",
    "read_checkpoint",
    "numbered",
]

FORMAT = {"format": "scoresde checkpoint", "version": 1}
"""The first entries of `state.json`."""

_NAME = re.compile(r"checkpoint-(\d{6,})")
_GROUP = re.compile(r"[A-Za-z0-9_]+")


class _DamagedError(RuntimeError):
    """A checkpoint that differs from what was saved."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The content of a checkpoint directory.

    Attributes:
        path: The directory.
        tensors: Group -> name -> tensor, on the CPU, in the types in which they were saved.
        meta: The metadata passed to `write_checkpoint`.
    """

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint, after checking every byte against its checksum.

    Args:
        path: A checkpoint, or a run directory, which means its newest checkpoint.

    Raises:
        FileNotFoundError: If `path` does not exist, or holds no checkpoint.
        ValueError: If `path` is a file, such as a pickle; it is not opened.
        RuntimeError: If the checkpoint is damaged, or of a newer format; names the file, and the newest undamaged
            checkpoint.
    """
    check_arguments(read_checkpoint, locals())
    folder = _find(Path(path))
    try:
        return _read(folder)
    except _DamagedError as error:
        others = [f for f in numbered(folder.parent) if f.name != folder.name and not damage(f)]
        other = f"the newest undamaged one is {others[0]}" if others else "the run has no undamaged one"
        raise RuntimeError(f"a checkpoint must be as it was saved, {error}; {other}.") from error


def latest_checkpoint(run: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a run that passes its checksums; a damaged newer one is skipped with a warning.

    Args:
        run: The run directory, or one checkpoint.

    Raises:
        FileNotFoundError: If there is no run directory, or no checkpoint in it.
        RuntimeError: If every checkpoint is damaged.
    """
    check_arguments(latest_checkpoint, locals())
    newest = _find(Path(run))
    damaged = []
    for folder in numbered(Path(run)) or [newest]:
        fault = damage(folder)
        if not fault:
            if damaged:
                warnings.warn(f"damaged checkpoints are skipped: {'; '.join(damaged)}.", stacklevel=2)
            return folder
        damaged.append(fault)
    raise RuntimeError(f"{run} must hold a checkpoint as it was saved, got only damaged ones: {'; '.join(damaged)}.")


def damage(folder: Path) -> str:
    """A description of the damage to a checkpoint directory; empty if there is none.

    Args:
        folder: The checkpoint; every file in it is read.
    """
    try:
        _verified(folder)
    except _DamagedError as error:
        return str(error)
    return ""


def numbered(run: Path) -> list[Path]:
    """The run's checkpoints by number, newest first, damaged or not.

    Args:
        run: The run directory.
    """
    check_arguments(numbered, locals())
    folders = [(int(m[1]), p) for p in run.iterdir() if (m := _NAME.fullmatch(p.name)) and p.is_dir()]
    return [p for _, p in sorted(folders, reverse=True)]


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256, as hex, of the content of `state.json` without its own checksum."""
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read(folder: Path) -> Checkpoint:
    state = _verified(folder)
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        for group in state["files"]:
            stored = load_file(folder / f"{group}.safetensors")
            tensors[group] = stored | {name: stored[same] for name, same in state["tied"][group].items()}
    except (SafetensorError, KeyError, TypeError, AttributeError, OSError) as error:
        raise _DamagedError(f"{folder} cannot be read ({error})") from error
    return Checkpoint(folder, tensors, state["meta"])


def _verified(folder: Path) -> dict[str, Any]:
    """The content of `state.json`, after every file was checked against its checksum."""
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT["format"] or state["version"] > FORMAT["version"]:
            raise _DamagedError(
                f"{path} is of format {state['format']!r}, version {state['version']}, this reads {FORMAT}"
            )
        if state["sha256"] != digest({name: value for name, value in state.items() if name != "sha256"}):
            raise _DamagedError(f"{path} does not match its checksum")
        for group, expected in state["files"].items():
            _check_file(folder, group, expected)
    except FileNotFoundError as error:
        raise _DamagedError(f"{path} is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _DamagedError(f"{path} is not JSON (nothing is unpickled)") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{path} is not the description of a checkpoint") from error
    return state


def _check_file(folder: Path, group: str, expected: Mapping[str, Any]) -> None:
    path = folder / f"{group}.safetensors"
    if not _GROUP.fullmatch(group):
        raise _DamagedError(f"{folder} names a file outside the directory, {group!r}")
    if not path.is_file():
        raise _DamagedError(f"{path} is missing")
    if path.stat().st_size != expected["bytes"]:
        raise _DamagedError(f"{path} has {path.stat().st_size} bytes instead of {expected['bytes']}")
    if digest_file(path) != expected["sha256"]:
        raise _DamagedError(f"{path} does not match its checksum")


def _find(path: Path) -> Path:
    """The checkpoint that `path` means; its content is not read."""
    remedy = (
        "pass a run directory or a checkpoint-000001 in one; a new run needs no loading or resuming, and a model of "
        "another code base becomes a run by: scoresde open PATH --out RUN"
    )
    if not path.exists():
        raise FileNotFoundError(f"there must be a checkpoint at {path}, which does not exist; {remedy}.")
    if not path.is_dir():
        raise ValueError(
            f"a checkpoint is a directory of safetensors and JSON, {path} is a file and was not opened, since pickles "
            f"can run code; {remedy}."
        )
    if (path / "state.json").exists() or _NAME.fullmatch(path.name):
        return path
    if not numbered(path):
        names = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"there must be a checkpoint in {path}, it holds {names}; {remedy}.")
    return numbered(path)[0]
