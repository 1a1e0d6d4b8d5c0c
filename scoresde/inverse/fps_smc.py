r"""Filtering posterior sampling: particles of the chain, filtered by a noised path of the observation itself.

With unit noise, $z = \Lambda V^\top x_0 + n_0$, both x and n diffuse: $z_\tau = \Lambda V^\top x_\tau + n_\tau$. From
$z_0 = z$ its path is $\alpha z + \sigma\,(I + \Lambda^2)^{1/2}\xi$, known without x_0. Given the path's next point, the
next state is drawn from the Gaussian $p(x_s \mid x_\tau, n_\tau, z_s)$; the weight is $p(z_s \mid x_\tau, n_\tau)$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import combine
from scoresde.guidance.observation import Observation
from scoresde.inverse._particles import Population, effective_sample_size, resample
from scoresde.inverse._whitened import WhitenedObservation, log_normal, whiten
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.posterior_samples import PosteriorSamples, equal_weights
from scoresde.inverse.twisted_smc import chain_times, check_threshold, noise_floor
from scoresde.inverse.twists import take
from scoresde.model import Model, gaussian_process
from scoresde.process import ou
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.grid import Grid, UniformLogSNR
from scoresde.sampling.optimal_variance import OptimalVariance

__all__ = ["FPSSMC"]


@dataclass(frozen=True)
class FPSSMC(PosteriorSampler):
    r"""Filtering posterior sampling by sequential Monte Carlo: one network evaluation per step, no Jacobian.

    The particles are divided among independent noised paths of the observation, each with its own resampling. A path is
    weighted by its estimate of p(path)/q(path | y), the evidence. So the samples and the evidence are those of the
    chain as both the paths and the particles of each grow; with one path they are only as the steps grow too. The
    standard error of the evidence is that of the mean over the paths.

    The paper takes the noise of $z_\tau$ as new at each time. Here it is a coordinate of its own, which diffuses from
    the one noise of the measurement; without noise the two are the same. The chain's steps have the variance
    $\tilde\beta + c^2v$, with c the factor of $\hat x_0$, in the last step too.

    Args:
        steps: Number of steps.
        particles: Number of particles for each observation, a multiple of ``paths`` and at least twice as many.
        paths: Number of independent paths, at least 2.
        variance: v at each time, as `optimal_variance` estimates it; default that of unit normal data, $\sigma^2$, with
            which the chain's variance is β.
        grid: Times of the chain; the last step ends at 0 whatever the grid.
        threshold: The particles of a path are resampled where their effective sample size is below this fraction.

    Raises:
        ValueError: If a number is out of range. When sampling: as `TwistedSMC`, which says also what noise is replaced.
        TypeError: When sampling: if the operator is not linear.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, sample_posterior
        >>> from scoresde.guidance import Mask, Observation
        >>> from scoresde.inverse import FPSSMC
        >>> model = Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.8], [0.8, 1.0]]))
        >>> first = Observation(Mask(torch.tensor([True, False])), torch.tensor([0.5, 0.0]), noise_std=0.1)
        >>> posterior = sample_posterior(model, first, method=FPSSMC(50, 4096), seeds=[0])
        >>> [round(float(value), 1) for value in posterior.mean()[0]]  # exact: 0.495, 0.396
        [0.5, 0.4]

    Source: Dou & Song 2024, algorithm 2 (FPS-SMC); the division into paths is ours.
    """

    steps: int = 100
    particles: int = 1024
    paths: int = 16
    variance: OptimalVariance | None = None
    grid: Grid = field(default_factory=UniformLogSNR)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_integer("paths", self.paths, 2)
        check_integer("particles", self.particles, 2 * self.paths)
        if self.particles % self.paths:
            raise ValueError(f"particles must be a multiple of paths, got {self.particles} and {self.paths}.")
        check_kind("grid", self.grid, Grid)
        check_threshold(self.threshold)

    def states(self, n: int | None) -> int:
        return self.particles

    def prepare(self, model: Model, observation: Observation, like: Tensor) -> WhitenedObservation:
        return whiten(observation, like, "FPSSMC", noise_floor(chain_times(self.grid, model.sde, self.steps)[-2]))

    def run(self, context: PosteriorContext) -> PosteriorSamples:
        observation: WhitenedObservation = context.prepared.at(context.index.repeat_interleave(self.paths))
        taus, run = chain_times(self.grid, context.model.sde, self.steps), _Filter(self, context, observation)
        x, log_weight = run.first(taus[0])
        population, trace = Population.new(len(x), x.shape[1], x.device).weighted(log_weight), []
        for times in pairwise(taus):
            trace.append(population.effective_sample_size())
            population, parents = resample(population, run.uniform(), self.threshold)
            x, log_weight = run.step(take(x, parents), times)
            population = population.weighted(log_weight)
        trace.append(population.effective_sample_size())
        return self._joined(context, x, population, trace, observation)

    def _joined(
        self,
        context: PosteriorContext,
        x: Tensor,
        population: Population,
        trace: list[Tensor],
        observation: WhitenedObservation,
    ) -> PosteriorSamples:
        """The result for each observation, whose paths are weighted by their evidence."""
        m, event = len(context.index), context.like.shape[2:]
        evidence = population.log_normalizing_constant().reshape(m, self.paths)
        log_weights = torch.log_softmax(population.log_weights, 1).reshape(m, self.paths, -1)
        log_weights = torch.log_softmax((log_weights + evidence.unsqueeze(-1)).flatten(1), 1)
        ess = torch.stack(trace, 1).reshape(m, self.paths, -1).sum(1)
        ess = torch.cat([ess[:, :-1], effective_sample_size(log_weights).unsqueeze(1)], 1)
        log_mean = torch.logsumexp(evidence, 1) - math.log(self.paths)
        spread = (evidence - log_mean.unsqueeze(1)).exp().std(1) / math.sqrt(self.paths)
        constant = observation.log_constant[:: self.paths].to(log_mean)
        x = x.reshape(m, self.particles, *event)
        if context.n is not None:
            x, log_weights = equal_weights(x, log_weights, context.n, context.noise)
        return PosteriorSamples(x, log_weights, context.nfe, ess, log_mean + constant, spread, context.model.data)


class _Filter:
    """The states of the paths and the steps of their particles; one row per path of each observation.

    States are ``(m * paths, P, *D)`` with P particles per path, points of the paths ``(m * paths, 1, k)``.
    """

    def __init__(self, settings: FPSSMC, context: PosteriorContext, observation: WhitenedObservation) -> None:
        self.settings, self.context, self.observation = settings, context, observation
        self.gains, self.z = observation.gains, observation.z
        self.spread = self.gains.square() + 1.0  # variance of Λ Vᵀ ε + ε'

    def uniform(self) -> Tensor:
        like = self.z.new_empty((len(self.context.index), self.settings.paths), dtype=torch.float64)
        return self.context.noise.uniform(like).flatten()

    def _normal(self, like: Tensor) -> Tensor:
        m = len(self.context.index)
        return self.context.normal(like.reshape(m, -1)).reshape(like.shape)

    def first(self, tau: float) -> tuple[Tensor, Tensor]:
        """States at the end of the clock given the path's first point, and their log-weights."""
        variance = gaussian_process(self.context.model).prior_std ** 2
        x = self.context.prior()
        flat = x.reshape(len(self.z), -1, math.prod(x.shape[2:]))
        log_q = self._draw(float(ou.alpha(tau)) * self.observation.z, float(ou.beta(tau, 0.0)))
        total, inner = self.gains.square() * variance + 1.0, self.observation.project(flat)
        difference = self.z - self.gains * inner - self._normal(inner)
        flat = flat + self.observation.lift(self.gains * variance / total * difference)
        log_weight = self._log_density(torch.zeros_like(inner), total) - log_q
        return flat.reshape(*flat.shape[:2], *x.shape[2:]), log_weight

    def step(self, x: Tensor, times: tuple[float, float]) -> tuple[Tensor, Tensor]:
        """States at the end of a step given the path's next point, and their log-weights."""
        tau, s = times
        on_x0, on_x, beta_tilde = posterior_coefficients(tau, s)
        gains, beta, estimate = self.gains, float(ou.beta(tau, s)), self.settings.variance
        v = float(ou.beta(tau, 0.0)) if estimate is None else estimate.posterior_variance(tau)
        rev_var = float(beta_tilde + on_x0 * on_x0 * v)
        flat = x.flatten(2)
        noise = self.z - gains * self.observation.project(flat)
        mean = combine(on_x, flat, on_x0, self.context.predict(x, tau).x0.reshape(flat.shape))
        if s > 0:
            log_q = self._draw(on_x * self.z + on_x0 * self.observation.z, float(beta_tilde))
        else:
            self.z, log_q = self.observation.z, 0.0
        predicted = gains * self.observation.project(mean) + float(ou.alpha(tau - s)) * noise
        total = gains.square() * rev_var + beta
        e = self._normal(flat) * math.sqrt(rev_var)
        drawn = predicted + gains * self.observation.project(e) + math.sqrt(beta) * self._normal(noise)
        e = e + self.observation.lift(rev_var * gains / total * (self.z - drawn))
        return (mean + e).reshape(x.shape), self._log_density(predicted, total) - log_q

    def _draw(self, mean: Tensor, variance: float) -> Tensor:
        """Draws the path's next point around ``mean``; its log-density, ``(m * paths, 1)``."""
        self.z = mean + (variance * self.spread).sqrt() * self._normal(mean)
        return self._log_density(mean, variance * self.spread)

    def _log_density(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Log-density of the path's point without log 2π, which `log_constant` has.

        A coordinate that is not measured adds 0 over all steps, because the reverse steps of its noise are exact.
        """
        return log_normal(self.z - mean, variance)
