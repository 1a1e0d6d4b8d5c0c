r"""Network targets $p\,x_0 + q\,\varepsilon$, and the estimates of noise, data, score and v that follow from one.

With $x = \alpha x_0 + \sigma\varepsilon$ and $\det = \alpha q - \sigma p$:
$\hat\varepsilon = (\alpha\,out - p\,x)/\det$, $\hat x_0 = (q\,x - \sigma\,out)/\det$,
$\hat v = \alpha\hat\varepsilon - \sigma\hat x_0 = (out - (\alpha p + \sigma q)\,x)/\det$ and
$score = -\hat\varepsilon/\sigma$.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_kind, check_positive
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import as_time, combine
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.schedule import LinearBetas, Schedule
from scoresde.process.sde import SDE, posterior_coefficients

__all__ = ["X0", "Eps", "NetworkOutput", "Parameterization", "PosteriorMean", "Score", "V", "Velocity"]


class NetworkOutput(CheckedArguments, ABC):
    """What the output of a network stands for: how a prediction is made of it."""

    process_kind: ClassVar[type[Process]]
    """The processes that the output belongs to."""

    @abstractmethod
    def prediction(
        self, process: Process, x: Tensor, tau: Scalar, out: Tensor, mix: Tensor | None = None
    ) -> Prediction:
        """The prediction that an output gives.

        Args:
            process: The forward process, of `process_kind`.
            x: State, ``(B, *D)``.
            tau: OU time, a positive number or ``(B,)``.
            out: Output of the network.
            mix: Of a learned variance, see `GaussianPrediction`.
        """

    def output_shape(self, process: Process, x: Tensor) -> tuple[int, ...]:
        """The shape of the output for a state ``x``, ``(B, *D)``; default that of ``x``."""
        return tuple(x.shape)

    def with_known(self, process: Process, x: Tensor, tau: Scalar, out: Tensor, known: Tensor) -> Tensor:
        """The output, exact where entries of $x_0$ are known.

        Args:
            process: The forward process, of `process_kind`.
            x: State, ``(B, *D)``.
            tau: OU time, a positive number or ``(B,)``.
            out: Output of the network.
            known: Entries of $x_0$, NaN where unknown, ``(B, *D)``.

        Raises:
            TypeError: If the process has no such output; it is one of numbers, or of numbers and categories.
        """
        raise TypeError(f"known entries need a process of numbers, or of numbers and categories, got {process}.")


class Parameterization(NetworkOutput, ABC):
    """A linear target of the network. Subclasses define its two coefficients, `coefficients`."""

    process_kind: ClassVar[type[Process]] = SDE

    def prediction(
        self, process: Process, x: Tensor, tau: Scalar, out: Tensor, mix: Tensor | None = None
    ) -> GaussianPrediction:
        return GaussianPrediction(x, tau, out, self, mix)

    def with_known(self, process: Process, x: Tensor, tau: Scalar, out: Tensor, known: Tensor) -> Tensor:
        unknown = known.isnan()
        x0 = torch.where(unknown, 0.0, known).to(out.dtype)
        exact = self.target(x0, GaussianPrediction(x, tau, x0, X0()).eps, tau)
        return torch.where(unknown, out, exact)

    @abstractmethod
    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        r"""(p, q) of the target $p\,x_0 + q\,\varepsilon$ at ``tau``, each a float or of the shape of ``tau``."""

    def target(self, x0: Tensor, eps: Tensor, tau: Scalar) -> Tensor:
        """The target of the network.

        Args:
            x0: Data, ``(B, *D)``.
            eps: Unit normal noise, ``(B, *D)``.
            tau: OU time > 0, a number or ``(B,)``.

        Returns:
            ``(B, *D)``.

        Raises:
            ValueError: If the shapes differ, or ``tau`` is not positive or NaN.
        """
        if x0.shape != eps.shape:
            raise ValueError(f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}.")
        p, q = self.coefficients(as_time(tau, low=5e-324))
        return combine(p, x0, q, eps)

    def determinant(self, tau: Scalar) -> Scalar:
        """α q - σ p. If it is 0, the output does not determine eps and x0."""
        p, q = self.coefficients(tau)
        return ou.alpha(tau) * q - ou.sigma(tau) * p

    def eps_factor(self, tau: Scalar) -> Scalar:
        """Ratio of the eps error to the output error: α / det."""
        return ou.alpha(tau) / self.determinant(tau)


@dataclass(frozen=True)
class Eps(Parameterization):
    r"""The noise, $\varepsilon$. Source: Ho, Jain & Abbeel 2020."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


@dataclass(frozen=True)
class X0(Parameterization):
    r"""The data, $x_0$ (a denoiser). Source: Ho, Jain & Abbeel 2020, section 3.2."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0


@dataclass(frozen=True)
class Score(Parameterization):
    r"""The score of the kernel, $-\varepsilon/\sigma$. Source: Song & Ermon 2019."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        return 0.0, -1.0 / ou.sigma(tau)


@dataclass(frozen=True)
class V(Parameterization):
    r"""$v = (\sigma_d\alpha\,\varepsilon - \sigma x_0/\sigma_d)/n$ with $n = \sqrt{\sigma^2 + \sigma_d^2\alpha^2}$.

    With ``sigma_data`` $\sigma_d = 1$ this is $\alpha\varepsilon - \sigma x_0$. For data of standard deviation
    $\sigma_d$ it is minus the target of EDM's preconditioning, with unit variance at every time. EDM also scales the
    input by 1/n; this class does not, so a network that needs it must scale its input.

    Args:
        sigma_data: Standard deviation $\sigma_d$ of the data, positive.

    Source: Salimans & Ho 2022, appendix D; Karras et al. 2022, eq. 7.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        check_positive(sigma_data=self.sigma_data)

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        if self.sigma_data == 1.0:
            return -sigma, alpha
        n = ew.sqrt(sigma * sigma + (self.sigma_data * alpha) * (self.sigma_data * alpha))
        return -sigma / (self.sigma_data * n), self.sigma_data * alpha / n


@dataclass(frozen=True)
class Velocity(Parameterization):
    r"""The straight path's velocity, $\varepsilon - x_0$. Source: Lipman et al. 2023."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


@dataclass(frozen=True)
class PosteriorMean(Parameterization):
    r"""DDPM's posterior mean one chain step earlier, $e^{-s}x_0 + (e^{-\Delta}\sigma_s^2/\sigma_\tau)\,\varepsilon$.

    Args:
        schedule: The clock of the chain, which must be that of the process.
        steps: Length K of the chain; ``s`` is the time at u - 1/K (0 in the first step).

    Source: Ho, Jain & Abbeel 2020, eqs. 7–8.
    """

    schedule: Schedule = LinearBetas()
    steps: int = 1000

    def __post_init__(self) -> None:
        check_kind("schedule", self.schedule, Schedule)
        check_integer("steps", self.steps)

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        u = self.schedule.u(tau) - 1.0 / self.steps
        first = u <= 1e-9
        s = ew.where(first, 0.0 * u, self.schedule.tau(ew.where(first, 0.0 * u, u)))
        _, on_x, _ = posterior_coefficients(tau, s)
        return ou.alpha(s), on_x * ou.sigma(tau)
