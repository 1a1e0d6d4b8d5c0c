"""Log-densities by the probability-flow ODE."""

from __future__ import annotations

from scoresde.likelihood.ode.adaptive_solver import AdaptiveSolver
from scoresde.likelihood.ode.differentiable import differentiable_log_prob
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb
from scoresde.likelihood.ode.importance_weights import ImportanceWeights, importance_weights
from scoresde.likelihood.ode.log_prob import log_prob
from scoresde.likelihood.ode.sample_log_prob import ScoredSamples, sample_log_prob
from scoresde.likelihood.ode.solver import Solver, Status
from scoresde.likelihood.ode.torchdiffeq_solver import TorchDiffEq
from scoresde.likelihood.ode.trace import ExactTrace, Hutchinson, Trace

__all__ = [
    "AdaptiveSolver",
    "ErrorBudget",
    "ExactTrace",
    "Hutchinson",
    "ImportanceWeights",
    "LogProb",
    "ScoredSamples",
    "Solver",
    "Status",
    "TorchDiffEq",
    "Trace",
    "differentiable_log_prob",
    "importance_weights",
    "log_prob",
    "sample_log_prob",
]
