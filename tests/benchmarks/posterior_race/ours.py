"""Our posterior methods under three samplers, the exact conditional model, and particle methods where installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from posterior_race.method import Counted, Method, Run
from posterior_race.problems import Problem, generator
from scoresde import DDNM, DDPM, DDRM, DPS, MMPS, TMPD, Adams, JacobianFree, PiGDM, Posterior, SASolver, sample
from scoresde.guidance import PosteriorMethod
from scoresde.sampling import Eta, Sampler

__all__ = ["METHODS", "PARTICLES"]

SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "Adams": lambda calls: Adams(calls - 1),
    "SASolver": lambda calls: SASolver(calls - 1, noise=Eta(1.0)),
    "DDPM": DDPM,
    "Langevin": lambda calls: SASolver(calls - 1, noise=Eta(4.0, low=0.1, high=5.0)),
}
"""The reverse SDE's noise is added once (SASolver, DDPM) or, near where modes part, 16 times (Langevin)."""


def _exact(problem: Problem, work: int, seed: int) -> Run:
    samples = sample(problem.posterior, problem.count, Adams(work - 1), generator=generator(seed))
    return Run(samples.x, samples.nfe)


def _steered(method: PosteriorMethod, sampler: str, problem: Problem, work: int, seed: int) -> Run:
    model = Posterior(Counted(problem.prior), problem.observation, method)
    calls = work // model.cost
    samples = sample(model, problem.count, SAMPLERS[sampler](calls), generator=generator(seed))
    return Run(samples.x, samples.nfe)


def _published_dps(zeta: float, problem: Problem, work: int, seed: int) -> Run:
    return _steered(DPS(zeta, work // 2), "DDPM", problem, work, seed)


def _ours(method: PosteriorMethod, *samplers: str, problems: str = "ABCDEF") -> list[Method]:
    return [
        Method("ours", f"{method} · {sampler}", partial(_steered, method, sampler), problems) for sampler in samplers
    ]


METHODS = [
    Method("exact", "exact conditional model · Adams", _exact),
    *_ours(MMPS(1), "Adams", "SASolver", "DDPM", "Langevin"),
    *_ours(MMPS(2), "Adams", "SASolver", "Langevin", problems="ADEF"),
    *_ours(MMPS(3), "Adams", "Langevin", problems="DEF"),
    *_ours(MMPS(5), "Adams", "SASolver", "Langevin", problems="DEF"),
    *_ours(PiGDM(), "Langevin"),
    *(run for kind in (PiGDM, TMPD, JacobianFree, DDNM, DDRM) for run in _ours(kind(), "SASolver")),
    *(run for kind in (PiGDM, TMPD, JacobianFree, DDNM, DDRM) for run in _ours(kind(), "Adams", problems="ABCD")),
    *_ours(DPS(), "DDPM"),
    *_ours(DPS(), "Adams", problems="ABCD"),
    *(Method("ours", f"DPS({zeta:g}) as published · DDPM", partial(_published_dps, zeta)) for zeta in (0.1, 0.3, 1.0)),
]


def _particles(make: Callable[[int], Any], problem: Problem, work: int, seed: int) -> Run:
    """The work is that of all particles, for each sample that is returned."""
    inverse: Any = importlib.import_module("scoresde.inverse")
    method, event = make(work), problem.posterior.event_shape or ()
    found = inverse.sample_posterior(problem.prior, problem.observation, problem.count, method, seeds=[seed])
    return Run(found.x.reshape(problem.count, *event), found.nfe * method.particles / problem.count)


def particle_methods() -> list[Method]:
    """One entry per number of particles; empty where the package has no particle methods."""
    inverse: Any = importlib.import_module("scoresde.inverse")
    if not hasattr(inverse, "TwistedSMC"):
        return []

    def make(twist: str, cost: int, particles: int, work: int) -> Any:
        return inverse.TwistedSMC(max(work // cost, 2), particles, twist=getattr(inverse, twist)())

    return [
        Method("particles", f"TwistedSMC {twist}, {count}", partial(_particles, partial(make, twist, cost, count)))
        for twist, cost in (("IsotropicTwist", 1), ("JacobianTwist", 3))
        for count in (256, 1024, 4096)
    ]


PARTICLES = particle_methods()
