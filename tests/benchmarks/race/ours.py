"""Our samplers by name, for a number of network calls; the first is the recommended one."""

from __future__ import annotations

from typing import Any

import torch

from scoresde.analytic import GaussianMixture
from scoresde.model import Model
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

__all__ = ["calibrated", "network_samplers", "ours", "ours_stochastic"]

CALIBRATED = (5, 8, 10, 15, 20)
NOISES, POOL, ROUNDS = 1024, 8, 60


def ours(calls: int, model: GaussianMixture) -> dict[str, Sampler]:
    """Deterministic samplers of at most ``calls`` network calls that end at ``tau_min``; one is calibrated."""
    entries: dict[str, Sampler] = {
        "recommended: Adams": adams(calls, model),
        "Adams order 2": adams(calls, model, predictor_order=2, corrector_order=2),
        "Adams order 5": adams(calls, model, predictor_order=5, corrector_order=5),
        "Adams order 3": adams(calls, model, predictor_order=3, corrector_order=3),
        "Adams order 4": adams(calls, model, predictor_order=4, corrector_order=4),
        "Adams, dense at the noise end": adams(
            calls, model, grid=DenseEnds(2.0, 0.25), predictor_order=3, corrector_order=0
        ),
        "Adams x0 in the angle": adams(calls, model, prediction="x0"),
        "Adams-Bashforth 3, quadratic": adams(calls, model, grid=PowerU(), predictor_order=3, corrector_order=0),
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
        entries["calibrated: Adams"] = calibrated(adams(calls, model), model).sampler
    return entries


def network_samplers(calls: int, model: Model, group: str) -> dict[str, Sampler]:
    """Deterministic samplers for a trained network: those of ``"ours"``, or the one of ``"calibrated"``."""
    if group == "calibrated":
        if calls not in CALIBRATED[:-1]:
            return {}
        generator = torch.Generator().manual_seed(1)
        return {"calibrated: Adams": calibrate(model, adams(calls, model), generator=generator).sampler}
    return {
        "recommended: Adams": adams(calls, model),
        "Adams 2/2": adams(calls, model, predictor_order=2, corrector_order=2),
        "Adams 2/3": adams(calls, model, predictor_order=2, corrector_order=3),
        "Adams 3/3 x0 log-SNR": adams(
            calls, model, predictor_order=3, corrector_order=3, prediction="x0", variable="log_snr"
        ),
        "UniPC-2": UniPC(calls, solver_order=2),
        "DPM-Solver++(2M)": DPMSolverPP(calls),
        "DDIM angle": DDIM(calls, UniformAngle()),
    }


def adams(calls: int, model: Model, **settings: Any) -> Adams:
    """`Adams` for a model with at most ``calls`` network calls, those of its start included."""
    sampler = Adams(calls, **settings)
    extra = sampler.for_model(model).start_calls
    return Adams(max(calls - extra, 1), **settings) if extra else sampler


def calibrated(sampler: Adams, model: GaussianMixture) -> Calibration:
    """Calibrated on noises that the benchmark does not use."""
    generator = torch.Generator().manual_seed(0)
    return calibrate(model, sampler, noises=NOISES, pool=POOL, search=ROUNDS, generator=generator)


def ours_stochastic(calls: int, model: GaussianMixture) -> dict[str, Sampler]:
    """Stochastic samplers of at most ``calls`` network calls that end at ``tau_min``."""
    if calls >= 1000:  # the full chain, with a variance estimated from samples of the model
        x0 = model.sample(20_000, generator=torch.Generator().manual_seed(3))
        return {"DDPM, optimal variance": DDPM(calls, UniformU(), optimal_variance(model, x0, batch_size=2_000))}
    return {
        "recommended: SASolver eta .5": SASolver(calls, noise=Eta(0.5)),
        "ERSDE": ERSDE(calls),
        "SASolver": SASolver(calls),
        "SDEDPMSolverPP 2M": SDEDPMSolverPP(calls),
        "SDEDPMSolverPP 3M": SDEDPMSolverPP(calls, solver_order=3),
        "ExponentialSDE log-SNR": ExponentialSDE(calls, UniformLogSNR()),
        "DDIM eta 1 log-SNR": DDIM(calls, UniformLogSNR(), 1.0),
    }
