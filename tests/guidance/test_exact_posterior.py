"""`given`: the exact posterior of a mixture, against Bayes' theorem at single points."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from scoresde.analytic import Gaussian, GaussianMixture, KernelDensity
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import AveragePool, Function, Mask, Matrix
from scoresde.process.sde import VE


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariances(*shape: int, seed: int = 3) -> Tensor:
    factor = draw(*shape, shape[-1], seed=seed)
    return factor @ factor.mT / shape[-1] + 0.1 * torch.eye(shape[-1]).double()


MODELS: dict[str, Any] = {
    "Gaussian": lambda: Gaussian(draw(4), covariances(4)),
    "Gaussian, diagonal": lambda: Gaussian(draw(2, 2), torch.tensor([0.2, 1.0, 3.0, 0.5]).double()),
    "mixture": lambda: GaussianMixture(torch.tensor([1.0, 2.0, 3.0]), draw(3, 4), covariances(3, 4)),
    "mixture, isotropic": lambda: GaussianMixture(torch.tensor([1.0, 2.0]), draw(2, 4), torch.tensor([0.3, 0.1])),
    "kernel density": lambda: KernelDensity(draw(7, 4), 0.3),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows", [1, 3, 6])
def test_the_posterior_is_prior_times_likelihood_over_evidence(name: str, rows: int) -> None:
    model, matrix, y = MODELS[name](), draw(rows, 4, seed=5), draw(rows, seed=6)
    noise_cov = 0.2 * covariances(rows, seed=7)
    posterior, log_evidence = model.given(matrix, y, noise_cov)
    x = draw(20, *model.event_shape, seed=8)
    likelihood = torch.distributions.MultivariateNormal(x.flatten(1) @ matrix.mT, noise_cov).log_prob(y)
    expected = model.log_prob(x) + likelihood - log_evidence
    torch.testing.assert_close(posterior.log_prob(x), expected, rtol=1e-9, atol=1e-8)
    assert posterior.event_shape == model.event_shape


def test_the_process_is_kept() -> None:
    sde = VE()
    assert Gaussian(draw(2), 1.0, sde).given(draw(1, 2), draw(1), torch.eye(1))[0].sde is sde


def test_without_noise_samples_reproduce_the_measurement_and_evidence_is_the_density_of_it() -> None:
    model, matrix, y = MODELS["mixture"](), draw(2, 4, seed=5), draw(2, seed=6)
    posterior, log_evidence = model.given(matrix, y)
    samples = posterior.sample(50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(samples @ matrix.mT, y.expand(50, 2), rtol=1e-6, atol=1e-6)
    image = GaussianMixture(model.log_weights.exp(), model.means @ matrix.mT, matrix @ covariances(3, 4) @ matrix.mT)
    torch.testing.assert_close(log_evidence, image.log_prob(y.reshape(1, 2))[0])


def test_a_full_measurement_without_noise_leaves_a_point() -> None:
    y = draw(4, seed=6)
    posterior, log_evidence = MODELS["mixture"]().given(torch.eye(4), y)
    torch.testing.assert_close(posterior.means, y.expand(3, 4))
    assert float(posterior.variances.max()) < 1e-14
    torch.testing.assert_close(log_evidence, MODELS["mixture"]().log_prob(y.reshape(1, 4))[0])


def test_only_measured_entries_of_a_mask_count() -> None:
    model, observed = MODELS["mixture"](), torch.tensor([True, False, True, False])
    y = torch.tensor([0.3, math.nan, -0.2, math.nan]).double()
    std = torch.tensor([0.5, 1.0, 0.2, 7.0]).double()
    posterior, log_evidence = model.given(Observation(Mask(observed), y, noise_std=std))
    rows = torch.eye(4).double()[observed]
    expected, log_expected = model.given(rows, y[observed], torch.diag(std[observed].square()))
    torch.testing.assert_close(log_evidence, log_expected)
    torch.testing.assert_close(posterior.log_prob(draw(5, 4)), expected.log_prob(draw(5, 4)))


def test_nothing_measured_leaves_the_prior() -> None:
    model = MODELS["mixture"]()
    posterior, log_evidence = model.given(Observation(Mask(torch.zeros(4, dtype=torch.bool)), draw(4), noise_std=0.0))
    assert float(log_evidence) == pytest.approx(0.0, abs=1e-12)
    torch.testing.assert_close(posterior.log_prob(draw(5, 4)), model.log_prob(draw(5, 4)))


def test_one_of_several_observations_is_taken_by_index() -> None:
    model, observed = MODELS["kernel density"](), torch.tensor([[True, False, True, False], [False, True, True, True]])
    several = Observation(Mask(observed, per_observation=True), draw(2, 4), noise_std=0.1)
    alone = Observation(Mask(observed[1]), draw(2, 4)[1], noise_std=0.1)
    torch.testing.assert_close(model.given(several, index=1)[1], model.given(alone)[1])
    with pytest.raises(ValueError, match="2 observations need an index"):
        model.given(several)
    with pytest.raises(ValueError, match="index must be an integer from 0 to 1, got 2"):
        model.given(several, index=2)


def test_improbable_components_underflow_without_harm() -> None:
    model = GaussianMixture(torch.ones(2), torch.tensor([[-50.0], [50.0]]).double(), torch.full((2,), 0.01))
    posterior, log_evidence = model.given(torch.eye(1), torch.tensor([50.0]), 1e-4 * torch.eye(1))
    assert posterior.means.tolist() == [[50.0]]
    assert float(log_evidence) == pytest.approx(-math.log(2) - 0.5 * math.log(2 * math.pi * 0.0101))


def test_images_keep_their_shape() -> None:
    model = KernelDensity(draw(5, 1, 4, 4), 0.2)
    posterior, _ = model.given(Observation(AveragePool((1, 4, 4), 2), draw(1, 2, 2), noise_std=0.01))
    samples = posterior.sample(3, generator=torch.Generator().manual_seed(0))
    assert samples.shape == (3, 1, 4, 4)
    torch.testing.assert_close(AveragePool((1, 4, 4), 2)(samples), draw(1, 2, 2).expand(3, 1, 2, 2), rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((torch.ones(2, 4), torch.ones(2)), "must be positive definite"),
        ((torch.ones(2, 3), torch.ones(2)), r"A must have shape \(M, 4\)"),
        ((torch.ones(2, 4), torch.ones(3)), "y and noise_cov must have shapes"),
        ((torch.ones(2, 4),), "y is missing"),
        ((torch.full((1, 4), math.nan), torch.ones(1)), "A must be finite"),
        ((Observation(Matrix(torch.ones(2, 4)), torch.ones(2), noise_std=1.0), torch.ones(2)), "leave y and noise_cov"),
        ((Observation(Function(torch.sin, (4,), (4,)), torch.ones(4), noise_std=1.0),), "needs a linear operator"),
    ],
)
def test_arguments_without_an_exact_posterior_are_refused(arguments: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        MODELS["mixture"]().given(*arguments)
