"""Distributed training by accelerate: one program for one process or many, which fail and stop together.

accelerate's launcher sets the number of processes. Only the main process writes files and runs callbacks. It then sends
a message to the others, so that none waits for a process that has failed.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin, InitProcessGroupKwargs
from accelerate.utils.environment import parse_flag_from_env
from torch import Tensor

from scoresde._core.tensors import widest_dtype
from scoresde.distributed import leave_group_at_exit

__all__ = [
    "StopSignal",
    "accelerated",
    "fail_together",
    "fsdp_plugin",
    "gather_numbers",
    "preserved_random_state",
    "uses_fsdp",
]

_TIMEOUT = timedelta(days=1)  # while the main process saves, or runs callbacks such as metrics of many samples


@contextmanager
def accelerated(
    precision: str,
    device: str | torch.device | None,
    trackers: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Iterator[Accelerator]:
    """An accelerator for one run; accelerate's state of this process is restored at the end.

    Args:
        precision: "no", "bf16" or "fp16".
        device: Where one process trains; None leaves it to accelerate.
        trackers: Names of accelerate's trackers.
        folder: Where trackers write.

    Raises:
        ValueError: If fp16 is requested on the CPU, or a tracker is not installed.
    """
    shared_states = [(s, dict(s._shared_state)) for s in (AcceleratorState, GradientState)]
    for state, _ in shared_states:
        state._shared_state.clear()
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_TIMEOUT)],
            log_with=list(trackers) or None,
            project_dir=None if folder is None else str(folder),
        )
        if device is not None:
            accelerator.state.device = torch.device(device)  # pyright: ignore[reportAttributeAccessIssue]
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("fp16 needs a GPU, got the CPU; use precision='bf16' or 'no'.")
        yield accelerator
    finally:
        for state, before in shared_states:
            state._shared_state.clear()
            state._shared_state.update(before)
    leave_group_at_exit()


@contextmanager
def preserved_random_state(device: torch.device) -> Iterator[None]:
    """Restores the global random state of the CPU and the device at the end of the block."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type == kind else []
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def gather_numbers(accelerator: Accelerator, numbers: Sequence[float]) -> list[list[float]]:
    """The numbers of every process, in the processes' order; every process must call it, and waits for the others.

    Args:
        accelerator: Of the run.
        numbers: Equally many in each process; sent as float64 where the device has it.
    """
    if accelerator.num_processes == 1:
        return [list(numbers)]
    row = torch.tensor([list(numbers)], dtype=widest_dtype(accelerator.device), device=accelerator.device)
    rows = accelerator.gather(row)
    assert isinstance(rows, Tensor)
    return rows.tolist()


def uses_fsdp(accelerator: Accelerator) -> bool:
    """Whether the launcher's settings ask for a sharded network (FSDP2).

    Raises:
        ValueError: If they ask for another method of sharding, or for sharding in fp16.
    """
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(f"a network is sharded by FSDP2 only, got {accelerator.distributed_type}; use --use_fsdp.")
    if accelerator.num_processes == 1 or not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if fsdp_plugin(accelerator).fsdp_version != 2:
        raise ValueError("a network is sharded by FSDP2, got FSDP of version 1; add --fsdp_version 2.")
    if accelerator.scaler is not None:
        raise ValueError("fp16 needs a whole network, got a sharded one; use precision='bf16'.")
    return True


def fsdp_plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin:
    """The launcher's settings of FSDP."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    return FullyShardedDataParallelPlugin() if plugin is None else plugin


@contextmanager
def fail_together(accelerator: Accelerator) -> Iterator[None]:
    """An exception inside in one process becomes an exception in all of them, so that none waits for a failed one.

    Raises:
        RuntimeError: In the processes that did not fail themselves.
    """
    failure: BaseException | None = None
    try:
        yield
    except BaseException as error:
        failure = error
    if failure is not None:
        with suppress(RuntimeError):  # the others may have ended
            gather_numbers(accelerator, [1.0])
        raise failure
    failed = [i for i, (bad,) in enumerate(gather_numbers(accelerator, [0.0])) if bad]
    if failed:
        raise RuntimeError(f"all processes must succeed, process {failed[0]} failed; see its message.")


class StopSignal:
    """Handles Ctrl-C (SIGINT), and SIGTERM, which a cluster sends before it ends a job.

    The current update is finished first. In a single process a second Ctrl-C interrupts at once. Outside the main
    thread, where Python delivers no signals, none are handled.

    Args:
        accelerator: Of the run.
        enabled: False leaves the signal handlers unchanged.
    """

    def __init__(self, accelerator: Accelerator, *, enabled: bool) -> None:
        self._accelerator = accelerator
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._handlers: dict[int, object] = {}
        self.signal = 0

    def agreed(self, *, synchronize: bool) -> bool:
        """Whether all processes must stop now.

        Args:
            synchronize: Whether several processes exchange their signals in this call; if not, none stops.
        """
        if self._accelerator.num_processes == 1:
            return bool(self.signal)
        if not (self._enabled and synchronize):
            return False
        self.signal = int(max(number for (number,) in gather_numbers(self._accelerator, [float(self.signal)])))
        return bool(self.signal)

    def leave(self) -> None:
        """Ends the program as the signal would have.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM, with 143.
        """
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def __enter__(self) -> StopSignal:
        if self._enabled:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._handlers.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        repeated = self.signal == number == signal.SIGINT
        self.signal = self.signal or number
        if repeated and self._accelerator.num_processes == 1:  # a launcher repeats what the terminal has sent already
            raise KeyboardInterrupt
