"""Latents: the exact map of Gaussian data, round trips, paths on great circles and their ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde import (
    MLP,
    ODE,
    VE,
    VPSDE,
    AdaptiveSolver,
    Description,
    Flow,
    Gaussian,
    GaussianMixture,
    ScoreModel,
    SubVP,
    V,
    decode,
    encode,
    interpolate,
    log_prob,
    sample,
)
from scoresde.inverse.interpolate import great_circle
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling import SolverError

VIEWS = [VPSDE(), VE(), SubVP(), Flow()]


@pytest.mark.parametrize("sde", VIEWS, ids=lambda sde: type(sde).__name__)
def test_the_latent_of_gaussian_data_is_its_closed_form(sde: SDE, generator: torch.Generator) -> None:
    """The ODE preserves (x - α m) / √v."""
    mean, std = 1.5, 0.3
    model = Gaussian(torch.full((3,), mean, dtype=torch.float64), std**2, sde)
    x = mean + std * torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def moments(tau: float) -> tuple[float, float]:
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        return alpha * mean, math.sqrt(alpha**2 * std**2 + sigma**2)

    (near, near_std), (far, far_std) = moments(sde.tau_min), moments(min(sde.tau_max, 300.0))
    state = x / float(sde.scale(sde.tau_min))
    expected = (far + far_std * (state - near) / near_std) * float(sde.scale(min(sde.tau_max, 300.0)))
    z = encode(model, x, AdaptiveSolver(tol=1e-6))
    torch.testing.assert_close(z, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(decode(model, expected, AdaptiveSolver(tol=1e-6)), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("sde", VIEWS, ids=lambda sde: type(sde).__name__)
def test_decoding_what_was_encoded_returns_it_within_the_tolerance(
    sde: SDE, tol: float, generator: torch.Generator
) -> None:
    ring = GaussianMixture.ring(sde=sde)
    x = ring.sample(20, generator=generator)
    solver = AdaptiveSolver(tol=tol)
    error = (decode(ring, encode(ring, x, solver), solver) - x).square().mean(1).sqrt()
    assert float(error.max()) <= 3 * tol


def test_the_latent_is_that_of_the_log_density_and_of_the_sampler(generator: torch.Generator) -> None:
    ring = GaussianMixture.ring(sde=VE())
    x = ring.sample(6, generator=generator)
    z = encode(ring, x, AdaptiveSolver(tol=1e-5))
    torch.testing.assert_close(log_prob(ring, x, solver=AdaptiveSolver(tol=1e-5)).latent, z)
    torch.testing.assert_close(sample(ring, 6, ODE(rtol=1e-8, atol=1e-8), init=z).x, x, rtol=1e-3, atol=1e-3)


def test_a_latent_does_not_depend_on_its_batch(generator: torch.Generator) -> None:
    ring = GaussianMixture.ring()
    x = ring.sample(7, generator=generator)
    torch.testing.assert_close(encode(ring, x, batch_size=3), encode(ring, x), rtol=0, atol=1e-12)
    torch.testing.assert_close(encode(ring, x[2:3]), encode(ring, x)[2:3], rtol=0, atol=1e-12)


def quantized_model() -> ScoreModel:
    return ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), data=Description("bytes", (3,), bins=256))


def test_integers_return_exactly() -> None:
    values = torch.tensor([[0, 128, 255], [7, 8, 9]], dtype=torch.uint8)
    model = quantized_model()
    decoded = decode(model, encode(model, values))
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, values)


def test_an_event_that_does_not_arrive_is_named() -> None:
    x = torch.zeros(3, 2).double()
    with pytest.raises(SolverError, match=r"\[0, 1, 2\] did not: MAX_NFE at tau = .* raise max_nfe"):
        encode(GaussianMixture.ring(), x, AdaptiveSolver(tol=1e-9, max_nfe=20))


# --- interpolation -------------------------------------------------------------------------------------------------


def test_the_ends_of_a_path_return_and_their_error_is_what_is_stated(generator: torch.Generator) -> None:
    ring = GaussianMixture.ring()
    a, b = ring.sample(5, generator=generator), ring.sample(5, generator=generator)
    path = interpolate(ring, a, b, n=4, solver=AdaptiveSolver(tol=1e-3))
    assert path.data.shape == (5, 4, 2)
    assert float(path.error.max()) <= 3e-3
    stated = torch.stack([path.x[:, 0] - a, path.x[:, -1] - b], 1).square().mean(2).sqrt()
    torch.testing.assert_close(path.error, stated)
    assert bool((path.error > 0).all())  # the ends are decoded, not copied


def test_a_path_of_gaussian_data_is_the_great_circle_of_standardized_events() -> None:
    mean, std = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 0.5
    model = Gaussian(mean, std**2, VPSDE(tau_min=1e-7))
    a, b = mean + std * torch.tensor([1.0, 0.0, 0.0]), mean + std * torch.tensor([0.0, 2.0, 0.0])
    path = interpolate(model, a, b, n=3, solver=AdaptiveSolver(tol=1e-6))
    half = math.sin(math.pi / 4)
    expected = mean + std * torch.tensor([half, 2 * half, 0.0], dtype=torch.float64)
    # the latents keep a part exp(-tau_max) of the mean, 0.6 %
    torch.testing.assert_close(path.data[1], expected, rtol=0, atol=5e-3)


def test_points_between_two_latents_keep_their_norm_and_split_the_angle(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 6, 50, generator=generator, dtype=torch.float64)
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    points = great_circle(a, b, torch.linspace(0, 1, 5, dtype=torch.float64))
    torch.testing.assert_close(points.norm(dim=2), torch.ones(6, 5, dtype=torch.float64))
    steps = (points[:, 1:] * points[:, :-1]).sum(2).acos()
    whole = (a * b).sum(1).acos()
    torch.testing.assert_close(steps, (whole / 4)[:, None].expand(6, 4))
    torch.testing.assert_close(points[:, 0], a)
    torch.testing.assert_close(points[:, -1], b)


@pytest.mark.parametrize("near", [0.0, 1e-9, 1e-4])
def test_parallel_latents_are_joined_by_a_straight_line(near: float) -> None:
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    b = torch.tensor([[3.0, 3.0 * near]], dtype=torch.float64)
    points = great_circle(a, b, torch.tensor([0.25], dtype=torch.float64))
    torch.testing.assert_close(points[0, 0], 0.75 * a[0] + 0.25 * b[0], rtol=0, atol=1e-7)


def test_opposite_latents_are_refused() -> None:
    a = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="opposite directions"):
        great_circle(a, -2 * a, torch.tensor([0.5], dtype=torch.float64))


def test_two_single_integer_events_give_a_path_in_data_units() -> None:
    a, b = torch.tensor([0, 128, 255]), torch.tensor([9, 8, 200])
    path = interpolate(quantized_model(), a, b, n=5)
    assert path.data.shape == (5, 3)
    assert path.data.dtype == torch.uint8
    assert torch.equal(path.data[[0, -1]].long(), torch.stack([a, b]))
    assert path.error.shape == (2,)


class Shifted(torch.nn.Module):
    """A network that reads a condition of one number per event."""

    def forward(self, x: Tensor, log_snr: Tensor, shift: Tensor) -> Tensor:
        return torch.tanh(x - shift[:, None])


def test_conditioning_has_one_entry_per_pair() -> None:
    model = ScoreModel(Shifted(), VPSDE(), V(), event_shape=(2,))
    a, b, shift = torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0.0, 1.0, 2.0, -1.0])
    path = interpolate(model, a, b, 3, shift=shift)
    one = interpolate(model, a[2:3], b[2:3], 3, shift=shift[2:3])
    torch.testing.assert_close(path.x[2], one.x[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="one entry per pair, 4, got 3"):
        interpolate(model, a, b, shift=shift[:3])
