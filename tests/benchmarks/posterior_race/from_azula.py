"""Released posterior methods of azula on our exact priors, on the prior's own clock from its start to its last time.

Its denoisers are wrapped around the prior; each is run with azula's own samplers. Its ΠGDM, DPS and RePaint are
samplers themselves. DPS of azula divides by the norm of the whole batch, so its ζ has another meaning: several are run.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from race.from_azula import OwnSchedule
from race.peer import released
from torch import Tensor

from posterior_race.method import Counted, Method, Run
from posterior_race.problems import Problem, generator
from scoresde.guidance import SpectralOperator

__all__ = ["methods"]


class _Setup:
    """The prior as a denoiser of azula on flattened events, and the observation as functions of them."""

    def __init__(self, problem: Problem) -> None:
        denoise = released("azula.denoise")
        self.counted, self.shape = Counted(problem.model), tuple(problem.prior.event_shape or ())
        counted, shape, operator = self.counted, self.shape, problem.observation.operator
        schedule = OwnSchedule(problem.prior.sde.schedule)

        class ExactDenoiser(denoise.Denoiser):
            def __init__(self) -> None:
                super().__init__()
                self.schedule = schedule

            def forward(self, x_t: Tensor, t: Tensor, **kwargs: object) -> Any:
                tau = float(schedule.clock.tau(float(t)))
                x0 = counted.predict(x_t.reshape(len(x_t), *shape), max(tau, 1e-9)).x0
                return denoise.DiracPosterior(x0.reshape(len(x_t), -1))

        support = operator.support()
        self.rows = slice(None) if support is None else support.flatten().nonzero().flatten()
        self.denoiser = ExactDenoiser()
        self.y = problem.observation.y.flatten()[self.rows].expand(problem.count, -1)
        self.variance = float(problem.observation.covariance()[0, 0])
        self.operator, self.size = operator, math.prod(shape)
        self.count = problem.count

    def apply(self, x: Tensor) -> Tensor:
        return self.operator.apply(x.reshape(len(x), *self.shape)).flatten(1)[:, self.rows]

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        assert isinstance(self.operator, SpectralOperator)
        full = y.new_zeros(len(y), math.prod(self.operator.output_shape))
        full[:, self.rows] = y
        return self.operator.pseudo_inverse(full.reshape(len(y), *self.operator.output_shape)).flatten(1)


def _run(make: Any, cost: int, problem: Problem, work: int, seed: int) -> Run:
    setup, clock = _Setup(problem), problem.prior.sde
    settings = {
        "start": 1.0,
        "stop": float(clock.schedule.u(clock.tau_min)),
        "steps": work // cost,
        "silent": True,
        "dtype": torch.float64,
    }
    sampler = make(setup, settings)
    with torch.random.fork_rng():  # azula draws from the global generator
        torch.manual_seed(seed)
        x = sampler(torch.randn(setup.count, setup.size, dtype=torch.float64, generator=generator(seed)))
    return Run(x.reshape(setup.count, *setup.shape), setup.counted.work)


def _steered(denoiser: str, sampler: str, options: dict[str, Any], setup: _Setup, settings: dict[str, Any]) -> Any:
    guidance = released("azula.guidance")
    covariance = released("azula.linalg.covariance").IsotropicCovariance
    arguments: dict[str, Any] = {"y": setup.y, "A": setup.apply, **options}
    if denoiser in ("TMPDenoiser", "DiffPIRDenoiser"):
        arguments["var_y"] = setup.variance
    else:
        arguments["cov_y"] = covariance(torch.tensor(setup.variance, dtype=torch.float64))
    if denoiser == "JFPSDenoiser":
        arguments["cov_x"] = covariance(torch.tensor(1.0, dtype=torch.float64))
    steered = getattr(guidance, denoiser)(setup.denoiser, **arguments)
    return getattr(released("azula.sample"), sampler)(steered, **settings)


def _pgdm(eta: float, setup: _Setup, settings: dict[str, Any]) -> Any:
    make = released("azula.guidance").PGDMSampler
    return make(setup.denoiser, setup.y, setup.apply, setup.pseudo_inverse, eta=eta, **settings)


def _dps(zeta: float, setup: _Setup, settings: dict[str, Any]) -> Any:
    return released("azula.guidance").DPSSampler(setup.denoiser, setup.y, setup.apply, zeta=zeta, **settings)


def _denoiser(label: str, cost: int, options: dict[str, Any], *samplers: str, problems: str = "ABCDEF") -> list[Method]:
    make = {
        sampler: partial(_steered, f"{label.split()[0]}Denoiser", f"{sampler}Sampler", options) for sampler in samplers
    }
    return [
        Method("azula", f"{label} · {sampler}", partial(_run, make[sampler], cost), problems) for sampler in samplers
    ]


def methods() -> list[Method]:
    """azula's released methods; their work is counted as it is done."""
    return [
        *_denoiser("MMPS gmres 1", 3, {"solver": "gmres", "iterations": 1}, "DDIM", "DDPM"),
        *_denoiser("MMPS cg 2", 4, {"solver": "cg", "iterations": 2}, "DDIM", problems="A"),
        *_denoiser("MMPS cg 5", 7, {"solver": "cg", "iterations": 5}, "DDPM", problems="DEF"),
        *_denoiser("TMP", 3, {}, "DDPM"),
        *_denoiser("JFPS cg 5", 1, {"iterations": 5}, "DDPM"),
        *_denoiser("DiffPIR", 1, {}, "DDPM"),
        *(Method("azula", f"PGDM eta {eta:g}", partial(_run, partial(_pgdm, eta), 2)) for eta in (0.0, 1.0)),
        *(Method("azula", f"DPS zeta {zeta:g}", partial(_run, partial(_dps, zeta), 2)) for zeta in (0.3, 1.0, 3.0)),
    ]
