"""Laws of a level's place: exact densities, exact draws, and what a learned law wins."""

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
ABOUT = Description("toy", (1, 2, 2), bins=4)


def noise(seed: int = 0) -> Noise:
    return Noise(torch.Generator().manual_seed(seed))


def shaken(law: VariationalDequantization, generator: torch.Generator) -> VariationalDequantization:
    with torch.no_grad():
        for weight in law.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    return law


def laws(generator: torch.Generator) -> list[Dequantization]:
    return [
        UniformDequantization(),
        TruncatedNormalDequantization(0.2),
        TruncatedNormalDequantization(3.0),
        shaken(VariationalDequantization(ABOUT), generator),
    ]


# --- every law --------------------------------------------------------------------------------------------------------


class Numbers(Noise):
    """Hands out the numbers it was given."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = numbers

    def uniform(self, like: Tensor) -> Tensor:
        return self.numbers


def test_log_q_is_minus_the_log_slope_of_the_draw_in_its_uniform_number(generator) -> None:
    levels = torch.randint(4, (6, 1, 2, 2), generator=generator)
    for law in laws(generator):
        numbers = torch.rand(levels.shape, generator=generator, dtype=D) * 0.98 + 0.01
        numbers.requires_grad_()
        y, log_q = law.draw(levels, Numbers(numbers))
        slope = torch.autograd.grad(y.sum(), numbers)[0]
        assert torch.allclose(log_q, -slope.log().flatten(1).sum(1), rtol=0, atol=1e-8)


def test_y_stays_in_its_cell_and_is_unchanged_by_neighbors_with_seeds(generator) -> None:
    levels = torch.randint(4, (500, 1, 2, 2), generator=generator)
    for law in [*laws(generator), TruncatedNormalDequantization(1e-9), TruncatedNormalDequantization(1e9)]:
        y, log_q = law.draw(levels, noise())
        assert torch.equal(y.floor().long(), levels)
        assert log_q.dtype == y.dtype == D
        assert bool(torch.isfinite(log_q).all())
        whole = law.draw(levels[:5], Noise(seeds=range(5)))
        part = law.draw(levels[3:5], Noise(seeds=[3, 4]))
        assert torch.allclose(whole[0][3:], part[0], rtol=0, atol=1e-6)
        edge, log_q = law.draw(levels[:1], Numbers(torch.zeros(1, 1, 2, 2, dtype=D)))
        assert torch.equal(edge.floor().long(), levels[:1])
        assert bool(torch.isfinite(log_q).all())
        assert law.draw(levels[:0], noise())[1].shape == (0,)


# --- truncated normal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [0.05, 0.3, 2.0])
def test_the_truncated_normal_draws_and_weighs_as_scipys(std: float) -> None:
    levels = torch.full((4000,), 7)
    y, log_q = TruncatedNormalDequantization(std).draw(levels, noise())
    law = truncnorm(-0.5 / std, 0.5 / std, loc=7.5, scale=std)
    assert kstest(y.numpy(), law.cdf).pvalue > 0.01
    exact = truncnorm.logpdf(y.numpy(), -0.5 / std, 0.5 / std, loc=7.5, scale=std)
    assert np.allclose(log_q.numpy(), exact, rtol=0, atol=1e-9)


def test_at_its_ends_the_truncated_normal_is_uniform_or_a_point() -> None:
    levels = torch.full((100, 2), 3)
    y, log_q = TruncatedNormalDequantization(1e6).draw(levels, noise())
    assert log_q.abs().max() < 1e-9
    uniform, _ = UniformDequantization().draw(levels, noise())
    assert torch.allclose(y, uniform, rtol=0, atol=1e-6)
    y, log_q = TruncatedNormalDequantization(1e-6).draw(levels, noise())
    assert (y - 3.5).abs().max() < 1e-5
    entropy = 2 * (math.log(1e-6) + 0.5 * math.log(2 * math.pi * math.e))
    assert log_q.mean().item() == pytest.approx(-entropy, abs=0.5)


def test_matching_has_the_noise_of_tau_min_in_data_units() -> None:
    model = ScoreModel(nn.Identity(), VPSDE(tau_min=0.001), data=Description("d", (2, 3), 8, scale=(4.0, 2.0)))
    sigma = math.sqrt(-math.expm1(-0.002))
    law = TruncatedNormalDequantization.matching(model)
    assert law.std == pytest.approx((4.0 * sigma, 2.0 * sigma))
    y, _ = law.draw(torch.zeros(2000, 2, 3, dtype=torch.long), noise())
    assert y[:, 0].std().item() == pytest.approx(4 * sigma, rel=0.05)
    assert y[:, 1].std().item() == pytest.approx(2 * sigma, rel=0.05)
    assert TruncatedNormalDequantization.matching(ScoreModel(nn.Identity(), VE(), data=ABOUT)).std == pytest.approx(
        2.0 * math.sqrt(math.expm1(2e-4))
    )


def test_settings_that_do_not_fit_are_refused() -> None:
    for std in (0.0, math.inf, (1.0, -1.0), ()):
        with pytest.raises(ValueError, match="std must be positive and finite"):
            TruncatedNormalDequantization(std)
    with pytest.raises(ValueError, match=r"one entry per entry of the first axis of \(3,\), got 2"):
        TruncatedNormalDequantization((1.0, 1.0)).draw(torch.zeros(4, 3, dtype=torch.long), noise())
    with pytest.raises(ValueError, match="needs quantized data, got a model without bins"):
        TruncatedNormalDequantization.matching(ScoreModel(nn.Identity(), VPSDE()))
    with pytest.raises(ValueError, match="needs quantized data of at most 4 axes, got 'line'"):
        VariationalDequantization(Description("line", (3,)))
    with pytest.raises(ValueError, match="width must be an integer of at least 1, got 0"):
        VariationalDequantization(ABOUT, width=0)


# --- learned ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (5,), (2, 5), (2, 4, 4), (1, 2, 3, 4)])
def test_the_learned_law_begins_uniform_on_every_shape(shape: tuple[int, ...]) -> None:
    levels = torch.randint(4, (3, *shape), generator=torch.Generator().manual_seed(1))
    law = VariationalDequantization(Description("any", shape, bins=4))
    y, log_q = law.draw(levels, noise())
    assert log_q.abs().max() < 1e-9
    assert torch.allclose(y, UniformDequantization().draw(levels, noise())[0], rtol=0, atol=1e-9)


def sharp() -> tuple[GaussianMixture, Tensor]:
    """Six patterns of levels, equally likely, each a narrow sphere off the centers of its cells; the levels."""
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(4, (6, 1, 2, 2), generator=generator)
    place = 0.2 + 0.5 * torch.rand(levels.shape, generator=generator, dtype=D)
    means = ABOUT.to_model(levels + place)
    model = GaussianMixture(torch.ones(6), means, torch.full((6,), 0.05**2), VPSDE(tau_min=1e-4))
    model.data = ABOUT
    return model, levels


def test_the_learned_law_finds_where_the_density_is_and_nearly_meets_the_levels_own_bits(generator) -> None:
    model, levels = sharp()
    law = fit_variational(model, levels, steps=500, batch_size=48, rate=2e-2, generator=generator)
    options: dict[str, Any] = {"prior_log_prob": lambda z: model.log_prob(z, model.sde.tau_max)}
    exact = math.log2(6) / 4  # all of a sphere lies in one cell, but for 1e-4
    many = levels.repeat(40, 1, 1, 1)
    for law, low, high in ((law, -0.02, 0.12), (UniformDequantization(), 1.0, 10.0)):  # noqa: B020
        gap = continuous_vlb(model, many, dequantization=law, generator=generator, **options)
        assert low - 3 * gap.mean_stderr < gap.mean - exact < high + 3 * gap.mean_stderr


def test_more_draws_of_the_learned_law_come_closer(generator) -> None:
    model, levels = sharp()
    law = fit_variational(model, levels, steps=100, batch_size=48, rate=2e-2, generator=generator)
    log_w = []
    with torch.no_grad():
        for _ in range(400):
            y, log_q = law.draw(levels, Noise(generator))
            log_w.append(model.log_prob(ABOUT.to_model(y), model.sde.tau_min) - log_q)
    weights = torch.stack(log_w)
    weighted = ABOUT.bits_per_dim(torch.logsumexp(weights, 0) - math.log(400)).mean().item()
    assert weighted < ABOUT.bits_per_dim(weights.mean(0)).mean().item() - 0.01
    assert weighted == pytest.approx(math.log2(6) / 4, abs=0.02)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.tensor(0.5)), nn.Dropout(0.5)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        assert not self.training
        return self.weight * torch.tanh(self.drop(x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_fit_leaves_the_model_and_global_randomness_as_they_were(mode) -> None:
    model = ScoreModel(Net(), VPSDE(), data=ABOUT).train()
    levels = torch.randint(4, (20, 1, 2, 2), generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    with mode():
        fits = [
            fit_variational(model, levels, steps=3, batch_size=8, generator=torch.Generator().manual_seed(1))
            for _ in range(2)
        ]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(*(law.parameters() for law in fits)))
    assert model.net.weight.grad is None
    assert all(m.training for m in model.modules())
    assert not fits[0].training
    out = continuous_vlb(model, levels[:3], dequantization=fits[0], seeds=[1, 2, 3], evaluations=8)
    assert not out.nats.requires_grad


def test_a_fit_without_bins_or_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="quantized data with their bins and scale"):
        fit_variational(ScoreModel(Net(), VPSDE()), torch.zeros(3, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        fit_variational(ScoreModel(Net(), VPSDE(), data=ABOUT), torch.zeros(3, 1, 2, 2, dtype=torch.long), steps=0)
