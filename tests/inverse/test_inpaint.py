"""Inpainting: the exact conditional of Gaussian data, kept values, units, noise, seeds and errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde import DDPM, MLP, VPSDE, Adams, Description, Gaussian, GaussianMixture, SASolver, ScoreModel, V, inpaint
from scoresde.guidance.posterior import DPS, MMPS
from scoresde.inverse import TwistedSMC
from scoresde.sampling import Eta

MEAN = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
COV = torch.tensor([[1.0, 0.9, 0.2], [0.9, 1.0, 0.3], [0.2, 0.3, 0.5]], dtype=torch.float64)


def gaussian() -> Gaussian:
    return Gaussian(MEAN, COV)


def conditional(x: Tensor, known: list[int], noise: float = 0.0) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all entries given the known ones, seen with noise."""
    gain = COV[:, known] @ torch.linalg.inv(COV[known][:, known] + noise**2 * torch.eye(len(known)))
    return MEAN + gain @ (x[known] - MEAN[known]), COV - gain @ COV[known]


def test_draws_have_the_exact_conditional_distribution_of_gaussian_data() -> None:
    n, x = 2000, torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    known = torch.tensor([True, False, True])
    drawn = inpaint(gaussian(), x[None], known, draws=n, generator=torch.Generator().manual_seed(0)).data[0]
    mean, cov = conditional(x, [0, 2])
    assert torch.equal(drawn[:, known], x[known].expand(n, 2))
    assert float(drawn[:, 1].mean()) == pytest.approx(float(mean[1]), abs=4 * math.sqrt(cov[1, 1] / n))
    assert float(drawn[:, 1].var()) == pytest.approx(float(cov[1, 1]), rel=0.02 + 4 * math.sqrt(2 / n))


def test_noise_of_known_values_is_in_data_units_and_changes_the_conditional() -> None:
    scale, offset, n, noise = 10.0, 100.0, 4000, 0.8
    description = Description("scaled", (3,), offset=offset, scale=scale)
    model = gaussian()
    model.data = description
    x = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    known, generator = torch.tensor([True, False, False]), torch.Generator().manual_seed(0)
    options = {"draws": n, "noise_std": noise * scale, "generator": generator}
    drawn = (inpaint(model, (offset + scale * x)[None], known, **options).data[0] - offset) / scale
    mean, cov = conditional(x, [0], noise)
    bound = 4 * (cov.diagonal() / n).sqrt() + 1e-3
    assert bool(((drawn.mean(0) - mean).abs() < bound).all())  # the known value is drawn, too
    torch.testing.assert_close(drawn.T.cov(), cov, rtol=0.12, atol=0.02)


def test_each_event_has_a_mask_and_nothing_known_means_the_prior() -> None:
    n, x = 3000, torch.tensor([[2.0, 0.0, 0.5], [2.0, 9.0, 0.5], [3.0, 3.0, 3.0]], dtype=torch.float64)
    known = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    drawn = inpaint(gaussian(), x, known, draws=n, generator=torch.Generator().manual_seed(1)).data
    mean, _ = conditional(x[0], [0, 2])
    assert float(drawn[0, :, 1].mean()) == pytest.approx(float(mean[1]), abs=0.05)
    torch.testing.assert_close(drawn[1].mean(0), MEAN, rtol=0, atol=0.1)
    torch.testing.assert_close(drawn[1].T.cov(), COV, rtol=0.1, atol=0.05)
    assert torch.equal(drawn[2], x[2].expand(n, 3))


def test_unknown_entries_are_not_read() -> None:
    x = torch.tensor([[2.0, 0.0, 0.5]], dtype=torch.float64)
    other, known = x.clone(), torch.tensor([True, False, True])
    other[:, 1] = 77.0
    first, second = (inpaint(gaussian(), each, known, draws=3, seeds=[4]).data for each in (x, other))
    assert torch.equal(first, second)


