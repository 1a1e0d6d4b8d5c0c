"""Seeds: integers in [0, 2**63), everywhere; and conditioning with one entry per sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian
from scoresde.likelihood import continuous_vlb, discrete_vlb, log_prob, sample_log_prob
from scoresde.model import ScoreModel
from scoresde.process.sde import VPSDE
from scoresde.sampling import Adams, sample
from scoresde.sampling.brownian import VirtualBrownianTree

MODEL = Gaussian(torch.zeros(2, dtype=torch.float64), 0.5)
X = torch.full((2, 2), 0.3, dtype=torch.float64)
USERS: dict[str, Any] = {
    "sample": lambda seeds: sample(MODEL, 2, Adams(steps=3), seeds=seeds),
    "log_prob": lambda seeds: log_prob(MODEL, X, seeds=seeds),
    "sample_log_prob": lambda seeds: sample_log_prob(MODEL, 2, seeds=seeds),
    "continuous_vlb": lambda seeds: continuous_vlb(MODEL, X, evaluations=16, seeds=seeds),
    "discrete_vlb": lambda seeds: discrete_vlb(MODEL, X, 4, seeds=seeds),
    "Noise": lambda seeds: Noise(seeds=seeds).normal(X),
    "VirtualBrownianTree": lambda seeds: VirtualBrownianTree(X, seeds),
}


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("seeds", [[0, -1], [0, 2**63], [0, 1.0], [True, 2], [0, "1"], [0, None], np.array([0.0, 1.5])])
def test_seeds_that_are_no_integers_in_range_are_refused(user: str, seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds\[[01]\] must be an integer from 0 to 2\*\*63 - 1, got"):
        USERS[user](seeds)


@pytest.mark.parametrize("user", ["sample", "log_prob", "continuous_vlb", "Noise"])
@pytest.mark.parametrize("seeds", [3, "12", 1.5])
def test_one_seed_for_many_samples_is_answered_with_the_call_that_works(user: str, seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds must be a sequence with one integer per sample, got .*range\(n\)"):
        USERS[user](seeds)


@pytest.mark.parametrize("seeds", [range(2), np.arange(2), torch.arange(2), [np.int64(0), np.uint8(1)], (0, 1)])
def test_every_kind_of_integer_gives_the_same_samples(seeds: Any) -> None:
    assert torch.equal(USERS["sample"](seeds).x, USERS["sample"]([0, 1]).x)
    assert torch.equal(USERS["log_prob"](seeds).log_prob, USERS["log_prob"]([0, 1]).log_prob)
    assert torch.equal(USERS["Noise"](seeds), USERS["Noise"]([0, 1]))
    assert USERS["sample"]([0, 2**63 - 1]).x.shape == (2, 2)


class Observing(nn.Module):
    """A network that reads an observation of three numbers per sample."""

    def forward(self, x: Tensor, log_snr: Tensor, y: Tensor) -> Tensor:
        return 0.1 * x + y.sum(1, keepdim=True)


@pytest.mark.parametrize("shape", [(3,), (1, 3)])
def test_one_observation_for_many_samples_is_answered_with_its_expansion(shape: tuple[int, ...]) -> None:
    model, y = ScoreModel(Observing(), VPSDE(), event_shape=(2,)), torch.ones(shape)
    message = r"y must have one entry per sample, 5, got .* pass y\.expand\(5, -1\)"
    with pytest.raises(ValueError, match=message):
        sample(model, 5, Adams(steps=3), y=y)
    with pytest.raises(ValueError, match=message):
        log_prob(model, torch.zeros(5, 2), y=y)
    with pytest.raises(ValueError, match=message):
        continuous_vlb(model, torch.zeros(5, 2), y=y)
    expanded = sample(model, 5, Adams(steps=3), y=y.expand(5, -1), seeds=range(5)).x
    assert torch.equal(expanded, sample(model, 5, Adams(steps=3), y=torch.ones(5, 3), seeds=range(5)).x)
