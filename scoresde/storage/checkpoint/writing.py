"""Atomic writing of checkpoints: a hidden sibling directory is written, flushed to the disk, and renamed.

A process that is killed at any moment leaves the earlier checkpoints unchanged. The next save removes its incomplete
directory.
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

from scoresde._core.annotations import check_arguments
from scoresde._core.atomic import atomic_file, sync
from scoresde._core.checks import check_integer
from scoresde.storage.checkpoint.reading import FORMAT, damage, digest, digest_file, numbered

try:
    import fcntl
except ImportError:  # Windows has no advisory locks of this kind: two writers are not detected there
    fcntl = None

__all__ = ["only_writer", "write_checkpoint", "write_text", "write_whole"]


def write_checkpoint(
    run: str | os.PathLike[str],
    tensors: Mapping[str, Mapping[str, Tensor]],
    meta: Mapping[str, Any],
    *,
    keep: int = 2,
) -> Path:
    """Writes the run's next checkpoint atomically.

    Args:
        run: The run directory; created if it does not exist.
        tensors: Group -> name -> tensor, one file per group, e.g. `{"model": net.state_dict()}`. Any device, shape and
            type. Tied weights are stored once, views of a larger tensor in full.
        meta: JSON: strings, numbers, bools, None, lists, and dicts with string keys.
        keep: Number of undamaged checkpoints that are kept, this one included, at least 1. The earlier ones are read to
            check them: a damaged one does not count.

    Returns:
        The checkpoint's directory, e.g. `run/checkpoint-000007`, flushed to the disk.

    Raises:
        ValueError: If `keep` is below 1, a group is not named in letters, digits and `_`, or `run` is a checkpoint.
        TypeError: If `meta` is not JSON or a value not a tensor.
        OSError: If it cannot be written (disk full, read-only, not a directory); existing files do not change.
        RuntimeError: If another process is saving into the same directory.
    """
    check_arguments(write_checkpoint, locals())
    check_integer("keep", keep)
    for group in tensors:
        if not re.fullmatch(r"[A-Za-z0-9_]+", group):
            raise ValueError(f"a group of tensors is named in letters, digits and '_', got {group!r}; rename it.")
    _check_json(dict(meta), "meta")
    run = Path(run)
    if (run / "state.json").exists():
        raise ValueError(f"a run directory holds checkpoints, {run} is itself a checkpoint; save to {run.parent}.")
    try:
        run.mkdir(parents=True, exist_ok=True)
        with only_writer(run, ".saving.lock"):
            for leftover in run.glob(".saving-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            number = max((int(f.name.partition("-")[2]) for f in numbered(run)), default=0) + 1
            target = run / f"checkpoint-{number:06d}"
            _write_directory(run / f".saving-{target.name}", tensors, meta)
            (run / f".saving-{target.name}").rename(target)
            sync(run)
            _prune(run, target, keep)
    except (OSError, SafetensorError) as error:
        raise _not_writable(run, error) from error
    return target


def write_whole(
    folder: str | os.PathLike[str], tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]
) -> Path:
    """Writes a directory in the format of a checkpoint, atomically and under the caller's name.

    Args:
        folder: Its path; an existing directory is replaced. No other process may write to it.
        tensors, meta: See `write_checkpoint`.

    Returns:
        The directory, flushed to the disk.

    Raises:
        OSError: If it cannot be written.
    """
    folder = Path(folder)
    temporary = folder.with_name(f".saving-{folder.name}")
    _check_json(dict(meta), "meta")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for old in (temporary, folder):
            if old.exists():
                shutil.rmtree(old)
        _write_directory(temporary, tensors, meta)
        temporary.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise _not_writable(folder.parent, error) from error
    return folder


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file atomically and flushes it to the disk.

    Raises:
        OSError: If it cannot be written.
    """
    check_arguments(write_text, locals())
    path = Path(path)
    try:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise _not_writable(path.parent, error) from error


def _not_writable(folder: Path, error: Exception) -> OSError:
    code = (error.errno,) if isinstance(error, OSError) and error.errno is not None else ()
    return OSError(
        *code,
        f"a checkpoint must be writable below {folder}, got: {error}; free space, or choose another directory. "
        "Earlier checkpoints are unchanged.",
    )


@contextmanager
def only_writer(run: str | os.PathLike[str], name: str = ".lock") -> Iterator[None]:
    """Locks a run directory for this process; the system releases the lock when the process ends.

    Args:
        run: The run directory, which exists.
        name: The locked file in it; locks on different names are independent.

    Raises:
        RuntimeError: If another process or thread has the lock.
    """
    check_arguments(only_writer, locals())
    handle = os.open(Path(run) / name, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RuntimeError(
                    f"a run directory has one writer, another process is writing to {run}; use one directory per run."
                ) from error
        yield
    finally:
        os.close(handle)


def _write_directory(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], meta: Mapping[str, Any]) -> None:
    """Writes a complete checkpoint to `folder` and flushes it to the disk; after an error `folder` is removed."""
    folder.mkdir()
    try:
        files, tied = {}, {}
        for group, named in tensors.items():
            path = folder / f"{group}.safetensors"
            unique, tied[group] = _without_ties(named, group)
            path.touch()
            mode = path.stat().st_mode  # as by the umask; safetensors would give access to the owner alone
            save_file(unique, path)
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


def _without_ties(named: Mapping[str, Tensor], group: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """CPU copies of the tensors of different memory, and name -> name for those that share memory."""
    unique: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[tuple, str] = {}
    if not isinstance(named, Mapping):
        raise TypeError(f"{group} must map names to tensors, got {named!r}; write {{name: tensor}}.")
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{group} holds tensors, got a {type(tensor).__name__} at {name!r}; put it in meta.")
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and memory in names:
            tied[name] = names[memory]
        else:
            names[memory] = name
            unique[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return unique, tied


def _prune(run: Path, new: Path, keep: int) -> None:
    undamaged = 0
    for folder in numbered(run):
        if undamaged >= keep:
            hidden = folder.rename(run / f".saving-{folder.name}")  # so that a half-deleted one does not look damaged
            shutil.rmtree(hidden, ignore_errors=True)
        else:
            undamaged += folder == new or not damage(folder)


def _check_json(value: Any, path: str) -> None:
    """Refuses what JSON would change (a tuple, a key that is not a string) or cannot hold."""
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        for key, item in value.items():
            _check_json(item, f"{path}[{key!r}]")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            _check_json(item, f"{path}[{i}]")
    elif not (value is None or isinstance(value, (bool, int, float, str))):
        raise TypeError(
            f"meta is JSON, {path} is a {type(value).__name__}; pass strings, numbers, lists or dicts with string "
            "keys, settings as text (scoresde.storage.spec.to_text), and tensors as tensors."
        )
