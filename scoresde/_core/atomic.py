"""Atomic files: written under a temporary name, flushed to the disk, then renamed over the target."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_file", "sync"]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path, which replaces ``path`` when the block ends; an exception leaves ``path`` unchanged.

    The temporary file is in the same folder and has the same suffix, because some writers choose a format by it.
    Several processes may write the same ``path``; the last to finish wins.

    Args:
        path: The target file.

    Yields:
        The temporary path to write to.

    Raises:
        OSError: If the file cannot be written.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}-{path.name}")  # files of tempfile are readable by their owner only
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Flushes a file or a directory to the disk; does nothing for directories on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
