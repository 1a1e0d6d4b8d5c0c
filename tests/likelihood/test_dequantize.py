"""Dequantizations: exact densities, exact draws, and the gain of a trained one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest, truncnorm
from torch import Tensor, nn

from scoresde._core.noise import Noise
from scoresde.analytic import GaussianMixture
from scoresde.data import Description
from scoresde.likelihood.bounds.continuous import continuous_vlb
from scoresde.likelihood.dequantize import Dequantization, TruncatedNormalDequantization, UniformDequantization
from scoresde.likelihood.variational_dequantization import VariationalDequantization, fit_variational
from scoresde.model import ScoreModel
from scoresde.process.sde import VE, VPSDE

D = torch.float64
DESCRIPTION = Description("toy", (1, 2, 2), bins=4)


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def perturb_weights(dequantization: VariationalDequantization, generator: torch.Generator) -> VariationalDequantization:
    with torch.no_grad():
        for weight in dequantization.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return dequantization


def dequantizations(generator: torch.Generator) -> list[Dequantization]:
    return [
        UniformDequantization(),
        TruncatedNormalDequantization(0.2),
        TruncatedNormalDequantization(3.0),
        perturb_weights(VariationalDequantization(DESCRIPTION), generator),
    ]


# --- every dequantization --------------------------------------------------------------------------------------------


class GivenNumbers(Noise):
    """Returns given numbers as its uniform draws."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def uniform(self, like: Tensor) -> Tensor:
        return self.numbers


def test_log_q_is_minus_the_log_derivative_of_the_draw_in_its_uniform_number() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(4, (6, 1, 2, 2), generator=generator)
    for dequantization in dequantizations(generator):
        numbers = torch.rand(values.shape, generator=generator, dtype=D) * 0.98 + 0.01
        numbers.requires_grad_()
        y, log_q = dequantization.draw(values, GivenNumbers(numbers))
        slope = torch.autograd.grad(y.sum(), numbers)[0]
        assert torch.allclose(log_q, -slope.log().flatten(1).sum(1), rtol=0, atol=1e-8)


def test_y_stays_in_its_bin_and_with_seeds_does_not_depend_on_neighbors(generator) -> None:
    values = torch.randint(4, (500, 1, 2, 2), generator=generator)
    for dequantization in [
        *dequantizations(generator),
        TruncatedNormalDequantization(1e-9),
        TruncatedNormalDequantization(1e9),
    ]:
        y, log_q = dequantization.draw(values, noise())
        assert torch.equal(y.floor().long(), values)
        assert log_q.dtype == y.dtype == D
        assert bool(torch.isfinite(log_q).all())
        whole = dequantization.draw(values[:5], Noise(seeds=range(5)))
        part = dequantization.draw(values[3:5], Noise(seeds=[3, 4]))
        assert torch.allclose(whole[0][3:], part[0], rtol=0, atol=1e-6)
        edge, log_q = dequantization.draw(values[:1], GivenNumbers(torch.zeros(1, 1, 2, 2, dtype=D)))
        assert torch.equal(edge.floor().long(), values[:1])
        assert bool(torch.isfinite(log_q).all())
        assert dequantization.draw(values[:0], noise())[1].shape == (0,)


# --- truncated normal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.05, 0.3, 2.0])
def test_the_truncated_normal_has_the_draws_and_density_of_scipys(std: float) -> None:
    values = torch.full((4000,), 7)
    y, log_q = TruncatedNormalDequantization(std).draw(values, noise())
    distribution = truncnorm(-0.5 / std, 0.5 / std, loc=7.5, scale=std)
    assert kstest(y.numpy(), distribution.cdf).pvalue > 0.01
    exact = truncnorm.logpdf(y.numpy(), -0.5 / std, 0.5 / std, loc=7.5, scale=std)
    assert np.allclose(log_q.numpy(), exact, rtol=0, atol=1e-9)


def test_the_limits_of_the_truncated_normal_are_uniform_and_a_point() -> None:
    values = torch.full((100, 2), 3)
    y, log_q = TruncatedNormalDequantization(1e6).draw(values, noise())
    assert log_q.abs().max() < 1e-9
    uniform, _ = UniformDequantization().draw(values, noise())
    assert torch.allclose(y, uniform, rtol=0, atol=1e-6)
    y, log_q = TruncatedNormalDequantization(1e-6).draw(values, noise())
    assert (y - 3.5).abs().max() < 1e-5
    entropy = 2 * (math.log(1e-6) + 0.5 * math.log(2 * math.pi * math.e))
    assert log_q.mean().item() == pytest.approx(-entropy, abs=0.5)


def test_matching_has_the_noise_of_tau_min_in_data_units() -> None:
    model = ScoreModel(nn.Identity(), VPSDE(tau_min=0.001), data=Description("d", (2, 3), 8, scale=(4.0, 2.0)))
    sigma = math.sqrt(-math.expm1(-0.002))
    dequantization = TruncatedNormalDequantization.matching(model)
    assert dequantization.std == pytest.approx((4.0 * sigma, 2.0 * sigma))
    y, _ = dequantization.draw(torch.zeros(2000, 2, 3, dtype=torch.long), noise())
    assert y[:, 0].std().item() == pytest.approx(4 * sigma, rel=0.05)
    assert y[:, 1].std().item() == pytest.approx(2 * sigma, rel=0.05)
    assert TruncatedNormalDequantization.matching(
        ScoreModel(nn.Identity(), VE(), data=DESCRIPTION)
    ).std == pytest.approx(2.0 * math.sqrt(math.expm1(2e-4)))


