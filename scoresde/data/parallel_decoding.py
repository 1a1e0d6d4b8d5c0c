"""Decoding of many events in parallel worker processes, in an order that does not depend on the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from scoresde._core.checks import check_integer

__all__ = ["decode_in_parallel"]

_CHUNK = 32  # events that a worker decodes and sends together


def decode_in_parallel(
    decode: Callable[[Any], np.ndarray], items: Sequence[Any], workers: int = 0
) -> Iterator[np.ndarray]:
    """Yields ``decode(item)`` for each item in order, computed in ``workers`` processes if that is not 0.

    At most a few chunks of 32 events are decoded in advance. An exception of ``decode`` is raised unchanged, in the
    order of the items. Global random state is not changed.

    Args:
        decode: Decodes one item; with workers it must be picklable wherever processes are not forked.
        items: The items to decode.
        workers: Number of processes; 0 decodes in this process.

    Raises:
        ValueError: If ``workers`` is not an integer >= 0.
    """
    check_integer("workers", workers, least=0)
    chunks = _Chunks(decode, items)
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=min(workers, len(chunks)),
        collate_fn=_identity,
        generator=torch.Generator(),  # else the loader would draw from global state
    )
    for chunk in loader:
        for event in chunk:
            if isinstance(event, Exception):
                raise event
            yield event


class _Chunks(Dataset[list[Any]]):
    """Item ``i``: the decoded events of chunk ``i``, up to the first exception, which is its last entry."""

    def __init__(self, decode: Callable[[Any], np.ndarray], items: Sequence[Any]) -> None:
        self.decode, self.items = decode, items

    def __len__(self) -> int:
        return -(-len(self.items) // _CHUNK)

    def __getitem__(self, index: int) -> list[Any]:
        if index >= len(self):
            raise IndexError(index)
        events: list[Any] = []
        for item in self.items[index * _CHUNK : (index + 1) * _CHUNK]:
            events.append(self._decode(item))
            if isinstance(events[-1], Exception):
                break
        return events

    def _decode(self, item: Any) -> np.ndarray | Exception:
        try:
            return self.decode(item)
        except Exception as error:  # raised by the caller, in order
            return error


def _identity(chunk: Any) -> Any:
    return chunk
