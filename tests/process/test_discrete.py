"""Processes of categories against matrix exponentials, Bayes' rule on full tables, and the spins of the source."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from scoresde._core.noise import Noise
from scoresde.analytic import CategoricalMixture
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.codes import draw_codes
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction, Logits
from scoresde.process.schedule import LinearAlphaBar, LinearVP
from scoresde.process.sde import VPSDE
from scoresde.storage import spec

D = torch.float64
PROCESSES = [
    Binomial(),
    Categorical(3),
    Categorical(4, "absorbing"),
    Categorical((2, 4, 3)),
    Categorical((2, 4, 3), "absorbing"),
    Categorical(3, schedule=LinearVP()),
]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
COUNTS = (2, 4, 3)


def counts(process: DiscreteProcess) -> list[int]:
    """Classes of each of three entries."""
    return [process.classes] * 3 if isinstance(process.classes, int) else list(process.classes)


def rate_matrix(process: DiscreteProcess, classes: int) -> Tensor:
    """Generator of one entry over all S states: redraws from the noise at rate 2 per unit of τ."""
    size, q = process.states, torch.zeros(process.states, process.states, dtype=D)
    for i in range(size):
        if process.kernel == "absorbing":
            q[i, size - 1] += 2.0
        else:
            q[i, :classes] += 2.0 / classes
        q[i, i] -= 2.0
    return q


def states_of(process: DiscreteProcess, classes: int) -> list[int]:
    """The states that an entry of that many classes has."""
    return [*range(classes), *([process.states - 1] if process.kernel == "absorbing" else [])]


def row(values: list[int]) -> Tensor:
    return torch.tensor([values], dtype=D)


@every_process
@pytest.mark.parametrize(("tau", "s"), [(1e-7, 0.0), (0.3, 0.0), (0.9, 0.4), (2.5, 2.4999)])
def test_the_kernel_is_the_matrix_exponential_of_the_rates(process, tau, s):
    for i, classes in enumerate(counts(process)):
        exact = torch.matrix_exp(rate_matrix(process, classes) * (tau - s))
        for state in states_of(process, classes):
            x = torch.zeros(1, 3, dtype=D)
            x[0, i] = state
            kernel = process.transition(x, tau, s)[0, i]
            assert torch.allclose(kernel, exact[state], rtol=1e-10, atol=1e-12)
            leave = rate_matrix(process, classes)[state].clone()
            leave[state] = 0.0
            assert torch.allclose(process.forward_rates(x)[0, i], leave, rtol=1e-14)


@every_process
@pytest.mark.parametrize(("tau", "s"), [(0.3, 0.0), (0.9, 0.4), (2.5, 1e-6), (math.inf, 0.7)])
def test_the_posterior_is_bayes_rule_on_the_full_table(process, tau, s):
    tau = min(tau, process.tau_max)
    for i, classes in enumerate(counts(process)):
        step = torch.matrix_exp(rate_matrix(process, classes) * min(tau - s, 40.0))
        first = torch.matrix_exp(rate_matrix(process, classes) * s)
        for x0 in range(classes):
            for state in states_of(process, classes):
                joint = first[x0] * step[:, state]
                if joint.sum() < 1e-30:
                    continue  # this state is impossible given x0
                codes, data = torch.zeros(1, 3, dtype=D), torch.zeros(1, 3, dtype=D)
                codes[0, i], data[0, i] = state, x0
                posterior = process.posterior(codes, data, tau, s)[0, i]
                assert torch.allclose(posterior, joint / joint.sum(), rtol=1e-10, atol=1e-13)


@every_process
def test_the_conditional_reverse_rates_are_the_slope_of_the_posterior(process):
    tau, h = 0.7, 1e-6
    for i, classes in enumerate(counts(process)):
        for x0 in range(classes):
            for state in states_of(process, classes):
                if process.kernel == "absorbing" and state not in (x0, process.states - 1):
                    continue
                codes, data = torch.zeros(1, 3, dtype=D), torch.zeros(1, 3, dtype=D)
                codes[0, i], data[0, i] = state, x0
                slope = process.posterior(codes, data, tau, tau - h)[0, i] / h
                slope[state] = 0.0
                rates = process.conditional_rates(codes, data, tau)[0, i]
                assert torch.allclose(rates, slope, rtol=1e-5, atol=1e-8)


def test_the_posterior_of_spins_is_that_of_the_source():
    # P(+ | s_0, s_τ) = ½ (1 + (ᾱ_s s_0 + b s_τ)/(1 + ᾱ_s b s_0 s_τ)), b = ᾱ_τ/ᾱ_s
    process = Binomial()
    for tau, s in ((0.2, 0.1), (1.5, 0.01), (3.0, 2.9), (0.4, 0.0)):
        for s_0 in (-1, 1):
            for s_tau in (-1, 1):
                kept, b = math.exp(-2 * s), math.exp(-2 * (tau - s))
                plus = 0.5 * (1 + (kept * s_0 + b * s_tau) / (1 + kept * b * s_0 * s_tau))
                posterior = process.posterior(row([(s_tau + 1) // 2]), row([(s_0 + 1) // 2]), tau, s)
                assert posterior[0, 0, 1].item() == pytest.approx(plus, abs=1e-12)
                rate = (1 - math.exp(-2 * tau) * s_0 * s_tau) / (1 + math.exp(-2 * tau) * s_0 * s_tau)
                rates = process.conditional_rates(row([(s_tau + 1) // 2]), row([(s_0 + 1) // 2]), tau)
                assert rates.sum().item() == pytest.approx(rate, rel=1e-12)


def test_a_chain_step_of_bits_is_sohl_dicksteins_bernoulli():
    process = Binomial(LinearAlphaBar())
    betas, knots = process.schedule.to_betas(25), process.schedule.knots(25)
    assert betas == pytest.approx([1 / (25 - k + 1) for k in range(1, 26)], rel=1e-12)
    for k in (1, 7, 25):
        for bit in (0, 1):
            one = process.transition(row([bit]), knots[k], knots[k - 1])[0, 0, 1].item()
            assert one == pytest.approx(bit * (1 - betas[k - 1]) + betas[k - 1] / 2, abs=1e-12)


def test_binomial_and_two_classes_are_one_process():
    x, x0 = torch.tensor([[0.0, 1, 1, 0]], dtype=D), torch.tensor([[0.0, 1, 0, 1]], dtype=D)
    for name in ("transition", "conditional_rates"):
        arguments = (x, 0.4) if name == "transition" else (x, x0, 0.4)
        assert torch.equal(getattr(Binomial(), name)(*arguments), getattr(Categorical(2), name)(*arguments))
    assert torch.equal(Binomial().posterior(x, x0, 0.4, 0.1), Categorical(2).posterior(x, x0, 0.4, 0.1))


@every_process
def test_noised_states_have_the_probabilities_of_the_kernel(process):
    n, tau = 40_000, 0.35
    for x0 in ([0, 1, 2], [1, 0, 0]):
        x0 = [min(c, k - 1) for c, k in zip(x0, counts(process))]
        data = row(x0).expand(n, 3)
        x = process.perturb(data, tau, process.draw_noise(data, Noise(torch.Generator().manual_seed(1))))
        exact = process.transition(row(x0), tau)[0]
        for i in range(3):
            share = torch.bincount(x[:, i].long(), minlength=process.states) / n
            error = (exact[i] * (1 - exact[i]) / n).sqrt()
            assert ((share - exact[i]).abs() <= 4.5 * error + 1e-12).all()


@every_process
def test_the_prior_is_the_noise_distribution(process):
    n = 30_000
    z = process.prior(torch.empty(n, 3, dtype=D), Noise(torch.Generator().manual_seed(2)))
    for i, classes in enumerate(counts(process)):
        share = torch.bincount(z[:, i].long(), minlength=process.states) / n
        noise = torch.zeros(process.states, dtype=D)
        if process.kernel == "absorbing":
            noise[-1] = 1.0
        else:
            noise[:classes] = 1.0 / classes
        assert ((share - noise).abs() <= 4.5 * (noise * (1 - noise) / n).sqrt()).all()
    expected = 0.0 if process.kernel == "absorbing" else -sum(math.log(c) for c in counts(process))
    assert process.prior_log_prob(z[:3]).tolist() == pytest.approx([expected] * 3, abs=1e-12)


@pytest.mark.parametrize("process", PROCESSES[:5], ids=repr)
def test_the_reverse_step_averages_the_posterior_over_the_probabilities_of_x0(process):
    generator = torch.Generator().manual_seed(3)
    out = torch.randn(1, 3, process.most_classes, generator=generator, dtype=D)
    tau, s = 0.8, 0.3
    for state in ([0, 1, 2], [1, 3, 0], [process.states - 1] * 3):
        codes = [c if c in states_of(process, k) else 0 for c, k in zip(state, counts(process))]
        x = row(codes)
        for residual in (True, False):
            prediction = Logits(residual).prediction(process, x, tau, out)
            average, rates = torch.zeros(3, process.states, dtype=D), torch.zeros(3, process.states, dtype=D)
            for i, classes in enumerate(counts(process)):
                for c in range(classes):
                    p = prediction.probs[0, i, c]
                    if p > 0:
                        data = torch.zeros_like(x)
                        data[0, i] = c
                        average[i] += p * process.posterior(x, data, tau, s)[0, i]
                        rates[i] += p * process.conditional_rates(x, data, tau)[0, i]
            assert torch.allclose(prediction.step_probs(s)[0], average, rtol=1e-10, atol=1e-13)
            assert torch.allclose(prediction.rates[0], rates, rtol=1e-10, atol=1e-13)
            assert torch.allclose(prediction.step_probs(s).sum(-1), torch.ones(1, 3, dtype=D), rtol=1e-12)
            assert torch.allclose(prediction.logits.exp(), prediction.probs, rtol=1e-12, atol=1e-14)
            assert torch.equal(prediction.x0, prediction.probs.argmax(-1).to(D))


def test_an_output_of_zero_is_bayes_rule_for_uniform_data():
    process, tau = Categorical(3), 0.6
    x = row([0, 1, 2])
    prediction = Logits().prediction(process, x, tau, torch.zeros(1, 3, 3, dtype=D))
    likelihood = torch.stack([process.transition(torch.full((1, 3), c, dtype=D), tau) for c in range(3)], -1)
    likelihood = torch.stack([likelihood[0, i, int(x[0, i])] for i in range(3)])
    assert torch.allclose(prediction.probs[0], likelihood / likelihood.sum(-1, keepdim=True), rtol=1e-12)
    alone = Logits(residual=False).prediction(process, x, tau, torch.zeros(1, 3, 3, dtype=D))
    assert torch.allclose(alone.probs, torch.full((1, 3, 3), 1 / 3, dtype=D), rtol=1e-12)


def test_unmasked_entries_of_the_absorbing_kernel_are_known():
    process = Categorical(3, "absorbing")
    for residual in (True, False):
        out = torch.randn(1, 3, 3, generator=torch.Generator().manual_seed(0))
        prediction = Logits(residual).prediction(process, torch.tensor([[2.0, 3.0, 0.0]]), 0.5, out)
        assert prediction.probs[0, 0].tolist() == [0, 0, 1]
        assert prediction.probs[0, 2].tolist() == [1, 0, 0]
        assert torch.allclose(prediction.probs[0, 1], torch.softmax(out[0, 1], -1))
        assert prediction.rates[0, [0, 2]].abs().max() == 0


def test_a_discrete_prediction_has_no_noise_estimate_and_a_gaussian_one_no_logits():
    prediction = Logits().prediction(Categorical(3), torch.zeros(1, 2), 0.5, torch.zeros(1, 2, 3))
    for member in ("eps", "v", "score"):
        with pytest.raises(TypeError, match=rf"{member} is an estimate of a Gaussian process.*probs, logits and rates"):
            getattr(prediction, member)
    model = ScoreModel(_Halves(), VPSDE(), event_shape=(2,))
    for member in ("logits", "probs", "rates"):
        with pytest.raises(TypeError, match=rf"{member} is an estimate of a discrete process.*Categorical\(\)"):
            getattr(model(torch.zeros(1, 2), 0.5), member)


class _Halves(nn.Module):
    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return 0.5 * x


class _Codes(nn.Module):
    """Returns whether each code arrived exactly, in bf16 weights."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.weight, self.classes = nn.Parameter(torch.ones(1, dtype=torch.bfloat16)), classes

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return nn.functional.one_hot(x.long(), self.classes).to(x.dtype) * self.weight


