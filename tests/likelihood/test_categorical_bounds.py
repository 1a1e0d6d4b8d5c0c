"""Bounds of models of categories against -log p by enumeration and quadrature; their estimators; refusals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from discrete_models import HEARTBEAT, MODELS, D, enumerated_chain, expectation, integral_over_the_clock
from torch import Tensor, nn

from scoresde.analytic import CategoricalMixture, DiscreteTable
from scoresde.likelihood import Bound, ErrorProfile, KernelDecoder, UniformDequantization
from scoresde.likelihood.bounds.categorical import CategoricalPaths
from scoresde.likelihood.bounds.categorical_chain import CategoricalChain, prior_kl
from scoresde.likelihood.bounds.continuous import continuous_vlb
from scoresde.likelihood.bounds.discrete import discrete_vlb
from scoresde.likelihood.bounds.importance_weighted import importance_weighted_vlb
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.objective.discrete import chain_kl, cross_entropy, path_kl
from scoresde.objective.timesteps import DiscreteTimesteps, UniformTimesteps
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.schedule import Cosine, LinearAlphaBar, LinearVP
from scoresde.sampling import UniformU
from scoresde.sampling.grid import Chain

every_model = pytest.mark.parametrize("name", MODELS)


def point(model: CategoricalMixture) -> Tensor:
    return model.sample(1, generator=torch.Generator().manual_seed(4))


# --- identities -------------------------------------------------------------------------------------------------------


@every_model
def test_the_exact_models_bound_in_continuous_time_is_minus_log_p(name):
    model = MODELS[name]
    for seed in (0, 3) if math.isinf(model.sde.tau_max) else (0,):
        x0 = model.sample(1, generator=torch.Generator().manual_seed(seed))
        bound = prior_kl(model.sde, x0)[0] + integral_over_the_clock(model, x0, path_kl)
        if math.isfinite(model.sde.tau_max):  # the prior is the noise, not the model's last state
            end = _kl_of_the_end(model)
            average = sum(
                model.log_prob(x).exp().item()
                * (prior_kl(model.sde, x)[0] + integral_over_the_clock(model, x, path_kl))
                for x in _states(model)
            )
            entropy = -sum(model.log_prob(x).exp().item() * model.log_prob(x).item() for x in _states(model))
            assert float(average) == pytest.approx(entropy + end, abs=1e-10)
        else:
            assert bound.item() == pytest.approx(-model.log_prob(x0).item(), abs=1e-10)


def _states(model: CategoricalMixture) -> list[Tensor]:
    """All states of positive probability, each ``(1, d)``."""
    size = model.class_probs.shape[1]
    each = [torch.tensor([c], dtype=D) for c in itertools.product(range(model.sde.most_classes), repeat=size)]
    return [x for x in each if model.log_prob(x).item() > -math.inf]


def _kl_of_the_end(model: CategoricalMixture) -> float:
    """KL of the model's distribution at the end of the clock and the noise, by enumeration."""
    size, total = model.class_probs.shape[1], 0.0
    for codes in itertools.product(range(model.sde.states), repeat=size):
        x = torch.tensor([codes], dtype=D)
        log_p = model.log_prob(x, model.sde.tau_max).item()
        total += math.exp(log_p) * (log_p - model.sde.prior_log_prob(x).item())
    return total


def test_the_bound_of_entries_with_different_numbers_of_classes_is_minus_log_p():
    for kernel in ("uniform", "absorbing"):
        process = Categorical((2, 3), kernel)
        probs = torch.tensor([[[0.3, 0.7, 0.0], [0.1, 0.5, 0.4]], [[0.8, 0.2, 0.0], [0.6, 0.3, 0.1]]], dtype=D)
        model = _TupleMixture(process, torch.tensor([0.4, 0.6], dtype=D), probs)
        for codes in ([0, 2], [1, 0]):
            x0 = torch.tensor([codes], dtype=D)
            exact = -(model.weights * probs[:, 0, codes[0]] * probs[:, 1, codes[1]]).sum().log()
            bound = integral_over_the_clock(model, x0, path_kl)  # pyright: ignore[reportArgumentType]
            assert bound.item() == pytest.approx(exact.item(), abs=1e-10)


