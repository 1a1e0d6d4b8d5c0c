"""Exact models, against the Fokker–Planck equation, autograd, quadrature and torch's own distributions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.analytic import Gaussian, GaussianMixture, KernelDensity
from scoresde.process import ou
from scoresde.process.schedule import FromBetas
from scoresde.process.sde import VPSDE, Flow

D = torch.float64
AXES = torch.linalg.qr(torch.tensor([[1.0, 0.3, -0.2], [0.5, -1.0, 0.7], [0.1, 0.9, 0.4]], dtype=D))[0]
COV = AXES @ torch.diag(torch.tensor([0.25, 1.5, 4.0], dtype=D)) @ AXES.T


def _models() -> dict[str, Gaussian | GaussianMixture | KernelDensity]:
    means = torch.tensor([[1.0, -0.5, 2.0], [-1.0, 0.3, 0.0]], dtype=D)
    return {
        "full covariance": Gaussian(means[0], COV),
        "diagonal": Gaussian(means[0], torch.tensor([0.25, 1.0, 4.0], dtype=D)),
        "sphere": Gaussian(means[0], 0.25),
        "mixture of full covariances": GaussianMixture(
            torch.tensor([1.0, 3.0], dtype=D), means, torch.stack([COV, 0.3 * torch.eye(3, dtype=D)])
        ),
        "mixture of spheres": GaussianMixture(torch.tensor([0.3, 0.7]), means, torch.tensor([0.5, 0.1])),
        "kernel density": KernelDensity(means, 0.4),
    }


MODELS = _models()
every_model = pytest.mark.parametrize("name", MODELS)


def _points(n: int = 5) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(3), dtype=D) * 1.3


def _density(model: Gaussian | GaussianMixture | KernelDensity, x: Tensor, tau: float) -> Tensor:
    """The same log-density, computed with torch.distributions."""
    parts = []
    for k in range(len(model.means)):
        cov = torch.diag(model.variances[k].expand(3))
        if model.axes is not None:
            cov = model.axes[k] @ cov @ model.axes[k].T
        cov_tau = math.exp(-2 * tau) * cov - math.expm1(-2 * tau) * torch.eye(3, dtype=D)
        component = torch.distributions.MultivariateNormal(math.exp(-tau) * model.means[k], cov_tau)
        parts.append(component.log_prob(x) + model.log_weights[k])
    return torch.logsumexp(torch.stack(parts), 0)


@every_model
def test_the_log_density_is_that_of_torch_at_every_time(name):
    model, x = MODELS[name], _points()
    for tau in (0.0, 1e-4, 0.3, 2.0, 5.0):
        assert torch.allclose(model.log_prob(x, tau), _density(model, x, tau), rtol=1e-12, atol=1e-12)
    taus = torch.tensor([0.0, 1e-4, 0.3, 2.0, 5.0], dtype=D)
    single = torch.stack([model.log_prob(x[i : i + 1], taus[i].item())[0] for i in range(5)])
    assert torch.allclose(model.log_prob(x, taus), single, rtol=1e-14)


def test_the_covariances_are_those_of_the_arguments():
    assert torch.allclose(MODELS["full covariance"].variances.sort().values, torch.tensor([0.25, 1.5, 4.0], dtype=D))
    expected = torch.distributions.MultivariateNormal(torch.tensor([1.0, -0.5, 2.0], dtype=D), COV)
    assert torch.allclose(MODELS["full covariance"].log_prob(_points()), expected.log_prob(_points()), rtol=1e-12)
    mixture = MODELS["mixture of full covariances"]
    assert mixture.log_weights.exp().tolist() == pytest.approx([0.25, 0.75])


@every_model
def test_the_score_is_the_gradient_of_the_log_density(name):
    model = MODELS[name]
    for tau in (1e-5, 0.05, 0.7, 4.0):
        x = _points().requires_grad_()
        (gradient,) = torch.autograd.grad(model.log_prob(x, tau).sum(), x)
        prediction = model(x.detach(), tau)
        assert torch.allclose(prediction.score, gradient, rtol=1e-9, atol=1e-9 * gradient.abs().max().item())
        assert torch.allclose(prediction.eps, -ou.sigma(tau) * gradient, rtol=1e-9, atol=1e-9)


def _fokker_planck_residual(model: Gaussian | GaussianMixture | KernelDensity, tau: float) -> Tensor:
    """∂ log p/∂τ - (d + x·∇log p + Δ log p + |∇log p|²), which is (∂p/∂τ - ∇·(x p) - Δp)/p."""
    x = _points().requires_grad_()
    time = torch.full((5,), tau, dtype=D, requires_grad=True)
    log_prob = model.log_prob(x, time)
    slope, gradient = torch.autograd.grad(log_prob.sum(), (time, x), create_graph=True)
    laplacian = torch.zeros_like(slope)
    for i in range(3):
        laplacian = laplacian + torch.autograd.grad(gradient[:, i].sum(), x, retain_graph=True)[0][:, i]
    return slope - (3 + (x * gradient).sum(1) + laplacian + gradient.square().sum(1))


def test_the_hessian_of_the_log_density_at_a_mean_is_that_of_the_component():
    model = GaussianMixture(torch.ones(2), torch.tensor([[0.0, 0.0], [30.0, 0.0]]).double(), torch.tensor([2.0, 0.5]))
    curvature = torch.autograd.functional.hessian(lambda x: model.log_prob(x[None])[0], model.means[0])
    assert torch.allclose(curvature, -0.5 * torch.eye(2, dtype=torch.float64), atol=1e-12)


@every_model
def test_densities_solve_the_fokker_planck_equation(name):
    for tau in (0.05, 0.4, 1.5, 4.0):
        assert _fokker_planck_residual(MODELS[name], tau).abs().max().item() <= 1e-8


def test_the_standard_normal_distribution_is_stationary():
    model, x = Gaussian(torch.zeros(3, dtype=D), 1.0), _points()
    expected = torch.distributions.Normal(torch.zeros((), dtype=D), 1.0).log_prob(x).sum(1)
    for tau in (0.0, 1e-4, 0.3, 5.0):
        assert torch.allclose(model.log_prob(x, tau), expected, rtol=0, atol=1e-13)
    for tau in (0.05, 1.0):
        assert _fokker_planck_residual(model, tau).abs().max().item() <= 1e-8
        assert torch.equal(model(x, tau).v, torch.zeros_like(x))  # the probability flow is zero
        assert torch.allclose(model(x, tau).score, -x, rtol=1e-14)


def test_the_marginal_is_the_convolution_of_the_data_with_the_kernel():
    model = GaussianMixture(
        torch.tensor([0.3, 0.7], dtype=D), torch.tensor([[-1.0], [1.5]], dtype=D), torch.tensor([0.2, 0.05], dtype=D)
    )
    grid = torch.linspace(-8, 8, 4001, dtype=D)
    step = (grid[1] - grid[0]).item()
    data = model.log_prob(grid[:, None]).exp()
    for tau in (0.05, 0.5, 2.0):
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        points = torch.tensor([-1.2, 0.1, 0.9], dtype=D)
        kernel = torch.exp(-0.5 * ((points[:, None] - alpha * grid) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
        quadrature = (kernel * data).sum(1) * step
        assert torch.allclose(model.log_prob(points[:, None], tau).exp(), quadrature, rtol=1e-9)
        # and the data estimate is the posterior mean under the same integral
        mean = (kernel * data * grid).sum(1) * step / quadrature
        assert torch.allclose(model(points[:, None], tau).x0[:, 0], mean, rtol=1e-8)


@every_model
def test_samples_have_the_models_mean_and_covariance(name, generator):
    model, n = MODELS[name], 40_000
    for tau in (0.0, 0.4):
        x = model.sample(n, tau, generator)
        assert x.shape == (n, 3)
        weights, alpha = model.log_weights.exp(), math.exp(-tau)
        mean = alpha * weights @ model.means
        covs = torch.diag_embed(model.variances.expand(-1, 3))
        if model.axes is not None:
            covs = model.axes @ covs @ model.axes.mT
        spread = (model.means - weights @ model.means)[:, :, None]
        cov = alpha**2 * torch.einsum("k,kij->ij", weights, covs + spread @ spread.mT)
        cov = cov + (1 - alpha**2) * torch.eye(3, dtype=D)
        std = x.std(0) / math.sqrt(n)
        assert bool(((x.mean(0) - mean).abs() < 4 * std).all())
        centered = x - mean
        products = centered[:, :, None] * centered[:, None, :]
        assert bool(((products.mean(0) - cov).abs() < 4.5 * products.std(0) / math.sqrt(n)).all())


def test_sampling_draws_from_the_generator_only():
    before = torch.get_rng_state()
    for model in MODELS.values():
        a, b = (model.sample(7, 0.2, torch.Generator().manual_seed(5)) for _ in range(2))
        assert torch.equal(a, b)
        assert model.sample(0).shape == (0, 3)
    torch.set_rng_state(before)
    MODELS["full covariance"].sample(7, 0.2, torch.Generator().manual_seed(5))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_data_estimate_of_a_narrow_kernel_density_is_the_nearest_data_point():
    data = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=D)
    model = KernelDensity(data, 1e-3)
    x = VPSDE().perturb(data, 0.01, 0.5 * torch.ones_like(data))
    assert torch.allclose(model(x, 0.01).x0, data, atol=1e-4)


@every_model
def test_without_signal_the_data_estimate_is_the_mean_of_the_data(name):
    model = MODELS[name]
    x = _points()
    mean = (model.log_weights.exp() @ model.means).expand_as(x)
    for sde in (Flow(), VPSDE(FromBetas((0.1, 1.0)))):
        model.sde, before = sde, model.sde
        for tau in (math.inf, torch.full((5,), math.inf, dtype=D)):
            p = model(x, tau)
            assert torch.allclose(p.x0, mean, rtol=1e-14)
            assert torch.allclose(p.eps, x, rtol=1e-14)
            assert torch.allclose(p.score, -x, rtol=1e-14)
        model.sde = before


@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 2, 2)])
def test_events_of_any_shape_and_batches_of_zero_and_one_work(event):
    mean = torch.linspace(-1, 1, math.prod(event), dtype=D).reshape(event)
    model = Gaussian(mean, 0.5)
    for n in (0, 1, 4):
        x = model.sample(n, 0.3)
        assert x.shape == (n, *event)
        variance = 0.5 * math.exp(-0.6) - math.expm1(-0.6)
        score = -(x - math.exp(-0.3) * mean) / variance
        assert torch.allclose(model(x, 0.3).score, score, rtol=1e-12)
        assert model.log_prob(x, 0.3).shape == (n,)
    with pytest.raises(ValueError, match=r"x must have shape .* give the batch first"):
        model.log_prob(torch.zeros(4, 7, dtype=D))


def test_the_ring_has_unit_variance_and_its_modes_on_a_circle():
    model = GaussianMixture.ring(modes=8, radius=2.0, std=0.3)
    cov = (model.means.T @ model.means) / 8 + model.variances[0, 0] * torch.eye(2, dtype=D)
    assert torch.allclose(cov, torch.eye(2, dtype=D), atol=1e-14)
    radii = model.means.norm(dim=1)
    assert torch.allclose(radii, radii[:1].expand(8), rtol=1e-14)
    assert GaussianMixture.ring(radius=2.0, unit=False).means.norm(dim=1).tolist() == pytest.approx([2.0] * 8)


def test_settings_that_define_no_distribution_are_refused():
    zero = torch.zeros(2)
    for make, text in (
        (lambda: Gaussian(zero, torch.tensor([[1.0, 2.0], [2.0, 1.0]])), "cov must be positive semi-definite"),
        (lambda: Gaussian(zero, torch.ones(3)), r"covs must have shape \(1,\), \(1, 2\) or \(1, 2, 2\), got \(1, 3\)"),
        (lambda: Gaussian(zero, -1.0), "covs must not be negative"),
        (lambda: GaussianMixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 2), torch.ones(2)), "weights must be 2 pos"),
        (lambda: KernelDensity(torch.zeros(3, 2), 0.0), "bandwidth must be a positive finite number, got 0.0"),
    ):
        with pytest.raises(ValueError, match=text):
            make()


def test_the_entropy_in_one_dimension_follows_the_identity_of_de_bruijn():
    # de Bruijn: dH/dτ = -1 + Fisher information, by Gauss–Hermite quadrature of the exact score
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    model = Gaussian(torch.tensor([0.7], dtype=D), 0.25)
    for tau in (0.1, 1.0):
        variance = 0.25 * math.exp(-2 * tau) - math.expm1(-2 * tau)
        x = math.exp(-tau) * 0.7 + math.sqrt(variance) * torch.as_tensor(nodes)[:, None]
        fisher = (torch.as_tensor(weights) * model(x, tau).score[:, 0] ** 2).sum().item() / math.sqrt(2 * math.pi)
        slope = (1 - 0.25) * math.exp(-2 * tau) / variance  # of H = ½ log(2πe V)
        assert fisher - 1 == pytest.approx(slope, rel=1e-10)


def test_a_cholesky_factor_is_refused_as_a_covariance():
    with pytest.raises(ValueError, match=r"cov must be symmetric, .* by up to 0\.9; instead of .* pass L @ L\.mT"):
        Gaussian(torch.zeros(2), torch.tensor([[1.0, 0.0], [0.9, 0.1]]))


@pytest.mark.parametrize("wrong", [torch.tensor([1, -1]), [1.0, -1.0]])
def test_integer_means_and_data_are_refused_and_not_truncated(wrong: Any):
    for make in (
        lambda: Gaussian(wrong, 0.25),
        lambda: GaussianMixture(torch.ones(2), wrong, torch.ones(2)),
        lambda: KernelDensity(wrong, 0.5),
    ):
        with pytest.raises(TypeError, match=r"must be a floating tensor, got (torch\.int64|list); write"):
            make()


def test_a_kernel_density_without_data_is_refused():
    with pytest.raises(ValueError, match=r"data must have at least one entry, got shape \(0, 2\)"):
        KernelDensity(torch.zeros(0, 2), 0.1)
