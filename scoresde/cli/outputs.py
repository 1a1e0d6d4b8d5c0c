"""Output files: they are checked before any work is done, and appear under their name only when complete."""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_output", "check_writable", "write_columns"]


def check_writable(out: Path | None, option: str = "--out") -> None:
    """Creates the folder of an output file and tests that a file can be written there.

    Args:
        out: The file; None does nothing.
        option: The option that named it, for the error text.

    Raises:
        OSError: If the folder cannot be created or written to.
        IsADirectoryError: If ``out`` is a folder.
        ValueError: If ``out`` is a device or a pipe.
    """
    from scoresde._core.atomic import check_replaceable

    if out is None:
        return
    check_replaceable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OSError(
            f"{option} needs a folder to write to, {out.parent} is not one ({error.strerror}); choose another."
        ) from error
    if out.is_dir():
        raise IsADirectoryError(f"{option} must name a file, {out} is a folder; choose a file name inside it.")


@contextmanager
def atomic_output(out: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``out``; on success it replaces ``out``, on failure ``out`` is unchanged.

    Raises:
        OSError: If it cannot be written.
    """
    from scoresde._core.atomic import atomic_file

    try:
        with atomic_file(out) as path:
            yield path
    except OSError as error:
        raise OSError(
            f"{out} must be writable, got: {error.strerror or error}; free some space or choose another path. An "
            "earlier file of this name is unchanged."
        ) from error


def write_columns(columns: Mapping[str, Sequence[object]], out: Path) -> None:
    """Writes columns of one length as a CSV file with a line of names; a write that fails leaves no file."""
    with atomic_output(out) as path, path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
