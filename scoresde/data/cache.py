"""Where do decoded events live? In memory, or in a ``.npy`` file that is mapped into it and was made once."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from scoresde._core.atomic import atomic_file

__all__ = ["mapped", "cache_file", "store"]


def cache_file(cache: str | Path | None, name: str, made_of: Iterable[object]) -> Path | None:
    """The file in the folder ``cache`` for what is made of ``made_of``: other parts, another file. None without one."""
    if cache is None:
        return None
    digest = hashlib.sha256()
    for part in made_of:
        digest.update(f"{part!r}\n".encode())
    return Path(cache) / f"{name}-{digest.hexdigest()[:16]}.npy"


def store(events: Callable[[], Iterator[np.ndarray]], count: int, file: Path | None) -> Tensor:
    """``(count, *D)``: in memory, or mapped from ``file``, which is made first if it is not there.

    The file appears whole or not at all (it is written under another name and renamed): what is there is not made
    again, and a conversion that is stopped leaves nothing that could be mistaken for one. A mapped tensor may be
    written to, which never reaches the file. Several processes that convert at once each do the work; the last
    one's file stays, and it is the same.

    Args:
        events: Begins the events, all of one shape and type.
        count: Their number, at least 1.
        file: A ``.npy`` file; its folder is made.

    Raises:
        ValueError: If they do not fit into this machine's memory without a file.
        OSError: If the file cannot be written, such as on a full disk.
    """
    if file is None:
        return _in_memory(events(), count)
    if not file.exists():
        _write(events(), count, file)
    return mapped(file)


def mapped(file: Path) -> Tensor:
    """The array of a ``.npy`` file, read from the disk as it is used; writes stay in memory."""
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))


def _in_memory(events: Iterator[np.ndarray], count: int) -> Tensor:
    first = next(events)
    needed, there = count * first.nbytes, _memory()
    if needed > there:
        raise ValueError(
            f"{count} events of {first.nbytes} bytes need {needed / 1e9:.3g} GB, this machine has {there / 1e9:.3g} GB "
            "of memory; pass cache=<a folder>, where they are converted once and then read from the disk."
        )
    whole = np.empty((count, *first.shape), first.dtype)
    for i, event in enumerate(itertools.chain([first], events)):
        whole[i] = event
    return torch.from_numpy(whole)


def _write(events: Iterator[np.ndarray], count: int, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as aside, aside.open("xb") as out:
            _append(events, count, out)
    except OSError as error:
        raise OSError(f"{file} could not be written ({error}); pass another cache=, with room for the data.") from error


def _append(events: Iterator[np.ndarray], count: int, out: BinaryIO) -> None:
    first = next(events)
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(out, {**header, "shape": (count, *first.shape)})
    for event in itertools.chain([first], events):  # not through a map: a full disk would kill the process
        out.write(np.ascontiguousarray(event).data)


def _memory() -> float:
    """Bytes of memory of this machine; infinite where it does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
