r"""Exact models: mixtures of Gaussians, with noise, score and log-density in closed form at every $\tau$.

A component N(m, C) becomes N(α m, α² C + σ² I) at OU time τ. `Gaussian` has one component; `KernelDensity` has one
isotropic component per data point. All are `Model`s, so every sampler, likelihood and plot runs without training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_finite, check_integer, check_positive
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, expand, has_values
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.parameterization import Prediction, V
from scoresde.process.sde import SDE, VPSDE

__all__ = ["Gaussian", "GaussianMixture", "KernelDensity"]


class _Mixture(Model):
    """Components with means ``(K, d)``, covariance eigenvalues ``(K, d)`` or ``(K, 1)`` and eigenvectors (``axes``).

    ``axes`` has shape ``(K, d, d)``; None stands for the coordinate axes.
    """

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

    def _component_terms(self, x: Tensor, tau: Scalar) -> tuple[Tensor, Tensor, Tensor]:
        """Weighted log-densities (B, K) of the components, residuals (B, K, d) along the axes, and variances.

        The residuals are divided by the standard deviations.
        """
        alpha, sigma = self._broadcast(ou.alpha(tau)), self._broadcast(ou.sigma(tau))
        variance = alpha * alpha * self.variances + sigma * sigma
        inverse_std, x = variance.rsqrt(), x.reshape(len(x), 1, self.means.shape[1]).to(self.means.dtype)
        if self.axes is None:
            residual = torch.addcmul(-alpha * self.means * inverse_std, x, inverse_std)
        else:
            residual = torch.einsum("bkd,kde->bke", x - alpha * self.means, self.axes) * inverse_std
        size = residual.shape[-1]
        log_det = variance.log().expand(*variance.shape[:-1], size).sum(-1)
        square = torch.einsum("bkd,bkd->bk", residual, residual)
        return self.log_weights - 0.5 * (square + log_det + size * math.log(2 * math.pi)), residual, variance

    def _broadcast(self, c: Scalar) -> Scalar:
        return c.to(self.means).reshape(-1, 1, 1) if isinstance(c, Tensor) else c

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        r"""The exact $v = \sigma\sum_k r_k(\alpha(I - C_k)(x - \alpha m_k)/var_k - m_k)$, valid also at α = 0."""
        if cond:
            raise TypeError(f"an exact model reads no conditioning, got {', '.join(cond)}; leave it out.")
        terms, residual, variance = self._component_terms(x, tau)
        responsibility, alpha = torch.softmax(terms, 1), self._broadcast(ou.alpha(tau))
        if self.axes is None:
            slope = alpha * (1.0 - self.variances) / variance
            flat = x.reshape(len(x), self.means.shape[1]).to(self.means.dtype)
            v = flat * _average(responsibility, slope)
            v = v - _average(responsibility, alpha * slope * self.means + self.means)
        else:
            scaled = alpha * (1.0 - self.variances) * variance.rsqrt() * residual
            v = _average(responsibility, torch.einsum("bke,kde->bkd", scaled, self.axes) - self.means)
        return Prediction(x, tau, expand(ou.sigma(tau), x) * v.reshape(x.shape).to(x.dtype), V())

    def largest_value(self) -> float:
        """Magnitude that hardly any sample of the data exceeds: 12 standard deviations from the farthest component."""
        if not has_values(self.means):
            return math.inf
        spread = self.variances.amax(1).sqrt()
        return float((self.means.abs().amax(1, keepdim=True) + 12.0 * spread.unsqueeze(1)).max())

    def _check_time(self, tau: Scalar) -> Scalar:
        return as_time(tau, high=self.sde.tau_max * (1 + 1e-6))

    def log_prob(self, x: ArrayLike, tau: Scalar = 0.0) -> Tensor:
        """Exact log-density of x_τ, nats.

        Args:
            x: ``(B, *D)``.
            tau: OU time up to the end of the clock, a number or ``(B,)``; 0 for the distribution of the data.

        Returns:
            ``(B,)`` in the type of the model.

        Raises:
            ValueError: If ``x`` is not finite or has another shape, ``tau`` is out of range, or the distribution has
                no density at ``tau``.
        """
        x = as_input(self, x, "x")
        self._check_event(x)
        check_finite(x)
        tau = self._check_time(tau)
        expand(tau, x)  # checks the shape of tau
        terms, _, variance = self._component_terms(x, tau)
        if variance.device.type == "cpu" and not isinstance(variance, FakeTensor) and not bool((variance > 0).all()):
            raise ValueError("a distribution with a variance of 0 has no density at tau = 0; pass a later tau.")
        return torch.logsumexp(terms, 1)

    def sample(self, n: int, tau: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Draws exact samples of x_τ.

        Args:
            n: Number of samples.
            tau: OU time up to the end of the clock; 0 for the distribution of the data.
            generator: Source of randomness; None means torch's global one.

        Returns:
            ``(n, *D)``.

        Raises:
            ValueError: If ``tau`` is out of range.
        """
        check_arguments(_Mixture.sample, locals())
        check_integer("n", n, 0)
        tau = float(self._check_time(tau))
        log_weights = self.log_weights if generator is None else self.log_weights.to(generator.device)
        component = torch.multinomial(log_weights.exp(), max(n, 1), replacement=True, generator=generator)
        component = component[:n].to(self.means.device)
        noise = Noise(generator).normal(self.means[component]) * self.variances[component].sqrt()
        if self.axes is not None:
            noise = torch.einsum("be,bde->bd", noise, self.axes[component])
        x = ou.alpha(tau) * (self.means[component] + noise) + ou.sigma(tau) * Noise(generator).normal(noise)
        return x.reshape(n, *(self.event_shape or ()))


