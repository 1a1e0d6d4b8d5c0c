r"""Exact models: mixtures of Gaussians, with noise, score and log-density in closed form at every $\tau$.

A component N(m, C) becomes N(α m, α² C + σ² I) at OU time τ. They are `Model`s, so every sampler, likelihood and plot
runs without training.
`given` is the exact distribution of x_0 given a linear observation, the reference of every posterior method.
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
from scoresde.analytic.conditioning import Observed, condition
from scoresde.analytic.covariances import check_floating, variances_and_axes
from scoresde.guidance.observation import Observation
from scoresde.model import Model, gaussian_process
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import SDE, VPSDE

__all__ = ["GaussianMixture"]


class _Mixture(Model):
    """Components with means ``(K, d)``, covariance eigenvalues ``(K, d)`` or ``(K, 1)`` and eigenvectors (``axes``).

    ``axes`` has shape ``(K, d, d)``; None stands for the coordinate axes.
    """

    sde: SDE
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
        return self.given_component(x, tau)

    def given_component(self, x: Tensor, tau: Scalar, log_likelihood: Tensor | None = None) -> GaussianPrediction:
        """The exact estimates given x and what else is known of the component.

        Args:
            x: ``(B, *D)``.
            tau: OU time, a number or ``(B,)``.
            log_likelihood: Log-likelihood of each component by other evidence, ``(B, K)``; None for no other.
        """
        terms, residual, variance = self._component_terms(x, tau)
        terms = terms if log_likelihood is None else terms + log_likelihood.to(terms)
        responsibility, alpha = torch.softmax(terms, 1), self._broadcast(ou.alpha(tau))
        if self.axes is None:
            slope = alpha * (1.0 - self.variances) / variance
            flat = x.reshape(len(x), self.means.shape[1]).to(self.means.dtype)
            v = flat * _average(responsibility, slope)
            v = v - _average(responsibility, alpha * slope * self.means + self.means)
        else:
            scaled = alpha * (1.0 - self.variances) * variance.rsqrt() * residual
            v = _average(responsibility, torch.einsum("bke,kde->bkd", scaled, self.axes) - self.means)
        return GaussianPrediction(x, tau, expand(ou.sigma(tau), x) * v.reshape(x.shape).to(x.dtype), V())

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
        if self.axes is not None and len(self.axes) == 1:
            noise = noise @ self.axes[0].mT  # not a matrix per sample
        elif self.axes is not None:
            noise = torch.einsum("be,bde->bd", noise, self.axes[component])
        x = ou.alpha(tau) * (self.means[component] + noise) + ou.sigma(tau) * Noise(generator).normal(noise)
        return x.reshape(n, *(self.event_shape or ()))

    def given(
        self,
        observation: Observation | Tensor,
        y: Tensor | None = None,
        noise_cov: Tensor | None = None,
        index: int | None = None,
    ) -> tuple[GaussianMixture, Tensor]:
        r"""The exact distribution of $x_0$ given $y = A x_0 + n$, $n \sim N(0, \Gamma)$, and $\log p(y)$.

        $S_k = A C_k A^T + \Gamma$, gain $K_k = C_k A^T S_k^{-1}$: mean $m_k + K_k(y - A m_k)$, covariance
        $C_k - K_k S_k K_k^T$, weight $\propto w_k N(y; A m_k, S_k)$. By Cholesky factors and in logarithms. Components
        whose weight underflows beside the largest are left out.

        Args:
            observation: An `Observation` with a linear operator; only entries that it measures count. Or the matrix A,
                ``(M, d)`` with d elements per event.
            y: With a matrix: the measurements, ``(M,)``.
            noise_cov: With a matrix: Γ, ``(M, M)``; default 0, no noise.
            index: Which of several observations.

        Returns:
            The posterior, a mixture on the same process, and $\log p(y)$ in nats, ``()``.

        Raises:
            TypeError: If the operator is not linear, or ``y`` is given beside an `Observation` or missing beside a
                matrix.
            ValueError: If the shapes do not fit, there are several observations and no ``index``, or an S_k is not
                positive definite, as without noise where two measurements depend on each other.

        Example:
            >>> import torch
            >>> from scoresde import Gaussian
            >>> prior = Gaussian(torch.zeros(2).double(), 1.0)
            >>> posterior, log_evidence = prior.given(torch.tensor([[1.0, 0.0]]), torch.tensor([2.0]), torch.eye(1))
            >>> round(float(posterior.means[0, 0]), 4), round(float(log_evidence), 4)
            (1.0, -2.2655)
        """
        check_arguments(_Mixture.given, locals())
        observed = Observed.of(observation, y, noise_cov, index, self.means)
        log_weights, means, variances, axes, log_evidence = condition(
            self.log_weights, self.means, self.variances, self.axes, observed
        )
        posterior = GaussianMixture.__new__(GaussianMixture)  # weights in logarithms: they may underflow
        _Mixture.__init__(
            posterior,
            log_weights,
            means.reshape(-1, *(self.event_shape or ())),
            variances,
            axes,
            gaussian_process(self),
        )
        return posterior, log_evidence


def _average(responsibility: Tensor, values: Tensor) -> Tensor:
    """Average over the components: values ``(K, d)`` or ``(B, K, d)``, weights ``(B, K)``, result ``(B, d)``."""
    return responsibility @ values if values.ndim == 2 else torch.einsum("bk,bkd->bd", responsibility, values)


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
        check_floating("means", means)
        check_arguments(GaussianMixture, locals())
        if covs.is_meta and not means.is_meta:
            raise TypeError("covs must have values, got a tensor on the meta device; move it to the CPU with its data.")
        if weights.shape != means.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(f"weights must be {len(means)} positive numbers, got {weights.tolist()}.")
        variances, axes = variances_and_axes(covs.to(means), means[0].numel(), len(means))
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
