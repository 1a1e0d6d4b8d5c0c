"""Networks that read the angle of a jump, ``net(x, log_snr, delta=…)``: copies of a teacher's network, and new ones."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math

import torch
from torch import nn

from scoresde._core.checks import check_kind
from scoresde.model import Model
from scoresde.nn import MLP

__all__ = ["new_network", "no_jumps", "reads_jumps", "with_jumps"]

_SMALL, _LARGEST_MLP = 8, 4096  # elements of an event of which a new student is a narrow MLP, and an MLP


def reads_jumps(net: nn.Module) -> bool:
    """Whether a network reads the angle of a jump: its ``delta`` is true, or its ``forward`` names that keyword."""
    stated = getattr(net, "delta", None)
    return bool(stated) if stated is not None else "delta" in inspect.signature(net.forward).parameters


def with_jumps(net: nn.Module) -> nn.Module:
    """A copy of a network that also reads the angle of a jump, by weights of zero; without dropout.

    Raises:
        TypeError: If it is not a network of this package and does not read ``delta``.
    """
    if reads_jumps(net):
        return copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        new = _rebuilt(net)
    weight = next(net.parameters(), None)
    new = new if weight is None else new.to(weight.device, weight.dtype)
    mismatch = new.load_state_dict(net.state_dict(), strict=False)
    wrong = [*mismatch.unexpected_keys, *(name for name in mismatch.missing_keys if "jump_embedding" not in name)]
    assert not wrong, wrong
    return new


def _rebuilt(net: nn.Module) -> nn.Module:
    """A network of the same settings, with new weights, that reads jumps and drops nothing."""
    names = {f.name for f in dataclasses.fields(net) if f.init} if dataclasses.is_dataclass(net) else set()
    inner = {name: getattr(net, name) for name in names if isinstance(getattr(net, name), nn.Module)}
    if "delta" not in names and not (inner and hasattr(type(net), "delta")):
        raise no_jumps(net)
    settings = {name: getattr(net, name) for name in names} | {name: _rebuilt(part) for name, part in inner.items()}
    settings |= {"delta": True} if "delta" in names else {}
    settings |= {"dropout": 0.0} if "dropout" in names else {}
    return type(net)(**settings)


def no_jumps(net: nn.Module) -> TypeError:
    """The error of a network that does not read jumps."""
    return TypeError(
        f"a student's network reads the angle of the jump, the keyword delta, got {type(net).__name__}, which does "
        "not; write a forward(x, log_snr, delta=None, …) that ignores it at first, or distill into another network: "
        "net=UNet(event_shape, delta=True)."
    )


def new_network(model: Model) -> nn.Module:
    """A new MLP for a teacher without a network of its own."""
    shape = model.event_shape
    if shape is None or math.prod(shape) > _LARGEST_MLP:
        raise ValueError(
            f"a student of {type(model).__name__} needs a network, got none, and an event of shape {shape}; pass "
            "net=UNet(event_shape, delta=True)."
        )
    check_kind("event_shape", shape, tuple)
    buffer = next((value for value in [*model.parameters(), *model.buffers()] if value.is_floating_point()), None)
    net = MLP(shape, width=128 if math.prod(shape) <= _SMALL else 256, depth=3, embedding_width=32, delta=True)
    return net if buffer is None else net.to(buffer.device)
