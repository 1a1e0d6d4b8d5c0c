"""Overhead of the sampling loop: time per network call of `sample`, relative to a hand-written loop.

The network is trivial and the state has shape 1×2, so that everything except the network is measured. Run it:

    python tests/benchmarks/loop_overhead.py
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde.distillation import FlowMap
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
    Jumps,
    Langevin,
    PredictorCorrector,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    UniPC,
    sample,
)

STEPS, REPEATS = 500, 15


class Linear(nn.Module):
    """A linear map of two coordinates that ignores the time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """``(B, 2)`` to ``(B, 2)``."""
        return self.linear(x)


class LinearOfJumps(Linear):
    """The same map; the angle of a jump is ignored too."""

    def forward(self, x: Tensor, log_snr: Tensor, delta: Tensor | None = None) -> Tensor:
        """``(B, 2)`` to ``(B, 2)``."""
        return self.linear(x)


def hand_written_jumps(net: nn.Module, taus: list[float]) -> Callable[[], Tensor]:
    """x <- cos x - sin net(x, t, delta) with precomputed coefficients."""
    deltas = [ou.angle(tau) - ou.angle(s) for tau, s in zip(taus, taus[1:])]
    coefficients = [(ou.log_snr(tau), delta, math.cos(delta), -math.sin(delta)) for tau, delta in zip(taus, deltas)]

    def loop() -> Tensor:
        with torch.no_grad():
            x = torch.randn(1, 2)
            for log_snr, delta, a, b in coefficients:
                out = net(x, torch.full((1,), log_snr), torch.full((1,), delta))
                x = x * a + out * b
            return x

    return loop


def hand_written_ddim(net: nn.Module, taus: list[float], parameterization: Parameterization) -> Callable[[], Tensor]:
    """x <- a x + b net(x, t) with precomputed coefficients."""
    coefficients = []
    for tau, s in zip(taus, taus[1:]):
        alpha, sigma, delta = ou.alpha(tau), ou.sigma(tau), ou.angle(tau) - ou.angle(s)
        if isinstance(parameterization, V):
            a, b = math.cos(delta), -math.sin(delta)
        else:
            a, b = ou.alpha(s) / alpha, ou.sigma(s) - ou.alpha(s) * sigma / alpha
        coefficients.append((ou.log_snr(tau), a, b))

    def loop() -> Tensor:
        with torch.no_grad():
            x = torch.randn(1, 2)
            for log_snr, a, b in coefficients:
                out = net(x, torch.full((1,), log_snr))
                x = x * a + out * b
            return x

    return loop


def measure(
    hand_written: Callable[[], object], ours: Callable[[], object], calls: int, hand_written_calls: int = STEPS
) -> tuple[float, float]:
    """Microseconds per network call of the hand-written loop, and the ratio of ours to it; medians over the repeats.

    Args:
        hand_written: Runs the loop once.
        ours: Runs `sample` once.
        calls: Network calls of ``ours``.
        hand_written_calls: Network calls of ``hand_written``.
    """
    pairs = []
    for _ in range(REPEATS):
        row = []
        for loop, count in ((hand_written, hand_written_calls), (ours, calls)):
            start = time.process_time()  # other processes on the machine matter less than for wall time
            loop()
            row.append((time.process_time() - start) / count * 1e6)
        pairs.append(row)
    pairs = pairs[1:]
    return statistics.median(p[0] for p in pairs), statistics.median(p[1] / p[0] for p in pairs)


def samplers() -> dict[float, list[StepSampler]]:
    """Limit of the ratio -> samplers: one-step methods, multistep methods of third order, predictor–correctors."""
    half = STEPS // 2  # two network calls per step
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


def measure_student() -> tuple[float, float]:
    """As `measure`, for the jumps of a few-step student, relative to a loop of the same network."""
    net, sampler = LinearOfJumps(), Jumps(STEPS)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.01)
    student = FlowMap.new(ScoreModel(net, VPSDE(LinearBetas()), V(), event_shape=(2,)))
    hand_written = hand_written_jumps(net, sampler.grid.times(student.sde, STEPS))
    return measure(hand_written, lambda: sample(student, 1, sampler), STEPS)


def main() -> None:
    """Prints one line per sampler; exits with 1 if a ratio is above its limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    above = []
    microseconds, ratio = measure_student()
    limit = 1.8
    print(
        f"{'Jumps of a student':36s} hand-written {microseconds:5.1f} us per call, ratio {ratio:.2f}  (limit {limit})"
    )
    above += ["Jumps"] if ratio > limit else []
    for parameterization in (V(), Eps()):
        net = Linear()
        model = ScoreModel(net, VPSDE(LinearBetas()), parameterization, event_shape=(2,))
        for parameter in model.net.parameters():  # small weights, so that the state stays finite
            torch.nn.init.normal_(parameter, std=0.01)
        if isinstance(parameterization, Eps):  # nearly that of normal data; else Langevin steps diverge
            torch.nn.init.eye_(net.linear.weight)
        hand_written = hand_written_ddim(model.net, DDIM(STEPS).grid.times(model.sde, STEPS), parameterization)
        for limit, group in samplers().items():
            for sampler in group:
                calls = sample(model, 1, sampler).nfe
                microseconds, ratio = measure(hand_written, lambda m=model, s=sampler: sample(m, 1, s), calls)
                name = f"{type(sampler).__name__}, {parameterization}"
                print(
                    f"{name:36s} hand-written {microseconds:5.1f} us per call, ratio {ratio:.2f}  (limit {limit})",
                    flush=True,
                )
                if ratio > limit:
                    above.append(name)
    raise SystemExit(f"above the limit: {', '.join(above)}" if above else 0)


if __name__ == "__main__":
    main()
