"""Which step samplers must a contract test try? Every class of the package, and settings that take other ways."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import pytest
from subclasses import concrete

from scoresde.sampling import (
    DDIM,
    DDPM,
    DEIS,
    ERSDE,
    Adams,
    DPMSolver,
    Eta,
    Heun,
    Langevin,
    OptimalVariance,
    PredictorCorrector,
    RungeKutta,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    UniformAngle,
    UniPC,
)

__all__ = ["every"]

SETTINGS: list[StepSampler] = [
    DDPM(rev_var="beta"),
    DDPM(rev_var=OptimalVariance((-4.0, 4.0), (0.9, 0.2))),
    DDIM(eta=0.5),
    RungeKutta(method="heun"),
    Adams(predictor_order=5, corrector_order=0),
    Adams(predictor_order=3, corrector_order=4),
    Adams(prediction="eps", variable="rho"),
    Adams(prediction="x0", variable="tau", noise=Eta(0.7, 0.1, 10.0)),
    DEIS(variable="rho"),
    DPMSolver(solver_order=3, prediction="x0"),
    UniPC(prediction="eps"),
    SDEDPMSolverPP(solver_order=3),
    SASolver(corrector_order=0),
    ERSDE(solver_order=2),
    Heun(churn=2.0, noise_scale=1.01),
    PredictorCorrector(predictor=DDIM(), corrections=2, corrector=Langevin()),
]


def every(steps: int = 6, even: bool = False) -> list[Any]:
    """Parameters of a test, ``steps`` steps each; ``even`` puts them all on a grid that ends at ``tau_min``."""
    made: list[StepSampler] = [*(kind() for kind in concrete(StepSampler)), *SETTINGS]
    grid = {"grid": UniformAngle()} if even else {}
    return [pytest.param(replace(sampler, steps=steps, **grid), id=_name(sampler)) for sampler in made]


def _name(sampler: StepSampler) -> str:
    """The class and what differs from its defaults."""
    plain = type(sampler)()
    names = [f.name for f in dataclasses.fields(sampler)]
    changed = [f"{name}={getattr(sampler, name)!r}" for name in names if getattr(sampler, name) != getattr(plain, name)]
    return f"{type(sampler).__name__}({', '.join(changed)})"
