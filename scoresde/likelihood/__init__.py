"""How likely are data under a model? Log-densities by the probability-flow ODE; bits per dimension of levels."""

from __future__ import annotations

from scoresde.likelihood.bits import BitsPerDim, bits_per_dim
from scoresde.likelihood.budget import Budget, LogProb
from scoresde.likelihood.coupled import TorchDiffEq
from scoresde.likelihood.dequantize import Dequantization, Uniform
from scoresde.likelihood.ode import log_prob
from scoresde.likelihood.path import Adaptive, Solver, Status
from scoresde.likelihood.trace import Exact, Hutchinson, Trace

__all__ = [
    "Adaptive",
    "BitsPerDim",
    "Budget",
    "Dequantization",
    "Exact",
    "Hutchinson",
    "LogProb",
    "Solver",
    "Status",
    "TorchDiffEq",
    "Trace",
    "Uniform",
    "bits_per_dim",
    "log_prob",
]
