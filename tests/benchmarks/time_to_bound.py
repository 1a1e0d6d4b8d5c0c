"""How long must one train until a held-out bound is reached: with our network, with denoising-diffusion-pytorch's?

Both are trained by this library on Fashion-MNIST: same loss (the bound itself, times by `Moments`), batches, optimizer,
average and seed, sizes of `unet_step.py` (equal multiply-adds). Every so many steps the averaged weights are scored on
held-out pictures by the continuous bound, off the clock; the time at which the curve passes the target is read off by
a straight line between two scores. Theirs in float32 and bfloat16, each at two rates of learning of which the better
counts; ours in bfloat16 at the recipe's rate, as a network alone and as `examples/fashion_mnist.py` uses it. Run it:

    pip install -c constraints.txt einops tqdm
    pip install --no-deps denoising-diffusion-pytorch ema-pytorch pytorch-fid
    python tests/benchmarks/time_to_bound.py [--target 3.9] [--threads 1] [--cpu]
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from unet_step import EVENT, their_class

from scoresde.data import Data, load_data
from scoresde.likelihood import KernelDecoder, continuous_vlb
from scoresde.model import ScoreModel
from scoresde.nn import FourierInput, QuantizedSkip, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.parameterization import V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.training import Callback, CallbackState, Training, train


class Theirs(nn.Module):
    """Their Unet on our clock: the log-SNRs of the process, evenly on the 1000 steps that it expects."""

    event_shape = EVENT

    def __init__(self) -> None:
        super().__init__()
        self.net = their_class()(dim=28, dim_mults=(1, 2, 2), channels=EVENT[0])

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """v, the shape of ``x``."""
        return self.net(x, 1000.0 * ((14.0 - log_snr) / 24.0).clamp(0.0, 1.0))


def ours_alone(data: Data) -> nn.Module:
    """The UNet and nothing more."""
    return UNet(data.description.shape, 32)


def ours_as_recipe(data: Data) -> nn.Module:
    """The UNet told of the data's levels."""
    bins = data.description.bins
    assert bins is not None
    inner = UNet(data.description.shape, 32, outputs=3, fourier=FourierInput(bins / 2, (-1, 0), damped=True))
    return QuantizedSkip(inner, bins).fit(data.train)


@dataclass(frozen=True)
class Entry:
    """A network and how it is trained."""

    name: str
    build: Callable[[Data], nn.Module]
    precision: str
    rates: tuple[float, ...]


ENTRIES = (
    Entry("theirs, float32", lambda _: Theirs(), "no", (1e-3, 2e-3)),
    Entry("theirs, bfloat16", lambda _: Theirs(), "bf16", (1e-3, 2e-3)),
    Entry("ours alone, bfloat16", ours_alone, "bf16", (2e-3,)),
    Entry("ours as recipe, bfloat16", ours_as_recipe, "bf16", (2e-3,)),
)


class Over(Exception):
    """The target is reached, or the time is up."""


@dataclass
class Watch:
    """Scores the averaged weights off the clock.

    Attributes:
        data: Whose first test pictures are held out.
        target: Bits per dimension at which training ends.
        limit: Seconds after which it ends anyway.
        clock: Time in seconds.
        half: Whether scoring runs under autocast.
        curve: (seconds of training, bits per dimension), as scored.
    """

    data: Data
    target: float
    limit: float
    clock: Callable[[], float]
    half: bool
    curve: list[tuple[float, float]] = field(default_factory=list)
    begun: float = 0.0

    def __call__(self, moment: CallbackState) -> None:
        """Scores; the time it takes is taken off."""
        now = self.clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            bound = continuous_vlb(
                moment.model,
                self.data.test[:96],
                decoder=KernelDecoder(),
                evaluations=8,
                generator=torch.Generator().manual_seed(0),
                batch_size=128,
            )
        self.curve.append((now - self.begun, bound.mean))
        self.begun += self.clock() - now
        if bound.mean <= self.target or self.curve[-1][0] > self.limit:
            raise Over

    def reached(self) -> float | None:
        """Seconds at which the line between two scores passes the target; None if it never did."""
        for (t0, b0), (t1, b1) in zip([self.curve[0], *self.curve], self.curve):
            if b1 <= self.target:
                return t1 if b0 <= self.target else t0 + (t1 - t0) * (b0 - self.target) / (b0 - b1)
        return None


def raced(entry: Entry, rate: float, data: Data, watch: Watch) -> Watch:
    """Trains until the watch says that it is over."""
    torch.manual_seed(0)
    model = ScoreModel(entry.build(data), VPSDE(Cosine(), tau_min=1e-6), V(), data=data.description)
    settings = Training(
        steps=100_000,
        batch_size=32,
        loss=Loss(ELBO(), LossMomentTimesteps()),
        lr=rate,
        betas=(0.9, 0.99),
        warmup=100,
        ema=0.99,
        precision=entry.precision,
        dequantize=False,
    )
    watch.begun = watch.clock()
    with contextlib.suppress(Over):
        train(model, data, settings, callbacks=[Callback(40, watch)])
    return watch


def main() -> None:
    """Prints a line for each network and rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=float, default=3.9, help="Bits per dimension.")
    parser.add_argument("--limit", type=float, default=600.0, help="Seconds after which a network is given up.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="CPU time in place of wall time, for a machine in use")
    parser.add_argument("--only", nargs="+", default=[entry.name for entry in ENTRIES], help="Names of networks.")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock, data = time.process_time if options.cpu else time.perf_counter, load_data("fashion-mnist")
    for entry in (entry for entry in ENTRIES if entry.name in options.only):
        for rate in entry.rates:
            watch = Watch(data, options.target, options.limit, clock, entry.precision == "bf16")
            reached = raced(entry, rate, data, watch).reached()
            told = f"{reached:7.0f} s" if reached else f"not in {options.limit:.0f} s ({watch.curve[-1][1]:.3f})"
            print(f"{entry.name:26} lr {rate:g}: {options.target} bits/dim after {told}", flush=True)


if __name__ == "__main__":
    main()
