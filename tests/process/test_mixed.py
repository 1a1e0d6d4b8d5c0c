"""The mixed process and its exact model: both parts on one clock, estimates against sums over all states."""

from __future__ import annotations

import pytest
import torch
from mixed_cases import CASES, CODES, mixture
from torch.distributions import Normal

from scoresde._core.noise import Noise
from scoresde.model import ScoreModel
from scoresde.nn import MLP, MixedNet
from scoresde.process import VE, VPSDE, Binomial, Categorical, Cosine, LinearAlphaBar, LinearVP, Mixed, MixedOutput, ou

D = torch.float64


@pytest.mark.parametrize("kernel", CASES)
def test_the_estimates_are_bayes_rule_by_quadrature_over_numbers_and_a_sum_over_codes(kernel):
    process, tau = CASES[kernel], 0.4
    model = mixture(process)
    x = model.sample(3, tau, generator=torch.Generator().manual_seed(1))
    prediction = model(x, tau)
    grid = torch.linspace(-4.5, 4.5, 401, dtype=D)
    points = torch.cartesian_prod(grid, grid)
    density = (model.numbers._component_terms(points, 0.0)[0] - model.numbers.log_weights).exp()  # (N, K)
    probability = model.codes._entry_probs(CODES, 0.0).prod(-1)  # (6, K)
    joint = torch.einsum("nk,ck,k->nc", density, probability, model.codes.log_weights.exp())
    for row in range(len(x)):
        numbers, codes = process.split(x[row : row + 1])
        seen = Normal(ou.alpha(tau) * points, float(ou.sigma(tau))).log_prob(numbers).sum(1).exp()
        log_q = process.categorical.log_likelihood(codes, tau)[0]
        weight = joint * seen[:, None] * torch.stack([log_q[i, CODES[:, i].long()].exp() for i in range(2)]).prod(0)
        weight = weight / weight.sum()
        mean = (weight.sum(1, keepdim=True) * points).sum(0)
        torch.testing.assert_close(prediction.continuous.x0[row], mean, rtol=0, atol=1e-6)
        for i in range(2):
            probs = torch.stack([weight.sum(0)[CODES[:, i] == c].sum() for c in range(3)])
            torch.testing.assert_close(prediction.categorical.probs[row, i], probs, rtol=0, atol=1e-8)
    best = prediction.categorical.probs.argmax(-1).to(D)
    torch.testing.assert_close(prediction.x0, torch.cat([prediction.continuous.x0, best], 1))


@pytest.mark.parametrize("kernel", CASES)
def test_the_log_density_at_a_time_is_that_of_the_noised_samples(kernel):
    process = CASES[kernel]
    model, tau = mixture(process), 0.3
    x = model.sample(20000, tau, generator=torch.Generator().manual_seed(2))
    numbers, codes = process.split(x)
    count = 3 + (kernel == "absorbing")
    for a in range(count):
        for b in (0.0, 1.0):
            here = (codes == torch.tensor([float(a), b], dtype=D)).all(1)
            grid = torch.linspace(-5.0, 5.0, 201, dtype=D)
            points = torch.cartesian_prod(grid, grid)
            states = torch.cat([points, torch.tensor([[float(a), b]], dtype=D).expand(len(points), 2)], 1)
            mass = model.log_prob(states, tau).exp() * 0.05**2
            error = (here.double().mean() - mass.sum()) / (mass.sum() * (1 - mass.sum()) / len(x)).sqrt()
            assert abs(float(error)) < 4
            mean = (mass[:, None] * points).sum(0) / mass.sum()
            assert (numbers[here].mean(0) - mean).abs().max() < 5 / here.sum().sqrt()


@pytest.mark.parametrize("kernel", CASES)
def test_both_parts_are_noised_as_by_their_own_process_with_the_same_numbers(kernel):
    process = CASES[kernel]
    x0 = mixture(process).sample(64, generator=torch.Generator().manual_seed(3))
    noise = process.draw_noise(x0, Noise(torch.Generator().manual_seed(4)))
    tau = torch.linspace(0.01, 3.0, 64, dtype=D)
    (numbers, codes), (eps, uniform) = process.split(x0), process.split(noise)
    parts = process.continuous.perturb(numbers, tau, eps), process.categorical.perturb(codes, tau, uniform)
    assert torch.equal(process.perturb(x0, tau, noise), torch.cat(parts, 1))
    assert 0 <= uniform.min() < 0.1
    assert uniform.max() < 1
    assert eps.min() < -1


@pytest.mark.parametrize("kernel", CASES)
def test_the_prior_is_that_of_both_parts(kernel):
    process = CASES[kernel]
    z = process.prior(torch.empty(500, 4, dtype=D), Noise(torch.Generator().manual_seed(0)))
    numbers, codes = process.split(z)
    probability = -torch.log(torch.tensor(6.0, dtype=D)) if kernel == "uniform" else 0.0
    expected = Normal(0.0, 1.0).log_prob(numbers).sum(1) + probability
    torch.testing.assert_close(process.prior_log_prob(z), expected)
    assert codes.unique().tolist() == ([0, 1, 2] if kernel == "uniform" else [3])


