"""The solvers of torchdiffeq and torchsde against the exact Gaussian distribution."""

from __future__ import annotations

import math

import pytest
import torch

from scoresde.analytic import Gaussian
from scoresde.process import ou
from scoresde.process.sde import SDE, VE, VPSDE, Flow
from scoresde.sampling import ODE, RungeKutta, TorchSDE, sample

MEAN, VARIANCE = torch.tensor([0.7, -1.3, 0.0], dtype=torch.float64), torch.tensor([0.25, 4.0, 1.0]).double()


def _mean_and_std(tau: float) -> tuple[torch.Tensor, torch.Tensor]:
    return ou.alpha(tau) * MEAN, (ou.alpha(tau) ** 2 * VARIANCE + ou.sigma(tau) ** 2).sqrt()


@pytest.mark.parametrize(
    ("method", "sde"),
    [("dopri5", VPSDE()), ("dopri5", VE()), ("dopri5", Flow()), ("bosh3", VPSDE()), ("dopri8", VPSDE())],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_an_adaptive_solver_reproduces_the_exact_map_of_a_gaussian(method: str, sde: SDE) -> None:
    model = Gaussian(MEAN, VARIANCE, sde)
    start = min(sde.tau_max, 5.0)
    (mean, std), (end_mean, end_std) = _mean_and_std(start), _mean_and_std(sde.tau_min)
    x = torch.linspace(-2, 2, 15, dtype=torch.float64).reshape(5, 3)
    init, c = float(sde.scale(start)) * x, float(sde.scale(sde.tau_min))
    drawn = sample(model, 5, ODE(method, rtol=1e-8, atol=1e-8), init=init, start=start)
    torch.testing.assert_close(drawn.x / c, end_mean + end_std / std * (x - mean), rtol=0, atol=1e-6)


def test_the_network_calls_of_the_ode_grow_as_the_tolerance_falls() -> None:
    model = Gaussian(MEAN, VARIANCE)
    loose, tight = (sample(model, 5, ODE(rtol=tol, atol=tol), seeds=range(5)) for tol in (1e-3, 1e-8))
    exact = sample(model, 5, RungeKutta(400), seeds=range(5)).x
    assert loose.nfe < tight.nfe
    assert (loose.x - exact).abs().max() > (tight.x - exact).abs().max()


def test_float32_reaches_the_same_end_within_its_precision() -> None:
    narrow = sample(Gaussian(MEAN.float(), VARIANCE.float()), 5, ODE(), seeds=range(5))
    model = Gaussian(MEAN, VARIANCE)
    (mean, std), (end_mean, end_std) = _mean_and_std(model.sde.tau_max), _mean_and_std(model.sde.tau_min)
    start = sample(Gaussian(MEAN.float(), VARIANCE.float()), 5, ODE(), seeds=range(5), trajectory=True).trajectory
    assert narrow.x.dtype == torch.float32
    assert start is not None
    expected = end_mean + end_std / std * (start[0].double() - mean)
    torch.testing.assert_close(narrow.x.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(
    ("method", "steps", "shape"), [("srk", 50, (3,)), ("srk", 50, (3, 1, 1)), ("euler", 150, (3,))], ids=str
)
def test_torchsde_ends_with_the_mean_and_variance_of_the_data(method: str, steps: int, shape: tuple[int, ...]) -> None:
    n = 3000
    model = Gaussian(MEAN.reshape(shape), VARIANCE, VPSDE(tau_min=1e-3))
    drawn = sample(model, n, TorchSDE(steps, method), generator=torch.Generator().manual_seed(3))
    assert drawn.x.shape == (n, *shape)
    mean, std = _mean_and_std(drawn.tau)
    x = drawn.x.reshape(n, 3)
    # 4 standard errors, and the bias of the step (first order: 1 % of the variance at 150 steps)
    assert ((x.mean(0) - mean).abs() < 4 * std / math.sqrt(n) + 0.005).all()
    assert ((x.var(0) / std**2 - 1).abs() < 4 * math.sqrt(2 / n) + 0.01).all()


def test_torchsde_depends_on_the_seed_of_each_sample() -> None:
    drawn = sample(Gaussian(MEAN, VARIANCE), 3, TorchSDE(steps=3), seeds=[1, 1, 2]).x
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_torchsde_needs_a_start_with_signal() -> None:
    with pytest.raises(ValueError, match=r"finite start in log-SNR.*clipped clock"):
        sample(Gaussian(MEAN, VARIANCE, Flow()), 3, TorchSDE(steps=3))


@pytest.mark.parametrize("method", ["srk", "euler"])
def test_torchsde_reports_each_step_and_can_be_stopped(method: str) -> None:
    model = Gaussian(MEAN, VARIANCE)
    alone = sample(model, 3, TorchSDE(5, method), seeds=range(3))
    observed = sample(model, 3, TorchSDE(5, method), seeds=range(3), trajectory=True, previews=True)
    assert torch.equal(observed.x, alone.x)
    assert observed.nfe == alone.nfe
    assert observed.trajectory is not None
    assert observed.trajectory.shape == (6, 3, 3)
    assert observed.taus is not None
    even = torch.linspace(ou.log_snr(model.sde.tau_max), ou.log_snr(model.sde.tau_min), 6, dtype=torch.float64)
    torch.testing.assert_close(ou.log_snr(torch.tensor(observed.taus, dtype=torch.float64)), even)
    assert sample(model, 3, TorchSDE(5, method), seeds=range(3), observe=lambda p: p.done == 2).tau == observed.taus[2]
