"""How does a checkpoint get to disk whole or not at all?

A save writes a hidden sibling directory, waits until it is on the disk, and renames it: a process killed at any moment
leaves the earlier checkpoints as they were, and what it left half-written is removed by the next save.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from scoresde._core.atomic import atomic_file, sync
from scoresde.storage.checkpoint.reading import FORMAT, damage, digest, digest_file, numbered

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind: there two writers are not noticed
    fcntl = None

__all__ = ["only_writer", "write_checkpoint", "write_text", "write_whole"]


def write_checkpoint(
    run: str | os.PathLike[str],
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Writes the run's next checkpoint: complete under its name, or not there at all.

    Args:
        run: The run directory; made where it is missing.
        tensors: Group -> name -> tensor, one file per group, e.g. `{"model": net.state_dict()}`. Any device, shape and
            type; tensors that are one and the same (tied weights) are stored once, views of a larger one in full.
        meta: JSON: strings, numbers, bools, None, lists, and dicts with string keys.
        keep: How many good checkpoints stay, this one included, at least 1. To know that the earlier ones are good
            their files are read; a damaged one never takes the place of a good one.

    Returns:
        The checkpoint's directory, e.g. `run/checkpoint-000007`. It is on the disk, not in a cache.

    Raises:
        ValueError: If `keep` is below 1, a group is not named in letters, digits and `_`, or `run` is a checkpoint.
        TypeError: If `meta` is not JSON or a value not a tensor.
        OSError: If it cannot be written (disk full, read-only, not a directory); what was there is as it was.
        RuntimeError: If another process is saving into the same directory.
    """
    if not (isinstance(keep, int) and keep >= 1):
        raise ValueError(f"keep must be an integer of at least 1, got {keep!r}; 2 keeps one in reserve.")
    for group in tensors:
        if not re.fullmatch(r"[A-Za-z0-9_]+", group):
            raise ValueError(f"a group of tensors is named in letters, digits and '_', got {group!r}; rename it.")
    _check_json(dict(meta), "meta")
    run = Path(run)
    if (run / "state.json").exists():
        raise ValueError(f"a run directory holds checkpoints, {run} is itself one; save to {run.parent}.")
    try:
        run.mkdir(parents=True, exist_ok=True)
        with only_writer(run, ".saving.lock"):
            for leftover in run.glob(".saving-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            number = max((int(f.name.partition("-")[2]) for f in numbered(run)), default=0) + 1
            target = run / f"checkpoint-{number:06d}"
            _write_aside(run / f".saving-{target.name}", tensors, meta)
            (run / f".saving-{target.name}").rename(target)
            sync(run)
            _prune(run, target, keep)
    except (OSError, SafetensorError) as error:
        raise _not_writable(run, error) from error
    return target


def write_whole(
    folder: str | os.PathLike[str], tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]
) -> Path:
    """Writes a directory as `save` does, under a name of the caller's: complete or not there at all.

    Args:
        folder: Its path; what is there already is replaced. Nobody else may write beside it.
        tensors, meta: See `save`.

    Returns:
        The directory, on the disk.

    Raises:
        OSError: If it cannot be written.
    """
    folder = Path(folder)
    aside = folder.with_name(f".saving-{folder.name}")
    _check_json(dict(meta), "meta")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for gone in (aside, folder):
            if gone.exists():
                shutil.rmtree(gone)
        _write_aside(aside, tensors, meta)
        aside.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise _not_writable(folder.parent, error) from error
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file: whole under its name, on the disk, or as it was.

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    try:
        with atomic_file(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(place: Path, error: Exception) -> OSError:
    code = (error.errno,) if isinstance(error, OSError) and error.errno is not None else ()
    return OSError(
        *code,
        f"a checkpoint must be writable below {place}, got: {error}; free or choose another place. "
        "Earlier checkpoints are as they were.",
    )


@contextmanager
def only_writer(run: str | os.PathLike[str], name: str = ".lock") -> Iterator[None]:
    """Holds a run directory for this process; however it ends, the system lets go.

    Args:
        run: The run directory, which exists.
        name: The file in it that is locked; locks on different names do not meet.

    Raises:
        RuntimeError: If another process (or thread) holds it.
    """
    handle = os.open(Path(run) / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RuntimeError(
                    f"a run directory has one writer, another process is writing to {run}; give each run its own."
                ) from error
        yield
    finally:
        os.close(handle)


def _write_aside(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """Writes a complete checkpoint to `folder` and waits for the disk; leaves nothing there if that fails."""
    folder.mkdir()
    try:
        files, tied = {}, {}
        for group, named in tensors.items():
            path = folder / f"{group}.safetensors"
            own, tied[group] = _untied(named, group)
            path.touch()
            mode = path.stat().st_mode  # as the umask has it; a file that safetensors makes is for its owner alone
            save_file(own, path)
            path.chmod(mode)
            sync(path)
            files[group] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        state = {**FORMAT, "files": files, "tied": tied, "meta": dict(meta)}
        with (folder / "state.json").open("x", encoding="utf-8") as file:
            json.dump({**state, "sha256": digest(state)}, file, indent=1)
        sync(folder / "state.json")
        sync(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _untied(named: Mapping[str, Tensor], group: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Copies on the CPU of the tensors that are different, and name -> name for those that are the same memory."""
    own: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    seen: dict[tuple, str] = {}
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{group} holds tensors, got a {type(tensor).__name__} at {name!r}; put it in meta.")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            tied[name] = seen[place]
        else:
            seen[place] = name
            own[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return own, tied


def _prune(run: Path, new: Path, keep: int) -> None:
    good = 0
    for folder in numbered(run):
        if good >= keep:
            gone = folder.rename(run / f".saving-{folder.name}")  # one step: a half-deleted one never looks damaged
            shutil.rmtree(gone, ignore_errors=True)
        else:
            good += folder == new or not damage(folder)


def _check_json(value: Any, where: str) -> None:
    """Refuses what JSON would turn into something else (a tuple, a key that is no string) or cannot hold."""
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        for key, item in value.items():
            _check_json(item, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_json(item, f"{where}[{i}]")
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise TypeError(
            f"meta is JSON, {where} is a {type(value).__name__}; give strings, numbers, lists or dicts with string "
            "keys, settings as scoresde.storage.spec.to_text writes them, and tensors among the tensors."
        )
