"""`verify`: planted mistakes are found by name, right uses pass, and what the data cannot decide is called so."""

from __future__ import annotations

import dataclasses
import functools
import math

import pytest
import torch
from emoji_networks import held_out, trained
from planted_mistakes import MISTAKES, Case
from torch import Tensor, nn

import scoresde as sd
from scoresde.evaluation.verify.comparison import gain, t_bound

LIMIT = 64


@functools.cache
def case(name: str) -> Case:
    return MISTAKES[name]()


FOUND = [
    "sign flipped",
    "eps read as v",
    "eps read as x_0",
    "cosine for linear betas",
    "[0, 1] for [-1, 1]",
    "[-1, 1] for [0, 1]",
    "averaged weights not applied",
    "channel order",
    "VE for VP",
    "transposed images",
    "missing scaling_factor",
]


@pytest.mark.parametrize("name", FOUND)
def test_a_planted_mistake_is_found_by_name(name: str) -> None:
    planted = case(name)
    result = sd.verify(planted.wrong, planted.data, limit=LIMIT, **planted.options)
    assert not result.ok
    assert result.exit_code == 1
    assert {check.name for check in result.failed} & set(planted.finds), str(result)


def test_the_right_use_of_a_network_raises_no_alarm() -> None:
    for seed in range(2):
        result = sd.verify(trained("eps"), held_out(), others={"the raw weights": trained("eps", raw=True)}, seed=seed)
        assert result.ok, str(result)
        assert result.check("output").outcome == "passed"
        assert result.check("weights").outcome == "passed"
        ratios = [error / linear for error, linear in zip(result.error, result.linear_error)]
        assert max(ratios) < 1.2
        assert min(ratios) < 0.6


def test_an_exact_model_passes_and_its_error_is_that_of_the_linear_denoiser(generator: torch.Generator) -> None:
    model = sd.Gaussian(torch.tensor([1.0, -1.0, 0.5]), torch.tensor([0.2, 1.0, 3.0]))
    x = torch.randn(4000, 3, generator=generator) * torch.tensor([0.2, 1.0, 3.0]).sqrt() + torch.tensor(
        [1.0, -1.0, 0.5]
    )
    result = sd.verify(model, x)
    assert result.ok, str(result)
    for error, linear in zip(result.error, result.linear_error):
        assert error == pytest.approx(linear, rel=0.15)


def test_a_score_of_twice_the_size_is_found_by_both_identities(generator: torch.Generator) -> None:
    class Doubled(sd.Model):
        def __init__(self) -> None:
            super().__init__()
            self.model = sd.Gaussian(torch.zeros(4), 1.0)
            self.sde, self.event_shape = self.model.sde, (4,)

        def predict(self, x: Tensor, tau: sd.process.ou.Scalar, **cond: object) -> sd.process.Prediction:  # pyright: ignore
            return sd.process.Prediction(x, tau, 2 * self.model.predict(x, tau).eps, sd.Eps())

    result = sd.verify(Doubled(), torch.randn(2000, 4, generator=generator))
    check = result.check("score scale")
    assert check.outcome == "failed"
    for value, stderr in check.evidence.values():
        assert value == pytest.approx(2.0, abs=6 * stderr)


def test_gray_images_do_not_decide_the_order_of_channels() -> None:
    data = held_out()
    gray = data.test.float().mean(1, keepdim=True).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    result = sd.verify(trained("eps"), dataclasses.replace(data, test=gray), limit=LIMIT)
    assert result.check("channel order").outcome == "undecidable"


def test_the_gain_is_a_mean_over_events_of_relative_differences() -> None:
    current = torch.tensor([[1.0, 3.0], [10.0, 30.0]], dtype=torch.float64)
    other = torch.tensor([[1.0, 1.0], [10.0, 10.0]], dtype=torch.float64)
    found = gain(current, other)  # per event 0 and 1 (means of the levels 2 and 20)
    assert found is not None
    assert found.mean == pytest.approx(0.5)
    assert found.stderr == pytest.approx(math.sqrt(0.5) / math.sqrt(2))
    assert found.t == pytest.approx(1.0)


def test_the_bound_is_that_of_the_t_distribution() -> None:
    assert t_bound(1, 10**6) == pytest.approx(3.2905, abs=1e-3)  # two-sided normal quantile at 0.001
    assert t_bound(1, 2) == pytest.approx(636.6, rel=1e-3)  # Cauchy
    assert t_bound(100, 64) > t_bound(1, 64)


def test_too_few_events_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 events, got 8"):
        sd.verify(sd.Gaussian(torch.zeros(2), 1.0), torch.randn(8, 2))


def test_the_network_is_restored_to_training_mode() -> None:
    net = sd.MLP((2,), 8, 1)
    model = sd.ScoreModel(net, sd.VPSDE(), sd.V(), (2,)).train()
    sd.verify(model, torch.randn(64, 2), limit=32)
    assert model.training
    assert net.training
    assert isinstance(net, nn.Module)
