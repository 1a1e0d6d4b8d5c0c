"""Ways back from the prior: the DDPM chain, the reverse SDE, the probability-flow ODE."""

from scoresde.sampler.base import Observe, Observer, Path, Predict, Progress, Sampler, SolverError, StepSampler
from scoresde.sampler.brownian import Brownian
from scoresde.sampler.ddpm import DDPM
from scoresde.sampler.draw import Samples, sample
from scoresde.sampler.grid import (
    Chain,
    Custom,
    Grid,
    Karras,
    PowerU,
    Spaced,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
)
from scoresde.sampler.langevin import AnnealedLangevin, Corrector, Langevin, PartialRefresh, PredictorCorrector
from scoresde.sampler.probability_flow import DDIM, ODE, RungeKutta
from scoresde.sampler.reverse_sde import EulerMaruyama, ExponentialSDE, TorchSDE
from scoresde.sampler.variance import OptimalVariance, optimal_variance

__all__ = [
    "DDIM",
    "DDPM",
    "ODE",
    "Brownian",
    "Chain",
    "Custom",
    "EulerMaruyama",
    "ExponentialSDE",
    "Grid",
    "Karras",
    "Observe",
    "Observer",
    "OptimalVariance",
    "Path",
    "PowerU",
    "Predict",
    "Progress",
    "RungeKutta",
    "Sampler",
    "Samples",
    "SolverError",
    "Spaced",
    "StepSampler",
    "TorchSDE",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
    "optimal_variance",
    "sample",
    "AnnealedLangevin",
    "Corrector",
    "Langevin",
    "PartialRefresh",
    "PredictorCorrector",
]
