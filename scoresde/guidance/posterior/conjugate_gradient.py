r"""Conjugate gradients of a batch: $M w = b$ for symmetric positive definite M, a fixed number of iterations."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scoresde._core.tensors import expand

__all__ = ["conjugate_gradient", "norm_event"]


def conjugate_gradient(
    product: Callable[[Tensor], tuple[Tensor, Tensor]], b: Tensor, iterations: int
) -> tuple[Tensor, Tensor]:
    """L w for M w = b, where ``product(p)`` returns (M p, L p) with any linear L.

    The image under L is summed along with w, so that it needs no further product. Each sample is scaled by the norm of
    its ``b`` and is solved independently of the others. A sample stops, on the device, when it has converged or when
    p·M p is not positive: M is not positive definite there, for example by an error of a network.

    Args:
        product: M p and L p of ``(B, *Y)``.
        b: Right sides, ``(B, *Y)``.
        iterations: Number of products.

    Returns:
        L w, and the norm of b - M w over that of b, ``(B,)``; 0 where ``b`` is 0.

    Source: Hestenes & Stiefel 1952.
    """
    scale = norm_event(b)
    r = p = b / _over_event(scale, b)
    square = _dot(r, r)
    floor = square * (4.0 * torch.finfo(b.dtype).eps) ** 2
    active, value = square > floor, None
    for _ in range(iterations):
        m_p, l_p = product(p)
        curvature = _dot(p, m_p)
        active = active & (square > floor) & (curvature > 0)
        step = (square / curvature.where(active, 1.0)).where(active, 0.0)
        value = l_p * _over_event(step, l_p) if value is None else value + l_p * _over_event(step, l_p)
        r = r - m_p * _over_event(step, r)
        new = _dot(r, r).where(active, square)
        p = r + p * _over_event((new / square.where(active, 1.0)).where(active, 0.0), r)
        square = new
    if value is None:  # no iteration: w = 0
        value = torch.zeros_like(product(p)[1])
    return value * _over_event(scale, value), square.sqrt()


def norm_event(b: Tensor) -> Tensor:
    """Norms of the samples of ``b``, ``(B,)``; those of 0 are tiny, so that they may divide."""
    return _dot(b, b).clamp(min=torch.finfo(b.dtype).tiny).sqrt()


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1) if a.ndim > 1 else a * b


def _over_event(c: Tensor, like: Tensor) -> Tensor:
    coefficient = expand(c, like)
    assert isinstance(coefficient, Tensor)  # per-sample coefficients stay a tensor
    return coefficient
