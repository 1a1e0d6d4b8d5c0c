"""Codes of categories: whole numbers 0 … C - 1, and C for the mask, in a floating tensor ``(B, *D)``."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.checks import check_tensor
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import expand

__all__ = ["at_codes", "check_states", "draw_codes", "one_hot", "over_states"]


def check_states(x: Tensor, name: str, like: Tensor | None = None) -> None:
    """Refuses states that are not a floating tensor, or are on another device than ``like``."""
    check_tensor(name, x)
    if not x.is_floating_point():
        raise TypeError(f"{name} must be a floating tensor of codes, got {x.dtype}; write {name}.float().")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name} must be on the device of the other states, {like.device}, got {x.device}; move one.")


def one_hot(x: Tensor, states: int) -> Tensor:
    """Codes to indicators in the type of ``x``, ``(B, *D)`` -> ``(B, *D, states)``."""
    return (x.unsqueeze(-1) == torch.arange(states, dtype=x.dtype, device=x.device)).to(x.dtype)


def draw_codes(probs: Tensor, uniform: Tensor) -> Tensor:
    """Codes drawn by inverting the distribution function.

    Args:
        probs: Probabilities by state up to a factor, ``(B, *D, S)``.
        uniform: Numbers in [0, 1), ``(B, *D)``.

    Returns:
        ``(B, *D)`` in the type of ``probs``; a state of probability 0 is never drawn.
    """
    cumulative = probs.cumsum(-1)
    threshold = uniform.to(probs.dtype).unsqueeze(-1) * cumulative[..., -1:]
    return (cumulative[..., :-1] <= threshold).sum(-1).to(probs.dtype)


def at_codes(values: Tensor, x: Tensor) -> Tensor:
    """Values by state, ``(B, *D, S)``, at the codes ``x``, ``(B, *D)``."""
    return values.gather(-1, x.long().unsqueeze(-1)).squeeze(-1)


def over_states(c: Scalar, x: Tensor) -> Scalar:
    """A coefficient per sample that multiplies ``(B, *D, S)``."""
    c = expand(c, x)
    return c.unsqueeze(-1) if isinstance(c, Tensor) and c.ndim else c
