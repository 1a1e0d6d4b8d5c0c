"""The Ornstein–Uhlenbeck process, its schedules, its views (VP, VE, sub-VP, flow) and the network outputs."""

from __future__ import annotations

from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Prediction, Score, V, Velocity
from scoresde.process.schedule import (
    Cosine,
    FromBetas,
    GeometricSigma,
    LinearBetas,
    LinearVP,
    LogLinear,
    Schedule,
    Sigmoid,
    StraightPath,
    SubVPClock,
)
from scoresde.process.sde import SDE, VE, VPSDE, Flow, Marginal, SubVP

__all__ = [
    "Cosine",
    "Eps",
    "Flow",
    "FromBetas",
    "GeometricSigma",
    "LinearBetas",
    "LinearVP",
    "LogLinear",
    "Marginal",
    "Parameterization",
    "PosteriorMean",
    "Prediction",
    "SDE",
    "Schedule",
    "Score",
    "Sigmoid",
    "StraightPath",
    "SubVP",
    "SubVPClock",
    "V",
    "VE",
    "VPSDE",
    "Velocity",
    "X0",
]
