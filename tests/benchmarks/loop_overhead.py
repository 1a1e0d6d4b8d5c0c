"""What does a sampling loop cost beside its network? Ours over a hand-written loop, per network call, in one run.

A trivial network on a 1×2 state, so that everything but the network shows. Run it:

    python tests/benchmarks/loop_overhead.py
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde import ou
from scoresde.model import ScoreModel
from scoresde.parameterization import Eps, Parameterization, V
from scoresde.sampler import DDIM, DDPM, sample
from scoresde.schedule import LinearBetas
from scoresde.sde import VPSDE

STEPS, REPEATS, LIMIT = 500, 31, 1.8


class Trivial(nn.Module):
    """A linear map of two coordinates; reads the time and does nothing with it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """``(B, 2)`` to ``(B, 2)``."""
        return self.linear(x)


def hand_written_ddim(net: nn.Module, taus: list[float], parameterization: Parameterization) -> Callable[[], Tensor]:
    """x <- a x + b net(x, t): both coefficients floats, known before the loop."""
    rows = []
    for tau, s in zip(taus, taus[1:]):
        alpha, sigma, delta = ou.alpha(tau), ou.sigma(tau), ou.angle(tau) - ou.angle(s)
        if isinstance(parameterization, V):
            on_x, on_out = math.cos(delta), -math.sin(delta)
        else:
            on_x, on_out = ou.alpha(s) / alpha, ou.sigma(s) - ou.alpha(s) * sigma / alpha
        rows.append((ou.log_snr(tau), on_x, on_out))

    def loop() -> Tensor:
        with torch.no_grad():
            x = torch.randn(1, 2)
            for log_snr, on_x, on_out in rows:
                out = net(x, torch.full((1,), log_snr))
                x = x * on_x + out * on_out
            return x

    return loop


def hand_written_ddpm(net: nn.Module, taus: list[float], parameterization: Parameterization) -> Callable[[], Tensor]:
    """Algorithm 2 of Ho et al. 2020: x <- a x + b net(x, t) + c z."""
    rows = []
    for tau, s in zip(taus, taus[1:]):
        alpha, sigma, beta = ou.alpha(tau), ou.sigma(tau), ou.beta(tau, s)
        growth = math.exp(tau - s)
        on_x, on_out = growth, -growth * beta / sigma
        if isinstance(parameterization, V):  # eps = alpha v + sigma x
            on_x, on_out = on_x + on_out * sigma, on_out * alpha
        rows.append((ou.log_snr(tau), on_x, on_out, math.sqrt(beta) * ou.sigma(s) / sigma))

    def loop() -> Tensor:
        with torch.no_grad():
            x = torch.randn(1, 2)
            for log_snr, on_x, on_out, std in rows:
                out = net(x, torch.full((1,), log_snr))
                x = x * on_x + out * on_out
                if std > 0:
                    x = x + torch.randn(1, 2) * std
            return x

    return loop


def measure(hand: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float, float]:
    """Microseconds per network call of both, taken in turn, and the median of the turns' ratios."""
    pairs = []
    for _ in range(REPEATS):
        row = []
        for loop in (hand, ours):
            start = time.process_time()  # one thread; other processes on the machine then count for less
            loop()
            row.append((time.process_time() - start) / STEPS * 1e6)
        pairs.append(row)
    pairs = pairs[1:]
    return (
        statistics.median(p[0] for p in pairs),
        statistics.median(p[1] for p in pairs),
        statistics.median(p[1] / p[0] for p in pairs),
    )


def main() -> None:
    """Prints one line per loop; exits with 1 where a ratio passes the limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    worst = 0.0
    for parameterization in (V(), Eps()):
        for sampler, hand_written in ((DDIM(STEPS), hand_written_ddim), (DDPM(STEPS), hand_written_ddpm)):
            model = ScoreModel(Trivial(), VPSDE(LinearBetas()), parameterization, event_shape=(2,))
            hand = hand_written(model.net, sampler.grid.times(model.sde, STEPS), parameterization)
            hand_us, ours_us, ratio = measure(hand, lambda m=model, s=sampler: sample(m, 1, s))
            worst = max(worst, ratio)
            name = f"{type(sampler).__name__}, {parameterization}"
            print(f"{name:28s} by hand {hand_us:6.1f} us  ours {ours_us:6.1f} us  ratio {ratio:.2f}  (limit {LIMIT})")
    raise SystemExit(worst > LIMIT)


if __name__ == "__main__":
    main()
