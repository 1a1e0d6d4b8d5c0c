r"""How is u drawn? From any density: the correction keeps the loss's expectation that of uniform u on [u_min, 1].

`base` has the plain ways, `tabulated` densities that are fixed before training, `learned` densities that follow the
loss while it goes on.
"""

from scoresde.times.base import Draw, Knots, Stratified, Times, Uniform
from scoresde.times.learned import KnotMoments, Learned, LearnedClock, Moments
from scoresde.times.tabulated import Importance, LogNormal, Measured, Tabulated

__all__ = [
    "Draw",
    "Importance",
    "KnotMoments",
    "Knots",
    "Learned",
    "LearnedClock",
    "LogNormal",
    "Measured",
    "Moments",
    "Stratified",
    "Tabulated",
    "Times",
    "Uniform",
]
