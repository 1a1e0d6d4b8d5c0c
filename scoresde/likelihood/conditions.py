"""Conditions of a likelihood: all inputs of the network but the known entries of the event that is scored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from scoresde._core.call_inputs import cond_inputs
from scoresde.nn.conditions import reads_known

__all__ = ["likelihood_inputs"]


def likelihood_inputs(model: nn.Module, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Conditioning by keyword as tensors on the model's device.

    Args:
        model: Whose events are scored.
        cond: By name, one entry per event.

    Raises:
        ValueError: If entries of the event itself are given as known: they have no density given themselves.
    """
    if cond.get("known") is not None and any(reads_known(module) for module in model.modules()):
        raise ValueError(
            "a likelihood is one of whole events, got known entries, which have no density given themselves; leave "
            "known out, or compare events by log_prob without it."
        )
    return cond_inputs(model, cond)
