"""How are many events decoded at once, in an order that does not depend on who decodes them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

__all__ = ["decoded"]

_CHUNK = 32  # events that a worker decodes and sends together


def decoded(read: Callable[[Any], np.ndarray], items: Sequence[Any], workers: int = 0) -> Iterator[np.ndarray]:
    """Yields ``read(item)`` for each item in turn, decoded in ``workers`` processes where that is not 0.

    A few chunks of 32 are decoded ahead, no more. An exception of ``read`` is raised when its turn comes, as it was.
    Global random state is left as it was.

    Args:
        read: Decodes one item; with workers it must be picklable wherever processes are not forked.
        items: What to decode.
        workers: Number of processes; 0 decodes here.

    Raises:
        ValueError: If ``workers`` is not a whole number >= 0.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise ValueError(f"workers must be a whole number >= 0, got {workers!r}; 0 decodes in this process.")
    chunks = _Chunks(read, items)
    loader = DataLoader(
        chunks,
        batch_size=None,
        num_workers=min(workers, len(chunks)),
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader would draw from global state
    )
    for chunk in loader:
        for event in chunk:
            if isinstance(event, Exception):
                raise event
            yield event


class _Chunks(Dataset[list[Any]]):
    """Item ``i``: the decoded events of chunk ``i``, up to the first that fails, whose exception ends it."""

    def __init__(self, read: Callable[[Any], np.ndarray], items: Sequence[Any]) -> None:
        self.read, self.items = read, items

    def __len__(self) -> int:
        return -(-len(self.items) // _CHUNK)

    def __getitem__(self, index: int) -> list[Any]:
        if index >= len(self):
            raise IndexError(index)
        events: list[Any] = []
        for item in self.items[index * _CHUNK : (index + 1) * _CHUNK]:
            events.append(self._read(item))
            if isinstance(events[-1], Exception):
                break
        return events

    def _read(self, item: Any) -> np.ndarray | Exception:
        try:
            return self.read(item)
        except Exception as error:  # raised by the caller, in order
            return error


def _as_it_is(chunk: Any) -> Any:
    return chunk
