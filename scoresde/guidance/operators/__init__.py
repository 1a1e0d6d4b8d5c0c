"""Measurement operators: what of an event is observed."""

from __future__ import annotations

from scoresde.guidance.operators.base import LinearOperator, Operator
from scoresde.guidance.operators.linear import Mask, Matrix

__all__ = ["LinearOperator", "Mask", "Matrix", "Operator"]
