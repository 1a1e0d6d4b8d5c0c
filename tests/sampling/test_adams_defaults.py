"""Defaults of `Adams` and `DenseEnds`: what depends on the number of steps and on what the network estimates."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from scoresde.analytic import Gaussian
from scoresde.guidance import Clipping
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.schedule import Cosine, LinearBetas
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import (
    Adams,
    DenseEnds,
    DPMSolverPP,
    Grid,
    Karras,
    Moments,
    UniformLogSNR,
    UniPC,
    Whitened,
    sample,
)
from scoresde.sampling.exponential import Interpolation


class Rippled(nn.Module):
    """Noise estimate of standard normal data with an error that varies over two units of log-SNR."""

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        sigma = torch.sigmoid(-log_snr).sqrt()
        return (sigma.unsqueeze(1) * x + 0.02 * torch.sin(math.pi * log_snr).unsqueeze(1)).to(x.dtype)


def _model(parameterization: Parameterization) -> ScoreModel:
    return ScoreModel(Rippled(), VPSDE(LinearBetas()), parameterization, event_shape=(2,))


@pytest.mark.parametrize(
    ("parameterization", "amplifies"),
    [(Eps(), True), (Score(), True), (PosteriorMean(), True), (V(), False), (V(0.5), False), (X0(), False)],
    ids=repr,
)
def test_errors_of_noise_estimates_grow_near_pure_noise(parameterization: Parameterization, amplifies: bool) -> None:
    model = _model(parameterization)
    assert model.amplifies_at_noise() == amplifies
    assert Clipping(model, -3.0, 3.0).amplifies_at_noise() == amplifies


def test_an_exact_model_and_a_velocity_do_not_amplify() -> None:
    assert not Gaussian(torch.zeros(2), 1.0, VPSDE()).amplifies_at_noise()
    assert not ScoreModel(Rippled(), Flow(), Velocity(), event_shape=(2,)).amplifies_at_noise()


def test_sampling_sets_the_defaults_for_a_noise_estimate_and_leaves_given_settings() -> None:
    model = _model(Eps())
    assert Adams(20).for_model(_model(V())) == Adams(20, DenseEnds(dimension=2))
    sampler = Adams(20)
    adapted = sampler.for_model(model)
    assert adapted == Adams(20, DenseEnds(noise_estimate=True))
    assert sampler.for_model(model) is adapted  # with its weights
    assert sampler == Adams(20)
    assert (adapted.predictor, adapted.corrector) == (4, 3)
    assert adapted.interpolation == Interpolation("x0", "artanh_sigma")
    given = Adams(20, DenseEnds(3.0, 0.1, 0.05, noise_estimate=False), 2, 3, "x0", "log_snr")
    assert given.for_model(model) == given
    assert UniPC(20, Karras()).for_model(model) == UniPC(20, Karras())
    moments = Moments(torch.zeros(2), torch.eye(2), torch.ones(2))
    assert Whitened(Adams(20), moments).for_model(model) == Whitened(adapted, moments)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample(model, (4, 2), Adams(20), init=x).x, sample(model, (4, 2), adapted, init=x).x)


@pytest.mark.parametrize("steps", [5, 12, 20])
@pytest.mark.parametrize("grid", [UniformLogSNR(), Karras()], ids=repr)
def test_another_grid_leaves_the_other_settings_for_a_noise_estimate(steps: int, grid: Grid) -> None:
    model, sampler = _model(Eps()).double(), Adams(steps, grid)
    adapted, on_own_grid = sampler.for_model(model), Adams(steps).for_model(model)
    assert adapted == replace(sampler, noise_estimate=True)
    assert sampler.for_model(model) is adapted  # with its weights
    assert (adapted.predictor, adapted.corrector) == (on_own_grid.predictor, on_own_grid.corrector)
    assert adapted.interpolation == on_own_grid.interpolation
    assert sampler.for_model(_model(V())) is sampler
    stated = replace(sampler, noise_estimate=False)
    assert stated.for_model(model) is stated
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = [sample(model, (16, 2), each, init=x).x for each in (Adams(3000), sampler, stated)]
    error, of_v = (float((end - ends[0]).square().mean().sqrt()) for end in ends[1:])
    assert error < 0.1 * of_v


def test_the_grid_for_a_noise_estimate_has_more_steps_near_pure_noise() -> None:
    sde = VPSDE(LinearBetas())
    for steps in (8, 15, 20, 50):
        plain, dense = (DenseEnds(noise_estimate=flag).times(sde, steps) for flag in (None, True))
        assert sum(tau > 2.0 for tau in dense) > sum(tau > 2.0 for tau in plain)


@pytest.mark.parametrize("steps", [8, 15, 20, 50])
def test_an_error_of_a_noise_estimate_is_followed_where_polynomials_of_v_are_not(steps: int) -> None:
    model = _model(Eps()).double()
    x = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ends = {
        name: sample(model, (16, 2), sampler, init=x).x
        for name, sampler in {
            "fine": Adams(3000),
            "default": Adams(steps),
            "v": Adams(
                steps, DenseEnds(3.0, 0.115, 0.05), 3, 0, "v", "angle"
            ),  # polynomials of v in the angle, no corrector
        }.items()
    }
    error, of_v = (float((ends[name] - ends["fine"]).square().mean().sqrt()) for name in ("default", "v"))
    assert error < 0.5 * of_v


def test_weights_of_alpha_v_integrate_polynomials_exactly() -> None:
    interpolation, times = Interpolation("alpha_v", "sigma"), (0.9, 1.6, 2.8)
    on_x, weights = interpolation.weights(0.9, 0.3, times)
    assert on_x == 1.0
    for power in range(3):
        # alpha v = sigma ** power, so v = sigma ** power / alpha; dx = alpha v dtau / sigma
        value = sum(w * ou.sigma(time) ** power / ou.alpha(time) for w, time in zip(weights, times))
        exact, _ = quad(lambda tau, power=power: ou.sigma(tau) ** (power - 1), 0.9, 0.3, epsabs=1e-13)
        assert value == pytest.approx(exact, rel=1e-9)


def test_a_start_without_signal_interpolates_v() -> None:
    times = (1.0, math.inf)
    assert Interpolation("alpha_v", "angle").weights(1.0, 0.5, times) == Interpolation("v", "angle").weights(
        1.0, 0.5, times
    )


class Pointed(nn.Module):
    """Noise estimate of data at one point, far from the origin: x0 is constant."""

    POINT = 40.0

    def forward(self, x: torch.Tensor, log_snr: torch.Tensor) -> torch.Tensor:
        alpha, sigma = torch.sigmoid(log_snr).sqrt().unsqueeze(1), torch.sigmoid(-log_snr).sqrt().unsqueeze(1)
        return (x - alpha * self.POINT) / sigma


@pytest.mark.parametrize("steps", [5, 8, 15, 20, 50])
def test_a_noise_estimate_that_leads_far_from_the_data_is_followed(steps: int) -> None:
    sde = VPSDE(LinearBetas())
    model = ScoreModel(Pointed(), sde, Eps(), event_shape=(2,)).double()
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = (x - ou.alpha(sde.tau_max) * Pointed.POINT) / ou.sigma(sde.tau_max)
    exact = ou.alpha(sde.tau_min) * Pointed.POINT + ou.sigma(sde.tau_min) * noise
    torch.testing.assert_close(sample(model, (4, 2), Adams(steps), init=x).x, exact, rtol=1e-6, atol=1e-6)


def test_a_step_in_which_v_is_stiff_interpolates_x0() -> None:
    of_v, of_x0 = Interpolation("alpha_v", "angle"), Interpolation("x0", "angle")
    tau_of = ou.tau_from_angle
    for sampler in (Adams(12), Adams(74), Adams(75)):
        assert sampler.interpolation_of(tau_of(0.5), tau_of(0.36)) == of_v
        assert sampler.interpolation_of(tau_of(0.5), tau_of(0.34)) == of_x0
        assert sampler.interpolation_of(tau_of(0.01), tau_of(0.0072)) == of_v
        assert sampler.interpolation_of(tau_of(0.01), tau_of(0.0068)) == of_x0
        assert sampler.interpolation_of(0.5, 0.0) == of_v
        assert sampler.interpolation_of(math.inf, 0.1) == of_v
    for sampler in (Adams(11), Adams(20, prediction="v"), Adams(20, variable="sigma"), DPMSolverPP(20)):
        assert sampler.interpolation_of(0.1, 0.01) == sampler.interpolation


def test_steps_that_are_coarse_near_the_data_are_stable() -> None:
    """Narrow data, steps of 1.2 nats of log-SNR: polynomials of αv oscillate there, and x₀ is nearly constant."""
    model = Gaussian(torch.zeros(2, dtype=torch.float64), 1e-8, VPSDE(tau_min=1e-6))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = x * (ou.alpha(1e-6) ** 2 * 1e-8 + ou.sigma(1e-6) ** 2) ** 0.5
    errors = {}
    for prediction in (None, "alpha_v"):
        end = sample(model, (8, 2), Adams(20, UniformLogSNR(), prediction=prediction), init=x).x
        errors[prediction] = float((end - exact).square().mean().sqrt())
    assert errors[None] < 0.1 * errors["alpha_v"]


@pytest.mark.parametrize("steps", [6, 11])
def test_with_few_steps_the_grid_depends_on_the_dimension(steps: int) -> None:
    sde = VPSDE()
    base = DenseEnds().knots(sde, steps, math.inf)
    assert DenseEnds(dimension=64).knots(sde, steps, math.inf) == pytest.approx(base)
    knots = {d: DenseEnds(dimension=d).knots(sde, steps, math.inf)[1:-1] for d in (1, 2, 16, 784, 16384, 10**6)}
    assert knots[1] == knots[2] == knots[16]
    assert knots[16384] == knots[10**6]
    assert all(high > low for low, high in zip(knots[16], knots[784]))
    assert all(high > low for low, high in zip(knots[784], knots[16384]))
    # sigma / alpha in units of m = 4: with both ends moved along, the grid is the same
    wide = VPSDE(tau_min=ou.tau_from_angle(math.atan(4.0 * math.tan(ou.angle(sde.tau_min)))))
    moved = [math.tan(ou.angle(tau)) for tau in DenseEnds(dimension=16384).knots(wide, steps, math.inf)[1:-1]]
    assert moved == pytest.approx([4.0 * math.tan(ou.angle(tau)) for tau in base[1:-1]], rel=1e-9)


def test_other_numbers_of_steps_and_given_grids_do_not_depend_on_the_dimension_or_less() -> None:
    sde = VPSDE()
    knots = {d: DenseEnds(dimension=d).knots(sde, 5, math.inf) for d in (16, 30, 64, 255)}
    assert knots[64] == knots[255]
    assert all(high > low for low, high in zip(knots[16][1:-1], knots[64][1:-1]))
    assert all(low < high for low, high in zip(knots[64][1:-1], DenseEnds().knots(sde, 5, math.inf)[1:-1]))
    many = {d: DenseEnds(dimension=d).knots(sde, 12, math.inf) for d in (2, 64, 784)}
    assert many[2] == many[64] == pytest.approx(DenseEnds().knots(sde, 12, math.inf))
    assert all(high > low for low, high in zip(many[64][1:-1], many[784][1:-1]))
    for given in (DenseEnds(2.0), DenseEnds(noise_weight=0.2), DenseEnds(noise_estimate=True)):
        assert replace(given, dimension=784).knots(sde, 8, 5.0) == given.knots(sde, 8, 5.0)


def test_events_of_many_values_have_two_predictions_and_a_corrector_from_the_start() -> None:
    assert [(a.predictor, a.corrector) for a in (Adams(5), Adams(5, DenseEnds(dimension=255)))] == [(3, 0)] * 2
    many = Adams(5, DenseEnds(dimension=256))
    assert (many.predictor, many.corrector) == (2, 3)
    assert (Adams(12, many.grid).predictor, Adams(12, many.grid).corrector) == (4, 3)
    assert Adams(5, DenseEnds(2.0, dimension=256)).predictor == 3  # a given grid


def test_sampling_sets_the_dimension() -> None:
    image = ScoreModel(Rippled(), VPSDE(), V(), event_shape=(3, 8, 8))
    assert DenseEnds().for_model(image) == DenseEnds(dimension=192)
    assert DenseEnds(dimension=5).for_model(image) == DenseEnds(dimension=5)
    assert DenseEnds(2.0).for_model(image) == DenseEnds(2.0)
    with pytest.raises(ValueError, match="dimension must be"):
        DenseEnds(dimension=0)


def test_a_noise_estimate_is_not_used_where_there_is_no_signal() -> None:
    sde = VPSDE(Cosine(), tau_min=1e-4)
    model = ScoreModel(Rippled(), sde, Eps(), event_shape=(2,)).double()
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for steps in (5, 39):
        adapted = Adams(steps).for_model(model)
        taus = adapted.grid.times(sde, steps)
        assert (len(taus), taus[1]) == (steps + 1, 5.1)
        assert adapted.grid.times(sde, steps, 5.0)[1] < 5.0  # a start with signal: the whole grid
        drawn = sample(model, (4, 2), Adams(steps), init=x, trajectory=True)
        assert drawn.trajectory is not None
        assert torch.equal(drawn.trajectory[1], drawn.trajectory[0])
        assert float((drawn.x - x).abs().max()) < 0.5
    for steps in (1, 40):
        drawn = sample(model, (4, 2), Adams(steps), init=x, trajectory=True)
        assert drawn.trajectory is not None
        assert not torch.equal(drawn.trajectory[1], drawn.trajectory[0])
    first = Adams(40).for_model(model).grid.times(sde, 40)[1]
    assert ou.alpha(first) < 10 * ou.alpha(sde.tau_max)  # no long first step, which would multiply the error of x0
