"""QuantizedSkip: the closed-form posterior mean given the histogram, its derivatives, and its use in training."""

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

VALUES = torch.tensor([0, 0, 0, 0, 1, 3, 3, 2])
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch's jvp
SDE = VPSDE(Cosine(), tau_min=1e-6)


def fitted(bins: int = 4, shape: tuple[int, ...] = (3,)) -> QuantizedSkip:
    return QuantizedSkip(MLP(shape, width=8, depth=1), bins).fit(VALUES)


def test_before_training_it_is_the_exact_model_of_independent_values() -> None:
    exact = GaussianMixture(
        torch.tensor([5, 2, 2, 3], dtype=torch.float64) / 12,
        torch.tensor([[-0.75], [-0.25], [0.25], [0.75]], dtype=torch.float64),
        torch.full((4, 1), 1e-12, dtype=torch.float64),
        SDE,
    )
    model = ScoreModel(fitted().double(), SDE, V(), (3,))
    for tau in (2e-6, 1e-3, 0.05, 0.7, 5.0):
        x = ou.alpha(tau) * torch.tensor([[-0.75, 0.3, 0.74]], dtype=torch.float64) + ou.sigma(tau) * torch.randn(
            64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
        )
        expected = exact(x.reshape(-1, 1), tau).v.reshape(-1, 3)
        # log-SNR reaches a network in single precision
        torch.testing.assert_close(model(x, tau).v, expected, rtol=0, atol=2e-6 / ou.sigma(tau) ** 0.5)


def test_the_histogram_is_counts_plus_one() -> None:
    expected = torch.tensor([5, 2, 2, 3]) / 12
    torch.testing.assert_close(fitted().log_histogram.exp(), expected)
    torch.testing.assert_close(fitted().fit(VALUES[:0]).log_histogram.exp(), torch.full((4,), 0.25))


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (torch.tensor([0, 4]), ValueError, "0 ... 3, got 0 ... 4; set bins"),
        (torch.tensor([-1, 2]), ValueError, "0 ... 3, got -1 ... 2"),
        (torch.tensor([0.5]), TypeError, "integers, got torch.float32"),
    ],
)
def test_invalid_values_are_refused_and_change_nothing(values: Tensor, error: type[Exception], message: str) -> None:
    net = fitted()
    before = net.log_histogram.clone()
    with pytest.raises(error, match=message):
        net.fit(values)
    assert torch.equal(net.log_histogram, before)


@pytest.mark.parametrize(("settings", "message"), [({"bins": 0}, "bins must be"), ({"low": 1.0}, "low < high")])
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizedSkip(MLP((3,)), **settings)  # pyright: ignore[reportArgumentType]


def test_the_output_of_the_inner_network_is_added(generator: torch.Generator) -> None:
    net = fitted()
    x, log_snr = torch.randn(4, 3, generator=generator), torch.tensor([-math.inf, -3.0, 2.0, math.inf])
    skip = net(x, log_snr)
    for parameter in net.net.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    assert skip.isfinite().all()
    assert torch.equal(net(x, log_snr), skip + net.net(x, log_snr))
    assert not torch.equal(net(x, log_snr), skip)


class ConstantNetwork(nn.Module):
    """Three outputs, the same for every value."""

    outputs = 3

    def __init__(self, *constants: float | Tensor) -> None:
        super().__init__()
        self.constants = constants

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.stack([torch.as_tensor(c, dtype=x.dtype).expand_as(x) for c in self.constants], -1)


def test_three_outputs_multiply_the_distribution_of_each_value_by_a_normal_density() -> None:
    x, log_snr, precision, center = 0.4, 2.0, 3.0, -0.6
    snr, alpha = math.exp(log_snr), math.sqrt(1 / (1 + math.exp(-log_snr)))
    slope = math.sqrt((snr + precision) / 2)
    shift = (snr * x / alpha + precision * center) / (2 * slope) - slope * x / alpha
    net = QuantizedSkip(ConstantNetwork(0.25, shift, math.log1p(precision / snr)), 4).fit(VALUES)
    centers = torch.tensor([-0.75, -0.25, 0.25, 0.75], dtype=torch.float64)
    weight = torch.tensor([5, 2, 2, 3]) * torch.exp(
        -0.5 * snr * (x / alpha - centers) ** 2 - 0.5 * precision * (centers - center) ** 2
    )
    mean = (weight * centers).sum() / weight.sum()
    expected = (alpha * x - mean) / math.sqrt(1 - alpha**2) + 0.25
    v = net(torch.full((2, 3), x, dtype=torch.float64), torch.full((2,), log_snr, dtype=torch.float64))
    torch.testing.assert_close(v, expected.expand(2, 3), rtol=1e-6, atol=1e-6)  # the histogram is float32


