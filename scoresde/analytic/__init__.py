"""Exact models: mixtures of Gaussians, in closed form at every time and given any linear observation."""

from __future__ import annotations

from scoresde.analytic.gaussian import Gaussian
from scoresde.analytic.kernel_density import KernelDensity
from scoresde.analytic.mixtures import GaussianMixture

__all__ = ["Gaussian", "GaussianMixture", "KernelDensity"]