def _average(responsibility: Tensor, values: Tensor) -> Tensor:
    """Average over the components: values ``(K, d)`` or ``(B, K, d)``, weights ``(B, K)``, result ``(B, d)``."""
    return responsibility @ values if values.ndim == 2 else torch.einsum("bk,bkd->bd", responsibility, values)


def _check_floating(name: str, value: Tensor, batch: bool = True) -> None:
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


def _variances_and_axes(covs: Tensor, size: int, count: int) -> tuple[Tensor, Tensor | None]:
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


class Gaussian(_Mixture):
    """Exact model of N(mean, cov).

    Args:
        mean: ``(*D)``; its type is that of the model.
        cov: Variance of an isotropic Gaussian, ``(d,)`` variances or a ``(d, d)`` matrix, with d elements per event.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``mean`` is not a floating tensor.
        ValueError: If ``cov`` has another shape, has a negative eigenvalue, or is not symmetric.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian
        >>> model = Gaussian(torch.tensor([1.0]), 0.25)
        >>> prediction = model(torch.tensor([[0.5]]), tau=1.0)
        >>> [round(float(value), 4) for value in (prediction.x0, prediction.eps, prediction.score)]
        [1.0135, 0.1367, -0.147]
    """

    def __init__(self, mean: Tensor, cov: Tensor | float, sde: SDE | None = None) -> None:
        _check_floating("mean", mean, batch=False)
        check_arguments(Gaussian, locals())
        if isinstance(cov, Tensor) and cov.is_meta and not mean.is_meta:
            raise TypeError("cov must have values, got a tensor on the meta device; move it to the CPU with its data.")
        cov = torch.as_tensor(cov, dtype=mean.dtype, device=mean.device)
        variances, axes = _variances_and_axes(cov.unsqueeze(0), mean.numel(), 1)
        super().__init__(torch.zeros(1).to(mean), mean.unsqueeze(0), variances, axes, sde)


class GaussianMixture(_Mixture):
    """Exact model of a mixture of K Gaussians.

    Args:
        weights: ``(K,)``, positive; normalized to sum 1.
        means: ``(K, *D)``; their type is that of the model.
        covs: ``(K,)`` variances of isotropic components, ``(K, d)`` variances or ``(K, d, d)`` matrices.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``means`` is not a floating tensor.
        ValueError: If the shapes do not fit, a weight is not positive, or a covariance has a negative eigenvalue or is
            not symmetric.

    Example:
        >>> from scoresde import GaussianMixture
        >>> ring = GaussianMixture.ring(modes=8, std=0.1)
        >>> ring.event_shape, ring.means.shape
        ((2,), torch.Size([8, 2]))
    """

    def __init__(self, weights: Tensor, means: Tensor, covs: Tensor, sde: SDE | None = None) -> None:
        _check_floating("means", means)
        check_arguments(GaussianMixture, locals())
        if covs.is_meta and not means.is_meta:
            raise TypeError("covs must have values, got a tensor on the meta device; move it to the CPU with its data.")
        if weights.shape != means.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {len(means)} positive numbers, got {weights.tolist()}.")
        variances, axes = _variances_and_axes(covs.to(means), means[0].numel(), len(means))
        super().__init__(weights.to(means).log(), means, variances, axes, sde)

    @classmethod
    def ring(
        cls, modes: int = 8, radius: float = 1.0, std: float = 0.1, unit: bool = True, sde: SDE | None = None
    ) -> GaussianMixture:
        """``modes`` equal isotropic Gaussians on a circle in the plane, float64.

        Args:
            modes: Number of components.
            radius: Radius of the circle.
            std: Standard deviation of each component.
            unit: Scales each coordinate to variance 1.
            sde: The process; default `VPSDE`.
        """
        check_arguments(cls.ring, locals())
        check_integer("modes", modes)
        check_positive(radius=radius, std=std)
        angle = 2 * math.pi * torch.arange(modes, dtype=torch.float64) / modes
        scale = 1 / math.sqrt(0.5 * radius**2 + std**2) if unit else 1.0
        means = scale * radius * torch.stack([angle.cos(), angle.sin()], 1)
        return cls(torch.ones(modes), means, torch.full((modes,), (scale * std) ** 2), sde)


class KernelDensity(_Mixture):
    """Exact model of a data set's kernel density estimate with a Gaussian kernel.

    As the bandwidth tends to 0, this is the optimum of denoising score matching on the data set.

    Args:
        data: ``(n, *D)``; its type is that of the model.
        bandwidth: Standard deviation of the kernel, in units of the data.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``data`` is not a floating tensor.
        ValueError: If ``bandwidth`` is not positive and finite, or ``data`` is empty.
    """

    def __init__(self, data: Tensor, bandwidth: float, sde: SDE | None = None) -> None:
        _check_floating("data", data)
        check_arguments(KernelDensity, locals())
        check_positive(bandwidth=bandwidth)
        if bandwidth > 1e15:
            raise ValueError(f"bandwidth must be at most 1e15, so that its square is finite, got {bandwidth!r}.")
        variances = torch.full((len(data), 1), bandwidth**2).to(data)
        super().__init__(torch.zeros(len(data)).to(data), data, variances, None, sde)