class _TupleMixture(nn.Module):
    """Exact predictions of a mixture by Bayes' rule over all data, for entries with different numbers of classes."""

    def __init__(self, process: Categorical, weights: Tensor, probs: Tensor) -> None:
        super().__init__()
        self.sde, self.weights, self.probs = process, weights, probs

    def forward(self, x: Tensor, tau: float) -> DiscretePrediction:
        codes = torch.tensor(list(itertools.product(range(2), range(3))), dtype=D)
        prior = (
            self.weights[:, None] * self.probs[:, 0, codes[:, 0].long()] * self.probs[:, 1, codes[:, 1].long()]
        ).sum(0)
        kernel = self.sde.transition(codes, tau)  # (6, 2, S)
        likelihood = kernel[:, 0, x[:, 0].long()] * kernel[:, 1, x[:, 1].long()]  # (6, B)
        joint = prior[:, None] * likelihood
        marginal = torch.zeros(len(x), 2, 3, dtype=D)
        for i in range(2):
            for j, code in enumerate(codes[:, i].long().tolist()):
                marginal[:, i, code] += joint[j]
        evidence = marginal.log() - self.sde.log_likelihood(x, tau)
        return DiscretePrediction(x, tau, evidence, self.sde, evidence)


def test_the_chain_of_one_entry_is_exact_at_any_length():
    model = MODELS["one entry"]
    for schedule in (LinearAlphaBar(), Cosine(clip=1.0)):
        process = Categorical(3, "absorbing", schedule)
        moved = CategoricalMixture(torch.ones(1, dtype=D), model.class_probs.reshape(1, 1, 3), process)
        for code in range(3):
            x0 = torch.tensor([[float(code)]], dtype=D)
            for steps in (1, 2, 7):
                chain = enumerated_chain(moved, x0, moved.sde.schedule.knots(steps))
                assert chain.item() == pytest.approx(-moved.log_prob(x0).item(), abs=1e-12)


@every_model
def test_the_chains_bound_tends_to_that_in_continuous_time_at_first_order(name):
    model = MODELS[name]
    x0 = point(model)
    limit = integral_over_the_clock(model, x0, path_kl).item()
    excess = [enumerated_chain(model, x0, model.sde.schedule.knots(steps)).item() - limit for steps in (64, 128, 256)]
    if name == "one entry":
        assert all(abs(value) < 1e-10 for value in excess)
    elif math.isinf(model.sde.tau_max):
        assert excess[0] > excess[1] > excess[2] > 0
        assert excess[0] / excess[1] == pytest.approx(2.0, rel=0.1)
        assert excess[1] / excess[2] == pytest.approx(2.0, rel=0.06)


@every_model
def test_a_term_of_the_chain_tends_to_the_path_kl_at_fixed_u_at_first_order(name):
    model = MODELS[name]
    x0, u = point(model), 0.4
    tau, rate = float(model.sde.schedule.tau(u)), float(model.sde.schedule.rate(u))
    limit = rate * expectation(model, x0, tau, path_kl).item()
    errors = []
    for steps in (100, 200, 400):
        s = float(model.sde.schedule.tau(u - 1 / steps))
        errors.append(steps * expectation(model, x0, tau, lambda p, x, s=s: chain_kl(p, x, s)).item() - limit)
    if name == "one entry":
        return  # its first-order term may vanish; the test above is exact
    if model.sde.kernel == "absorbing":  # equal at every K on this clock: both are cross-entropies
        assert errors == pytest.approx([0.0] * 3, abs=1e-9)
        return
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.03)


# --- Sohl-Dickstein's heartbeat ---------------------------------------------------------------------------------------


def _count_classes() -> tuple[Tensor, Tensor, Tensor]:
    """States of 20 bits, one per number of ones in each phase up to order; ones by phase; how many states each is."""
    states, ones, multiplicity = [], [], []
    for own in range(5):
        for others in itertools.combinations_with_replacement(range(5), 4):
            x = torch.zeros(4, 5, dtype=D)
            for phase, count in enumerate((own, *others)):
                x[:count, phase] = 1.0
            orders = math.factorial(4) // math.prod(math.factorial(others.count(c)) for c in set(others))
            states.append(x.flatten())
            ones.append([own, sum(others)])
            multiplicity.append(orders * math.prod(math.comb(4, c) for c in (own, *others)))
    return torch.stack(states), torch.tensor(ones, dtype=D), torch.tensor(multiplicity, dtype=D)


