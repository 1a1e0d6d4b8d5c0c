"""Does a network that is told the levels' histogram begin where each value by itself would put it?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import scoresde.nn.quantized_skip
from scoresde.analytic import GaussianMixture
from scoresde.data import Data, Description
from scoresde.likelihood import TruncatedNormalDequantization, bits_per_dim
from scoresde.model import ScoreModel
from scoresde.nn import MLP, QuantizedSkip, UNet
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.storage.checkpoint import load, save
from scoresde.training import Training, train
from scoresde.training.defaults import default_recipe

LEVELS = torch.tensor([0, 0, 0, 0, 1, 3, 3, 2])
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch's jvp
SDE = VPSDE(Cosine(), tau_min=1e-6)


def told(bins: int = 4, shape: tuple[int, ...] = (3,)) -> QuantizedSkip:
    return QuantizedSkip(MLP(shape, width=8, depth=1), bins).fit(LEVELS)


def test_before_training_it_is_the_exact_model_of_values_drawn_one_by_one() -> None:
    law = GaussianMixture(
        torch.tensor([5, 2, 2, 3], dtype=torch.float64) / 12,
        torch.tensor([[-0.75], [-0.25], [0.25], [0.75]], dtype=torch.float64),
        torch.full((4, 1), 1e-12, dtype=torch.float64),
        SDE,
    )
    model = ScoreModel(told().double(), SDE, V(), (3,))
    for tau in (2e-6, 1e-3, 0.05, 0.7, 5.0):
        x = ou.alpha(tau) * torch.tensor([[-0.75, 0.3, 0.74]], dtype=torch.float64) + ou.sigma(tau) * torch.randn(
            64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        expected = law(x.reshape(-1, 1), tau).v.reshape(-1, 3)
        # log-SNR reaches a network in single precision
        torch.testing.assert_close(model(x, tau).v, expected, rtol=0, atol=2e-6 / ou.sigma(tau) ** 0.5)


def test_the_histogram_counts_each_level_once_more_than_it_occurs() -> None:
    expected = torch.tensor([5, 2, 2, 3]) / 12
    torch.testing.assert_close(told().log_histogram.exp(), expected)
    torch.testing.assert_close(told().fit(LEVELS[:0]).log_histogram.exp(), torch.full((4,), 0.25))


@pytest.mark.parametrize(
    ("levels", "error", "words"),
    [
        (torch.tensor([0, 4]), ValueError, "0 ... 3, got 0 ... 4; set bins"),
        (torch.tensor([-1, 2]), ValueError, "0 ... 3, got -1 ... 2"),
        (torch.tensor([0.5]), TypeError, "whole numbers, got torch.float32"),
    ],
)
def test_what_are_no_levels_is_refused_and_changes_nothing(levels: Tensor, error: type[Exception], words: str) -> None:
    net = told()
    before = net.log_histogram.clone()
    with pytest.raises(error, match=words):
        net.fit(levels)
    assert torch.equal(net.log_histogram, before)


@pytest.mark.parametrize(("settings", "words"), [({"bins": 0}, "bins must be"), ({"low": 1.0}, "low < high")])
def test_settings_out_of_range_are_refused(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        QuantizedSkip(MLP((3,)), **settings)  # pyright: ignore[reportArgumentType]


def test_the_inner_network_is_added(generator: torch.Generator) -> None:
    net = told()
    x, log_snr = torch.randn(4, 3, generator=generator), torch.tensor([-math.inf, -3.0, 2.0, math.inf])
    alone = net(x, log_snr)
    for parameter in net.net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    assert alone.isfinite().all()
    assert torch.equal(net(x, log_snr), alone + net.net(x, log_snr))
    assert not torch.equal(net(x, log_snr), alone)


class Neighbors(nn.Module):
    """Says the same of every value, in three outputs."""

    outputs = 3

    def __init__(self, *said: float | Tensor) -> None:
        super().__init__()
        self.said = said

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(part, dtype=x.dtype).expand_as(x) for part in self.said], -1)


def test_three_outputs_multiply_the_law_of_each_value_by_a_normal_density() -> None:
    x, log_snr, precision, about = 0.4, 2.0, 3.0, -0.6
    snr, alpha = math.exp(log_snr), math.sqrt(1 / (1 + math.exp(-log_snr)))
    slope = math.sqrt((snr + precision) / 2)
    shift = (snr * x / alpha + precision * about) / (2 * slope) - slope * x / alpha
    net = QuantizedSkip(Neighbors(0.25, shift, math.log1p(precision / snr)), 4).fit(LEVELS)
    centers = torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)
    weight = torch.tensor([5, 2, 2, 3]) * torch.exp(
        -0.5 * snr * (x / alpha - centers) ** 2 - 0.5 * precision * (centers - about) ** 2
    )
    mean = (weight * centers).sum() / weight.sum()
    expected = (alpha * x - mean) / math.sqrt(1 - alpha**2) + 0.25
    found = net(torch.full((2, 3), x, dtype=torch.float64), torch.full((2,), log_snr, dtype=torch.float64))
    torch.testing.assert_close(found, expected.expand(2, 3), rtol=1e-6, atol=1e-6)  # the histogram is float32


def test_an_inner_network_of_other_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match="1 output or 3, got outputs=2; build it with outputs=3"):
        QuantizedSkip(MLP((3,), outputs=2))


def test_whatever_the_neighbors_say_the_answer_is_finite() -> None:
    x, log_snr = torch.tensor([[-1.0, 0.3, 1.0]] * 4), torch.tensor([-math.inf, -3.0, 12.0, math.inf])
    for gain in (-1e4, 0.0, 1e4):
        assert QuantizedSkip(Neighbors(0.0, 50.0, gain), 4)(x, log_snr).isfinite().all()


def test_derivatives_by_what_the_neighbors_say_are_those_of_differences(generator: torch.Generator) -> None:
    net = told(bins=8).double()
    log_snr = torch.linspace(-4.0, 6.0, 5).double()
    x, shift, gain = (torch.randn(5, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3))
    given = (x, shift, gain)
    assert torch.autograd.gradcheck(lambda *said: net.expected(said[0], log_snr, *said[1:]), given)
    once, again = (
        torch.autograd.grad(net.expected(x, log_snr, *given[1:]).sum(), given, create_graph=more)
        for more in (False, True)
    )
    torch.testing.assert_close(once, again)
    assert torch.autograd.gradgradcheck(lambda *said: net.expected(said[0], log_snr, *said[1:]), given)
    assert torch.autograd.gradgradcheck(lambda y: net.expected(y, log_snr), (x,))
    along = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    forward = torch.func.jvp(lambda said: net.expected(x.detach(), log_snr, said), (shift.detach(),), (along,))[1]
    (back,) = torch.autograd.grad(net.expected(x.detach(), log_snr, shift).sum(), shift)
    torch.testing.assert_close(forward, back * along)


def test_what_training_keeps_does_not_grow_with_the_number_of_levels(generator: torch.Generator) -> None:
    x, log_snr = torch.randn(4, 1, 8, 8, generator=generator), torch.linspace(-4.0, 6.0, 4)

    def kept(bins: int) -> int:
        sizes: list[int] = []
        net = QuantizedSkip(
            UNet((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, outputs=3), bins
        )
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: sizes.append(saved.numel()) or saved, lambda s: s):
            net(x, log_snr)
        return sum(sizes)

    assert kept(256) - kept(2) < 3 * 256  # the histogram and the centers, no table of 256 for each value


def test_cutting_the_table_changes_no_value(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    net, x, log_snr = told(), torch.randn(7, 3, generator=generator), torch.linspace(-5.0, 12.0, 7)
    whole = net(x, log_snr)
    shift = torch.randn(7, 3, generator=generator).requires_grad_()
    slope = torch.autograd.grad(net.expected(x, log_snr, shift).sum(), shift)
    monkeypatch.setattr(scoresde.nn.quantized_skip, "_HELD", 24)
    torch.testing.assert_close(net(x, log_snr), whole)
    torch.testing.assert_close(torch.autograd.grad(net.expected(x, log_snr, shift).sum(), shift), slope)


def test_the_histogram_comes_back_with_the_weights(tmp_path) -> None:
    about = Description("four", (3,), bins=4)
    save(ScoreModel(told(), SDE, V(), data=about), tmp_path)
    found = load(tmp_path).net
    assert isinstance(found, QuantizedSkip)
    assert torch.equal(found.log_histogram, told().log_histogram)


def test_it_is_trained_and_asked_where_its_formula_holds() -> None:
    data = Data(
        torch.arange(12).reshape(4, 3) % 4, torch.tensor([[0, 1, 2], [3, 0, 0]]), Description("four", (3,), bins=4)
    )
    net = told()
    model = ScoreModel(net, SDE, V(), data=data.description)
    with pytest.raises(ValueError, match=r"QuantizedSkip must be trained on levels' centers, got Training\(dequanti"):
        train(model, data, Training(steps=1, batch_size=2))
    assert train(model, data, Training(steps=1, batch_size=2, dequantize=False)).step == 1
    asked, matched = (
        bits_per_dim(model, data.test, dequantization=law, nodes=60, generator=torch.Generator().manual_seed(0)).bits
        for law in (None, TruncatedNormalDequantization.matching(model))
    )
    assert torch.equal(asked, matched)
    exact = -(net.log_histogram[data.test].sum(1) / (3 * math.log(2)))
    torch.testing.assert_close(asked.float(), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("about", "settings", "words"),
    [
        (Description("x", (3,), bins=4), {"bins": 5}, r"data's levels, bins=4, low=-1, high=1, got bins=5, low"),
        (Description("x", (3,), bins=4, offset=0, scale=3), {"bins": 4}, r"low=0, high=1.33333, got bins=4, low=-1"),
        (Description("x", (3,), bins=4, scale=(1, 2, 3)), {"bins": 4}, "needs data of levels under one scale"),
        (Description("x", (3,)), {"bins": 4}, "needs data of levels under one scale, got bins=None"),
        (
            Description("x", (3,), bins=4),
            {"bins": 4, "parameterization": Eps()},
            r"QuantizedSkip estimates v, got Eps\(\)",
        ),
    ],
)
def test_data_of_other_levels_are_refused(about: Description, settings: dict[str, Any], words: str) -> None:
    net = QuantizedSkip(MLP((3,), width=8, depth=1), settings["bins"])
    model = ScoreModel(net, VPSDE(), settings.get("parameterization"))
    events = torch.zeros(8, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=words):
        train(model, Data(events, events, about), Training(steps=1, dequantize=False))
    assert model.data is None, "what was refused leaves nothing behind"


def test_levels_on_another_scale_are_known_when_they_are_said(generator: torch.Generator) -> None:
    about = Description("x", (1, 8, 8), bins=200, offset=0, scale=255)
    events = torch.randint(200, (8, 1, 8, 8), generator=generator, dtype=torch.uint8)
    recipe = default_recipe(about)
    model = recipe.build(Data(events, events, about))
    assert isinstance(model.net, QuantizedSkip)
    assert (model.net.low, model.net.high) == (0.0, 200 / 255)
    train(model, Data(events, events, about), replace(recipe.training, steps=1, batch_size=2))


@pytest.mark.parametrize(
    "about", [Description("x", (1, 8, 8), bins=65536), Description("x", (3, 8, 8), bins=256, scale=(1, 2, 3))]
)
def test_levels_too_many_for_a_table_or_of_several_scales_have_a_recipe_without(about: Description) -> None:
    recipe = default_recipe(about)
    assert isinstance(recipe.network, UNet)
    assert recipe.training.dequantize


def test_derivatives_are_those_of_differences(generator: torch.Generator) -> None:
    net = told().double()
    x, log_snr = torch.randn(5, 3, dtype=torch.float64, generator=generator), torch.linspace(-3.0, 4.0, 5).double()
    along = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    step = 1e-6
    slope = (net(x + step * along, log_snr) - net(x - step * along, log_snr)) / (2 * step)
    forward = torch.func.jvp(lambda y: net(y, log_snr), (x,), (along,))[1]
    torch.testing.assert_close(forward, slope, rtol=1e-6, atol=1e-6)
    inside = x.clone().requires_grad_()
    (back,) = torch.autograd.grad(net(inside, log_snr), inside, along)
    torch.testing.assert_close((back * along).sum(1), (forward * along).sum(1))  # values do not mix: J is diagonal


def test_autocast_leaves_what_a_value_says_by_itself_in_full_precision(generator: torch.Generator) -> None:
    net = QuantizedSkip(UNet((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4), 256)
    x, log_snr = torch.rand(2, 1, 8, 8, generator=generator), torch.tensor([4.0, 12.0])
    full = net(x, log_snr)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x, log_snr), full)
