r"""Weightings of the loss: $\lambda(u) \ge 0$ multiplies $\|\hat\varepsilon - \varepsilon\|^2$ under uniform u.

`scoresde.objective.equivalences` lists which weightings of the literature give the same loss.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_kind, check_positive
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import unknown_name
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.parameterization import Parameterization, V

__all__ = [
    "EDM",
    "ELBO",
    "P2",
    "SNR",
    "DiscreteVLB",
    "CustomWeighting",
    "LikelihoodWeighting",
    "MinSNR",
    "Regression",
    "SigmoidWeighting",
    "Simple",
    "Weighting",
]


class Weighting(CheckedArguments, ABC):
    """λ: one number per time, computed from the forward kernel and the clock's rate at that time."""

    @abstractmethod
    def __call__(self, m: Marginal) -> Scalar:
        """λ ≥ 0 at the times of ``m``: a float for a float, ``(B,)`` for ``(B,)``."""


def _constant(value: float, m: Marginal) -> Scalar:
    return torch.full_like(m.tau, value) if isinstance(m.tau, Tensor) else value


@dataclass(frozen=True)
class Simple(Weighting):
    r"""$\lambda = 1$: DDPM's simple loss, $\sigma^2$-weighted score matching and SNR-weighted regression on x_0.

    Source: Ho, Jain & Abbeel 2020, eq. 14; Song & Ermon 2019, section 4.2.
    """

    def __call__(self, m: Marginal) -> Scalar:
        return _constant(1.0, m)


@dataclass(frozen=True)
class DiscreteVLB(Weighting):
    r"""DDPM's variational bound, $\lambda = \beta^2/(2\,rev\_var\,(1 - \beta)(1 - \bar\alpha))$, nats per step.

    It needs `DiscreteTimesteps`. The sum over the chain's K terms is K times the mean over k, and K times λ tends to
    `ELBO` as K grows. With $rev\_var = \tilde\beta$ it is
    $\tfrac12(e^{\mathrm{logSNR}_s - \mathrm{logSNR}_\tau} - 1)$. That is infinite at k = 1, whose term is a decoder's
    likelihood and not a regression: draw timesteps by ``DiscreteTimesteps(steps, first=2)``.

    Args:
        rev_var: ``"beta"`` or ``"beta_tilde"``.

    Source: Ho, Jain & Abbeel 2020, eq. 12.
    """

    rev_var: str = "beta"

    def __post_init__(self) -> None:
        names = ("beta", "beta_tilde")
        if not isinstance(self.rev_var, str) or self.rev_var not in names:
            raise ValueError(unknown_name("rev_var", str(self.rev_var), names))

    def __call__(self, m: Marginal) -> Scalar:
        """λ of the steps from ``m.tau`` to ``m.s``.

        Raises:
            ValueError: If ``m.s`` is None, or a step ends at tau = 0.
        """
        if m.s is None:
            raise ValueError(
                "DiscreteVLB needs the steps of a chain; draw timesteps by DiscreteTimesteps(steps), or use ELBO()."
            )
        if not isinstance(m.tau, Tensor) and m.tau == 0:
            raise ValueError("DiscreteVLB is defined at the knots k = 1 … K, got tau = 0; pass a later time.")
        if self.rev_var == "beta_tilde":
            return 0.5 * ew.expm1(ou.log_snr(m.s) - ou.log_snr(m.tau))
        # beta / (1 - beta), finite also where beta rounds to 1
        odds = ew.expm1(2.0 * (m.tau - m.s))
        return odds / (2.0 * ou.beta(m.tau, 0.0))


@dataclass(frozen=True)
class ELBO(Weighting):
    r"""The evidence lower bound in continuous time, $\lambda = -\tfrac12\,d\,\mathrm{logSNR}/du = (d\tau/du)/\sigma^2$.

    Example:
        >>> from scoresde import ELBO
        >>> from scoresde.process import LogLinear, VPSDE
        >>> round(float(ELBO()(VPSDE(LogLinear(12.0, -10.0)).marginal(0.5))), 6)  # half the range of log-SNR
        11.0

    Source: Kingma et al. 2021, eq. 17.
    """

    def __call__(self, m: Marginal) -> Scalar:
        return ew.div(m.rate, ou.beta(m.tau, 0.0))


@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    r"""Score errors weighted by $g^2$: $\tfrac12 g^2\|\hat s - s\|^2$ with $g^2 = 2\,d\tau/du$, which is `ELBO`.

    Source: Song et al. 2021 (Maximum likelihood training of score-based diffusion models), theorem 1.
    """

    def __call__(self, m: Marginal) -> Scalar:
        return ew.div(0.5 * (2.0 * m.rate), m.sigma * m.sigma)


@dataclass(frozen=True)
class SNR(Weighting):
    r"""$\mathrm{SNR}^{power}\|\hat x_0 - x_0\|^2$: power 1 is `Simple`, power 0 plain regression on x_0.

    On the error in ε it is $\lambda = \mathrm{SNR}^{power - 1}$.

    Source: Salimans & Ho 2022, section 4.
    """

    power: float = 1.0

    def __call__(self, m: Marginal) -> Scalar:
        return _constant(1.0, m) if self.power == 1.0 else ew.exp((self.power - 1.0) * m.log_snr)