def heartbeat_bits(schedule: Cosine | LinearAlphaBar, steps: int) -> float:
    """The exact model's chain on the heartbeat, bits per sequence, by enumeration of all 2^20 states up to symmetry."""
    model = DiscreteTable(HEARTBEAT, process=Binomial(schedule))
    states, ones, multiplicity = _count_classes()
    assert multiplicity.sum().item() == 2**20
    x0, knots, total = HEARTBEAT[:1].expand_as(states), schedule.knots(steps), 0.0
    for s, tau in zip(knots, knots[1:], strict=False):
        flip = 0.5 * -math.expm1(-2 * tau)
        flips = (4 - ones[:, 0]) + ones[:, 1]
        weight = multiplicity * flip**flips * (1 - flip) ** (20 - flips)
        prediction = model(states, tau)
        assert isinstance(prediction, DiscretePrediction)
        total += (weight @ chain_kl(prediction, x0, s).sum(-1)).item()
    return (total + prior_kl(model.sde, HEARTBEAT[:1]).item()) / math.log(2)


@pytest.mark.parametrize(("steps", "linear", "cosine"), [(25, 2.5266, 2.6205), (100, 2.3715, 2.3937)])
def test_the_exact_chain_on_the_heartbeat(steps, linear, cosine):
    # the figures of the exact model; log2 5 = 2.3219; 2000 steps give 2.3244 and 2.3255
    assert heartbeat_bits(LinearAlphaBar(), steps) == pytest.approx(linear, abs=1e-4)
    assert heartbeat_bits(Cosine(), steps) == pytest.approx(cosine, abs=1e-4)


# --- estimators -------------------------------------------------------------------------------------------------------


def agrees(bound: Bound, exact: float) -> bool:
    """Whether the mean over the samples lies within 4 standard errors of the draws, nats."""
    error = bound.stderr.square().sum().sqrt().item() / len(bound.nats)
    return abs(bound.nats.mean().item() - exact) < 4 * error


@every_model
def test_the_estimate_in_continuous_time_agrees_with_minus_log_p(name):
    model = MODELS[name]
    x0 = point(model)
    exact = prior_kl(model.sde, x0)[0].item() + integral_over_the_clock(model, x0, path_kl).item()
    for options in ({}, {"timesteps": UniformTimesteps(), "evaluations": 128}):
        bound = continuous_vlb(model, x0.expand(300, -1), seeds=range(300), **options)
        assert agrees(bound, exact)
        assert bound.nfe == options.get("evaluations", 64) + 4
        assert bound.terms.keys() == {"prior", "diffusion", "reconstruction"}


@pytest.mark.parametrize("timesteps", [None, UniformTimesteps()], ids=["default", "uniform"])
@pytest.mark.parametrize("name", ["uniform", "uniform, finite clock", "absorbing"])
def test_the_weights_of_the_timesteps_are_one_over_their_density(name, timesteps):
    # ∫ f(τ) dτ over the clock, by the midpoint rule in the numbers from which times are made
    model = MODELS[name]
    paths, n, (first, last) = CategoricalPaths(model, model.sde, timesteps, 1, 1), 200_000, (1e-5, model.sde.tau_max)
    tau, weight = paths._times((torch.arange(n, dtype=D) + 0.5) / n)
    assert ((tau > first * (1 - 1e-9)) & (tau < last * (1 + 1e-9))).all()
    for power in (1.0, 2.0):
        exact = (math.exp(-2 * power * first) - math.exp(-2 * power * last)) / (2 * power)
        assert (weight * (-2 * power * tau).exp()).mean().item() == pytest.approx(exact, rel=1e-5)


