r"""The loss by noise level: the mean of $\lambda\,\|\hat\varepsilon - \varepsilon\|^2 / d$ at given log-SNRs.

Of categories the loss is the mean of $-\log p(x_0 \mid x_\tau)$ per entry, nats.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input, cond_inputs
from scoresde._core.checks import check_event_shape, check_finite, check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, widest_dtype
from scoresde.model import Model, check_model, evaluating
from scoresde.objective.base import Objective
from scoresde.objective.discrete import CrossEntropy
from scoresde.objective.loss import Loss
from scoresde.objective.mixed import MixedLoss
from scoresde.objective.timesteps import TimestepDraw
from scoresde.objective.weighting import Simple
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed

__all__ = ["LossByLogSNR", "loss_by_log_snr"]


@dataclass(frozen=True, eq=False)
class LossByLogSNR:
    """Losses at several noise levels.

    Attributes:
        log_snr: The noise levels, nats, ``(L,)`` float64, decreasing.
        loss: Mean loss per dimension over the events, ``(L,)`` float64.
        stderr: Its standard error over the events, ``(L,)`` float64; NaN for a single one.
    """

    log_snr: Tensor
    loss: Tensor
    stderr: Tensor


@torch.no_grad()
def loss_by_log_snr(
    model: Model,
    x0: ArrayLike,
    levels: int | Sequence[float] = 24,
    *,
    loss: Objective | None = None,
    repeats: int = 1,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
    **cond: Tensor,
) -> LossByLogSNR:
    """The loss of a network's or an exact model at fixed noise levels: one network call per level, repeat and batch.

    Args:
        model: Used in evaluation mode; its modes are restored.
        x0: Held-out events in model units, ``(N, *D)``.
        levels: Log-SNRs in nats. Or their number: then the midpoints of equal intervals from the process's first time
            to its last, or to log-SNR -20 if that comes first.
        loss: Its λ multiplies; default the plain error in ε, or the cross-entropy of categories. Its timesteps are not
            used.
        repeats: Draws of noise per event and level.
        batch_size: Events per network call.
        generator: Source of the noise alone; the same state gives several models the same noise.
        **cond: Further inputs of the network, one entry per event; ``observed``, ``(N, *D)``, for events with missing
            values: losses are then per observed entry.

    Returns:
        Losses per dimension. For the default ``loss`` they tend to 0 at small log-SNR, where x is noise. At large
        log-SNR, where the noise cannot be inferred from x, they tend to 1.

    Raises:
        ValueError: If there are no events or repeats, a value is not finite, or a level is outside the process.
    """
    check_arguments(loss_by_log_snr, locals())
    check_model(model)
    x0, cond = as_input(model, x0, "x0"), cond_inputs(model, cond)
    check_event_shape(x0, model.event_shape, "x0")
    if not x0.is_floating_point():
        raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first (Description.to_model).")
    if "observed" not in cond:
        check_finite(x0, "x0")
    check_integer("the number of events", len(x0))
    check_integer("repeats", repeats)
    check_integer("batch_size", batch_size)
    if loss is None:
        loss = _plain_loss(model.sde)
    loss.check_process(model)
    noise, log_snrs = Noise(generator), _log_snrs(levels, model.sde)
    size = cond["observed"].sum().item() / len(x0) if "observed" in cond else event_size(x0)
    means, errors = [], []
    with evaluating(model):
        for log_snr in log_snrs:
            losses = torch.zeros(len(x0), dtype=torch.float64)
            u = float(model.sde.schedule.u(float(ou.tau_from_log_snr(log_snr))))
            for start in range(0, len(x0), batch_size):
                rows = slice(start, start + batch_size)
                x, inputs = x0[rows], {name: value[rows] for name, value in cond.items()}
                draw = TimestepDraw(torch.full((len(x),), u, dtype=widest_dtype(x.device), device=x.device))
                for _ in range(repeats):
                    losses[rows] += loss.at(model, x, draw, model.sde.draw_noise(x, noise), **inputs).cpu().double()
            losses /= repeats * size
            means.append(losses.mean())
            errors.append(losses.std() / len(losses) ** 0.5 if len(losses) > 1 else torch.tensor(float("nan")))
    return LossByLogSNR(torch.tensor(log_snrs, dtype=torch.float64), torch.stack(means), torch.stack(errors))


def _plain_loss(process: Process) -> Objective:
    """The error in ε, the cross-entropy of categories, or the sum of both."""
    if isinstance(process, Mixed):
        return MixedLoss(Simple(), categorical=CrossEntropy())
    return CrossEntropy() if isinstance(process, DiscreteProcess) else Loss()


def _log_snrs(levels: int | Sequence[float], sde: Process) -> list[float]:
    if isinstance(levels, numbers.Real):
        check_integer("levels", levels)
    if not isinstance(levels, int):
        if not len(levels):
            raise ValueError("levels must have at least one log-SNR, got none; pass their number, e.g. 24.")
        low, high = (float(ou.log_snr(tau)) for tau in (sde.tau_max, sde.tau_min))
        for level in levels:
            if not low - 1e-6 <= level <= high + 1e-6:
                raise ValueError(f"a level must lie within the process, log-SNR {low:.4g} … {high:.4g}, got {level}.")
        return sorted((float(level) for level in levels), reverse=True)
    check_integer("levels", levels)
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 10.0)))
    return [high + (low - high) * (i + 0.5) / levels for i in range(levels)]
