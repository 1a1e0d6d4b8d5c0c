"""What do we enter? For a number of network calls, our samplers by name; the first is the recommended one."""

from __future__ import annotations

from scoresde.analytic import GaussianMixture
from scoresde.sampler import (
    DDIM,
    DEIS,
    ERSDE,
    Adams,
    Calibration,
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
    UniPC,
    calibrate,
)

__all__ = ["calibrated", "ours", "ours_stochastic"]

CALIBRATED = (5, 8, 10, 15, 20)


def ours(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Deterministic samplers, at most ``calls`` network calls, ending at ``tau_min``; calibrated on ``law``."""
    entries: dict[str, Sampler] = {
        "recommended: Adams": Adams(calls),
        "Adams order 4": Adams(calls - 1, predictor_order=4, corrector_order=4),
        "Adams x0 in the angle": Adams(calls, prediction="x0"),
        "Adams-Bashforth 3, quadratic": Adams(calls, PowerU(), corrector_order=0),
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
        entries["calibrated: Adams"] = calibrated(Adams(calls), law).sampler
        entries["calibrated: Adams order 2"] = calibrated(
            Adams(calls, predictor_order=2, corrector_order=2), law
        ).sampler
    return entries


def calibrated(sampler: Adams, law: GaussianMixture) -> Calibration:
    """Fitted on noises of its own seed, which the race never draws."""
    return calibrate(law, sampler, noises=256)


def ours_stochastic(calls: int, law: GaussianMixture) -> dict[str, Sampler]:
    """Samplers that draw noise, at most ``calls`` network calls, ending at ``tau_min``."""
    return {
        "recommended: ERSDE": ERSDE(calls),
        "SASolver": SASolver(calls),
        "SASolver eta .5": SASolver(calls, noise=Eta(0.5)),
        "SDEDPMSolverPP 2M": SDEDPMSolverPP(calls),
        "SDEDPMSolverPP 3M": SDEDPMSolverPP(calls, solver_order=3),
        "ExponentialSDE log-SNR": ExponentialSDE(calls, UniformLogSNR()),
        "DDIM eta 1 log-SNR": DDIM(calls, UniformLogSNR(), 1.0),
    }
