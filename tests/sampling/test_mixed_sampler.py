"""Sampling of numbers and categories together: order, seeds, one call per step, and what is refused."""

from __future__ import annotations

import pytest
import torch
from mixed_cases import CASES, CODES, mixture
from torch import Tensor

from scoresde.process import VPSDE, Categorical, Mixed
from scoresde.sampling import DDIM, DDPM, Adams, Ancestral, Heun, MixedSampler, UniformAngle, sample

D = torch.float64


def moments(x: Tensor) -> Tensor:
    """Probabilities of the codes, and mean and square of the numbers in each, ``(6, 5)``."""
    here = (x[:, None, 2:] == CODES).all(2).double()
    numbers = torch.cat([torch.ones_like(x[:, :1]), x[:, :2], x[:, :2].square()], 1)
    return here.T @ numbers / len(x)


@pytest.mark.parametrize("kernel", CASES)
@pytest.mark.parametrize("sampler", [DDPM(48), DDIM(48), Adams(24)], ids=["DDPM", "DDIM", "Adams"])
def test_samples_of_an_exact_model_have_its_joint_distribution_of_numbers_and_codes(kernel, sampler):
    model = mixture(CASES[kernel])
    n = 8000
    x = sample(model, n, MixedSampler(sampler), generator=torch.Generator().manual_seed(0), start=4.5).x
    true = moments(model.sample(200000, generator=torch.Generator().manual_seed(1)))
    error = (moments(x) - true).abs()
    assert error[:, 0].max() < 0.02
    assert error.max() < 0.04
    far = moments(sample(model, n, MixedSampler(DDPM(3)), generator=torch.Generator().manual_seed(0), start=4.5).x)
    assert (far - true).abs().max() > 2 * error.max()


def test_more_steps_lower_the_error_at_first_order():
    process = Mixed(VPSDE(tau_min=1e-3), Categorical((3, 2)))
    model = mixture(process)
    true = moments(model.sample(400_000, generator=torch.Generator().manual_seed(1)))
    errors = []
    for steps in (4, 8, 16):
        x = sample(
            model, 40000, MixedSampler(DDPM(steps, UniformAngle())), generator=torch.Generator().manual_seed(0)
        ).x
        errors.append(float((moments(x) - true).square().sum().sqrt()))
    assert 1.5 < errors[0] / errors[1] < 3.0
    assert 1.5 < errors[1] / errors[2] < 3.0


@pytest.mark.parametrize("kernel", CASES)
def test_a_sample_depends_on_its_seed_alone_and_costs_one_call_per_step(kernel):
    model = mixture(CASES[kernel])
    options = {"start": 4.0, "trajectory": True, "previews": True}
    whole = sample(model, 4, MixedSampler(DDPM(12)), seeds=[5, 6, 7, 8], **options)
    part = sample(model, 2, MixedSampler(DDPM(12)), seeds=[8, 6], **options)
    torch.testing.assert_close(whole.x[[3, 1]], part.x, rtol=0, atol=1e-12)
    assert whole.nfe == 12
    assert whole.trajectory is not None
    assert whole.previews is not None
    assert whole.trajectory.shape == (13, 4, 4)
    assert whole.previews.shape == (12, 4, 4)
    process = CASES[kernel]
    for state in whole.trajectory:
        process.checked_state(state)
    assert (whole.previews[-1][:, 2:] < 3).all()


def test_numbers_alone_move_as_by_their_own_sampler():
    # codes that say nothing of the numbers: with the deterministic step the numbers are those of the Gaussian mixture
    process = Mixed(VPSDE(tau_min=1e-3), Categorical((2,)))
    exact = mixture(CASES["uniform"])
    independent = type(exact)(
        torch.ones(4), exact.numbers.means, exact.numbers.variances, torch.full((4, 1, 2), 0.5), process
    )
    x = torch.randn(6, 2, dtype=D, generator=torch.Generator().manual_seed(0))
    start = torch.cat([x, torch.zeros(6, 1, dtype=D)], 1)
    both = sample(independent, 6, MixedSampler(Adams(12)), init=start, generator=torch.Generator().manual_seed(1)).x
    alone = sample(independent.numbers, 6, Adams(12), init=x, generator=torch.Generator().manual_seed(1)).x
    torch.testing.assert_close(both[:, :2], alone, rtol=1e-9, atol=1e-9)


def test_a_sampler_of_one_kind_and_steps_of_two_calls_are_refused():
    model = mixture(CASES["uniform"])
    with pytest.raises(TypeError, match=r"take MixedSampler\(DDPM\(4\)\)"):
        sample(model, 2, DDPM(4))
    with pytest.raises(TypeError, match="one network call per step, but a second call"):
        sample(model, 2, MixedSampler(Heun(4)))
    with pytest.raises(ValueError, match="one grid, got steps=7"):
        MixedSampler(DDPM(5), Ancestral(steps=7))
    assert MixedSampler(DDPM(5), Ancestral(steps=5)) == MixedSampler(DDPM(5))
    assert MixedSampler(DDPM(5)).categorical.steps == 5
