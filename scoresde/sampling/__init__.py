"""Samplers of the reverse process: DDPM, the reverse SDE, the probability-flow ODE, and `sample`, which runs them."""

from scoresde.sampling.base import Predict, Sampler, SamplingContext, SolverError, StepSampler
from scoresde.sampling.brownian import VirtualBrownianTree
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
    ShiftedFlow,
    Spaced,
    ThenZero,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
)
from scoresde.sampling.jumps import Jumps
from scoresde.sampling.langevin import AnnealedLangevin, Corrector, Langevin, PartialRefresh, PredictorCorrector
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams, Multistep
from scoresde.sampling.named import DEIS, ERSDE, DPMSolverPP, SASolver, SDEDPMSolverPP, UniPC
from scoresde.sampling.noise_function import Eta, ExtendedNoise, NoiseFunction
from scoresde.sampling.non_stationary import NonStationary
from scoresde.sampling.observer import Observer, Progress, StepHook
from scoresde.sampling.optimal_variance import OptimalVariance, optimal_variance
from scoresde.sampling.probability_flow import DDIM, ODE, RungeKutta
from scoresde.sampling.reverse_sde import EulerMaruyama, ExponentialSDE, TorchSDE
from scoresde.sampling.sample import sample
from scoresde.sampling.samples import Samples
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
    "Calibration",
    "Chain",
    "Corrector",
    "DPMSolver",
    "DPMSolverPP",
    "DenseEnds",
    "Eta",
    "EulerMaruyama",
    "ExplicitGrid",
    "ExponentialSDE",
    "ExtendedNoise",
    "Grid",
    "Heun",
    "Interpolation",
    "Jumps",
    "Karras",
    "Langevin",
    "Moments",
    "Multistep",
    "NoiseFunction",
    "NonStationary",
    "Observer",
    "OptimalVariance",
    "PartialRefresh",
    "PowerU",
    "Predict",
    "PredictorCorrector",
    "Progress",
    "RungeKutta",
    "SASolver",
    "SDEDPMSolverPP",
    "Sampler",
    "Samples",
    "SamplingContext",
    "Singlestep",
    "ShiftedFlow",
    "SolverError",
    "Spaced",
    "StepHook",
    "StepSampler",
    "ThenZero",
    "TorchSDE",
    "UniPC",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
    "VirtualBrownianTree",
    "Whitened",
    "calibrate",
    "optimal_variance",
    "sample",
]
