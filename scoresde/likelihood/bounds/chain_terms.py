r"""The terms of a chain's bound, $L_T + \sum_k L_{k-1} + L_0$, by draws: the interface of their estimators."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from scoresde._core.noise import Noise

__all__ = ["ChainTerms"]


class ChainTerms(ABC):
    r"""A reverse chain over data, and one draw of each term of its bound.

    Attributes:
        knots: OU times $t_0 < \dots < t_K$.
    """

    knots: tuple[float, ...]

    @property
    def steps(self) -> int:
        """Number of steps K."""
        return len(self.knots) - 1

    @property
    @abstractmethod
    def first(self) -> int:
        """The first step k with a KL term: 1, or 2 where step 1 is the reconstruction."""

    @property
    def decoding_tau(self) -> float:
        """OU time of the state from which the reconstruction starts."""
        return self.knots[self.first - 1]

    @property
    @abstractmethod
    def decoder_calls(self) -> int:
        """Network evaluations of one reconstruction."""

    @property
    def random_prior(self) -> bool:
        """Whether `prior` is a random draw."""
        return False

    @abstractmethod
    def sizes(self) -> Sequence[float]:
        """Size of each step from the first on, in a coordinate in which a term per size changes slowly."""

    def profiled_sizes(self) -> Sequence[float]:
        """The same, times what is known of the spread of the terms: steps are sampled in proportion."""
        return self.sizes()

    @abstractmethod
    def initial_state(self, data: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """The data as states of the widest float type, ``(B, *D)``, and the terms that this adds, nats."""

    @abstractmethod
    def draw_noise(self, x: Tensor, noise: Noise) -> Tensor:
        """The random numbers of one `kl`, ``(B, *D)``."""

    @abstractmethod
    def kl(self, x: Tensor, k: Tensor, z: Tensor, cond: dict[str, object]) -> Tensor:
        """One draw of $L_{k-1}$, nats.

        Args:
            x: Initial state of the data, ``(B, *D)``.
            k: Steps, at least `first`: one for all, ``()`` on the CPU, or one for each sample, ``(B,)``.
            z: From `draw_noise`.
            cond: Passed to the network.

        Returns:
            ``(B,)`` float64.
        """

    @abstractmethod
    def perturb(self, x: Tensor, tau: float, noise: Noise) -> Tensor:
        """One draw of the state at ``tau`` given the initial state, ``(B, *D)``."""

    @abstractmethod
    def reconstruction(self, data: Tensor, x: Tensor, first_state: Tensor, cond: dict[str, object]) -> Tensor:
        """Negative log-likelihood of the data given the state at `decoding_tau`, ``(B,)`` float64, nats."""

    @abstractmethod
    def prior(self, x: Tensor, noise: Noise) -> Tensor:
        r"""Prior term $KL(q(x_T \mid x)\,\|\,\pi)$, ``(B,)`` float64, nats."""