def test_the_parts_share_the_clock_of_the_numbers():
    clock = VPSDE(Cosine(), tau_min=1e-4)
    process = Mixed(clock, Categorical((3, 2)))
    assert process.categorical == Categorical((3, 2), schedule=Cosine(), tau_min=1e-4)
    assert (process.schedule, process.tau_min, process.tau_max) == (Cosine(), 1e-4, clock.tau_max)
    other = process.with_schedule(LinearVP())
    assert other == Mixed(VPSDE(LinearVP(), tau_min=1e-4), Categorical((3, 2)))


@pytest.mark.parametrize(
    ("continuous", "categorical", "message"),
    [
        (VE(), Categorical((3,)), "without a scale"),
        (VPSDE(), Categorical(3), "classes of each entry"),
        (VPSDE(), Binomial(), "classes of each entry"),
        (VPSDE(), Categorical((3,), schedule=Cosine()), "one clock, got schedule=Cosine"),
        (VPSDE(tau_min=1e-3), Categorical((3,), tau_min=1e-2), "one clock, got tau_min=0.01"),
    ],
    ids=["scale", "one count", "binomial", "clock", "tau_min"],
)
def test_parts_that_do_not_fit_are_refused(continuous, categorical, message):
    with pytest.raises(ValueError, match=message):
        Mixed(continuous, categorical)


def test_an_estimate_of_one_kind_is_refused_with_the_part_that_has_it():
    model = mixture(CASES["uniform"])
    prediction = model(model.sample(2), 0.5)
    for member in ("eps", "score", "v"):
        with pytest.raises(TypeError, match=rf"prediction\.continuous\.{member}"):
            getattr(prediction, member)
    for member in ("logits", "probs", "rates"):
        with pytest.raises(TypeError, match=rf"prediction\.categorical\.{member}"):
            getattr(prediction, member)


def test_a_state_whose_codes_are_none_is_refused():
    model = mixture(CASES["uniform"])
    with pytest.raises(ValueError, match="codes of classes"):
        model(torch.tensor([[0.0, 0.0, 3.0, 0.0]], dtype=D), 0.5)
    with pytest.raises(ValueError, match="numbers, then 2 codes"):
        CASES["uniform"].split(torch.zeros(3, 1))


def test_logits_of_a_network_are_read_column_by_column():
    process = Mixed(VPSDE(), Categorical((3, 2)))
    out = torch.arange(7.0).repeat(2, 1)
    x = torch.tensor([[0.3, -1.0, 2.0, 0.0], [0.1, 0.4, 1.0, 1.0]])
    prediction = MixedOutput().prediction(process, x, 0.5, out)
    assert torch.equal(prediction.continuous.out, out[:, :2])
    evidence = prediction.categorical.evidence
    assert torch.equal(evidence[:, 0], out[:, 2:5])
    assert torch.equal(evidence[:, 1, :2], out[:, 5:7])
    assert (prediction.categorical.probs[:, 1, 2] == 0).all()
    assert torch.equal(prediction.out[:, :2], out[:, :2])


@pytest.mark.parametrize("mask", [False, True], ids=["uniform", "absorbing"])
def test_the_network_shows_numbers_as_they_are_and_codes_as_indicators_of_unit_variance(mask):
    seen = {}

    class Inner(torch.nn.Module):
        observed = True

        def forward(self, x, log_snr, *, observed=None):
            seen.update(x=x, observed=observed)
            return x

    net = MixedNet(Inner(), 1, (3, 2), mask)
    codes = torch.cartesian_prod(torch.arange(3.0), torch.arange(2.0))
    x = torch.cat([torch.full((6, 1), 0.7), codes], 1)
    out = net(x, torch.zeros(6))
    assert out.shape == (6, 6)
    assert torch.equal(out[:, 0], x[:, 0])
    assert torch.equal(out[:, 1:4].argmax(1).float(), codes[:, 0])
    assert torch.equal(out[:, 4:].argmax(1).float(), codes[:, 1])
    if not mask:
        torch.testing.assert_close(seen["x"][:, 1:].var(0, unbiased=False), torch.ones(5))
        torch.testing.assert_close(seen["x"][:, 1:].mean(0), torch.zeros(5), rtol=0, atol=1e-6)
    else:
        masked = net(torch.tensor([[0.7, 3.0, 3.0]]), torch.zeros(1))
        assert (masked[:, 1:] < 0).all()
        assert (seen["x"][0, [4, 7]] > 0).all()
    net(x, torch.zeros(6), observed=torch.tensor([[True, False, True]]).expand(6, 3))
    width = 3 + mask
    assert (seen["x"][:, 1 : 1 + width] == 0).all()
    assert (seen["observed"] == torch.tensor([1] + [0] * width + [1] * (2 + mask)).bool()).all()


def test_a_network_of_another_shape_is_refused_with_the_call_that_builds_it():
    with pytest.raises(ValueError, match=r"event shape \(7,\).*MixedNet\.inner_shape"):
        MixedNet(MLP((6,), width=8), 2, (3, 2))
    model = ScoreModel(MixedNet(MLP((7,), width=8), 2, (3, 2)), Mixed(VPSDE(LinearAlphaBar()), Categorical((3, 2))))
    assert model(torch.zeros(2, 4), 0.5).continuous.x0.shape == (2, 2)
