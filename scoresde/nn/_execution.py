"""Execution modes of torch that layers must respect: autocast, function transforms and activation checkpointing."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor  # has no public name
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint


def full_precision(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """A context without autocast on the device of ``like``: layers keep the precision of their weights."""
    device = like.device.type
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def group_norm_input(h: Tensor) -> Tensor:
    """The same values; contiguous (channels first) under vmap and forward derivatives, as group norm requires there."""
    return h.contiguous() if is_transformed(h) and not torch.compiler.is_compiling() else h


def is_transformed(h: Tensor) -> bool:
    """Whether ``h`` is inside vmap, carries a forward derivative, or is traced by torch.compile."""
    if torch.compiler.is_compiling():
        return True
    return is_functorch_wrapped_tensor(h) or forward_ad.unpack_dual(h).tangent is not None


def is_exporting() -> bool:
    """Whether the caller is traced by torch.export, with a batch of any size; torch 2.6 reports compilation too."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def checkpointed(block: Callable[..., Tensor], *inputs: object) -> Tensor:
    """``block(*inputs)`` with activation checkpointing: the backward pass recomputes activations, dropout included."""
    out = checkpoint(block, *inputs, use_reentrant=False)
    assert isinstance(out, Tensor)
    return out
