"""Bridge SMC: draws of the exact posterior and its evidence for numbers, categories and both; imputation by default."""

from __future__ import annotations

import pytest
import torch
from mixed_cases import CASES, mixture
from torch import Tensor
from torch.distributions import Normal

import scoresde as sd
from scoresde.analytic import CategoricalMixture, MixedMixture
from scoresde.guidance import Mask, Observation
from scoresde.inverse import BridgeSMC, TwistedSMC, impute, sample_posterior
from scoresde.process import Categorical

D = torch.float64
NAN = torch.nan
Y = torch.tensor([[NAN, -0.5, 1.0, NAN], [0.4, NAN, NAN, 1.0], [NAN, NAN, 2.0, 0.0]], dtype=D)


def exact(model: MixedMixture, y: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each component given the known entries of one event, and log p(y)."""
    log_weights = model.codes.log_weights.clone()
    for i in (0, 1):
        if not y[i].isnan():
            log_weights = log_weights + Normal(
                model.numbers.means[:, i], model.numbers.variances[:, i].sqrt()
            ).log_prob(y[i])
        if not y[2 + i].isnan():
            log_weights = log_weights + model.codes.class_probs[:, i, int(y[2 + i])].log()
    return torch.softmax(log_weights, 0), torch.logsumexp(log_weights, 0)


@pytest.mark.parametrize("kernel", CASES)
def test_draws_of_missing_numbers_and_categories_have_the_exact_conditional_distribution(kernel):
    model = mixture(CASES[kernel])
    filled = impute(model, Y, 400, BridgeSMC(50, 512), seeds=[1, 2, 3])
    assert filled.nfe == 50
    for row, y in enumerate(Y):
        weights, _ = exact(model, y)
        for i in (0, 1):
            x = filled.x[row, :, i]
            if y[i].isnan():
                mean = weights @ model.numbers.means[:, i]
                second = weights @ (model.numbers.variances[:, i] + model.numbers.means[:, i].square())
                assert abs(float(x.mean() - mean)) < 0.2
                assert abs(float(x.square().mean() - second)) < 0.3
            else:
                assert (x == y[i]).all()
            codes = filled.x[row, :, 2 + i]
            if y[2 + i].isnan():
                shares = torch.stack([(codes == c).double().mean() for c in range(3)])
                assert (shares - weights @ model.codes.class_probs[:, i]).abs().max() < 0.1
            else:
                assert (codes == y[2 + i]).all()
    prior = torch.stack([(model.sample(4000)[:, 2] == c).double().mean() for c in range(3)])
    assert (prior - exact(model, Y[1])[0] @ model.codes.class_probs[:, 0]).abs().max() > 0.1


@pytest.mark.parametrize("kernel", CASES)
def test_the_evidence_is_the_density_of_the_numbers_times_the_probability_of_the_codes(kernel):
    model = mixture(CASES[kernel])
    known = ~Y.isnan()
    observation = Observation(Mask(known, per_observation=True), Y.nan_to_num(0.0), 0.0)
    posterior = sample_posterior(model, observation, method=BridgeSMC(50, 512), seeds=[1, 2, 3])
    log_evidence = torch.stack([exact(model, y)[1] for y in Y])
    assert posterior.log_evidence is not None
    assert posterior.standard_error is not None
    assert (posterior.log_evidence - log_evidence).abs().max() < 0.35
    assert (posterior.standard_error < 0.3).all()


def test_categories_alone_are_imputed_by_default_with_their_exact_conditional_distribution():
    probs = torch.tensor([[[0.9, 0.1, 0.0], [0.7, 0.2, 0.1]], [[0.0, 0.2, 0.8], [0.1, 0.1, 0.8]]], dtype=D)
    model = CategoricalMixture(torch.tensor([2.0, 1.0]), probs, Categorical(3, "absorbing"))
    filled = impute(model, torch.tensor([[1.0, NAN]], dtype=D), 400, seeds=[0])
    weights = torch.tensor([2.0 * 0.1, 0.2], dtype=D) / 0.4
    shares = torch.stack([(filled.x[0, :, 1] == c).double().mean() for c in range(3)])
    assert (shares - weights @ probs[:, 1]).abs().max() < 0.08


def test_numbers_alone_agree_with_twisted_smc():
    model = sd.Gaussian(torch.zeros(2, dtype=D), torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=D))
    y = torch.tensor([[0.7, NAN]], dtype=D)
    for method in (BridgeSMC(60, 1024), TwistedSMC(60, 1024)):
        x = impute(model, y, 1000, method, seeds=[0]).x[0, :, 1]
        assert abs(float(x.mean()) - 0.56) < 0.08
        assert abs(float(x.var()) - 0.36) < 0.08


def test_an_event_without_missing_values_needs_no_particles_and_another_operator_is_refused():
    model = mixture(CASES["uniform"])
    complete = model.sample(2)
    assert torch.equal(impute(model, complete, 3, seeds=[0, 1]).x[:, 1], complete)
    with pytest.raises(TypeError, match=r"TwistedSMC conditions models of a Gaussian process.*BridgeSMC\(\)"):
        impute(model, Y, 3, TwistedSMC(10, 16), seeds=[1, 2, 3])
