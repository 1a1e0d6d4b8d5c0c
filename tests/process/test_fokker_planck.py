r"""Densities of each view against the Fokker–Planck equation of its paper's SDE, and of the three ways back in time.

For $dx = f\,dt + g\,dW$ in d dimensions it is $\partial_t p = -\nabla\cdot(f p) + \tfrac12 g^2\Delta p$. The residuals
are in $\log p$, by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.process.schedule import Cosine, LinearVP
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP

D = torch.float64
MEANS = torch.tensor([[1.0, -0.5], [-1.2, 0.3], [0.2, 1.4]], dtype=D)
WEIGHTS, VARIANCES = torch.tensor([0.5, 0.3, 0.2], dtype=D), torch.tensor([0.3, 0.1, 0.8], dtype=D)

LogDensity = Callable[[Tensor, Tensor], Tensor]  # of x (B, d) and t (B,)
Field = Callable[[Tensor, Tensor], Tensor]


def _mixture(sde: SDE) -> GaussianMixture:
    return GaussianMixture(WEIGHTS, MEANS, VARIANCES, sde)


def _points(count: int = 6) -> Tensor:
    return 1.3 * torch.randn(count, 2, generator=torch.Generator().manual_seed(5), dtype=D)


def _divergence(field: Tensor, x: Tensor) -> Tensor:
    rows = [torch.autograd.grad(field[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(x.shape[1])]
    return torch.stack(rows).sum(0)


def _residual(log_prob: LogDensity, drift: Field, half_square: float | Tensor, x: Tensor, t: float) -> Tensor:
    """(∂p/∂t + ∇·(f p) - ½ g² Δp)/p, with ``half_square`` = ½ g², ``(B,)``."""
    x, time = x.clone().requires_grad_(), torch.full((len(x),), t, dtype=D, requires_grad=True)
    value = log_prob(x, time)
    slope, gradient = torch.autograd.grad(value.sum(), (time, x), create_graph=True)
    flow = drift(x, time)
    transport = _divergence(flow, x) + (flow * gradient).sum(1)
    diffusion = _divergence(gradient, x) + gradient.square().sum(1)
    return (slope + transport - half_square * diffusion).detach()


def _paper_sde(sde: SDE, u: float) -> tuple[float, float]:
    """Factor of the drift, f = factor · x, and ½ g², as each paper prints them, at its own time u."""
    if isinstance(sde, VE):  # dx = σ̃ √(2 log(50/.01)) dW
        sigma = 0.01 * 5000.0**u
        return 0.0, sigma**2 * math.log(5000.0)
    if isinstance(sde, Flow):  # mean (1 - u) x0, standard deviation u
        return -1 / (1 - u), u / (1 - u)
    beta, integral = 0.1 + 19.9 * u, 0.1 * u + 9.95 * u**2  # Song et al. 2021, eqs. 32 and 28
    discount = 1.0 if isinstance(sde, VPSDE) else -math.expm1(-2 * integral)
    return -0.5 * beta, 0.5 * beta * discount


@pytest.mark.parametrize("sde", [VPSDE(LinearVP()), VE(), SubVP(), Flow()], ids=lambda sde: type(sde).__name__)
def test_the_density_of_a_view_solves_the_fokker_planck_equation_of_its_paper(sde: SDE):
    model = _mixture(sde)

    def log_prob(x: Tensor, u: Tensor) -> Tensor:
        tau = torch.as_tensor(sde.schedule.tau(u))
        scale = torch.as_tensor(sde.scale(tau))
        return model.log_prob(x / scale[:, None], tau) - 2 * scale.log()

    for u in (0.2, 0.5, 0.8):
        factor, half_square = _paper_sde(sde, u)
        scale = float(sde.scale(sde.schedule.tau(u)))
        residual = _residual(log_prob, lambda x, _, f=factor: f * x, half_square, scale * _points(), u)
        assert residual.abs().max().item() <= 1e-8 * max(1.0, half_square)


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0, 2.0], ids=str)
def test_the_models_score_reverses_the_process_with_any_amount_of_noise(noise: float):
    # in r = -τ: dx = (x + (1 + noise) score) dr + √(2 noise) dW; noise 0 is the ODE, noise 1 the reverse SDE
    model = _mixture(VPSDE(Cosine()))

    def drift(x: Tensor, r: Tensor) -> Tensor:
        return x + (1 + noise) * model(x, -r).score

    for tau in (0.05, 0.4, 1.5):
        residual = _residual(lambda x, r: model.log_prob(x, -r), drift, noise, _points(), -tau)
        assert residual.abs().max().item() <= 1e-8


def test_the_velocity_in_the_angle_carries_the_density():
    # dx/dφ = v without diffusion, τ = -log cos φ
    model = _mixture(VPSDE(Cosine()))
    for phi in (0.2, 0.8, 1.4):
        residual = _residual(
            lambda x, angle: model.log_prob(x, -angle.cos().log()),
            lambda x, angle: model(x, -angle.cos().log()).v,
            0.0,
            _points(),
            phi,
        )
        assert residual.abs().max().item() <= 1e-8
