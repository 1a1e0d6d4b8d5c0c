"""Guidance of categories and of mixed events: logits are combined as noise estimates are."""

from __future__ import annotations

import pytest
import torch
from mixed_cases import CASES, mixture

from scoresde.guidance import CFG, Autoguidance
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet, Classes, MixedNet
from scoresde.process import Categorical
from scoresde.sampling import DDPM, Ancestral, MixedSampler, sample

D = torch.float64


def network(kind: str) -> ScoreModel:
    """A conditional network with random weights."""
    conditions = {"label": Classes(3)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "categories":
            inner = MLP((1 * 3, 2), width=16, depth=1, conditions=conditions)
            net, process = CategoricalNet(inner, (2,), 3), Categorical(3)
        else:
            inner = MLP(MixedNet.inner_shape(2, (3, 2)), width=16, depth=1, conditions=conditions)
            net, process = MixedNet(inner, 2, (3, 2)), CASES["uniform"]
        for parameter in inner.parameters():  # the embeddings of conditions begin at 0
            torch.nn.init.normal_(parameter, std=0.5)
    return ScoreModel(net, process)


@pytest.mark.parametrize("batched", [True, False])
def test_cfg_of_mixed_events_combines_noise_estimates_and_log_probabilities(batched):
    model = network("mixed")
    x = mixture(CASES["uniform"]).sample(5, 0.5, torch.Generator().manual_seed(0)).float()
    label = torch.tensor([0, 1, 2, 0, 1])
    guided = CFG(model, 2.5, batched=batched)(x, 0.5, label=label)
    conditional, null = model(x, 0.5, label=label), model(x, 0.5)
    assert (conditional.categorical.probs - null.categorical.probs).abs().max() > 0.01
    eps = null.continuous.eps + 2.5 * (conditional.continuous.eps - null.continuous.eps)
    torch.testing.assert_close(guided.continuous.eps, eps, rtol=1e-4, atol=1e-4)
    first, second = (p.categorical.logits.clamp(min=-1e3) for p in (conditional, null))
    logits = torch.log_softmax(second + 2.5 * (first - second), -1)
    valid = conditional.categorical.logits > -1e3
    torch.testing.assert_close(guided.categorical.logits[valid], logits[valid], rtol=1e-4, atol=1e-4)
    assert (guided.categorical.probs[:, 1, 2] < 1e-30).all()
    assert CFG(model, 2.5).cost == 2


def test_cfg_of_categories_combines_log_probabilities_and_per_sample_scales():
    model = network("categories")
    x, label = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([0, 2])
    scale = torch.tensor([0.0, 3.0])
    guided = CFG(model, scale)(x, 0.4, label=label)
    conditional, null = model(x, 0.4, label=label), model(x, 0.4)
    torch.testing.assert_close(guided.logits[0], null.logits[0], rtol=1e-4, atol=1e-5)
    expected = torch.log_softmax(null.logits[1] + 3.0 * (conditional.logits[1] - null.logits[1]), -1)
    torch.testing.assert_close(guided.logits[1], expected, rtol=1e-4, atol=1e-5)
    samples = sample(CFG(model, 2.0), 4, Ancestral(5), label=torch.tensor([0, 1, 2, 0]), seeds=range(4))
    assert samples.nfe == 10


def test_a_class_that_a_model_excludes_stays_excluded_in_guided_samples():
    model, weaker = mixture(CASES["uniform"]), mixture(CASES["uniform"], 2)
    guided = Autoguidance(model, weaker, 2.0)
    x = sample(guided, 200, MixedSampler(DDPM(20)), seeds=range(200)).x
    assert torch.isfinite(x).all()
    assert (x[:, 3] < 2).all()


def test_rescale_is_refused_for_categories():
    model = network("mixed")
    x = mixture(CASES["uniform"]).sample(2, 0.5).float()
    with pytest.raises(TypeError, match=r"rescale=0\.5 matches the spread of a Gaussian process"):
        CFG(model, 2.0, rescale=0.5)(x, 0.5, label=torch.tensor([0, 1]))
