"""Times that follow the loss: unbiased whatever they have learned, and with less variance once they have learned it."""

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
from scoresde.objective.timesteps.base import edges, spread
from scoresde.objective.weighting import ELBO, Simple
from scoresde.process import ou
from scoresde.process.schedule import Cosine, LinearBetas
from scoresde.process.sde import SDE, VPSDE, Flow
from scoresde.training import Training
from scoresde.training.adaptive_timesteps import AdaptiveTimestepState
from scoresde.training.processes import accelerated

D = torch.float64
CPU = torch.device("cpu")
CHAIN = DiscreteTimesteps(50, first=2)
ALL = [
    LossMomentTimesteps(bins=9, memory=3),
    DiscreteLossMomentTimesteps(CHAIN, memory=2),
    LearnedClockTimesteps(bins=9, rate=0.3),
]


def taught(times: AdaptiveTimesteps, sde: SDE, seed: int = 0, updates: int = 30) -> dict[str, Tensor]:
    """What times have learned from losses that vary over a factor of 1e4 along the clock."""
    generator, state = torch.Generator().manual_seed(seed), times.fresh(sde, CPU)
    for _ in range(updates):
        draw = times.drawn(spread(torch.rand(400, generator=generator, dtype=D)), sde, state)
        state = times.moved(state, times.observed(draw, draw.correction * steep(draw.u), sde), sde)
    return state


def steep(u: Tensor) -> Tensor:
    """A loss that falls along the clock."""
    return torch.exp(-9.0 * u) + 1e-4


@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(Cosine()), Flow()], ids=repr)
@pytest.mark.parametrize("times", ALL, ids=lambda t: type(t).__name__)
def test_whatever_was_learned_the_expectation_is_that_of_uniform_times(times, sde):
    n = 200_000
    base = (torch.arange(n, dtype=D) + 0.5) / n  # evenly spread base numbers: the midpoint rule
    draw = times.drawn(base, sde, taught(times, sde))
    assert draw.correction.std() > 0.05, "something was learned"
    assert draw.correction.max() <= (2 if times.chain is None else 1) / times.even * (1 + 1e-9)
    for function in (torch.ones_like, lambda u: u**2, lambda u: torch.cos(9 * u), steep):
        if times.chain is not None:
            expected = function(torch.arange(2, 51, dtype=D) / 50).mean().item()
        else:
            u = sde.u_min + (1 - sde.u_min) * base
            expected = function(u).mean().item()
        assert (draw.correction * function(draw.u)).mean().item() == pytest.approx(expected, abs=3e-4)


@pytest.mark.parametrize("times", ALL[:2], ids=lambda t: type(t).__name__)
def test_second_moments_draw_each_cell_in_proportion_to_the_root_of_its_mean_square(times):
    sde = VPSDE()
    generator, state = torch.Generator().manual_seed(1), times.fresh(sde, CPU)
    height = 0.1 + torch.rand(times.cells, generator=generator, dtype=D)
    for _ in range(60):
        draw = times.drawn(spread(torch.rand(500, generator=generator, dtype=D)), sde, state)
        cell = times.observed(draw, torch.ones_like(draw.u), sde)[0]
        seen = torch.stack([cell, cell * height**2])  # every loss in a cell is its height
        state = times.moved(state, seen, sde)
    root = times.shares(sde, height) * height
    assert torch.allclose(times.probabilities(state, sde), root / root.sum(), rtol=1e-12)


def test_an_observation_is_the_count_and_the_sum_of_squares_of_each_cells_uncorrected_losses():
    sde, times = VPSDE(), LossMomentTimesteps(bins=5)
    ends = torch.tensor(edges(sde, 5), dtype=D)
    state = taught(times, sde)
    draw = times.drawn(torch.rand(300, dtype=D), sde, state)
    loss = torch.rand(300, dtype=D)
    seen = times.observed(draw, draw.correction * loss, sde)
    for i in range(5):
        inside = (draw.u >= ends[i]) & ((draw.u < ends[i + 1]) | (i == 4))
        assert seen[0, i] == inside.sum()
        assert seen[1, i].item() == pytest.approx((loss[inside] ** 2).sum().item(), rel=1e-9)
    knots = DiscreteLossMomentTimesteps(CHAIN)
    draw = knots.draw(torch.rand(300, dtype=D), sde)
    seen = knots.observed(draw, draw.correction * draw.u, sde)
    k = torch.arange(2, 51, dtype=D) / 50
    assert torch.allclose(seen[1], seen[0] * k**2)
    assert seen[0].sum() == 300


def test_all_is_drawn_as_at_the_beginning_until_every_cell_has_seen_enough():
    sde, times = VPSDE(), DiscreteLossMomentTimesteps(DiscreteTimesteps(10), memory=4)
    state = times.fresh(sde, CPU)
    few = torch.ones(2, 10, dtype=D) * 4
    few[:, 3] = 3
    state = times.moved(state, few, sde)
    assert torch.equal(times.probabilities(state, sde), torch.full((10,), 0.1, dtype=D))
    few[1] = torch.arange(10, dtype=D)
    assert times.probabilities(times.moved(state, few, sde), sde).std() > 0.01


def test_a_loss_that_is_always_zero_leaves_the_density_as_it_was():
    for times in ALL:
        sde, state = VPSDE(), times.fresh(VPSDE(), CPU)
        for _ in range(20):
            draw = times.drawn(torch.rand(400, dtype=D), sde, state)
            state = times.moved(state, times.observed(draw, 0.0 * draw.u, sde), sde)
        assert torch.isfinite(times.mixed(state, sde)).all()