def test_an_inner_network_with_other_outputs_is_refused() -> None:
    with pytest.raises(ValueError, match="1 output or 3, got outputs=2; build it with outputs=3"):
        QuantizedSkip(MLP((3,), outputs=2))


def test_the_output_is_finite_for_extreme_shifts_and_gains() -> None:
    x, log_snr = torch.tensor([[-1.0, 0.3, 1.0]] * 4), torch.tensor([-math.inf, -3.0, 12.0, math.inf])
    for gain in (-1e4, 0.0, 1e4):
        assert QuantizedSkip(ConstantNetwork(0.0, 50.0, gain), 4)(x, log_snr).isfinite().all()


def test_derivatives_with_respect_to_shift_and_gain_match_finite_differences(generator: torch.Generator) -> None:
    net = fitted(bins=8).double()
    log_snr = torch.linspace(-4.0, 6.0, 5).double()
    x, shift, log_gain = (
        torch.randn(5, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3)
    )
    inputs = (x, shift, log_gain)
    assert torch.autograd.gradcheck(lambda x, *factor: net.posterior_mean(x, log_snr, *factor), inputs)
    plain, differentiable = (
        torch.autograd.grad(net.posterior_mean(x, log_snr, *inputs[1:]).sum(), inputs, create_graph=create_graph)
        for create_graph in (False, True)
    )
    torch.testing.assert_close(plain, differentiable)
    assert torch.autograd.gradgradcheck(lambda x, *factor: net.posterior_mean(x, log_snr, *factor), inputs)
    assert torch.autograd.gradgradcheck(lambda y: net.posterior_mean(y, log_snr), (x,))
    direction = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    forward = torch.func.jvp(
        lambda shift: net.posterior_mean(x.detach(), log_snr, shift), (shift.detach(),), (direction,)
    )[1]
    (reverse,) = torch.autograd.grad(net.posterior_mean(x.detach(), log_snr, shift).sum(), shift)
    torch.testing.assert_close(forward, reverse * direction)


