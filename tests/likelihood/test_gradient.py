"""Gradients of log p against closed forms, and the adjoint method against direct backpropagation."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.likelihood import TorchDiffEq, differentiable_log_prob, log_prob
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE

TIGHT = TorchDiffEq(rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("adjoint", [True, False])
def test_the_gradient_in_the_data_is_the_exact_score(adjoint: bool, generator: torch.Generator) -> None:
    model = GaussianMixture.ring()
    tau = model.sde.tau_min
    x = model.sample(6, tau, generator).requires_grad_()
    terminal = lambda z: model.log_prob(z, model.sde.tau_max)  # noqa: E731
    value = differentiable_log_prob(model, x, adjoint=adjoint, solver=TIGHT, prior_log_prob=terminal)
    assert torch.allclose(value, model.log_prob(x, tau), rtol=0, atol=1e-6)
    gradient = torch.autograd.grad(value.sum(), x)[0]
    score = model(x.detach(), tau).score
    assert torch.allclose(gradient, score, rtol=1e-4, atol=1e-4)


class PosteriorMean(nn.Module):
    """eps of N(mean, I) with a trainable mean: log p has the gradient x - mean."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.3, -0.7], dtype=torch.float64))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        alpha, sigma = (torch.sigmoid(s * log_snr.double()).sqrt().unsqueeze(1) for s in (1, -1))
        return -sigma * self.mean + 0 * x + 0 * alpha  # v = sigma-part only: v(x) = -sigma * mean


@pytest.mark.parametrize("adjoint", [True, False])
def test_the_gradient_in_a_parameter_has_its_closed_form(adjoint: bool, generator: torch.Generator) -> None:
    net = PosteriorMean()
    model = ScoreModel(net, VPSDE())
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    value = differentiable_log_prob(model, x, adjoint=adjoint, solver=TIGHT)
    value.sum().backward()
    low, high = model.sde.tau_min, model.sde.tau_max
    gap = float(torch.exp(torch.tensor(-low, dtype=torch.float64)) - torch.exp(torch.tensor(-high)))
    z = x - gap * net.mean.detach()  # ∫ -sigma dφ = cos(high) - cos(low)
    standard = -0.5 * (z * z).sum(1) - torch.log(torch.tensor(2 * torch.pi))
    assert torch.allclose(value.detach(), standard, rtol=0, atol=1e-6)
    assert net.mean.grad is not None
    assert torch.allclose(net.mean.grad, gap * z.sum(0), rtol=0, atol=1e-5)


class TwoModes(PosteriorMean):
    """`PosteriorMean` in evaluation mode, and twice its output in training mode."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return (2 if self.training else 1) * super().forward(x, log_snr)


@pytest.mark.parametrize("adjoint", [True, False])
def test_the_gradient_is_that_of_evaluation_mode_although_it_is_computed_later(
    adjoint: bool, generator: torch.Generator
) -> None:
    x, gradients = torch.randn(5, 2, generator=generator, dtype=torch.float64), []
    for net in (PosteriorMean().eval(), TwoModes().train()):
        model = ScoreModel(net, VPSDE()).train(net.training)
        differentiable_log_prob(model, x, adjoint=adjoint, solver=TIGHT).sum().backward()
        assert net.training == isinstance(net, TwoModes)
        gradients.append(net.mean.grad)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-8)


def test_the_adjoint_and_direct_backpropagation_agree_on_a_network(generator: torch.Generator) -> None:
    net = MLP((3,), width=8, depth=1, embedding_width=8).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype))
    model = ScoreModel(net, VPSDE()).train()
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    grads = []
    for adjoint in (True, False):
        model.zero_grad()
        value = differentiable_log_prob(
            model, x, adjoint=adjoint, probes=2, seeds=[1, 2, 3, 4], solver=TorchDiffEq(rtol=1e-6, atol=1e-6)
        )
        value.mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert model.training
    assert grads[1].norm() > 0.1
    assert (grads[0] - grads[1]).norm() < 1e-3 * grads[1].norm()


def test_the_differentiable_log_prob_equals_log_prob(generator: torch.Generator) -> None:
    model = Gaussian(torch.tensor([0.5, -0.2], dtype=torch.float64), torch.tensor([0.1, 2.0]))
    x = model.sample(5, 0.0, generator)
    value = differentiable_log_prob(model, x, solver=TIGHT)
    assert torch.allclose(value, log_prob(model, x).log_prob, rtol=0, atol=1e-6)


def test_gradient_ascent_raises_the_likelihood(generator: torch.Generator) -> None:
    net = PosteriorMean()
    model = ScoreModel(net, VPSDE())
    x = torch.randn(64, 2, generator=generator, dtype=torch.float64) + 1.5
    before = log_prob(model, x).log_prob.mean()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.5)
    for _ in range(6):
        optimizer.zero_grad()
        (-differentiable_log_prob(model, x).mean()).backward()
        optimizer.step()
    assert log_prob(model, x).log_prob.mean() > before + 1.5


def test_errors_of_differentiable_log_prob() -> None:
    model = GaussianMixture.ring()
    with pytest.raises(ValueError, match="probes must be a positive integer, got 0"):
        differentiable_log_prob(model, torch.zeros(2, 2), probes=0)
    with pytest.raises(RuntimeError, match="not arrived after max_nfe = 9"):
        differentiable_log_prob(model, torch.zeros(2, 2), solver=TorchDiffEq(max_nfe=9))
    with pytest.raises(RuntimeError, match="differentiable in x"):
        differentiable_log_prob(ScoreModel(Constant(), VPSDE()), torch.zeros(2, 2))


class Constant(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.weight.expand(len(x), 2)
