"""What is each event's likelihood by the probability-flow ODE, and how far can the number be trusted?"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from scoresde.evaluation.bounds import BoundSettings, mean
from scoresde.likelihood import (
    AdaptiveSolver,
    BitsPerDim,
    Dequantization,
    ErrorBudget,
    ExactTrace,
    Hutchinson,
    LogProb,
    Status,
    Trace,
    bits_per_dim,
    log_prob,
)
from scoresde.likelihood.dequantize import default_dequantization
from scoresde.model import ScoreModel
from scoresde.storage.labels import short_text

__all__ = ["EventLikelihoods", "LikelihoodSettings", "score_events"]


@dataclass(frozen=True)
class LikelihoodSettings:
    """How held-out data are scored.

    Attributes:
        trace: Of the divergence; None is exact up to 16 dimensions, else 2 random probes, whose noise the mean
            over many events takes out.
        tol: Of the path (see `scoresde.likelihood.Adaptive`).
        limit: Most held-out events that are scored; None is all.
        batch_size: Events at once.
        seed: Of dequantization, probes, and the noise of bounds.
        draws: Dequantization draws per event, where the data are levels; two or more show what they add.
        nodes: Where the divergence is looked at, per event.
        dequantization: Where in its cell a level lies; None for what suits the network, uniform for most.
        max_nfe: Network calls on an event's path before it is given up.
        strict: Raise where an event does not arrive; else it is left out of the mean and counted.
        bounds: What else is estimated, or None.

    Raises:
        ValueError: If ``limit`` is not positive.
    """

    trace: Trace | None = None
    tol: float = 0.1
    limit: int | None = 1000
    batch_size: int = 512
    seed: int = 0
    draws: int = 1
    nodes: int = 40
    dequantization: Dequantization | None = None
    max_nfe: int = 10_000
    strict: bool = False
    bounds: BoundSettings | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all held-out events, got {self.limit!r}.")


@dataclass(frozen=True, eq=False)
class EventLikelihoods:
    """Likelihoods of events, NaN where one did not arrive.

    Attributes:
        settings: How they were made.
        unit: "bits/dim", the lower the better, or "nats" in data units, the higher.
        value: ``(n,)`` float64.
        low, high: ``(n,)``, 95 % interval of the model's own number: over the probes, widened by solver and quadrature.
        stderr: ``(n,)``, over the probes; 0 for an exact trace.
        draw_stderr: ``(n,)``, over the draws and their probes; NaN for one draw.
        budget: Errors by name, nats, ``(n,)`` each; with the gap of the dequantization where there are several draws.
        status: ``(n,)`` int64, a `scoresde.likelihood.Status` each.
        nfe: ``(n,)`` int64, network calls.
        products: ``(n,)`` int64, Jacobian products.
        draws: Of the dequantization; 0 for data that need none.
        law: Of the dequantization, as text; None for data that need none.
    """

    settings: str
    unit: str
    value: Tensor
    low: Tensor
    high: Tensor
    stderr: Tensor
    draw_stderr: Tensor
    budget: dict[str, Tensor]
    status: Tensor
    nfe: Tensor
    products: Tensor
    draws: int
    law: str | None = None

    @property
    def lost(self) -> dict[str, int]:
        """How many events did not arrive, by the name of their status."""
        counts = {status.name: int((self.status == status).sum()) for status in Status if status != Status.ARRIVED}
        return {name: count for name, count in counts.items() if count}

    def said(self) -> dict[str, Any]:
        """JSON: means over the events that arrived, and their standard errors over events, probes and draws."""
        there = self.status == Status.ARRIVED
        count = int(there.sum())

        def error(each: Tensor) -> float:
            return float(each[there].square().sum().sqrt()) / count if count else math.nan

        return {
            "settings": self.settings,
            "unit": self.unit,
            **mean(self.value[there]),
            "probe_stderr": error(self.stderr),
            "draw_stderr": error(self.draw_stderr) if self.draws > 1 else None,
            "draws": self.draws,
            "law": self.law,
            "events": count,
            "lost": self.lost,
            "nfe": int(self.nfe.max()) if len(self.nfe) else 0,
            "products": float(self.products.double().mean()),
            "budget": {name: float(each[there].mean()) for name, each in self.budget.items()},
        }


def score_events(model: ScoreModel, y: Tensor, how: LikelihoodSettings, progress: bool = False) -> EventLikelihoods:
    """Bits per dimension of levels, by dequantization, else nats in data units.

    Args:
        model: Carries the data's description.
        y: Data units, ``(n, *D)``, on the model's device.
        how: The settings; its ``limit`` is not applied.
        progress: Show a bar.

    Raises:
        ValueError, RuntimeError: As `scoresde.likelihood.log_prob` and `scoresde.likelihood.bits_per_dim`.
    """
    about = model.data
    assert about is not None
    trace = how.trace or (ExactTrace() if about.dims <= 16 else Hutchinson(probes=2))
    generator = torch.Generator(y.device).manual_seed(how.seed)
    settings: dict[str, Any] = {"trace": trace, "solver": AdaptiveSolver(how.tol, how.max_nfe), "nodes": how.nodes}
    settings |= {"generator": generator, "batch_size": how.batch_size, "strict": how.strict, "progress": progress}
    if about.bins is None:
        return _nats(log_prob(model, about.to_model(y), **settings), about.log_det, short_text(trace))
    law = how.dequantization or default_dequantization(model)
    said = f"{how.draws} draw{'s' if how.draws > 1 else ''}, {short_text(trace)}"
    return _bits(bits_per_dim(model, y, draws=how.draws, dequantization=law, **settings), short_text(law), said)


def _nats(found: LogProb, log_det: float, settings: str) -> EventLikelihoods:
    low, high = found.interval()
    unknown = torch.full_like(found.log_prob, math.nan)
    return EventLikelihoods(
        settings,
        "nats",
        found.log_prob + log_det,
        low + log_det,
        high + log_det,
        found.stderr,
        unknown,
        _by_name(found.budget),
        found.status,
        found.nfe,
        found.products,
        0,
    )


def _bits(found: BitsPerDim, law: str, settings: str) -> EventLikelihoods:
    draws, (low, high) = len(found.per_draw), found.interval()
    scatter = found.per_draw.std(0) / math.sqrt(draws) if draws > 1 else torch.full_like(found.bits, math.nan)
    budget = _by_name(found.budget) | ({"dequantization": found.dequantization} if draws > 1 else {})
    return EventLikelihoods(
        f"{law}, {settings}",
        "bits/dim",
        found.bits,
        low,
        high,
        found.probe_stderr,
        scatter,
        budget,
        found.status,
        found.nfe,
        found.products,
        draws,
        law,
    )


def _by_name(budget: ErrorBudget) -> dict[str, Tensor]:
    return {field.name: getattr(budget, field.name) for field in fields(budget)}