def test_the_bound_in_continuous_time_decodes_at_tau_min():
    model = DiscreteTable(torch.tensor([[0, 1], [1, 0]]), process=Binomial(tau_min=0.2))
    x0 = point(model)
    decoded = expectation(model, x0, 0.2, cross_entropy).item()
    kept, n = math.exp(-0.4), 200  # midpoint rule in ᾱ, dτ = dᾱ/(2ᾱ)
    each = [kept * (i + 0.5) / n for i in range(n)]
    path = sum(expectation(model, x0, -0.5 * math.log(a), path_kl).item() / (2 * a) for a in each) * kept / n
    bound = continuous_vlb(model, x0.expand(800, -1), seeds=range(800))
    assert decoded > 0.1
    assert agrees(replace(bound, nats=bound.terms["reconstruction"]), decoded)
    assert agrees(replace(bound, nats=bound.terms["diffusion"]), path)
    torch.testing.assert_close(bound.nats, sum(bound.terms.values()))


@every_model
def test_the_estimates_along_a_chain_agree_with_its_bound(name):
    model = MODELS[name]
    x0, steps = point(model), 12
    exact = prior_kl(model.sde, x0)[0].item() + enumerated_chain(model, x0, model.sde.schedule.knots(steps)).item()
    cases: tuple[tuple[dict[str, Any], int], ...] = (({}, 13), ({"draws": 3}, 39), ({"terms": 32}, 36))
    for options, nfe in cases:
        bound = discrete_vlb(model, x0.expand(400, -1), steps, seeds=range(400), **options)
        assert agrees(bound, exact)
        assert bound.nfe == nfe
        assert bound.per_step is not None
        assert bound.per_step.shape == (steps,)
        assert (bound.per_step.sum() + prior_kl(model.sde, x0)[0]).item() == pytest.approx(bound.nats.mean().item())


def test_a_chain_that_ends_at_tau_min_is_decoded_there():
    model = DiscreteTable(torch.tensor([[0, 1], [1, 0]]), process=Binomial(tau_min=0.2))
    x0, knots = point(model), [0.0, *UniformU().times(model.sde, 5)[::-1]]
    exact = enumerated_chain(model, x0, knots).item()
    bound = discrete_vlb(model, x0.expand(800, -1), 5, grid=UniformU(), seeds=range(800))
    assert agrees(bound, exact)
    assert bound.terms["reconstruction"].mean() > 0.1
    many = importance_weighted_vlb(model, x0.expand(800, -1), 5, grid=UniformU(), seeds=range(800), trajectories=1)
    assert many.nats.mean().item() == pytest.approx(exact, abs=4 * many.nats.std().item() / 800**0.5)


@every_model
def test_importance_weighting_lowers_the_bound_towards_the_chains_minus_log_p(name):
    model = MODELS[name]
    x0, knots = point(model).expand(300, -1), model.sde.schedule.knots(4)
    plain = prior_kl(model.sde, x0[:1])[0].item() + enumerated_chain(model, x0[:1], knots).item()
    bounds = [importance_weighted_vlb(model, x0, 4, trajectories=n, seeds=range(300)) for n in (1, 16)]
    means = [bound.nats.mean().item() for bound in bounds]
    errors = [bound.nats.std().item() / 300**0.5 for bound in bounds]
    assert abs(means[0] - plain) < 4 * errors[0] + 1e-9
    sum_of_terms = torch.stack(list(bounds[1].terms.values())).sum(0).mean().item()
    assert sum_of_terms == pytest.approx(plain, abs=errors[0] + 1e-9)
    if name == "one entry":
        assert means == pytest.approx([-model.log_prob(x0[:1]).item()] * 2, abs=1e-9)
        return
    exact = -_chain_log_prob(model, x0[:1], knots)
    assert means[1] > exact - 4 * errors[1]
    assert means[1] - exact < 0.35 * (plain - exact) + 4 * errors[1]


def _chain_log_prob(model: CategoricalMixture, x0: Tensor, knots: list[float]) -> float:
    """log p(x_0) of the model's chain, by forward enumeration of all states from the prior down."""
    process, size = model.sde, x0.shape[1]
    states = torch.tensor(list(itertools.product(range(process.states), repeat=size)), dtype=D)
    p = process.prior_log_prob(states).exp()
    for s, tau in reversed(list(zip(knots, knots[1:], strict=False))):
        reachable = p > 0
        prediction = model(states[reachable], tau)
        step = prediction.step_probs(s)  # (R, d, S)
        joint = torch.stack([step[:, i, states[:, i].long()] for i in range(size)]).prod(0)
        p = p[reachable] @ joint
    return p[(states == x0).all(1)].log().item()


