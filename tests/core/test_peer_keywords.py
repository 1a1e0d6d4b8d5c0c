"""Keywords of other libraries: `sample`, `log_prob` and the bounds answer each with the equivalent call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde._core.peer_keywords import peer_keyword_hint
from scoresde.analytic import Gaussian
from scoresde.guidance import Clipping
from scoresde.likelihood import discrete_vlb, log_prob
from scoresde.model import ScoreModel
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, sample

SAMPLING = {
    "num_inference_steps": r"num_inference_steps is `steps` of the sampler: sample\(model, 64, Adams\(steps=20\)\)",
    "num_steps": r"num_steps is `steps` of the sampler: sample\(model, 64, Adams\(steps=20\)\)",
    "n_steps": r"n_steps is `steps` of the sampler: sample\(model, 64, Adams\(steps=20\)\)",
    "sampling_steps": r"sampling_steps is `steps` of the sampler: sample\(model, 64, Adams\(steps=20\)\)",
    "noise": r"noise is `init`, the initial state: sample\(model, len\(x\), Adams\(steps=20\), init=x\)",
    "latents": r"latents is `init`, the initial state: sample\(model, len\(x\), Adams\(steps=20\), init=x\)",
    "model_kwargs": r"model_kwargs is passed as keywords: sample\(model, len\(labels\), .*, label=labels\)",
    "guidance_scale": r"guidance_scale is the scale of a guided model: sample\(CFG\(model, scale=3.0\), .*label=labels",
    "eta": r"eta is `eta` of the sampler: sample\(model, 64, DDIM\(steps=50, eta=1\.0\)\)",
}
LIKELIHOOD = {
    "num_inference_steps": r"num_inference_steps is the solver's tolerance: log_prob\(model, x, solver=AdaptiveSolver",
    "num_steps": r"num_steps is the solver's tolerance",
    "n_steps": r"n_steps is the solver's tolerance",
    "sampling_steps": r"sampling_steps is the solver's tolerance",
    "noise": r"noise is drawn from `generator` or `seeds`: log_prob\(model, x, seeds=range\(len\(x\)\)\)",
    "latents": r"latents is drawn from `generator` or `seeds`",
    "model_kwargs": r"model_kwargs is passed as keywords: log_prob\(model, x, label=labels\)",
    "guidance_scale": r"guidance_scale is not defined for a likelihood: the field of a guided model is no score",
    "eta": r"eta is not defined for a likelihood",
}


class AnyKeyword(nn.Module):
    """A network that accepts any keyword and reads none."""

    def forward(self, x: Tensor, log_snr: Tensor, **cond: object) -> Tensor:
        return x


class ReadsNoise(nn.Module):
    """A network that names `noise` as conditioning."""

    def forward(self, x: Tensor, log_snr: Tensor, noise: Tensor) -> Tensor:
        return x + noise


def _models() -> list[Any]:
    exact = Gaussian(torch.zeros(2), 1.0)
    return [exact, Clipping(exact), ScoreModel(AnyKeyword(), VPSDE(), event_shape=(2,))]


@pytest.mark.parametrize("keyword", SAMPLING)
@pytest.mark.parametrize("model", _models(), ids=["exact", "wrapped", "any keyword"])
def test_sample_answers_a_keyword_of_another_library_with_the_equivalent_call(model: Any, keyword: str) -> None:
    with pytest.raises(TypeError, match=SAMPLING[keyword]):
        sample(model, 3, DDIM(2), **{keyword: 1.0})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("keyword", LIKELIHOOD)
@pytest.mark.parametrize("model", _models(), ids=["exact", "wrapped", "any keyword"])
def test_log_prob_answers_a_keyword_of_another_library_with_the_equivalent_call(model: Any, keyword: str) -> None:
    with pytest.raises(TypeError, match=LIKELIHOOD[keyword]):
        log_prob(model, torch.zeros(3, 2), **{keyword: 1.0})  # pyright: ignore[reportArgumentType]


def test_a_function_with_steps_names_its_own_argument() -> None:
    with pytest.raises(TypeError, match=r"num_steps is `steps` of discrete_vlb: discrete_vlb\(…, steps=20\)\.$"):
        discrete_vlb(Gaussian(torch.zeros(2), 1.0), torch.zeros(3, 2), num_steps=10)


def test_a_network_that_accepts_any_keyword_must_name_such_a_keyword_and_may_then_read_it() -> None:
    with pytest.raises(TypeError, match=r"A network that reads noise must name it in forward\.$"):
        sample(_models()[2], 3, DDIM(2), noise=torch.zeros(3, 2))
    model = ScoreModel(ReadsNoise(), VPSDE(), event_shape=(2,))
    assert sample(model, 3, DDIM(2), noise=torch.zeros(3, 2)).x.shape == (3, 2)


def test_other_keywords_have_no_hint() -> None:
    assert peer_keyword_hint("label", sample) is None
    assert peer_keyword_hint("label", log_prob) is None
