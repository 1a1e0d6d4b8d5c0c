"""Held-out likelihoods of categories, and of rows with categories: bounds in continuous time, event by event."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from scoresde.evaluation.model_units import in_model_units
from scoresde.evaluation.ode_likelihood import EventLikelihoods, LikelihoodSettings
from scoresde.evaluation.vlb import BoundSettings
from scoresde.likelihood import Status, continuous_vlb
from scoresde.model import ScoreModel

__all__ = ["bound_likelihoods"]


def bound_likelihoods(
    model: ScoreModel, y: Tensor, settings: LikelihoodSettings, progress: bool = False, **cond: Any
) -> EventLikelihoods:
    """The bound in continuous time in place of the ODE: bits of categories, of a table's rows nats in data units.

    Args:
        model: Of categories, or of numbers and categories; carries the data's description.
        y: Data units, ``(n, *D)``, on the model's device.
        settings: Evaluations of its ``bounds``, seed and batch size; others are the ODE's.
        progress: Shows a progress bar.
        **cond: Passed to the network, in model units, one entry per event.
    """
    description = model.data
    assert description is not None
    x = in_model_units(description, y, settings.seed)
    bound = continuous_vlb(
        model,
        x,
        evaluations=(settings.bounds or BoundSettings()).evaluations,
        generator=torch.Generator(y.device).manual_seed(settings.seed),
        batch_size=settings.batch_size,
        progress=progress,
        **cond,
    )
    low, high = bound.interval()
    if bound.bits is not None:
        unit = 1.0 / (bound.dims * math.log(2))
        numbers = [bound.nats * unit, low * unit, high * unit, bound.stderr * unit]
    else:
        log_det = description.log_det(x)
        numbers = [log_det - bound.nats, log_det - high, log_det - low, bound.stderr]
    count = torch.full_like(bound.nats, bound.nfe, dtype=torch.int64)
    return EventLikelihoods(
        f"bound in continuous time, {bound.nfe} calls",
        "nats" if bound.bits is None else "bits/dim",
        *numbers,
        draw_stderr=torch.full_like(bound.nats, math.nan),
        budget={},
        status=torch.full_like(count, Status.ARRIVED),
        nfe=count,
        products=torch.zeros_like(count),
        draws=0,
    )
