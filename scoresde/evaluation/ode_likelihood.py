"""Likelihoods of single events by the probability-flow ODE, with their error budgets."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_positive, check_seed
from scoresde.evaluation.likelihood_labels import Quantity, quantity_of
from scoresde.evaluation.vlb import BoundSettings, mean_interval, mean_with_stderr
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
from scoresde.storage.setting_labels import short_text

__all__ = ["EventLikelihoods", "LikelihoodSettings", "score_events"]


@dataclass(frozen=True)
class LikelihoodSettings(CheckedArguments):
    """Settings of held-out likelihoods.

    Attributes:
        trace: Estimator of the divergence. None is exact up to 16 dimensions, else 2 random probes; the mean over many
            events averages out their noise.
        tol: Tolerance of the ODE solver (see `scoresde.likelihood.AdaptiveSolver`).
        limit: Maximum number of held-out events to score; None is all.
        batch_size: Events at once.
        seed: Seed of dequantization, probes, and the noise of bounds.
        draws: Dequantization draws per event of quantized data; two or more estimate the error over draws.
        nodes: Quadrature nodes of the divergence per event.
        dequantization: Distribution of the offset within a bin; None for what suits the network, uniform for most.
        max_nfe: Maximum number of network evaluations of the ODE solver per event.
        strict: Whether to raise an error if an event does not arrive; else it is counted and left out of the mean.
        bounds: Settings of the bounds to estimate as well, or None.

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
        for name in ("batch_size", "draws", "nodes", "max_nfe"):
            check_integer(name, getattr(self, name))
        check_seed(self.seed)
        check_positive(tol=self.tol)
        if self.limit is not None:
            check_integer("limit", self.limit, least=None)
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, or None for all held-out events, got {self.limit!r}.")


@dataclass(frozen=True, eq=False)
class EventLikelihoods:
    """Likelihoods of events; NaN for events that did not arrive.

    Attributes:
        settings: Settings of the estimate, as text.
        unit: "bits/dim", the lower the better, or "nats", log p in data units, the higher the better.
        value: ``(n,)`` float64.
        low, high: ``(n,)``, 95 % interval of the model's exact value: over the probes, plus the errors of solver and
            quadrature.
        stderr: ``(n,)``, over the probes; 0 for an exact trace.
        draw_stderr: ``(n,)``, over the draws and their probes; NaN for one draw.
        budget: Errors by name, nats, ``(n,)`` each; with the gap of the dequantization if there are several draws.
        status: ``(n,)`` int64, a `scoresde.likelihood.Status` each.
        nfe: ``(n,)`` int64, network evaluations.
        products: ``(n,)`` int64, Jacobian products.
        draws: Number of dequantization draws; 0 for data that need none.
        dequantization: Its text form; None for data that need none.
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
    dequantization: str | None = None

    @property
    def quantity(self) -> Quantity:
        """What the numbers are."""
        return quantity_of(self.unit)

    @property
    def lost(self) -> dict[str, int]:
        """Number of events that did not arrive, by the name of their status."""
        counts = {status.name: int((self.status == status).sum()) for status in Status if status != Status.ARRIVED}
        return {name: count for name, count in counts.items() if count}

    def to_json(self) -> dict[str, Any]:
        """JSON: means over the events that arrived, and their standard errors over events, probes and draws."""
        arrived = self.status == Status.ARRIVED
        count = int(arrived.sum())

        def stderr_of_mean(stderr: Tensor) -> float:
            return float(stderr[arrived].square().sum().sqrt()) / count if count else math.nan

        return {
            "settings": self.settings,
            **self.quantity.to_json(),
            **mean_with_stderr(self.value[arrived]),
            "interval": mean_interval(self.value[arrived]),
            "probe_stderr": stderr_of_mean(self.stderr),
            "draw_stderr": stderr_of_mean(self.draw_stderr) if self.draws > 1 else None,
            "draws": self.draws,
            "dequantization": self.dequantization,
            "events": count,
            "lost": self.lost,
            "nfe": int(self.nfe.max()) if len(self.nfe) else 0,
            "products": float(self.products.double().mean()),
            "budget": {name: float(errors[arrived].mean()) for name, errors in self.budget.items()},
        }


def score_events(
    model: ScoreModel, y: Tensor, settings: LikelihoodSettings, progress: bool = False, **cond: Tensor
) -> EventLikelihoods:
    """Bits per dimension of integer values, by dequantization; of other data nats in data units.

    The columns of a table that lie on a grid, and its categories, are dequantized once.

    Args:
        model: Carries the data's description.
        y: Data units, ``(n, *D)``, on the model's device.
        settings: Settings; ``limit`` is not applied.
        progress: Shows a progress bar.
        **cond: Passed to the network, in model units, one entry per event.

    Raises:
        ValueError, RuntimeError: As `scoresde.likelihood.log_prob` and `scoresde.likelihood.bits_per_dim`.
    """
    description = model.data
    assert description is not None
    trace = settings.trace or (ExactTrace() if description.model_dims <= 16 else Hutchinson(probes=2))
    options: dict[str, Any] = {
        "trace": trace,
        "solver": AdaptiveSolver(settings.tol, settings.max_nfe),
        "nodes": settings.nodes,
        "generator": torch.Generator(y.device).manual_seed(settings.seed),
        "batch_size": settings.batch_size,
        "strict": settings.strict,
        "progress": progress,
        **cond,
    }
    if description.bins is None:
        x = description.to_model(description.dequantize(y, options["generator"]) if description.is_quantized(y) else y)
        return _from_log_prob(log_prob(model, x, **options), description.log_det(x), short_text(trace))
    dequantization = settings.dequantization or default_dequantization(model)
    result = bits_per_dim(model, y, draws=settings.draws, dequantization=dequantization, **options)
    return _from_bits(result, short_text(dequantization), short_text(trace))


def _from_log_prob(result: LogProb, log_det: Tensor, trace: str) -> EventLikelihoods:
    low, high = result.interval()
    return EventLikelihoods(
        settings=trace,
        unit="nats",
        value=result.log_prob + log_det,
        low=low + log_det,
        high=high + log_det,
        stderr=result.stderr,
        draw_stderr=torch.full_like(result.log_prob, math.nan),
        budget=_by_name(result.budget),
        status=result.status,
        nfe=result.nfe,
        products=result.products,
        draws=0,
    )


def _from_bits(result: BitsPerDim, dequantization: str, trace: str) -> EventLikelihoods:
    draws, (low, high) = len(result.per_draw), result.interval()
    unknown = torch.full_like(result.bits, math.nan)
    budget = _by_name(result.budget) | ({"dequantization": result.dequantization} if draws > 1 else {})
    return EventLikelihoods(
        settings=f"{dequantization}, {draws} draw{'s' if draws > 1 else ''}, {trace}",
        unit="bits/dim",
        value=result.bits,
        low=low,
        high=high,
        stderr=result.probe_stderr,
        draw_stderr=result.per_draw.std(0) / math.sqrt(draws) if draws > 1 else unknown,
        budget=budget,
        status=result.status,
        nfe=result.nfe,
        products=result.products,
        draws=draws,
        dequantization=dequantization,
    )


def _by_name(budget: ErrorBudget) -> dict[str, Tensor]:
    return {field.name: getattr(budget, field.name) for field in fields(budget)}
