"""Losses of categories: one value in three forms, names of the literature, timesteps, masks, and refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from discrete_models import MODELS, D, expectation
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde._core.noise import Noise
from scoresde.analytic import DiscreteTable, Gaussian
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.objective.discrete import ChainKL, CrossEntropy, PathKL, chain_kl, cross_entropy, path_kl
from scoresde.objective.discrete_equivalences import discrete_equivalence_table, discrete_equivalences
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    DiscreteLossMomentTimesteps,
    DiscreteTimesteps,
    ImportanceTimesteps,
    LossMomentTimesteps,
    TimestepDraw,
    UniformTimesteps,
)
from scoresde.objective.weighting import CustomWeighting, MinSNR, Simple
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction, Logits
from scoresde.process.schedule import Cosine, LinearAlphaBar
from scoresde.training import Training, train

PROCESSES = [
    Binomial(),
    Categorical(3),
    Categorical(3, "absorbing"),
    Categorical((2, 4, 3)),
    Categorical((2, 4, 3), "absorbing"),
]
LOSSES = [PathKL(), CrossEntropy(), ChainKL(timesteps=DiscreteTimesteps(20))]
every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def random_case(process: DiscreteProcess, tau: float, n: int = 64) -> tuple[DiscretePrediction, Tensor]:
    """Predictions of random logits at states that are possible given the data."""
    generator = torch.Generator().manual_seed(7)
    limits = torch.tensor([process.classes] * 3 if isinstance(process.classes, int) else process.classes, dtype=D)
    x0 = (torch.rand(n, 3, generator=generator, dtype=D) * limits).floor()
    x = process.perturb(x0, tau, process.draw_noise(x0, Noise(generator)))
    out = torch.randn(n, 3, process.most_classes, generator=generator, dtype=D)
    return Logits().prediction(process, x, tau, out), x0


def network(process: DiscreteProcess, shape: tuple[int, ...] = (3,), **settings: Any) -> ScoreModel:
    mask = process.kernel == "absorbing"
    inner = MLP(CategoricalNet.inner_shape(shape, process.most_classes, mask), width=8, depth=1, **settings)
    model = ScoreModel(CategoricalNet(inner, shape, process.most_classes, mask), process)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


# --- one value --------------------------------------------------------------------------------------------------------


@every_process
@pytest.mark.parametrize("tau", [0.05, 0.7, 3.0])
def test_the_path_kl_is_one_value_for_logits_probabilities_and_rates(process, tau):
    prediction, x0 = random_case(process, tau)
    value = path_kl(prediction, x0)
    rates, target = prediction.rates, process.conditional_rates(prediction.x, x0, tau)
    of_rates = (rates - target - torch.xlogy(target, rates) + torch.xlogy(target, target)).sum(-1)
    averaged = torch.zeros_like(rates)  # of probabilities: the posterior average of the conditional rates
    for c in range(process.most_classes):
        p = prediction.probs[..., c]
        possible = p > 0
        each = process.conditional_rates(prediction.x, torch.where(possible, float(c), x0), tau)
        averaged += torch.where(possible, p, 0.0).unsqueeze(-1) * each
    of_probs = (averaged - target - torch.xlogy(target, averaged) + torch.xlogy(target, target)).sum(-1)
    again = Logits(residual=False).prediction(process, prediction.x, tau, prediction.logits)  # of logits of x_0 alone
    for other in (of_rates, of_probs, path_kl(again, x0)):
        assert torch.allclose(value, other, rtol=1e-10, atol=1e-10)
    assert (value >= 0).all()


def test_the_path_kl_of_spins_is_the_formula_of_the_clock():
    # r̂ - r log r̂ + r log r - r with r = (1 - ᾱ s_0 s)/(1 + ᾱ s_0 s)
    prediction, x0 = random_case(Binomial(), 0.4)
    spin, spin0, kept = 2 * prediction.x - 1, 2 * x0 - 1, math.exp(-0.8)
    r = (1 - kept * spin0 * spin) / (1 + kept * spin0 * spin)
    p = prediction.probs[..., 1]
    of = {s: (1 - kept * s * spin) / (1 + kept * s * spin) for s in (-1, 1)}
    r_hat = p * of[1] + (1 - p) * of[-1]
    assert torch.allclose(path_kl(prediction, x0), r_hat - r * r_hat.log() + r * r.log() - r, rtol=1e-10, atol=1e-12)


@every_process
def test_the_path_kl_keeps_its_digits_where_hardly_any_signal_is_left(process):
    for tau in (8.0, 10.0):
        prediction, x0 = random_case(process, tau)
        narrow = Logits().prediction(process, prediction.x.float(), tau, prediction.out.float())
        wide, value = (
            0.5 * path_kl(p, x).to(D) / math.exp(-2 * tau) for p, x in ((prediction, x0), (narrow, x0.float()))
        )
        assert torch.allclose(value, wide, rtol=1e-5, atol=1e-5)  # nats per unit of ᾱ


@every_process
def test_the_last_step_of_a_chain_is_the_cross_entropy(process):
    prediction, x0 = random_case(process, 0.6)
    assert torch.allclose(chain_kl(prediction, x0, 0.0), cross_entropy(prediction, x0), rtol=1e-10, atol=1e-12)
    assert torch.allclose(
        cross_entropy(prediction, x0), -prediction.probs.gather(-1, x0.long()[..., None])[..., 0].log()
    )


@pytest.mark.parametrize("name", ["uniform", "absorbing", "binomial table"])
def test_the_mean_of_the_losses_is_their_bound(name):
    model = MODELS[name]
    x0 = model.sample(1, generator=torch.Generator().manual_seed(4))
    steps, n = 8, 4000
    knots = model.sde.schedule.knots(steps)
    chain = sum(
        expectation(model, x0, tau, lambda p, x, s=s: chain_kl(p, x, s)).item()
        for s, tau in zip(knots, knots[1:], strict=False)
    )
    generator = torch.Generator().manual_seed(0)
    values = ChainKL(timesteps=DiscreteTimesteps(steps))(model, x0.expand(n, -1), generator)
    assert values.mean().item() == pytest.approx(chain, abs=4 * values.std().item() / n**0.5)
    for timesteps in (UniformTimesteps(), ImportanceTimesteps(Simple()), LossMomentTimesteps()):
        values = PathKL(timesteps=timesteps)(model, x0.expand(n, -1), generator)
        assert values.mean().item() == pytest.approx(-model.log_prob(x0).item(), abs=5 * values.std().item() / n**0.5)


# --- names of the literature ------------------------------------------------------------------------------------------

GROUPS = (
    (
        "PathKL",
        "Campbell et al.: reverse rates",
        "SEDD: score entropy",
        "D3PM: K L_vb, K → ∞",
        "multinomial diffusion: K L, K → ∞",
        "MDLM: -dᾱ/du / (1 - ᾱ) · CE",
    ),
    ("CrossEntropy, ᾱ = 1 - u", "D3PM: auxiliary loss", "MaskGIT: CE of masked entries"),
)


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("clock", [LinearAlphaBar(), Cosine(clip=1.0)], ids=repr)
def test_the_names_of_a_group_are_one_loss(names, process, clock):
    u = 0.37
    tau, rate = float(clock.tau(u)), float(clock.rate(u))
    prediction, x0 = random_case(process, tau)
    losses = [loss for loss in discrete_equivalences() if loss.name in names and process.kernel in loss.kernels]
    assert len(losses) >= 2
    values = [loss.integrand(prediction, x0, Marginal(tau, rate)) for loss in losses]
    for loss, value in zip(losses, values, strict=True):
        rtol = 1e-4 if "K →" in loss.name else 1e-10  # a limit
        assert torch.allclose(value, values[0], rtol=rtol, atol=rtol), loss.name


def test_every_name_is_in_one_group_and_the_printed_groups_are_the_same():
    names = [loss.name for loss in discrete_equivalences()]
    assert sorted(name for group in GROUPS for name in group) == sorted(names)
    blocks = discrete_equivalence_table((-6.0, 0.0, 6.0)).split("-" * 79)[1:]
    printed = [{line[:46].strip() for line in block.splitlines()} & set(names) for block in blocks]
    assert sorted(map(sorted, printed)) == sorted(sorted(group) for group in GROUPS)


def test_the_weight_of_a_cross_entropy_is_the_share_of_noise():
    for loss in discrete_equivalences():
        weight = [loss.canonical(log_snr) for log_snr in (-3.0, 0.0, 3.0)]
        expected = [1.0] * 3 if loss.name in GROUPS[0] else [1 / (1 + math.exp(v)) for v in (-3.0, 0.0, 3.0)]
        assert weight == pytest.approx(expected, rel=1e-4)


def test_the_step_of_multinomial_diffusion_is_that_of_residual_logits():
    # Hoogeboom et al. 2021, eq. 15: the posterior's formula with softmax(out) in place of the indicator of x_0
    process, tau, s = Categorical(3), 0.9, 0.3
    prediction, _ = random_case(process, tau)
    softmax, b = torch.softmax(prediction.out, -1), math.exp(-2 * (tau - s))
    hot = torch.nn.functional.one_hot(prediction.x.long(), 3)
    step = (b * hot + (1 - b) / 3) * (math.exp(-2 * s) * softmax - math.expm1(-2 * s) / 3)
    assert torch.allclose(prediction.step_probs(s), step / step.sum(-1, keepdim=True), rtol=1e-10)


def test_the_masked_loss_does_not_depend_on_the_clock():
    states = torch.tensor([[0, 1, 2], [1, 1, 0]])
    values, uniform = [], torch.rand(64, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    for clock in (LinearAlphaBar(), Cosine(clip=1.0)):
        model = DiscreteTable(states, process=Categorical(3, "absorbing", clock))
        tau = torch.linspace(0.1, 2.0, 64, dtype=D)
        u = torch.as_tensor(clock.u(tau))
        loss = PathKL().at(model, states[:1].to(D).expand(64, -1), TimestepDraw(u), uniform)
        values.append(loss / torch.as_tensor(clock.rate(u)))  # du of one clock for dτ
    assert torch.allclose(values[0], values[1], rtol=1e-9)


# --- in training ------------------------------------------------------------------------------------------------------


@every_loss
@every_process
def test_gradients_are_finite_at_every_time(loss, process):
    model, size = network(process), 40
    x0 = torch.zeros(size, 3)
    noise = torch.rand(size, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    if isinstance(loss, ChainKL):
        draw = DiscreteTimesteps(20).at(torch.arange(size, dtype=D) % 20 + 1, process)
    else:
        draw = TimestepDraw(torch.linspace(process.u_min, 1.0, size, dtype=D))
    values = loss.at(model, x0, draw, noise)
    values.sum().backward()
    assert values.shape == (size,)
    assert values.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@every_loss
def test_the_weighting_multiplies_the_loss(loss):
    model, x0 = MODELS["uniform"], torch.zeros(16, 3, dtype=D)
    draw = loss.timesteps.draw(torch.linspace(0.01, 0.99, 16, dtype=D), model.sde)
    noise = torch.rand(16, 3, generator=torch.Generator().manual_seed(0), dtype=D)
    weighting = CustomWeighting(lambda m: m.alpha**2)
    weighted = type(loss)(weighting, loss.timesteps).at(model, x0, draw, noise)
    kept = ou.alpha_bar(torch.as_tensor(model.sde.schedule.tau(draw.u)))
    assert torch.allclose(weighted, kept * loss.at(model, x0, draw, noise), rtol=1e-6, atol=1e-12)
    assert type(loss)(MinSNR(), loss.timesteps)(model, x0).isfinite().all()


def test_a_chains_timesteps_give_the_path_kl_its_limit_where_no_signal_is_left():
    for process in (Categorical(3), Categorical(3, "absorbing")):
        table = DiscreteTable(torch.tensor([[0, 1, 2], [1, 1, 0]]), process=process)
        draw = DiscreteTimesteps(4).at(torch.tensor([4.0, 4.0], dtype=D), process)
        value = PathKL(timesteps=DiscreteTimesteps(4)).at(
            table, torch.tensor([[0.0, 1, 2], [1, 1, 0]], dtype=D), draw, torch.full((2, 3), 0.9, dtype=D)
        )
        # masked: the cross-entropy of the marginals, of which the second entry's is 0; uniform: 0
        expected = 2 * math.log(2) if process.kernel == "absorbing" else 0.0
        assert value.tolist() == pytest.approx([expected] * 2, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        PathKL(timesteps=LossMomentTimesteps(bins=8, memory=5)),
        PathKL(timesteps=DiscreteTimesteps(16)),
        ChainKL(timesteps=DiscreteLossMomentTimesteps(DiscreteTimesteps(16))),
        CrossEntropy(timesteps=ImportanceTimesteps(MinSNR())),
    ],
    ids=repr,
)
def test_training_lowers_the_loss_with_any_timesteps(loss):
    process = Categorical(3, "absorbing")
    torch.manual_seed(0)
    data = DiscreteTable(torch.tensor([[0, 1, 2], [1, 1, 0]]), process=process, dtype=torch.float32).sample(256)
    model = network(process)

    def mean(model: ScoreModel) -> float:
        with torch.no_grad():
            return PathKL()(model, data.repeat(8, 1), torch.Generator().manual_seed(1)).mean().item()

    before = mean(model)
    settings = Training(steps=120, batch_size=64, lr=1e-2, ema=0.9, warmup=5, loss=loss)
    after = mean(train(model, data, settings, progress=False).model)
    assert before > 2.5
    assert after < 0.6 * before


@every_loss
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_missing_entries_do_not_count_and_are_not_read(loss, kernel):
    process = Categorical(3, kernel)
    model = network(process, observed=True)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randint(0, 3, (32, 3), generator=generator).float()
    observed = torch.rand(32, 3, generator=generator) > 0.3
    observed[0] = False
    losses = [
        loss(model, x0.where(observed, filler), torch.Generator().manual_seed(3), observed=observed)
        for filler in (math.nan, 2.0, 17.5)
    ]
    assert losses[0][0].item() == 0.0
    assert losses[0].isfinite().all()
    assert torch.equal(losses[0], losses[1])
    assert torch.equal(losses[0], losses[2])
    assert (losses[0][1:] > 0).any()


@every_loss
@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_a_loss_needs_no_tensor_values(loss, kernel):
    with FakeTensorMode(), torch.device("meta"):
        inner = MLP(CategoricalNet.inner_shape((3,), 3, kernel == "absorbing"), width=8, depth=1)
        model = ScoreModel(CategoricalNet(inner, (3,), 3, kernel == "absorbing"), Categorical(3, kernel))
        loss(model, torch.zeros(4, 3)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model = network(Categorical(3, kernel)).to("meta")
    assert loss(model, torch.zeros(4, 3, device="meta")).shape == (4,)


def test_shapes_and_types_of_events():
    process = Categorical(3)
    model = network(process, (2, 4))
    for codes in (torch.ones(5, 2, 4), torch.ones(5, 2, 4, dtype=torch.int64), torch.ones(5, 2, 4).numpy()):
        assert PathKL()(model, codes, torch.Generator().manual_seed(0)).shape == (5,)
    assert PathKL()(model, torch.ones(0, 2, 4)).shape == (0,)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_a_loss_of_the_other_kind_of_process_is_refused():
    gaussian, table = Gaussian(torch.zeros(3), 1.0), MODELS["uniform"]
    for loss in LOSSES:
        with pytest.raises(TypeError, match=rf"{type(loss).__name__} trains models of DiscreteProcess.*Loss\(\)"):
            loss(gaussian, torch.zeros(2, 3))
    with pytest.raises(TypeError, match=r"Loss trains models of SDE.*PathKL\(\) or CrossEntropy\(\)"):
        Loss()(table, torch.zeros(2, 3))


@every_loss
@pytest.mark.parametrize("bad", [3.0, -1.0, 0.5, math.nan])
def test_data_that_are_no_codes_are_refused(loss, bad):
    with pytest.raises(ValueError, match=r"x0 must hold codes of classes, whole numbers 0 … 2, got .* at \(1, 2\)"):
        loss(MODELS["absorbing"], torch.tensor([[0.0, 1, 2], [0, 1, bad]]))


def test_a_chains_loss_needs_the_steps_of_a_chain():
    with pytest.raises(ValueError, match=r"ChainKL needs the steps of a chain.*PathKL\(\)"):
        ChainKL(timesteps=UniformTimesteps())
