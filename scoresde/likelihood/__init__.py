"""How likely are data under a model? Log-densities by the probability-flow ODE, and variational bounds, with errors."""

from __future__ import annotations

from scoresde.likelihood.bits import BitsPerDim, bits_per_dim
from scoresde.likelihood.bound import continuous_bound
from scoresde.likelihood.budget import Budget, LogProb
from scoresde.likelihood.chain_bound import discrete_bound
from scoresde.likelihood.coupled import TorchDiffEq
from scoresde.likelihood.decoder import Decoder, Kernel, Rounded
from scoresde.likelihood.dequantize import Dequantization, TruncatedNormal, Uniform
from scoresde.likelihood.draw import ScoredSamples, sample_log_prob
from scoresde.likelihood.evidence import Bound
from scoresde.likelihood.gradient import differentiable_log_prob
from scoresde.likelihood.importance import ImportanceWeights, importance_weights
from scoresde.likelihood.ode import log_prob
from scoresde.likelihood.path import Adaptive, Solver, Status
from scoresde.likelihood.profile import Profile, measure_profile
from scoresde.likelihood.trace import Exact, Hutchinson, Trace
from scoresde.likelihood.trajectories import importance_weighted_bound
from scoresde.likelihood.variational import Variational, fit_variational

__all__ = [
    "Adaptive",
    "BitsPerDim",
    "Bound",
    "Budget",
    "Decoder",
    "Dequantization",
    "Exact",
    "Hutchinson",
    "ImportanceWeights",
    "Kernel",
    "LogProb",
    "Profile",
    "Rounded",
    "ScoredSamples",
    "Solver",
    "Status",
    "TorchDiffEq",
    "Trace",
    "TruncatedNormal",
    "Uniform",
    "Variational",
    "bits_per_dim",
    "continuous_bound",
    "differentiable_log_prob",
    "discrete_bound",
    "fit_variational",
    "importance_weighted_bound",
    "importance_weights",
    "log_prob",
    "measure_profile",
    "sample_log_prob",
]
