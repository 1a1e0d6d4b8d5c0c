"""Samplers of azula on the exact problems: each one that it ships, on each noise schedule that it ships.

azula takes uniform steps in the time of its schedule, and its schedules may be exchanged under a trained network. So a
schedule is a spacing. Each runs between the exact noise-to-signal ratios of the benchmark, for which its start and stop
times are solved, in its own scale. "song" is the network's own schedule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from race.noise_levels import FIRST, LAST
from race.peer import Peer, released
from race.problems import CLOCK, Oracle
from scoresde.process import ou

__all__ = ["deterministic", "stochastic"]


class Song:
    """The VP linear schedule, 0.1 ... 20, for azula, in float64."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t``."""
        tau = t * t * ((CLOCK.beta_max - CLOCK.beta_min) / 4) + t * (CLOCK.beta_min / 2)
        return ou.alpha(tau), ou.sigma(tau)


def _schedules() -> dict[str, Any]:
    noise = released("azula.noise")
    return {
        "song": Song(),
        "vp": noise.VPSchedule(),
        "cosine": noise.CosineSchedule(),
        "rectified": noise.RectifiedSchedule(),
        "ve": noise.VESchedule(),
        **{f"decay{gamma:g}": noise.DecaySchedule(gamma=gamma) for gamma in (0.1, 0.01, 0.001)},
    }


def _time(schedule: Any, ratio: float) -> float:
    def gap(t: float) -> float:
        alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
        return math.log(sigma / alpha) - math.log(ratio)

    time: Any = 1.0 if abs(gap(1.0)) < 1e-12 else brentq(gap, 1e-9, 1.0, xtol=1e-15)
    return time


def _peer(label: str, make: str, settings: dict[str, Any], spacing: str, schedule: Any, stages: int = 1) -> Peer:
    sampler_type = getattr(released("azula.sample"), make)
    denoise = released("azula.denoise")
    start, stop = _time(schedule, FIRST), _time(schedule, LAST)

    class ExactDenoiser(denoise.Denoiser):
        def __init__(self, oracle: Oracle) -> None:
            super().__init__()
            self.oracle, self.schedule = oracle, schedule

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Any:
            alpha, sigma = (float(v) for v in schedule(t))
            return denoise.DiracPosterior(self.oracle(x_t / math.hypot(alpha, sigma), sigma / alpha).x0)

    def run(oracle: Oracle, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
        sampler = sampler_type(
            ExactDenoiser(oracle),
            start=start,
            stop=stop,
            steps=calls // stages,
            silent=True,
            dtype=torch.float64,
            **settings,
        )
        scale = [math.hypot(*(float(v) for v in schedule(t))) for t in sampler.timesteps[[0, -1]]]
        with torch.random.fork_rng(enabled=generator is not None):
            if generator is not None:  # azula draws from the global generator
                torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            return sampler(x * scale[0]) / scale[1]

    return Peer(f"azula {label} {spacing}", run, min_calls=stages)


def deterministic() -> list[Peer]:
    """All of them, including REAB: its update scales by sqrt(alpha_s² + sigma_t²), so its order is 1."""
    multistep = [
        (f"{kind}{order}", f"{kind}Sampler", {"order": order})
        for kind in ("zAB", "vAB", "zEAB", "xEAB", "REAB")
        for order in (1, 2, 3, 4, 5)
        if not (order == 1 and kind != "REAB")  # order 1 equals Euler
    ]
    peers = []
    for spacing, schedule in _schedules().items():
        peers.append(_peer("Euler", "EulerSampler", {}, spacing, schedule))
        peers.append(_peer("Heun", "HeunSampler", {}, spacing, schedule, 2))
        peers += [_peer(label, make, settings, spacing, schedule) for label, make, settings in multistep]
    return peers


def stochastic() -> list[Peer]:
    """Stochastic samplers. The predictor-corrector makes two calls per step."""
    peers = []
    for spacing, schedule in _schedules().items():
        peers.append(_peer("DDPM", "DDPMSampler", {}, spacing, schedule))
        peers.append(_peer("DDIM eta .5", "DDIMSampler", {"eta": 0.5}, spacing, schedule))
        peers += [_peer(f"Ito eta {eta:g}", "ItoSampler", {"eta": eta}, spacing, schedule) for eta in (0.5, 1.0)]
        peers += [
            _peer(f"PC delta {delta:g}", "PCSampler", {"delta": delta}, spacing, schedule, 2) for delta in (0.01, 0.1)
        ]
    return peers