def test_large_codes_reach_a_network_of_narrow_weights_exactly():
    process = Categorical(1000)
    model = ScoreModel(_Codes(1000), process, event_shape=(3,))
    x = torch.tensor([[257.0, 513.0, 999.0]])
    assert model(x, 5.0).out.argmax(-1).tolist() == [[257, 513, 999]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Categorical(1), "classes must be"),
        (lambda: Categorical((2, 1)), "classes must be"),
        (lambda: Categorical(()), "must name one entry at least"),
        (lambda: Categorical(3, "masked"), "absorbing"),
        (lambda: Categorical(3, tau_min=0.0), "tau_min must be positive"),
        (lambda: Binomial(tau_min=-1.0), "tau_min must be positive"),
    ],
    ids=["one class", "one class of several", "no entry", "kernel", "tau_min 0", "negative tau_min"],
)
def test_a_wrong_process_is_refused(make, match):
    with pytest.raises((ValueError, TypeError), match=match):
        make()


def test_states_that_are_no_codes_are_refused():
    mixture = CategoricalMixture(torch.ones(1), torch.full((1, 2, 3), 1 / 3))
    for bad in (0.5, -1.0, 3.0, math.nan):
        with pytest.raises(ValueError, match=r"x must hold codes of classes, whole numbers 0 … 2, got .* at \(0, 1\)"):
            mixture(torch.tensor([[0.0, bad]]), 0.3)
    with pytest.raises(ValueError, match=r"0 … C - 1 with C = \(2, 4, 3\)"):
        Categorical(COUNTS).checked_state(torch.tensor([[2.0, 0.0, 0.0]]))
    assert Categorical(COUNTS, "absorbing").checked_state(torch.tensor([[4.0, 3.0, 4.0]])).shape == (1, 3)
    assert Categorical(3).checked_state(torch.tensor([[1, 2]])).dtype == torch.get_default_dtype()


