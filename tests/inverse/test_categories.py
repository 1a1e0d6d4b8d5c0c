"""Edits, inpainting and imputation of categories, and of numbers and categories: exact laws, units and defaults."""

from __future__ import annotations

import itertools

import pytest
import torch
from mixed_cases import CASES, mixture

from scoresde import Description, edit, encode, impute, inpaint, interpolate
from scoresde.analytic import CategoricalMixture, DiscreteTable
from scoresde.inverse import Replacement
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.process import Binomial, Categorical
from scoresde.sampling import DDPM, Ancestral, ExactSimulation, MixedSampler, sample

D = torch.float64
STATES = torch.tensor([[0, 0], [1, 1], [2, 2]])


def bits(shape: tuple[int, ...] = (1, 2, 4)) -> ScoreModel:
    """A network of bits that knows its data."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = MLP(CategoricalNet.inner_shape(shape, 2), width=8, depth=1)
    return ScoreModel(CategoricalNet(net, shape, 2), Binomial(), data=Description("bits", shape, classes=2))


def agree(codes: torch.Tensor, law: torch.Tensor) -> bool:
    """Whether codes have the probabilities of a law, within 4.5 standard errors."""
    shares = torch.bincount(codes.long(), minlength=len(law)) / len(codes)
    return bool(((shares - law).abs() <= 4.5 * (law * (1 - law) / len(codes)).sqrt() + 1e-9).all())


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_an_edit_of_categories_is_noised_by_their_kernel_and_sampled_back(kernel: str) -> None:
    model, tau, n = DiscreteTable(STATES, process=Categorical(3, kernel)), 0.3, 6000
    x0 = torch.zeros(1, 2, dtype=D)
    kernel_of_x0, law = model.sde.transition(x0, tau)[0], torch.zeros(3, dtype=D)
    for state in itertools.product(range(model.sde.states), repeat=2):  # Σ q(x_τ | x_0) p(x_0' | x_τ)
        weight = kernel_of_x0[0, state[0]] * kernel_of_x0[1, state[1]]
        if weight > 0:
            law += weight * model(torch.tensor([state], dtype=D), tau).probs[0, 0]
    sampler = ExactSimulation()
    edited = edit(model, x0.expand(n, 2), tau, sampler, generator=torch.Generator().manual_seed(0))
    assert (edited.x[:, 0] == edited.x[:, 1]).all()
    assert agree(edited.x[:, 0], law)


@pytest.mark.parametrize("kernel", CASES)
def test_an_edit_of_numbers_and_categories_noises_each_by_its_own_process(kernel: str) -> None:
    model, n = mixture(CASES[kernel]), 3000
    x0 = model.sample(n, generator=torch.Generator().manual_seed(0))
    edited = edit(model, x0, 0.4, MixedSampler(DDPM(40)), generator=torch.Generator().manual_seed(1)).x
    for i, classes in ((2, 3), (3, 2)):  # the law of the data is stationary
        share = (model.codes.log_weights.exp() @ model.codes.class_probs[:, i - 2])[:classes]
        error = torch.bincount(edited[:, i].long(), minlength=classes) / n - share
        assert error.abs().max() < 0.035
        assert (edited[:, i] == x0[:, i]).double().mean() > share.square().sum() + 0.05  # more than by chance


def test_without_a_sampler_an_edit_takes_the_chain_of_its_process() -> None:
    events = torch.tensor([[[[0, 1, 1, 0], [1, 1, 0, 0]]]], dtype=torch.uint8)
    model = bits()
    edited = edit(model, events, strength=0.5, seeds=[1])
    chain = edit(model, events, strength=0.5, sampler=Ancestral(250), seeds=[1])
    assert torch.equal(edited.data, chain.data)
    assert edited.data.dtype == torch.uint8
    mixed = mixture(CASES["uniform"])
    x0 = mixed.sample(2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(edit(mixed, x0, 0.2, seeds=[1, 2]).x, edit(mixed, x0, 0.2, MixedSampler(), seeds=[1, 2]).x)


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_kept_categories_stay_and_follow_the_bridge_of_their_value(kernel: str) -> None:
    model = DiscreteTable(STATES, process=Categorical(3, kernel))
    x0 = torch.tensor([[0.0, 2.0]], dtype=D)
    known = torch.tensor([[True, False]])
    wrapped = Replacement(model, x0, known)
    x = torch.tensor([[0.0 if kernel == "uniform" else 3.0, 2.0]], dtype=D)
    prediction = wrapped(x, 0.8)
    assert prediction.probs[0, 0].tolist() == [1, 0, 0]
    assert torch.equal(prediction.probs[0, 1], model(x, 0.8).probs[0, 1])
    exact = model.sde.posterior(x, x0, 0.8, 0.3)[0, 0]
    torch.testing.assert_close(prediction.step_probs(0.3)[0, 0], exact, rtol=1e-10, atol=1e-12)
    edited = edit(model, x0.expand(50, 2), 0.5, Ancestral(10), mask=known[0], seeds=range(50))
    assert (edited.x[:, 0] == 0).all()


def test_kept_entries_of_mixed_events_stay() -> None:
    model = mixture(CASES["uniform"])
    x0 = model.sample(40, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, False, False, True])
    edited = edit(model, x0, 0.8, mask=mask, sampler=MixedSampler(DDPM(20)), seeds=range(40)).x
    assert torch.equal(edited[:, mask], x0[:, mask])
    assert (edited[:, 2] != x0[:, 2]).any()
    assert (edited[:, 1] != x0[:, 1]).all()
    raw = sample(Replacement(model, x0, mask.expand(40, 4)), 40, MixedSampler(DDPM(20)), seeds=range(40), start=3.0).x
    torch.testing.assert_close(raw[:, 0], x0[:, 0], rtol=0, atol=0.1)  # before values are put back
    assert torch.equal(raw[:, 3], x0[:, 3])


def test_missing_categories_of_described_events_are_nan_among_whole_numbers() -> None:
    table = torch.tensor([[[[0.0, 1.0, torch.nan, 0.0], [1.0, torch.nan, 0.0, 0.0]]]])
    filled = impute(bits(), table, 4, seeds=[0])
    assert filled.data.dtype == torch.uint8
    known = ~table.isnan().expand(4, 1, 2, 4)
    assert torch.equal(filled.data[0][known].float(), table.expand(4, 1, 2, 4)[known])
    assert (filled.data <= 1).all()
    with pytest.raises(
        ValueError, match=r"whole numbers, or NaN where one is missing, got 0\.5 at index \(0, 0, 0, 0\)"
    ):
        impute(bits(), table + 0.5, 4, seeds=[0])
    with pytest.raises(ValueError, match="categories must be integers 0 … 1, got 2"):
        impute(bits(), table + 1, 4, seeds=[0])


def test_inpainting_of_categories_has_their_exact_conditional_distribution_by_default() -> None:
    probs = torch.tensor([[[0.9, 0.1, 0.0], [0.7, 0.2, 0.1]], [[0.0, 0.2, 0.8], [0.1, 0.1, 0.8]]], dtype=D)
    model = CategoricalMixture(torch.tensor([2.0, 1.0]), probs, Categorical(3))
    drawn = inpaint(model, torch.tensor([[1.0, 0.0]], dtype=D), torch.tensor([True, False]), draws=400, seeds=[0])
    law = torch.tensor([2.0 * 0.1, 0.2], dtype=D) / 0.4 @ probs[:, 1]
    shares = torch.bincount(drawn.x[0, :, 1].long(), minlength=3) / 400
    assert (shares - law).abs().max() < 0.08
    assert (drawn.x[0, :, 0] == 1).all()


def test_latents_of_categories_are_refused() -> None:
    model, x = bits(), torch.zeros(2, 1, 2, 4, dtype=torch.uint8)
    for call in (lambda: encode(model, x), lambda: interpolate(model, x[:1], x[1:])):
        with pytest.raises(TypeError, match=r"the probability-flow ODE needs a Gaussian process.*got a model of categ"):
            call()
