"""Ways back from the prior: the DDPM chain, the reverse SDE, the probability-flow ODE."""

from scoresde.sampling.base import (
    Observer,
    Predict,
    Progress,
    Sampler,
    SamplingContext,
    SolverError,
    StepHook,
    StepSampler,
)
from scoresde.sampling.brownian import Brownian
from scoresde.sampling.calibration import Calibration, calibrate
from scoresde.sampling.ddpm import DDPM
from scoresde.sampling.exponential import Interpolation
from scoresde.sampling.grid import (
    Chain,
    DenseEnds,
    ExplicitGrid,
    Grid,
    Karras,
    PowerU,
    Spaced,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
)
from scoresde.sampling.langevin import AnnealedLangevin, Corrector, Langevin, PartialRefresh, PredictorCorrector
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams, Multistep
from scoresde.sampling.named import DEIS, ERSDE, DPMSolverPP, SASolver, SDEDPMSolverPP, UniPC
from scoresde.sampling.noise_function import Eta, ExtendedNoise, NoiseFunction
from scoresde.sampling.probability_flow import DDIM, ODE, RungeKutta
from scoresde.sampling.reverse_sde import EulerMaruyama, ExponentialSDE, TorchSDE
from scoresde.sampling.reverse_variance import OptimalVariance, optimal_variance
from scoresde.sampling.sample import Samples, sample
from scoresde.sampling.singlestep import DPMSolver, Heun, Singlestep
from scoresde.sampling.whitened import Whitened

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
    "ExplicitGrid",
    "DPMSolver",
    "DPMSolverPP",
    "Eta",
    "EulerMaruyama",
    "ExponentialSDE",
    "ExtendedNoise",
    "Grid",
    "Heun",
    "Interpolation",
    "Karras",
    "Langevin",
    "Moments",
    "Multistep",
    "NoiseFunction",
    "StepHook",
    "Observer",
    "OptimalVariance",
    "PartialRefresh",
    "SamplingContext",
    "DenseEnds",
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
