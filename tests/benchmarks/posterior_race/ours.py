"""Our methods that steer the model, under several samplers, and the exact conditional model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from posterior_race.method import Counted, Method, Run
from posterior_race.problems import Problem, generator
from scoresde import DDNM, DDPM, DDRM, DPS, MMPS, TMPD, Adams, JacobianFree, PiGDM, Posterior, SASolver, sample
from scoresde.guidance import PosteriorMethod
from scoresde.sampling import Eta, Sampler

__all__ = ["METHODS", "SAMPLERS"]

SAMPLERS: dict[str, Callable[[int], Sampler]] = {
    "Adams": lambda calls: Adams(calls - 1),
    "SASolver": lambda calls: SASolver(calls - 1, noise=Eta(1.0)),
    "DDPM": DDPM,
    "SASolver, Eta(4)": lambda calls: SASolver(calls - 1, noise=Eta(4.0, low=0.3, high=5.0)),
}
"""The reverse SDE's noise is added once (SASolver, DDPM) or 16 times near where modes part (Eta(4))."""


def _exact(problem: Problem, work: int, seed: int) -> Run:
    """100 steps: more change nothing."""
    samples = sample(problem.posterior, problem.count, Adams(min(work, 100) - 1), generator=generator(seed))
    return Run(samples.x, samples.nfe)


def _steered(method: PosteriorMethod, sampler: str, problem: Problem, work: int, seed: int) -> Run:
    model = Posterior(Counted(problem.model), problem.observation, method)
    calls = work // model.cost
    samples = sample(model, problem.count, SAMPLERS[sampler](calls), generator=generator(seed))
    return Run(samples.x, samples.nfe)


def _published_dps(zeta: float, problem: Problem, work: int, seed: int) -> Run:
    return _steered(DPS(zeta, work // 2), "DDPM", problem, work, seed)


def _ours(method: PosteriorMethod, *samplers: str) -> list[Method]:
    name = f"{type(method).__name__}()"  # its defaults
    return [Method("ours", f"{name} · {sampler}", partial(_steered, method, sampler)) for sampler in samplers]


METHODS = [
    Method("exact", "exact conditional model · Adams", _exact),
    *_ours(MMPS(), "SASolver, Eta(4)", "SASolver", "Adams"),
    *_ours(PiGDM(), "SASolver, Eta(4)"),
    *_ours(DPS(), "DDPM"),
    *(run for method in (PiGDM(), TMPD(), JacobianFree(), DDNM(), DDRM()) for run in _ours(method, "SASolver")),
    Method("ours", "DPS(0.3) as published · DDPM", partial(_published_dps, 0.3)),
]
"""Left out: samplers with which a method was worse in a first run, such as `Adams` with most of them."""
