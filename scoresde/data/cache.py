"""Storage of decoded events: in memory, or in a ``.npy`` cache file that is written once and memory-mapped."""

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

__all__ = ["cache_file", "memory_map", "store"]


def cache_file(cache: str | Path | None, name: str, inputs: Iterable[object]) -> Path | None:
    """The file in the folder ``cache`` for data made from ``inputs``, with their hash in its name; None if no folder.

    Args:
        cache: The folder, or None.
        name: Beginning of the file name.
        inputs: Everything that the data depend on; each must have a stable ``repr``.
    """
    if cache is None:
        return None
    digest = hashlib.sha256()
    for value in inputs:
        digest.update(f"{value!r}\n".encode())
    return Path(cache) / f"{name}-{digest.hexdigest()[:16]}.npy"


def store(events: Callable[[], Iterator[np.ndarray]], count: int, file: Path | None) -> Tensor:
    """Events ``(count, *D)`` in memory, or memory-mapped from ``file``, which is written first if it does not exist.

    The file appears only when it is complete (it is written under another name and renamed). An existing file is not
    written again, and an interrupted conversion leaves no file. Writing to a mapped tensor does not change the file.
    Several processes that convert at once each do the work; the last one's file stays, and all are the same.

    Args:
        events: Returns an iterator over the events, all of one shape and type.
        count: Number of events, at least 1.
        file: A ``.npy`` file; its folder is created.

    Raises:
        ValueError: If the events do not fit into memory and there is no file.
        OSError: If the file cannot be written, such as on a full disk.
    """
    if file is None:
        return _in_memory(events(), count)
    if not file.exists():
        _write(events(), count, file)
    return memory_map(file)


def memory_map(file: Path) -> Tensor:
    """The array of a ``.npy`` file, read from disk on access; writes stay in memory."""
    return torch.from_numpy(np.load(file, mmap_mode="c", allow_pickle=False))


def _in_memory(events: Iterator[np.ndarray], count: int) -> Tensor:
    first = next(events)
    required, total = count * first.nbytes, _total_memory()
    if required > total:
        raise ValueError(
            f"{count} events of {first.nbytes} bytes need {required / 1e9:.3g} GB, this machine has "
            f"{total / 1e9:.3g} GB of memory; pass cache=<a folder> to convert them once and memory-map the file."
        )
    array = np.empty((count, *first.shape), first.dtype)
    for i, event in enumerate(itertools.chain([first], events)):
        array[i] = event
    return torch.from_numpy(array)


def _write(events: Iterator[np.ndarray], count: int, file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary, temporary.open("xb") as out:
            _write_array(events, count, out)
    except OSError as error:
        raise OSError(f"{file} could not be written ({error}); pass another cache=, with room for the data.") from error


def _write_array(events: Iterator[np.ndarray], count: int, out: BinaryIO) -> None:
    first = next(events)
    header = {"descr": np.lib.format.dtype_to_descr(first.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(out, {**header, "shape": (count, *first.shape)})
    for event in itertools.chain([first], events):  # not through a memory map: a full disk would kill the process
        out.write(np.ascontiguousarray(event).data)


def _total_memory() -> float:
    """Bytes of memory of this machine; infinite if the system does not report it."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return math.inf
