r"""`JacobianTwist`: Cov(x_0 | x_τ) by Tweedie's formula, $(\sigma^2/\alpha)\,\partial\hat x_0/\partial x$."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde._core.tensors import widest_dtype
from scoresde.inverse._whitened import WhitenedObservation
from scoresde.inverse.base import PosteriorContext
from scoresde.inverse.twists import ChainStep, Twist, TwistState
from scoresde.process import ou
from scoresde.process.sde import posterior_coefficients

__all__ = ["JacobianTwist"]


@dataclass(frozen=True)
class JacobianTwist(Twist):
    r"""$V = (\sigma^2/\alpha)\,\partial\hat x_0/\partial x$, the covariance of x_0 given x_τ by Tweedie's formula.

    Exact for Gaussian data, as MMPS. It costs one network evaluation and one product with the Jacobian for each of the
    k measured coordinates, so it is made for few of them. Where hardly any signal is left, V = I. Where a network's
    Jacobian is so wrong that the covariance of the measurement is not positive definite, its diagonal is used.

    Args:
        largest: The largest k that is admitted.

    Raises:
        ValueError: If ``largest`` is not a positive integer; when sampling, if k is larger.

    Source: Rozet, Andry, Lanusse & Louppe 2024 (MMPS), eqs. 9–13, for the estimate of p(y | x_τ).
    """

    largest: int = 64

    def __post_init__(self) -> None:
        check_integer("largest", self.largest)

    def prepared(self, observation: WhitenedObservation) -> WhitenedObservation:
        observation = observation.narrowed()
        if observation.size > self.largest:
            raise ValueError(
                f"JacobianTwist takes a product with the Jacobian for each of at most {self.largest} measured "
                f"coordinates, got {observation.size}; use IsotropicTwist(), or raise largest."
            )
        return observation

    def at(self, context: PosteriorContext, observation: WhitenedObservation, x: Tensor, tau: float) -> TwistState:
        basis = observation.basis
        assert basis is not None
        scaled = basis * observation.gains  # (m or 1, d, k)
        x0, products = _jacobian_products(context, x, tau, scaled)
        alpha = float(ou.alpha(tau))
        if alpha < torch.finfo(x.dtype).eps ** (1 / 3):  # V is a small difference over α²; that of unit normal data
            columns = scaled.unsqueeze(1).expand_as(products)
        else:
            columns = products * (float(ou.beta(tau, 0.0)) / alpha)
        residual = observation.residual(x0)
        return TwistState(x0, residual, _log_normal(residual, _covariance(scaled, columns)), columns)

    def propose(self, observation: WhitenedObservation, state: TwistState, step: ChainStep) -> tuple[Tensor, Tensor]:
        basis, columns = observation.basis, state.columns
        assert basis is not None
        assert columns is not None
        on_x0, _, beta_tilde = posterior_coefficients(step.tau, step.s)
        scaled = basis * observation.gains
        spread = _covariance(scaled, columns) - _eye(columns)
        square = columns.mT @ columns
        v = _trace(square) / _trace(spread).clamp(min=1e-30)
        f = beta_tilde / (beta_tilde + on_x0 * on_x0 * v)
        slope = columns * (on_x0 / beta_tilde * f)
        noise = _eye(columns) + spread * f
        total = noise + step.rev_var * (slope.mT @ slope)
        e = step.normal(state.x0) * step.rev_var**0.5
        predicted = (e.unsqueeze(-2) @ slope).squeeze(-2)
        factor, _ = torch.linalg.cholesky_ex(noise)
        drawn = (factor @ step.normal(predicted).unsqueeze(-1)).squeeze(-1)
        solved = _solve(total, state.residual - predicted - drawn)
        e = e + step.rev_var * (slope @ solved.unsqueeze(-1)).squeeze(-1)
        remaining = state.residual - (e.unsqueeze(-2) @ slope).squeeze(-2)
        return e, _log_normal(state.residual, total) - _log_normal(remaining, noise)


def _jacobian_products(context: PosteriorContext, x: Tensor, tau: float, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Data estimate ``(m, P, d)`` and Jᵀ times the columns ``(m or 1, d, k)``, as ``(m, P, d, k)``."""
    shape = x.shape[:2]
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        x0 = context.predict(x, tau).x0.reshape(*shape, -1)
        count = columns.shape[-1]
        products: list[Any] = []
        for i in range(count):
            direction = columns[..., i].unsqueeze(1).expand_as(x0)
            (product,) = torch.autograd.grad(x0, x, direction, retain_graph=i + 1 < count)
            products.append(product.reshape(x0.shape))
            context.nfe += context.model.cost
    x0 = x0.detach()
    return x0, torch.stack(products, -1) if products else x0.new_empty((*x0.shape, 0))


def _covariance(scaled: Tensor, columns: Tensor) -> Tensor:
    """I + Λ Vᵀ Cov V Λ, symmetric positive definite, ``(m, P, k, k)``."""
    spread = scaled.mT.unsqueeze(1) @ columns
    covariance = _eye(columns) + 0.5 * (spread + spread.mT)
    _, info = torch.linalg.cholesky_ex(covariance)
    diagonal = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1).clamp(min=1.0))
    return torch.where((info == 0)[..., None, None], covariance, diagonal)


def _eye(columns: Tensor) -> Tensor:
    return torch.eye(columns.shape[-1], dtype=columns.dtype, device=columns.device)


def _trace(x: Tensor) -> Tensor:
    return x.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]


def _solve(covariance: Tensor, r: Tensor) -> Tensor:
    factor, _ = torch.linalg.cholesky_ex(covariance)
    return torch.cholesky_solve(r.unsqueeze(-1), factor).squeeze(-1)


def _log_normal(r: Tensor, covariance: Tensor) -> Tensor:
    """log N(r; 0, covariance) without log 2π, ``(m, P)``."""
    factor, _ = torch.linalg.cholesky_ex(covariance)
    white = torch.linalg.solve_triangular(factor, r.unsqueeze(-1), upper=False).squeeze(-1)
    log_det = factor.diagonal(dim1=-2, dim2=-1).log()
    kind = widest_dtype(r.device)
    return -(0.5 * white.to(kind).square() + log_det.to(kind)).sum(-1)
