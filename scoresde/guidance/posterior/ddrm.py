r"""Denoising diffusion restoration: singular components follow the measurement until its noise exceeds the state's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import SpectralOperator
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift

__all__ = ["DDRM"]


@dataclass(frozen=True)
class DDRM(PosteriorMethod):
    r"""$\Delta = V D S^{-1}U^T r$ with $A = U S V^T$, $D_i = \eta_b$ where $\sigma/\alpha \ge \gamma/s_i$, else 0.

    γ is the standard deviation of the noise. One network evaluation, no backward pass. This is the data estimate of
    the published method; the noise of its steps (its η, and the variance that it subtracts for the measurement's
    noise) belongs to its own sampler and is left out. Without noise and with $\eta_b = 1$ it is `DDNM`.

    Args:
        eta_b: Weight of the measurement, in [0, 1].

    Raises:
        TypeError: With an operator that has no cheap singular value decomposition.
        ValueError: If ``eta_b`` is outside [0, 1]; with noise that is not one number.

    Source: Kawar et al. 2022, "Denoising diffusion restoration models", eqs. 7-8.
    """

    needs_jacobian: ClassVar[bool] = False

    eta_b: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.eta_b <= 1.0:
            raise ValueError(f"eta_b must lie in [0, 1], got {self.eta_b!r}; 1 is usual.")

    def check(self, observation: Observation) -> None:
        if not isinstance(observation.operator, SpectralOperator):
            raise TypeError(
                f"DDRM needs singular values, got {type(observation.operator).__name__}; pass the operator as "
                "Matrix(operator.matrix(), event_shape), or take MMPS()."
            )
        if observation.noise_std is None or observation.noise_std.ndim:
            raise ValueError("DDRM needs one noise_std, a number, for all measurements; take MMPS() otherwise.")

    def jacobian_products(self, measured: int) -> int:
        return 0

    def shift(self, problem: Problem) -> Shift:
        operator, r, variance = problem.operator, problem.residual, problem.noise_variance
        assert isinstance(operator, SpectralOperator)  # both checked
        assert variance is not None
        s = operator.singular_values(r)
        ratio = problem.sigma / problem.alpha
        ratio = ratio.reshape(len(ratio), 1) if isinstance(ratio, Tensor) and ratio.ndim else ratio
        follows = (s > s.amax(-1, keepdim=True) * (s.shape[-1] * torch.finfo(s.dtype).eps)) & (
            s * ratio >= variance.sqrt()
        )
        weighted = (self.eta_b * operator.left(r) / s.where(follows, 1.0)).where(follows, 0.0)
        return Shift(operator.right_adjoint(weighted))
