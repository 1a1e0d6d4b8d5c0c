"""Guidance: wrappers that turn a model into a model with a changed data estimate."""

from __future__ import annotations

from scoresde.guidance.clipping import Clipping, DynamicThresholding, Guided

__all__ = [
    "Clipping",
    "DynamicThresholding",
    "Guided",
]
