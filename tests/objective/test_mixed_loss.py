"""The loss of mixed events: the sum of the losses of both parts at one state, and its minimum at the exact model."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mixed_cases import CASES, mixture
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP, MixedNet
from scoresde.objective import (
    ELBO,
    CrossEntropy,
    Loss,
    MixedLoss,
    PathKL,
    Simple,
    StratifiedTimesteps,
    UniformTimesteps,
)
from scoresde.objective.timesteps import TimestepDraw
from scoresde.process import VPSDE, Categorical, DiscretePrediction, GaussianPrediction, Mixed, Prediction
from scoresde.process.schedule import LinearAlphaBar
from scoresde.training import Training, train

D = torch.float64


class Part(Model):
    """One part of a mixed model, with the state of the other one fixed."""

    def __init__(self, model: Model, x: Tensor, continuous: bool) -> None:
        super().__init__()
        assert isinstance(model.sde, Mixed)
        self.inner, self.x, self.mixed, self.continuous = model, x, model.sde, continuous
        self.sde = model.sde.continuous if continuous else model.sde.categorical

    def predict(self, x: Tensor, tau: float | Tensor, **cond: object) -> Prediction:
        numbers, codes = self.mixed.split(self.x)
        state = torch.cat([x, codes] if self.continuous else [numbers, x], 1)
        prediction: Any = self.inner.predict(state, tau, **cond)
        return prediction.continuous if self.continuous else prediction.categorical


@pytest.mark.parametrize("kernel", CASES)
@pytest.mark.parametrize("categorical", [PathKL(), CrossEntropy(ELBO())], ids=["path KL", "cross-entropy"])
def test_the_loss_is_the_sum_of_the_losses_of_both_parts_at_the_same_state(kernel, categorical):
    process = CASES[kernel]
    model = mixture(process)
    x0 = model.sample(50, generator=torch.Generator().manual_seed(0))
    timesteps = StratifiedTimesteps()
    noise = process.draw_noise(x0, Noise(torch.Generator().manual_seed(1)))
    draw = timesteps.draw(torch.rand(50, dtype=D, generator=torch.Generator().manual_seed(2)) * 0.9, process)
    loss = MixedLoss(Simple(), timesteps, categorical).at(model, x0, draw, noise)
    x = process.perturb(x0, process.schedule.tau(draw.u), noise)
    (numbers, codes), (eps, uniform) = process.split(x0), process.split(noise)
    parts = Loss(Simple(), timesteps).at(Part(model, x, True), numbers, draw, eps)
    parts = parts + categorical.at(Part(model, x, False), codes, draw, uniform)
    torch.testing.assert_close(loss, parts, rtol=1e-10, atol=1e-10)


class Changed(Model):
    """A model whose estimates of the numbers are moved, or whose logits are scaled."""

    def __init__(self, model: Model, move: float, scale: float) -> None:
        super().__init__()
        self.inner, self.move, self.scale = model, move, scale
        self.sde, self.event_shape = model.sde, model.event_shape

    def predict(self, x: Tensor, tau: float | Tensor, **cond: object) -> Prediction:
        prediction: Any = self.inner.predict(x, tau, **cond)
        first, second = prediction.continuous, prediction.categorical
        prediction.continuous = GaussianPrediction(first.x, tau, first.out + self.move, first.parameterization)
        evidence = second.evidence.clamp(min=-50) * self.scale
        prediction.categorical = DiscretePrediction(second.x, tau, evidence, second.process, evidence)
        return prediction


@pytest.mark.parametrize("kernel", CASES)
def test_the_exact_model_has_the_least_loss(kernel):
    model = mixture(CASES[kernel])
    x0 = model.sample(20000, generator=torch.Generator().manual_seed(0))

    def losses(move: float, scale: float) -> Tensor:
        loss = MixedLoss(timesteps=StratifiedTimesteps())
        return loss(Changed(model, move, scale), x0, torch.Generator().manual_seed(1))

    exact = losses(0.0, 1.0)
    for move, scale in ((0.2, 1.0), (-0.2, 1.0), (0.0, 0.4), (0.0, 2.0)):
        excess = losses(move, scale) - exact
        assert excess.mean() > 3 * excess.std() / len(x0) ** 0.5


def test_missing_entries_are_neither_read_nor_counted():
    process = CASES["uniform"]
    torch.manual_seed(0)
    inner = MLP(MixedNet.inner_shape(2, (3, 2)), width=16, depth=1, observed=True)
    torch.nn.init.normal_(inner.linear_out.weight)
    model = ScoreModel(MixedNet(inner, 2, (3, 2)), process)
    x0 = mixture(process).sample(200, generator=torch.Generator().manual_seed(0)).float()
    observed = torch.rand(x0.shape, generator=torch.Generator().manual_seed(1)) < 0.7

    def loss(filled: Tensor) -> Tensor:
        return MixedLoss()(model, filled, torch.Generator().manual_seed(2), observed=observed)

    one, other = loss(x0.where(observed, torch.nan)), loss(x0.where(observed, 1.0))
    assert torch.equal(one, other)
    nothing = torch.zeros_like(observed)
    assert (MixedLoss()(model, x0, torch.Generator().manual_seed(2), observed=nothing) == 0).all()
    assert torch.equal(one > 0, observed.any(1))


def test_a_network_sees_no_noise_in_place_of_missing_entries():
    process, seen = CASES["uniform"], []

    class Spy(torch.nn.Module):
        observed = True

        def forward(self, x: Tensor, log_snr: Tensor, *, observed: Tensor | None = None) -> Tensor:
            seen.append(x)
            return x.new_zeros(len(x), 7)

    x0 = mixture(process).sample(50, generator=torch.Generator().manual_seed(0)).float()
    observed = torch.rand(x0.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    MixedLoss()(ScoreModel(Spy(), process, event_shape=(4,)), x0, torch.Generator().manual_seed(2), observed=observed)
    assert (seen[0][~observed] == 0).all()
    assert (seen[0][observed] != 0).any()


def test_training_comes_near_the_bound_of_the_exact_model():
    process = Mixed(VPSDE(tau_min=1e-3), Categorical((3, 2)))
    exact = mixture(process)
    x0 = exact.sample(4000, generator=torch.Generator().manual_seed(0)).float()
    held_out = exact.sample(4000, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    net = MixedNet(MLP(MixedNet.inner_shape(2, (3, 2)), width=64, depth=2), 2, (3, 2))
    model = ScoreModel(net, process, event_shape=(4,))
    settings = Training(steps=300, batch_size=256, loss=MixedLoss(), lr=3e-3, ema=0.98, lr_end=0.0)

    def excess(network: Model) -> float:
        with torch.no_grad():
            each = [
                MixedLoss()(m, held_out, torch.Generator().manual_seed(2)).mean() for m in (network.double(), exact)
            ]
        return float(each[0] - each[1])

    before = excess(copy.deepcopy(model))
    after = excess(train(model, x0, settings, progress=False).model)
    assert before > 1.5
    assert after < 0.15 * before


def test_a_loss_of_another_kind_and_timesteps_of_its_own_are_refused():
    model = mixture(CASES["uniform"])
    with pytest.raises(TypeError, match=r"MixedLoss\(\) for both"):
        Loss()(model, model.sample(2))
    with pytest.raises(ValueError, match="one timestep"):
        MixedLoss(categorical=PathKL(timesteps=UniformTimesteps()))
    with pytest.raises(ValueError, match="x0 must hold codes"):
        MixedLoss()(model, torch.tensor([[0.0, 0.0, 0.5, 0.0]], dtype=D))


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
@pytest.mark.parametrize("loss", [MixedLoss(), MixedLoss(Simple())], ids=["elbo", "simple"])
def test_the_loss_has_its_limit_where_a_clock_ends_without_signal(loss, kernel):
    torch.manual_seed(0)
    mask = kernel == "absorbing"
    net = MixedNet(MLP(MixedNet.inner_shape(2, (3,), mask), width=8, depth=1), 2, (3,), mask)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model = ScoreModel(net, Mixed(VPSDE(LinearAlphaBar()), Categorical((3,), kernel)))
    x0, noise = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[0.5, -0.2, 0.7]], dtype=D)
    end, before = (loss.at(model, x0, TimestepDraw(torch.tensor([u], dtype=D)), noise) for u in (1.0, 1.0 - 2.0**-24))
    assert bool(end.isfinite().all())
    torch.testing.assert_close(end, before, rtol=1e-3, atol=1e-5)
