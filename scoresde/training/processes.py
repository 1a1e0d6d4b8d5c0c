"""How do several processes act as one? By accelerate, and by failing and stopping together.

The command is the same for one process and for many nodes; accelerate's launcher says how many there are. What one
process alone does (writing, callbacks) is followed by a word to the others, so that none waits for one that has failed.
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
from scoresde.distributed import leaves_at_exit

__all__ = ["Stop", "accelerated", "fsdp_plugin", "gathered", "in_pieces", "own_randomness", "together"]

_PATIENCE = timedelta(days=1)  # of processes whose main one saves, or runs callbacks such as metrics of many samples


@contextmanager
def accelerated(
    precision: str,
    device: str | torch.device | None,
    trackers: Sequence[str] = (),
    folder: str | Path | None = None,
) -> Iterator[Accelerator]:
    """An accelerator for one run. accelerate keeps its state per process; what is found there is put back.

    Args:
        precision: "no", "bf16" or "fp16".
        device: Where one process trains; None leaves it to accelerate.
        trackers: Names that accelerate knows.
        folder: Where trackers write.

    Raises:
        ValueError: If fp16 is asked for on the CPU, or a tracker is not installed.
    """
    states = [(s, dict(s._shared_state)) for s in (AcceleratorState, GradientState)]
    for state, _ in states:
        state._shared_state.clear()
    try:
        accelerator = Accelerator(
            mixed_precision=precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
            log_with=list(trackers) or None,
            project_dir=None if folder is None else str(folder),
        )
        if device is not None:
            accelerator.state.device = torch.device(device)  # pyright: ignore[reportAttributeAccessIssue]
        if precision == "fp16" and accelerator.device.type == "cpu":
            raise ValueError("fp16 needs a GPU, got the CPU; use precision='bf16' or 'no'.")
        yield accelerator
    finally:
        for state, found in states:
            state._shared_state.clear()
            state._shared_state.update(found)
    leaves_at_exit()


@contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Global random state, on the CPU and the device, is as before afterwards."""
    kind = device.type if device.type in ("cuda", "xpu") else "cuda"
    devices = [device] if device.type == kind else []
    with torch.random.fork_rng(devices, device_type=kind):
        yield


def gathered(accelerator: Accelerator, numbers: Sequence[float]) -> list[list[float]]:
    """The numbers of every process, in their order; every process must ask, and waits for the others.

    Args:
        accelerator: Of the run.
        numbers: As many in each process; float64 where the device has it.
    """
    if accelerator.num_processes == 1:
        return [list(numbers)]
    row = torch.tensor([list(numbers)], dtype=widest_dtype(accelerator.device), device=accelerator.device)
    rows = accelerator.gather(row)
    assert isinstance(rows, Tensor)
    return rows.tolist()


def in_pieces(accelerator: Accelerator) -> bool:
    """Whether the launcher's settings ask for pieces.

    Raises:
        ValueError: If they ask for another way to split a model, or for pieces in fp16.
    """
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(f"a model is split by FSDP2 only, got {accelerator.distributed_type}; use --use_fsdp.")
    if accelerator.num_processes == 1 or not parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return False
    if fsdp_plugin(accelerator).fsdp_version != 2:
        raise ValueError("a model is split by FSDP2, got FSDP of version 1; add --fsdp_version 2.")
    if accelerator.scaler is not None:
        raise ValueError("fp16 scales the gradient of a whole model, got one in pieces; use precision='bf16'.")
    return True


def fsdp_plugin(accelerator: Accelerator) -> FullyShardedDataParallelPlugin:
    """The launcher's settings of FSDP."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    return FullyShardedDataParallelPlugin() if plugin is None else plugin


@contextmanager
def together(accelerator: Accelerator) -> Iterator[None]:
    """What fails inside in one process fails in all of them, so that none waits for one that is gone.

    Raises:
        RuntimeError: In the processes that did not fail themselves.
    """
    own: BaseException | None = None
    try:
        yield
    except BaseException as error:
        own = error
    if own is not None:
        with suppress(RuntimeError):  # the others may be gone
            gathered(accelerator, [1.0])
        raise own
    failed = [i for i, (bad,) in enumerate(gathered(accelerator, [0.0])) if bad]
    if failed:
        raise RuntimeError(f"all processes must go on together, process {failed[0]} failed; its message says why.")


class Stop:
    """Waits for Ctrl-C (SIGINT) or SIGTERM, which a cluster sends before it takes a machine away.

    The update under way is finished first. In a single process a second Ctrl-C interrupts at once. Outside of the
    main thread, where Python gives no signals, nothing is waited for.

    Args:
        accelerator: Of the run.
        waiting: False leaves signals as they are.
    """

    def __init__(self, accelerator: Accelerator, *, waiting: bool) -> None:
        self._accelerator = accelerator
        self._waiting = waiting and threading.current_thread() is threading.main_thread()
        self._before: dict[int, object] = {}
        self.signal = 0

    def agreed(self, *, due: bool) -> bool:
        """Whether all processes shall stop now; in several processes they ask each other only when it is ``due``."""
        if self._accelerator.num_processes == 1:
            return bool(self.signal)
        if not (self._waiting and due):
            return False
        self.signal = int(max(number for (number,) in gathered(self._accelerator, [float(self.signal)])))
        return bool(self.signal)

    def leave(self) -> None:
        """Ends as the signal would have.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
            SystemExit: After SIGTERM, with 143.
        """
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def __enter__(self) -> Stop:
        if self._waiting:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.signal == number == signal.SIGINT
        self.signal = self.signal or number
        if again and self._accelerator.num_processes == 1:  # a launcher passes on what the terminal has sent already
            raise KeyboardInterrupt
