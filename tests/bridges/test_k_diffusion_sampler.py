"""Samplers as functions of k-diffusion: against its published update formulas, exact models and `sample`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.adapters import FromSigma
from scoresde.bridges.k_diffusion_sampler import _derived, _NoiseSource, sampler_function, sigmas_of
from scoresde.process import VE, X0, Flow, GeometricSigma, StraightPath
from scoresde.sampling import (
    DDIM,
    DDPM,
    ERSDE,
    Adams,
    ExplicitGrid,
    Heun,
    Moments,
    NonStationary,
    SASolver,
    UniformAngle,
    UniformU,
    Whitened,
)

SIGMAS = torch.tensor([14.6, 7.0, 3.1, 1.5, 0.8, 0.3, 0.03, 0.0], dtype=torch.float64)


class Net(nn.Module):
    """A nonlinear function of (x̃, σ̃) in float64."""

    def forward(self, x: Tensor, sigma: Tensor, bias: float = 0.1, seed: int = 0) -> Tensor:
        sigma = sigma.reshape(-1, 1).double()
        return torch.tanh(x / (1 + sigma)) + bias * torch.sin(sigma)


def first(generator: torch.Generator) -> Tensor:
    return torch.randn(4, 3, generator=generator, dtype=torch.float64) * SIGMAS[0]


def euler(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """k-diffusion's ``sample_euler`` without churn."""
    for sigma, following in zip(sigmas, sigmas[1:]):
        x = x + (x - model(x, sigma.expand(len(x)))) / sigma * (following - sigma)
    return x


def heun(model: Any, x: Tensor, sigmas: Tensor) -> Tensor:
    """k-diffusion's ``sample_heun`` without churn."""
    for sigma, following in zip(sigmas, sigmas[1:]):
        slope = (x - model(x, sigma.expand(len(x)))) / sigma
        end = x + slope * (following - sigma)
        if following > 0:
            slope = 0.5 * (slope + (end - model(end, following.expand(len(x)))) / following)
            end = x + slope * (following - sigma)
        x = end
    return x


@pytest.mark.parametrize(("sampler", "published"), [(DDIM(), euler), (Heun(), heun)], ids=["euler", "heun"])
def test_a_named_method_is_that_of_k_diffusion(sampler: Any, published: Any, generator: torch.Generator) -> None:
    x, net = first(generator), Net()
    torch.testing.assert_close(sampler_function(sampler)(net, x, SIGMAS), published(net, x, SIGMAS))


def test_a_flow_is_solved_in_its_own_coordinates(generator: torch.Generator) -> None:
    sigmas = torch.tensor([1.0, 0.9, 0.7, 0.4, 0.1, 0.0], dtype=torch.float64)
    x, net = torch.randn(4, 3, generator=generator, dtype=torch.float64), Net()
    torch.testing.assert_close(sampler_function(DDIM(), flow=True)(net, x, sigmas), euler(net, x, sigmas))


@pytest.mark.parametrize(
    "sampler", [Adams(), Adams(12), Heun(churn=3.0), DDPM(), ERSDE(), SASolver()], ids=lambda s: type(s).__name__
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_result_is_that_of_sample_on_the_same_times(sampler: Any, dtype: torch.dtype) -> None:
    clock = GeometricSigma(0.02, 14.6)
    process = VE(clock, tau_min=float(clock.tau(0.0)))
    model = sd.ScoreModel(FromSigma(Net()), process, X0(), event_shape=(3,))
    taus = tuple(0.5 * math.log1p(float(sigma) ** 2) for sigma in SIGMAS)
    own = replace(sampler, steps=7, grid=ExplicitGrid((process.tau_max, *taus[1:])))
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=dtype)
    generator = torch.Generator().manual_seed(_derived(2))
    expected = sd.sample(model, (4, 3), own, init=noise * 14.6, generator=generator).x
    result = sampler_function(sampler)(Net(), noise * 14.6, SIGMAS, extra_args={"seed": 2})
    assert result.dtype == dtype
    torch.testing.assert_close(result, expected, rtol=2e-5, atol=2e-5)


def test_adams_is_near_the_exact_solution_for_gaussian_data() -> None:
    variances = torch.tensor([4.0, 0.25, 1.0], dtype=torch.float64)
    sigmas = torch.cat([torch.logspace(math.log10(80), -2, 20, dtype=torch.float64), torch.zeros(1)])

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        return x * variances / (variances + sigma.reshape(-1, 1) ** 2)

    x = torch.full((2, 3), 80.0, dtype=torch.float64)
    expected = x * (variances / (variances + 80.0**2)).sqrt()
    error = (sampler_function(Adams())(denoiser, x, sigmas) / expected - 1).abs().max()
    first_order = (sampler_function(DDIM())(denoiser, x, sigmas) / expected - 1).abs().max()
    assert error < 5e-3
    assert first_order > 20 * error


def test_the_callback_gets_each_step_and_extra_arguments_reach_the_model(generator: torch.Generator) -> None:
    seen: list[dict[str, Any]] = []
    x, net = first(generator), Net()
    sampler_function(DDIM())(net, x, SIGMAS, {"bias": 0.7}, seen.append, disable=True)
    assert [values["i"] for values in seen] == list(range(7))
    assert torch.equal(torch.stack([values["sigma"] for values in seen]), SIGMAS[:-1])
    torch.testing.assert_close(seen[0]["x"], x)
    torch.testing.assert_close(seen[2]["denoised"], net(seen[2]["x"], SIGMAS[2].expand(4), bias=0.7))


