"""Contract of every network of the package with an event shape, found through its fields; settings are the defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

import scoresde.nn
from scoresde.storage import spec

SHAPES = [(2, 8, 8), (2, 8), (3,)]  # the first one that a network takes is used
NETWORKS: list[Any] = [
    cls
    for cls in concrete(nn.Module)
    if dataclasses.is_dataclass(cls) and dataclasses.fields(cls)[0].name == "event_shape"  # no wrapper of a network
]
every_network = pytest.mark.parametrize("cls", NETWORKS, ids=lambda cls: cls.__name__)
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")  # in torch's jvp


def _build(cls: type) -> tuple[Any, tuple[int, ...]]:
    """The network with weights that are not zero, in float64, and its event shape."""
    for shape in SHAPES:
        try:
            net = cls(shape)
        except (ValueError, TypeError):
            continue
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return net.double().eval(), shape
    pytest.fail(f"{cls.__name__} takes none of the event shapes {SHAPES} with its other fields at their defaults.")


def _batch(shape: tuple[int, ...], size: int) -> tuple[Tensor, Tensor]:
    return torch.randn(size, *shape, dtype=torch.float64), torch.linspace(-5.0, 9.0, size, dtype=torch.float64)


def test_the_networks_are_found() -> None:
    assert {"MLP", "UNet", "DiT"} <= {cls.__name__ for cls in NETWORKS}


@every_network
@pytest.mark.parametrize("size", [0, 1, 3])
def test_a_network_returns_the_shape_of_any_batch(cls: type, size: int) -> None:
    net, shape = _build(cls)
    x, log_snr = _batch(shape, size)
    assert net(x, log_snr).shape == x.shape


@every_network
def test_the_output_for_one_event_does_not_depend_on_the_others(cls: type) -> None:
    net, shape = _build(cls)
    x, log_snr = _batch(shape, 3)
    whole = net(x, log_snr)
    single = torch.cat([net(x[i : i + 1], log_snr[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(single, whole, rtol=1e-9, atol=1e-11)


@every_network
def test_forward_mode_derivatives_are_those_of_differences(cls: type) -> None:
    net, shape = _build(cls)
    x, log_snr = _batch(shape, 2)
    v, step = torch.randn_like(x), 1e-5
    with sdpa_kernel(SDPBackend.MATH):
        forward = jvp(lambda x: net(x, log_snr), (x,), (v,))[1]
    difference = (net(x + step * v, log_snr) - net(x - step * v, log_snr)) / (2 * step)
    torch.testing.assert_close(forward, difference, rtol=1e-5, atol=1e-6)


@every_network
def test_the_text_form_reads_back_as_the_same_network(cls: type) -> None:
    text = spec.to_text(_build(cls)[0])
    rebuilt = spec.parse(text, spec.known_classes(scoresde.nn), kind=nn.Module)
    assert spec.to_text(rebuilt) == text
    assert type(rebuilt) is cls
