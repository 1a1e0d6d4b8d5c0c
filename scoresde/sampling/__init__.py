"""Samplers of the reverse process: DDPM, the reverse SDE, the probability-flow ODE, and `sample`, which runs them."""

from scoresde.sampling.base import Predict, Sampler, SamplingContext, SolverError, StepSampler
from scoresde.sampling.brownian import VirtualBrownianTree
from scoresde.sampling.calibration import Calibration, calibrate
from scoresde.sampling.ddpm import DDPM
from scoresde.sampling.discrete import Ancestral, DiscreteSampler
from scoresde.sampling.discrete_corrector import DiscretePredictorCorrector
from scoresde.sampling.exact_simulation import ExactSimulation
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
from scoresde.sampling.leaping import TauLeaping, TrapezoidalLeaping
from scoresde.sampling.mixed import MixedSampler
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
    "Ancestral",
    "AnnealedLangevin",
    "Calibration",
    "Chain",
    "Corrector",
    "DPMSolver",
    "DPMSolverPP",
    "DenseEnds",
    "DiscretePredictorCorrector",
    "DiscreteSampler",
    "Eta",
    "EulerMaruyama",
    "ExactSimulation",
    "ExplicitGrid",
    "ExponentialSDE",
    "ExtendedNoise",
    "Grid",
    "Heun",
    "Interpolation",
    "Jumps",
    "Karras",
    "Langevin",
    "MixedSampler",
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
    "TauLeaping",
    "ThenZero",
    "TorchSDE",
    "TrapezoidalLeaping",
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
