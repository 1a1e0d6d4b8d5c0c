"""What one network call returns: estimates of the data, and of the noise or of the reverse rates.

`Prediction` is the interface. A Gaussian process has the estimates eps, x0, v and score (`GaussianPrediction`); a
process of categories has the logits of x_0 and the reverse rates (`scoresde.process.discrete_prediction`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.process import ou

if TYPE_CHECKING:
    from scoresde.process.parameterization import Parameterization

__all__ = ["GaussianPrediction", "Prediction", "cached_estimate"]


class cached_estimate:
    """`functools.cached_property` without the lock that it takes before Python 3.12, at half the cost."""

    def __init__(self, compute: Callable[[Any], Tensor]) -> None:
        self._compute, self._name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, prediction: Prediction | None, owner: type[Prediction]) -> Tensor:
        if prediction is None:  # attribute of the class, which documentation tools read
            return self  # pyright: ignore[reportReturnType]
        value = vars(prediction)[self._name] = self._compute(prediction)
        return value


class Prediction(ABC):
    """A network output and what it says of the data. Estimates that a process does not have raise a TypeError.

    Args:
        x: State, ``(B, *D)``.
        tau: OU time of ``x``, a positive number or ``(B,)``.
        out: Output of the network.
    """

    parameterization: Parameterization
    mix: Tensor | None = None

    def __init__(self, x: Tensor, tau: Scalar, out: Tensor) -> None:
        self.x = x
        self.tau = tau
        self.out = out

    @property
    @abstractmethod
    def x0(self) -> Tensor:
        """Data estimate, ``(B, *D)``: the posterior mean of numbers, the most probable class of categories."""

    @property
    def eps(self) -> Tensor:
        """Noise estimate of a Gaussian process, ``(B, *D)``."""
        self._refuse("eps", "Gaussian")

    @property
    def v(self) -> Tensor:
        """α eps - σ x0 of a Gaussian process, ``(B, *D)``."""
        self._refuse("v", "Gaussian")

    @property
    def score(self) -> Tensor:
        """-eps / σ of a Gaussian process, the score of p_τ, ``(B, *D)``."""
        self._refuse("score", "Gaussian")

    def coefficients(self, member: str) -> tuple[Scalar, Scalar]:
        """Coefficients (a, b) of an estimate of a Gaussian process as a·out + b·x."""
        self._refuse(member, "Gaussian")

    def step(self, on_x: Scalar, weight: Scalar, member: str) -> Tensor:
        """``on_x * x + weight * member`` of a Gaussian process, ``(B, *D)``."""
        self._refuse(member, "Gaussian")

    @property
    def logits(self) -> Tensor:
        """Log-probabilities of x_0 of a process of categories, ``(B, *D, C)``."""
        self._refuse("logits", "discrete")

    @property
    def probs(self) -> Tensor:
        """Probabilities of x_0 of a process of categories, ``(B, *D, C)``."""
        self._refuse("probs", "discrete")

    @property
    def rates(self) -> Tensor:
        """Reverse rates of a process of categories to each state, ``(B, *D, S)``."""
        self._refuse("rates", "discrete")

    def step_probs(self, s: Scalar) -> Tensor:
        """Probabilities of the states at ``s`` of a process of categories, ``(B, *D, S)``."""
        self._refuse("step_probs", "discrete")

    def step_weights(self, s: Scalar) -> Tensor:
        """`step_probs` up to a factor per entry, ``(B, *D, S)``."""
        self._refuse("step_weights", "discrete")

    def _refuse(self, member: str, needed: str) -> NoReturn:
        kind = type(self).__name__
        remedy = {
            "Gaussian": "it has probs, logits and rates; sample by Ancestral() or TauLeaping(), train by PathKL()",
            "discrete": "it has eps, x0, v and score; logits belong to Categorical() and Binomial()",
        }[needed]
        raise TypeError(f"{member} is an estimate of a {needed} process, which a {kind} does not have; {remedy}.")


class GaussianPrediction(Prediction):
    """A network output for a Gaussian process and its estimates ``eps``, ``x0``, ``v`` and ``score``.

    Each estimate is computed once, on first access.

    Args:
        x: State, ``(B, *D)``.
        tau: OU time of ``x``, a positive number or ``(B,)``.
        out: Output of the network, shape of ``x``.
        parameterization: The target that ``out`` estimates.
        mix: Interpolation weight of a learned reverse variance between log β̃ (0) and log β (1), shape of ``x``; None
            if the variance is not learned.
    """

    def __init__(
        self, x: Tensor, tau: Scalar, out: Tensor, parameterization: Parameterization, mix: Tensor | None = None
    ) -> None:
        super().__init__(x, tau, out)
        self.parameterization = parameterization
        self.mix = mix

    def coefficients(self, member: str) -> tuple[Scalar, Scalar]:
        """Coefficients (a, b) of an estimate ``"eps"``, ``"x0"``, ``"v"`` or ``"score"`` as a·out + b·x.

        Raises:
            ValueError: If ``member`` is another name.
        """
        p, q = self.parameterization.coefficients(self.tau)
        alpha, sigma = ou.alpha(self.tau), ou.sigma(self.tau)
        det = alpha * q - sigma * p
        if member == "eps":
            return alpha / det, -p / det
        if member == "x0":
            return -sigma / det, q / det
        if member == "v":
            return 1.0 / det, -(alpha * p + sigma * q) / det
        if member == "score":
            return -alpha / (sigma * det), p / (sigma * det)
        raise ValueError(f"a prediction has eps, x0, v and score, got {member!r}; ask for one of them.")

    def _estimate(self, member: str) -> Tensor:
        out_factor, x_factor = self.coefficients(member)
        return combine(out_factor, self.out, x_factor, self.x)

    def step(self, on_x: Scalar, weight: Scalar, member: str) -> Tensor:
        """``on_x * x + weight * member``, ``(B, *D)``, from ``x`` and ``out`` without computing the estimate."""
        out_factor, x_factor = self.coefficients(member)
        return combine(on_x + weight * x_factor, self.x, weight * out_factor, self.out)

    @cached_estimate
    def eps(self) -> Tensor:
        """Noise estimate, ``(B, *D)``."""
        return self._estimate("eps")

    @cached_estimate
    def x0(self) -> Tensor:
        """Data estimate, the posterior mean of x_0, ``(B, *D)``."""
        return self._estimate("x0")

    @cached_estimate
    def v(self) -> Tensor:
        """α eps - σ x0, the velocity of the ODE in the angle φ, ``(B, *D)``."""
        return self._estimate("v")

    @cached_estimate
    def score(self) -> Tensor:
        """-eps / σ, the score of p_τ, ``(B, *D)``."""
        return self._estimate("score")
