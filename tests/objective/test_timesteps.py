"""Adaptive timesteps: unbiased in every state, and with less variance of the loss after adaptation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde.analytic import Gaussian
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    AdaptiveTimesteps,
    DiscreteLossMomentTimesteps,
    DiscreteTimesteps,
    LearnedClockTimesteps,
    LossMomentTimesteps,
)
from scoresde.objective.timesteps.base import log_snr_bin_edges, stratify
from scoresde.objective.weighting import ELBO, Simple
from scoresde.process import ou
from scoresde.process.schedule import Cosine, LinearBetas
from scoresde.process.sde import SDE, VPSDE, Flow
from scoresde.training import Training
from scoresde.training.adaptive_timesteps import AdaptiveTimestepState
from scoresde.training.multi_process import accelerated

D = torch.float64
CPU = torch.device("cpu")
CHAIN = DiscreteTimesteps(50, first=2)
ALL = [
    LossMomentTimesteps(bins=9, memory=3),
    DiscreteLossMomentTimesteps(CHAIN, memory=2),
    LearnedClockTimesteps(bins=9, rate=0.3),
]


def adapted_state(timesteps: AdaptiveTimesteps, sde: SDE, seed: int = 0, updates: int = 30) -> dict[str, Tensor]:
    """The state after losses that vary over a factor of 1e4 along the clock."""
    generator, state = torch.Generator().manual_seed(seed), timesteps.initial_state(sde, CPU)
    for _ in range(updates):
        draw = timesteps.inverse_cdf(stratify(torch.rand(400, generator=generator, dtype=D)), sde, state)
        state = timesteps.updated_state(
            state, timesteps.loss_statistics(draw, draw.correction * decreasing_loss(draw.u), sde), sde
        )
    return state


def decreasing_loss(u: Tensor) -> Tensor:
    """A loss that falls along the clock."""
    return torch.exp(-9.0 * u) + 1e-4


@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(Cosine()), Flow()], ids=repr)
@pytest.mark.parametrize("timesteps", ALL, ids=lambda t: type(t).__name__)
def test_in_every_state_the_expectation_is_that_of_uniform_timesteps(timesteps, sde):
    n = 200_000
    uniforms = (torch.arange(n, dtype=D) + 0.5) / n  # the midpoint rule
    draw = timesteps.inverse_cdf(uniforms, sde, adapted_state(timesteps, sde))
    assert draw.correction.std() > 0.05, "the density differs from the uniform one"
    assert draw.correction.max() <= (2 if timesteps.chain is None else 1) / timesteps.even * (1 + 1e-9)
    for function in (torch.ones_like, lambda u: u**2, lambda u: torch.cos(9 * u), decreasing_loss):
        if timesteps.chain is not None:
            expected = function(torch.arange(2, 51, dtype=D) / 50).mean().item()
        else:
            u = sde.u_min + (1 - sde.u_min) * uniforms
            expected = function(u).mean().item()
        assert (draw.correction * function(draw.u)).mean().item() == pytest.approx(expected, abs=3e-4)


@pytest.mark.parametrize("timesteps", ALL[:2], ids=lambda t: type(t).__name__)
def test_loss_moments_draw_each_bin_in_proportion_to_the_root_of_its_mean_square(timesteps):
    sde = VPSDE()
    generator, state = torch.Generator().manual_seed(1), timesteps.initial_state(sde, CPU)
    losses = 0.1 + torch.rand(timesteps.bin_count, generator=generator, dtype=D)
    for _ in range(60):
        draw = timesteps.inverse_cdf(stratify(torch.rand(500, generator=generator, dtype=D)), sde, state)
        counts = timesteps.loss_statistics(draw, torch.ones_like(draw.u), sde)[0]
        statistics = torch.stack([counts, counts * losses**2])
        state = timesteps.updated_state(state, statistics, sde)
    root = timesteps.uniform_probabilities(sde, losses) * losses
    assert torch.allclose(timesteps.probabilities(state, sde), root / root.sum(), rtol=1e-12)


def test_loss_statistics_are_the_count_and_the_sum_of_squares_of_each_bins_uncorrected_losses():
    sde, timesteps = VPSDE(), LossMomentTimesteps(bins=5)
    edges = torch.tensor(log_snr_bin_edges(sde, 5), dtype=D)
    state = adapted_state(timesteps, sde)
    draw = timesteps.inverse_cdf(torch.rand(300, dtype=D), sde, state)
    loss = torch.rand(300, dtype=D)
    statistics = timesteps.loss_statistics(draw, draw.correction * loss, sde)
    for i in range(5):
        inside = (draw.u >= edges[i]) & ((draw.u < edges[i + 1]) | (i == 4))
        assert statistics[0, i] == inside.sum()
        assert statistics[1, i].item() == pytest.approx((loss[inside] ** 2).sum().item(), rel=1e-9)
    discrete = DiscreteLossMomentTimesteps(CHAIN)
    draw = discrete.draw(torch.rand(300, dtype=D), sde)
    statistics = discrete.loss_statistics(draw, draw.correction * draw.u, sde)
    k = torch.arange(2, 51, dtype=D) / 50
    assert torch.allclose(statistics[1], statistics[0] * k**2)
    assert statistics[0].sum() == 300


def test_the_initial_density_stays_until_every_bin_has_enough_losses():
    sde, timesteps = VPSDE(), DiscreteLossMomentTimesteps(DiscreteTimesteps(10), memory=4)
    state = timesteps.initial_state(sde, CPU)
    statistics = torch.ones(2, 10, dtype=D) * 4
    statistics[:, 3] = 3
    state = timesteps.updated_state(state, statistics, sde)
    assert torch.equal(timesteps.probabilities(state, sde), torch.full((10,), 0.1, dtype=D))
    statistics[1] = torch.arange(10, dtype=D)
    assert timesteps.probabilities(timesteps.updated_state(state, statistics, sde), sde).std() > 0.01


def test_a_loss_that_is_always_zero_leaves_the_density_unchanged():
    for timesteps in ALL:
        sde, state = VPSDE(), timesteps.initial_state(VPSDE(), CPU)
        for _ in range(20):
            draw = timesteps.inverse_cdf(torch.rand(400, dtype=D), sde, state)
            state = timesteps.updated_state(state, timesteps.loss_statistics(draw, 0.0 * draw.u, sde), sde)
        assert torch.isfinite(timesteps.mixed_probabilities(state, sde)).all()


def test_the_learned_clock_descends_the_gradient_of_the_expected_square():
    sde, timesteps = VPSDE(), LearnedClockTimesteps(bins=6, rate=1e-4, even=0.2, memory=1)
    moments = torch.tensor([9.0, 4.0, 1.0, 0.5, 0.2, 0.1], dtype=D)
    state = adapted_state(LearnedClockTimesteps(bins=6, rate=0.1), sde)
    logits = state["logits"].clone().requires_grad_()
    uniform = timesteps.uniform_probabilities(sde, logits)

    def objective(logits: Tensor) -> Tensor:
        p = 0.8 * torch.softmax(logits, 0) + 0.2 * timesteps.initial_probabilities(sde, logits)
        return (uniform.square() * moments / p).sum()

    (gradient,) = torch.autograd.grad(objective(logits), logits)
    counts = 1e6 * timesteps.mixed_probabilities(state, sde)  # the expectation of a batch
    after = timesteps.updated_state(state, torch.stack([counts, counts * moments]), sde)["logits"]
    step = (after - state["logits"]) / 1e-4
    natural = -gradient / torch.softmax(logits, 0) / objective(logits) / 0.8
    natural, step = natural - natural.mean(), step - step.mean()  # a common shift of logits is no change
    assert torch.allclose(step, natural.detach(), atol=1e-3)


def trained_state(
    timesteps: AdaptiveTimesteps, updates: int, weighting=ELBO(), batch: int = 128
) -> AdaptiveTimestepState:
    """The state after a run on Gaussian data with the exact score."""
    model = Gaussian(torch.tensor([0.7, -0.3], dtype=D), 0.25, SDE_ELBO)
    generator = torch.Generator().manual_seed(8)
    with accelerated("no", CPU) as accelerator:
        adaptive = AdaptiveTimestepState(Training(loss=Loss(weighting, timesteps)).loss, model.sde, accelerator)
        for _ in range(updates):
            adaptive.losses(model, model.sample(batch, generator=generator))
            adaptive.update(torch.tensor(True))
    return adaptive


SDE_ELBO = VPSDE(LinearBetas(), tau_min=1e-4)


@pytest.mark.parametrize(
    "timesteps",
    [LossMomentTimesteps(bins=32), LearnedClockTimesteps(bins=32, rate=0.05)],
    ids=lambda t: type(t).__name__,
)
def test_the_elbos_variance_falls_to_near_its_minimum_and_its_mean_stays(timesteps):
    model, n = Gaussian(torch.tensor([0.7, -0.3], dtype=D), 0.25, SDE_ELBO), 200_000
    x0 = model.sample(n, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(n, 2, dtype=D, generator=torch.Generator().manual_seed(4))
    uniforms = torch.rand(n, dtype=D, generator=torch.Generator().manual_seed(5))

    def losses(state: dict[str, Tensor]) -> Tensor:
        return Loss(ELBO()).at(model, x0, timesteps.inverse_cdf(uniforms, SDE_ELBO, state), noise)

    first, last = losses(timesteps.initial_state(SDE_ELBO, CPU)), losses(trained_state(timesteps, 400).state)
    u = SDE_ELBO.u_min + (1 - SDE_ELBO.u_min) * uniforms
    uniform = Loss(ELBO()).at(model, x0, timesteps.draw(uniforms, SDE_ELBO)._replace(u=u, correction=1.0), noise)
    stderr = math.sqrt((uniform.var() + last.var()).item() / n)
    assert abs(last.mean().item() - uniform.mean().item()) < 4 * stderr
    assert last.var() < 0.8 * first.var()
    assert last.var() < 0.05 * uniform.var()
    minimum = float(least_second_moment(model))
    second = last.square().mean().item()
    assert minimum * 0.98 < second < 1.15 * minimum


def least_second_moment(model: Gaussian) -> Tensor:
    r"""$(\int \sqrt{E[L^2 \mid u]}\,du)^2$, the least second moment: L is λ times a quadratic form in normals."""
    edges = torch.tensor(log_snr_bin_edges(SDE_ELBO, 2000), dtype=D)
    u = 0.5 * (edges[1:] + edges[:-1])
    tau = torch.as_tensor(SDE_ELBO.schedule.tau(u))
    signal = 0.25 * torch.as_tensor(ou.alpha_bar(tau))
    variance = signal / (signal + torch.as_tensor(ou.beta(tau, 0.0)))  # of each coordinate's eps error
    weight = torch.as_tensor(ELBO()(SDE_ELBO.marginal(u)))
    root = weight * variance * math.sqrt(8.0)  # E[(χ²_2)²] = 8
    return ((root * edges.diff()).sum() / (1 - SDE_ELBO.u_min)) ** 2


def test_a_skipped_update_leaves_the_state_unchanged():
    timesteps = LossMomentTimesteps(bins=4, memory=1)
    with accelerated("no", CPU) as accelerator:
        adaptive = AdaptiveTimestepState(Loss(Simple(), timesteps), VPSDE(), accelerator)
        model = Gaussian(torch.zeros(2, dtype=D), 1.0)
        adaptive.losses(model, torch.full((8, 2), math.nan, dtype=D))
        adaptive.update(torch.tensor(False))
        assert torch.equal(adaptive.state["counts"], torch.zeros(4, dtype=D))
        assert torch.isfinite(adaptive.state["squares"]).all()


def test_adaptive_timesteps_refuse_settings_out_of_range():
    for make, text in [
        (lambda: LossMomentTimesteps(even=0.0), r"even must lie in \(0, 1\], got 0.0"),
        (lambda: LossMomentTimesteps(bins=0), "bins must be a positive integer, got 0"),
        (lambda: DiscreteLossMomentTimesteps(memory=2.5), "memory must be a positive integer, got 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: LearnedClockTimesteps(rate=0.0), r"rate must lie in \(0, 1\), got 0.0"),
    ]:
        with pytest.raises(ValueError, match=text):
            make()
