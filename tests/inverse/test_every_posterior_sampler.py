"""Contract of the methods that take an observation: found by their base class, each posterior by its own seed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import scoresde as sd
from scoresde import inverse, sampling
from scoresde.guidance import Mask, Observation
from scoresde.inverse import PosteriorSampler, PosteriorSamples, sample_posterior
from scoresde.storage import spec

METHODS = [pytest.param(cls, id=cls.__name__) for cls in concrete(PosteriorSampler)]
F64 = torch.float64
MASKS = torch.tensor([[True, False, False], [False, True, True], [True, True, True], [False, False, True]])
Y = torch.tensor([[0.3, 0.1, -0.2], [1.0, 0.5, 0.4], [-0.5, 0.2, 0.1], [0.0, 0.1, 0.9]], dtype=F64)


def small(cls: type, steps: int = 6) -> Any:
    method = cls(steps=steps)
    return replace(method, particles=64) if hasattr(method, "particles") else method


def gaussian() -> sd.Gaussian:
    root = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.5, 0.4, 0.3]], dtype=F64)
    return sd.Gaussian(torch.tensor([0.5, -0.3, 0.2], dtype=F64), root @ root.mT)


def run(cls: type, rows: list[int], **options: Any) -> PosteriorSamples:
    seen = Observation(Mask(MASKS[rows], per_observation=True), Y[rows], noise_std=0.2)
    return sample_posterior(gaussian(), seen, 5, small(cls), seeds=[10 + i for i in rows], **options)


@pytest.mark.parametrize("cls", METHODS)
def test_a_permutation_or_split_of_the_observations_gives_the_same_samples(cls: type) -> None:
    together, order = run(cls, [0, 1, 2, 3]), [2, 0, 3, 1]
    assert together.x.shape == (4, 5, 3)
    torch.testing.assert_close(run(cls, order).x, together.x[order])
    torch.testing.assert_close(run(cls, [0, 1, 2, 3], batch_size=3).x, together.x)
    torch.testing.assert_close(run(cls, [2]).x[0], together.x[2])
    assert not torch.equal(run(cls, [0, 0]).x[0], together.x[1])


@pytest.mark.parametrize("cls", METHODS)
def test_a_generator_gives_the_same_samples_twice_and_leaves_global_state_alone(cls: type) -> None:
    seen = Observation(Mask(MASKS[0]), Y[:2], noise_std=0.2)
    before = torch.get_rng_state()
    first, second = (
        sample_posterior(gaussian(), seen, 3, small(cls), generator=torch.Generator().manual_seed(7)).x
        for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first[0], first[1])


class _OneProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, log_snr: Tensor, shift: Tensor | None = None) -> Tensor:
        return x * self.weight if shift is None else x * self.weight + shift


@pytest.mark.parametrize("cls", METHODS)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_method_needs_no_tensor_values(cls: type, device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = sd.ScoreModel(_OneProduct(), sd.VPSDE(), sd.V(), (3,))
        mask = Mask(torch.ones(4, 3, dtype=torch.bool), per_observation=True)
        samples = sample_posterior(model, Observation(mask, torch.zeros(4, 3), noise_std=0.1), 7, small(cls))
    assert samples.x.shape == (4, 7, 3)
    assert samples.x.device.type == device


@pytest.mark.parametrize("cls", METHODS)
def test_conditioning_has_one_entry_per_observation_and_reaches_all_its_states(cls: type) -> None:
    model = sd.ScoreModel(_OneProduct(), sd.VPSDE(), sd.V(), (3,))
    seen = Observation(Mask(MASKS[0]), Y[:2].float(), noise_std=0.2)
    shift = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -50.0]])  # of v, so x0 moves by 50 sigma

    def means(**cond: Any) -> Tensor:
        return sample_posterior(model, seen, 4, small(cls), seeds=[0, 1], **cond).x.mean(1)

    moved = means(shift=shift) - means()
    assert float(moved[0].abs().max()) == 0.0
    assert float(moved[1, 2]) > 1.0
    with pytest.raises(ValueError, match="one entry per observation, 2, got 1"):
        means(shift=shift[:1])


@pytest.mark.parametrize("cls", METHODS)
def test_the_text_form_reads_back_as_the_same_settings(cls: type) -> None:
    method = small(cls)
    assert spec.parse(spec.to_text(method), spec.known_classes(inverse, sampling)) == method


@pytest.mark.parametrize("cls", METHODS)
def test_wrong_settings_are_refused(cls: type) -> None:
    for steps in (0, -1, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="steps must be"):
            cls(steps=steps)
    with pytest.raises(TypeError, match="grid must be"):
        cls(grid="Karras")


@pytest.mark.parametrize("cls", METHODS)
def test_exact_values_are_observed_and_one_step_is_enough_to_run(cls: type) -> None:
    seen = Observation(Mask(MASKS[1]), Y[1], noise_std=0.0)
    samples = sample_posterior(gaussian(), seen, 50, replace(small(cls), steps=60), seeds=[0])
    assert float((samples.x[0, :, 1:] - Y[1, 1:]).square().mean().sqrt()) < 0.02
    assert sample_posterior(gaussian(), seen, 2, replace(small(cls), steps=1), seeds=[0]).x.shape == (1, 2, 3)


@pytest.mark.parametrize("cls", METHODS)
def test_no_observation_gives_no_samples(cls: type) -> None:
    samples = sample_posterior(gaussian(), Observation(Mask(MASKS[0]), Y[:0], noise_std=0.2), 3, small(cls))
    assert samples.x.shape == (0, 3, 3)


class _Broken(nn.Module):
    """NaN for log-SNR above 0."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.where(log_snr.unsqueeze(1) > 0, torch.nan, x)


@pytest.mark.parametrize("cls", METHODS)
def test_a_network_that_returns_nan_is_named_with_its_time(cls: type) -> None:
    model = sd.ScoreModel(_Broken(), sd.VPSDE(), sd.V(), (3,))
    seen = Observation(Mask(MASKS[0]), torch.zeros(2, 3), noise_std=0.5)
    with pytest.raises(RuntimeError, match=r"at tau = 0\.\d* it gave NaN or infinity for observations \[0, 1\]"):
        sample_posterior(model, seen, method=small(cls, 10), seeds=[0, 1])