def test_the_learned_clock_goes_down_the_gradient_of_the_expected_square():
    sde, times = VPSDE(), LearnedClockTimesteps(bins=6, rate=1e-4, even=0.2, memory=1)
    moments = torch.tensor([9.0, 4.0, 1.0, 0.5, 0.2, 0.1], dtype=D)
    state = taught(LearnedClockTimesteps(bins=6, rate=0.1), sde)
    logits = state["logits"].clone().requires_grad_()
    share = times.shares(sde, logits)

    def objective(logits: Tensor) -> Tensor:
        p = 0.8 * torch.softmax(logits, 0) + 0.2 * times.start(sde, logits)
        return (share.square() * moments / p).sum()

    (gradient,) = torch.autograd.grad(objective(logits), logits)
    count = 1e6 * times.mixed(state, sde)  # what the expectation of a batch would be
    after = times.moved(state, torch.stack([count, count * moments]), sde)["logits"]
    step = (after - state["logits"]) / 1e-4
    natural = -gradient / torch.softmax(logits, 0) / objective(logits) / 0.8
    natural, step = natural - natural.mean(), step - step.mean()  # a common shift of logits is no change
    assert torch.allclose(step, natural.detach(), atol=1e-3)


def learned(times: AdaptiveTimesteps, updates: int, weighting=ELBO(), batch: int = 128) -> AdaptiveTimestepState:
    """What a run on Gaussian data with the exact score would have learned."""
    model = Gaussian(torch.tensor([0.7, -0.3], dtype=D), 0.25, SDE_ELBO)
    generator = torch.Generator().manual_seed(8)
    with accelerated("no", CPU) as accelerator:
        learning = AdaptiveTimestepState(Training(loss=Loss(weighting, times)).loss, model.sde, accelerator)
        for _ in range(updates):
            learning.each(model, model.sample(batch, generator=generator))
            learning.move(torch.tensor(True))
    return learning


SDE_ELBO = VPSDE(LinearBetas(), tau_min=1e-4)


@pytest.mark.parametrize(
    "times", [LossMomentTimesteps(bins=32), LearnedClockTimesteps(bins=32, rate=0.05)], ids=lambda t: type(t).__name__
)
def test_the_bounds_variance_falls_to_near_its_least_and_its_mean_stays(times):
    model, n = Gaussian(torch.tensor([0.7, -0.3], dtype=D), 0.25, SDE_ELBO), 200_000
    x0 = model.sample(n, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(n, 2, dtype=D, generator=torch.Generator().manual_seed(4))
    base = torch.rand(n, dtype=D, generator=torch.Generator().manual_seed(5))

    def losses(state: dict[str, Tensor]) -> Tensor:
        return Loss(ELBO()).at(model, x0, times.drawn(base, SDE_ELBO, state), noise)

    first, last = losses(times.fresh(SDE_ELBO, CPU)), losses(learned(times, 400).state)
    u = SDE_ELBO.u_min + (1 - SDE_ELBO.u_min) * base
    uniform = Loss(ELBO()).at(model, x0, times.draw(base, SDE_ELBO)._replace(u=u, correction=1.0), noise)
    stderr = math.sqrt((uniform.var() + last.var()).item() / n)
    assert abs(last.mean().item() - uniform.mean().item()) < 4 * stderr
    assert last.var() < 0.8 * first.var()
    assert last.var() < 0.05 * uniform.var()
    least = float(square_of_the_mean_root(model))
    second = last.square().mean().item()
    assert least * 0.98 < second < 1.15 * least


def square_of_the_mean_root(model: Gaussian) -> Tensor:
    r"""$(\int \sqrt{E[L^2 \mid u]}\,du)^2$, the least second moment: L is λ times a quadratic form in normals."""
    ends = torch.tensor(edges(SDE_ELBO, 2000), dtype=D)
    u = 0.5 * (ends[1:] + ends[:-1])
    tau = torch.as_tensor(SDE_ELBO.schedule.tau(u))
    signal = 0.25 * torch.as_tensor(ou.alpha_bar(tau))
    variance = signal / (signal + torch.as_tensor(ou.beta(tau, 0.0)))  # of each coordinate's eps error
    weight = torch.as_tensor(ELBO()(SDE_ELBO.marginal(u)))
    root = weight * variance * math.sqrt(8.0)  # E[(χ²_2)²] = 8
    return ((root * ends.diff()).sum() / (1 - SDE_ELBO.u_min)) ** 2


def test_an_update_that_was_skipped_teaches_nothing():
    times = LossMomentTimesteps(bins=4, memory=1)
    with accelerated("no", CPU) as accelerator:
        learning = AdaptiveTimestepState(Loss(Simple(), times), VPSDE(), accelerator)
        model = Gaussian(torch.zeros(2, dtype=D), 1.0)
        learning.each(model, torch.full((8, 2), math.nan, dtype=D))
        learning.move(torch.tensor(False))
        assert torch.equal(learning.state["seen"], torch.zeros(4, dtype=D))
        assert torch.isfinite(learning.state["squares"]).all()


def test_learned_times_out_of_their_range_are_refused():
    for make, text in [
        (lambda: LossMomentTimesteps(even=0.0), r"even must lie in \(0, 1\], got 0.0"),
        (lambda: LossMomentTimesteps(bins=0), "bins must be a positive integer, got 0"),
        (lambda: DiscreteLossMomentTimesteps(memory=2.5), "memory must be a positive integer, got 2.5"),  # pyright: ignore[reportArgumentType]
        (lambda: LearnedClockTimesteps(rate=0.0), r"rate must lie in \(0, 1\), got 0.0"),
    ]:
        with pytest.raises(ValueError, match=text):
            make()
