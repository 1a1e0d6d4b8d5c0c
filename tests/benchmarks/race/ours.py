"""What do we enter? For a number of network calls, our samplers by name; the first is the recommended one."""

from __future__ import annotations

from typing import Any

import torch

from scoresde.analytic import GaussianMixture
from scoresde.sampling import (
    DDIM,
    DDPM,
    DEIS,
    ERSDE,
    Adams,
    Calibration,
    DenseEnds,
    DPMSolver,
    DPMSolverPP,
    Eta,
    ExponentialSDE,
    Heun,
    PowerU,
    RungeKutta,
    Sampler,
    SASolver,
    SDEDPMSolverPP,
    UniformAngle,
    UniformLogSNR,
    UniformU,
    UniPC,
    calibrate,
    optimal_variance,
)

__all__ = ["calibrated", "ours", "ours_stochastic"]

CALIBRATED = (5, 8, 10, 15, 20)
NOISES, POOL, ROUNDS = 1024, 8, 60


def ours(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Deterministic samplers, at most ``calls`` network calls, ending at ``tau_min``; calibrated on ``law``."""
    entries: dict[str, Sampler] = {
        "recommended: Adams": adams(calls),
        "Adams order 2": adams(calls, predictor_order=2, corrector_order=2),
        "Adams order 5": adams(calls, predictor_order=5, corrector_order=5),
        "Adams order 3": adams(calls, predictor_order=3, corrector_order=3),
        "Adams order 4": adams(calls, predictor_order=4, corrector_order=4),
        "Adams, drawn to the noise": adams(calls, grid=DenseEnds(2.0, 0.25), predictor_order=3, corrector_order=0),
        "Adams x0 in the angle": adams(calls, prediction="x0"),
        "Adams-Bashforth 3, quadratic": adams(calls, grid=PowerU(), predictor_order=3, corrector_order=0),
        "UniPC-2": UniPC(calls, solver_order=2),
        "DPM-Solver++(2M)": DPMSolverPP(calls),
        "DEIS": DEIS(calls),
        "DPM-Solver-2": DPMSolver(calls // 2),
        "Heun": Heun(calls // 2),
        "RK4 angle": RungeKutta(max(calls // 4, 1), UniformAngle(), "rk4"),
        "DDIM angle": DDIM(calls, UniformAngle()),
    }
    if calls < 4:
        del entries["RK4 angle"]
    if calls in CALIBRATED:
        entries["calibrated: Adams"] = calibrated(adams(calls), law).sampler
    return entries


def adams(calls: int, **settings: Any) -> Adams:
    """As many steps as ``calls`` leave room for beside the calls of the start."""
    plain = Adams(calls, **settings)
    return Adams(max(calls - plain.start_calls, 1), **settings) if plain.start_calls else plain


def calibrated(sampler: Adams, law: GaussianMixture) -> Calibration:
    """Fitted on noises of its own seed, which the race never draws."""
    return calibrate(law, sampler, noises=NOISES, pool=POOL, search=ROUNDS)


def ours_stochastic(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Samplers that draw noise, at most ``calls`` network calls, ending at ``tau_min``."""
    if calls >= 1000:  # the chain as trained, its variance estimated from the law's own samples
        x0 = law.sample(20_000, generator=torch.Generator().manual_seed(3))
        return {"DDPM, optimal variance": DDPM(calls, UniformU(), optimal_variance(law, x0, batch_size=2_000))}
    return {
        "recommended: SASolver eta .5": SASolver(calls, noise=Eta(0.5)),
        "ERSDE": ERSDE(calls),
        "SASolver": SASolver(calls),
        "SDEDPMSolverPP 2M": SDEDPMSolverPP(calls),
        "SDEDPMSolverPP 3M": SDEDPMSolverPP(calls, solver_order=3),
        "ExponentialSDE log-SNR": ExponentialSDE(calls, UniformLogSNR()),
        "DDIM eta 1 log-SNR": DDIM(calls, UniformLogSNR(), 1.0),
    }
