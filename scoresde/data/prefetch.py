"""`Prefetcher`: a thread that reads the events of the next batch from disk while the current step computes."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

__all__ = ["Prefetcher"]


class Prefetcher:
    """Rows of a tensor on the CPU, with a background thread that reads the rows of the next request.

    The returned rows never depend on the prefetched ones: a wrong prediction of the next request costs only its read.

    Args:
        events: Shape ``(N, *D)``, such as a memory-mapped file.
    """

    def __init__(self, events: Tensor) -> None:
        self._events = events
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="scoresde-data")
        self._pending: tuple[Tensor, Future[Tensor]] | None = None

    def take(self, indices: Tensor, next_indices: Tensor | None = None) -> Tensor:
        """Returns ``events[indices]``, a copy, and starts to read ``events[next_indices]``.

        Args:
            indices: Indices of the events, ``(B,)``, on the CPU.
            next_indices: Indices of the next request, if known.

        Raises:
            IndexError: If an index is out of range.
        """
        pending, self._pending = self._pending, None
        hit = pending is not None and torch.equal(pending[0], indices)
        rows = pending[1].result() if pending is not None and hit else self._events[indices]
        if next_indices is not None:
            copy = next_indices.clone()
            self._pending = copy, self._reader.submit(self._events.__getitem__, copy)
        return rows

    def close(self) -> None:
        """Stops the thread and drops prefetched events."""
        self._pending = None
        self._reader.shutdown(wait=True, cancel_futures=True)
