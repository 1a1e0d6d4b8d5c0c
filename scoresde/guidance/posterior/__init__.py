r"""Posterior methods: models of $x_0$ given $y = A x_0 + n$, each with the case in which it is exact."""

from __future__ import annotations

from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift
from scoresde.guidance.posterior.ddnm import DDNM
from scoresde.guidance.posterior.ddrm import DDRM
from scoresde.guidance.posterior.dps import DPS
from scoresde.guidance.posterior.jacobian_free import JacobianFree
from scoresde.guidance.posterior.mmps import MMPS
from scoresde.guidance.posterior.pigdm import PiGDM
from scoresde.guidance.posterior.tmpd import TMPD
from scoresde.guidance.posterior.wrapper import Posterior

__all__ = [
    "DDNM",
    "DDRM",
    "DPS",
    "MMPS",
    "TMPD",
    "JacobianFree",
    "PiGDM",
    "Posterior",
    "PosteriorMethod",
    "Problem",
    "Shift",
]
