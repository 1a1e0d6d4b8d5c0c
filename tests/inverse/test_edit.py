"""Edits: the closed forms for Gaussian data, exact kept entries, units, seeds and errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from linear_gaussian import GaussianData, run_sampler
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde import DDIM, DDPM, MLP, ODE, VE, VPSDE, Adams, Description, Gaussian, Heun, ScoreModel, V, edit, sample
from scoresde._core.noise import Noise
from scoresde.inverse import Replacement
from scoresde.inverse.units import KnownEvents
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling import Sampler, SamplingContext, StepSampler, UniformAngle

MEAN, STD, TAU = 1.5, 0.5, 0.6


def closed_form(stochastic: bool, tau: float = TAU) -> tuple[float, float]:
    """Gain on x - m and variance of an edit, by the ODE or the reverse SDE."""
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    v = alpha**2 * STD**2 + sigma**2
    if stochastic:
        gain = alpha * STD**2 / v
        return alpha * gain, STD**2 * sigma**2 / v + gain**2 * sigma**2
    return alpha * STD / math.sqrt(v), sigma**2 * STD**2 / v


@pytest.mark.parametrize(
    ("sampler", "tolerance"),
    [
        (Heun(400, UniformAngle()), 1e-4),
        (Adams(60), 1e-4),
        (DDIM(4000), 2e-3),
        (DDPM(4000), 4e-3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_edit_of_gaussian_data_has_its_closed_form(sampler: StepSampler, tolerance: float) -> None:
    sde = VPSDE(tau_min=1e-7)
    taus = sampler.grid.times(sde, sampler.steps, TAU)
    state = run_sampler(sampler, sde, GaussianData(MEAN, STD), taus)
    alpha, sigma, x = ou.alpha(TAU), ou.sigma(TAU), 3.0
    _, std = GaussianData(MEAN, STD).moments(TAU)
    noise = state.variance - (state.gain * std) ** 2  # of the steps
    mean, variance = state.bias + state.gain * alpha * x, (state.gain * sigma) ** 2 + noise
    gain, expected = closed_form(sampler.stochastic)
    assert mean == pytest.approx(MEAN + gain * (x - MEAN), rel=tolerance)
    assert variance == pytest.approx(expected, rel=tolerance)


def gaussian(size: int = 1, sde: SDE | None = None) -> Gaussian:
    return Gaussian(torch.full((size,), MEAN, dtype=torch.float64), STD**2, sde)


@pytest.mark.parametrize("sde", [VPSDE(tau_min=1e-7), VE()], ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize(
    ("sampler", "stochastic"),
    [(Adams(60), False), (DDPM(1000), True)],
    ids=["ODE", "SDE"],
)
def test_edit_noises_and_samples_by_the_closed_form(sampler: Sampler, stochastic: bool, sde: SDE) -> None:
    model, size = gaussian(20_000, sde), 20_000
    x = torch.stack([torch.full((size,), MEAN), torch.full((size,), 3.0)]).double()
    edited = edit(model, x, TAU, sampler, seeds=[5, 5]).data  # the same noise for both
    gain, variance = closed_form(stochastic)
    # equal noise cancels in the difference, whose value is exact up to the order of the sampler
    assert edited[1] - edited[0] == pytest.approx(np.full(size, gain * (3.0 - MEAN)), rel=1e-2 if stochastic else 1e-3)
    assert float(edited[0].mean()) == pytest.approx(MEAN, abs=5 * math.sqrt(variance / size))
    assert float(edited[0].var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / size))


class NoiseOnly(Sampler):
    """Ends with the first noise that it draws."""

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        context.predict(x, context.start)
        return context.noise.normal(x), context.sde.tau_min


def test_the_first_noise_of_the_steps_is_not_that_of_the_start() -> None:
    size = 20_000
    x = torch.full((1, size), MEAN).double()
    of_steps = edit(gaussian(size), x, TAU, NoiseOnly(), seeds=[3]).x[0]
    of_start = Noise(seeds=[3]).normal(x)[0]
    assert abs(float((of_steps * of_start).mean())) < 5 / math.sqrt(size)
    assert float(of_steps.var()) == pytest.approx(1.0, rel=5 * math.sqrt(2 / size))


def test_strength_is_the_clock_of_the_schedule() -> None:
    model, x = gaussian(2), torch.full((3, 2), 3.0).double()
    by_strength = edit(model, x, strength=0.4, sampler=Adams(8), seeds=range(3))
    by_tau = edit(model, x, float(model.sde.schedule.tau(0.4)), Adams(8), seeds=range(3))
    assert by_strength.tau == by_tau.tau
    assert torch.equal(by_strength.data, by_tau.data)
    full = edit(model, x, strength=1.0, sampler=Adams(8), seeds=range(3))
    assert full.tau == model.sde.tau_max


def test_an_edit_depends_on_its_seed_and_not_on_its_batch() -> None:
    model, x = gaussian(2), torch.arange(8).reshape(4, 2).double()
    whole = edit(model, x, TAU, DDPM(20), seeds=range(4))
    parts = edit(model, x, TAU, DDPM(20), seeds=range(4), batch_size=3)
    reverse = edit(model, x.flip(0), TAU, DDPM(20), seeds=[3, 2, 1, 0]).data.flip(0)
    assert torch.equal(whole.data, parts.data)
    assert torch.equal(whole.data, reverse)
    assert not torch.equal(whole.data, edit(model, x, TAU, DDPM(20), seeds=range(4, 8)).data)


def test_a_small_strength_changes_little_and_a_large_one_forgets() -> None:
    model, x = gaussian(1000), torch.full((1, 1000), 3.0).double()
    near = edit(model, x, 1e-4, Adams(8), seeds=[0]).data
    far = edit(model, x, strength=1.0, sampler=Adams(40), seeds=[0]).data
    assert float((near - x).abs().mean()) < 0.03
    assert float(far.mean()) == pytest.approx(MEAN, abs=0.1)


# --- masks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [Adams(40), DDPM(200), ODE()], ids=lambda sampler: type(sampler).__name__)
def test_kept_entries_come_back_bit_for_bit_and_free_ones_have_the_closed_form(sampler: Sampler) -> None:
    size = 4000
    x, mask = torch.full((2, size), 3.0).double(), torch.arange(size) % 2 == 0
    x[:, ::2] += torch.rand(size // 2, dtype=torch.float64)
    edited = edit(gaussian(size), x, TAU, sampler, mask=mask, seeds=[0, 1]).data
    assert torch.equal(edited[:, mask], x[:, mask])
    gain, variance = closed_form(isinstance(sampler, DDPM))
    free = edited[:, ~mask]
    assert float(free.mean()) == pytest.approx(MEAN + gain * (3.0 - MEAN), abs=6 * math.sqrt(variance / size))
    assert float(free.var()) == pytest.approx(variance, rel=6 * math.sqrt(2 / size))


def test_a_kept_entry_follows_the_bridge_of_its_value(generator: torch.Generator) -> None:
    """From α x_0 + σ ε the ODE leads to α_s x_0 + σ_s ε with the same ε."""
    x0 = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    eps = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    model = Replacement(gaussian(3), x0, torch.ones(5, 3, dtype=torch.bool))
    init = ou.alpha(TAU) * x0 + ou.sigma(TAU) * eps
    result = sample(model, 5, DDIM(7, UniformAngle()), start=TAU, init=init)
    expected = ou.alpha(result.tau) * x0 + ou.sigma(result.tau) * eps
    torch.testing.assert_close(result.x, expected, rtol=1e-9, atol=1e-9)


def test_replacement_runs_without_values_of_tensors() -> None:
    with FakeTensorMode():
        model = Replacement(gaussian(3), torch.zeros(5, 3).double(), torch.ones(5, 3) > 0)
        assert sample(model, 5, DDPM(3), start=TAU, init=torch.zeros(5, 3).double()).x.shape == (5, 3)


def test_a_mask_per_event_and_one_of_fewer_axes_are_read() -> None:
    model = Gaussian(torch.zeros(2, 4, 4), 1.0)
    x = torch.randn(3, 2, 4, 4)
    rows = torch.zeros(4, 4, dtype=torch.bool)
    rows[0] = True
    edited = edit(model, x, TAU, Adams(4), mask=rows, seeds=range(3)).data
    assert torch.equal(edited[:, :, 0], x[:, :, 0])
    assert not (edited[:, :, 1:] == x[:, :, 1:]).any()
    each = torch.zeros(3, 2, 4, 4, dtype=torch.bool)
    each[1] = True
    edited = edit(model, x, TAU, Adams(4), mask=each, seeds=range(3)).data
    assert [torch.equal(edited[i], x[i]) for i in range(3)] == [False, True, False]


# --- data units ----------------------------------------------------------------------------------------------------


class Halves(torch.nn.Module):
    """A network whose estimate of the data is 0: v = -σ x_0 = 0 of what is not noise."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.zeros_like(x)


