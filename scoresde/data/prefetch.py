"""Who reads the next events while this step computes? A thread, where the data are mapped from a disk."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["Prefetcher"]


class Prefetcher:
    """Rows of a tensor on the CPU, of which the next ones are read before they are asked for.

    What is answered does not depend on what was announced: a wrong announcement costs its reading and no more.

    Args:
        events: Shape ``(N, *D)``, such as a mapped file.
    """

    def __init__(self, events: Tensor) -> None:
        self._events = events
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scoresde-data")
        self._coming: tuple[Tensor, Future[Tensor]] | None = None

    def take(self, index: Tensor, then: Tensor | None = None) -> Tensor:
        """``events[index]``, a copy; the reading of ``events[then]`` begins.

        Args:
            index: Which events, ``(B,)``, on the CPU.
            then: Which will be asked for next, if that is known.

        Raises:
            IndexError: If there is no such event.
        """
        coming, self._coming = self._coming, None
        read = coming is not None and torch.equal(coming[0], index)
        rows = coming[1].result() if coming is not None and read else self._events[index]
        if then is not None:
            self._coming = then.clone(), self._reader.submit(self._events.__getitem__, then.clone())
        return rows

    def close(self) -> None:
        """Lets the thread go; what was announced is dropped."""
        self._coming = None
        self._reader.shutdown(wait=True, cancel_futures=True)
