r"""What does the network output? Each target is $p\,x_0 + q\,\varepsilon$, and with $x$ any output gives them all.

As $x = \alpha x_0 + \sigma\varepsilon$, with $\det = \alpha q - \sigma p$:
$\hat\varepsilon = (\alpha\,out - p\,x)/\det$, $\hat x_0 = (q\,x - \sigma\,out)/\det$,
$\hat v = \alpha\hat\varepsilon - \sigma\hat x_0 = (out - (\alpha p + \sigma q)\,x)/\det$ and
$score = -\hat\varepsilon/\sigma$.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import as_time, combine
from scoresde.process import ou
from scoresde.process.schedule import LinearBetas, Schedule
from scoresde.process.sde import posterior_coefficients

__all__ = ["X0", "Eps", "PosteriorMean", "Parameterization", "Prediction", "Score", "V", "Velocity"]


class Parameterization(ABC):
    """A linear target. Subclasses give its two coefficients; one that wants a scaled input says so by `input_scale`."""

    @abstractmethod
    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        r"""(p, q) of the target $p\,x_0 + q\,\varepsilon$ at ``tau``, each a number or as ``tau``."""

    def target(self, x0: Tensor, eps: Tensor, tau: Scalar) -> Tensor:
        """What the network should output, ``(B, *D)``; ``x0`` and ``eps`` as that, ``tau`` > 0 a number or ``(B,)``."""
        if x0.shape != eps.shape:
            raise ValueError(f"eps must have the shape of x0, {tuple(x0.shape)}, got {tuple(eps.shape)}.")
        p, q = self.coefficients(as_time(tau, low=5e-324))
        return combine(p, x0, q, eps)

    def determinant(self, tau: Scalar) -> Scalar:
        """α q - σ p: where it is 0, the output does not determine eps and x0."""
        p, q = self.coefficients(tau)
        return ou.alpha(tau) * q - ou.sigma(tau) * p

    def eps_factor(self, tau: Scalar) -> Scalar:
        """|eps error| per |output error|: α / det."""
        return ou.alpha(tau) / self.determinant(tau)


@dataclass(frozen=True)
class Eps(Parameterization):
    r"""The noise, $\varepsilon$. Source: Ho, Jain & Abbeel 2020."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        """(0, 1)."""
        return 0.0, 1.0


@dataclass(frozen=True)
class X0(Parameterization):
    r"""The data, $x_0$ (a denoiser). Source: Ho, Jain & Abbeel 2020, section 3.2."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        """(1, 0)."""
        return 1.0, 0.0


@dataclass(frozen=True)
class Score(Parameterization):
    r"""The score of the kernel, $-\varepsilon/\sigma$. Source: Song & Ermon 2019."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        """(0, -1/σ)."""
        return 0.0, -1.0 / ou.sigma(tau)


@dataclass(frozen=True)
class V(Parameterization):
    r"""$v = (\sigma_d\alpha\,\varepsilon - \sigma x_0/\sigma_d)/n$ with $n = \sqrt{\sigma^2 + \sigma_d^2\alpha^2}$.

    With ``sigma_data`` $\sigma_d = 1$ this is $\alpha\varepsilon - \sigma x_0$. For data of standard deviation
    $\sigma_d$ it is minus the target of EDM's preconditioning, of unit variance at every time (EDM also scales the
    input by 1/n; a network that wants that does so itself).

    Source: Salimans & Ho 2022, appendix D; Karras et al. 2022, eq. 7.
    """

    sigma_data: float = 1.0

    def __post_init__(self) -> None:
        if not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive, got {self.sigma_data!r}.")

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        """(-σ/(σ_d n), σ_d α/n)."""
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        if self.sigma_data == 1.0:
            return -sigma, alpha
        n = ew.sqrt(sigma * sigma + (self.sigma_data * alpha) * (self.sigma_data * alpha))
        return -sigma / (self.sigma_data * n), self.sigma_data * alpha / n


@dataclass(frozen=True)
class Velocity(Parameterization):
    r"""The straight path's velocity, $\varepsilon - x_0$. Source: Lipman et al. 2023."""

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        """(-1, 1)."""
        return -1.0, 1.0


