"""Guided samples of Gaussian data against closed forms: the ODE, the DDPM chain, intervals, both ends of the scale.

Data N(m, s²) under the condition, N(μ, S²) without. The state is affine in the noise, so mean and variance of a
sampler's result are exact.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from affine_sampling import exact_moments
from scipy.integrate import quad, solve_ivp

from scoresde.analytic import Gaussian
from scoresde.guidance import Autoguidance
from scoresde.process import ou
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDPM, Adams, Heun, RungeKutta, UniformAngle, sample

SDE = VPSDE(tau_min=1e-6)
MEAN, STD = 1.5, 0.5


def gaussian(mean: float, std: float) -> Gaussian:
    return Gaussian(torch.tensor([mean], dtype=torch.float64), std**2, SDE)


def guided(scale: Any, interval: tuple[float, float] | None = None, mu: float = 0.0, big: float = 1.0) -> Autoguidance:
    return Autoguidance(gaussian(MEAN, STD), gaussian(mu, big), scale, interval, conditional=False)


def variance_at(tau: float, std: float) -> float:
    return ou.alpha(tau) ** 2 * std**2 + ou.sigma(tau) ** 2


def ode_mean(scale: float, interval: tuple[float, float], mu: float, big: float) -> float:
    """Mean of the guided ODE, dm/dtau = -m - score, piece by piece between the ends of the interval."""

    def slope(tau: float, mean: Any, w: float) -> Any:
        score = -w * (mean - ou.alpha(tau) * MEAN) / variance_at(tau, STD)
        return -mean - score + (1 - w) * (mean - ou.alpha(tau) * mu) / variance_at(tau, big)

    ends = [SDE.tau_max, *sorted((min(end, SDE.tau_max) for end in interval), reverse=True), SDE.tau_min]
    mean = 0.0
    for i, (tau, s) in enumerate(zip(ends, ends[1:])):
        if tau > s:
            w = scale if i == 1 else 1.0
            mean = solve_ivp(slope, (tau, s), [mean], args=(w,), rtol=1e-10, atol=1e-12).y[0, -1]
    return float(mean)


@pytest.mark.parametrize("scale", [2.0, 3.0, 5.0])
@pytest.mark.parametrize("sampler", [Heun(400), RungeKutta(400, UniformAngle(), "midpoint")], ids=["heun", "midpoint"])
def test_the_ode_ends_at_the_power_of_the_variances_and_the_integral_of_the_mean(sampler: Any, scale: float) -> None:
    mean, variance = exact_moments(guided(scale), sampler)
    integral = quad(lambda a: (1 - (1 - STD**2) * a * a) ** (-1 - scale / 2), 0, 1)[0]
    assert abs(mean - scale * MEAN * STD**scale * integral) < 0.01
    assert abs(variance / STD ** (2 * scale) - 1) < 0.02
    assert abs(mean - ode_mean(scale, (0.0, math.inf), 0.0, 1.0)) < 2e-3


@pytest.mark.parametrize(
    ("scale", "expected"), [(2.0, (2.070, 0.0625)), (3.0, (2.250, 0.0156)), (5.0, (2.250, 0.00098))]
)
def test_the_table_of_the_ode(scale: float, expected: tuple[float, float]) -> None:
    mean, variance = exact_moments(guided(scale), Heun(400))
    assert abs(mean - expected[0]) < 0.01
    assert abs(variance / expected[1] - 1) < 0.02


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0])
def test_the_ode_of_two_general_gaussians(scale: float) -> None:
    mean, variance = exact_moments(guided(scale, mu=-0.7, big=1.6), Heun(400))
    assert abs(variance / (STD ** (2 * scale) * 1.6 ** (2 - 2 * scale)) - 1) < 0.02
    assert abs(mean - ode_mean(scale, (0.0, math.inf), -0.7, 1.6)) < 0.01


@pytest.mark.parametrize("scale", [2.0, 3.0, 5.0])
def test_the_ddpm_chain_ends_at_the_moments_of_the_guided_reverse_sde(scale: float) -> None:
    mean, variance = exact_moments(guided(scale), DDPM(1000, rev_var="beta"))
    s2 = STD**2
    assert abs(mean - MEAN * (1 - STD ** (2 * scale)) / (1 - s2)) < 0.01
    assert abs(variance / ((s2 - s2 ** (2 * scale)) / ((1 - s2) * (2 * scale - 1))) - 1) < 0.02
    expected = {2.0: (1.875, 0.1094), 3.0: (1.969, 0.0666), 5.0: (1.998, 0.0370)}[scale]
    assert abs(mean - expected[0]) < 0.01
    assert abs(variance / expected[1] - 1) < 0.02


@pytest.mark.parametrize("interval", [(0.2, 1.5), (0.0, 0.5), (0.7, math.inf)], ids=str)
@pytest.mark.parametrize(("scale", "mu", "big"), [(3.0, 0.0, 1.0), (0.0, 0.0, 1.0), (2.0, -0.7, 1.6)])
def test_an_interval_replaces_the_power_by_a_ratio_of_ratios(
    interval: tuple[float, float], scale: float, mu: float, big: float
) -> None:
    mean, variance = exact_moments(guided(scale, interval, mu, big), Heun(400))

    def ratio(tau: float) -> float:
        return variance_at(tau, STD) / variance_at(tau, big)

    low, high = ratio(interval[0]), ratio(min(interval[1], 50.0))
    assert abs(variance / (STD**2 * (low / high) ** (scale - 1)) - 1) < 0.02
    assert abs(mean - ode_mean(scale, interval, mu, big)) < 0.01


@pytest.mark.parametrize(
    "sampler", [Adams(steps=20), DDPM(50, rev_var="beta"), Heun(20)], ids=lambda s: type(s).__name__
)
def test_scale_one_is_the_model_and_scale_zero_the_other_one_bit_for_bit(sampler: Any) -> None:
    for scale, alone in ((1.0, gaussian(MEAN, STD)), (0.0, gaussian(0.0, 1.0)), (1, gaussian(MEAN, STD))):
        one = sample(guided(scale), 7, sampler, seeds=range(7))
        other = sample(alone, 7, sampler, seeds=range(7))
        assert torch.equal(one.x, other.x)
        assert one.nfe == other.nfe


def test_a_scale_per_sample_is_that_scale_of_each_sample() -> None:
    scales = torch.tensor([0.0, 1.0, 2.5, 5.0])
    together = sample(guided(scales), 4, Heun(10), seeds=range(4)).x
    for i, scale in enumerate(scales.tolist()):
        alone = sample(guided(scale), 4, Heun(10), seeds=range(4)).x
        torch.testing.assert_close(together[i], alone[i], rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match=r"a scale must be one number or have one entry per sample, 3 here, got 4"):
        sample(guided(scales), 3, Heun(10))


def test_the_interval_is_the_same_for_numbers_and_tensors_of_time(generator: torch.Generator) -> None:
    model, x = guided(3.0, (0.2, 1.5)), torch.randn(5, 1, generator=generator, dtype=torch.float64)
    times = torch.tensor([0.1, 0.2, 0.8, 1.5, 1.6], dtype=torch.float64)
    each = model(x, times).v
    for i, tau in enumerate(times.tolist()):
        torch.testing.assert_close(model(x, tau).v[i], each[i], rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(
            model(x, torch.tensor(tau, dtype=torch.float64)).v[i], each[i], rtol=1e-12, atol=1e-13
        )
    inside = (times >= 0.2) & (times <= 1.5)
    torch.testing.assert_close(each[~inside], gaussian(MEAN, STD)(x, times).v[~inside], rtol=0, atol=1e-13)
    assert float((each[inside] - gaussian(MEAN, STD)(x, times).v[inside]).abs().min()) > 0.01