def test_saved_activations_do_not_grow_with_the_number_of_bins(generator: torch.Generator) -> None:
    x, log_snr = torch.randn(4, 1, 8, 8, generator=generator), torch.linspace(-4.0, 6.0, 4)

    def saved_size(bins: int) -> int:
        sizes: list[int] = []
        net = QuantizedSkip(
            UNet((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, outputs=3), bins
        )
        with torch.autograd.graph.saved_tensors_hooks(lambda saved: sizes.append(saved.numel()) or saved, lambda s: s):
            net(x, log_snr)
        return sum(sizes)

    assert saved_size(256) - saved_size(2) < 3 * 256  # the histogram and the centers, no table of 256 per value


def test_splitting_the_table_changes_no_value(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    net, x, log_snr = fitted(), torch.randn(7, 3, generator=generator), torch.linspace(-5.0, 12.0, 7)
    whole = net(x, log_snr)
    shift = torch.randn(7, 3, generator=generator).requires_grad_()
    gradient = torch.autograd.grad(net.posterior_mean(x, log_snr, shift).sum(), shift)
    monkeypatch.setattr(scoresde.nn.quantized_skip, "_MAX_TABLE_SIZE", 24)
    torch.testing.assert_close(net(x, log_snr), whole)
    torch.testing.assert_close(torch.autograd.grad(net.posterior_mean(x, log_snr, shift).sum(), shift), gradient)


def test_the_histogram_is_saved_with_the_weights(tmp_path) -> None:
    description = Description("four", (3,), bins=4)
    save(ScoreModel(fitted(), SDE, V(), data=description), tmp_path)
    loaded = load(tmp_path).net
    assert isinstance(loaded, QuantizedSkip)
    assert torch.equal(loaded.log_histogram, fitted().log_histogram)


def test_training_and_likelihood_use_bin_centers() -> None:
    data = Data(
        torch.arange(12).reshape(4, 3) % 4, torch.tensor([[0, 1, 2], [3, 0, 0]]), Description("four", (3,), bins=4)
    )
    net = fitted()
    model = ScoreModel(net, SDE, V(), data=data.description)
    with pytest.raises(ValueError, match=r"QuantizedSkip must be trained on bin centers, got Training\(dequanti"):
        train(model, data, Training(steps=1, batch_size=2))
    assert train(model, data, Training(steps=1, batch_size=2, dequantize=False)).step == 1
    default, matched = (
        bits_per_dim(
            model, data.test, dequantization=dequantization, nodes=60, generator=torch.Generator().manual_seed(0)
        ).bits
        for dequantization in (None, TruncatedNormalDequantization.matching(model))
    )
    assert torch.equal(default, matched)
    exact = -(net.log_histogram[data.test].sum(1) / (3 * math.log(2)))
    torch.testing.assert_close(default.float(), exact, rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("description", "settings", "message"),
    [
        (Description("x", (3,), bins=4), {"bins": 5}, r"data's bins, bins=4, low=-1, high=1, got bins=5, low"),
        (Description("x", (3,), bins=4, offset=0, scale=3), {"bins": 4}, r"low=0, high=1.33333, got bins=4, low=-1"),
        (Description("x", (3,), bins=4, scale=(1, 2, 3)), {"bins": 4}, "needs integer data with one scale"),
        (Description("x", (3,)), {"bins": 4}, "needs integer data with one scale, got bins=None"),
        (
            Description("x", (3,), bins=4),
            {"bins": 4, "parameterization": Eps()},
            r"QuantizedSkip estimates v, got Eps\(\)",
        ),
    ],
)
def test_data_with_other_bins_are_refused(description: Description, settings: dict[str, Any], message: str) -> None:
    net = QuantizedSkip(MLP((3,), width=8, depth=1), settings["bins"])
    model = ScoreModel(net, VPSDE(), settings.get("parameterization"))
    events = torch.zeros(8, 3, dtype=torch.uint8)
    with pytest.raises(ValueError, match=message):
        train(model, Data(events, events, description), Training(steps=1, dequantize=False))
    assert model.data is None, "refused data leave the model unchanged"


def test_the_default_recipe_uses_the_scaling_of_the_description(generator: torch.Generator) -> None:
    description = Description("x", (1, 8, 8), bins=200, offset=0, scale=255)
    events = torch.randint(200, (8, 1, 8, 8), generator=generator, dtype=torch.uint8)
    recipe = default_recipe(description)
    model = recipe.build(Data(events, events, description))
    assert isinstance(model.net, QuantizedSkip)
    assert (model.net.low, model.net.high) == (0.0, 200 / 255)
    train(model, Data(events, events, description), replace(recipe.training, steps=1, batch_size=2))


@pytest.mark.parametrize(
    "description", [Description("x", (1, 8, 8), bins=65536), Description("x", (3, 8, 8), bins=256, scale=(1, 2, 3))]
)
def test_the_default_recipe_has_no_skip_for_too_many_bins_or_several_scales(description: Description) -> None:
    recipe = default_recipe(description)
    assert isinstance(recipe.network, UNet)
    assert recipe.training.dequantize


def test_derivatives_match_finite_differences(generator: torch.Generator) -> None:
    net = fitted().double()
    x, log_snr = torch.randn(5, 3, dtype=torch.float64, generator=generator), torch.linspace(-3.0, 4.0, 5).double()
    direction = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    step = 1e-6
    difference = (net(x + step * direction, log_snr) - net(x - step * direction, log_snr)) / (2 * step)
    forward = torch.func.jvp(lambda y: net(y, log_snr), (x,), (direction,))[1]
    torch.testing.assert_close(forward, difference, rtol=1e-6, atol=1e-6)
    leaf = x.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(net(leaf, log_snr), leaf, direction)
    torch.testing.assert_close(
        (reverse * direction).sum(1), (forward * direction).sum(1)
    )  # values do not mix: J is diagonal


def test_the_skip_has_full_precision_under_autocast(generator: torch.Generator) -> None:
    net = QuantizedSkip(UNet((1, 8, 8), channels=8, multipliers=(1,), blocks=1, attention=(), groups=4), 256)
    x, log_snr = torch.rand(2, 1, 8, 8, generator=generator), torch.tensor([4.0, 12.0])
    full = net(x, log_snr)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x, log_snr), full)
