r"""A linear observation with unit noise: $z = \Lambda V^\top x_0 + n$, $n \sim N(0, I)$, equivalent to $y = A x_0 + n$.

With $\Gamma = LL^\top$ and the singular value decomposition $L^{-1}A = U\Lambda V^\top$ it is $z = U^\top L^{-1}y$. A
mask with independent noise needs no decomposition: V is the identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.tensors import has_values, widest_dtype
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator, Mask

__all__ = ["WhitenedObservation", "log_normal", "whiten"]

_LARGEST = 2**25  # elements of the matrices that `whiten` decomposes


@dataclass(frozen=True, eq=False)
class WhitenedObservation:
    r"""m observations $z = \Lambda V^\top x_0 + n$ with unit noise; tensors have a row for each, or one for all.

    Attributes:
        z: ``(m, 1, k)``.
        gains: Λ, ``(m or 1, 1, k)``; 0 where nothing is measured, where z is 0 too.
        basis: V, ``(m or 1, d, k)``; None for the identity.
        log_constant: What $\log N(y; A x_0, \Gamma)$ has besides $-\tfrac12\|z - \Lambda V^\top x_0\|^2$, ``(m,)``.
    """

    z: Tensor
    gains: Tensor
    basis: Tensor | None
    log_constant: Tensor

    @property
    def size(self) -> int:
        """k, the number of measured coordinates."""
        return self.z.shape[-1]

    def project(self, x: Tensor) -> Tensor:
        r"""$V^\top x$: from ``(m, P, d)`` to ``(m, P, k)``."""
        return x if self.basis is None else x @ self.basis

    def lift(self, c: Tensor) -> Tensor:
        """V c: from ``(m, P, k)`` to ``(m, P, d)``."""
        return c if self.basis is None else c @ self.basis.mT

    def residual(self, x0: Tensor) -> Tensor:
        r"""$z - \Lambda V^\top x_0$, from ``(m, P, d)`` to ``(m, P, k)``."""
        return self.z - self.gains * self.project(x0)

    def log_likelihood(self, x0: Tensor) -> Tensor:
        r"""$\log N(y; A x_0, \Gamma)$ without `log_constant`, nats, ``(m, P)``, summed in the widest type."""
        return -0.5 * _wide(self.residual(x0)).square().sum(-1)

    def narrowed(self) -> WhitenedObservation:
        """The same observation without the coordinates that are 0 for all of its rows, and with an explicit basis."""
        if self.basis is not None:
            return self
        d = self.size
        basis = torch.eye(d, dtype=self.z.dtype, device=self.z.device).unsqueeze(0)
        if not has_values(self.gains):
            return WhitenedObservation(self.z, self.gains, basis, self.log_constant)
        used = (self.gains != 0).flatten(0, 1).any(0).nonzero().flatten()
        return WhitenedObservation(self.z[..., used], self.gains[..., used], basis[..., used], self.log_constant)

    def at(self, index: Tensor) -> WhitenedObservation:
        """The observations with these indices, ``(m,)``."""

        def part(tensor: Tensor) -> Tensor:
            return tensor if len(tensor) == 1 else tensor[index]

        basis = None if self.basis is None else part(self.basis)
        return WhitenedObservation(self.z[index], part(self.gains), basis, self.log_constant[index])


def whiten(observation: Observation, like: Tensor, user: str, floor: float) -> WhitenedObservation:
    """A linear observation with noise, in the type and on the device of ``like``.

    Args:
        observation: One observation, or several.
        like: Type and device of the states.
        user: What needs it, for the message.
        floor: The least standard deviation of independent noise; smaller ones are replaced by it.

    Raises:
        TypeError: If the operator is not linear.
        ValueError: If the noise covariance is not positive definite, or the matrix is too large.
    """
    operator = observation.operator
    if not isinstance(operator, LinearOperator):
        raise TypeError(f"{user} needs a linear operator, got {type(operator).__name__}.")
    kind = widest_dtype(like.device)
    y = observation.y if observation.count is not None else observation.y.unsqueeze(0)
    y = y.flatten(1).to(device=like.device, dtype=kind)
    support = operator.support()
    measured = torch.ones_like(y[:1], dtype=torch.bool) if support is None else support.to(like.device)
    measured = measured.reshape(-1, y.shape[1])
    std = None
    if observation.noise_std is not None:
        std = observation.noise_std.to(y).flatten().expand(y.shape[1]).clamp(min=floor).unsqueeze(0)
    if isinstance(operator, Mask) and std is not None:
        whitened = _masked(y, measured, std)
    else:
        whitened = _decomposed(observation, operator, y, measured, std, user)
    z, gains, basis, log_constant = whitened
    basis = None if basis is None else basis.to(like.dtype)
    return WhitenedObservation(z.to(like.dtype).unsqueeze(1), gains.to(like.dtype).unsqueeze(1), basis, log_constant)


def _masked(y: Tensor, measured: Tensor, std: Tensor) -> tuple[Tensor, Tensor, None, Tensor]:
    gains = torch.where(measured, 1.0 / std, torch.zeros_like(std))
    log_det = torch.where(measured, std.log(), torch.zeros_like(std)).sum(1)
    constant = -log_det - 0.5 * math.log(2 * math.pi) * measured.sum(1)
    return y * gains, gains, None, constant.expand(len(y))


def _decomposed(
    observation: Observation, operator: LinearOperator, y: Tensor, measured: Tensor, std: Tensor | None, user: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    matrix = _matrices(operator, y, user)
    if std is not None:
        std = torch.where(measured, std, torch.ones_like(std))
        white_y, white, log_det = y / std, matrix / std.unsqueeze(-1), std.log().sum(1)
    else:
        assert observation.noise_cov is not None
        both = measured.unsqueeze(1) & measured.unsqueeze(2)
        eye = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
        factor, info = torch.linalg.cholesky_ex(torch.where(both, observation.noise_cov.to(y), eye))
        if has_values(info) and bool(info.any()):
            raise ValueError(f"{user} needs a positive definite noise_cov; add the variance of the rounding to it.")
        white_y = torch.linalg.solve_triangular(factor, y.unsqueeze(-1), upper=False).squeeze(-1)
        white = torch.linalg.solve_triangular(factor, matrix, upper=False)
        log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    left, gains, right = torch.linalg.svd(white, full_matrices=False)
    z = (left.mT @ white_y.unsqueeze(-1)).squeeze(-1)
    unexplained = (white_y.square().sum(1) - z.square().sum(1)).clamp(min=0.0)
    constant = -log_det - 0.5 * (math.log(2 * math.pi) * measured.sum(1) + unexplained)
    return z, gains, right.mT, constant.expand(len(y))


def _matrices(operator: LinearOperator, y: Tensor, user: str) -> Tensor:
    """A as matrices ``(m or 1, M, d)``."""
    d = math.prod(operator.event_shape)
    sets = 1 if operator.count is None else operator.count
    if sets * d * y.shape[1] > _LARGEST:
        raise ValueError(
            f"{user} decomposes the matrix of the operator, which may have {_LARGEST} elements, got {sets} x "
            f"{y.shape[1]} x {d}; use a Mask, or a Posterior method, which only applies the operator."
        )
    unit = torch.eye(d, dtype=y.dtype, device=y.device).reshape(d, *operator.event_shape)
    if operator.count is None:
        parts = [operator.apply(unit)]
    else:
        index = torch.arange(sets, device=y.device)
        parts = [operator.select(index[i : i + 1].expand(d)).apply(unit) for i in range(sets)]
    return torch.stack([part.reshape(d, -1).mT for part in parts])


def log_normal(residual: Tensor, variance: Tensor) -> Tensor:
    r"""$\sum_i -\tfrac12 r_i^2/v_i - \tfrac12\log v_i$ over the last axis, in the widest type: without $\log 2\pi$."""
    residual, variance = _wide(residual), _wide(variance)
    return -0.5 * (residual.square() / variance + variance.log()).sum(-1)


def _wide(x: Tensor) -> Tensor:
    return x.to(widest_dtype(x.device))
