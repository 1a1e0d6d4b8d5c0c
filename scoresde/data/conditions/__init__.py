"""Conditions: named values beside the events, one entry per event, on which a model is conditioned.

`scoresde.data.conditions.kinds` describes a condition and maps it to model units, the only place where it is scaled.
"""

from __future__ import annotations

from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.kinds import ClassCondition, ImageCondition, TokenCondition, VectorCondition

__all__ = ["ClassCondition", "ConditionKind", "ImageCondition", "TokenCondition", "VectorCondition"]
