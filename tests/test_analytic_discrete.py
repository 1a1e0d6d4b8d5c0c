"""Exact models of categories against Bayes' rule by enumeration of the data, and their samples."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from discrete_models import MODELS, D
from torch import Tensor

from scoresde.analytic import BernoulliMixture, CategoricalMixture, DiscreteTable
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete_prediction import DiscretePrediction

every_model = pytest.mark.parametrize("name", MODELS)


def data_of(model: CategoricalMixture) -> tuple[Tensor, Tensor]:
    """All data and their probabilities, summed over the components one by one."""
    weights, probs = model.log_weights.exp(), model.class_probs
    codes = torch.tensor(list(itertools.product(range(probs.shape[2]), repeat=probs.shape[1])))
    p = torch.zeros(len(codes), dtype=D)
    for k in range(len(weights)):
        each = weights[k].clone().expand(len(codes))
        for i in range(probs.shape[1]):
            each = each * probs[k, i, codes[:, i]]
        p += each
    return codes.to(D), p


@every_model
@pytest.mark.parametrize("tau", [1e-4, 0.3, 1.5])
def test_predictions_and_probabilities_are_those_of_bayes_rule(name, tau):
    model = MODELS[name]
    codes, p = data_of(model)
    kernel = model.sde.transition(codes, tau)  # (N, d, S)
    for state in itertools.islice(itertools.product(range(model.sde.states), repeat=codes.shape[1]), 0, None, 3):
        x = torch.tensor([state], dtype=D)
        likelihood = torch.stack([kernel[:, i, c] for i, c in enumerate(state)]).prod(0)
        joint = p * likelihood
        assert model.log_prob(x, tau).exp().item() == pytest.approx(joint.sum().item(), rel=1e-10, abs=1e-300)
        if joint.sum() == 0:
            continue
        prediction = model(x, tau)
        assert isinstance(prediction, DiscretePrediction)
        for i in range(codes.shape[1]):
            for c in range(model.sde.most_classes):
                exact = (joint[codes[:, i] == c].sum() / joint.sum()).item()
                assert prediction.probs[0, i, c].item() == pytest.approx(exact, abs=1e-10)


@every_model
def test_samples_have_the_probabilities_of_the_model(name):
    model, n = MODELS[name], 20_000
    for tau in (0.0, 0.4):
        x = model.sample(n, tau, torch.Generator().manual_seed(1))
        p = model.log_prob(x[:1], tau).exp().item()
        share = (x == x[:1]).all(1).to(D).mean().item()
        assert share == pytest.approx(p, abs=4.5 * (p * (1 - p) / n) ** 0.5)
    assert model.sample(0).shape == (0, x.shape[1])


def test_the_reverse_rates_are_ratios_of_probabilities():
    for name in ("uniform", "absorbing", "binomial table"):
        model, tau = MODELS[name], 0.6
        x = model.sample(1, tau, torch.Generator().manual_seed(2))
        rates = model(x, tau).rates[0]
        for i, j in itertools.product(range(x.shape[1]), range(model.sde.states)):
            other = x.clone()
            other[0, i] = j
            forward = model.sde.forward_rates(other)[0, i, int(x[0, i])].item()
            ratio = (model.log_prob(other, tau) - model.log_prob(x, tau)).exp().item()
            expected = 0.0 if j == int(x[0, i]) else forward * ratio
            assert rates[i, j].item() == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_impossible_states_get_the_distribution_of_the_data():
    table = DiscreteTable(torch.tensor([[0, 0, 0], [1, 1, 0]]), process=Categorical(2, "absorbing"))
    probs = table(torch.tensor([[0.0, 1.0, 2.0]], dtype=D), 0.5).probs
    assert probs[0].tolist() == [[1, 0], [0, 1], [1, 0]]
    mixed = table(torch.tensor([[2.0, 2.0, 1.0]], dtype=D), 0.5).probs
    assert mixed[0, 0].tolist() == pytest.approx([0.5, 0.5])


def test_empty_batches_have_empty_predictions():
    for model in MODELS.values():
        x = torch.zeros(0, *(model.event_shape or ()), dtype=D)
        assert model(x, 0.3).probs.shape[0] == 0
        assert model.log_prob(x).shape == (0,)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: CategoricalMixture(torch.ones(2), torch.full((1, 2, 3), 1 / 3)), "weights must be 1 positive"),
        (lambda: CategoricalMixture(torch.zeros(1), torch.full((1, 2, 3), 1 / 3)), "weights must be 1 positive"),
        (lambda: CategoricalMixture(torch.ones(1), torch.full((1, 2, 3), 0.5)), "sum to 1 over the classes"),
        (lambda: CategoricalMixture(torch.ones(1), torch.ones(1, 2, 3, dtype=torch.int64)), "floating tensor"),
        (lambda: CategoricalMixture(torch.ones(1), torch.full((1, 2, 3), 1 / 3), Binomial()), "of the 2 classes"),
        (lambda: DiscreteTable(torch.tensor([[0, 3]]), process=Categorical(3)), "states must hold codes"),
        (lambda: BernoulliMixture(torch.ones(1), torch.tensor([[1.5, 0.2]])), "at least 0"),
    ],
    ids=["count", "zero weight", "sum", "integers", "classes", "codes", "above 1"],
)
def test_a_wrong_distribution_is_refused(make, match):
    with pytest.raises((TypeError, ValueError), match=match):
        make()


def test_a_mixture_of_bits_is_one_of_two_classes():
    probs = torch.tensor([[0.1, 0.8], [0.9, 0.3]], dtype=D)
    bits = BernoulliMixture(torch.ones(2), probs)
    classes = CategoricalMixture(torch.ones(2), torch.stack([1 - probs, probs], -1), Binomial())
    x = torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=D)
    assert torch.equal(bits(x, 0.2).probs, classes(x, 0.2).probs)
    assert bits.log_prob(x)[0].item() == pytest.approx(math.log(0.5 * 0.9 * 0.8 + 0.5 * 0.1 * 0.3))
