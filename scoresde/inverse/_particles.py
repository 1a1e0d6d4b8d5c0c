r"""Weighted particles: a target known up to a constant as $\sum_k W_k\,\delta(x - x_k)$, with $\sum_k W_k = 1$.

The states of P populations of K particles are one batch ``(P * K, *D)``, population by population; their unnormalized
log-weights are ``(P, K)``. Populations never mix. The effective sample size is $1/\sum_k W_k^2$. Systematic
resampling takes one uniform number per population and is decided on the device, so that no value reaches the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.tensors import widest_dtype
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.mixed import MixedPrediction
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = [
    "Population",
    "effective_sample_size",
    "resample",
    "systematic_indices",
    "take_memory",
    "take_particles",
]


@dataclass(frozen=True, eq=False)
class Population:
    r"""Log-weights of the particles, and what earlier resamplings leave behind.

    Attributes:
        log_weights: Since the last resampling, unnormalized, nats, ``(P, K)``.
        log_normalizer: Log of the product of the mean weights at the resamplings, nats, ``(P,)``.
        ancestors: Index of each particle's ancestor in the first generation, ``(P, K)``.
    """

    log_weights: Tensor
    log_normalizer: Tensor
    ancestors: Tensor

    @classmethod
    def new(cls, populations: int, particles: int, device: torch.device) -> Population:
        """Equal weights, in the widest floating type of the device."""
        zeros = torch.zeros(populations, particles, dtype=widest_dtype(device), device=device)
        ancestors = torch.arange(particles, device=device).expand(populations, particles)
        return cls(zeros, zeros[:, 0] if particles else zeros.sum(1), ancestors)

    def weighted(self, log_increments: Tensor) -> Population:
        """The population with log-weights that grow by ``log_increments``, ``(P, K)``."""
        return replace(self, log_weights=self.log_weights + log_increments.to(self.log_weights))

    def weights(self) -> Tensor:
        """Normalized weights, ``(P, K)``."""
        return torch.softmax(self.log_weights, 1)

    def effective_sample_size(self) -> Tensor:
        """Effective sample size, ``(P,)``."""
        return effective_sample_size(self.log_weights)

    def log_normalizing_constant(self) -> Tensor:
        """Estimate of the log of the normalizing constant, nats, ``(P,)``; its exponential is unbiased."""
        return self.log_normalizer + torch.logsumexp(self.log_weights, 1) - math.log(self.log_weights.shape[1])

    def stderr(self) -> Tensor:
        r"""Standard error of `log_normalizing_constant` from this one run, ``(P,)``.

        Its square is $\sum_j (\sum_{k: a_k = j} W_k - 1/K)^2$ over the first ancestors j. Without resampling that is
        the relative variance of importance sampling. It is derived for multinomial resampling at every step; with
        systematic resampling it is an approximation. Where few first ancestors remain, it only says that the error is
        of order 1.

        Source: Chan & Lai 2013, "A general theory of particle filters", section 2.
        """
        families = torch.zeros_like(self.log_weights).scatter_add(1, self.ancestors, self.weights())
        return (families - 1.0 / self.log_weights.shape[1]).square().sum(1).sqrt()


def effective_sample_size(log_weights: Tensor) -> Tensor:
    r"""$1/\sum_k W_k^2 = (\sum_k w_k)^2/\sum_k w_k^2$ of unnormalized log-weights ``(P, K)``, ``(P,)`` in [1, K]."""
    return (2 * torch.logsumexp(log_weights, 1) - torch.logsumexp(2 * log_weights, 1)).exp()


def systematic_indices(log_weights: Tensor, uniform: Tensor) -> Tensor:
    r"""Ancestors by systematic resampling: particle k has between $\lfloor K W_k\rfloor$ and that plus 1 children.

    The k-th new particle descends from the first one whose cumulative weight exceeds $(k + u)/K$.

    Args:
        log_weights: Unnormalized, ``(P, K)``.
        uniform: One number in [0, 1) per population, ``(P,)``.

    Returns:
        Indices in 0 … K - 1, not decreasing, ``(P, K)``.

    Source: Kitagawa 1996; Douc, Cappé & Moulines 2005.
    """
    count = log_weights.shape[1]
    cumulative = torch.softmax(log_weights, 1).cumsum(1)
    points = torch.arange(count, dtype=cumulative.dtype, device=cumulative.device)
    points = (points + uniform.to(cumulative).unsqueeze(1)) / count
    # rounding may leave the last cumulative weight below 1 or move a point to 1
    return torch.searchsorted(cumulative, points.contiguous(), right=True).clamp(max=count - 1)


def resample(
    population: Population, uniform: Tensor, threshold: float | Tensor, force: bool = False
) -> tuple[Population, Tensor]:
    """Resamples the populations whose effective sample size is below ``threshold * K``.

    Args:
        population: Before the resampling.
        uniform: One number in [0, 1) per population, ``(P,)``. It is drawn whether or not it is used, so that the
            later random numbers do not depend on the decision.
        threshold: Fraction of K in [0, 1].
        force: Resamples every population.

    Returns:
        The population after the decision, and the index of each particle's parent, ``(P, K)``: its own index where the
        population is kept. `take_particles` applies them to the states.
    """
    log_weights = population.log_weights
    count = log_weights.shape[1]
    decided = effective_sample_size(log_weights) < threshold * count
    decided = (torch.ones_like(decided) if force else decided).unsqueeze(1)
    own = torch.arange(count, device=log_weights.device).expand_as(log_weights)
    parents = torch.where(decided, systematic_indices(log_weights, uniform), own)
    log_mean = torch.logsumexp(log_weights, 1) - math.log(count)
    after = Population(
        torch.where(decided, torch.zeros_like(log_weights), log_weights),
        population.log_normalizer + torch.where(decided.squeeze(1), log_mean, torch.zeros_like(log_mean)),
        population.ancestors.gather(1, parents),
    )
    return after, parents


def take_particles(x: Tensor, parents: Tensor) -> Tensor:
    """The states of the parents: ``x`` ``(P * K, *D)``, population by population, and ``parents`` ``(P, K)``."""
    populations, count = parents.shape
    first = torch.arange(populations, device=parents.device).unsqueeze(1) * count
    return x.index_select(0, (first + parents).flatten())


def take_memory(memory: Any, parents: Tensor) -> Any:
    """A sampler's memory of the parents: `take_particles` of each per-particle tensor in tuples and dataclasses.

    Raises:
        TypeError: If the memory has an object of another kind, whose tensors could belong to other particles.
    """
    if memory is None or isinstance(memory, (bool, int, float, str)):
        return memory
    if isinstance(memory, Tensor):
        return take_particles(memory, parents) if memory.ndim and len(memory) == parents.numel() else memory
    if isinstance(memory, MixedPrediction):
        x, first, second = (take_memory(part, parents) for part in (memory.x, memory.continuous, memory.categorical))
        return MixedPrediction(x, memory.tau, first, second)
    if isinstance(memory, DiscretePrediction):
        x, evidence = take_particles(memory.x, parents), take_particles(memory.evidence, parents)
        return DiscretePrediction(x, take_memory(memory.tau, parents), evidence, memory.process, evidence)
    if isinstance(memory, Prediction):
        x, tau, out = (take_memory(part, parents) for part in (memory.x, memory.tau, memory.out))
        return GaussianPrediction(x, tau, out, memory.parameterization, take_memory(memory.mix, parents))
    if isinstance(memory, (tuple, list)):
        entries = [take_memory(entry, parents) for entry in memory]
        return type(memory)(*entries) if hasattr(memory, "_fields") else type(memory)(entries)
    if is_dataclass(memory) and not isinstance(memory, type):
        return replace(memory, **{f.name: take_memory(getattr(memory, f.name), parents) for f in fields(memory)})
    raise TypeError(
        f"the memory of a sampler must hold tensors, numbers, predictions, tuples and dataclasses, got "
        f"{type(memory).__name__}; take a sampler without it, such as DDPM()."
    )
