"""Tests of the variance of a DDPM step: optimal, learned and fixed, against exact distributions."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from linear_gaussian import GaussianData, run_sampler
from torch import Tensor, nn

import scoresde.sampling
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.sde import VE, VPSDE, Flow, SubVP
from scoresde.sampling import DDPM, OptimalVariance, UniformAngle, UniformU, optimal_variance, sample
from scoresde.storage import spec
from scoresde.storage.checkpoint import load, require_same, save
from scoresde.storage.checkpoint import read_checkpoint as load_checkpoint

CLOCK = VPSDE(tau_min=1e-3)
NARROW, WIDE = GaussianData(0.7, 0.5), GaussianData(-1.3, 2.0)
DATA = [pytest.param(NARROW, id="variance .25"), pytest.param(WIDE, id="variance 4")]


def _unexplained(data: GaussianData, log_snr: float) -> float:
    """1 - E eps_hat² for eps_hat = sigma (x - alpha mean) / var: the variance of eps given x."""
    tau = ou.tau_from_log_snr(log_snr)
    _, std = data.moments(tau)
    return 1.0 - ou.sigma(tau) ** 2 / std**2


def _optimal(data: GaussianData, *at: float) -> OptimalVariance:
    return OptimalVariance(at, tuple(_unexplained(data, log_snr) for log_snr in at))


# --- optimal ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("at", [(0.0,), (-7.0, 1.0, 6.5)], ids=["one point", "three points"])
def test_the_optimal_variance_is_exact_for_gaussian_data_with_any_number_of_steps(
    steps: int, data: GaussianData, at: tuple[float, ...]
) -> None:
    mean, std = data.moments(CLOCK.tau_min)
    end = run_sampler(DDPM(steps, UniformAngle(), _optimal(data, *at)), CLOCK, data)
    assert end.variance == pytest.approx(std**2, abs=1e-12)
    assert end.mean == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize("data", DATA)
def test_fixed_variances_are_wrong_where_the_optimal_one_is_exact(data: GaussianData) -> None:
    for rev_var in ("beta", "beta_tilde"):
        end = run_sampler(DDPM(10, UniformAngle(), rev_var), CLOCK, data)
        assert abs(end.variance / data.moments(CLOCK.tau_min)[1] ** 2 - 1) > 0.05


def test_the_optimal_variance_is_beta_for_unit_normal_data_and_beta_tilde_for_a_point() -> None:
    tau, s = 0.9, 0.3
    noise = ou.sigma(tau) ** 2
    on_x0 = ou.alpha(s) * ou.beta(tau, s) / noise
    tilde = ou.beta(tau, s) * ou.sigma(s) ** 2 / noise
    unit = OptimalVariance((0.0,), (0.5,))
    assert tilde + on_x0**2 * unit.posterior_variance(tau) == pytest.approx(ou.beta(tau, s), rel=1e-14)
    assert OptimalVariance((0.0,), (0.0,)).posterior_variance(tau) == pytest.approx(0.0, abs=1e-250)


@pytest.mark.parametrize("tau", [1e-7, 1e-3, 0.3, 5.0, 20.0, math.inf])
def test_the_posterior_variance_is_exact_from_the_data_to_pure_noise(tau: float) -> None:
    alpha, noise = ou.alpha(tau), ou.sigma(tau) ** 2
    expected = 4.0 * noise / (4.0 * alpha**2 + noise)
    assert _optimal(WIDE, -1.0, 2.0).posterior_variance(tau) == pytest.approx(expected, rel=1e-12)


def _ring(sde: Any = None) -> GaussianMixture:
    return GaussianMixture.ring(sde=sde)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=lambda s: type(s).__name__)
def test_the_estimate_gives_the_variance_of_the_data_in_every_view(sde: Any) -> None:
    model = Gaussian(torch.tensor([0.7, -0.2, 0.1], dtype=torch.float64), 0.25, sde)
    x0 = model.sample(2000, 0.0, torch.Generator().manual_seed(1))
    estimate = optimal_variance(model, x0, points=9, generator=torch.Generator().manual_seed(2))
    # |x0 - mean|² of 6000 numbers has a relative standard error of 1.8 %
    variances = [estimate.data_variance(at) for at in estimate.log_snr]
    assert variances == pytest.approx([0.25] * 9, rel=0.06)
    assert estimate.log_snr[-1] == pytest.approx(ou.log_snr(sde.tau_min))
    assert estimate.log_snr[0] == pytest.approx(max(ou.log_snr(sde.tau_max), -14.0))


def test_on_a_ring_the_data_variance_falls_from_that_of_all_clusters_to_that_of_one() -> None:
    model = _ring()
    x0 = model.sample(4000, 0.0, torch.Generator().manual_seed(1))
    estimate = optimal_variance(model, x0, points=25, generator=torch.Generator().manual_seed(2))
    variances = [estimate.data_variance(at) for at in estimate.log_snr]
    assert variances[0] == pytest.approx(1.0, abs=0.04)
    assert variances[-1] == pytest.approx(0.01 / 0.51, rel=0.08)
    assert all(b < a * 1.02 for a, b in zip(variances, variances[1:]))


def test_the_estimate_is_the_mean_squared_error_by_quadrature() -> None:
    # two points ±1: eps_hat = (x - alpha tanh(alpha x / sigma²)) / sigma; E over x on a fine grid
    model = GaussianMixture(torch.ones(2), torch.tensor([[-1.0], [1.0]], dtype=torch.float64), torch.zeros(2))
    x0 = torch.tensor([[-1.0], [1.0]], dtype=torch.float64).repeat(40_000, 1)
    estimate = optimal_variance(model, x0, points=7, generator=torch.Generator().manual_seed(3))
    x = np.linspace(-12, 12, 48_001)
    for log_snr, unexplained in zip(estimate.log_snr, estimate.unexplained):
        alpha, sigma = ou.alpha(ou.tau_from_log_snr(log_snr)), ou.sigma(ou.tau_from_log_snr(log_snr))
        density = np.exp(-0.5 * ((x - alpha) / sigma) ** 2) / sigma / math.sqrt(2 * math.pi)
        squared_error = (alpha / sigma) ** 2 * (1.0 - np.tanh(alpha * x / sigma**2)) ** 2
        exact = float((density * squared_error).sum() * (x[1] - x[0]))
        assert unexplained == pytest.approx(exact, rel=0.03, abs=2e-3)


def test_control_variate_and_pairs_leave_little_variance_where_the_model_explains_nothing() -> None:
    model = Gaussian(torch.zeros(2, dtype=torch.float64), 1.0)
    x0 = model.sample(500, 0.0, torch.Generator().manual_seed(1))
    estimate = optimal_variance(model, x0, points=5, generator=torch.Generator().manual_seed(2))
    plain = math.sqrt(2 / 1000)  # standard error of |eps|²/d
    assert abs(estimate.unexplained[-1] - _unexplained(GaussianData(0.0, 1.0), estimate.log_snr[-1])) < 1e-3 * plain


def test_batches_give_the_same_estimate_and_leave_the_global_random_state_alone() -> None:
    model = _ring()
    x0 = model.sample(100, 0.0, torch.Generator().manual_seed(1))
    before = torch.get_rng_state()
    one = optimal_variance(model, x0, points=4, generator=torch.Generator().manual_seed(2))
    two = optimal_variance(model, x0, points=4, generator=torch.Generator().manual_seed(2), batch_size=32)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.log_snr == two.log_snr
    assert one.unexplained == pytest.approx(two.unexplained, rel=1e-9)


def test_an_optimal_variance_is_stored_as_text_with_its_sampler() -> None:
    sampler = DDPM(50, UniformU(), _optimal(WIDE, -3.0, 0.1, 4.0))
    text = spec.to_text(sampler)
    assert "OptimalVariance(log_snr=(-3.0, 0.1, 4.0), unexplained=(" in text
    assert spec.parse(text, spec.known_classes(scoresde.sampling)) == sampler


def test_clusters_have_the_right_width_with_the_optimal_variance_and_not_with_beta_tilde() -> None:
    sde = VPSDE(tau_min=float(VPSDE().schedule.tau(1e-3)))
    model = _ring(sde)
    x0 = model.sample(4000, 0.0, torch.Generator().manual_seed(1))
    estimate = optimal_variance(model, x0, points=25, generator=torch.Generator().manual_seed(2))

    def width(rev_var: Any) -> float:
        drawn = sample(model, 4000, DDPM(200, UniformU(), rev_var), generator=torch.Generator().manual_seed(3))
        centers = ou.alpha(sde.tau_min) * model.means
        nearest = centers[torch.cdist(drawn.x, centers).argmin(1)]
        truth = math.sqrt(ou.alpha(sde.tau_min) ** 2 * 0.01 / 0.51 + ou.sigma(sde.tau_min) ** 2)
        return float((drawn.x - nearest).pow(2).mean().sqrt()) / truth

    # standard error 1 / sqrt(2 · 8000) = .008; the bias of 200 steps, measured with 200k samples, is +.022 and -.077
    assert width(estimate) == pytest.approx(1.022, abs=0.024)
    assert width("beta_tilde") == pytest.approx(0.923, abs=0.024)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: OptimalVariance((), ()),
            "log_snr and unexplained must have the same length of at least 1, got 0 and 0 numbers",
        ),
        (lambda: OptimalVariance((0.0, 1.0), (0.5,)), "got 2 and 1 numbers"),
        (
            lambda: OptimalVariance((1.0, 0.0), (0.5, 0.5)),
            r"log_snr must increase strictly and be finite, got \(1\.0, 0\.0\)",
        ),
        (lambda: OptimalVariance((0.0, math.inf), (0.5, 0.5)), "log_snr must increase strictly and be finite"),
        (lambda: OptimalVariance((math.nan,), (0.5,)), "log_snr must increase strictly and be finite"),
        (lambda: OptimalVariance((0.0,), (1.5,)), r"unexplained must lie in \[0, 1\], got \(1\.5,\)"),
        (lambda: OptimalVariance((0.0,), (math.nan,)), r"unexplained must lie in \[0, 1\]"),
        (lambda: optimal_variance(_ring(), torch.zeros(0, 2)), r"an estimate needs data, got x0 of shape \(0, 2\)"),
        (lambda: optimal_variance(_ring(), torch.zeros(3, 2), points=0), "points must be a positive integer, got 0"),
        (lambda: optimal_variance(_ring(), torch.zeros(3, 2), batch_size=-1), "batch_size must be a positive integer"),
        (lambda: optimal_variance(_ring(), torch.full((3, 2), math.nan)), "x0 must be finite"),
        (lambda: DDPM(rev_var="learnt"), r"no rev_var is named 'learnt'; did you mean learned\?"),
        (lambda: DDPM(rev_var=cast("Any", 0.5)), r"no rev_var is named 0\.5"),
    ],
)
def test_invalid_variances_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# --- learned ----------------------------------------------------------------------------------------------------------


class _TwoOutputs(nn.Module):
    """Returns x / 2 and a fixed number, as twice the channels or on a last axis of two."""

    def __init__(self, second: float, last: bool = False) -> None:
        super().__init__()
        self.second, self.last = second, last

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        halves = [0.5 * x, torch.full_like(x, self.second)]
        return torch.stack(halves, -1) if self.last else torch.cat(halves, 1)


class _OneOutput(nn.Module):
    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return 0.5 * x


def _draw(net: nn.Module, rev_var: Any, shape: tuple[int, ...], learned: bool) -> Tensor:
    model = ScoreModel(net, VPSDE(), V(), shape, learned_variance=learned)
    return sample(model, 4, DDPM(5, rev_var=rev_var), seeds=range(4), dtype=torch.float64).x


@pytest.mark.parametrize("last", [False, True], ids=["twice the channels", "a last axis of two"])
@pytest.mark.parametrize("shape", [(3,), (2, 5), (3, 4, 4), (1, 2, 3, 2)], ids=repr)
@pytest.mark.parametrize(("second", "same"), [(1.0, "beta"), (-1.0, "beta_tilde")])
def test_a_learned_variance_with_mix_0_or_1_is_beta_tilde_or_beta(
    shape: tuple[int, ...], second: float, same: str, last: bool
) -> None:
    ours = _draw(_TwoOutputs(second, last), "learned", shape, True)
    torch.testing.assert_close(ours, _draw(_OneOutput(), same, shape, False), rtol=1e-12, atol=1e-12)


def test_a_learned_variance_is_equation_15_of_the_paper() -> None:
    beta, previous = 0.03, 0.6
    tau, s = -0.5 * math.log(previous * (1 - beta)), -0.5 * math.log(previous)
    tilde = (1 - previous) / (1 - previous * (1 - beta)) * beta
    model = ScoreModel(_TwoOutputs(-0.2), VPSDE(), V(), (2,), learned_variance=True)
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = torch.ones_like(x)
    sampler = DDPM(1, rev_var="learned")
    with_noise, _ = sampler.step(model, x, tau, s, lambda: one, None)
    without, _ = sampler.step(model, x, tau, s, lambda: 0.0 * one, None)
    paper = math.exp(0.4 * math.log(beta) + 0.6 * math.log(tilde))  # v = (-0.2 + 1) / 2
    torch.testing.assert_close((with_noise - without).square(), paper * one, rtol=1e-6, atol=0)


def test_networks_with_two_outputs_learn_the_variance_also_of_scalar_events() -> None:
    model = ScoreModel(MLP((2, 3), width=8, depth=1, outputs=2), VPSDE(), V(), (2, 3), learned_variance=True)
    mix = model(torch.randn(5, 2, 3), 0.4).mix
    assert mix is not None
    assert mix.shape == (5, 2, 3)
    assert _draw(_TwoOutputs(1.0, last=True), "learned", (), True).shape == (4,)


def test_rev_var_learned_without_a_learned_variance_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"needs a model that returns one, .* learned_variance=True.* optimal_variance"
    ):
        _draw(_OneOutput(), "learned", (3,), False)
    with pytest.raises(ValueError, match="needs a model that returns one"):
        sample(_ring(), 2, DDPM(3, rev_var="learned"))


def test_a_network_with_the_wrong_number_of_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two values per element, \(4, 3, 2\) or twice the channels, got \(4, 3\)"):
        _draw(_OneOutput(), "learned", (3,), True)
    with pytest.raises(ValueError, match=r"the network must return the shape of x, \(4, 3\), got \(4, 6\)"):
        _draw(_TwoOutputs(0.0), "beta", (3,), False)


def test_a_checkpoint_stores_whether_the_variance_is_learned(tmp_path: Any) -> None:
    model = ScoreModel(MLP((3,), width=8, depth=1, outputs=2), VPSDE(), V(), (3,), learned_variance=True)
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert loaded.learned_variance is True
    x = torch.randn(4, 3)
    expected = model(x, 0.3).mix
    assert expected is not None
    assert torch.equal(cast("Tensor", loaded(x, 0.3).mix), expected)
    plain = ScoreModel(model.net, VPSDE(), V(), (3,))
    with pytest.raises(ValueError, match="learned_variance True, asked for is False"):
        require_same(load_checkpoint(tmp_path), plain)


def test_a_checkpoint_without_the_learned_variance_setting_loads_as_a_plain_model(tmp_path: Any) -> None:
    import json

    model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,))
    save(model, tmp_path)
    checkpoint = load_checkpoint(tmp_path)
    settings = json.loads(json.dumps(checkpoint.meta["model"]))
    del settings["learned_variance"]
    checkpoint.meta["model"].clear()
    checkpoint.meta["model"].update(settings)
    assert load(checkpoint).learned_variance is False
