r"""How is u drawn? From any density: the correction keeps the loss's expectation that of uniform u on [u_min, 1].

`base` has the plain ways, `tabulated` densities that are fixed before training, `learned` densities that follow the
loss while it goes on.
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
    "TimestepDraw",
    "ImportanceTimesteps",
    "DiscreteLossMomentTimesteps",
    "DiscreteTimesteps",
    "AdaptiveTimesteps",
    "LearnedClockTimesteps",
    "LogNormalTimesteps",
    "MeasuredTimesteps",
    "LossMomentTimesteps",
    "StratifiedTimesteps",
    "TabulatedTimesteps",
    "Timesteps",
    "UniformTimesteps",
]
