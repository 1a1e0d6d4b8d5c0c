r"""Which models are exact? Mixtures of Gaussians: noise, score and log-density in closed form at every $\tau$.

A component N(m, C) becomes N(α m, α² C + σ² I). `Gaussian` is a mixture of one, `KernelDensity` one of as many equal
spheres as there are data. All are `Model`s: every sampler, likelihood and plot can be tried without training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.checks import check_finite
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, expand
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.parameterization import Prediction, V
from scoresde.process.sde import SDE, VPSDE

__all__ = ["Gaussian", "GaussianMixture", "KernelDensity"]


class _Mixture(Model):
    """Components: means ``(K, d)``, covariance eigenvalues ``(K, d)`` or ``(K, 1)``, axes ``(K, d, d)`` or None."""

    means: Tensor
    variances: Tensor
    log_weights: Tensor
    axes: Tensor | None

    def __init__(
        self, log_weights: Tensor, means: Tensor, variances: Tensor, axes: Tensor | None, sde: SDE | None
    ) -> None:
        super().__init__()
        for name, value in {"means": means, "covs": variances, "weights": log_weights}.items():
            check_finite(value, name)
        self.sde = VPSDE() if sde is None else sde
        self.event_shape = tuple(means.shape[1:])
        self.register_buffer("means", means.reshape(len(means), -1))
        self.register_buffer("variances", variances)
        self.register_buffer("log_weights", log_weights - torch.logsumexp(log_weights, 0))
        self.register_buffer("axes", axes)

    def _terms(self, x: Tensor, tau: Scalar) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weighted component densities (B, K), standardized residuals (B, K, d) along the axes, and variances."""
        alpha, sigma = self._column(ou.alpha(tau)), self._column(ou.sigma(tau))
        variance = alpha * alpha * self.variances + sigma * sigma
        scale, x = variance.rsqrt(), x.reshape(len(x), 1, self.means.shape[1]).to(self.means.dtype)
        if self.axes is None:
            scaled = torch.addcmul(-alpha * self.means * scale, x, scale)
        else:
            scaled = torch.einsum("bkd,kde->bke", x - alpha * self.means, self.axes) * scale
        size = scaled.shape[-1]
        log_det = variance.log().expand(*variance.shape[:-1], size).sum(-1)
        square = torch.einsum("bkd,bkd->bk", scaled, scaled)
        return self.log_weights - 0.5 * (square + log_det + size * math.log(2 * math.pi)), scaled, variance

    def _column(self, c: Scalar) -> Scalar:
        return c.to(self.means).reshape(-1, 1, 1) if isinstance(c, Tensor) else c

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        r"""The exact $v = \sigma\sum_k r_k(\alpha(I - C_k)(x - \alpha m_k)/var_k - m_k)$, also without signal."""
        if cond:
            raise TypeError(f"an exact model reads no conditioning, got {', '.join(cond)}; leave it out.")
        terms, scaled, variance = self._terms(x, tau)
        share, alpha = torch.softmax(terms, 1), self._column(ou.alpha(tau))
        if self.axes is None:
            slope = alpha * (1.0 - self.variances) / variance
            flat = x.reshape(len(x), self.means.shape[1]).to(self.means.dtype)
            v = flat * _blend(share, slope) - _blend(share, alpha * slope * self.means + self.means)
        else:
            pull = torch.einsum("bke,kde->bkd", alpha * (1.0 - self.variances) * variance.rsqrt() * scaled, self.axes)
            v = _blend(share, pull - self.means)
        return Prediction(x, tau, expand(ou.sigma(tau), x) * v.reshape(x.shape).to(x.dtype), V())

    def _time(self, tau: Scalar) -> Scalar:
        return as_time(tau, high=self.sde.tau_max * (1 + 1e-6))

    def log_prob(self, x: Tensor, tau: Scalar = 0.0) -> Tensor:
        """Exact log-density of x_τ, nats.

        Args:
            x: ``(B, *D)``.
            tau: OU time up to the end of the clock, a number or ``(B,)``; 0 is the data's own law.

        Returns:
            ``(B,)`` in the model's type.

        Raises:
            ValueError: If ``x`` is not finite or of another shape, ``tau`` is no such time, or the law has no density.
        """
        self._check_event(x)
        check_finite(x)
        tau = self._time(tau)
        expand(tau, x)  # for its check of the shape
        terms, _, variance = self._terms(x, tau)
        if variance.device.type == "cpu" and not isinstance(variance, FakeTensor) and not bool((variance > 0).all()):
            raise ValueError("a law with a variance of 0 has no density at tau = 0; ask for a later tau.")
        return torch.logsumexp(terms, 1)

    def sample(self, n: int, tau: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """``n`` exact draws of x_τ, ``(n, *D)``."""
        tau = float(self._time(tau))
        source = self.log_weights if generator is None else self.log_weights.to(generator.device)
        pick = torch.multinomial(source.exp(), max(n, 1), replacement=True, generator=generator)
        pick = pick[:n].to(self.means.device)
        noise = Noise(generator).normal(self.means[pick]) * self.variances[pick].sqrt()
        if self.axes is not None:
            noise = torch.einsum("be,bde->bd", noise, self.axes[pick])
        x = ou.alpha(tau) * (self.means[pick] + noise) + ou.sigma(tau) * Noise(generator).normal(noise)
        return x.reshape(n, *(self.event_shape or ()))


def _blend(share: Tensor, each: Tensor) -> Tensor:
    """Mean of what components have, ``(K, d)`` or ``(B, K, d)``, by their shares ``(B, K)``: ``(B, d)``."""
    return share @ each if each.ndim == 2 else torch.einsum("bk,bkd->bd", share, each)


def _floating(name: str, value: Tensor) -> None:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{name} must be a floating tensor, got {got}; write torch.tensor(…).double().")
    if value.ndim and not len(value):
        raise ValueError(f"{name} must hold at least one, got shape {tuple(value.shape)}.")


def _eigen(covs: Tensor) -> tuple[Tensor, Tensor]:
    apart = float((covs - covs.mT).abs().max())
    if apart > 1e-5 * float(covs.abs().max()):
        raise ValueError(
            f"cov must be symmetric, got elements that differ from their mirror images by up to {apart:.3g}; of a "
            "Cholesky factor L pass L @ L.mT."
        )
    variances, axes = torch.linalg.eigh(covs)
    if bool((variances < -1e-10 * variances.amax(-1, keepdim=True)).any()):
        raise ValueError(f"cov must be positive semi-definite, got an eigenvalue of {variances.min().item():.3g}.")
    return variances.clamp(min=0.0), axes


def _covariances(covs: Tensor, size: int, count: int) -> tuple[Tensor, Tensor | None]:
    """Numbers (K,), diagonals (K, d) or matrices (K, d, d) as eigenvalues and axes."""
    check_finite(covs, "covs")
    if covs.shape == (count, size, size):
        return _eigen(covs)
    if covs.shape not in ((count,), (count, size)):
        raise ValueError(
            f"covs must have shape ({count},), ({count}, {size}) or ({count}, {size}, {size}), got {tuple(covs.shape)}."
        )
    if bool((covs < 0).any()):
        raise ValueError(f"covs must not be negative, got {covs.min().item():.3g}.")
    return covs.reshape(count, -1), None


class Gaussian(_Mixture):
    """N(mean, cov), exact.

    Args:
        mean: ``(*D)``; its type is the model's.
        cov: A number (variance of a sphere), ``(d,)`` variances or ``(d, d)``, with d the event's size.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``mean`` is no floating tensor.
        ValueError: If ``cov`` has another shape, a negative eigenvalue or no symmetry.
    """

    def __init__(self, mean: Tensor, cov: Tensor | float, sde: SDE | None = None) -> None:
        _floating("mean", mean)
        cov = torch.as_tensor(cov, dtype=mean.dtype, device=mean.device)
        variances, axes = _covariances(cov.unsqueeze(0), mean.numel(), 1)
        super().__init__(torch.zeros(1).to(mean), mean.unsqueeze(0), variances, axes, sde)


class GaussianMixture(_Mixture):
    """A mixture of K Gaussians, exact.

    Args:
        weights: ``(K,)``, positive, normalized here.
        means: ``(K, *D)``; their type is the model's.
        covs: ``(K,)`` variances of spheres, ``(K, d)`` or ``(K, d, d)``.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``means`` is no floating tensor.
        ValueError: If the shapes do not fit, a weight is not positive, or a covariance has a negative eigenvalue or no
            symmetry.
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, sde: SDE | None = None) -> None:
        _floating("means", means)
        if weights.shape != means.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {len(means)} positive numbers, got {weights.tolist()}.")
        variances, axes = _covariances(covs.to(means), means[0].numel(), len(means))
        super().__init__(weights.to(means).log(), means, variances, axes, sde)

    @classmethod
    def ring(
        cls, modes: int = 8, radius: float = 1.0, std: float = 0.1, unit: bool = True, sde: SDE | None = None
    ) -> GaussianMixture:
        """``modes`` equal spheres on a circle in the plane, float64; ``unit`` scales each coordinate to variance 1."""
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        scale = 1 / math.sqrt(0.5 * radius**2 + std**2) if unit else 1.0
        means = scale * radius * torch.stack([angle.cos(), angle.sin()], 1)
        return cls(torch.ones(modes), means, torch.full((modes,), (scale * std) ** 2), sde)


class KernelDensity(_Mixture):
    """A data set's kernel density with a Gaussian kernel: the exact optimum of score matching as bandwidth → 0.

    Args:
        data: ``(n, *D)``; its type is the model's.
        bandwidth: Standard deviation of the kernel, in the data's units.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``data`` is no floating tensor.
        ValueError: If the bandwidth is not positive, or there are no data.
    """

    def __init__(self, data: Tensor, bandwidth: float, sde: SDE | None = None) -> None:
        _floating("data", data)
        if not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth must be positive and finite, got {bandwidth!r}.")
        super().__init__(
            torch.zeros(len(data)).to(data), data, torch.full((len(data), 1), bandwidth**2).to(data), None, sde
        )