def test_a_noise_sampler_is_asked_for_each_step(generator: torch.Generator) -> None:
    asked: list[tuple[float, float]] = []

    def noise(sigma: Tensor, following: Tensor) -> Tensor:
        asked.append((float(sigma), float(following)))
        return torch.zeros(4, 3)

    x = first(generator)
    result = sampler_function(DDPM())(Net(), x, SIGMAS, noise_sampler=noise)
    assert asked == list(zip(SIGMAS.tolist(), SIGMAS[1:-1].tolist()))
    mean = x
    for sigma, s in zip(SIGMAS, SIGMAS[1:]):  # the mean of q(x_s | x, x_0) in these coordinates
        mean = Net()(mean, sigma.expand(4)) * (1 - s**2 / sigma**2) + mean * (s**2 / sigma**2)
    torch.testing.assert_close(result, mean)


def test_the_seed_of_the_first_state_is_not_that_of_the_steps() -> None:
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(2)) * SIGMAS[0]
    sigmas = SIGMAS[[0, 3, 5]].float()
    run = sampler_function(DDPM())
    seeded = run(lambda x, sigma, seed: 0.0 * x, x, sigmas, {"seed": 2})
    ratio = float((sigmas[2] / sigmas[1]) ** 2)
    mean = x * float((sigmas[2] / sigmas[0]) ** 2)
    noise = (seeded - mean) / ratio  # of the first step, up to its size, and of the second
    correlation = torch.corrcoef(torch.stack([noise.reshape(-1), x.reshape(-1)]))[0, 1]
    assert correlation.abs() < 0.15  # 5 standard errors of independent noises
    assert torch.equal(seeded, run(lambda x, sigma, seed: 0.0 * x, x, sigmas, {"seed": 2}))


def test_further_noises_of_a_step_are_fresh() -> None:
    asked: list[tuple[float, float]] = []

    def noise(sigma: Tensor, following: Tensor) -> Tensor:
        asked.append((float(sigma), float(following)))
        return torch.ones(4, 3)

    source = _NoiseSource(SIGMAS, noise, 3, torch.device("cpu"))
    first_draw, second, third = (source.normal(torch.zeros(4, 3)) for _ in range(3))
    assert torch.equal(first_draw, torch.ones(4, 3))
    assert not torch.equal(second, third)
    assert second.std() > 0.3
    source.step = 1
    assert torch.equal(source.normal(torch.zeros(4, 3)), torch.ones(4, 3))
    assert asked == [(float(SIGMAS[0]), float(SIGMAS[1])), (float(SIGMAS[1]), float(SIGMAS[2]))]


def test_a_flow_from_noise_alone_needs_a_sampler_that_starts_there() -> None:
    with pytest.raises(ValueError, match="Heun needs a start with some signal, .*take Adams, DDIM"):
        sampler_function(Heun(), flow=True)(Net(), torch.zeros(1, 3), torch.tensor([1.0, 0.9, 0.5, 0.0]))


def test_a_calibrated_sampler_keeps_its_times(generator: torch.Generator) -> None:
    process = VE(GeometricSigma(0.02, 14.6), tau_min=1e-3)
    times = UniformAngle().times(process, 4)
    inner = NonStationary(
        4, ExplicitGrid(tuple(times)), weights=((1, 0.1), (1, 0, 0.1), (1, 0, 0, 0.2), (1, 0, 0, 0, 0.1))
    )
    sampler = Whitened(
        inner, Moments(torch.tensor([0.1, 0.0, -0.3]), torch.eye(3)[:, :2], torch.tensor([0.5, 0.2]), 0.9)
    )
    sigmas = sigmas_of(sampler, process)
    x = first(generator).float()
    model = sd.ScoreModel(FromSigma(Net()), process, X0(), event_shape=(3,))
    expected = sd.sample(model, (4, 3), sampler, init=x).x
    torch.testing.assert_close(sampler_function(sampler)(Net(), x, sigmas), expected, rtol=2e-5, atol=2e-5)
    with pytest.raises(ValueError, match="has 4 steps of fixed times, got other sigmas; pass sigmas_of"):
        sampler_function(sampler)(Net(), x, SIGMAS)


def test_levels_of_a_flow_are_its_own() -> None:
    process = Flow()
    sigmas = sigmas_of(DDIM(5, grid=UniformU()), process)
    taus = UniformU().times(process, 5)
    torch.testing.assert_close(sigmas, torch.tensor([float(StraightPath().u(tau)) for tau in taus]).double())
    assert sigmas[0] == 1


def test_wrong_arguments_are_answered() -> None:
    with pytest.raises(TypeError, match="sampler must be a step sampler or a calibrated one"):
        sampler_function(sd.ODE())  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="sigmas must fall strictly"):
        sampler_function(DDIM())(Net(), torch.zeros(1, 3), SIGMAS.flip(0))
    with pytest.raises(ValueError, match=r"sigmas of a flow must lie in \[0, 1\]"):
        sampler_function(DDIM(), flow=True)(Net(), torch.zeros(1, 3), SIGMAS)
