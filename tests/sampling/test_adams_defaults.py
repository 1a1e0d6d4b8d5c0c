"""Defaults of `Adams` and `DenseEnds`: what depends on the number of steps and on what the network estimates."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import nn

from scoresde.analytic import Gaussian
from scoresde.guidance import Clipping
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.schedule import LinearBetas
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import Adams, DenseEnds, Karras, Moments, UniPC, Whitened, sample
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
    assert Adams(20).for_model(_model(V())) == Adams(20)
    sampler = Adams(20)
    adapted = sampler.for_model(model)
    assert adapted == Adams(20, DenseEnds(noise_estimate=True))
    assert sampler.for_model(model) is adapted  # with its weights
    assert sampler == Adams(20)
    assert (adapted.predictor, adapted.corrector, adapted.interpolation.variable) == (4, 4, "artanh_sigma")
    given = Adams(20, DenseEnds(3.0, 0.1, 0.05, noise_estimate=False), 2, 3, "x0", "log_snr")
    assert given.for_model(model) == given
    assert UniPC(20, Karras()).for_model(model) == UniPC(20, Karras())
    moments = Moments(torch.zeros(2), torch.eye(2), torch.ones(2))
    assert Whitened(Adams(20), moments).for_model(model) == Whitened(adapted, moments)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(sample(model, (4, 2), Adams(20), init=x).x, sample(model, (4, 2), adapted, init=x).x)


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
