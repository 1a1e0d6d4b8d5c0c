r"""Twisted sequential Monte Carlo: particles of the chain $p(x_{\tau_N})\prod p(x_s \mid x_\tau)\,p(y \mid x_0)$.

Each step draws from a proposal q that has seen y, and multiplies the weights by
$p(x_s \mid x_\tau)\,\psi_s(x_s)/(q(x_s \mid x_\tau)\,\psi_\tau(x_\tau))$; the last one ends with the exact likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import combine
from scoresde.guidance.observation import Observation
from scoresde.inverse._particles import Population, resample
from scoresde.inverse._whitened import WhitenedObservation, whiten
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.isotropic_twist import IsotropicTwist
from scoresde.inverse.posterior_samples import PosteriorSamples, equal_weights
from scoresde.inverse.twists import ChainStep, Twist, TwistState, take
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.grid import DenseEnds, Grid
from scoresde.sampling.optimal_variance import OptimalVariance
from scoresde.sampling.reverse_variance import check_rev_var, reverse_variance

__all__ = ["TwistedSMC"]

_LEAST_PARTICLES, _PARTICLES_PER_SAMPLE = 1024, 4


@dataclass(frozen=True)
class TwistedSMC(PosteriorSampler):
    r"""The twisted diffusion sampler: exact for the chain as the number of particles grows.

    The target is p(x_0 | y) of the model's own chain with Gaussian steps of variance ``rev_var``, whose end is the data
    estimate at the last time. The chain's distance from the data falls with the steps. The evidence is estimated
    without bias (its logarithm therefore low by about half its squared error). Its standard error comes from the
    families of the first particles (Chan & Lai 2013), from the same run.

    Without a number of samples, `sample_posterior` returns the particles with their weights; with one, draws from them.
    The particles of one observation are coupled and share its seed; observations never are.

    Independent noise below that of the last state, σ/α at the last time before 0 (0.0045 for the default grid of
    `VPSDE`), is replaced by it; so values known exactly may have ``noise_std=0``.

    Args:
        steps: Number of steps.
        particles: Number of particles for each observation, at least 2. None: 4 for each requested sample, and
            at least 1024. The samples of one observation share its particles, so that 100 steps are 400 network
            evaluations per sample from 256 samples on.
        twist: The estimate of p(y | x_τ) that proposals and weights use. It does not change the limit, only how many
            particles reach it.
        rev_var: Variance of the chain's steps, as in `DDPM`, but not learned. An `OptimalVariance` of the model needs
            fewer steps.
        grid: Times of the chain; the last step ends at 0 whatever the grid. `DenseEnds` is short also where modes part:
            on the six problems of ``tests/benchmarks/posteriors.py`` its error is at most that of `UniformLogSNR`.
        threshold: The particles are resampled where their effective sample size is below this fraction of their number.

    Raises:
        ValueError: If a number is out of range. When sampling: if ``noise_cov`` is not positive definite, or the
            matrix of the operator is too large.
        TypeError: When sampling: if the operator is not linear.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, TwistedSMC, sample_posterior
        >>> from scoresde.guidance import Mask, Observation
        >>> model = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
        >>> first = Observation(Mask(torch.tensor([True, False])), torch.tensor([0.5, 0.0]), noise_std=0.1)
        >>> posterior = sample_posterior(model, first, method=TwistedSMC(50, 4096), seeds=[0])
        >>> [round(float(value), 1) for value in posterior.mean()[0]]  # exact: 0.495, 0.396
        [0.5, 0.4]

    Source: Wu, Trippe, Naesseth, Blei & Cunningham 2023, algorithm 1; the proposals are those of `Twist`.
    """

    steps: int = 100
    particles: int | None = None
    twist: Twist = field(default_factory=IsotropicTwist)
    rev_var: str | OptimalVariance = "beta"
    grid: Grid = field(default_factory=DenseEnds)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        if self.particles is not None:
            check_integer("particles", self.particles, 2)
        check_kind("twist", self.twist, Twist)
        check_kind("grid", self.grid, Grid)
        check_rev_var(self.rev_var)
        if self.rev_var == "learned":
            raise ValueError("rev_var must be known before the step, got 'learned'; take 'beta' or optimal_variance.")
        check_threshold(self.threshold)

    def states(self, n: int | None) -> int:
        return max(_LEAST_PARTICLES, _PARTICLES_PER_SAMPLE * (n or 0)) if self.particles is None else self.particles

    def prepare(self, model: Model, observation: Observation, like: Tensor) -> WhitenedObservation:
        last = chain_times(self.grid.for_model(model), model.sde, self.steps)[-2]
        return self.twist.prepared(whiten(observation, like, "TwistedSMC", noise_floor(last)))

    def run(self, context: PosteriorContext) -> PosteriorSamples:
        observation: WhitenedObservation = context.prepared.at(context.index)
        taus, x = chain_times(self.grid.for_model(context.model), context.model.sde, self.steps), context.prior()
        state = self.twist.at(context, observation, x, taus[0])
        population, trace = Population.new(len(x), x.shape[1], x.device).weighted(state.log_psi), []
        for tau, s in pairwise(taus[:-1]):
            trace.append(population.effective_sample_size())
            uniform = context.noise.uniform(population.log_normalizer)
            population, parents = resample(population, uniform, self.threshold)
            x, state = take(x, parents), state.take(parents)
            x, log_ratio = self._propose(context, observation, x, state, (tau, s))
            before, state = state.log_psi, self.twist.at(context, observation, x, s)
            population = population.weighted(state.log_psi + log_ratio - before)
        trace.append(population.effective_sample_size())
        population = population.weighted(observation.log_likelihood(state.x0) - state.log_psi)
        trace.append(population.effective_sample_size())
        return particle_samples(context, state.x0.reshape(x.shape), population, trace, observation)

    def _propose(
        self,
        context: PosteriorContext,
        observation: WhitenedObservation,
        x: Tensor,
        state: TwistState,
        times: tuple[float, float],
    ) -> tuple[Tensor, Tensor]:
        """States at the end of a step, ``(m, P, *D)``, and log p/q of each, ``(m, P)``."""
        on_x0, on_x, _ = posterior_coefficients(*times)
        step = ChainStep(*times, reverse_variance(self.rev_var, *times), context.normal)
        e, log_ratio = self.twist.propose(observation, state, step)
        return combine(on_x, x, 1.0, combine(on_x0, state.x0, 1.0, e).reshape(x.shape)), log_ratio


def chain_times(grid: Grid, sde: Process, steps: int) -> list[float]:
    """Times of a chain of ``steps`` steps, the last of which ends at 0 also on grids that end before."""
    times = grid.times(sde, steps)
    if times[-1] > 0.0:
        times = [*(grid.times(sde, steps - 1) if steps > 1 else times[:1]), 0.0]
    return times


def check_threshold(threshold: float) -> None:
    """Refuses a threshold of resampling that is not a fraction."""
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold!r}; 0.5 is usual.")


def noise_floor(last: float) -> float:
    """The noise in data units that the last state has, σ/α at its time: the least noise of a measurement."""
    return float(ou.sigma(last) / ou.alpha(last)) if ou.alpha(last) > 0 else 1.0


def particle_samples(
    context: PosteriorContext, x: Tensor, population: Population, trace: list[Tensor], observation: WhitenedObservation
) -> PosteriorSamples:
    """The result of a particle method: the particles ``(m, P, *D)``, or as many equal draws as the caller asked for."""
    log_weights = torch.log_softmax(population.log_weights, 1)
    if context.n is not None:
        x, log_weights = equal_weights(x, log_weights, context.n, context.noise)
    constant = observation.log_constant.to(population.log_normalizer)
    return PosteriorSamples(
        x,
        log_weights,
        context.nfe,
        torch.stack(trace, 1),
        population.log_normalizing_constant() + constant,
        population.stderr(),
        context.model.data,
    )
