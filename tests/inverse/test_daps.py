"""DAPS: the exact moments of its steps for Gaussian data, and the stationary variance of its Langevin steps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.guidance import Function, Matrix, Observation
from scoresde.inverse import DAPS, sample_posterior
from scoresde.inverse.twisted_smc import chain_times
from scoresde.sampling import DDIM, DDPM, UniformLogSNR

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3], dtype=F64)
COV = torch.tensor([[1.0, 0.7], [0.7, 0.8]], dtype=F64)
A = torch.tensor([[0.8, -0.5]], dtype=F64)
Y, STD = torch.tensor([1.2], dtype=F64), 0.3
ONE_STEP = DDIM(1, UniformLogSNR())


def exact_moments(steps: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last draw, with an ODE of one DDIM step, by their recursion."""
    sde, eye = sd.VPSDE(), torch.eye(2, dtype=F64)
    taus, end = chain_times(UniformLogSNR(), sde, steps), sde.tau_min
    m, c = torch.zeros(2, dtype=F64), eye.clone()
    for tau, s in zip(taus, taus[1:]):
        a, var = math.exp(-tau), -math.expm1(-2 * tau)
        gain = a * COV @ torch.linalg.inv(a * a * COV + var * eye)  # x0_hat = mean + gain (x - a mean)
        ratio = math.sqrt(-math.expm1(-2 * end) / var) if tau > end * (1 + 1e-9) else 0.0
        on_x0 = math.exp(-end) - ratio * a if ratio else 1.0
        step = on_x0 * gain + ratio * eye
        m, c = step @ m + on_x0 * (MEAN - a * gain @ MEAN), step @ c @ step.mT
        r2 = var / (a * a)
        kalman = r2 * A.mT / (r2 * (A @ A.mT) + STD**2)
        keep = eye - kalman @ A
        m, c = keep @ m + kalman @ Y, keep @ c @ keep.mT + r2 * keep
        if s > 0:
            m, c = math.exp(-s) * m, math.exp(-2 * s) * c - math.expm1(-2 * s) * eye
    return m, c


@pytest.mark.parametrize("steps", [3, 10])
def test_samples_have_the_moments_of_the_recursion(steps: int) -> None:
    n = 20_000
    mean, cov = exact_moments(steps)
    method = DAPS(steps, ONE_STEP)
    x = sample_posterior(sd.Gaussian(MEAN, COV), Observation(Matrix(A), Y, noise_std=STD), n, method, seeds=[0]).x[0]
    scale = cov.diagonal().sqrt()
    assert bool(((x.mean(0) - mean).abs() < 4 * scale / math.sqrt(n)).all())
    assert bool(((x.mT.cov() - cov).abs() < 4 * math.sqrt(2 / n) * scale.outer(scale)).all())


def test_the_network_is_evaluated_once_per_noise_and_solver_step() -> None:
    seen = Observation(Matrix(A), Y, noise_std=STD)
    nfe = sample_posterior(sd.Gaussian(MEAN, COV), seen, 1, DAPS(10, DDIM(5, UniformLogSNR())), seeds=[0]).nfe
    assert nfe == 9 * 5 + 1  # the last noise is that of tau_min, where the ODE has no length


def test_langevin_steps_have_their_stationary_variance() -> None:
    # one noise, so that r is that of the end of the clock, and the measurement fixes both coordinates
    n, c = 20_000, 0.2
    operator = Function(lambda x: x.clone(), (2,), (2,))
    seen = Observation(operator, torch.tensor([1.2, -0.4], dtype=F64), noise_std=STD)
    method = DAPS(1, ONE_STEP, langevin_steps=150, langevin_step=c)
    x = sample_posterior(sd.Gaussian(MEAN, COV), seen, n, method, seeds=[0]).x[0]
    precision = math.exp(-2 * sd.VPSDE().tau_max) / -math.expm1(-2 * sd.VPSDE().tau_max) + 1 / STD**2
    variance = 1 / precision / (1 - c / 2)  # of x' = (1 - c)(x - mean) + sqrt(2 c / precision) z
    assert bool(((x.mean(0) - seen.y).abs() < 4 * math.sqrt(variance / n) + 1e-3).all())
    assert bool(((x.var(0) - variance).abs() < 4 * variance * math.sqrt(2 / n)).all())


def test_a_function_is_sampled_nearly_as_its_matrix() -> None:
    n = 20_000
    linear = Observation(Matrix(A), Y, noise_std=STD)
    function = Observation(Function(lambda x: x @ A.mT, (2,), (1,)), Y, noise_std=STD)
    first, second = (
        sample_posterior(sd.Gaussian(MEAN, COV), seen, n, DAPS(10, ONE_STEP, langevin_step=0.05), seeds=[0]).x[0]
        for seen in (linear, function)
    )
    torch.testing.assert_close(first.mean(0), second.mean(0), atol=0.05, rtol=0.0)
    torch.testing.assert_close(first.mT.cov(), second.mT.cov(), atol=0.05, rtol=0.05)


def test_what_the_method_is_not_made_for_is_refused() -> None:
    function = Function(lambda x: x @ A.mT, (2,), (1,))
    noise: dict[str, Any]
    for noise in ({"noise_std": 0.0}, {"noise_cov": torch.eye(1)}):
        with pytest.raises(ValueError, match="which is not linear, need a noise_std above 0"):
            sample_posterior(sd.Gaussian(MEAN, COV), Observation(function, Y, **noise), method=DAPS())
    with pytest.raises(ValueError, match="DAPS needs a deterministic sampler"):
        DAPS(solver=DDPM(5))
    with pytest.raises(ValueError, match="langevin_step must be below 1"):
        DAPS(langevin_step=1.0)
