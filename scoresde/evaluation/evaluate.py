"""Evaluation of a model on held-out data: its likelihood, bounds on it, and its error at each noise level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_event_shape, check_kind, check_seed
from scoresde.evaluation.ode_likelihood import EventLikelihoods, LikelihoodSettings, score_events
from scoresde.evaluation.row_bounds import bound_likelihoods
from scoresde.evaluation.vlb import BoundSummary, bound_events
from scoresde.model import ScoreModel, check_model
from scoresde.objective.equivalences import canonical
from scoresde.objective.weighting import Weighting
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.sde import SDE
from scoresde.training import loss_by_log_snr
from scoresde.training.condition_checks import model_cond

__all__ = ["Evaluation", "canonical_weights", "error_by_noise", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Likelihoods of held-out events, and bounds on them.

    Attributes:
        ode: Likelihoods by the probability-flow ODE; of categories, and of rows with categories, which have no ODE,
            the bound in continuous time.
        bounds: Further bounds on the same events; of a Gaussian process only.
    """

    ode: EventLikelihoods
    bounds: list[BoundSummary]

    def to_json(self) -> dict[str, Any]:
        """JSON with ``likelihood``, and ``bounds`` with the difference of each to it."""
        return {"likelihood": self.ode.to_json(), "bounds": [bound.to_json(self.ode.value) for bound in self.bounds]}


def evaluate(
    model: ScoreModel,
    events: Tensor,
    settings: LikelihoodSettings,
    progress: bool = False,
    announce: Callable[[str], None] | None = None,
    *,
    cond: Mapping[str, Tensor] | None = None,
) -> Evaluation:
    """Likelihoods of held-out data: bits per dimension of quantized data and categories, else nats, in data units.

    Args:
        model: Carries the data's description.
        events: Data units, ``(n, *D)``.
        settings: Settings of the likelihoods and the bounds.
        progress: Shows progress bars.
        announce: Receives the name of each bound before its estimate starts.
        cond: Conditions of the events in data units, by name, ``(n, *)`` each: likelihoods are those given them. A
            network with conditions needs all of its own; others are not used.

    Raises:
        ValueError: If the conditions are not those of the network.
    """
    check_kind("model", model, ScoreModel)
    check_arguments(evaluate, locals())
    check_event_shape(events, None, "events")
    y = as_input(model, events, "events")[: settings.limit].to(next(model.parameters()).device)
    assert model.data is not None
    given = model_cond(model, cond or {}, model.data, slice(settings.limit), y.device)
    if not isinstance(model.sde, SDE):
        return Evaluation(bound_likelihoods(model, y, settings, progress, **given), [])
    ode = score_events(model, y, settings, progress, **given)
    if settings.bounds is None:
        return Evaluation(ode, [])
    bounds = bound_events(
        model,
        y,
        settings.bounds,
        dequantization=settings.dequantization,
        seed=settings.seed,
        batch_size=settings.batch_size,
        progress=progress,
        announce=announce,
        **given,
    )
    return Evaluation(ode, bounds)


def error_by_noise(model: ScoreModel, held_out: Tensor, levels: int = 32, seed: int = 0, **cond: Any) -> dict[str, Any]:
    r"""Error $\|\hat\varepsilon - \varepsilon\|^2/d$ at each log-SNR, with the same noise for every model.

    Args:
        model: Trained or exact. The error of a category is its cross-entropy, nats.
        held_out: Model units, ``(n, *D)``.
        levels: Number of log-SNRs.
        seed: Seed of the noise.
        **cond: Passed to the network, one entry per event.

    Returns:
        ``log_snr`` (falling, nats), ``error`` and its ``stderr``, per dimension.
    """
    check_model(model)
    check_arguments(error_by_noise, locals())
    device = next(iter([*model.parameters(), *model.buffers()])).device
    generator = torch.Generator(device).manual_seed(check_seed(seed))
    losses = loss_by_log_snr(
        model, as_input(model, held_out, "held_out").to(device), levels, repeats=2, generator=generator, **cond
    )
    return {"log_snr": losses.log_snr.tolist(), "error": losses.loss.tolist(), "stderr": losses.stderr.tolist()}


def canonical_weights(weighting: Weighting, sde: Process, count: int = 120) -> dict[str, list[float]] | None:
    r"""Canonical weight w(ℓ) of a weighting over log-SNR ℓ, as `scoresde.objective.equivalences.canonical` defines it.

    Args:
        weighting: λ.
        sde: The process, whose clock is used.
        count: Number of log-SNRs, evenly spaced between the two ends of the clock.

    Returns:
        ``log_snr`` (falling, nats) and ``weight``; None for a weighting of a chain's steps, and for categories, which
        have no such curve.
    """
    check_arguments(canonical_weights, locals())
    if isinstance(sde, DiscreteProcess):
        return None
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 10.0)))
    log_snr = torch.linspace(high, low, count + 2, dtype=torch.float64)[1:-1]
    try:
        weight = canonical(weighting, sde.schedule)(log_snr)
    except ValueError:
        return None
    return {"log_snr": log_snr.tolist(), "weight": torch.as_tensor(weight).expand(count).tolist()}
