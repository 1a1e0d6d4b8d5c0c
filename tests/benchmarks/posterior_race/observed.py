"""Methods that take the observation themselves: particles, RePaint and DAPS, at a stated work per sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from posterior_race.method import Counted, Method, Run
from posterior_race.problems import Problem
from scoresde.inverse import (
    DAPS,
    FPSSMC,
    IsotropicTwist,
    JacobianTwist,
    PosteriorSampler,
    RePaint,
    Twist,
    TwistedSMC,
    sample_posterior,
)
from scoresde.sampling import DDIM, UniformLogSNR

__all__ = ["METHODS"]


def _run(make: Callable[[Problem, int], PosteriorSampler], problem: Problem, work: int, seed: int) -> Run:
    """Equal draws; the work of the particles is divided among the draws."""
    model, method = Counted(problem.prior), make(problem, work)
    samples = sample_posterior(model, problem.observation, problem.count, method, seeds=[seed])
    return Run(samples.x[0], samples.nfe * method.states(problem.count) / problem.count)


def _twisted(twist: Twist, particles: int, problem: Problem, work: int) -> PosteriorSampler:
    measured = problem.observation.operator.measured() if isinstance(twist, JacobianTwist) else 0
    return TwistedSMC(max(min(work // (1 + measured), 100), 20), particles, twist)


def _fps(particles: int, problem: Problem, work: int) -> PosteriorSampler:
    return FPSSMC(min(work, 100), particles)


def _repaint(resamplings: int, problem: Problem, work: int) -> PosteriorSampler:
    return RePaint(work // resamplings, resamplings)


def _daps(calls: int, problem: Problem, work: int) -> PosteriorSampler:
    return DAPS(work // calls, DDIM(calls, UniformLogSNR()))


METHODS = [
    *(
        Method("particles", f"{name}, {count} particles", partial(_run, partial(make, count)))
        for count in (256, 1024, 4096)
        for name, make in {
            "TwistedSMC isotropic": partial(_twisted, IsotropicTwist()),
            "TwistedSMC Jacobian": partial(_twisted, JacobianTwist()),
            "FPSSMC": _fps,
        }.items()
    ),
    *(Method("ours", f"RePaint U = {u}", partial(_run, partial(_repaint, u)), "E") for u in (1, 5, 20)),
    *(Method("ours", f"DAPS · DDIM {calls}", partial(_run, partial(_daps, calls))) for calls in (1, 5)),
]
"""One entry per method and number of particles. Particles take 100 steps at most, whatever the work."""