def test_integers_go_in_and_come_out_in_data_units() -> None:
    description = Description("bytes", (3,), bins=256)
    model = ScoreModel(Halves(), VPSDE(), V(), data=description)
    values = torch.tensor([[0, 128, 255], [7, 8, 9]], dtype=torch.uint8)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    edited = edit(model, values, 1e-4, Adams(4), mask=mask, seeds=[0, 1])
    assert edited.data.dtype == torch.uint8
    assert torch.equal(edited.data[mask], values[mask])
    assert float((edited.data[~mask].double() - values[~mask].double()).abs().max()) < 8
    assert not torch.equal(edited.data, values)
    centers = description.to_model(description.center(values))
    assert torch.equal(edited.x[mask], centers[mask])
    # half a bin is 0.004 model units; the mean of the noise, 0.014 for one value, is far below
    many = values[:1].expand(4000, 3)
    mean = edit(model, many, 1e-4, Adams(4), generator=torch.Generator().manual_seed(0)).x[:, 1].mean()
    assert float(mean) == pytest.approx(float(centers[0, 1]), abs=1e-3)


def test_floats_in_data_units_keep_their_bits() -> None:
    description = Description("heights", (2,), offset=(1e6, 0.0), scale=(3.0, 0.1))
    model = ScoreModel(Halves(), VPSDE(), V(), data=description)
    x = torch.tensor([[1e6 + 0.123456789, 0.1], [1e6 - 3.3, -0.2]], dtype=torch.float64)
    edited = edit(model, x, TAU, Adams(4), mask=torch.tensor([True, False]), seeds=[0, 1]).data
    assert torch.equal(edited[:, 0], x[:, 0])
    assert not torch.equal(edited[:, 1], x[:, 1])


