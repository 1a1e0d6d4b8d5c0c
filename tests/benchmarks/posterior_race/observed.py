"""Methods that take the observation themselves: particles, RePaint and DAPS.

At equal work the particles of one posterior share the work of all of its samples: with 100 steps of one evaluation
each, 400 units of work are 4 particles for each sample. Another set of rows, the group "particles", has stated numbers
of particles and 100 steps, whatever the work.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from posterior_race.method import Counted, Method, Run
from posterior_race.problems import Problem
from scoresde.inverse import (
    DAPS,
    FPSSMC,
    JacobianTwist,
    PosteriorSampler,
    RePaint,
    Twist,
    TwistedSMC,
    sample_posterior,
)
from scoresde.sampling import DDIM, UniformLogSNR

__all__ = ["METHODS", "PARTICLES"]

PARTICLES = (256, 1024, 4096)
_STEPS, _PATHS = 100, 16
Make = Callable[[Problem, int], PosteriorSampler | None]


def _run(make: Make, problem: Problem, work: int, seed: int) -> Run:
    """Equal draws; the work of the particles is divided among the draws. No method is the default one."""
    model, method = Counted(problem.model), make(problem, work)
    samples = sample_posterior(model, problem.observation, problem.count, method, seeds=[seed])
    states = (TwistedSMC() if method is None else method).states(problem.count)
    return Run(samples.x[0], samples.nfe * states / problem.count)


def _default(problem: Problem, work: int) -> None:
    """No method: that of `sample_posterior`."""


def _twisted(twist: Twist, problem: Problem, work: int) -> PosteriorSampler:
    products = problem.observation.operator.measured() if isinstance(twist, JacobianTwist) else 0
    return TwistedSMC(_STEPS, max(work * problem.count // (_STEPS * (1 + products)), 2), twist)


def _even(problem: Problem, work: int) -> PosteriorSampler:
    return TwistedSMC(_STEPS, work * problem.count // _STEPS, grid=UniformLogSNR())


def _fps(problem: Problem, work: int) -> PosteriorSampler:
    return FPSSMC(_STEPS, max(work * problem.count // (_STEPS * _PATHS), 2) * _PATHS)


def _repaint(resamplings: int, problem: Problem, work: int) -> PosteriorSampler:
    return RePaint(work // resamplings, resamplings)


def _daps(calls: int, problem: Problem, work: int) -> PosteriorSampler:
    return DAPS(work // calls, DDIM(calls, UniformLogSNR()))


def _stated(make: Callable[[int], PosteriorSampler], particles: int, problem: Problem, work: int) -> PosteriorSampler:
    return make(particles)


EQUAL_WORK: dict[str, tuple[Make, str]] = {
    "sample_posterior, its default": (_default, "ABCDEF"),
    "TwistedSMC, UniformLogSNR": (_even, "ABCDEF"),
    "TwistedSMC, JacobianTwist": (partial(_twisted, JacobianTwist()), "ABCDF"),
    "FPSSMC": (_fps, "ABCDEF"),
    "RePaint, 5 resamplings": (partial(_repaint, 5), "E"),
    "DAPS, DDIM(1)": (partial(_daps, 1), "ABCDEF"),
}
STATED: dict[str, Callable[[int], PosteriorSampler]] = {
    "IsotropicTwist": lambda particles: TwistedSMC(_STEPS, particles),
    "JacobianTwist": lambda particles: TwistedSMC(_STEPS, particles, JacobianTwist()),
    "FPSSMC": lambda particles: FPSSMC(_STEPS, particles),
}
METHODS = [
    *(Method("ours", name, partial(_run, make), problems) for name, (make, problems) in EQUAL_WORK.items()),
    *(
        Method("particles", f"{name}, {count}", partial(_run, partial(_stated, make, count)), "ABC")
        for name, make in STATED.items()
        for count in PARTICLES
    ),
]
