"""Atomic files: written under a temporary name, flushed to the disk, then renamed over the target."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_file", "check_replaceable", "sync"]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path, which replaces ``path`` when the block ends; an exception leaves ``path`` unchanged.

    The temporary file is in the same folder and has the same suffix, because some writers choose a format by it.
    Several processes may write the same ``path``; the last to finish wins. A link stays, and its file is replaced.

    Args:
        path: The target file.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: If the file cannot be written.
        ValueError: If ``path`` is a device or a pipe.
    """
    check_replaceable(path)
    path = path.resolve()
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")  # files of tempfile are readable by their owner only
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_replaceable(path: Path) -> None:
    """Refuses a device or a pipe as target: a rename would put a file in its place, also of ``/dev/stdout``.

    Raises:
        ValueError: If ``path`` is one, or a link to one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(
            f"a result must go to a file, {path} is a device or a pipe, which cannot be replaced; write a file, and "
            "read that one."
        )


def sync(path: Path) -> None:
    """Flushes a file or a directory to the disk; does nothing for directories on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
