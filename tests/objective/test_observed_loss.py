"""The loss of data with missing values: observed entries alone count, and nothing of the others reaches the network."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde._core.tensors import expand
from scoresde.analytic import Gaussian
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.observed import reads_observed
from scoresde.objective.timesteps import DiscreteTimesteps, ImportanceTimesteps, LossMomentTimesteps, TimestepDraw
from scoresde.objective.weighting import ELBO, MinSNR, Simple
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.schedule import Cosine, LinearBetas
from scoresde.process.sde import VPSDE

LOSSES = [Loss(), Loss(ELBO(), ImportanceTimesteps(ELBO())), Loss(MinSNR(gamma=5), LossMomentTimesteps())]
SHAPES = [(), (3,), (2, 4)]


def trained_model(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, **settings: Any) -> ScoreModel:
    """A model whose output layer is not zero."""
    net = MLP(shape, width=16, depth=1, observed=True, **settings).to(dtype)
    nn.init.normal_(net.linear_out.weight)
    learned = settings.get("outputs", 1) == 2
    return ScoreModel(net, VPSDE(LinearBetas() if learned else Cosine()), V(), learned_variance=learned)


def masked(shape: tuple[int, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Events of which about a third of the values is NaN, and which are observed; of the first event none is."""
    x0 = torch.randn(64, *shape, generator=generator)
    observed = torch.rand(64, *shape, generator=generator) > 0.3
    observed[0] = False
    return x0.where(observed, math.nan), observed


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


class Recorder(nn.Module):
    """A network that keeps its inputs and returns zeros."""

    x: Tensor
    seen: Tensor

    def forward(self, x: Tensor, log_snr: Tensor, observed: Tensor) -> Tensor:
        self.x, self.seen = x, observed
        return torch.zeros_like(x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_with_everything_observed_it_is_the_plain_loss_bit_for_bit(loss, shape, generator):
    model, x0 = trained_model(shape), torch.randn(64, *shape, generator=generator)
    everything = torch.ones(x0.shape, dtype=torch.bool)
    plain, given = (loss(model, x0, seeded(), **mask) for mask in ({}, {"observed": everything}))
    assert torch.equal(plain, given)
    gradients = [torch.autograd.grad(value.mean(), list(model.parameters())) for value in (plain, given)]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_the_loss_is_the_sum_over_the_observed_entries(generator):
    x0, observed = masked((2, 4), generator)
    net, eps = Recorder(), torch.randn(x0.shape, generator=generator)
    model = ScoreModel(net, VPSDE(Cosine()), Eps())
    draw = TimestepDraw(torch.linspace(0.1, 0.9, 64, dtype=torch.float64))
    value = Loss(Simple()).at(model, x0, draw, eps, observed=observed)
    expected = (eps.double().square() * observed).sum((1, 2))  # eps_hat is 0
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    tau = torch.as_tensor(model.sde.schedule.tau(draw.u))
    noised = expand(ou.alpha(tau), x0) * x0.nan_to_num() + expand(ou.sigma(tau), x0) * eps
    torch.testing.assert_close(net.x, (noised * observed).float(), rtol=1e-5, atol=1e-6)
    assert torch.equal(net.seen, observed)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_a_missing_value_has_no_influence_and_exactly_no_gradient(loss, shape, generator):
    model = trained_model(shape)
    x0, observed = masked(shape, generator)
    values = []
    for filler in (math.nan, 0.0, 1e6):
        x = x0.where(observed, filler).requires_grad_()
        value = loss(model, x, seeded(), observed=observed)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        assert bool((gradient[~observed] == 0).all())
        assert bool((gradient[observed] != 0).any())
        values.append(value.detach())
    assert torch.equal(values[0], values[1])
    assert torch.equal(values[0], values[2])
    assert values[0][0] == 0  # nothing of this event is observed
    assert bool((values[0][observed.reshape(64, -1).any(1)] > 0).all())


def test_a_learned_variance_is_trained_on_observed_entries_alone(generator):
    model = trained_model((3,), outputs=2)
    loss = Loss(timesteps=DiscreteTimesteps(1000), hybrid=0.1)
    x0, observed = masked((3,), generator)
    value = loss(model, x0, seeded(), observed=observed)
    assert value[0] == 0
    assert bool(value.isfinite().all())
    plain, given = (loss(model, x0.nan_to_num(), seeded(), **m) for m in ({}, {"observed": torch.ones(64, 3) > 0}))
    assert torch.equal(plain, given)


def test_what_does_not_read_the_mask_is_refused(generator):
    x0, observed = masked((3,), generator)
    for model in (ScoreModel(MLP((3,), width=8, depth=1), VPSDE()), Gaussian(torch.zeros(3), 1.0)):
        with pytest.raises(TypeError, match=r"missing values need a network .*observed=True.*missing=\"drop\""):
            Loss()(model, x0, observed=observed)
    model = trained_model((3,))
    with pytest.raises(TypeError, match=r"observed must be bool, got torch.float32; pass ~x0.isnan\(\)"):
        Loss()(model, x0, observed=observed.float())
    with pytest.raises(ValueError, match=r"observed must have the shape of x0, \(64, 3\), got \(64, 1\)"):
        Loss()(model, x0, observed=observed[:, :1])
    numpy_mask = Loss()(model, x0, seeded(), observed=observed.numpy())
    assert torch.equal(numpy_mask, Loss()(model, x0, seeded(), observed=observed))


def test_a_network_reads_the_mask_if_its_forward_names_it():
    assert reads_observed(Recorder())
    assert reads_observed(MLP((3,), width=8, depth=1, observed=True))
    assert not reads_observed(MLP((3,), width=8, depth=1))
    assert not reads_observed(nn.Linear(3, 3))
    assert reads_observed(nn.DataParallel(Recorder()))


def test_the_network_with_a_mask_of_ones_is_the_one_without_a_mask(generator):
    net = trained_model((2, 4)).net
    x, log_snr = torch.randn(5, 2, 4, generator=generator), torch.linspace(-3, 3, 5)
    observed = torch.ones(5, 2, 4, dtype=torch.bool)
    assert torch.equal(net(x, log_snr), net(x, log_snr, observed=observed))
    assert torch.equal(net(x, log_snr), net(x, log_snr, observed=observed.float()))
    observed[:, 1, 2] = False
    assert not torch.equal(net(x, log_snr), net(x, log_snr, observed=observed))
    with pytest.raises(ValueError, match=r"observed must have the shape of x, \(5, 2, 4\), got \(5, 2\)"):
        net(x, log_snr, observed=observed[..., 0])
    with pytest.raises(ValueError, match=r"observed must be None for this network.*observed=True"):
        MLP((2, 4), width=8, depth=1)(x, log_snr, observed=observed)
