"""Forward processes on the Ornstein–Uhlenbeck clock, Gaussian and discrete, their schedules and the network outputs."""

from __future__ import annotations

from scoresde.process.base import Marginal, Process
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction, Logits
from scoresde.process.mixed import Mixed, MixedOutput, MixedPrediction
from scoresde.process.parameterization import (
    X0,
    Eps,
    NetworkOutput,
    Parameterization,
    PosteriorMean,
    Score,
    V,
    Velocity,
)
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.schedule import (
    Cosine,
    FromBetas,
    GeometricSigma,
    LinearAlphaBar,
    LinearBetas,
    LinearVP,
    LogLinear,
    Schedule,
    Sigmoid,
    StraightPath,
    SubVPClock,
)
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP

__all__ = [
    "Binomial",
    "Categorical",
    "Cosine",
    "DiscretePrediction",
    "DiscreteProcess",
    "Eps",
    "Flow",
    "FromBetas",
    "GaussianPrediction",
    "GeometricSigma",
    "LinearAlphaBar",
    "LinearBetas",
    "LinearVP",
    "LogLinear",
    "Logits",
    "Marginal",
    "Mixed",
    "MixedOutput",
    "MixedPrediction",
    "NetworkOutput",
    "Parameterization",
    "PosteriorMean",
    "Prediction",
    "Process",
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
