"""The training objective: the weighted denoising loss, its weightings λ, and the sampling of timesteps."""

from __future__ import annotations

from scoresde.objective.equivalences import Equivalence, canonical, equivalence_table, equivalences
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    AdaptiveTimesteps,
    DiscreteLossMomentTimesteps,
    DiscreteTimesteps,
    ImportanceTimesteps,
    LearnedClockTimesteps,
    LogNormalTimesteps,
    LossMomentTimesteps,
    MeasuredTimesteps,
    StratifiedTimesteps,
    TabulatedTimesteps,
    TimestepDraw,
    Timesteps,
    UniformTimesteps,
)
from scoresde.objective.weighting import (
    EDM,
    ELBO,
    P2,
    SNR,
    CustomWeighting,
    DiscreteVLB,
    LikelihoodWeighting,
    MinSNR,
    Regression,
    SigmoidWeighting,
    Simple,
    Weighting,
)

__all__ = [
    "AdaptiveTimesteps",
    "CustomWeighting",
    "DiscreteLossMomentTimesteps",
    "DiscreteTimesteps",
    "DiscreteVLB",
    "EDM",
    "ELBO",
    "Equivalence",
    "ImportanceTimesteps",
    "LearnedClockTimesteps",
    "LikelihoodWeighting",
    "LogNormalTimesteps",
    "Loss",
    "LossMomentTimesteps",
    "MeasuredTimesteps",
    "MinSNR",
    "P2",
    "Regression",
    "SNR",
    "SigmoidWeighting",
    "Simple",
    "StratifiedTimesteps",
    "TabulatedTimesteps",
    "TimestepDraw",
    "Timesteps",
    "UniformTimesteps",
    "Weighting",
    "canonical",
    "equivalence_table",
    "equivalences",
]
