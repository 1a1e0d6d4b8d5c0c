"""Observations: noise as a standard deviation or covariance, selection, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Mask, Matrix

EYE = Matrix(torch.eye(3).double())


def test_noise_of_both_kinds_is_the_same_covariance() -> None:
    std = torch.tensor([0.1, 0.5, 2.0]).double()
    by_std = Observation(EYE, torch.ones(3).double(), noise_std=std)
    by_cov = Observation(EYE, torch.ones(3).double(), noise_cov=torch.diag(std.square()))
    r = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]]).double()
    torch.testing.assert_close(by_std.covariance(), by_cov.covariance())
    torch.testing.assert_close(by_std.apply_noise_cov(r), r * std.square())
    torch.testing.assert_close(by_cov.apply_noise_cov(r), r * std.square())
    assert torch.equal(Observation(EYE, torch.ones(3), noise_std=0.5).covariance(), 0.25 * torch.eye(3))


def test_one_of_several_has_its_own_mask_and_values() -> None:
    observed = torch.tensor([[True, False], [False, True]])
    several = Observation(Mask(observed, per_observation=True), torch.tensor([[1.0, math.nan], [math.nan, 2.0]]), 0.1)
    assert several.y.tolist() == [[1.0, 0.0], [0.0, 2.0]]
    alone = several.one(1)
    assert (alone.count, alone.y.tolist()) == (None, [0.0, 2.0])
    assert torch.equal(alone.operator(torch.ones(1, 2)), torch.tensor([[0.0, 1.0]]))
    operator, y = several.of_batch(torch.ones(3, 2), torch.tensor([1, 0, 1]))
    assert torch.equal(operator(torch.ones(3, 2)), torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]))
    assert torch.equal(y, several.y[[1, 0, 1]])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"noise_std": -0.1}, "must not be negative"),
        ({"noise_std": math.nan}, "noise_std must be finite"),
        ({"noise_std": torch.ones(2)}, "number or have shape"),
        ({}, "stated once"),
        ({"noise_std": 0.1, "noise_cov": torch.eye(3)}, "stated once"),
        ({"noise_cov": torch.eye(2)}, r"shape \(3, 3\)"),
        ({"noise_cov": torch.ones(3, 3).tril()}, "must be symmetric"),
        ({"noise_cov": -torch.eye(3)}, "positive semi-definite"),
        ({"y": torch.ones(4), "noise_std": 0.1}, "y must have shape"),
        ({"y": torch.ones(3).long(), "noise_std": 0.1}, "floating"),
        ({"y": torch.tensor([1.0, math.nan, 1.0]), "noise_std": 0.1}, "y must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"operator": EYE, "y": torch.ones(3)} | arguments
    with pytest.raises((TypeError, ValueError), match=words):
        Observation(**settings)
