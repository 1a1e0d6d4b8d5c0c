"""Guidance: observations, and wrappers that turn a model into a guided one or change its data estimate."""

from __future__ import annotations

from scoresde.guidance.autoguidance import Autoguidance
from scoresde.guidance.classifier import ClassifierGuidance
from scoresde.guidance.classifier_free import CFG
from scoresde.guidance.clipping import Clipping, DynamicThresholding, Guided
from scoresde.guidance.combination import Combination
from scoresde.guidance.composed import Composed
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import (
    AveragePool,
    Blur,
    FourierMask,
    Function,
    LinearOperator,
    Mask,
    Matrix,
    Operator,
    ParallelBeam,
    SpectralOperator,
)
from scoresde.guidance.posterior import (
    DDNM,
    DDRM,
    DPS,
    MMPS,
    TMPD,
    JacobianFree,
    PiGDM,
    Posterior,
    PosteriorMethod,
)

__all__ = [
    "Autoguidance",
    "AveragePool",
    "Blur",
    "CFG",
    "ClassifierGuidance",
    "Clipping",
    "Combination",
    "Composed",
    "DDNM",
    "DDRM",
    "DPS",
    "DynamicThresholding",
    "FourierMask",
    "Function",
    "Guided",
    "JacobianFree",
    "LinearOperator",
    "MMPS",
    "Mask",
    "Matrix",
    "Observation",
    "Operator",
    "ParallelBeam",
    "PiGDM",
    "Posterior",
    "PosteriorMethod",
    "SpectralOperator",
    "TMPD",
]
