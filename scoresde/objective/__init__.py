"""The training objective: the weighted denoising loss, its weightings λ, and the sampling of timesteps."""

from __future__ import annotations

from scoresde.objective.base import Objective
from scoresde.objective.discrete import ChainKL, CrossEntropy, PathKL
from scoresde.objective.discrete_equivalences import (
    DiscreteEquivalence,
    discrete_equivalence_table,
    discrete_equivalences,
)
from scoresde.objective.equivalences import Equivalence, canonical, equivalence_table, equivalences
from scoresde.objective.loss import Loss
from scoresde.objective.mixed import MixedLoss
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
    "ChainKL",
    "CrossEntropy",
    "CustomWeighting",
    "DiscreteEquivalence",
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
    "MixedLoss",
    "Objective",
    "P2",
    "PathKL",
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
    "discrete_equivalence_table",
    "discrete_equivalences",
    "equivalence_table",
    "equivalences",
]
