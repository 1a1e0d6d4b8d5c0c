"""Exported networks: torch.export with a dynamic batch gives the values of the network itself, at every batch size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim, export

import scoresde as sd
from scoresde.nn import MLP, Classes, DiT, FourierInput, GaussianSkip, Pointwise, QuantizedSkip, UNet

FINE = FourierInput(8.5, (0, 1), damped=True)
CLASSES: dict[str, Any] = {"conditions": {"label": Classes(4)}}
NETWORKS: dict[str, Any] = {
    "MLP": lambda: MLP((3,), 16, 1, **CLASSES),
    "MLP of scalars": lambda: MLP((), 16, 1, outputs=3),
    "MLP with Fourier features": lambda: MLP((1, 4, 4), 16, 1, fourier=FINE),
    "UNet": lambda: UNet((1, 7, 6), 8, (1, 2), blocks=1, groups=4, **CLASSES),
    "UNet of series": lambda: UNet((2, 10), 8, (1, 2), blocks=1, fourier=FINE, outputs=2, resample_in_blocks=True),
    "UNet of volumes": lambda: UNet((1, 3, 4, 5), 8, (1, 2), blocks=1, augment=9),
    "DiT": lambda: DiT((1, 7, 6), width=32, depth=1, heads=2, **CLASSES),
    "DiT of series": lambda: DiT((2, 7), width=32, depth=1, heads=2, fourier=FINE, outputs=3, augment=9),
    "Pointwise": lambda: Pointwise(MLP((1, 4, 4), 16, 1, outputs=16, **CLASSES), FINE),
    "QuantizedSkip": lambda: QuantizedSkip(MLP((1, 4, 4), 16, 1, **CLASSES), 16),
    "GaussianSkip": lambda: GaussianSkip(MLP((1, 4, 4), 16, 1, **CLASSES)),
    "UNet of patches": lambda: UNet((1, 8, 6), 8, (1, 2), blocks=1, groups=4, patch=2, **CLASSES),
    "QuantizedSkip of three outputs": lambda: QuantizedSkip(MLP((1, 8, 8), 16, 1, outputs=3, **CLASSES), 256),
}
LABELED = ("MLP", "UNet", "DiT", "Pointwise", "GaussianSkip", "QuantizedSkip", "QuantizedSkip of three outputs")
CASES = [*((name, False) for name in NETWORKS), *((name, True) for name in LABELED)]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of torch.export


class Labeled(nn.Module):
    """A network with labels as a named argument: torch.export takes dynamic shapes of those alone."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
        return self.net(x, log_snr, label=label)


def inputs(net: Any, size: int, labels: bool) -> tuple[Tensor, ...]:
    x, log_snr = torch.randn(size, *net.event_shape), torch.linspace(-6.0, 9.0, size)
    return (x, log_snr, torch.arange(size) % 5) if labels else (x, log_snr)


def built(name: str) -> Any:
    net = NETWORKS[name]()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net.eval()


@pytest.mark.parametrize(("name", "labels"), CASES)
def test_an_exported_network_gives_its_values_at_any_batch_size(name: str, labels: bool) -> None:
    net = built(name)
    batch = {0: Dim("batch")}
    names = ("x", "log_snr", "label")[: 3 if labels else 2]
    module = Labeled(net).eval() if labels else net
    arguments = inputs(net, 3, labels)
    exported = export(module, arguments, dynamic_shapes=dict.fromkeys(names, batch), strict=False).module()
    for size in (1, 2, 5, 40):  # the table of QuantizedSkip takes more than one chunk at 40
        arguments = inputs(net, size, labels)
        with torch.no_grad():
            expected = module(*arguments)
            assert expected.abs().max() > 0.01
            torch.testing.assert_close(exported(*arguments), expected, rtol=1e-6, atol=1e-6)


class Score(nn.Module):
    """The score as a tensor, which torch.export can return, unlike a `Prediction`."""

    def __init__(self, model: sd.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, tau: Tensor) -> Tensor:
        return self.model(x, tau).score


@pytest.mark.parametrize("parameterization", [sd.V(), sd.Eps()], ids=repr)
def test_an_exported_model_gives_its_score_at_any_batch_size(parameterization: Any) -> None:
    model = sd.ScoreModel(built("MLP"), sd.VPSDE(), parameterization)
    score = Score(model).eval()
    batch = {0: Dim("batch")}
    shapes = {"x": batch, "tau": batch}
    exported = export(score, (torch.randn(3, 3), torch.rand(3)), dynamic_shapes=shapes, strict=False).module()
    for size in (1, 2, 5):
        x, tau = torch.randn(size, 3), torch.linspace(0.01, 1.5, size)
        with torch.no_grad():
            torch.testing.assert_close(exported(x, tau), score(x, tau), rtol=1e-6, atol=1e-6)
