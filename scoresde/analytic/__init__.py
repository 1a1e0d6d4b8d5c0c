"""Exact models: mixtures of Gaussians, of categories, and of both, in closed form at every time."""

from __future__ import annotations

from scoresde.analytic.discrete import BernoulliMixture, CategoricalMixture, DiscreteTable
from scoresde.analytic.gaussian import Gaussian
from scoresde.analytic.kernel_density import KernelDensity
from scoresde.analytic.mixed import MixedMixture
from scoresde.analytic.mixtures import GaussianMixture

__all__ = [
    "BernoulliMixture",
    "CategoricalMixture",
    "DiscreteTable",
    "Gaussian",
    "GaussianMixture",
    "KernelDensity",
    "MixedMixture",
]
