"""The Ornstein–Uhlenbeck scalars, against arbitrary-precision arithmetic, autograd and their inverses."""

from __future__ import annotations

import math

import mpmath
import pytest
import torch
from torch import Tensor

from scoresde.process import ou

TAUS = torch.logspace(-7, math.log10(20.0), 300, dtype=torch.float64)
mpmath.mp.dps = 40


def _exact(tau: float) -> dict:
    tau_mp = mpmath.mpf(tau)
    variance = 1 - mpmath.exp(-2 * tau_mp)
    return {
        "alpha": mpmath.exp(-tau_mp),
        "alpha_bar": mpmath.exp(-2 * tau_mp),
        "sigma": mpmath.sqrt(variance),
        "log_snr": -2 * tau_mp - mpmath.log(variance),
        "angle": mpmath.acos(mpmath.exp(-tau_mp)),
    }


@pytest.mark.parametrize("name", ["alpha", "alpha_bar", "sigma", "log_snr", "angle"])
def test_every_scalar_agrees_with_arbitrary_precision_in_float64(name):
    function = getattr(ou, name)
    of_tensor = function(TAUS).tolist()
    for tau, value in zip(TAUS.tolist(), of_tensor, strict=True):
        exact = float(_exact(tau)[name])
        tolerance = 1e-15 * (1 + abs(exact)) if name == "log_snr" else 1e-14 * exact
        assert abs(value - exact) <= tolerance * 4
        assert abs(function(tau) - exact) <= tolerance * 4


def test_float32_keeps_sigma_and_log_snr_to_a_millionth_over_the_whole_range():
    taus = TAUS.float()
    sigma, log_snr = ou.sigma(taus), ou.log_snr(taus)
    assert sigma.dtype == log_snr.dtype == torch.float32
    worst = [0.0, 0.0]
    for i, tau in enumerate(taus.tolist()):  # the float32 number, converted to float64 tau_mp
        exact = _exact(tau)
        worst[0] = max(worst[0], float(abs(sigma[i].item() / exact["sigma"] - 1)))
        worst[1] = max(worst[1], float(abs(log_snr[i].item() - exact["log_snr"]) / (1 + abs(exact["log_snr"]))))
    assert worst[0] <= 1e-6
    assert worst[1] <= 1e-6


def test_float32_stays_accurate_for_alpha_and_the_angle():
    taus = TAUS.float()
    for name in ("alpha", "angle"):
        values = getattr(ou, name)(taus).tolist()
        for tau, value in zip(taus.tolist(), values, strict=True):
            assert value == pytest.approx(float(_exact(tau)[name]), rel=1e-6)


@pytest.mark.parametrize(
    ("function", "inverse", "tau_last"),
    [
        (ou.log_snr, ou.tau_from_log_snr, 20.0),
        (ou.alpha_bar, ou.tau_from_alpha_bar, 20.0),
        (ou.angle, ou.tau_from_angle, 8.0),  # at later times the angle rounds to π/2
    ],
)
def test_each_inverse_recovers_the_time(function, inverse, tau_last):
    taus = TAUS[tau_last >= TAUS]
    conditioning = 1 + ou.log_snr(taus).abs() + 1 / taus if function is ou.alpha_bar else 1 + ou.log_snr(taus).abs()
    growth = torch.exp(2 * taus) if function is ou.angle else torch.ones_like(taus)  # dτ/dφ = tan φ
    error = (inverse(function(taus)) / taus - 1).abs()
    assert bool((error <= 4e-16 * conditioning * growth + 4e-16 * growth).all())
    for tau in (1e-7, 0.3, 5.0):
        assert inverse(function(tau)) == pytest.approx(tau, rel=1e-8)


def test_signal_and_noise_have_unit_power_and_define_the_angle():
    alpha, sigma, phi = ou.alpha(TAUS), ou.sigma(TAUS), ou.angle(TAUS)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(TAUS), rtol=1e-15, atol=0)
    assert torch.allclose(torch.cos(phi), alpha, rtol=0, atol=1e-15)
    assert torch.allclose(torch.sin(phi), sigma, rtol=1e-14, atol=0)


def test_tau_zero_and_tau_infinity_give_the_limits():
    for zero in (0.0, torch.zeros((), dtype=torch.float64)):
        assert (float(ou.alpha(zero)), float(ou.sigma(zero)), float(ou.angle(zero))) == (1.0, 0.0, 0.0)
        assert float(ou.log_snr(zero)) == math.inf
    for end in (math.inf, torch.tensor(math.inf, dtype=torch.float64)):
        assert (float(ou.alpha(end)), float(ou.sigma(end)), float(ou.log_snr(end))) == (0.0, 1.0, -math.inf)
        assert float(ou.angle(end)) == math.pi / 2
    assert ou.tau_from_log_snr(math.inf) == 0.0
    assert ou.tau_from_log_snr(-math.inf) == math.inf
    assert ou.tau_from_alpha_bar(0.0) == math.inf


def test_the_derivatives_follow_from_the_process():
    # dα/dτ = -α, dσ/dτ = α²/σ, dlogSNR/dτ = -2/σ², dφ/dτ = α/σ
    for value in (1e-7, 1e-3, 0.3, 0.5 * math.log(2), 4.0, 20.0):
        tau = torch.tensor(value, dtype=torch.float64, requires_grad=True)
        alpha, sigma = ou.alpha(value), ou.sigma(value)
        derivatives = {
            ou.alpha: -alpha,
            ou.sigma: alpha**2 / sigma,
            ou.log_snr: -2 / sigma**2,
            ou.angle: alpha / sigma,
        }
        for function, slope in derivatives.items():
            assert torch.autograd.grad(function(tau), tau)[0].item() == pytest.approx(slope, rel=1e-11)
    log_snr = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(ou.tau_from_log_snr(log_snr), log_snr)[0].item() == -0.25  # -σ²/2 at σ² = 1/2


def test_two_steps_of_the_chain_compose_to_one_step():
    tau, middle, s = 1.3, 0.8, 0.05
    whole, late, early = ou.beta(tau, s), ou.beta(tau, middle), ou.beta(middle, s)
    assert isinstance(whole, float)
    assert whole == pytest.approx(1 - (1 - late) * (1 - early), rel=1e-14)
    assert ou.beta(1e-9, 0.0) == pytest.approx(2e-9 - 2e-18, rel=1e-15)
    of_tensor = ou.beta(torch.tensor([tau]), s)
    assert isinstance(of_tensor, Tensor)
    assert of_tensor.item() == pytest.approx(whole, rel=1e-6)
