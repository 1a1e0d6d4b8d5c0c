r"""Gaussian mixtures given a linear observation: $S_k = A C_k A^T + \Gamma$, weights $\propto w_k N(y; A m_k, S_k)$."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_finite, check_integer, check_tensor
from scoresde._core.tensors import has_values
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator

__all__ = ["Observed", "condition"]

_CHUNK = 2**24  # elements of the largest tensor of one chunk of components


@dataclass(frozen=True)
class Observed:
    """One linear observation as matrices, measured entries only.

    Attributes:
        matrix: A, ``(M, d)``.
        y: Measurements, ``(M,)``.
        noise_cov: Γ, ``(M, M)``.
    """

    matrix: Tensor
    y: Tensor
    noise_cov: Tensor

    @classmethod
    def of(
        cls,
        observation: Observation | Tensor,
        y: Tensor | None,
        noise_cov: Tensor | None,
        index: int | None,
        like: Tensor,
    ) -> Observed:
        """From the arguments of ``given``, in the type and on the device of ``like``, ``(K, d)``; see there."""
        if isinstance(observation, Observation):
            if y is not None or noise_cov is not None:
                raise TypeError("an Observation holds y and its noise already; leave y and noise_cov out.")
            matrix, y, noise_cov = _matrices(observation, index)
        else:
            matrix = observation
            if y is None:
                raise TypeError("y is missing; given(A, y, noise_cov) needs it beside the matrix A.")
            if index is not None:
                raise TypeError(
                    "index selects one of the observations of an Observation; leave it out beside a matrix."
                )
            noise_cov = torch.zeros(matrix.shape[:1] * 2) if noise_cov is None else noise_cov
        if not has_values(like) or not has_values(matrix):
            raise TypeError("given needs a model and an observation with values; move them from the meta device.")
        d = like.shape[1]
        if matrix.ndim != 2 or matrix.shape[1] != d:
            raise ValueError(f"A must have shape (M, {d}) for events of {d} elements, got {tuple(matrix.shape)}.")
        rows = len(matrix)
        if y.shape != (rows,) or noise_cov.shape != (rows, rows):
            raise ValueError(
                f"y and noise_cov must have shapes ({rows},) and ({rows}, {rows}) for A of shape ({rows}, {d}), got "
                f"{tuple(y.shape)} and {tuple(noise_cov.shape)}."
            )
        for name, value in {"A": matrix, "y": y, "noise_cov": noise_cov}.items():
            check_tensor(name, value)
            check_finite(value, name)
        return cls(matrix.to(like), y.to(like), noise_cov.to(like))


def _matrices(observation: Observation, index: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """A, y and Γ of the measured entries of one observation."""
    if index is not None:
        check_integer("index", index, 0, (observation.count or 1) - 1)
    observation = observation.one(index)
    operator = observation.operator
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            f"an exact posterior needs a linear operator, got {type(operator).__name__}; use a particle method."
        )
    matrix, y, cov, support = operator.matrix(), observation.y.flatten(), observation.covariance(), operator.support()
    if support is not None:
        rows = support.flatten()
        matrix, y, cov = matrix[rows], y[rows], cov[rows][:, rows]
    return matrix, y, cov


def condition(
    log_weights: Tensor, means: Tensor, variances: Tensor, axes: Tensor | None, observed: Observed
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The mixture given an observation.

    Args:
        log_weights: ``(K,)``, normalized.
        means: ``(K, d)``.
        variances: Eigenvalues of the covariances, ``(K, d)`` or ``(K, 1)``.
        axes: Their eigenvectors, ``(K, d, d)``; None for the coordinate axes.
        observed: The observation.

    Returns:
        The same of the posterior with K' <= K components, and log p(y), ``()``.

    Raises:
        ValueError: If an S_k is not positive definite.
    """
    matrix, y, noise_cov = observed.matrix, observed.y, observed.noise_cov
    largest = max(matrix.shape[1] ** 2, len(matrix) ** 2)
    chunks = torch.arange(len(means), device=means.device).split(max(_CHUNK // largest, 1))
    pieces = []
    for rows in chunks:
        factor, _ = _factor(matrix, noise_cov, variances[rows], None if axes is None else axes[rows])
        whitened = torch.linalg.solve_triangular(factor, (y - means[rows] @ matrix.mT).unsqueeze(-1), upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        pieces.append(-0.5 * (whitened.square().sum((-2, -1)) + len(y) * math.log(2 * math.pi)) - log_det)
    terms = log_weights + torch.cat(pieces)
    log_evidence = torch.logsumexp(terms, 0)
    kept = terms - terms.max() > math.log(torch.finfo(terms.dtype).tiny)
    updates = [
        _update(observed, means[rows], variances[rows], None if axes is None else axes[rows])
        for rows in kept.nonzero().flatten().split(max(_CHUNK // largest, 1))
    ]
    means, variances, axes = (torch.cat(parts) for parts in zip(*updates, strict=True))
    return terms[kept] - log_evidence, means, variances, axes, log_evidence


def _factor(matrix: Tensor, noise_cov: Tensor, variances: Tensor, axes: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cholesky factors of S_k, ``(K, M, M)``, and A C_k, ``(K, M, d)``."""
    if axes is None:
        matrix_cov = matrix * variances.unsqueeze(1)
    else:
        matrix_cov = (matrix @ axes * variances.unsqueeze(1)) @ axes.mT
    cov = matrix_cov @ matrix.mT + noise_cov
    factor, failed = torch.linalg.cholesky_ex(0.5 * (cov + cov.mT))
    diagonal = factor.diagonal(dim1=-2, dim2=-1)
    smallest = diagonal.square() <= 1e2 * torch.finfo(cov.dtype).eps * cov.diagonal(dim1=-2, dim2=-1)
    if bool(failed.any()) or bool(smallest.any()):
        raise ValueError(
            "A C Aᵀ + Γ must be positive definite for every component, but it is singular: a measurement without noise "
            "repeats others, or the model does not vary along it; state the noise, or leave that measurement out."
        )
    return factor, matrix_cov


def _update(observed: Observed, means: Tensor, variances: Tensor, axes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Means, eigenvalues and eigenvectors of components given the observation."""
    matrix, y = observed.matrix, observed.y
    factor, matrix_cov = _factor(matrix, observed.noise_cov, variances, axes)
    residual = (y - means @ matrix.mT).unsqueeze(-1)
    half = torch.linalg.solve_triangular(factor, torch.cat([matrix_cov, residual], -1), upper=False)
    half, whitened = half[..., :-1], half[..., -1:]
    if axes is None:
        prior = torch.diag_embed(variances.expand_as(means))
    else:
        prior = (axes * variances.unsqueeze(1)) @ axes.mT
    cov = prior - half.mT @ half
    values, vectors = torch.linalg.eigh(0.5 * (cov + cov.mT))
    return means + (half.mT @ whitened).squeeze(-1), values.clamp(min=0.0), vectors
