"""Every parameterization of the package: targets, estimates and errors agree for one pair of data and noise."""

from __future__ import annotations

import math

import pytest
import torch
from subclasses import concrete
from torch import Tensor

from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.prediction import GaussianPrediction
from scoresde.process.schedule import Cosine, FromBetas, LinearBetas
from scoresde.process.sde import VPSDE

ALL = [cls() for cls in concrete(Parameterization)]
MORE = [V(sigma_data=0.5), V(sigma_data=2.0), PosteriorMean(Cosine(), 50)]
every = pytest.mark.parametrize("parameterization", [*ALL, *MORE], ids=repr)


def _pair(generator: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    return tuple(torch.randn(2, *shape, generator=generator, dtype=torch.float64))  # pyright: ignore[reportReturnType]


def test_the_six_parameterizations_of_the_literature_are_covered():
    assert {Eps, X0, Score, V, Velocity, PosteriorMean} <= {type(p) for p in ALL}


@every
def test_the_target_as_output_gives_data_noise_score_and_v(parameterization, generator):
    x0, eps = _pair(generator, 5, 3)
    for tau in (1e-5, 1e-3, 0.2, 1.0, 4.0):
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        x = VPSDE().perturb(x0, tau, eps)
        for time in (tau, torch.full((5,), tau, dtype=torch.float64), torch.tensor(tau, dtype=torch.float64)):
            p = GaussianPrediction(x, time, parameterization.target(x0, eps, time), parameterization)
            tolerance = 1e-13 / min(sigma, alpha) if not isinstance(parameterization, PosteriorMean) else 1e-8
            assert torch.allclose(p.eps, eps, rtol=0, atol=tolerance / sigma)
            assert torch.allclose(p.x0, x0, rtol=0, atol=tolerance / alpha)
            assert torch.allclose(p.v, alpha * eps - sigma * x0, rtol=0, atol=tolerance / min(sigma, alpha))
            assert torch.allclose(p.score, -eps / sigma, rtol=0, atol=tolerance / sigma**2)


@every
def test_the_four_estimates_are_consistent_for_any_output(parameterization, generator):
    x, out = _pair(generator, 4, 2)
    for tau in (0.02, 0.5, 2.5):
        p, alpha, sigma = GaussianPrediction(x, tau, out, parameterization), ou.alpha(tau), ou.sigma(tau)
        assert torch.allclose(alpha * p.x0 + sigma * p.eps, x, rtol=0, atol=1e-9)
        assert torch.allclose(alpha * p.eps - sigma * p.x0, p.v, rtol=1e-9, atol=1e-9)
        assert torch.allclose(p.score, -p.eps / sigma, rtol=1e-12)


@every
def test_eps_factor_is_the_ratio_of_the_eps_error_to_the_output_error(parameterization, generator):
    x, out = _pair(generator, 4, 2)
    for tau in (0.02, 0.5, 2.5):
        eps, shifted_eps = (GaussianPrediction(x, tau, out + shift, parameterization).eps for shift in (0.0, 1.0))
        assert (eps - shifted_eps).abs().flatten().tolist() == pytest.approx(
            [abs(parameterization.eps_factor(tau))] * 8, rel=1e-9
        )


@every
def test_estimates_are_computed_once_on_first_access(parameterization, generator):
    x, out = _pair(generator, 4, 2)
    p = GaussianPrediction(x, 0.5, out, parameterization)
    assert not {"eps", "x0", "score", "v"} & set(vars(p))
    assert p.x0 is p.x0
    assert not {"eps", "score", "v"} & set(vars(p))


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_estimates_have_the_type_of_the_state(parameterization, dtype):
    x = torch.ones(3, 2, dtype=dtype)
    p = GaussianPrediction(x, torch.full((3,), 0.4, dtype=torch.float64), x, parameterization)
    assert p.eps.dtype == p.x0.dtype == p.score.dtype == p.v.dtype == dtype


def test_the_errors_of_x0_score_and_v_are_the_stated_factors_of_the_eps_error(generator):
    # x0-error = eps-error / SNR, score-error = eps-error / σ², v-error = eps-error / α² (squared)
    tau = 0.8
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    for parameterization, factor in ((X0(), alpha / sigma), (Score(), sigma), (V(), alpha), (Eps(), 1.0)):
        assert abs(float(parameterization.eps_factor(tau))) == pytest.approx(factor, rel=1e-14)


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_v_with_a_data_scale_is_minus_the_target_of_edms_preconditioning(sigma_data, generator):
    x0, eps = _pair(generator, 6)
    for tau in (1e-4, 0.3, 3.0):
        ratio = float(ou.sigma(tau) / ou.alpha(tau))  # EDM's σ, with x̃ = x0 + σ eps
        skip = sigma_data**2 / (ratio**2 + sigma_data**2)
        out = ratio * sigma_data / math.hypot(ratio, sigma_data)
        edm = (x0 - skip * (x0 + ratio * eps)) / out
        assert torch.allclose(V(sigma_data).target(x0, eps, tau), -edm, rtol=1e-9, atol=1e-12)


def test_v_of_data_with_its_scale_has_unit_variance_at_every_time():
    for sigma_data in (0.3, 1.0, 2.0):
        for tau in (1e-5, 0.2, 4.0):
            p, q = V(sigma_data).coefficients(tau)
            assert p**2 * sigma_data**2 + q**2 == pytest.approx(1.0, rel=1e-14)


def test_the_posterior_mean_target_is_that_of_the_posterior_on_every_step_of_the_chain(generator):
    x0, eps = _pair(generator, 3)
    for schedule, steps in ((LinearBetas(), 1000), (Cosine(), 50), (FromBetas((0.1, 0.5, 1.0)), 3)):
        sde, knots = VPSDE(schedule), schedule.knots(steps)
        for k in (1, 2, steps // 2 + 1, steps):
            mean, _ = sde.posterior(sde.perturb(x0, knots[k], eps), x0, knots[k], knots[k - 1])
            target = PosteriorMean(schedule, steps).target(x0, eps, knots[k])
            assert torch.allclose(target, mean, rtol=1e-9, atol=1e-12)
            batch = PosteriorMean(schedule, steps).target(x0, eps, torch.full((3,), knots[k], dtype=torch.float64))
            assert torch.allclose(batch, mean, rtol=1e-9, atol=1e-12)


def test_ddpms_reverse_mean_from_eps_is_the_posterior_mean_parameterization(generator):
    # equation 11: (x - β/√(1 - ᾱ) ε)/√(1 - β)
    x, eps_hat = _pair(generator, 4)
    knots = LinearBetas().knots(1000)
    for k in (2, 300, 1000):
        beta = float(ou.beta(knots[k], knots[k - 1]))
        mean = (x - beta / float(ou.sigma(knots[k])) * eps_hat) / math.sqrt(1 - beta)
        p = GaussianPrediction(x, knots[k], mean, PosteriorMean())
        assert torch.allclose(p.eps, eps_hat, rtol=0, atol=1e-9)


def test_a_parameterization_that_determines_x0_without_signal_gives_data_and_v_there(generator):
    x0, eps = _pair(generator, 4)
    for parameterization in (X0(), V(), V(0.5), Velocity(), PosteriorMean(FromBetas((0.1, 1.0)), 2)):
        for tau in (math.inf, torch.full((4,), math.inf, dtype=torch.float64)):
            p = GaussianPrediction(eps, tau, parameterization.target(x0, eps, tau), parameterization)
            assert torch.allclose(p.x0, x0, rtol=1e-14)
            assert torch.allclose(p.v, -x0, rtol=1e-14)
            assert torch.allclose(p.eps, eps, rtol=1e-14)


def test_a_data_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match=r"sigma_data must be a positive finite number, got 0.0"):
        V(sigma_data=0.0)
