"""RePaint: the exact moments of its own steps for Gaussian data, and its rule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.guidance import Mask, Matrix, Observation
from scoresde.inverse import RePaint, sample_posterior
from scoresde.inverse.twisted_smc import chain_times

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3], dtype=F64)
COV = torch.tensor([[1.0, 0.7], [0.7, 0.8]], dtype=F64)
VALUE = 1.2


def exact_moments(method: RePaint) -> tuple[float, float]:
    """Mean and variance of the unknown second coordinate, by the recursion of the steps; the first one is known."""
    taus, eye = chain_times(method.grid, sd.VPSDE(), method.steps), torch.eye(2, dtype=F64)
    m, c = torch.zeros(2, dtype=F64), eye.clone()

    def down(m: Tensor, c: Tensor, tau: float, s: float) -> tuple[Tensor, Tensor]:
        a, var, var_s, beta = math.exp(-tau), -math.expm1(-2 * tau), -math.expm1(-2 * s), -math.expm1(-2 * (tau - s))
        gain = a * COV @ torch.linalg.inv(a * a * COV + var * eye)
        on_x0, on_x = math.exp(-s) * beta / var, math.exp(s - tau) * var_s / var
        step = on_x * eye + on_x0 * gain
        m, c = step @ m + on_x0 * (MEAN - a * gain @ MEAN), step @ c @ step.mT + beta * var_s / var * eye
        known = torch.tensor([math.exp(-s) * VALUE, 0.0], dtype=F64)
        return torch.stack([known[0], m[1]]), torch.diag(torch.stack([torch.tensor(var_s, dtype=F64), c[1, 1]]))

    for first in range(0, method.steps, method.jump):
        last = min(first + method.jump, method.steps)
        for repetition in range(method.resamplings if last < method.steps else 1):
            if repetition:
                back = taus[first] - taus[last]
                m, c = math.exp(-back) * m, math.exp(-2 * back) * c - math.expm1(-2 * back) * eye
            for i in range(first, last):
                m, c = down(m, c, taus[i], taus[i + 1])
    return float(m[1]), float(c[1, 1])


@pytest.mark.parametrize(("resamplings", "jump"), [(1, 1), (4, 1), (3, 4)])
def test_samples_have_the_moments_of_the_recursion(resamplings: int, jump: int) -> None:
    method, n = RePaint(18, resamplings, jump), 20_000
    mean, variance = exact_moments(method)
    seen = Observation(Mask(torch.tensor([True, False])), torch.tensor([VALUE, 0.0], dtype=F64), noise_std=0.0)
    samples = sample_posterior(sd.Gaussian(MEAN, COV), seen, n, method, seeds=[1])
    x = samples.x[0]
    assert bool((x[:, 0] == VALUE).all())
    assert abs(float(x[:, 1].mean()) - mean) < 4 * math.sqrt(variance / n)
    assert abs(float(x[:, 1].var()) - variance) < 4 * variance * math.sqrt(2 / n)
    assert samples.nfe == sum(
        min(jump, 18 - first) * (resamplings if first + jump < 18 else 1) for first in range(0, 18, jump)
    )


def test_resampling_brings_the_mean_closer_to_that_of_the_posterior() -> None:
    exact = -0.3 + 0.7 * (VALUE - 0.5)
    errors = [abs(exact_moments(RePaint(250, u))[0] - exact) for u in (1, 5, 20)]
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_an_operator_that_is_no_mask_is_refused() -> None:
    seen = Observation(Matrix(torch.eye(2, dtype=F64)), MEAN, noise_std=0.1)
    with pytest.raises(TypeError, match="RePaint replaces known entries, so it needs a Mask, got Matrix"):
        sample_posterior(sd.Gaussian(MEAN, COV), seen, method=RePaint())
    wrong: dict[str, Any]
    for wrong in ({"resamplings": 0}, {"jump": 0}):
        with pytest.raises(ValueError, match="must be a positive integer, got 0"):
            RePaint(**wrong)
