r"""Betas of a diffusers scheduler, as the float32 numbers that it computes: linear, scaled linear, cosine, sigmoid.

With ``rescale_betas_zero_snr`` $\sqrt{\bar\alpha}$ is shifted to end at 0 and scaled to keep its first value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.process.schedule import FromBetas

__all__ = ["beta_clock"]

_LEAST_ALPHA_BAR = 2.0**-24  # in place of 0, in the schedulers that step in sigma
_STEPS_IN_ALPHA_BAR = ("DDIM", "DDPM", "LCM", "TCD")


def beta_clock(settings: SchedulerSettings, between: str = "alpha_bar") -> FromBetas:
    """The clock of a scheduler's betas, computed in float32 in the order of its operations, and widened to float64.

    Args:
        settings: Of a scheduler with betas.
        between: Interpolation between two knots, see `FromBetas`.

    Raises:
        ValueError: If the schedule of betas is not known, or the chain's length is not that of ``trained_betas``.

    Source: diffusers' ``beta_schedule``; Lin et al. 2024, algorithm 1 (zero terminal SNR).
    """
    betas = _float32_betas(settings)
    if not settings["rescale_betas_zero_snr"]:
        return FromBetas(tuple(betas.double().tolist()), between)
    roots = _rescaled_roots(betas)
    alphas = torch.cat([roots[:1] ** 2, roots[1:] ** 2 / roots[:-1] ** 2])
    values = (1.0 - alphas).double().tolist()
    if not settings.class_name.startswith(_STEPS_IN_ALPHA_BAR):
        before = math.exp(sum(math.log1p(-beta) for beta in values[:-1]))
        if before > _LEAST_ALPHA_BAR:  # otherwise their ᾱ would rise in the last step
            values[-1] = 1.0 - _LEAST_ALPHA_BAR / before
    return FromBetas(tuple(values), between)


def _float32_betas(settings: SchedulerSettings) -> Tensor:
    length, first, last = settings["num_train_timesteps"], settings["beta_start"], settings["beta_end"]
    trained, kind = settings["trained_betas"], settings["beta_schedule"]
    if trained is not None:
        return _trained(trained, length)
    if kind == "linear":
        return torch.linspace(first, last, length, dtype=torch.float32)
    if kind == "scaled_linear":
        return torch.linspace(first**0.5, last**0.5, length, dtype=torch.float32) ** 2
    if kind == "squaredcos_cap_v2":
        bars = [math.cos((k / length + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(length + 1)]
        return torch.tensor([min(1 - b / a, 0.999) for a, b in zip(bars, bars[1:])], dtype=torch.float32)
    if kind == "sigmoid":
        return torch.sigmoid(torch.linspace(-6, 6, length)) * (last - first) + first
    raise ValueError(
        f"beta_schedule must be linear, scaled_linear, squaredcos_cap_v2 or sigmoid, got {kind!r}; give the betas "
        f"themselves as trained_betas in {settings.file}."
    )


def _trained(betas: object, length: int) -> Tensor:
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != length:
        count = len(betas) if isinstance(betas, Sequence) else type(betas).__name__
        raise ValueError(f"trained_betas must be num_train_timesteps = {length} numbers, got {count}; correct one.")
    return torch.tensor(betas, dtype=torch.float32)


def _rescaled_roots(betas: Tensor) -> Tensor:
    """√ᾱ of the rescaled chain, float32, ``(K,)``."""
    roots = torch.cumprod(1.0 - betas, dim=0).sqrt()
    first, last = roots[0].clone(), roots[-1].clone()
    return (roots - last) * (first / (first - last))
