"""How well does a model know held-out data? By its likelihood, and by its error at each noise level."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde import ou
from scoresde.likelihood import Adaptive, Hutchinson, Trace, bits_per_dim, log_prob
from scoresde.model import ScoreModel
from scoresde.sde import SDE
from scoresde.training import loss_by_log_snr
from scoresde.weighting import Weighting, canonical

__all__ = ["Scoring", "canonical_weights", "each_score", "error_by_noise", "score"]


@dataclass(frozen=True)
class Scoring:
    """How held-out data are scored.

    Attributes:
        trace: Of the divergence; None is exact up to 16 dimensions, else 2 random probes, whose noise the mean
            over many events takes out.
        tol: Of the path (see `scoresde.likelihood.Adaptive`).
        limit: Most held-out events that are scored; None is all.
        batch_size: Events at once.
        seed: Of dequantisation and probes.
        draws: Dequantisation draws per event, where the data are levels.
    """

    trace: Trace | None = None
    tol: float = 0.1
    limit: int | None = 1000
    batch_size: int = 512
    seed: int = 0
    draws: int = 1


def score(model: ScoreModel, events: Tensor, how: Scoring, progress: bool = False) -> dict[str, Any]:
    """Likelihood of held-out data: bits per dimension of quantised data, else nats per event, in data units.

    Args:
        model: Carries the data's description.
        events: Data units, ``(n, *D)``.
        how: The settings.
        progress: Show a bar.

    Returns:
        ``unit`` ("bits/dim", the lower the better, or "nats", the higher), ``value``, its ``stderr`` over the events,
        ``probe_stderr`` (over the trace's probes alone), ``events``, ``nfe``.
    """
    return each_score(model, events, how, progress)[2]


def each_score(
    model: ScoreModel, events: Tensor, how: Scoring, progress: bool = False
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """As `score`, after each event's value and its standard error over the probes, both ``(n,)``."""
    about, device = model.data, next(model.parameters()).device
    assert about is not None
    y = events[: how.limit].to(device)
    trace = how.trace if how.trace is not None or about.dims <= 16 else Hutchinson(probes=2)
    settings: dict[str, Any] = {"trace": trace, "solver": Adaptive(how.tol), "batch_size": how.batch_size}
    settings |= {"generator": torch.Generator(device).manual_seed(how.seed), "progress": progress}
    if about.bins is not None:
        found = bits_per_dim(model, y, draws=how.draws, **settings)
        values, probes, nfe, unit = found.bits, found.probe_stderr, found.nfe, "bits/dim"
    else:
        scored = log_prob(model, about.to_model(y), **settings)
        values, probes, nfe, unit = scored.log_prob + about.log_det, scored.stderr, scored.nfe, "nats"
    count = len(values)
    return (
        values,
        probes,
        {
            "unit": unit,
            "value": float(values.mean()),
            "stderr": float(values.std()) / math.sqrt(count) if count > 1 else math.nan,
            "probe_stderr": float(probes.square().sum().sqrt()) / count,
            "events": count,
            "nfe": int(nfe.max()) if count else 0,
        },
    )


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
    r"""Where on the noise scale a weighting looks: w(ℓ), as `scoresde.weighting.canonical` has it.

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
