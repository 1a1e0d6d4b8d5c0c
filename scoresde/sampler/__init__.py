"""Ways back from the prior: the DDPM chain, the reverse SDE, the probability-flow ODE."""

from scoresde.sampler.base import Observe, Observer, Path, Predict, Progress, Sampler, SolverError, StepSampler
from scoresde.sampler.brownian import Brownian
from scoresde.sampler.calibration import Calibration, calibrate
from scoresde.sampler.ddpm import DDPM
from scoresde.sampler.draw import Samples, sample
from scoresde.sampler.exponential import Interpolation
from scoresde.sampler.grid import (
    BothEnds,
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
from scoresde.sampler.literature import DEIS, ERSDE, DPMSolverPP, SASolver, SDEDPMSolverPP, UniPC
from scoresde.sampler.moments import Moments
from scoresde.sampler.multistep import Adams, Multistep
from scoresde.sampler.noise_function import Eta, Extended, NoiseFunction
from scoresde.sampler.probability_flow import DDIM, ODE, RungeKutta
from scoresde.sampler.reverse_sde import EulerMaruyama, ExponentialSDE, TorchSDE
from scoresde.sampler.singlestep import DPMSolver, Heun, Singlestep
from scoresde.sampler.variance import OptimalVariance, optimal_variance
from scoresde.sampler.whitened import Whitened

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "ERSDE",
    "ODE",
    "Adams",
    "AnnealedLangevin",
    "Brownian",
    "Calibration",
    "Chain",
    "Corrector",
    "Custom",
    "DPMSolver",
    "DPMSolverPP",
    "Eta",
    "EulerMaruyama",
    "ExponentialSDE",
    "Extended",
    "Grid",
    "Heun",
    "Interpolation",
    "Karras",
    "Langevin",
    "Moments",
    "Multistep",
    "NoiseFunction",
    "Observe",
    "Observer",
    "OptimalVariance",
    "PartialRefresh",
    "Path",
    "BothEnds",
    "PowerU",
    "Predict",
    "PredictorCorrector",
    "Progress",
    "RungeKutta",
    "SASolver",
    "SDEDPMSolverPP",
    "Sampler",
    "Samples",
    "Singlestep",
    "SolverError",
    "Spaced",
    "StepSampler",
    "TorchSDE",
    "UniPC",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
    "Whitened",
    "calibrate",
    "optimal_variance",
    "sample",
]
