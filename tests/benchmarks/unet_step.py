"""What does a training step of our UNet cost beside the released denoising-diffusion-pytorch's at equal multiply-adds?

Forward pass, loss, gradient and AdamW on one batch of random 28 x 28 pictures; two resamplings, two blocks per level
and way, full attention at the coarsest level (ours after each block there, theirs once on each way, both in the
middle). Theirs is timed as released, and without the linear attention that it adds at the finer levels (ours has none).
Steps alternate in one process, so that whatever else the machine does meets all; the ratios are medians over turns.
Memory is what three steps add to the high-water mark of a process of its own. Linux only. Run it:

    pip install -c constraints.txt einops tqdm
    pip install --no-deps denoising-diffusion-pytorch ema-pytorch pytorch-fid
    python tests/benchmarks/unet_step.py [--sizes 1M] [--batch 64] [--threads 2] [--cpu] [--compile]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import multiprocessing
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scoresde.nn import UNet

EVENT = (1, 28, 28)


@dataclass(frozen=True)
class Entry:
    """One network in one setting.

    Attributes:
        name: For the table.
        channels: Width of its finest level.
        theirs: Whether it is denoising-diffusion-pytorch's.
        linear: Whether theirs keeps its linear attention.
        half: Whether the step runs under autocast to bfloat16.
        compiled: Whether torch.compile is used.
    """

    name: str
    channels: int
    theirs: bool = False
    linear: bool = True
    half: bool = False
    compiled: bool = False

    def build(self) -> nn.Module:
        """The network with fresh weights."""
        torch.manual_seed(0)
        if not self.theirs:
            net = UNet(EVENT, self.channels)
        else:
            net = their_class()(dim=self.channels, dim_mults=(1, 2, 2), channels=EVENT[0])
            for stage in () if self.linear else [*list(net.downs)[:-1], *list(net.ups)[1:]]:
                stage[2] = _Nothing()
        if self.compiled:
            net.compile()
        return net


class _Nothing(nn.Module):
    """In place of an attention that is added to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype)


def their_class() -> Callable[..., Any]:
    """Their Unet. Its package imports torchvision, of which the Unet needs nothing: an empty stand-in is enough."""

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            return object

    names = ("torchvision", "torchvision.transforms", "torchvision.utils", "torchvision.datasets", "torchvision.models")
    kept = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: Empty(name) for name in names})
    try:
        return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch").Unet
    finally:
        for name, module in kept.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def stepper(entry: Entry, batch: int) -> Callable[[], None]:
    """A function that makes one training step of a fresh network."""
    net = entry.build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    x, target, level = torch.randn(batch, *EVENT), torch.randn(batch, *EVENT), torch.linspace(-8.0, 8.0, batch)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if entry.half else contextlib.nullcontext():
            loss = F.mse_loss(net(x, level).float(), target)
        loss.backward()
        optimizer.step()

    return step


def multiply_adds(entry: Entry) -> float:
    """Millions of multiply-adds of one forward pass on one picture."""
    net = Entry(entry.name, entry.channels, entry.theirs, entry.linear).build()
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.randn(1, *EVENT), torch.zeros(1))
    return counter.get_total_flops() / 2e6


def seconds(entries: list[Entry], batch: int, turns: int, clock: Callable[[], float]) -> list[list[float]]:
    """Time of each entry's step in each turn, after two steps that are not counted."""
    steps = [stepper(entry, batch) for entry in entries]
    for step in steps:
        step()
        step()
    times: list[list[float]] = [[] for _ in entries]
    for _ in range(turns):
        for step, taken in zip(steps, times, strict=True):
            start = clock()
            step()
            taken.append(clock() - start)
    return times


def peak(entry: Entry, batch: int, threads: int) -> float:
    """MiB that three steps add to the high-water mark of a process that has imported everything."""
    torch.set_num_threads(threads)
    if entry.theirs:
        their_class()
    before = _high_water()
    step = stepper(entry, batch)
    for _ in range(3):
        step()
    return _high_water() - before


def _high_water() -> float:
    """MiB of this process so far; getrusage would count its parent's, from before it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def entries_of(size: str, compiled: bool) -> list[Entry]:
    """What is compared: all of about the same multiply-adds; the first is the measure."""
    ours, theirs = {"1M": (32, 28), "5M": (64, 60)}[size]
    entries = [
        Entry("theirs", theirs, theirs=True),
        Entry("theirs, no linear attention", ours, theirs=True, linear=False),
        Entry("theirs, bfloat16", theirs, theirs=True, half=True),
        Entry("ours", ours),
        Entry("ours, bfloat16", ours, half=True),
    ]
    return [*entries, Entry("ours, bfloat16, compiled", ours, half=True, compiled=True)] if compiled else entries


def table(size: str, batch: int, turns: int, threads: int, compiled: bool, cpu: bool) -> None:
    """Prints one comparison."""
    entries = entries_of(size, compiled)
    print(f"\n{size} parameters, batch {batch} of {EVENT}, {threads} threads, median of {turns} interleaved steps")
    times = seconds(entries, batch, turns, time.process_time if cpu else time.perf_counter)
    print(
        f"{'network':30} {'parameters':>10} {'Mmult-add':>9} {'s/step':>7} {'as fast':>8} {'(no lin.)':>9} {'MiB':>6}"
    )
    for entry, taken in zip(entries, times, strict=True):
        ratios = [statistics.median(a / b for a, b in zip(base, taken, strict=True)) for base in times[:2]]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak, (entry, batch, threads))
        count = sum(p.numel() for p in entry.build().parameters())
        print(
            f"{entry.name:30} {count:10} {multiply_adds(entry):9.1f} {statistics.median(taken):7.3f} {ratios[0]:8.2f} "
            f"{ratios[1]:9.2f} {memory:6.0f}",
            flush=True,
        )


def main() -> None:
    """Prints a table per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["1M", "5M"], choices=["1M", "5M"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="also ours compiled: needs a C++ compiler and minutes")
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time, for a machine in use")
    options = parser.parse_args()
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        print("nothing to compare with: denoising-diffusion-pytorch is not installed; see the head of this file.")
        return
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        table(size, options.batch, options.turns, options.threads, options.compile, options.cpu)


if __name__ == "__main__":
    main()
