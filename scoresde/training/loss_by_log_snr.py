r"""At which noise levels is a model good? Its error $\lambda\,\|\hat\varepsilon - \varepsilon\|^2 / d$ by log-SNR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.model import Model, evaluating, event_size
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import TimestepDraw
from scoresde.process import ou
from scoresde.process.sde import SDE

__all__ = ["LossByLogSNR", "loss_by_log_snr"]


@dataclass(frozen=True, eq=False)
class LossByLogSNR:
    """Errors at several noise levels.

    Attributes:
        log_snr: The levels, nats, ``(L,)`` float64, falling.
        loss: Mean error per dimension over the events, ``(L,)`` float64.
        stderr: Its standard error over the events, ``(L,)`` float64; NaN for a single one.
    """

    log_snr: Tensor
    loss: Tensor
    stderr: Tensor


@torch.no_grad()
def loss_by_log_snr(
    model: Model,
    x0: Tensor,
    levels: int | Sequence[float] = 24,
    *,
    loss: Loss | None = None,
    repeats: int = 1,
    batch_size: int = 1024,
    generator: torch.Generator | None = None,
    **cond: Tensor,
) -> LossByLogSNR:
    """The error of a model, trained or exact, at fixed noise levels: one network call per level, repeat and batch.

    Args:
        model: Evaluated in evaluation mode; its modes are put back.
        x0: Held-out events in model units, ``(N, *D)``.
        levels: Log-SNRs in nats; or how many, at the centers of equal cells from the process's first time to its last
            (or to log-SNR -20 where it ends later).
        loss: Whose λ multiplies; default the plain error in eps. Its times are not used.
        repeats: Draws of noise per event and level.
        batch_size: Events per network call.
        generator: Source of the noise, used for no other thing; the same state gives models the same noise.
        **cond: More inputs of the network, one entry per event.

    Returns:
        Errors per dimension; for the default ``loss`` they tend to 0 at small log-SNR, where all is noise, and to 1 at
        large log-SNR, where none of it can be told.

    Raises:
        ValueError: If there are no events or repeats, or a level is outside the process.
    """
    if not len(x0) or repeats < 1 or batch_size < 1:
        raise ValueError(f"events, repeats and batch_size must be >= 1, got {len(x0)}, {repeats} and {batch_size}.")
    loss = Loss() if loss is None else loss
    noise, log_snrs = Noise(generator), _levels(levels, model.sde)
    means, errors = [], []
    with evaluating(model):
        for log_snr in log_snrs:
            each = torch.zeros(len(x0), dtype=torch.float64)
            u = float(model.sde.schedule.u(float(ou.tau_from_log_snr(log_snr))))
            for start in range(0, len(x0), batch_size):
                part = slice(start, start + batch_size)
                x, given = x0[part], {name: value[part] for name, value in cond.items()}
                draw = TimestepDraw(torch.full((len(x),), u, dtype=widest_dtype(x.device), device=x.device))
                for _ in range(repeats):
                    each[part] += loss.at(model, x, draw, noise.normal(x), **given).cpu().double()
            each /= repeats * event_size(x0)
            means.append(each.mean())
            errors.append(each.std() / len(each) ** 0.5 if len(each) > 1 else torch.tensor(float("nan")))
    return LossByLogSNR(torch.tensor(log_snrs, dtype=torch.float64), torch.stack(means), torch.stack(errors))


def _levels(levels: int | Sequence[float], sde: SDE) -> list[float]:
    if not isinstance(levels, int):
        low, high = (float(ou.log_snr(tau)) for tau in (sde.tau_max, sde.tau_min))
        for level in levels:
            if not low - 1e-6 <= level <= high + 1e-6:
                raise ValueError(f"a level must lie within the process, log-SNR {low:.4g} ... {high:.4g}, got {level}.")
        return sorted((float(level) for level in levels), reverse=True)
    if levels < 1:
        raise ValueError(f"levels must be >= 1, or a list of log-SNRs, got {levels}.")
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 10.0)))
    return [high + (low - high) * (i + 0.5) / levels for i in range(levels)]
