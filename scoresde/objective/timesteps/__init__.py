r"""Timestep sampling: densities of u whose correction keeps the loss's expectation that of uniform u on [u_min, 1].

`base` holds uniform, stratified and discrete timesteps, `tabulated` densities that are fixed before training,
`adaptive` densities that follow the loss during training.
"""

from scoresde.objective.timesteps.adaptive import (
    AdaptiveTimesteps,
    DiscreteLossMomentTimesteps,
    LearnedClockTimesteps,
    LossMomentTimesteps,
)
from scoresde.objective.timesteps.base import (
    DiscreteTimesteps,
    StratifiedTimesteps,
    TimestepDraw,
    Timesteps,
    UniformTimesteps,
)
from scoresde.objective.timesteps.tabulated import (
    ImportanceTimesteps,
    LogNormalTimesteps,
    MeasuredTimesteps,
    TabulatedTimesteps,
)

__all__ = [
    "AdaptiveTimesteps",
    "DiscreteLossMomentTimesteps",
    "DiscreteTimesteps",
    "ImportanceTimesteps",
    "LearnedClockTimesteps",
    "LogNormalTimesteps",
    "LossMomentTimesteps",
    "MeasuredTimesteps",
    "StratifiedTimesteps",
    "TabulatedTimesteps",
    "TimestepDraw",
    "Timesteps",
    "UniformTimesteps",
]
