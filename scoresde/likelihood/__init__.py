"""How likely are data under a model? Log-densities by the probability-flow ODE; bits per dimension of levels."""

from __future__ import annotations

from scoresde.likelihood.bits import BitsPerDim, bits_per_dim
from scoresde.likelihood.dequantize import Dequantization, Uniform
from scoresde.likelihood.ode import LogProb, log_prob
from scoresde.likelihood.trace import Exact, Hutchinson, Trace

__all__ = [
    "BitsPerDim",
    "Dequantization",
    "Exact",
    "Hutchinson",
    "LogProb",
    "Trace",
    "Uniform",
    "bits_per_dim",
    "log_prob",
]