@dataclass(frozen=True)
class MinSNR(Weighting):
    r"""$\min(\mathrm{SNR}, \gamma)\|\hat x_0 - x_0\|^2$, so $\lambda = \min(1, \gamma/\mathrm{SNR})$.

    Example:
        >>> from scoresde import MinSNR
        >>> from scoresde.process import VPSDE
        >>> [round(float(MinSNR(gamma=5)(VPSDE().marginal(u))), 3) for u in (0.05, 0.5, 1.0)]
        [0.152, 1.0, 1.0]

    Source: Hang et al. 2023, eq. 7.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:  # inf is `Simple`
            raise ValueError(f"gamma must be positive, got {self.gamma!r}.")

    def __call__(self, m: Marginal) -> Scalar:
        return ew.clamp(self.gamma * ew.exp(-m.log_snr), high=1.0)


@dataclass(frozen=True)
class P2(Weighting):
    r"""$\lambda = (k + \mathrm{SNR})^{-\gamma}$ on the simple loss.

    Source: Choi et al. 2022 (Perception prioritized training), eq. 8.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_positive(k=self.k)
        if not self.gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {self.gamma!r}.")

    def __call__(self, m: Marginal) -> Scalar:
        return ew.exp(-self.gamma * ew.log(self.k + m.snr))


@dataclass(frozen=True)
class EDM(Weighting):
    r"""EDM's weight and its log-normal distribution of $\tilde\sigma = \sigma/\alpha$, as one λ under uniform u.

    The weight is 1 on EDM's own target. The loss is the same on every clock:
    $\lambda = \frac{\tilde\sigma^2 + \sigma_d^2}{\sigma_d^2}\,p(\ell)\,|d\ell/du|$ with $\ell = -2\ln\tilde\sigma$ and
    $\ln\tilde\sigma \sim N(P_{mean}, P_{std}^2)$.

    Source: Karras et al. 2022, table 1.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        check_positive(p_std=self.p_std, sigma_data=self.sigma_data)

    def __call__(self, m: Marginal) -> Scalar:
        z = (-0.5 * m.log_snr - self.p_mean) / self.p_std
        # one exponent: beyond sigma~ = e^300 the factors alone would overflow
        exponent = -0.5 * z * z
        density = ew.exp(exponent) + ew.exp(exponent - m.log_snr) / self.sigma_data**2
        density = density / (2.0 * self.p_std * math.sqrt(2 * math.pi))
        return ew.where(m.log_snr == math.inf, 0.0, density * (2.0 * ELBO()(m)))  # the limit at tau = 0


@dataclass(frozen=True)
class SigmoidWeighting(Weighting):
    r"""$w = \mathrm{sigmoid}(bias - \ell)$, so $\lambda = w\,\lambda_{ELBO}$: the same loss on every clock.

    Raises:
        ValueError: If ``bias`` is so large that its exponential overflows.

    Source: Kingma & Gao 2023, section 5; Hoogeboom et al. 2024 (Simpler diffusion).
    """

    bias: float = 2.0

    def __post_init__(self) -> None:
        if not -700 < self.bias < 700:
            raise ValueError(f"bias must lie in (-700, 700) nats of log-SNR, got {self.bias!r}; 2.0 is usual.")

    def __call__(self, m: Marginal) -> Scalar:
        value = ew.sigmoid(self.bias - m.log_snr) * ELBO()(m)
        return ew.where(m.log_snr == math.inf, math.exp(self.bias) * m.rate, value)  # the limit at tau = 0


@dataclass(frozen=True)
class Regression(Weighting):
    r"""Unweighted squared error in the units of ``target``: $\lambda = (\det/\alpha)^2$.

    `Eps()` gives `Simple`, `X0()` gives ``SNR(power=0)``, `V()` Salimans & Ho's SNR + 1, `Velocity()` flow matching.

    Source: Kingma & Gao 2023, appendix D.
    """

    target: Parameterization = V()

    def __post_init__(self) -> None:
        check_kind("target", self.target, Parameterization)

    def __call__(self, m: Marginal) -> Scalar:
        factor = self.target.eps_factor(m.tau)
        return 1.0 / (factor * factor)


@dataclass(frozen=True)
class CustomWeighting(Weighting):
    """A user's own λ as a function of a `Marginal` (``m.tau``, ``m.log_snr``, ``m.rate``, … of shape ``(B,)``).

    A function has no text form. To store it with a checkpoint, write a small frozen dataclass like those above.
    """

    function: Callable[[Marginal], Scalar]

    def __repr__(self) -> str:
        return f"CustomWeighting({getattr(self.function, '__qualname__', self.function)})"

    def __call__(self, m: Marginal) -> Scalar:
        """The function's value; for a float it is called with tensors of one element."""
        if isinstance(m.tau, Tensor):
            return self.function(m)
        s = None if m.s is None else _one_element(m.s)
        return float(self.function(Marginal(_one_element(m.tau), _one_element(m.rate), s)))


def _one_element(value: Scalar) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64).reshape(1)
