"""What do we enter? For a number of network calls, our samplers by name."""

from __future__ import annotations

from scoresde.analytic import GaussianMixture
from scoresde.sampler import DDIM, ExponentialSDE, RungeKutta, Sampler, UniformAngle, UniformLogSNR, UniformU

__all__ = ["ours", "ours_stochastic"]


def ours(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Deterministic samplers, at most ``calls`` network calls, ending at ``tau_min``; calibrate on ``law``."""
    entries: dict[str, Sampler] = {"DDIM angle": DDIM(calls, UniformAngle())}
    if calls >= 2:
        entries["Heun angle"] = RungeKutta(calls // 2, UniformAngle(), "heun")
    if calls >= 4:
        entries["RK4 angle"] = RungeKutta(calls // 4, UniformAngle(), "rk4")
    return entries


def ours_stochastic(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Samplers that draw noise, at most ``calls`` network calls, ending at ``tau_min``."""
    return {
        "ExponentialSDE log-SNR": ExponentialSDE(calls, UniformLogSNR()),
        "ExponentialSDE u": ExponentialSDE(calls, UniformU()),
    }
