"""`TiltedSamples`: weighted samples of a tilted density, and an estimate of its normalizing constant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.noise import Noise
from scoresde.data import Description
from scoresde.inverse._particles import Population, resample, take_particles

__all__ = ["TiltedSamples"]


@dataclass(frozen=True, eq=False)
class TiltedSamples:
    """Weighted samples of P populations of K particles.

    Attributes:
        x: Samples at ``tau`` in the view's coordinates, ``(P, K, *D)``.
        log_weights: Logarithms of their weights, whose sum is 1 in each population, ``(P, K)``.
        ess: Effective sample size of the last weights, ``(P,)``; particles of one ancestor count separately.
        log_normalizer: Estimate of log Z, nats, in x, ``(P,)``; its exponential is unbiased except for the error of
            the steps.
        standard_error: Of ``log_normalizer``, from the first ancestors of this one run, ``(P,)``, an approximation.
            Near 1 it only shows that too few of them are left.
        tau: OU time of ``x``.
        nfe: Network evaluations per particle.
        description: The data's description, or None.
    """

    x: Tensor
    log_weights: Tensor
    ess: Tensor
    log_normalizer: Tensor
    standard_error: Tensor
    tau: float
    nfe: int
    description: Description | None = None

    def mean(self) -> Tensor:
        """Weighted mean of each population, ``(P, *D)``."""
        return torch.einsum("pk,pk...->p...", self.log_weights.exp().to(self.x), self.x)

    def draw(self, generator: torch.Generator | None = None) -> Tensor:
        """Samples of equal weight by systematic resampling, in random order, ``(P, K, *D)``.

        A sample of large weight occurs several times.
        """
        check_arguments(TiltedSamples.draw, locals())
        noise, (populations, count) = Noise(generator), self.log_weights.shape
        equal = Population.new(populations, count, self.x.device).weighted(self.log_weights)
        parents = resample(equal, noise.uniform(self.log_weights[:, 0]), 1.0, force=True)[1]
        order = noise.uniform(self.log_weights).argsort(1)
        return take_particles(self.x.flatten(0, 1), parents.gather(1, order)).reshape(self.x.shape)
