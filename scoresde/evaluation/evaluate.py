"""How well does a model know held-out data? By likelihood, by bounds on it, and by its error at each noise level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.evaluation.bounds import BoundSummary, bound_events
from scoresde.evaluation.likelihood import EventLikelihoods, LikelihoodSettings, score_events
from scoresde.model import ScoreModel
from scoresde.objective.weighting import Weighting, canonical
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.training import loss_by_log_snr

__all__ = ["Evaluation", "canonical_weights", "error_by_noise", "evaluate"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What is known of the likelihood of held-out events.

    Attributes:
        ode: By the probability-flow ODE.
        bounds: On the same events.
    """

    ode: EventLikelihoods
    bounds: list[BoundSummary]

    def said(self) -> dict[str, Any]:
        """JSON: ``likelihood``, and ``bounds`` with how far each is from it."""
        return {"likelihood": self.ode.said(), "bounds": [bound.said(self.ode.value) for bound in self.bounds]}


def evaluate(
    model: ScoreModel,
    events: Tensor,
    how: LikelihoodSettings,
    progress: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Evaluation:
    """Likelihood of held-out data: bits per dimension of quantized data, else nats per event, in data units.

    Args:
        model: Carries the data's description.
        events: Data units, ``(n, *D)``.
        how: The settings.
        progress: Show bars.
        tell: Is told the name of each bound before it is estimated.
    """
    y = events[: how.limit].to(next(model.parameters()).device)
    ode = score_events(model, y, how, progress)
    if how.bounds is None:
        return Evaluation(ode, [])
    settings: dict[str, Any] = {"law": how.dequantization, "seed": how.seed, "batch_size": how.batch_size}
    return Evaluation(ode, bound_events(model, y, how.bounds, progress=progress, tell=tell, **settings))


def error_by_noise(model: ScoreModel, held_out: Tensor, levels: int = 32, seed: int = 0) -> dict[str, Any]:
    r"""Error $\|\hat\varepsilon - \varepsilon\|^2/d$ at each log-SNR, with the same noise for every model.

    Args:
        model: Trained or exact.
        held_out: Model units, ``(n, *D)``.
        levels: How many log-SNRs.
        seed: Of the noise.

    Returns:
        ``log_snr`` (falling, nats), ``error`` and its ``stderr``, per dimension.
    """
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    found = loss_by_log_snr(model, held_out.to(device), levels, repeats=2, generator=generator)
    return {"log_snr": found.log_snr.tolist(), "error": found.loss.tolist(), "stderr": found.stderr.tolist()}


def canonical_weights(weighting: Weighting, sde: SDE, count: int = 120) -> dict[str, list[float]] | None:
    r"""Where on the noise scale a weighting looks: w(ℓ), as `scoresde.objective.weighting.canonical` has it.

    Args:
        weighting: λ.
        sde: The process, whose clock is used.
        count: How many log-SNRs, evenly from the clock's one end to the other.

    Returns:
        ``log_snr`` (falling, nats) and ``weight``; None for a weighting of a chain's steps, which has no such curve.
    """
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 10.0)))
    log_snr = torch.linspace(high, low, count + 2, dtype=torch.float64)[1:-1]
    try:
        weight = canonical(weighting, sde.schedule)(log_snr)
    except ValueError:
        return None
    return {"log_snr": log_snr.tolist(), "weight": torch.as_tensor(weight).expand(count).tolist()}
