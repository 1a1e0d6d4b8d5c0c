r"""`Observation`: y = A x_0 + n with Gaussian noise n ~ N(0, Γ), in model units."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_finite, check_kind, check_tensor, check_values
from scoresde._core.tensors import has_values
from scoresde.guidance.operators.base import Operator

__all__ = ["Observation"]


class Observation(nn.Module):
    r"""One observation, or several, of unknown events: $y = A x_0 + n$ with $n \sim N(0, \Gamma)$, in model units.

    Args:
        operator: A.
        y: Measurements, ``(*Y)`` for one observation, ``(m, *Y)`` for m of them. Entries that the operator does not
            measure are not read and may be NaN.
        noise_std: Standard deviation of independent noise: a number, or a tensor of the shape of one measurement.
        noise_cov: Covariance Γ of the flattened noise, ``(M, M)``, instead.

    Raises:
        TypeError: If ``operator`` is not an Operator or ``y`` not floating.
        ValueError: If shapes do not fit, a measured entry is not finite, or not exactly one noise is given.
    """

    y: Tensor
    noise_std: Tensor | None
    noise_cov: Tensor | None

    def __init__(
        self,
        operator: Operator,
        y: Tensor,
        noise_std: float | Tensor | None = None,
        noise_cov: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_kind("operator", operator, Operator)
        check_tensor("y", y)
        check_arguments(Observation, locals())
        if not y.is_floating_point():
            raise TypeError(f"y must be a floating tensor, got {y.dtype}; scale it first (Description.to_model).")
        single = tuple(y.shape) == operator.output_shape
        if not single and tuple(y.shape[1:]) != operator.output_shape:
            raise ValueError(
                f"y must have shape {operator.output_shape} or (m, *{operator.output_shape}), got {tuple(y.shape)}."
            )
        if (noise_std is None) == (noise_cov is None):
            raise ValueError("the noise must be stated once, by noise_std or by noise_cov; noise_std=0.0 for none.")
        noises = {"noise_std": noise_std, "noise_cov": noise_cov}
        for name, value in noises.items():
            if isinstance(value, Tensor) and not y.is_meta:
                check_values(name, value)
        self.operator, self.count = operator, None if single else len(y)
        if operator.count is not None and operator.count != self.count:
            raise ValueError(f"y must have one row per parameter set, {operator.count}, got {tuple(y.shape)}.")
        support = operator.support()
        if support is not None and support.device != y.device:
            raise ValueError(
                f"y is on {y.device}, the operator on {support.device}; move one, as by operator.to(y.device)."
            )
        y = y if support is None else y.where(support, 0.0)
        check_finite(y, "y")
        self.register_buffer("y", y)
        if noise_std is not None:
            noise_std = noise_std.to(y) if isinstance(noise_std, Tensor) else y.new_full((), float(noise_std))
        self.register_buffer("noise_std", noise_std)
        self.register_buffer("noise_cov", None if noise_cov is None else noise_cov.to(y))
        self._check_noise(math.prod(operator.output_shape))

    def _check_noise(self, size: int) -> None:
        if self.noise_cov is not None:
            _check_covariance(self.noise_cov, size)
        if self.noise_std is not None:
            if self.noise_std.ndim and tuple(self.noise_std.shape) != self.operator.output_shape:
                raise ValueError(
                    f"noise_std must be a number or have shape {self.operator.output_shape}, got "
                    f"{tuple(self.noise_std.shape)}."
                )
            check_finite(self.noise_std.flatten(), "noise_std")
            if has_values(self.noise_std) and bool((self.noise_std < 0).any()):
                raise ValueError(f"noise_std must not be negative, got {float(self.noise_std.min()):.3g}.")

    def of_batch(self, x: Tensor, index: Tensor | None = None) -> tuple[Operator, Tensor]:
        """Operator and measurements ``(B, *Y)`` of the samples of a batch.

        Args:
            x: The batch, ``(B, *D)``.
            index: Which observation each sample belongs to, integers ``(B,)``; not needed for one observation.

        Raises:
            ValueError: If there are several observations and no index.
        """
        if self.count is None:
            return self.operator, self.y.expand(len(x), *self.y.shape)
        if index is None:
            raise ValueError(
                f"{self.count} observations need an index per sample; pass observation=torch.arange({self.count})."
            )
        return self.operator.select(index), self.y[index]

    def one(self, index: int | None = None) -> Observation:
        """Observation number ``index`` alone; itself if there is one.

        Raises:
            ValueError: If there are several observations and no index.
        """
        if self.count is None:
            return self
        if index is None:
            raise ValueError(f"{self.count} observations need an index; pass one from 0 to {self.count - 1}.")
        return Observation(self.operator.one(index), self.y[index], self.noise_std, self.noise_cov)

    def covariance(self) -> Tensor:
        """Γ as a matrix, ``(M, M)``, of all entries of the flattened measurement, also of those not measured."""
        size = math.prod(self.operator.output_shape)
        if self.noise_cov is not None:
            return self.noise_cov
        assert self.noise_std is not None
        variance = self.noise_std.square().expand(self.operator.output_shape).flatten()
        return torch.diag(variance) if size else variance.new_zeros(0, 0)

    def apply_noise_cov(self, r: Tensor) -> Tensor:
        """Γ r for ``r`` of shape ``(B, *Y)``."""
        if self.noise_cov is not None:
            return (r.reshape(len(r), len(self.noise_cov)) @ self.noise_cov.to(r.dtype)).reshape(r.shape)
        assert self.noise_std is not None
        return r * self.noise_std.to(r.dtype).square()


def _check_covariance(cov: Tensor, size: int) -> None:
    if cov.shape != (size, size):
        raise ValueError(f"noise_cov must have shape ({size}, {size}), got {tuple(cov.shape)}.")
    check_finite(cov, "noise_cov")
    if not has_values(cov) or not size:
        return
    scale = float(cov.abs().max())
    if float((cov - cov.mT).abs().max()) > 1e-5 * scale:
        raise ValueError("noise_cov must be symmetric; instead of a Cholesky factor L pass L @ L.mT.")
    smallest = float(torch.linalg.eigvalsh(cov)[0])
    if smallest < -1e3 * torch.finfo(cov.dtype).eps * scale * size:
        raise ValueError(f"noise_cov must be positive semi-definite, got an eigenvalue of {smallest:.3g}.")
