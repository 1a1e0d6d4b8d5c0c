"""The tilted density by sequential Monte Carlo, against closed forms and quadrature."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from conditional_gaussians import MEANS, NULL, VARIANCES, conditional_model
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.guidance import CFG, Autoguidance, ClassifierGuidance, Composed
from scoresde.inverse import Tilted, TiltedSamples
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.sde import VE, VPSDE
from scoresde.sampling import DDPM, Eta, ExponentialSDE, Heun, SASolver

SDE = VPSDE(tau_min=1e-6)
MEAN, VARIANCE = 1.5, 0.25


def guided(scale: float, sde: Any = SDE) -> Autoguidance:
    conditional = Gaussian(torch.tensor([MEAN], dtype=torch.float64), VARIANCE, sde)
    return Autoguidance(conditional, Gaussian(torch.zeros(1, dtype=torch.float64), 1.0, sde), scale, conditional=False)


def tilted_moments(scale: float) -> tuple[float, float, float]:
    """Mean, variance and log normalizer of N(m, s²)^w N(0, 1)^(1 - w)."""
    variance = 1 / (scale / VARIANCE + 1 - scale)
    mean = scale * MEAN / VARIANCE * variance
    log_z = -0.5 * scale * math.log(2 * math.pi * VARIANCE) - 0.5 * (1 - scale) * math.log(2 * math.pi)
    exponent = scale * MEAN**2 / VARIANCE - mean**2 / variance
    return mean, variance, log_z + 0.5 * math.log(2 * math.pi * variance) - 0.5 * exponent


def moments(samples: TiltedSamples) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance of each population, ``(P,)``."""
    mean = samples.mean()[:, 0]
    return mean, (samples.log_weights.exp() * samples.x[..., 0].square()).sum(1) - mean.square()


def assert_covers(values: Tensor, truth: float, bias: float) -> None:
    """The mean of independent estimates lies within 4 standard errors and a stated bias of the truth."""
    assert abs(float(values.mean()) - truth) < 4 * float(values.std()) / len(values) ** 0.5 + bias


@pytest.mark.parametrize("scale", [0.5, 2.0, 3.0, 5.0])
def test_weighted_particles_have_the_moments_and_the_normalizer_of_the_tilted_density(scale: float) -> None:
    samples = Tilted().sample(guided(scale), 500, 12, seeds=range(12))
    mean, variance, log_z = tilted_moments(scale)
    means, variances = moments(samples)
    assert_covers(means, mean, 0.01)
    assert_covers(variances / variance, 1.0, 0.03)
    assert_covers(samples.log_normalizer, log_z, 0.05)
    assert float((samples.log_normalizer - log_z).abs().max()) < 4 * float(samples.standard_error.mean()) + 0.05
    assert samples.nfe == 802


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2.0, 3.0, 5.0])
def test_with_many_particles_mean_and_variance_are_within_two_percent(scale: float) -> None:
    samples = Tilted().sample(guided(scale), 40_000, 2, seeds=range(2))
    mean, variance, _ = tilted_moments(scale)
    means, variances = moments(samples)
    assert abs(float(means.mean()) - mean) < 0.01
    assert abs(float(variances.mean()) / variance - 1) < 0.02


@pytest.mark.parametrize("sampler", [ExponentialSDE(200), DDPM(400), SASolver(100, noise=Eta(1.0)), Heun(100)], ids=str)
def test_the_rate_of_the_weights_does_not_depend_on_the_noise(sampler: Any) -> None:
    samples = Tilted(sampler, threshold=0.5 if sampler.stochastic else 0.0).sample(
        guided(1.5), 1000, 12, seeds=range(12)
    )
    mean, variance, log_z = tilted_moments(1.5)
    means, variances = moments(samples)
    assert_covers(means, mean, 0.015)
    assert_covers(variances / variance, 1.0, 0.05)
    assert_covers(samples.log_normalizer, log_z, 0.02)


def test_the_shares_of_the_modes_of_a_tilted_mixture_are_those_of_quadrature() -> None:
    means = torch.tensor([[-1.2], [0.9]], dtype=torch.float64)
    conditional = GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.tensor([0.06, 0.1]).double(), SDE)
    other = GaussianMixture(torch.tensor([0.6, 0.4]), means, torch.tensor([0.2, 0.3]).double(), SDE)
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)[:, None]
    density = (2 * conditional.log_prob(grid) - other.log_prob(grid)).exp()
    share = float(density[grid[:, 0] > 0].sum() / density.sum())
    model = Autoguidance(conditional, other, 2.0, conditional=False)
    samples = Tilted().sample(model, 500, 12, seeds=range(12))
    shares = (samples.log_weights.exp() * (samples.x[..., 0] > 0)).sum(1)
    assert_covers(shares, share, 0.01)
    assert_covers(samples.log_normalizer, math.log(float(density.sum()) * 0.002), 0.05)


def test_a_composition_reaches_the_product_of_its_densities() -> None:
    model = Composed(conditional_model(), {"label": 1.5, "style": 1.0}, null={"label": NULL, "style": NULL})
    # N(mean[label] + mean[style], variance[label] variance[style]), and the null's N(0, 1)
    precision = 1.5 / VARIANCES[0] + 1.0 / VARIANCES[1] + (1 - 1.5 - 1.0)
    mean = (1.5 * torch.tensor(MEANS[0]) / VARIANCES[0] + torch.tensor(MEANS[1]) / VARIANCES[1]) / precision
    cond: Any = {"label": torch.zeros(8, dtype=torch.int64), "style": torch.ones(8, dtype=torch.int64)}
    samples = Tilted().sample(model, 400, 8, seeds=range(8), dtype=torch.float64, **cond)
    for axis in range(2):
        assert_covers(samples.mean()[:, axis], float(mean[axis]), 0.02)
    assert samples.nfe == 3 * 401


