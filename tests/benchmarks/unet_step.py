"""Time and memory of a training step: our UNet and the Unet of denoising-diffusion-pytorch, at equal multiply-adds.

A step is forward pass, loss, gradient and AdamW on one batch of random 28 x 28 images. Both networks have two
resamplings and two blocks per resolution in encoder and decoder. Both have full attention at the coarsest resolution
(ours after each block there, theirs once in encoder and decoder) and in the middle. Theirs is timed as released, and
without the linear attention that it adds at the finer resolutions (ours has none).

Steps of all networks alternate in one process, so that other load on the machine affects all of them. The ratios are
medians over the rounds. Memory is what three steps add to the high-water mark of a separate process. Linux only. Run
it:

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
        channels: Width at its finest resolution.
        theirs: Whether it is that of denoising-diffusion-pytorch.
        linear: Whether theirs has its linear attention.
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
        """The network with new weights."""
        torch.manual_seed(0)
        if not self.theirs:
            net = UNet(EVENT, self.channels)
        else:
            net = their_class()(dim=self.channels, dim_mults=(1, 2, 2), channels=EVENT[0])
            for stage in () if self.linear else [*list(net.downs)[:-1], *list(net.ups)[1:]]:
                stage[2] = _ZeroResidual()
        if self.compiled:
            net.compile()
        return net


class _ZeroResidual(nn.Module):
    """Returns 0, in place of an attention whose output is added to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype)


def their_class() -> Callable[..., Any]:
    """The class Unet of denoising-diffusion-pytorch.

    Its package imports torchvision, which the Unet does not use. Empty modules replace it during the import.
    """

    class Empty(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            return object

    names = ("torchvision", "torchvision.transforms", "torchvision.utils", "torchvision.datasets", "torchvision.models")
    installed = {name: sys.modules.get(name) for name in names}
    sys.modules.update({name: Empty(name) for name in names})
    try:
        return importlib.import_module("denoising_diffusion_pytorch.denoising_diffusion_pytorch").Unet
    finally:
        for name, module in installed.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def stepper(entry: Entry, batch: int) -> Callable[[], None]:
    """A function that makes one training step of a new network."""
    net = entry.build().train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    x, target, log_snr = torch.randn(batch, *EVENT), torch.randn(batch, *EVENT), torch.linspace(-8.0, 8.0, batch)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if entry.half else contextlib.nullcontext():
            loss = F.mse_loss(net(x, log_snr).float(), target)
        loss.backward()
        optimizer.step()

    return step


def multiply_adds(entry: Entry) -> float:
    """Millions of multiply-adds of one forward pass on one image."""
    net = Entry(entry.name, entry.channels, entry.theirs, entry.linear).build()
    with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.randn(1, *EVENT), torch.zeros(1))
    return counter.get_total_flops() / 2e6


def step_seconds(entries: list[Entry], batch: int, rounds: int, clock: Callable[[], float]) -> list[list[float]]:
    """Time of each entry's step in each round, after two steps that are not timed."""
    steps = [stepper(entry, batch) for entry in entries]
    for step in steps:
        step()
        step()
    times: list[list[float]] = [[] for _ in entries]
    for _ in range(rounds):
        for step, durations in zip(steps, times, strict=True):
            start = clock()
            step()
            durations.append(clock() - start)
    return times


def peak_memory(entry: Entry, batch: int, threads: int) -> float:
    """MiB that three steps add to the high-water mark of a process, after all imports."""
    torch.set_num_threads(threads)
    if entry.theirs:
        their_class()
    before = _high_water()
    step = stepper(entry, batch)
    for _ in range(3):
        step()
    return _high_water() - before


def _high_water() -> float:
    """Peak MiB of this process; getrusage would include that of its parent before the fork."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def entries_of(size: str, compiled: bool) -> list[Entry]:
    """The networks to compare, with about equal multiply-adds; ratios are relative to the first two."""
    ours, theirs = {"1M": (32, 28), "5M": (64, 60)}[size]
    entries = [
        Entry("theirs", theirs, theirs=True),
        Entry("theirs, no linear attention", ours, theirs=True, linear=False),
        Entry("theirs, bfloat16", theirs, theirs=True, half=True),
        Entry("ours", ours),
        Entry("ours, bfloat16", ours, half=True),
    ]
    return [*entries, Entry("ours, bfloat16, compiled", ours, half=True, compiled=True)] if compiled else entries


def print_table(size: str, batch: int, rounds: int, threads: int, compiled: bool, cpu: bool) -> None:
    """Measures and prints the networks of one size."""
    entries = entries_of(size, compiled)
    print(f"\n{size} parameters, batch {batch} of {EVENT}, {threads} threads, median of {rounds} interleaved steps")
    times = step_seconds(entries, batch, rounds, time.process_time if cpu else time.perf_counter)
    print(
        f"{'network':30} {'parameters':>10} {'Mmult-add':>9} {'s/step':>7} {'speedup':>8} {'(no lin.)':>9} {'MiB':>6}"
    )
    for entry, durations in zip(entries, times, strict=True):
        ratios = [statistics.median(a / b for a, b in zip(base, durations, strict=True)) for base in times[:2]]
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(peak_memory, (entry, batch, threads))
        count = sum(p.numel() for p in entry.build().parameters())
        print(
            f"{entry.name:30} {count:10} {multiply_adds(entry):9.1f} {statistics.median(durations):7.3f} "
            f"{ratios[0]:8.2f} {ratios[1]:9.2f} {memory:6.0f}",
            flush=True,
        )


def main() -> None:
    """Prints a table per size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", default=["1M", "5M"], choices=["1M", "5M"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--compile", action="store_true", help="Also time ours compiled: needs a C++ compiler and some minutes."
    )
    parser.add_argument("--cpu", action="store_true", help="Measure CPU time instead of wall time, on a busy machine.")
    options = parser.parse_args()
    if importlib.util.find_spec("denoising_diffusion_pytorch") is None:
        print("denoising-diffusion-pytorch is not installed; see the docstring of this file.")
        return
    torch.set_num_threads(options.threads)
    for size in options.sizes:
        print_table(size, options.batch, options.rounds, options.threads, options.compile, options.cpu)


if __name__ == "__main__":
    main()
