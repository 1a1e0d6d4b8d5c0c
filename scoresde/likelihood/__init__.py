"""Likelihoods of data under a model: log-densities by the probability-flow ODE, and variational bounds."""

from __future__ import annotations

from scoresde.likelihood.bits import BitsPerDim, bits_per_dim
from scoresde.likelihood.bounds.continuous import continuous_vlb
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder, RoundedDecoder
from scoresde.likelihood.bounds.discrete import discrete_vlb
from scoresde.likelihood.bounds.error_profile import ErrorProfile, measure_error_profile
from scoresde.likelihood.bounds.importance_weighted import importance_weighted_vlb
from scoresde.likelihood.bounds.result import Bound
from scoresde.likelihood.class_posterior import ClassPosterior, class_posterior
from scoresde.likelihood.dequantize import Dequantization, TruncatedNormalDequantization, UniformDequantization
from scoresde.likelihood.ode.adaptive_solver import AdaptiveSolver
from scoresde.likelihood.ode.differentiable import differentiable_log_prob
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb
from scoresde.likelihood.ode.importance_weights import ImportanceWeights, importance_weights
from scoresde.likelihood.ode.log_prob import log_prob
from scoresde.likelihood.ode.sample_log_prob import ScoredSamples, sample_log_prob
from scoresde.likelihood.ode.solver import Solver, Status
from scoresde.likelihood.ode.torchdiffeq_solver import TorchDiffEq
from scoresde.likelihood.ode.trace import ExactTrace, Hutchinson, Trace
from scoresde.likelihood.variational_dequantization import VariationalDequantization, fit_variational

__all__ = [
    "AdaptiveSolver",
    "BitsPerDim",
    "Bound",
    "ClassPosterior",
    "Decoder",
    "Dequantization",
    "ErrorBudget",
    "ErrorProfile",
    "ExactTrace",
    "Hutchinson",
    "ImportanceWeights",
    "KernelDecoder",
    "LogProb",
    "RoundedDecoder",
    "ScoredSamples",
    "Solver",
    "Status",
    "TorchDiffEq",
    "Trace",
    "TruncatedNormalDequantization",
    "UniformDequantization",
    "VariationalDequantization",
    "bits_per_dim",
    "class_posterior",
    "continuous_vlb",
    "differentiable_log_prob",
    "discrete_vlb",
    "fit_variational",
    "importance_weighted_vlb",
    "importance_weights",
    "log_prob",
    "measure_error_profile",
    "sample_log_prob",
]
