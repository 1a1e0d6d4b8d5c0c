"""`PosteriorSamples`: samples of the posteriors of several observations, with weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_seed
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.data import Description

__all__ = ["PosteriorSamples", "equal_weights", "join", "unweighted"]


@dataclass(frozen=True)
class PosteriorSamples:
    r"""Samples of m posteriors, n of each, at τ = 0, and how they were drawn.

    Attributes:
        x: Samples in model units, ``(m, n, *D)``.
        log_weights: Logarithms of their weights, whose sum is 1 in each posterior, ``(m, n)``.
        nfe: Network evaluations per sample; a product with the network's Jacobian counts as one.
        ess: Effective sample sizes of particle methods, before each step and at the end, ``(m, steps + 1)``; else None.
        log_evidence: Particle methods' estimate of log p(y), nats, in model units, ``(m,)``; else None.
        standard_error: Standard error of ``log_evidence``, ``(m,)``; else None.
        description: The data's description, or None.
    """

    x: Tensor
    log_weights: Tensor
    nfe: int
    ess: Tensor | None = None
    log_evidence: Tensor | None = None
    standard_error: Tensor | None = None
    description: Description | None = None

    @property
    def data(self) -> Tensor:
        """The samples in the data's own units, ``(m, n, *D)``.

        Raises:
            ValueError: If the model does not carry its data's description.
        """
        if self.description is None:
            raise ValueError("data units need the data's description, got a model without one; use .x (model units).")
        return self.description.to_data(self.x.flatten(0, 1)).unflatten(0, self.x.shape[:2])

    def mean(self) -> Tensor:
        """Weighted means of the samples, ``(m, *D)``."""
        return torch.einsum("mn,mn...->m...", self.log_weights.exp().to(self.x), self.x)

    def draw(self, n: int, seed: int = 0) -> PosteriorSamples:
        """Samples of equal weight, by systematic resampling and in random order.

        A sample of large weight occurs several times; ``log_evidence`` and ``ess`` stay.

        Args:
            n: Number of samples of each posterior.
            seed: Seed of the resampling.

        Raises:
            ValueError: If ``n`` is not a positive integer, or ``seed`` not an integer in [0, 2**63).
        """
        check_arguments(PosteriorSamples.draw, locals())
        check_integer("n", n)
        noise = Noise(torch.Generator(self.x.device).manual_seed(check_seed(seed, "seed")))
        x, log_weights = equal_weights(self.x, self.log_weights, n, noise)
        return replace(self, x=x, log_weights=log_weights)


def equal_weights(x: Tensor, log_weights: Tensor, n: int, noise: Noise) -> tuple[Tensor, Tensor]:
    """n samples of equal weight from weighted ones, ``(m, P, *D)`` and ``(m, P)``, and their log-weights ``(m, n)``."""
    weights = torch.softmax(log_weights.to(widest_dtype(log_weights.device)), 1)
    points = torch.arange(n, dtype=weights.dtype, device=weights.device).expand(len(weights), n)
    points = (points + noise.uniform(weights[:, :1])) / n
    indices = torch.searchsorted(weights.cumsum(1), points.contiguous(), right=True).clamp(max=weights.shape[1] - 1)
    order = noise.uniform(points).argsort(1)  # systematic resampling leaves the copies of a sample together
    rows = torch.arange(len(weights), device=weights.device).unsqueeze(1)
    return x[rows, indices.gather(1, order)], torch.full_like(points, -math.log(n))


def unweighted(x: Tensor, nfe: int, description: Description | None) -> PosteriorSamples:
    """Independent samples ``(m, n, *D)`` of equal weight."""
    log_weights = torch.full(x.shape[:2], -math.log(x.shape[1]), dtype=widest_dtype(x.device), device=x.device)
    return PosteriorSamples(x, log_weights, nfe, description=description)


def join(results: list[PosteriorSamples]) -> PosteriorSamples:
    """Results of several batches of observations as one."""
    first = results[0]
    tensors = {
        field.name: torch.cat([getattr(result, field.name) for result in results])
        for field in fields(first)
        if isinstance(getattr(first, field.name), Tensor)
    }
    return replace(first, **tensors)
