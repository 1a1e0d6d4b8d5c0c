"""The forward process and its views, against Bayes' rule and the formulas of each paper."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.process import ou
from scoresde.process.schedule import Cosine, FromBetas, GeometricSigma, LinearBetas, LinearVP
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP

VIEWS = [VPSDE(), VPSDE(LinearBetas()), VPSDE(Cosine()), VE(), SubVP(), Flow()]
every_view = pytest.mark.parametrize("sde", VIEWS, ids=repr)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _float64(value: float | Tensor) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _log_normal(x: Tensor, mean: float, std: float) -> Tensor:
    return torch.distributions.Normal(_float64(mean), _float64(std)).log_prob(x)


def _paper(sde: SDE, u: float) -> tuple[float, float]:
    """Signal and noise scale in the coordinates of the view, as in its paper."""
    if isinstance(sde, VE):
        return 1.0, 0.01 * (50 / 0.01) ** u
    if isinstance(sde, Flow):
        return 1 - u, u
    tau = 0.25 * u**2 * 19.9 + 0.05 * u  # Song et al. 2021, eqs. 33 and 29
    if isinstance(sde, SubVP):
        return math.exp(-tau), 1 - math.exp(-2 * tau)
    return math.exp(-tau), math.sqrt(1 - math.exp(-2 * tau))


def test_the_posterior_is_bayes_rule(generator):
    # p(x_s | x_tau, x0) ∝ N(x_s; α_s x0, σ_s²) N(x_tau; e^-Δ x_s, β): add precisions, add precision-weighted means
    x, x0 = _normal(generator, 6, 2), _normal(generator, 6, 2)
    for tau, s in ((1.0, 0.3), (1e-3, 1e-4), (5.0, 4.9), (0.7, 1e-7)):
        decay, beta, variance = math.exp(s - tau), -math.expm1(2 * (s - tau)), -math.expm1(-2 * s)
        precision = 1 / variance + decay**2 / beta
        mean = (math.exp(-s) * x0 / variance + decay * x / beta) / precision
        posterior_mean, posterior_variance = VPSDE().posterior(x, x0, tau, s)
        assert posterior_variance == pytest.approx(1 / precision, rel=1e-10)
        assert torch.allclose(posterior_mean, mean, rtol=1e-9, atol=1e-12)
        per_sample = VPSDE().posterior(x, x0, torch.full((6,), tau), torch.full((6,), s, dtype=torch.float64))
        assert torch.allclose(per_sample[0], mean, rtol=1e-3)  # tau rounded to float32 first


def test_the_posterior_is_ddpms_equation_7(generator):
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = torch.cumprod(1 - betas, 0)
    x, x0, knots = _normal(generator, 3), _normal(generator, 3), LinearBetas().knots(1000)
    for k in (2, 500, 1000):
        beta, bar, before = betas[k - 1], bars[k - 1], bars[k - 2]
        mean = before.sqrt() * beta / (1 - bar) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
        posterior_mean, posterior_variance = VPSDE(LinearBetas()).posterior(x, x0, knots[k], knots[k - 1])
        assert torch.allclose(posterior_mean, mean, rtol=1e-9)
        assert posterior_variance == pytest.approx((beta * (1 - before) / (1 - bar)).item(), rel=1e-9)


def test_the_posterior_of_the_first_step_is_the_data_without_noise(generator):
    x, x0 = _normal(generator, 2, 3), _normal(generator, 2, 3)
    mean, variance = VPSDE().posterior(x, x0, 0.4, 0.0)
    assert torch.equal(mean, x0)
    assert variance == 0.0
    mean, variance = Flow().posterior(x, x0, math.inf, 0.4)  # without signal: the distribution of x_s given x0
    assert torch.allclose(mean, math.exp(-0.4) * x0, rtol=1e-15)
    assert variance == pytest.approx(1 - math.exp(-0.8))


@pytest.mark.parametrize(("tau", "s"), [(0.3, 0.3), (0.3, 0.4), (torch.tensor([0.3, 0.2]), 0.25)])
def test_a_reverse_step_to_a_time_that_is_not_earlier_is_refused(tau, s):
    with pytest.raises(ValueError, match="s must be below tau, got"):
        VPSDE().posterior(torch.zeros(2), torch.zeros(2), tau, s)


def test_two_forward_steps_compose_to_one():
    s, tau = 0.2, 1.1
    assert ou.alpha(tau) == pytest.approx(ou.alpha(tau - s) * ou.alpha(s), rel=1e-15)
    variance = ou.alpha(tau - s) ** 2 * ou.sigma(s) ** 2 + float(ou.beta(tau, s))
    assert ou.sigma(tau) ** 2 == pytest.approx(variance, rel=1e-14)


def test_the_kernel_solves_the_moment_equations_of_drift_and_diffusion():
    # dm/dτ = drift(m) and dV/dτ = 2 drift'(x) V + diffusion²
    for sde in VIEWS[:1]:
        tau = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
        (mean_slope,) = torch.autograd.grad(ou.alpha(tau), tau)
        (variance_slope,) = torch.autograd.grad(ou.sigma(tau) ** 2, tau)
        one = torch.ones(1, dtype=torch.float64)
        assert mean_slope.item() == pytest.approx(sde.drift(ou.alpha(0.6) * one).item(), rel=1e-14)
        slope = 2 * sde.drift(one).item() * ou.sigma(0.6) ** 2 + sde.diffusion**2
        assert variance_slope.item() == pytest.approx(slope, rel=1e-14)


@every_view
@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)])
def test_perturb_combines_data_and_noise_of_any_event_shape_with_unit_power(sde, event, generator):
    x0, eps = _normal(generator, 4, *event), _normal(generator, 4, *event)
    tau = torch.tensor([2e-4, 0.1, 0.7, 3.0], dtype=torch.float64)
    x = sde.perturb(x0, tau, eps)
    for i in range(4):
        t = tau[i].item()
        assert torch.allclose(x[i], math.exp(-t) * x0[i] + math.sqrt(-math.expm1(-2 * t)) * eps[i], rtol=1e-14)
        assert torch.allclose(sde.perturb(x0, t, eps)[i], x[i], rtol=1e-15, atol=1e-15)
    assert torch.equal(sde.perturb(x0, 0.0, eps), x0)
    assert sde.perturb(x0[:0], tau[:0], eps[:0]).shape == (0, *event)


def test_perturb_refuses_invalid_times_and_shapes():
    x0 = torch.zeros(8, 3)
    with pytest.raises(ValueError, match=r"tau must have shape \(\) or \(B,\), got \(8, 1\)"):
        VPSDE().perturb(x0, torch.ones(8, 1), x0)
    with pytest.raises(ValueError, match=r"tau must have shape \(\) or \(8,\), got \(3,\)"):
        VPSDE().perturb(x0, torch.ones(3), x0)
    with pytest.raises(ValueError, match=r"noise must have the shape of x0, \(8, 3\), got \(8, 1\)"):
        VPSDE().perturb(x0, 0.5, torch.zeros(8, 1))
    for bad in (-0.1, math.nan, 5.1):
        with pytest.raises(ValueError, match="tau must lie in"):
            VPSDE().perturb(x0, bad, x0)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=repr)
def test_a_view_is_the_process_of_its_paper_divided_by_its_scale(sde):
    for u in (0.01, 0.3, 0.8, 0.99):
        tau = float(sde.schedule.tau(u))
        signal, noise = _paper(sde, u)
        assert float(sde.scale(tau)) * ou.alpha(tau) == pytest.approx(signal, rel=1e-10)
        assert float(sde.scale(tau)) * ou.sigma(tau) == pytest.approx(noise, rel=1e-10)
        assert float(sde.scale(tau)) == pytest.approx(math.hypot(signal, noise), rel=1e-10)
        assert sde.scale(torch.tensor([tau], dtype=torch.float64)).tolist() == pytest.approx([float(sde.scale(tau))])


def test_each_view_has_the_prior_of_its_paper():
    # in the view's coordinates: N(0, I), N(0, σ_max²) for VE
    for sde, std in ((VPSDE(), 1.0), (VE(), 50.0), (SubVP(), 1.0), (Flow(), 1.0)):
        in_view = sde.prior_std if sde.tau_max == math.inf else sde.prior_std * float(sde.scale(sde.tau_max))
        assert in_view == pytest.approx(std, rel=1e-12)
    assert VE(GeometricSigma(0.01, 5.0)).prior_std == pytest.approx(5 / math.sqrt(26), rel=1e-12)


@every_view
def test_the_prior_is_that_of_the_view_at_the_end_of_the_clock_and_standard_normal_earlier(sde, generator):
    like = torch.empty(200, 2, dtype=torch.float64)
    z = Noise(seeds=list(range(200))).normal(like)
    assert torch.equal(sde.prior(like, Noise(seeds=list(range(200)))), sde.prior_std * z)
    assert torch.equal(sde.prior(like, Noise(seeds=list(range(200))), 1.5), z)
    assert torch.allclose(sde.prior_log_prob(z), _log_normal(z, 0.0, sde.prior_std).sum(1), rtol=1e-13)
    assert sde.prior_log_prob(z.float()).dtype == torch.float64
    assert sde.prior_log_prob(z[:0]).shape == (0,)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=repr)
def test_a_log_density_in_the_coordinates_of_the_view_differs_by_the_logarithm_of_the_scale(sde):
    # Gaussian data N(m, v): in the view N(α̃ m, α̃² v + σ̃²); in x the same divided by c
    u, mean, variance = 0.4, 0.7, 0.3
    tau = float(sde.schedule.tau(u))
    signal, noise = _paper(sde, u)
    points = torch.tensor([-0.3, 0.2, 1.7], dtype=torch.float64)
    in_view = _log_normal(points, signal * mean, math.sqrt(signal**2 * variance + noise**2))
    alpha, sigma, c = ou.alpha(tau), ou.sigma(tau), float(sde.scale(tau))
    in_x = _log_normal(points / c, alpha * mean, math.sqrt(alpha**2 * variance + sigma**2))
    assert torch.allclose(in_view, in_x - math.log(c), rtol=1e-9)


@every_view
def test_the_marginal_has_its_scales_and_the_rate_of_the_clock(sde):
    for u in (0.05, torch.tensor([0.05, 0.5], dtype=torch.float64)):
        m = sde.marginal(u)
        assert torch.equal(_float64(m.tau), _float64(sde.schedule.tau(u)))
        assert torch.equal(_float64(m.rate), _float64(sde.schedule.rate(u)))
        assert torch.allclose(_float64(m.snr), _float64(m.alpha / m.sigma) ** 2, rtol=1e-13)
        assert torch.allclose(_float64(m.log_snr), torch.log(_float64(m.snr)), rtol=1e-13, atol=1e-13)
    assert sde.schedule.tau(sde.u_min) == pytest.approx(max(sde.tau_min, sde.schedule.tau_start), rel=1e-9)


@pytest.mark.parametrize("tau_min", [0.0, -1.0, math.nan, 6.0])
def test_a_cut_off_outside_the_clock_is_refused(tau_min):
    with pytest.raises(ValueError, match=r"tau_min must be positive and inside the clock .* choose a later tau_min"):
        VPSDE(tau_min=tau_min)
    with pytest.raises(ValueError, match="tau_min must be positive and inside the clock"):
        VE(tau_min=1e-6)  # GeometricSigma begins at 5e-5


def test_a_cut_off_at_the_start_of_a_clock_has_u_min_zero():
    sde = VE(tau_min=GeometricSigma().tau_start)
    assert sde.u_min == 0.0
    assert VPSDE(FromBetas((0.1, 1.0))).tau_max == math.inf
    assert VPSDE(LinearVP()).tau_max == pytest.approx(5.025, rel=1e-15)


@pytest.mark.parametrize("tau", [0.1, torch.tensor([0.1])])
def test_integer_data_are_refused_and_not_truncated(tau):
    integers = torch.tensor([[10, 200]], dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"x0 must be a floating tensor, got torch\.uint8; scale the data first"):
        VPSDE().perturb(integers, tau, torch.zeros(1, 2))


@pytest.mark.parametrize("schedule", [Cosine, "Cosine()"])
def test_a_clock_that_is_not_a_schedule_is_refused(schedule):
    with pytest.raises(TypeError, match="schedule must be a Schedule, got .*Cosine.*; pass an object"):
        VPSDE(schedule)