def test_values_that_contradict_the_description_are_refused() -> None:
    model = ScoreModel(Halves(), VPSDE(), V(), data=Description("bits", (3,), bins=8))
    with pytest.raises(ValueError, match=r"x is in data units: data must lie in \[0, 8\), got 8 at index \(0, 1\)"):
        edit(model, torch.tensor([[0, 8, 1]]), TAU, Adams(4))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"tau": 0.5, "strength": 0.4}, ValueError, "an edit begins at one time, got tau = 0.5 and strength = 0.4"),
        ({}, ValueError, "pass tau="),
        ({"strength": 1.5}, ValueError, r"strength must lie in \(0, 1\], got 1.5"),
        ({"strength": 1e-9}, ValueError, "raise the strength"),
        ({"tau": 99.0}, ValueError, "tau must lie in"),
        ({"tau": TAU, "mask": torch.ones(3)}, TypeError, "write mask > 0"),
        ({"tau": TAU, "mask": torch.ones(5, dtype=torch.bool)}, ValueError, "mask must have the shape of one event"),
        ({"tau": TAU, "seeds": [1]}, ValueError, "one entry per sample, 2, got 1"),
        ({"tau": TAU, "sampler": "ddim"}, TypeError, "sampler must be a Sampler"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_remedy(options: dict, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        edit(gaussian(3), torch.zeros(2, 3).double(), **options)


def test_integers_need_a_model_that_knows_its_data() -> None:
    with pytest.raises(TypeError, match="for a model that does not know its data"):
        edit(gaussian(3), torch.zeros(2, 3, dtype=torch.int64), TAU)


def test_no_events_give_no_edits() -> None:
    assert edit(gaussian(3), torch.zeros(0, 3).double(), TAU, Adams(4), mask=torch.ones(3) > 0).data.shape == (0, 3)


def test_whole_numbers_are_bins_event_by_event_whatever_their_type() -> None:
    description = Description("levels", (2,), bins=4)
    model = ScoreModel(MLP((2,), width=8, depth=1), VPSDE(), data=description)
    k = torch.tensor([[0, 3], [1, 2]])
    mixed = torch.cat([k.double(), torch.tensor([[0.25, 3.5]]).double()])
    events = KnownEvents.of(model, mixed, missing=True)
    torch.testing.assert_close(events.x[:2], KnownEvents.of(model, k).x)
    torch.testing.assert_close(events.x[2], torch.tensor([-0.875, 0.75]))
