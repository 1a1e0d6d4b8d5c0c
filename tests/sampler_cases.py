"""Step samplers for contract tests: every class of the package, and settings that run other code."""

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
    DiscretePredictorCorrector,
    DiscreteSampler,
    DPMSolver,
    Eta,
    Heun,
    Karras,
    Langevin,
    OptimalVariance,
    PredictorCorrector,
    RungeKutta,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    TauLeaping,
    TrapezoidalLeaping,
    UniformAngle,
    UniPC,
)

__all__ = ["every", "every_discrete"]

SETTINGS: list[StepSampler] = [
    DDPM(rev_var="beta"),
    DDPM(rev_var=OptimalVariance((-4.0, 4.0), (0.9, 0.2))),
    DDIM(eta=0.5),
    RungeKutta(method="heun"),
    Adams(predictor_order=5, corrector_order=0),
    Adams(predictor_order=3, corrector_order=4),
    Adams(grid=Karras(), prediction="eps", variable="rho"),
    Adams(prediction="x0", variable="tau", noise=Eta(0.7, 0.1, 10.0)),
    DEIS(variable="rho"),
    DPMSolver(solver_order=3, prediction="x0"),
    UniPC(prediction="eps"),
    UniPC(solver_order=2, as_published=True),
    SDEDPMSolverPP(solver_order=3),
    SASolver(corrector_order=0),
    ERSDE(solver_order=2),
    Heun(churn=2.0, noise_scale=1.01),
    PredictorCorrector(predictor=DDIM(), corrections=2, corrector=Langevin()),
]


def every(steps: int = 6, even: bool = False) -> list[Any]:
    """Test parameters of all samplers, with ``steps`` steps; ``even`` gives all the grid `UniformAngle`."""
    samplers: list[StepSampler] = [*(cls() for cls in concrete(StepSampler)), *SETTINGS]
    grid = {"grid": UniformAngle()} if even else {}
    return [pytest.param(replace(sampler, steps=steps, **grid), id=_name(sampler)) for sampler in samplers]


DISCRETE_SETTINGS: list[DiscreteSampler] = [
    TauLeaping(grid=UniformAngle()),
    TrapezoidalLeaping(theta=0.3),
    DiscretePredictorCorrector(corrections=2, size=0.5),
]


def every_discrete(steps: int = 6) -> list[Any]:
    """Test parameters of all fixed-step samplers of categories, with ``steps`` steps."""
    samplers: list[DiscreteSampler] = [*(cls() for cls in concrete(DiscreteSampler)), *DISCRETE_SETTINGS]
    return [pytest.param(replace(sampler, steps=steps), id=_name(sampler)) for sampler in samplers]


def _name(sampler: StepSampler | DiscreteSampler) -> str:
    """The class and the fields that differ from its defaults."""
    default = type(sampler)()
    names = [f.name for f in dataclasses.fields(sampler)]
    changed = [
        f"{name}={getattr(sampler, name)!r}" for name in names if getattr(sampler, name) != getattr(default, name)
    ]
    return f"{type(sampler).__name__}({', '.join(changed)})"