def test_scale_one_is_the_conditional_model_with_equal_weights() -> None:
    samples = Tilted(ExponentialSDE(50)).sample(guided(1.0), 40, 2, seeds=[3, 4])
    assert bool((samples.log_weights == -math.log(40)).all())
    assert samples.ess.tolist() == pytest.approx([40.0, 40.0])
    assert samples.log_normalizer.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)
    assert samples.standard_error.tolist() == pytest.approx([0.0, 0.0], abs=1e-12)


def test_a_population_depends_on_its_seed_and_condition_only() -> None:
    model, tilted = CFG(conditional_model(), 3.0, {"label": NULL}), Tilted(ExponentialSDE(30), threshold=0.9)
    labels = torch.tensor([0, 2, 1])
    together = tilted.sample(model, 16, 3, seeds=[5, 6, 7], label=labels, dtype=torch.float64)
    for i in range(3):
        alone = tilted.sample(model, 16, 1, seeds=[5 + i], label=labels[i : i + 1], dtype=torch.float64)
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(alone.log_weights[0], together.log_weights[i], rtol=1e-9, atol=1e-9)
    assert bool((together.standard_error > 0).all())
    before = torch.random.get_rng_state()
    tilted.sample(model, 4, generator=torch.Generator().manual_seed(0), label=labels[:1])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_drawn_samples_have_equal_weights_and_the_same_mean() -> None:
    samples = Tilted(ExponentialSDE(100), threshold=0.0).sample(guided(1.5), 4000, 2, seeds=[0, 1])
    drawn = samples.draw(torch.Generator().manual_seed(0))
    assert drawn.shape == samples.x.shape
    torch.testing.assert_close(drawn.mean(1), samples.mean(), rtol=0, atol=0.01)
    assert abs(float(drawn[0, :2000].mean() - drawn[0, 2000:].mean())) < 0.1  # in random order


def test_the_samples_are_in_the_coordinates_of_the_view_at_its_first_time() -> None:
    sde = VE(tau_min=0.1)
    samples = Tilted().sample(guided(2.0, sde), 500, 8, seeds=range(8))
    alpha2, scale2 = ou.alpha_bar(0.1), float(sde.scale(0.1)) ** 2
    conditional, null = alpha2 * VARIANCE + 1 - alpha2, 1.0
    variance = 1 / (2 / conditional - 1 / null)
    means, variances = moments(samples)
    assert samples.tau == 0.1
    assert_covers(means, 2 * MEAN * alpha2**0.5 / conditional * variance * scale2**0.5, 0.01)
    assert_covers(variances / (variance * scale2), 1.0, 0.03)


def test_nothing_reads_a_value_in_the_loop() -> None:
    with FakeTensorMode(), torch.device("meta"):
        model = ScoreModel(MLP((3,), 8, 1, 8, conditions={"label": Classes(3)}), VPSDE(), V(), (3,))
        for sampler in (ExponentialSDE(3), SASolver(3, noise=Eta(2.0)), DDPM(3)):
            samples = Tilted(sampler).sample(CFG(model, 2.0), 4, 2, label=torch.zeros(2, dtype=torch.int64))
            assert samples.x.shape == (2, 4, 3)
            assert samples.log_weights.shape == (2, 4)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: guided(2.0).model, TypeError, r"Tilted needs a model guided by a combination of models, got Gaussian"),
        (
            lambda: ClassifierGuidance(guided(2.0).model, lambda x, tau: x.sum(1)),
            TypeError,
            r"Tilted needs a model guided by a combination of models, got ClassifierGuidance",
        ),
        (
            lambda: Autoguidance(guided(2.0).model, guided(2.0).weaker, 2.0, (0.1, 1.0)),
            ValueError,
            r"Tilted needs scales that are numbers, at all times and without rescaling.*interval \(0\.1, 1\.0\)",
        ),
        (lambda: CFG(conditional_model(), torch.ones(4)), ValueError, r"Tilted needs scales that are numbers"),
        (lambda: CFG(conditional_model(), 2.0, rescale=0.5), ValueError, r"and rescale 0\.5"),
    ],
)
def test_models_without_a_tilted_density_are_refused(make: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        Tilted().sample(make(), 4)


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold must lie in \[0, 1\], got 1\.5"):
        Tilted(threshold=1.5)
    for particles, populations in ((0, 1), (4, 0)):
        with pytest.raises(ValueError, match=r"must be a positive integer, got 0"):
            Tilted().sample(guided(2.0), particles, populations)
    with pytest.raises(ValueError, match=r"label must have one entry per population, 2, got 3"):
        Tilted().sample(CFG(conditional_model(), 2.0, {"label": NULL}), 4, 2, label=torch.zeros(3).long())
    with pytest.raises(TypeError, match=r"'text' is neither an option nor read by the network"):
        Tilted().sample(CFG(conditional_model(), 2.0), 4, 2, text=torch.zeros(2))


def test_a_network_that_returns_nan_is_an_error() -> None:
    class Broken(torch.nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
            return torch.full_like(x, torch.nan)

    model = CFG(ScoreModel(Broken(), VPSDE(), V(), (2,)), 2.0, {"label": 0})
    with pytest.raises(RuntimeError, match=r"particles and weights must be finite"):
        Tilted(ExponentialSDE(3)).sample(model, 4, label=torch.zeros(1).long())
