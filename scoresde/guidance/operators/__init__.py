"""Measurement operators: what of an event is observed."""

from __future__ import annotations

from scoresde.guidance.operators.base import LinearOperator, Operator, SpectralOperator
from scoresde.guidance.operators.function import Function
from scoresde.guidance.operators.image import AveragePool, Blur, FourierMask
from scoresde.guidance.operators.linear import Mask, Matrix
from scoresde.guidance.operators.projection import ParallelBeam

__all__ = [
    "AveragePool",
    "Blur",
    "FourierMask",
    "Function",
    "LinearOperator",
    "Mask",
    "Matrix",
    "Operator",
    "ParallelBeam",
    "SpectralOperator",
]
