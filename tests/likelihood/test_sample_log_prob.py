"""Samples drawn with their log-density: exact laws know what it must be."""

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
def test_a_samples_density_is_the_exact_one_whatever_the_way_back(sampler, generator: torch.Generator) -> None:
    model = GaussianMixture.ring()
    drawn = sample_log_prob(model, 20, sampler, generator=generator)
    exact = model.log_prob(drawn.x, model.sde.tau_min)
    mismatch = model.sde.prior_log_prob(drawn.scored.latent) - model.log_prob(drawn.scored.latent, model.sde.tau_max)
    assert torch.allclose(drawn.scored.log_prob, exact + mismatch, rtol=0, atol=2e-3)
    assert drawn.x.shape == (20, 2)
    assert drawn.scored.arrived.all()


def test_drawn_and_scored_again_are_the_same(generator: torch.Generator) -> None:
    model = GaussianMixture.ring(sde=VE())
    drawn = sample_log_prob(model, 10, AdaptiveSolver(1e-6), generator=generator)
    again = log_prob(model, drawn.x, solver=AdaptiveSolver(1e-6))
    assert torch.allclose(again.log_prob, drawn.scored.log_prob, rtol=0, atol=1e-5)
    assert torch.allclose(again.latent, drawn.scored.latent, rtol=1e-4, atol=1e-4)


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


def test_with_seeds_a_drawn_sample_does_not_depend_on_its_batch() -> None:
    model = GaussianMixture.ring()
    whole = sample_log_prob(model, 4, seeds=[1, 2, 3, 4], trace=Hutchinson(2))
    alone = sample_log_prob(model, 1, seeds=[3], trace=Hutchinson(2))
    split = sample_log_prob(model, 4, seeds=[1, 2, 3, 4], trace=Hutchinson(2), batch_size=3)
    assert torch.allclose(whole.x[2], alone.x[0], rtol=0, atol=1e-12)
    assert torch.allclose(whole.scored.log_prob[2:3], alone.scored.log_prob, rtol=0, atol=1e-9)
    assert torch.allclose(whole.scored.log_prob, split.scored.log_prob, rtol=0, atol=1e-9)


def test_importance_weights_find_the_targets_normalizer_and_mean(generator: torch.Generator) -> None:
    wide = Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)
    target = Gaussian(torch.tensor([0.4, -0.3], dtype=torch.float64), 0.5)
    drawn = sample_log_prob(wide, 4000, Adams(steps=4), generator=generator)
    found = importance_weights(target.log_prob(drawn.x) + 3.0, drawn.scored)
    assert found.log_normalizer == pytest.approx(3.0, abs=0.05)
    mean = (found.weights.unsqueeze(1) * drawn.x).sum(0)
    assert torch.allclose(mean, target.means[0], rtol=0, atol=0.05)
    # E_p[w²] = ∫ π²/p = exp(m²/1.5) / (0.5 · 1.5) in two dimensions, so n over it is the effective sample size
    expected = 4000 * 0.75 * math.exp(-0.25 / 1.5)
    assert found.effective_sample_size == pytest.approx(expected, rel=0.05)


def test_equal_laws_have_equal_weights(generator: torch.Generator) -> None:
    model = GaussianMixture.ring(sde=VPSDE(tau_min=1e-4))
    drawn = sample_log_prob(model, 50, generator=generator)
    found = importance_weights(drawn.scored.log_prob, drawn.scored)
    assert found.effective_sample_size == pytest.approx(50)


def test_none_are_drawn_when_none_are_asked_for() -> None:
    drawn = sample_log_prob(GaussianMixture.ring(), 0)
    assert drawn.x.shape == (0, 2)
    assert drawn.scored.log_prob.shape == (0,)


def test_what_has_no_density_along_its_path_is_refused() -> None:
    model = GaussianMixture.ring()
    with pytest.raises(ValueError, match="only where no noise is drawn, but DDPM"):
        sample_log_prob(model, 2, DDPM(10))
    with pytest.raises(ValueError, match=r"must end at tau_min = 1e-05, but DDIM.* ends at 0; give it another grid"):
        sample_log_prob(model, 2, DDIM(10, grid=Chain()))
    with pytest.raises(TypeError, match="must be a StepSampler or a Solver, got 'ddim'"):
        sample_log_prob(model, 2, "ddim")  # type: ignore[arg-type]


def test_weights_that_make_no_sense_are_refused() -> None:
    scored = sample_log_prob(GaussianMixture.ring(), 3).scored
    with pytest.raises(ValueError, match=r"one entry per sample, \(3,\), got \(2,\)"):
        importance_weights(torch.zeros(2), scored)
    with pytest.raises(ValueError, match="finite or -inf, got nan at index 1"):
        importance_weights(torch.tensor([0.0, math.nan, 0.0]), scored)
    with pytest.raises(ValueError, match="some sample must have a density"):
        importance_weights(torch.full((3,), -math.inf), scored)
