"""Log-densities of samples along their own trajectories, against exact models."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.likelihood import AdaptiveSolver, Hutchinson, TorchDiffEq, importance_weights, log_prob, sample_log_prob
from scoresde.process import ou
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import DDIM, DDPM, Adams, Chain, RungeKutta
from scoresde.sampling.grid import DenseEnds


@pytest.mark.parametrize(
    "sampler",
    [
        None,
        AdaptiveSolver(0.3),
        TorchDiffEq(),
        Adams(steps=12),
        DDIM(8, grid=DenseEnds()),
        RungeKutta(6, grid=DenseEnds()),
    ],
    ids=str,
)
def test_the_log_density_of_a_sample_is_exact_for_every_sampler(sampler, generator: torch.Generator) -> None:
    model = GaussianMixture.ring()
    samples = sample_log_prob(model, 20, sampler, generator=generator)
    exact = model.log_prob(samples.x, model.sde.tau_min)
    mismatch = model.sde.prior_log_prob(samples.scored.latent) - model.log_prob(
        samples.scored.latent, model.sde.tau_max
    )
    assert torch.allclose(samples.scored.log_prob, exact + mismatch, rtol=0, atol=2e-3)
    assert samples.x.shape == (20, 2)
    assert samples.scored.arrived.all()


def test_samples_that_are_scored_again_have_the_same_log_density(generator: torch.Generator) -> None:
    model = GaussianMixture.ring(sde=VE())
    samples = sample_log_prob(model, 10, AdaptiveSolver(1e-6), generator=generator)
    again = log_prob(model, samples.x, solver=AdaptiveSolver(1e-6))
    assert torch.allclose(again.log_prob, samples.scored.log_prob, rtol=0, atol=1e-5)
    assert torch.allclose(again.latent, samples.scored.latent, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6])
def test_encoding_and_decoding_returns_the_data_to_the_tolerance(tol: float, generator: torch.Generator) -> None:
    model = GaussianMixture.ring()
    low, high = model.sde.tau_min, model.sde.tau_max
    x = model.sample(64, low, generator)
    latent = log_prob(model, x, solver=AdaptiveSolver(tol)).latent

    def velocity(rows: Tensor, phi: Tensor, x: Tensor) -> Tensor:
        return model(x, torch.as_tensor(ou.tau_from_angle(phi)).clamp(low, high)).v

    back = AdaptiveSolver(tol).solve(velocity, latent, float(ou.angle(high)), float(ou.angle(low))).end
    error = (back - x).square().mean(1).sqrt()
    assert error.median() < 0.3 * tol
    assert error.max() < 5 * tol


def test_with_seeds_a_sample_does_not_depend_on_its_batch() -> None:
    model = GaussianMixture.ring()
    whole = sample_log_prob(model, 4, seeds=[1, 2, 3, 4], trace=Hutchinson(2))
    alone = sample_log_prob(model, 1, seeds=[3], trace=Hutchinson(2))
    split = sample_log_prob(model, 4, seeds=[1, 2, 3, 4], trace=Hutchinson(2), batch_size=3)
    assert torch.allclose(whole.x[2], alone.x[0], rtol=0, atol=1e-12)
    assert torch.allclose(whole.scored.log_prob[2:3], alone.scored.log_prob, rtol=0, atol=1e-9)
    assert torch.allclose(whole.scored.log_prob, split.scored.log_prob, rtol=0, atol=1e-9)


def test_importance_weights_estimate_the_normalizer_and_mean_of_the_target(generator: torch.Generator) -> None:
    proposal = Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)
    target = Gaussian(torch.tensor([0.4, -0.3], dtype=torch.float64), 0.5)
    samples = sample_log_prob(proposal, 4000, Adams(steps=4), generator=generator)
    weights = importance_weights(target.log_prob(samples.x) + 3.0, samples.scored)
    assert weights.log_normalizer == pytest.approx(3.0, abs=0.05)
    mean = (weights.weights.unsqueeze(1) * samples.x).sum(0)
    assert torch.allclose(mean, target.means[0], rtol=0, atol=0.05)
    # E_p[w²] = ∫ π²/p = exp(m²/1.5) / (0.5 · 1.5) in two dimensions, so n over it is the effective sample size
    expected = 4000 * 0.75 * math.exp(-0.25 / 1.5)
    assert weights.effective_sample_size == pytest.approx(expected, rel=0.05)


def test_equal_distributions_have_equal_weights(generator: torch.Generator) -> None:
    model = GaussianMixture.ring(sde=VPSDE(tau_min=1e-4))
    samples = sample_log_prob(model, 50, generator=generator)
    weights = importance_weights(samples.scored.log_prob, samples.scored)
    assert weights.effective_sample_size == pytest.approx(50)


def test_an_empty_batch_of_samples_has_no_log_densities() -> None:
    samples = sample_log_prob(GaussianMixture.ring(), 0)
    assert samples.x.shape == (0, 2)
    assert samples.scored.log_prob.shape == (0,)


def test_samplers_without_a_density_along_their_trajectory_are_refused() -> None:
    model = GaussianMixture.ring()
    with pytest.raises(ValueError, match="only if no noise is drawn, but DDPM"):
        sample_log_prob(model, 2, DDPM(10))
    with pytest.raises(ValueError, match=r"must end at tau_min = 1e-05, but DDIM.* ends at 0; use another grid"):
        sample_log_prob(model, 2, DDIM(10, grid=Chain()))
    with pytest.raises(TypeError, match="must be a StepSampler or a Solver, got 'ddim'"):
        sample_log_prob(model, 2, "ddim")  # type: ignore[arg-type]


def test_invalid_target_log_densities_are_refused() -> None:
    scored = sample_log_prob(GaussianMixture.ring(), 3).scored
    with pytest.raises(ValueError, match=r"one entry per sample, \(3,\), got \(2,\)"):
        importance_weights(torch.zeros(2), scored)
    with pytest.raises(ValueError, match="finite or -inf, got nan at index 1"):
        importance_weights(torch.tensor([0.0, math.nan, 0.0]), scored)
    with pytest.raises(ValueError, match="at least one sample must have a density"):
        importance_weights(torch.full((3,), -math.inf), scored)
