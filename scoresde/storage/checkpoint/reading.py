"""How is a checkpoint found and read, and damage to it noticed, without unpickling anything?

A run directory holds `checkpoint-000001`, `checkpoint-000002` ..., numbered in the order of saving. Each holds one
`.safetensors` file per group of tensors and `state.json`: format version, size and SHA-256 of each file, names of tied
tensors, the caller's metadata, and a SHA-256 of all this. The checksums tell damage, not malice; what a hostile
checkpoint can do is hold wrong numbers.
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
"""What `state.json` begins with."""

_NAME = re.compile(r"checkpoint-(\d{6,})")
_GROUP = re.compile(r"[A-Za-z0-9_]+")


class _DamagedError(RuntimeError):
    """A checkpoint that is not what was saved."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint directory holds.

    Attributes:
        path: The directory.
        tensors: Group -> name -> tensor, on the CPU, in the types they were saved in.
        meta: The metadata that was given to `save`.
    """

    path: Path
    tensors: dict[str, dict[str, Tensor]]
    meta: dict[str, Any]


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads a checkpoint, after checking every byte against its checksum.

    Args:
        path: A checkpoint, or a run directory, which means its newest checkpoint.

    Raises:
        FileNotFoundError: If there is nothing at `path`, or no checkpoint in it. Nothing starts afresh unsaid.
        ValueError: If `path` is a file (a pickle, say: never opened).
        RuntimeError: If the checkpoint is damaged, or of a newer format; names the file, and the newest good one.
    """
    folder = _find(Path(path))
    try:
        return _read(folder)
    except _DamagedError as error:
        others = [f for f in numbered(folder.parent) if f.name != folder.name and not damage(f)]
        offer = f"the newest good one is {others[0]}" if others else "there is no other good one beside it"
        raise RuntimeError(f"a checkpoint must be as it was saved, {error}; {offer}.") from error


def latest_checkpoint(run: str | os.PathLike[str]) -> Path:
    """The newest checkpoint of a run that passes its checksums; a damaged newer one is skipped with a warning.

    Args:
        run: The run directory, or one checkpoint.

    Raises:
        FileNotFoundError: If there is no run directory, or no checkpoint in it. Nothing starts afresh unsaid.
        RuntimeError: If every checkpoint is damaged.
    """
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
    """What is wrong with a checkpoint directory, or "" if it is as it was saved.

    Args:
        folder: The checkpoint; every file in it is read.
    """
    try:
        _verified(folder)
    except _DamagedError as error:
        return str(error)
    return ""


def numbered(run: Path) -> list[Path]:
    """The run's checkpoints by number, newest first, good or damaged.

    Args:
        run: The run directory.
    """
    found = [(int(m[1]), p) for p in run.iterdir() if (m := _NAME.fullmatch(p.name)) and p.is_dir()]
    return [p for _, p in sorted(found, reverse=True)]


def digest(state: Mapping[str, Any]) -> str:
    """SHA-256, as hex, of what `state.json` says; its own checksum left out."""
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
            own = load_file(folder / f"{group}.safetensors")
            tensors[group] = own | {name: own[same] for name, same in state["tied"][group].items()}
    except (SafetensorError, KeyError, TypeError, AttributeError, OSError) as error:
        raise _DamagedError(f"{folder} cannot be read ({error})") from error
    return Checkpoint(folder, tensors, state["meta"])


def _verified(folder: Path) -> dict[str, Any]:
    """The content of `state.json`, after every file has met its checksum."""
    path = folder / "state.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["format"] != FORMAT["format"] or state["version"] > FORMAT["version"]:
            raise _DamagedError(
                f"{path} is of format {state['format']!r}, version {state['version']}, this reads {FORMAT}"
            )
        if state["sha256"] != digest({name: value for name, value in state.items() if name != "sha256"}):
            raise _DamagedError(f"{path} does not match its checksum")
        for group, known in state["files"].items():
            _check_file(folder, group, known)
    except FileNotFoundError as error:
        raise _DamagedError(f"{path} is missing") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise _DamagedError(f"{path} is not JSON (nothing is unpickled)") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{path} is not the description of a checkpoint") from error
    return state


def _check_file(folder: Path, group: str, known: Mapping[str, Any]) -> None:
    path = folder / f"{group}.safetensors"
    if not _GROUP.fullmatch(group):
        raise _DamagedError(f"{folder} names a file outside of it, {group!r}")
    if not path.is_file():
        raise _DamagedError(f"{path} is missing")
    if path.stat().st_size != known["bytes"]:
        raise _DamagedError(f"{path} has {path.stat().st_size} bytes instead of {known['bytes']}")
    if digest_file(path) != known["sha256"]:
        raise _DamagedError(f"{path} does not match its checksum")


def _find(path: Path) -> Path:
    """The checkpoint that `path` means, without looking into it."""
    teach = "give a run directory, or a checkpoint-000001 in one; to begin a new run, say so instead of loading"
    if not path.exists():
        raise FileNotFoundError(f"there must be a checkpoint at {path}, there is nothing; {teach}.")
    if not path.is_dir():
        raise ValueError(
            f"a checkpoint is a directory of safetensors and JSON, {path} is a file and was not opened, since pickles "
            f"can run code; {teach}."
        )
    if (path / "state.json").exists() or _NAME.fullmatch(path.name):
        return path
    if not numbered(path):
        there = ", ".join(sorted(p.name for p in path.iterdir())[:8]) or "nothing"
        raise FileNotFoundError(f"there must be a checkpoint in {path}, it holds {there}; {teach}.")
    return numbered(path)[0]