@every_process
def test_steps_backward_in_the_wrong_order_are_refused(process):
    x = torch.zeros(1, 3, dtype=D)
    with pytest.raises(ValueError, match="s must be below tau"):
        process.transition(x, 0.3, 0.3)
    with pytest.raises(ValueError, match="s must be below tau"):
        process.posterior(x, x, 0.3, 0.4)
    with pytest.raises(ValueError, match="x0 must have the shape of x"):
        process.posterior(x, x[0], 0.3, 0.2)
    with pytest.raises(ValueError, match="noise must have the shape of x0"):
        process.perturb(x, 0.3, x[0])


@every_process
def test_one_time_per_sample_and_one_for_all_agree_at_any_event_shape(process):
    generator = torch.Generator().manual_seed(5)
    x0 = torch.zeros(4, 2, 3, dtype=D)
    noise = torch.rand(4, 2, 3, generator=generator, dtype=D)
    taus = torch.tensor([1e-6, 0.1, 0.9, 4.0], dtype=D)
    together = process.perturb(x0, taus, noise)
    for i, tau in enumerate(taus.tolist()):
        assert torch.equal(process.perturb(x0[i : i + 1], tau, noise[i : i + 1])[0], together[i])
        one = process.transition(x0[i : i + 1], tau)
        assert torch.allclose(process.transition(x0, taus)[i], one[0], rtol=1e-14)
    assert process.perturb(x0[:0], taus[:0], noise[:0]).shape == (0, 2, 3)
    assert torch.equal(process.perturb(x0, 0.0, noise), x0)


@every_process
def test_a_process_is_rebuilt_from_its_text(process):
    import scoresde.process

    known = spec.known_classes(scoresde.process)
    assert spec.parse(spec.to_text(process), known, kind=DiscreteProcess) == process
    moved = replace(process, tau_min=1e-3)
    assert spec.parse(spec.to_text(moved), known, kind=DiscreteProcess) == moved


def test_a_state_of_probability_zero_is_never_drawn():
    probs = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=D).expand(4, 5)
    uniform = torch.tensor([0.0, 0.4999999, 0.5, 1 - 2**-53], dtype=D)
    assert draw_codes(probs, uniform).tolist() == [1, 1, 3, 3]


def test_the_prediction_is_computed_once_per_estimate():
    prediction = Logits().prediction(Categorical(3), torch.zeros(1, 2), 0.5, torch.zeros(1, 2, 3))
    assert isinstance(prediction, DiscretePrediction)
    assert prediction.probs is prediction.probs
    assert float(ou.alpha_bar(0.5)) == pytest.approx(math.exp(-1.0))
