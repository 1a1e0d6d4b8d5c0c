"""What does a sampling loop cost beside its network? Ours over a hand-written DDIM loop, per network call, in one run.

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

from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import Eps, Parameterization, V
from scoresde.process.schedule import LinearBetas
from scoresde.process.sde import VPSDE
from scoresde.sampling import (
    DDIM,
    DDPM,
    ERSDE,
    Adams,
    DPMSolver,
    DPMSolverPP,
    EulerMaruyama,
    ExponentialSDE,
    Heun,
    Langevin,
    PredictorCorrector,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    UniPC,
    sample,
)

STEPS, REPEATS = 500, 15


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


def measure(hand: Callable[[], object], ours: Callable[[], object], calls: int) -> tuple[float, float]:
    """Microseconds per network call by hand, and the median over turns of the ratio per call of ours."""
    pairs = []
    for _ in range(REPEATS):
        row = []
        for loop, count in ((hand, STEPS), (ours, calls)):
            start = time.process_time()  # one thread; other processes on the machine then count for less
            loop()
            row.append((time.process_time() - start) / count * 1e6)
        pairs.append(row)
    pairs = pairs[1:]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] / p[0] for p in pairs)


def samplers() -> dict[float, list[StepSampler]]:
    """Limit -> those held to it: one-step methods, multistep methods of third order, predictor–correctors."""
    half = STEPS // 2  # two network calls a step
    return {
        1.8: [DDIM(STEPS), DDPM(STEPS), EulerMaruyama(STEPS), ExponentialSDE(STEPS), DPMSolver(half), Heun(half)],
        3.0: [
            Adams(STEPS, predictor_order=3, corrector_order=0),
            DPMSolverPP(STEPS, solver_order=3),
            SDEDPMSolverPP(STEPS, solver_order=3),
            ERSDE(STEPS),
        ],
        5.0: [
            Adams(STEPS, predictor_order=3, corrector_order=3),
            UniPC(STEPS),
            SASolver(STEPS),
            PredictorCorrector(half),
            PredictorCorrector(half, corrector=Langevin()),
        ],
    }


def main() -> None:
    """Prints one line per loop; exits with 1 where a ratio passes its limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    over = []
    for parameterization in (V(), Eps()):
        model = ScoreModel(Trivial(), VPSDE(LinearBetas()), parameterization, event_shape=(2,))
        for parameter in model.net.parameters():  # the walk must not blow up
            torch.nn.init.normal_(parameter, std=0.01)
        hand = hand_written_ddim(model.net, DDIM(STEPS).grid.times(model.sde, STEPS), parameterization)
        for limit, group in samplers().items():
            for sampler in group:
                calls = sample(model, 1, sampler).nfe
                by_hand, ratio = measure(hand, lambda m=model, s=sampler: sample(m, 1, s), calls)
                name = f"{type(sampler).__name__}, {parameterization}"
                print(f"{name:36s} by hand {by_hand:5.1f} us a call, ratio {ratio:.2f}  (limit {limit})", flush=True)
                if ratio > limit:
                    over.append(name)
    raise SystemExit(f"over the limit: {', '.join(over)}" if over else 0)


if __name__ == "__main__":
    main()