def test_invalid_settings_are_refused() -> None:
    for std in (0.0, math.inf, (1.0, -1.0), ()):
        with pytest.raises(ValueError, match="std must be positive and finite"):
            TruncatedNormalDequantization(std)
    with pytest.raises(ValueError, match=r"one entry per entry of the first axis of \(3,\), got 2"):
        TruncatedNormalDequantization((1.0, 1.0)).draw(torch.zeros(4, 3, dtype=torch.long), noise())
    with pytest.raises(ValueError, match="dequantization needs quantized data, got a model without bins"):
        TruncatedNormalDequantization.matching(ScoreModel(nn.Identity(), VPSDE()))
    with pytest.raises(ValueError, match="needs quantized data of at most 4 axes, got 'line'"):
        VariationalDequantization(Description("line", (3,)))
    with pytest.raises(ValueError, match="width must be a positive integer, got 0"):
        VariationalDequantization(DESCRIPTION, width=0)


# --- variational -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 4, 4), (1, 2, 3, 4)])
def test_variational_dequantization_starts_uniform_on_every_shape(shape: tuple[int, ...]) -> None:
    values = torch.randint(4, (3, *shape), generator=torch.Generator().manual_seed(1))
    dequantization = VariationalDequantization(Description("any", shape, bins=4))
    y, log_q = dequantization.draw(values, noise())
    assert log_q.abs().max() < 1e-9
    assert torch.allclose(y, UniformDequantization().draw(values, noise())[0], rtol=0, atol=1e-9)


def narrow_mixture() -> tuple[GaussianMixture, Tensor]:
    """Six equally likely events, each a narrow Gaussian away from the centers of its bins; and their integer values."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(4, (6, 1, 2, 2), generator=generator)
    offset = 0.2 + 0.5 * torch.rand(values.shape, generator=generator, dtype=D)
    means = DESCRIPTION.to_model(values + offset)
    model = GaussianMixture(torch.ones(6), means, torch.full((6,), 0.05**2), VPSDE(tau_min=1e-4))
    model.data = DESCRIPTION
    return model, values


def test_variational_dequantization_nearly_reaches_the_exact_bits(generator) -> None:
    model, values = narrow_mixture()
    dequantization = fit_variational(model, values, steps=500, batch_size=48, rate=2e-2, generator=generator)
    options: dict[str, Any] = {"prior_log_prob": lambda z: model.log_prob(z, model.sde.tau_max)}
    exact = math.log2(6) / 4  # all but 1e-4 of a Gaussian lies in one bin
    repeated = values.repeat(40, 1, 1, 1)
    for candidate, low, high in ((dequantization, -0.02, 0.12), (UniformDequantization(), 1.0, 10.0)):
        bound = continuous_vlb(model, repeated, dequantization=candidate, generator=generator, **options)
        assert low - 3 * bound.mean_stderr < bound.mean - exact < high + 3 * bound.mean_stderr


def test_more_draws_of_variational_dequantization_tighten_the_bound(generator) -> None:
    model, values = narrow_mixture()
    dequantization = fit_variational(model, values, steps=100, batch_size=48, rate=2e-2, generator=generator)
    log_weights = []
    with torch.no_grad():
        for _ in range(400):
            y, log_q = dequantization.draw(values, Noise(generator))
            log_weights.append(model.log_prob(DESCRIPTION.to_model(y), model.sde.tau_min) - log_q)
    weights = torch.stack(log_weights)
    importance_weighted = DESCRIPTION.bits_per_dim(torch.logsumexp(weights, 0) - math.log(400)).mean().item()
    assert importance_weighted < DESCRIPTION.bits_per_dim(weights.mean(0)).mean().item() - 0.01
    assert importance_weighted == pytest.approx(math.log2(6) / 4, abs=0.02)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.tensor(0.5)), nn.Dropout(0.5)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        assert not self.training
        return self.weight * torch.tanh(self.drop(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_fit_does_not_change_the_model_or_the_global_random_state(mode) -> None:
    model = ScoreModel(Net(), VPSDE(), data=DESCRIPTION).train()
    values = torch.randint(4, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    with mode():
        fits = [
            fit_variational(model, values, steps=3, batch_size=8, generator=torch.Generator().manual_seed(1))
            for _ in range(2)
        ]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(*(fit.parameters() for fit in fits)))
    assert model.net.weight.grad is None
    assert all(m.training for m in model.modules())
    assert not fits[0].training
    out = continuous_vlb(model, values[:3], dequantization=fits[0], seeds=[1, 2, 3], evaluations=8)
    assert not out.nats.requires_grad


def test_a_fit_without_bins_or_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="quantized data with their bins and scale"):
        fit_variational(ScoreModel(Net(), VPSDE()), torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        fit_variational(
            ScoreModel(Net(), VPSDE(), data=DESCRIPTION), torch.zeros(3, 1, 2, 2, dtype=torch.long), steps=0
        )
