"""Which small pieces do several networks share?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor  # has no public name
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """The layer, starting as the map to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def full_precision(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Inside it, layers keep the precision of their weights although autocast may be on outside."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def derivable(h: Tensor) -> Tensor:
    """The same values; channels first in memory under vmap and forward derivatives, where group norm wants them so."""
    return h.contiguous() if transformed(h) and not torch.compiler.is_compiling() else h


def transformed(h: Tensor) -> bool:
    """Whether vmap or a forward derivative is at work on it."""
    if torch.compiler.is_compiling():
        return True
    return is_functorch_wrapped_tensor(h) or forward_ad.unpack_dual(h).tangent is not None


def recomputed(block: Callable[..., Tensor], *inputs: object) -> Tensor:
    """``block(*inputs)``, whose inner values are not kept for the backward pass but computed again, dropout too."""
    out = checkpoint(block, *inputs, use_reentrant=False)
    assert isinstance(out, Tensor)
    return out
