"""How is work that needs no word between its rows shared among processes? Each takes rows of its own; one gathers.

Nothing is exchanged while the processes work, so that none waits for another's solver. A row with a seed of its own
(its number, say) is the same whichever process it falls to. The processes are those of accelerate's launcher.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import torch
from torch import Tensor, distributed

__all__ = ["Rank", "launched", "leaves_at_exit"]

_MOST_DIMS = 16  # of a tensor that is gathered
_PATIENCE = timedelta(days=30)  # for the slowest; the connection to one that has died breaks at once


@dataclass(frozen=True)
class Rank:
    """One of the processes that share the rows of some work.

    Attributes:
        index: Which, from 0.
        count: How many there are.
        device: Where this one computes.
        group: What they exchange tensors through; None for one alone.
    """

    index: int
    count: int
    device: torch.device
    group: distributed.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that gets the whole, and writes."""
        return self.index == 0

    def rows(self, n: int, batch_size: int | None = None) -> range:
        """The rows of this process: a share without gaps, the shares in the order of the processes.

        Args:
            n: Rows of all processes together.
            batch_size: Rows that are computed at once. Whole batches are shared out, 0 ... batch_size - 1 the first, so
                that every row has the same neighbors whatever ``count``; then rounding too is the same.

        Returns:
            Row numbers, which can serve as seeds; empty where there are fewer batches than processes, never in the main
            process if n > 0.

        Raises:
            ValueError: If ``n`` is negative or ``batch_size`` not a positive integer.
        """
        size = 1 if batch_size is None else batch_size
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}.")
        if n < 0:
            raise ValueError(f"rows are shared where there are 0 or more, got n = {n}.")
        batches = -(-n // size)
        first, end = (min(n, size * -(-batches * index // self.count)) for index in (self.index, self.index + 1))
        return range(first, end)

    def gather(self, mine: Tensor) -> Tensor | None:
        """Rows of all processes, in the order of the processes; all must call, and the main one waits for the others.

        Args:
            mine: This process's results, ``(rows, *D)`` with any number of rows; the same type, and D, in every process
                that has a row.

        Returns:
            All rows, ``(n, *D)``, on the CPU; None in the other processes.

        Raises:
            ValueError: In every process, if D is not the same.
        """
        mine = mine.detach().cpu().contiguous()
        if self.count == 1:
            return mine
        own = torch.full((_MOST_DIMS,), -1)  # of one length in every process, or gloo ends them all
        own[: mine.ndim] = torch.tensor(mine.shape)
        told = [torch.empty_like(own) for _ in range(self.count)]
        distributed.all_gather(told, own, group=self.group)
        shapes = [tuple(size for size in shape.tolist() if size >= 0) for shape in told]
        events = sorted({shape[1:] for shape in shapes if shape[0]})
        if len(events) > 1:
            raise ValueError(
                f"rows must have one shape in every process, got {' and '.join(map(str, events))}; where a solver "
                "chooses its own times, gather the ends alone."
            )
        whole = self._received(mine, shapes) if self.main else self._sent(mine)
        distributed.barrier(group=self.group)  # none leaves before what it sent has arrived
        return whole

    def _received(self, mine: Tensor, shapes: list[tuple[int, ...]]) -> Tensor:
        parts = [mine] if len(mine) else []
        for index, shape in enumerate(shapes[1:], 1):
            if shape[0]:
                parts.append(torch.empty(shape, dtype=mine.dtype))
                distributed.recv(parts[-1], index, group=self.group)
        return torch.cat(parts) if len(parts) > 1 else parts[0] if parts else mine

    def _sent(self, mine: Tensor) -> None:
        if len(mine):
            distributed.send(mine, 0, group=self.group)


@contextmanager
def launched() -> Iterator[Rank]:
    """This process among those that accelerate's launcher has started; alone where it has not.

    What is gathered goes through the CPU's memory, whatever the devices. A failure in one process is raised there only:
    the launcher then ends the others.

    Yields:
        The process's place, and the device that accelerate gives it; alone, a GPU where there is one, else the CPU.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Rank(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        return
    from accelerate import PartialState
    from accelerate.utils.environment import parse_flag_from_env

    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    assert isinstance(state.device, torch.device)
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    assert isinstance(group, distributed.ProcessGroup)
    try:
        yield Rank(state.process_index, state.num_processes, state.device, group)
    finally:
        distributed.destroy_process_group(group)
    leaves_at_exit()


@cache
def leaves_at_exit() -> None:
    """This process leaves its group before Python's own end; to be called where no exchange is under way.

    A thread of the group that still holds a tensor when Python ends would abort the process. One that fails is not to
    call this: leaving waits for what is under way, and the launcher ends the others only once the failed one is gone.
    """
    atexit.register(_leave)


def _leave() -> None:
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