def test_the_intervals_hold_the_bound_as_often_as_they_say():
    model = MODELS["absorbing"]
    x0 = point(model)
    exact = -model.log_prob(x0).item()
    low, high = continuous_vlb(model, x0.expand(1500, -1), seeds=range(1500)).interval()
    held = ((low <= exact) & (exact <= high)).to(D).mean().item()
    assert 0.92 < held < 0.99


def test_a_bound_does_not_depend_on_its_batch_and_leaves_the_global_random_state():
    model, seeds = MODELS["uniform"], [5, 1, 8, 2]
    data = model.sample(4, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    for bound_of in (continuous_vlb, discrete_vlb, importance_weighted_vlb):
        options: dict[str, Any] = {} if bound_of is continuous_vlb else {"steps": 5}
        whole = bound_of(model, data, seeds=seeds, **options)
        split = bound_of(model, data, seeds=seeds, batch_size=3, **options)
        back = bound_of(model, data.flip(0), seeds=seeds[::-1], **options)
        assert torch.equal(whole.nats, split.nats)
        assert torch.equal(whole.nats, back.nats.flip(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_codes_may_be_whole_numbers_of_any_type_or_arrays():
    model = MODELS["uniform"]
    data = model.sample(3, generator=torch.Generator().manual_seed(0))
    reference = continuous_vlb(model, data, seeds=range(3)).nats
    for codes in (data.long(), data.to(torch.uint8), data.float(), data.numpy(), data.long().tolist()):
        assert torch.equal(continuous_vlb(model, codes, seeds=range(3)).nats, reference)


def test_bits_and_perplexity_are_those_of_the_nats():
    bound = discrete_vlb(MODELS["uniform"], point(MODELS["uniform"]), 8, seeds=[0])
    nats = bound.nats.item()
    assert bound.quantized
    assert bound.bits is not None
    assert bound.bits_per_event is not None
    assert bound.perplexity is not None
    assert bound.bits.item() == pytest.approx(nats / 3 / math.log(2))
    assert bound.bits_per_event.item() == pytest.approx(nats / math.log(2))
    assert bound.perplexity.item() == pytest.approx(math.exp(nats / 3))
    assert bound.mean_perplexity == pytest.approx(math.exp(nats / 3))
    floats = Bound(bound.nats, bound.terms, bound.stderr, bound.dof, 1, 3, quantized=False)
    assert floats.bits_per_event is None
    assert floats.perplexity is None
    assert floats.mean_perplexity is None


def network(kernel: str = "uniform", dropout: float = 0.0) -> ScoreModel:
    torch.manual_seed(0)
    mask = kernel == "absorbing"
    inner = MLP(CategoricalNet.inner_shape((4,), 3, mask), width=8, depth=1, dropout=dropout)
    model = ScoreModel(CategoricalNet(inner, (4,), 3, mask), Categorical(3, kernel))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_a_networks_bounds_are_above_each_other_in_order(kernel):
    model = network(kernel, dropout=0.5).train()
    data = torch.randint(0, 3, (300, 4), generator=torch.Generator().manual_seed(0))
    continuous = continuous_vlb(model, data, seeds=range(300), batch_size=100)
    chain = discrete_vlb(model, data, 10, seeds=range(300))
    weighted = importance_weighted_vlb(model, data, 10, seeds=range(300), trajectories=8)
    assert model.training
    assert weighted.nats.mean() < chain.nats.mean()
    assert continuous.nats.mean() < chain.nats.mean()
    assert continuous.nats.mean() == pytest.approx(4 * math.log(3), rel=0.1)  # hardly trained, on uniform data


def test_an_empty_batch_gives_an_empty_bound():
    model = MODELS["absorbing"]
    for bound in (continuous_vlb(model, torch.zeros(0, 3)), discrete_vlb(model, torch.zeros(0, 3), 4)):
        assert bound.nats.shape == (0,)
    assert importance_weighted_vlb(model, torch.zeros(0, 3), 4).nats.shape == (0,)


def test_a_chain_of_one_step_has_no_terms_to_sample():
    model = MODELS["absorbing"]
    data = point(model).expand(400, -1)
    bound = discrete_vlb(model, data, 1, terms=4, seeds=range(400))
    assert bound.nats.tolist() == pytest.approx(discrete_vlb(model, data, 1, seeds=range(400)).nats.tolist())


# --- refusals ---------------------------------------------------------------------------------------------------------

PROFILE = ErrorProfile((-5.0, 5.0), (0.1, 0.8), (0.2, 0.7), (1.0, 1.0))
DENSITY = {"prior_log_prob": lambda z: z.flatten(1).sum(1)}


@pytest.mark.parametrize(
    ("bound_of", "options", "match"),
    [
        (continuous_vlb, {"decoder": KernelDecoder()}, "takes no decoder, got KernelDecoder.*probabilities of x_0"),
        (continuous_vlb, {"decode_at": 0.1}, "takes no decode_at, got 0.1: .*tau_min"),
        (continuous_vlb, {"dequantization": UniformDequantization()}, "takes no dequantization.*classes, not bins"),
        (continuous_vlb, {"profile": PROFILE}, "takes no profile"),
        (continuous_vlb, DENSITY, "takes no prior_log_prob.*noise distribution"),
        (discrete_vlb, {"rev_var": "beta"}, "takes no rev_var, got 'beta'"),
        (discrete_vlb, {"decoder": KernelDecoder()}, "discrete_vlb of categories takes no decoder"),
        (discrete_vlb, {"profile": PROFILE}, "takes no profile"),
        (discrete_vlb, DENSITY, "takes no prior_log_prob"),
        (importance_weighted_vlb, {"rev_var": "beta"}, "takes no rev_var"),
        (
            importance_weighted_vlb,
            {"decoder": KernelDecoder()},
            "vlb of categories takes no decoder",
        ),
        (importance_weighted_vlb, DENSITY, "takes no prior_log_prob"),
    ],
    ids=lambda value: value.__name__ if callable(value) else next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_of_gaussian_bounds_are_refused(bound_of, options, match):
    with pytest.raises(TypeError, match=match):
        bound_of(MODELS["uniform"], torch.zeros(2, 3), **options)


@pytest.mark.parametrize("bound_of", [continuous_vlb, discrete_vlb, importance_weighted_vlb])
def test_wrong_data_and_endless_signal_are_refused(bound_of):
    model = MODELS["absorbing"]
    with pytest.raises(ValueError, match=r"data must hold codes of classes, whole numbers 0 … 2, got 3 at \(0, 1\)"):
        bound_of(model, torch.tensor([[0.0, 3.0, 1.0]]))  # the mask is no datum
    with pytest.raises(ValueError, match="data must hold codes of classes"):
        bound_of(model, torch.tensor([[0.0, math.nan, 1.0]]))
    with pytest.raises(ValueError, match=r"data must have shape \(B, 3\), got \(2, 4\)"):
        bound_of(model, torch.zeros(2, 4))
    unfinished = DiscreteTable(torch.tensor([[0, 1]]), process=Categorical(2, "absorbing", LinearVP()))
    with pytest.raises(ValueError, match=r"is infinite; use a clock that ends without signal.*LinearAlphaBar\(\)"):
        bound_of(unfinished, torch.zeros(2, 2))


def test_the_timesteps_of_a_chain_are_refused_in_continuous_time():
    with pytest.raises(TypeError, match="timesteps must be Timesteps in continuous time"):
        continuous_vlb(MODELS["uniform"], torch.zeros(2, 3), timesteps=DiscreteTimesteps(10))


def test_a_model_that_gives_the_data_no_probability_is_named_with_its_samples():
    model = DiscreteTable(torch.tensor([[0, 1]]), process=Categorical(2, "absorbing"))
    with pytest.raises(RuntimeError, match=r"NaN or infinite for the samples \[1\]"):
        discrete_vlb(model, torch.tensor([[0.0, 1.0], [1.0, 1.0]]), 4, seeds=range(2))


def test_sizes_of_the_steps_are_the_signal_that_they_lose():
    chain = CategoricalChain.of(MODELS["uniform"], torch.zeros(1, 3), 4, Chain())
    assert chain.sizes() == pytest.approx([0.25, 0.25, 0.25])
    assert chain.first == 2
    assert cross_entropy(MODELS["uniform"](torch.zeros(1, 3), 0.1), torch.zeros(1, 3)).shape == (1, 3)
