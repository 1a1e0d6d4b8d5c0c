"""Training time until a held-out bound is reached: our networks and the Unet of denoising-diffusion-pytorch.

All are trained by this library on Fashion-MNIST. They share the loss (the bound itself, with timesteps by
`LossMomentTimesteps`), batches, optimizer, EMA and seed, and have the sizes of `unet_step.py` (equal multiply-adds). At
fixed intervals the averaged weights are scored on held-out images by the continuous bound; this time is not counted.
The time at which the bound reaches the target is interpolated linearly between two scores.

Theirs runs in float32 and bfloat16, each at two learning rates of which the better counts. Ours runs in bfloat16 at the
recipe's learning rate, as a network alone and as `examples/fashion_mnist.py` uses it. Run it:

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


class TheirNetwork(nn.Module):
    """Their Unet; log-SNR is mapped linearly to the 1000 steps that it expects."""

    event_shape = EVENT

    def __init__(self) -> None:
        super().__init__()
        self.net = their_class()(dim=28, dim_mults=(1, 2, 2), channels=EVENT[0])

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """v, of the shape of ``x``."""
        return self.net(x, 1000.0 * ((14.0 - log_snr) / 24.0).clamp(0.0, 1.0))


def plain_unet(data: Data) -> nn.Module:
    """Our UNet alone."""
    return UNet(data.description.shape, 32)


def quantized_skip_unet(data: Data) -> nn.Module:
    """Our UNet inside a `QuantizedSkip`, as in the recipe."""
    bins = data.description.bins
    assert bins is not None
    inner = UNet(data.description.shape, 32, outputs=3, fourier=FourierInput(bins / 2, (-1, 0), damped=True))
    return QuantizedSkip(inner, bins).fit(data.train)


@dataclass(frozen=True)
class Entry:
    """A network, its precision and its learning rates."""

    name: str
    build: Callable[[Data], nn.Module]
    precision: str
    rates: tuple[float, ...]


ENTRIES = (
    Entry("theirs, float32", lambda _: TheirNetwork(), "no", (1e-3, 2e-3)),
    Entry("theirs, bfloat16", lambda _: TheirNetwork(), "bf16", (1e-3, 2e-3)),
    Entry("ours alone, bfloat16", plain_unet, "bf16", (2e-3,)),
    Entry("ours as recipe, bfloat16", quantized_skip_unet, "bf16", (2e-3,)),
)


class TrainingEnd(Exception):
    """Ends training: the target is reached, or the time limit is exceeded."""


@dataclass
class BoundCurve:
    """A callback that scores the averaged weights; the time of scoring is not counted.

    Attributes:
        data: Its first test images are scored.
        target: Bits per dimension at which training ends.
        limit: Seconds after which training ends in any case.
        clock: Time in seconds.
        half: Whether scoring runs under autocast to bfloat16.
        curve: (seconds of training, bits per dimension) of each score.
        start: Time at which training started, plus the time of scoring.
    """

    data: Data
    target: float
    limit: float
    clock: Callable[[], float]
    half: bool
    curve: list[tuple[float, float]] = field(default_factory=list)
    start: float = 0.0

    def __call__(self, state: CallbackState) -> None:
        """Scores the averaged weights.

        Raises:
            TrainingEnd: If the target is reached, or the limit is exceeded.
        """
        now = self.clock()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
            bound = continuous_vlb(
                state.model,
                self.data.test[:96],
                decoder=KernelDecoder(),
                evaluations=8,
                generator=torch.Generator().manual_seed(0),
                batch_size=128,
            )
        self.curve.append((now - self.start, bound.mean))
        self.start += self.clock() - now
        if bound.mean <= self.target or self.curve[-1][0] > self.limit:
            raise TrainingEnd

    def time_to_target(self) -> float | None:
        """Seconds at which the interpolated bound reaches the target; None if it did not."""
        for (t0, b0), (t1, b1) in zip([self.curve[0], *self.curve], self.curve):
            if b1 <= self.target:
                return t1 if b0 <= self.target else t0 + (t1 - t0) * (b0 - self.target) / (b0 - b1)
        return None


def train_until_target(entry: Entry, rate: float, data: Data, curve: BoundCurve) -> BoundCurve:
    """Trains until ``curve`` ends the training."""
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
    curve.start = curve.clock()
    with contextlib.suppress(TrainingEnd):
        train(model, data, settings, callbacks=[Callback(40, curve)])
    return curve


def main() -> None:
    """Prints a line for each network and learning rate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--target", type=float, default=3.9, help="Bits per dimension.")
    parser.add_argument("--limit", type=float, default=600.0, help="Seconds after which training ends in any case.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true", help="Measure CPU time instead of wall time, on a busy machine.")
    parser.add_argument(
        "--only", nargs="+", default=[entry.name for entry in ENTRIES], help="Names of the networks to train."
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock, data = time.process_time if options.cpu else time.perf_counter, load_data("fashion-mnist")
    for entry in (entry for entry in ENTRIES if entry.name in options.only):
        for rate in entry.rates:
            curve = BoundCurve(data, options.target, options.limit, clock, entry.precision == "bf16")
            seconds = train_until_target(entry, rate, data, curve).time_to_target()
            result = f"{seconds:7.0f} s" if seconds else f"not in {options.limit:.0f} s ({curve.curve[-1][1]:.3f})"
            print(f"{entry.name:26} lr {rate:g}: {options.target} bits/dim after {result}", flush=True)


if __name__ == "__main__":
    main()