def test_a_draw_depends_on_the_seed_of_its_event_and_not_on_its_batch() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    known = torch.tensor([[True, False, True], [False, True, False]] * 2)
    whole = inpaint(gaussian(), x, known, draws=2, seeds=range(4)).data
    parts = inpaint(gaussian(), x, known, draws=2, seeds=range(4), batch_size=3).data
    more = inpaint(gaussian(), x, known, draws=5, seeds=range(4)).data
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(more[:, :2], whole, rtol=0, atol=1e-10)
    assert not torch.equal(whole[:, 0], whole[:, 1])


def test_integers_go_in_and_known_ones_come_back_exactly() -> None:
    model = ScoreModel(MLP((3,), 8, 1, 8), VPSDE(), V(), data=Description("bytes", (3,), bins=256))
    values = torch.tensor([[0, 128, 255], [7, 8, 9]], dtype=torch.uint8)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    drawn = inpaint(model, values, mask, MMPS(iterations=1), Adams(4), draws=2, seeds=[0, 1]).data
    assert drawn.shape == (2, 2, 3)
    assert drawn.dtype == torch.uint8
    for draw in range(2):
        assert torch.equal(drawn[:, draw][mask], values[mask])


def test_a_method_that_takes_the_observation_itself_is_accepted() -> None:
    x, known = torch.tensor([[2.0, 0.0, 0.5]], dtype=torch.float64), torch.tensor([True, False, False])
    options = {"draws": 400, "noise_std": 0.5, "generator": torch.Generator().manual_seed(0)}
    drawn = inpaint(gaussian(), x, known, TwistedSMC(steps=50, particles=512), **options)
    mean, _ = conditional(x[0], [0], 0.5)
    torch.testing.assert_close(drawn.data[0].mean(0), mean, rtol=0, atol=0.25)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"noise_std": -1.0}, ValueError, "noise_std must be 0 or positive"),
        ({"draws": 0}, ValueError, "draws must be a positive integer"),
        ({"mask": torch.ones(3)}, TypeError, "write mask > 0"),
        ({"seeds": [0]}, ValueError, "one entry per sample, 2, got 1"),
        ({"method": DDPM()}, TypeError, "method must be"),
        ({"method": DPS()}, ValueError, "state the noise"),
    ],
)
def test_a_wrong_argument_is_answered_with_the_remedy(options: dict, error: type[Exception], text: str) -> None:
    arguments = {"mask": torch.tensor([True, False, True]), **options}
    with pytest.raises(error, match=text):
        inpaint(gaussian(), torch.zeros(2, 3).double(), **arguments)


def test_the_default_sampler_adds_much_noise_where_modes_part() -> None:
    known, ring = torch.tensor([True, False]), GaussianMixture.ring()
    default = inpaint(ring, ring.means[:2], known, draws=3, seeds=[0, 1])
    sampler = SASolver(99, noise=Eta(4.0, low=0.3, high=5.0))
    stated = inpaint(ring, ring.means[:2], known, sampler=sampler, draws=3, seeds=[0, 1])
    assert torch.equal(default.data, stated.data)
    assert default.nfe == 198  # 99 calls of an evaluation and one Jacobian product: one value is known


def test_noise_lets_draws_change_their_mode() -> None:
    """Two modes, of which the known value tells a share: `MMPS` is closer to it by the default than by an ODE."""
    known, variance = torch.tensor([True, False]), 0.1
    means = torch.tensor([[-0.5, -1.0], [0.5, 1.0]], dtype=torch.float64)
    model = GaussianMixture(torch.ones(2).double(), means, torch.full((2,), variance).double())
    x, n = torch.tensor([[0.2, 0.0]], dtype=torch.float64), 2000
    exact = 1.0 / (1.0 + math.exp(-2 * 0.5 * 0.2 / variance))
    errors = []
    for sampler in (None, Adams(99)):
        drawn = inpaint(model, x, known, sampler=sampler, draws=n, seeds=[0]).data[0, :, 1]
        errors.append(abs(float((drawn > 0).double().mean()) - exact))
    assert errors[0] < errors[1] - 2 * math.sqrt(exact * (1 - exact) / n)
    assert errors[0] < 0.12
