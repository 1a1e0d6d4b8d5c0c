"""Samplers of azula: each one that it ships, on each noise schedule that it ships.

azula takes uniform steps in the time of its schedule, and its schedules may be exchanged under a trained network. So a
schedule is a spacing. Each runs between the exact noise-to-signal ratios of the problem, for which its start and stop
times are solved, in its own scale. "own" is the network's own schedule. The others have their default ends; if these do
not contain those of the problem, they take ends a factor of 2 beyond the problem's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from race.peer import Peer, released
from race.problems import Oracle
from race.span import Span
from scoresde.process import ou
from scoresde.process.schedule import Schedule

__all__ = ["deterministic", "stochastic"]

SPACINGS = ("own", "vp", "cosine", "rectified", "ve", "decay0.1", "decay0.01", "decay0.001")
_FIRST_TIME = 1e-9


class OwnSchedule:
    """A clock as a schedule of azula, in float64."""

    def __init__(self, clock: Schedule) -> None:
        self.clock = clock

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t``."""
        tau = torch.as_tensor(self.clock.tau(t.double()))
        return ou.alpha(tau), ou.sigma(tau)


@lru_cache(maxsize=256)
def _schedule(spacing: str, span: Span) -> Any:
    if spacing == "own":
        return OwnSchedule(span.clock)
    name, _, gamma = spacing.partition("decay")
    names = {"vp": "VP", "cosine": "Cosine", "rectified": "Rectified", "ve": "VE", "": "Decay"}
    make: Callable[..., Any] = getattr(released("azula.noise"), f"{names[name]}Schedule")
    make = partial(make, gamma=float(gamma)) if gamma else make
    schedule = make()
    if _log_ratio(schedule, 1.0) >= math.log(span.first) and _log_ratio(schedule, _FIRST_TIME) <= math.log(span.last):
        return schedule
    if name == "ve":
        return make(sigma_min=0.5 * span.last, sigma_max=2.0 * span.first)
    return make(alpha_min=0.5 / span.first, sigma_min=0.5 * span.last)


def _log_ratio(schedule: Any, t: float) -> float:
    alpha, sigma = schedule(torch.tensor(t, dtype=torch.float64))
    return math.log(sigma / alpha)


@lru_cache(maxsize=256)
def _times(spacing: str, span: Span) -> tuple[float, float]:
    """Times of the start and of the end on a schedule."""
    schedule = _schedule(spacing, span)

    def time(ratio: float) -> float:
        def gap(t: float) -> float:
            return _log_ratio(schedule, t) - math.log(ratio)

        root: Any = 1.0 if abs(gap(1.0)) < 1e-12 else brentq(gap, _FIRST_TIME, 1.0, xtol=1e-15)
        return root

    return time(span.first), time(span.last)


def _peer(label: str, make: str, settings: dict[str, Any], spacing: str, stages: int = 1) -> Peer:
    sampler_type = getattr(released("azula.sample"), make)
    denoise = released("azula.denoise")

    class OracleDenoiser(denoise.Denoiser):
        def __init__(self, oracle: Oracle) -> None:
            super().__init__()
            self.oracle, self.schedule = oracle, _schedule(spacing, oracle.span)

        def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Any:
            alpha, sigma = (float(v) for v in self.schedule(t))
            return denoise.DiracPosterior(self.oracle(x_t / math.hypot(alpha, sigma), sigma / alpha).x0)

    def run(oracle: Oracle, x: Tensor, calls: int, generator: torch.Generator | None) -> Tensor:
        denoiser, (start, stop) = OracleDenoiser(oracle), _times(spacing, oracle.span)
        steps = calls // stages
        sampler = sampler_type(
            denoiser, start=start, stop=stop, steps=steps, silent=True, dtype=torch.float64, **settings
        )
        scale = [math.hypot(*(float(v) for v in denoiser.schedule(t))) for t in sampler.timesteps[[0, -1]]]
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
    for spacing in SPACINGS:
        peers.append(_peer("Euler", "EulerSampler", {}, spacing))
        peers.append(_peer("Heun", "HeunSampler", {}, spacing, 2))
        peers += [_peer(label, make, settings, spacing) for label, make, settings in multistep]
    return peers


def stochastic() -> list[Peer]:
    """Stochastic samplers. The predictor-corrector makes two calls per step."""
    peers = []
    for spacing in SPACINGS:
        peers.append(_peer("DDPM", "DDPMSampler", {}, spacing))
        peers.append(_peer("DDIM eta .5", "DDIMSampler", {"eta": 0.5}, spacing))
        peers += [_peer(f"Ito eta {eta:g}", "ItoSampler", {"eta": eta}, spacing) for eta in (0.5, 1.0)]
        peers += [_peer(f"PC delta {delta:g}", "PCSampler", {"delta": delta}, spacing, 2) for delta in (0.01, 0.1)]
    return peers
