r"""The exact model of events of numbers and categories: a mixture of products.

A component k has a Gaussian with diagonal covariance for the numbers and a product of categorical distributions for the
codes. Given k all entries are independent, also at τ, so $p(k \mid x_\tau)$, and with it every estimate, is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, expand
from scoresde.analytic.covariances import check_floating
from scoresde.analytic.discrete import CategoricalMixture
from scoresde.analytic.mixtures import GaussianMixture
from scoresde.model import Model
from scoresde.process.categorical import Categorical
from scoresde.process.mixed import Mixed, MixedPrediction
from scoresde.process.sde import VPSDE

__all__ = ["MixedMixture"]


class MixedMixture(Model):
    """Exact model of a mixture of K products of normal and categorical distributions.

    Args:
        weights: ``(K,)``, positive; normalized to sum 1.
        means: Means of the n numbers, ``(K, n)``; their type is the model's.
        variances: Their variances, ``(K, n)``.
        probs: Probabilities of each class of each category, ``(K, L, C)``, which sum to 1.
        process: The process; default `Mixed` of `VPSDE` and ``Categorical((C, ..., C))``.

    Raises:
        TypeError, ValueError: As `GaussianMixture` and `CategoricalMixture`.
        ValueError: If the shapes are not these.

    Example:
        >>> import torch
        >>> from scoresde.analytic import MixedMixture
        >>> means, probs = torch.tensor([[-1.0], [1.0]]), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
        >>> model = MixedMixture(torch.ones(2), means, torch.full((2, 1), 0.1), probs)
        >>> model.log_prob(torch.tensor([[1.0, 1.0]]))
        tensor([-0.6839])
    """

    sde: Mixed

    def __init__(
        self, weights: Tensor, means: Tensor, variances: Tensor, probs: Tensor, process: Mixed | None = None
    ) -> None:
        super().__init__()
        check_arguments(MixedMixture, locals())
        check_floating("means", means)
        check_floating("probs", probs)
        if means.ndim != 2 or probs.ndim != 3:
            raise ValueError(
                f"means must have shape (K, n) and probs (K, L, C), got {tuple(means.shape)} and {tuple(probs.shape)}."
            )
        if process is None:
            process = Mixed(VPSDE(), Categorical((probs.shape[-1],) * probs.shape[1]))
        self.sde = process
        self.event_shape = (means.shape[1] + probs.shape[1],)
        self.numbers = GaussianMixture(weights, means, variances, process.continuous)
        self.codes = CategoricalMixture(weights, probs.to(means), process.categorical)
        self.cost = 1

    def _log_terms(self, x: Tensor, tau: Scalar) -> tuple[Tensor, Tensor]:
        """Log-densities of the numbers, ``(B, K)``, and of the codes, ``(B, K)``, by component, without weights."""
        numbers, codes = self.sde.split(x)
        density = self.numbers._component_terms(numbers, tau)[0] - self.numbers.log_weights
        return density, self.codes._entry_probs(codes, tau).log().sum(-1)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> MixedPrediction:
        """The exact estimates of numbers and categories given the whole state."""
        if cond:
            raise TypeError(f"an exact model reads no conditioning, got {', '.join(cond)}; leave it out.")
        numbers, codes = self.sde.split(x)
        density, probability = self._log_terms(x, tau)
        return MixedPrediction(
            x,
            tau,
            self.numbers.given_component(numbers, tau, probability),
            self.codes.given_component(codes, tau, density),
        )

    def log_prob(self, x: ArrayLike, tau: Scalar = 0.0) -> Tensor:
        """Exact log-density of the numbers and log-probability of the codes of x_τ together, nats.

        Args:
            x: ``(B, n + L)``.
            tau: OU time up to the end of the clock, a number or ``(B,)``; 0 for the distribution of the data.

        Returns:
            ``(B,)`` in the type of the model.

        Raises:
            ValueError: If ``x`` holds no codes or has another shape, or ``tau`` is out of range.
        """
        x = self.sde.checked_state(as_input(self, x, "x"))
        self._check_event(x)
        tau = as_time(tau, high=self.sde.tau_max * (1 + 1e-6))
        expand(tau, x)  # checks the shape of tau
        density, probability = self._log_terms(x, tau)
        return torch.logsumexp(self.codes.log_weights + density + probability, 1)

    def sample(self, n: int, tau: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """Draws exact samples of x_τ.

        Args:
            n: Number of samples.
            tau: OU time up to the end of the clock; 0 for the distribution of the data.
            generator: Source of randomness; None means torch's global one.

        Returns:
            ``(n, numbers + L)`` in the type of the model.
        """
        check_arguments(MixedMixture.sample, locals())
        check_integer("n", n, 0)
        weights, noise = self.codes.log_weights.exp(), Noise(generator)
        component = torch.multinomial(weights, max(n, 1), replacement=True, generator=generator)[:n]
        means, variances = self.numbers.means[component], self.numbers.variances[component]
        numbers = means + variances.sqrt() * noise.normal(means)
        x = torch.cat([numbers, self.codes.draw(component, noise)], 1)
        return self.sde.perturb(x, tau, self.sde.draw_noise(x, noise))

    def largest_value(self) -> float:
        """Magnitude that hardly any number of the data exceeds."""
        return self.numbers.largest_value()
