"""Covariances given as variances, diagonals or matrices, as eigenvalues and eigenvectors; checks of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.checks import check_finite

__all__ = ["check_floating", "variances_and_axes"]


def check_floating(name: str, value: Tensor, batch: bool = True) -> None:
    """Checks that a tensor is floating, has values and, with ``batch``, a first axis for components or data.

    Raises:
        TypeError, ValueError: If not.
    """
    if not isinstance(value, Tensor) or not value.is_floating_point():
        received = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating tensor, got {received}; write torch.tensor(…).double().")
    if value.ndim and not len(value):
        raise ValueError(f"{name} must have at least one entry, got shape {tuple(value.shape)}.")
    if value.is_meta and not isinstance(value, FakeTensor):
        raise TypeError(f"{name} must have values, got a tensor on the meta device; move it to the CPU with its data.")
    if value.ndim == 0 and batch:
        raise ValueError(f"{name} must have shape (n, *D), got (); give the batch first, then one event.")


def _eigendecomposition(covs: Tensor) -> tuple[Tensor, Tensor]:
    asymmetry = float((covs - covs.mT).abs().max())
    if asymmetry > 1e-5 * float(covs.abs().max()):
        raise ValueError(
            f"cov must be symmetric, got elements that differ from their transposes by up to {asymmetry:.3g}; instead "
            "of a Cholesky factor L pass L @ L.mT."
        )
    variances, axes = torch.linalg.eigh(covs)
    if bool((variances < -1e-10 * variances.amax(-1, keepdim=True)).any()):
        raise ValueError(f"cov must be positive semi-definite, got an eigenvalue of {variances.min().item():.3g}.")
    return variances.clamp(min=0.0), axes


def variances_and_axes(covs: Tensor, size: int, count: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues and eigenvectors of covariances given as variances (K,), diagonals (K, d) or matrices (K, d, d)."""
    if covs.is_meta and not isinstance(covs, FakeTensor):
        raise TypeError("covs must have values, got a tensor on the meta device; move it to the CPU with its data.")
    check_finite(covs, "covs")
    if covs.shape == (count, size, size):
        return _eigendecomposition(covs)
    if covs.shape not in ((count,), (count, size)):
        raise ValueError(
            f"covs must have shape ({count},), ({count}, {size}) or ({count}, {size}, {size}), got {tuple(covs.shape)}."
        )
    if bool((covs < 0).any()):
        raise ValueError(f"covs must not be negative, got {covs.min().item():.3g}.")
    return covs.reshape(count, -1), None
