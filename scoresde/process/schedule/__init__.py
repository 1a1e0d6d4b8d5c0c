r"""Noise schedules: clocks, which are increasing maps $u \in [0, 1] \mapsto \tau$.

A list of DDPM betas is a clock with knots $\tau_k = -\tfrac12\sum_{j\le k}\log(1 - \beta_j)$ at $u = k/K$. Conversely,
any clock defines betas: $\beta_k = 1 - e^{-2(\tau_k - \tau_{k-1})}$ with $\tau_0 = 0$.
"""

from scoresde.process.schedule.base import Schedule
from scoresde.process.schedule.betas import FromBetas, LinearBetas
from scoresde.process.schedule.flow import StraightPath
from scoresde.process.schedule.sub_vp import SubVPClock
from scoresde.process.schedule.ve import GeometricSigma
from scoresde.process.schedule.vp import Cosine, LinearAlphaBar, LinearVP, LogLinear, Sigmoid

__all__ = [
    "Cosine",
    "FromBetas",
    "GeometricSigma",
    "LinearAlphaBar",
    "LinearVP",
    "LinearBetas",
    "LogLinear",
    "Schedule",
    "Sigmoid",
    "StraightPath",
    "SubVPClock",
]
