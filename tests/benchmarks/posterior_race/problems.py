r"""Six inverse problems whose posterior is exact: y = A x_0 + n with a prior that is a mixture of Gaussians.

Each seed draws an event from the prior and measures it, so that a method meets other observations in each run. Sets
have 2048 samples on A to C, where even exact ones differ in their mode shares by up to .02, and 512 elsewhere.

| problem | prior | observation |
|---|---|---|
| A | Gaussian, d = 6, covariance with eigenvalues .04 to 2.3 | two random rows, σ_y = .3 |
| B | ring of 8 Gaussians, standard deviation .14 | one oblique row, σ_y = .3 |
| C | the same ring | x_1, σ_y = .05 |
| D | mixture of 10 Gaussians in 64 dimensions | 16 random rows, σ_y = .2 |
| E | kernel density of 60 digits of 8×8 pixels in [-1, 1], bandwidth .3 | the upper half, σ_y = .1 |
| F | the same digits | means of 2×2 blocks, a quarter of the values, σ_y = .1 |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from posterior_race.oracle import Oracle
from scoresde import AveragePool, Gaussian, GaussianMixture, KernelDensity, Mask, Matrix, Observation
from scoresde.guidance import LinearOperator
from scoresde.metrics import sliced_wasserstein

__all__ = ["PROBLEMS", "Problem", "generator", "problem"]

PAIRS, DIGITS = 20, 60
COUNTS = {"A": 2048, "B": 2048, "C": 2048, "D": 512, "E": 512, "F": 512}
Prior = Gaussian | GaussianMixture | KernelDensity


@dataclass(frozen=True)
class Problem:
    """An observation, its exact posterior and reference sets.

    Attributes:
        name: One of `PROBLEMS`.
        prior: The exact prior.
        observation: The observation.
        count: Number of samples of each set.
        seed: Seed of the observation and of the reference sets.
    """

    name: str
    prior: Prior
    observation: Observation
    count: int
    seed: int

    @cached_property
    def model(self) -> Oracle:
        """The prior as the methods evaluate it."""
        return Oracle(self.prior)

    @cached_property
    def posterior(self) -> GaussianMixture:
        """The exact posterior."""
        return self.prior.given(self.observation)[0]

    def exact(self, stream: int) -> Tensor:
        """Exact posterior samples, ``(count, *D)``; each stream is another set."""
        return self.posterior.sample(self.count, generator=generator(1000 * self.seed + stream))

    def distance(self, x: Tensor, y: Tensor) -> float:
        """Sliced W2 along directions that are the same in every call."""
        return sliced_wasserstein(x, y, projections=128, generator=generator(0)).value

    @cached_property
    def floor(self) -> float:
        """Mean distance of pairs of independent exact sets."""
        return sum(self.distance(self.exact(2 * i), self.exact(2 * i + 1)) for i in range(PAIRS)) / PAIRS

    @cached_property
    def references(self) -> list[Tensor]:
        """Exact sets that samples of a method are compared with."""
        return [self.exact(2 * PAIRS + i) for i in range(4)]

    def error(self, x: Tensor) -> float:
        """Mean distance to the references over the floor; 1 for exact samples."""
        return sum(self.distance(x, reference) for reference in self.references) / len(self.references) / self.floor

    def mode_shares(self, x: Tensor) -> Tensor:
        """Share of the samples nearest to each component of the prior."""
        nearest = torch.cdist(x.flatten(1), self.prior.means).argmin(1)
        return torch.bincount(nearest, minlength=len(self.prior.means)).to(x.dtype) / len(x)

    @cached_property
    def exact_shares(self) -> Tensor:
        """`mode_shares` of 50,000 exact samples."""
        return self.mode_shares(self.posterior.sample(50_000, generator=generator(self.seed)))

    def total_variation(self, x: Tensor) -> float:
        """Total variation between the mode shares of samples and the exact ones."""
        return 0.5 * float((self.mode_shares(x) - self.exact_shares).abs().sum())


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@lru_cache(maxsize=1)
def _gaussian() -> Gaussian:
    g = generator(1)
    factor = torch.randn(6, 6, generator=g, dtype=torch.float64)
    cov = factor @ factor.mT / 6 + 0.02 * torch.eye(6, dtype=torch.float64)
    return Gaussian(torch.randn(6, generator=g, dtype=torch.float64), cov)


@lru_cache(maxsize=1)
def _mixture() -> GaussianMixture:
    g = generator(2)
    means = 0.9 * torch.randn(10, 64, generator=g, dtype=torch.float64)
    variances = 0.05 + 0.25 * torch.rand(10, 64, generator=g, dtype=torch.float64)
    return GaussianMixture(torch.arange(1.0, 11.0), means, variances)


@lru_cache(maxsize=1)
def _digits() -> KernelDensity:
    images = torch.as_tensor(load_digits(return_X_y=True)[0][:DIGITS]).reshape(-1, 1, 8, 8).double()
    return KernelDensity(images / 8.0 - 1.0, 0.3)


def _upper_half() -> Tensor:
    observed = torch.zeros(1, 8, 8, dtype=torch.bool)
    observed[:, :4] = True
    return observed


def _rows(seed: int, rows: int, size: int) -> Matrix:
    return Matrix(torch.randn(rows, size, generator=generator(seed), dtype=torch.float64) / size**0.5)


SETTINGS: dict[str, tuple[Callable[[], Prior], Callable[[], LinearOperator], float]] = {
    "A": (_gaussian, lambda: _rows(3, 2, 6), 0.3),
    "B": (GaussianMixture.ring, lambda: Matrix(torch.tensor([[0.8, 0.6]], dtype=torch.float64)), 0.3),
    "C": (GaussianMixture.ring, lambda: Matrix(torch.tensor([[1.0, 0.0]], dtype=torch.float64)), 0.05),
    "D": (_mixture, lambda: _rows(4, 16, 64), 0.2),
    "E": (_digits, lambda: Mask(_upper_half()), 0.1),
    "F": (_digits, lambda: AveragePool((1, 8, 8), 2), 0.1),
}
PROBLEMS = tuple(SETTINGS)


def problem(name: str, seed: int, count: int | None = None) -> Problem:
    """Problem ``name`` with the observation of a seed, and sets of ``count`` samples, default those of `COUNTS`."""
    make_prior, make_operator, std = SETTINGS[name]
    prior, operator, g = make_prior(), make_operator(), generator(100 + seed)
    truth = prior.sample(1, generator=g)
    y = operator.apply(truth)
    y = (y + std * torch.randn(y.shape, generator=g, dtype=y.dtype))[0]
    return Problem(name, prior, Observation(operator, y, noise_std=std), count or COUNTS[name], seed)
