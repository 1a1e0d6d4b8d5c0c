"""Checks of a foreign file before it is read: a regular file, inside its folder, of a plausible size; small JSON."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["check_file", "parse_json", "physical_memory", "read_json"]

_JSON_LIMIT = 8 << 20  # bytes; the configuration of the largest models has some 1e4


def check_file(path: Path, within: Path | None = None) -> int:
    """Checks that a path is a regular file that does not lie elsewhere by a symbolic link, and fits the memory.

    Args:
        path: The file.
        within: The folder in which it must lie; default the one that ``path`` names. Links into the ``blobs`` of a
            Hugging Face cache are what such a cache consists of and are followed.

    Returns:
        Its size in bytes.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a regular file, lies elsewhere, is empty, or is larger than the memory.
    """
    folder = path.parent if within is None else within
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError) as error:
        if path.is_symlink():
            raise ValueError(
                f"{path} must be a file, got a link that leads nowhere; download the file again."
            ) from error
        raise FileNotFoundError(f"there must be a file at {path}, which does not exist; check the path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ValueError(f"{path} must be a file, got a directory; pass a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{path} must be a regular file, got a pipe, socket or device; it was not opened.")
    if not target.is_relative_to(folder.resolve()) and not _in_hub_cache(folder.resolve(), target):
        raise ValueError(
            f"{path} must lie in {folder}, got a link to {target}; it was not opened. Pass the file that it leads to, "
            "if you trust it."
        )
    if status.st_size == 0:
        raise ValueError(f"{path} must hold something, got an empty file; download it again.")
    if status.st_size > physical_memory():
        raise ValueError(
            f"{path} must fit the memory of this machine, {physical_memory() / 2**30:.3g} GiB, got "
            f"{status.st_size / 2**30:.3g} GiB; it was not read."
        )
    return status.st_size


def read_json(path: Path, within: Path | None = None) -> dict[str, Any]:
    """A small JSON object, such as a configuration.

    Args:
        path: The file, at most 8 MiB.
        within: As in `check_file`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such an object, has a name twice, is nested too deeply or is too large.
    """
    size = check_file(path, within)
    if size > _JSON_LIMIT:
        raise ValueError(f"{path} must be JSON of at most 8 MiB, got {size / 2**20:.4g} MiB; it was not read.")
    return parse_json(path.read_bytes(), str(path))


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """A JSON object in UTF-8 whose names are unique at every depth.

    Args:
        data: The text.
        name: What it is, for errors.

    Raises:
        ValueError: If it is something else.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
    except RecursionError as error:
        raise ValueError(f"{name} must be JSON of moderate depth, got one that is nested too deeply.") from error
    except ValueError as error:
        raise ValueError(f"{name} must be JSON with unique names, got: {error}; download it again.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, got a {type(value).__name__}.")
    return value


def physical_memory() -> int:
    """Bytes of memory of this machine; 2^40 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 40


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice[:80]!r} occurs twice")
    return entries


def _in_hub_cache(folder: Path, target: Path) -> bool:
    """Whether ``folder`` is ``…/snapshots/<revision>[/…]`` of a cache and ``target`` a file of its ``…/blobs``."""
    parts = folder.parts
    if "snapshots" not in parts:
        return False
    root = Path(*parts[: len(parts) - 1 - parts[::-1].index("snapshots")])
    return target.parent == root / "blobs"
