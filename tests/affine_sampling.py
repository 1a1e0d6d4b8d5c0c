"""Exact mean and variance of a sampler's result on a model that is affine in a scalar state, without random numbers.

A state is then c_0 + c_1 x_T + c_2 z_1 + c_3 z_2 + …. The rows of one batch carry it: the first row starts from x_T = 0
without noise, each other row has one of x_T, z_1, z_2, … equal to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.sampling import StepSampler

__all__ = ["exact_moments"]


def exact_moments(
    model: Model, sampler: StepSampler, start: tuple[float, float] = (0.0, 1.0), **cond: Tensor
) -> tuple[float, float]:
    """Mean and variance of the last state.

    Args:
        model: Event shape ``(1,)``, affine in x, float64.
        sampler: The sampler; its grid runs over the whole clock.
        start: Mean and variance of x_T.
        **cond: Passed to the model, each of one entry.
    """
    taus = sampler.grid.times(model.sde, sampler.steps)
    rows = 2 + (2 * sampler.steps if sampler.stochastic else 0)
    conditions = {name: value.expand(rows, *value.shape[1:]) for name, value in cond.items()}
    x, memory, draws = torch.zeros(rows, 1, dtype=torch.float64), None, 1
    x[1] = 1.0

    def noise() -> Tensor:
        nonlocal draws
        draws += 1
        unit = torch.zeros_like(x)
        unit[draws] = 1.0
        return unit

    with torch.no_grad():
        for tau, s in zip(taus, taus[1:]):
            x, memory = sampler.step(lambda x, t: model.predict(x, t, **conditions), x, tau, s, noise, memory)
    base = x[0]
    gains = (x[1:] - base).flatten()
    return float(base + gains[0] * start[0]), float(gains[0] ** 2 * start[1] + gains[1:].square().sum())