@dataclass(frozen=True)
class PosteriorMean(Parameterization):
    r"""DDPM's posterior mean one chain step earlier, $e^{-s}x_0 + (e^{-\Delta}\sigma_s^2/\sigma_\tau)\,\varepsilon$.

    Args:
        schedule: The chain's clock, which must be the process's.
        steps: The chain's length K; ``s`` is the time at u - 1/K (0 in the first step).

    Source: Ho, Jain & Abbeel 2020, eqs. 7–8.
    """

    schedule: Schedule = LinearBetas()
    steps: int = 1000

    def __post_init__(self) -> None:
        check_kind("schedule", self.schedule, Schedule)
        check_integer("steps", self.steps)

    def coefficients(self, tau: Scalar) -> tuple[Scalar, Scalar]:
        r"""$(e^{-s},\ e^{-\Delta}\sigma_s^2/\sigma_\tau)$."""
        u = self.schedule.u(tau) - 1.0 / self.steps
        first = u <= 1e-9
        s = ew.where(first, 0.0 * u, self.schedule.tau(ew.where(first, 0.0 * u, u)))
        _, on_x, _ = posterior_coefficients(tau, s)
        return ou.alpha(s), on_x * ou.sigma(tau)


class _Member:
    """As `functools.cached_property`, without the lock that it holds before Python 3.12: half the cost."""

    def __init__(self, compute: Callable[[Prediction], Tensor]) -> None:
        self._compute, self._name, self.__doc__ = compute, compute.__name__, compute.__doc__

    def __get__(self, prediction: Prediction, owner: type[Prediction]) -> Tensor:
        if prediction is None:  # asked of the class, by whoever reads its documentation
            return self  # pyright: ignore[reportReturnType]
        value = prediction.__dict__[self._name] = self._compute(prediction)
        return value


class Prediction:
    """One network output and all that follows from it; each member is computed when asked for, once.

    Args:
        x: State, ``(B, *D)``.
        tau: Its OU time, a positive number or ``(B,)``.
        out: The network's output, as ``x``.
        parameterization: What ``out`` estimates.
        mix: Where a learned reverse variance stands between log β̃ (0) and log β (1), as ``x``; None if not learned.
    """

    def __init__(
        self, x: Tensor, tau: Scalar, out: Tensor, parameterization: Parameterization, mix: Tensor | None = None
    ) -> None:
        self.x = x
        self.tau = tau
        self.out = out
        self.parameterization = parameterization
        self.mix = mix

    def on(self, member: str) -> tuple[Scalar, Scalar]:
        """Coefficients of a member (``"eps"``, ``"x0"``, ``"v"``, ``"score"``) on the output and on x."""
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

    def _member(self, member: str) -> Tensor:
        on_out, on_x = self.on(member)
        return combine(on_out, self.out, on_x, self.x)

    def step(self, on_x: Scalar, weight: Scalar, member: str) -> Tensor:
        """``on_x * x + weight * member``, ``(B, *D)``: in one go, without forming the member."""
        on_out, besides = self.on(member)
        return combine(on_x + weight * besides, self.x, weight * on_out, self.out)

    @_Member
    def eps(self) -> Tensor:
        """Noise estimate, ``(B, *D)``."""
        return self._member("eps")

    @_Member
    def x0(self) -> Tensor:
        """Data estimate, the posterior mean of x_0, ``(B, *D)``."""
        return self._member("x0")

    @_Member
    def v(self) -> Tensor:
        """α eps - σ x0, the ODE's velocity in the angle φ, ``(B, *D)``."""
        return self._member("v")

    @_Member
    def score(self) -> Tensor:
        """-eps / σ, the score of p_τ, ``(B, *D)``."""
        return self._member("score")
