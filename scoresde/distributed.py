"""Distribution of independent rows among the processes of accelerate's launcher, and gathering of their results.

Each process computes its rows without communication, so no process waits for the solver of another. A row with its own
seed, for example its row number, has the same result in any process.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
from torch import Tensor, distributed

from scoresde._core.checks import check_integer

__all__ = ["Rank", "process_group", "leave_group_at_exit"]

_MAX_DIMS = 16  # of a gathered tensor
_RELEASE_SECONDS = 0.5
_TIMEOUT = timedelta(days=30)  # waits for the slowest process; the connection to a dead process breaks at once


@dataclass(frozen=True)
class Rank:
    """One of the processes that share the rows of a computation.

    Attributes:
        index: Number of this process, from 0.
        count: Number of processes.
        device: Device of this process.
        group: Process group that exchanges tensors; None for a single process.
    """

    index: int
    count: int
    device: torch.device
    group: distributed.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this process receives the gathered rows and writes files."""
        return self.index == 0

    def rows(self, n: int, batch_size: int | None = None) -> range:
        """The rows of this process: one contiguous range; the ranges follow the order of the processes.

        Args:
            n: Number of rows of all processes together.
            batch_size: Number of rows computed together. Processes receive whole batches, the first with rows
                0 ... batch_size - 1. A row then has the same batch, and the same rounding, for any ``count``.

        Returns:
            Row numbers, which can serve as seeds. Empty in some processes if there are fewer batches than processes,
            but never in the main process if n > 0.

        Raises:
            ValueError: If ``n`` is negative or ``batch_size`` not a positive integer.
        """
        size = 1 if batch_size is None else batch_size
        check_integer("batch_size", size)
        check_integer("n", n, least=0)
        batches = -(-n // size)
        first, end = (min(n, size * -(-batches * index // self.count)) for index in (self.index, self.index + 1))
        return range(first, end)

    def gather(self, local: Tensor) -> Tensor | None:
        """Collects the rows of all processes in the main process, in the order of the processes.

        Every process must call this; the main process waits for the others.

        Args:
            local: Results of this process, ``(rows, *D)`` with any number of rows. All processes with rows must have
                the same type and the same D.

        Returns:
            All rows, ``(n, *D)``, on the CPU, in the main process; None in the other processes.

        Raises:
            ValueError: In every process, if D differs.
        """
        local = local.detach().cpu().contiguous()
        if self.count == 1:
            return local
        shapes = self._gather_shapes(local)
        rows = self._receive(local, shapes) if self.main else self._send(local)
        distributed.barrier(group=self.group)  # no process leaves before the rows that it sent have arrived
        return rows

    def _gather_shapes(self, local: Tensor) -> list[tuple[int, ...]]:
        padded = torch.full((_MAX_DIMS,), -1)  # the same length in every process, which gloo requires
        padded[: local.ndim] = torch.tensor(local.shape)
        received = [torch.empty_like(padded) for _ in range(self.count)]
        distributed.all_gather(received, padded, group=self.group)
        shapes = [tuple(size for size in shape.tolist() if size >= 0) for shape in received]
        events = sorted({shape[1:] for shape in shapes if shape[0]})
        if len(events) > 1:
            raise ValueError(
                f"rows must have one shape in every process, got {' and '.join(map(str, events))}; if a solver chooses "
                "its own times, gather the final states only."
            )
        return shapes

    def _receive(self, local: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
        parts = [local] if len(local) else []
        for index, shape in enumerate(shapes[1:], 1):
            if shape[0]:
                parts.append(torch.empty(shape, dtype=local.dtype))
                distributed.recv(parts[-1], index, group=self.group)
        return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else local

    def _send(self, local: Tensor) -> None:
        if len(local):
            distributed.send(local, 0, group=self.group)


@contextmanager
def process_group() -> Iterator[Rank]:
    """The process group of accelerate's launcher, or a single process without the launcher.

    Gathered rows pass through CPU memory on all devices. An exception in one process is raised in that process only;
    the launcher then ends the others.

    Yields:
        The rank of this process, with the device that accelerate assigns. A single process uses a GPU if there is one,
        else the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Rank(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    from accelerate import PartialState
    from accelerate.utils.environment import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    assert isinstance(state.device, torch.device)
    group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
    assert isinstance(group, distributed.ProcessGroup)
    try:
        yield Rank(state.process_index, state.num_processes, state.device, group)
    finally:
        distributed.destroy_process_group(group)
    leave_group_at_exit()


@cache
def leave_group_at_exit() -> None:
    """Destroys the process group before the interpreter exits. Call this when no exchange is in progress.

    A thread of the group that still holds a tensor at interpreter exit would abort the process, because releasing a
    tensor needs the interpreter. A process that failed must not call this: destroying the group waits for exchanges in
    progress, and the launcher ends the other processes only after the failed one has exited.
    """
    atexit.register(_leave_group)


def _leave_group() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
        # The threads of a group that a sharded network still refers to go on. They cannot be joined; this wait, which
        # leaves the interpreter to them, is long enough for them to release their last tensors.
        time.sleep(_RELEASE_SECONDS)
