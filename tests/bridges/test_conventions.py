"""Conventions that several code bases share, and what adapters refuse."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.adapters import FromSchedule, FromSigma, FromSigmaTable, OneHot
from scoresde.bridges import conventions


def test_cosine_betas_are_those_of_the_clock_and_linear_ones_those_of_ddpm() -> None:
    assert conventions.cosine_betas(1000) == pytest.approx(sd.Cosine().to_betas(1000), rel=1e-9)
    assert conventions.linear_betas(1000) == pytest.approx(sd.LinearBetas().to_betas(1000), rel=1e-9)
    assert conventions.linear_betas(500)[0] == pytest.approx(2e-4)


def test_karras_levels_end_at_zero_and_are_even_in_their_root() -> None:
    taus = conventions.karras_grid(5, 0.1, 10.0).taus
    assert len(taus) == 6
    assert taus[-1] == 0
    roots = [math.expm1(2 * tau) ** (0.5 / 7) for tau in taus[:-1]]
    assert roots[0] == pytest.approx(10 ** (1 / 7))
    assert roots[4] == pytest.approx(0.1 ** (1 / 7))
    assert [a - b for a, b in zip(roots, roots[1:])] == pytest.approx([(roots[0] - roots[4]) / 4] * 4)
    assert conventions.karras_grid(1, 0.1, 10.0).taus == (pytest.approx(0.5 * math.log(101)), 0.0)


def test_steps_counted_from_zero_are_knots_in_falling_order() -> None:
    clock = sd.LinearBetas()
    knots = clock.knots(1000)
    assert conventions.step_grid(clock, 1000, [0, 999, 40]).taus == (knots[1000], knots[41], knots[1], 0.0)


def test_bytes_are_recovered_from_both_ranges() -> None:
    values = torch.arange(256).reshape(256, 1)
    for centered, x in ((True, values / 127.5 - 1), (False, values / 255)):
        assert torch.equal(conventions.byte_images((1,), centered).to_data(x), values.to(torch.uint8))


@pytest.mark.parametrize(
    ("sigmas", "rule"),
    [
        ((1.0,), "two or more positive finite levels"),
        ((0.0, 1.0), "two or more positive finite levels"),
        ((1.0, math.inf), "two or more positive finite levels"),
        ((1.0, 3.0, 2.0), "must rise strictly or fall strictly"),
        ((1.0, 1.0), "must rise strictly or fall strictly"),
    ],
)
def test_a_table_of_levels_is_positive_and_ordered(sigmas: tuple[float, ...], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        FromSigmaTable(nn.Linear(1, 1), sigmas)


def test_a_network_of_another_call_is_told_so() -> None:
    model = sd.ScoreModel(FromSigma(nn.Linear(2, 2)), sd.VE(), sd.X0(), (2,))
    with pytest.raises(TypeError, match=r"must be called as net\(x, t\), got Linear with forward\(input"):
        model(torch.zeros(1, 2), 0.5)
    model = sd.ScoreModel(FromSigma(OneHot(nn.Linear(2, 2), 3)), sd.VE(), sd.X0(), (2,))
    with pytest.raises(TypeError, match=r"must be called as net\(x, t, class_labels\)"):
        model(torch.zeros(1, 2), 0.5)


def test_a_denoiser_without_a_schedule_or_a_mean_is_told_so() -> None:
    class Plain(nn.Module):
        def schedule(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return 1 - 0.9 * t, 0.1 + 0.9 * t

        def forward(self, x: Tensor, t: Tensor) -> dict[str, Tensor]:
            return {"mean": x}

    with pytest.raises(TypeError, match="must have a member `schedule`"):
        FromSchedule(nn.Linear(2, 2))
    model = sd.ScoreModel(FromSchedule(Plain()), sd.VPSDE(), sd.X0(), (2,))
    with pytest.raises(TypeError, match="must return an object with a tensor `mean`, got dict"):
        model(torch.zeros(1, 2), 0.5)
