"""Atomic files: written aside, flushed to the disk, then renamed, so that a file is complete or as it was."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_file", "sync"]


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A path to write to, which replaces ``path`` when the block ends; after an exception ``path`` is as it was.

    The temporary file is in the same folder and has the same suffix, by which some writers choose a format. Several
    processes may write at once: the last one's file stays.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be written.
    """
    aside = path.with_name(f".{uuid.uuid4().hex}-{path.name}")  # not tempfile's, which only their owner can read
    try:
        yield aside
        sync(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Waits until the content of a file or a directory is on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
