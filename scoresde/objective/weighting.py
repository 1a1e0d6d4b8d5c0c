r"""How much does each time count? $\lambda$ multiplies $\|\hat\varepsilon - \varepsilon\|^2$ under uniform u.

In log-SNR $\ell$ every loss is $\tfrac12\int w(\ell)\,E\|\hat\varepsilon - \varepsilon\|^2\,d\ell$ with
$w = \lambda / \lambda_{ELBO}$ and $\lambda_{ELBO} = -\tfrac12\,d\ell/du$ (Kingma & Gao 2023): `canonical` computes w
for any (weighting × parameterization × time density), and `table` shows which names are one and the same.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from scoresde.process.schedule import Cosine, LinearVP, Schedule, StraightPath
from scoresde.process.sde import Marginal

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
    "canonical",
    "equivalence_table",
]


class Weighting(ABC):
    """λ: one number per time, from the kernel and the clock's rate there."""

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
        """1."""
        return _constant(1.0, m)


@dataclass(frozen=True)
class DiscreteVLB(Weighting):
    r"""DDPM's bound on the chain, $\lambda = \beta^2/(2\,rev\_var\,(1 - \beta)(1 - \bar\alpha))$, nats; needs `DiscreteTimesteps`.

    The sum over the chain's K terms is K times the mean over k, and K times λ tends to `ELBO` as K grows. With
    $rev\_var = \tilde\beta$ it is $\tfrac12(e^{\mathrm{logSNR}_s - \mathrm{logSNR}_\tau} - 1)$, infinite in the first
    step, whose term is a decoder's and not a regression: draw times by ``DiscreteTimesteps(steps, first=2)``.

    Args:
        rev_var: ``"beta"`` or ``"beta_tilde"``.

    Source: Ho, Jain & Abbeel 2020, eq. 12.
    """

    rev_var: str = "beta"

    def __post_init__(self) -> None:
        known = ("beta", "beta_tilde")
        if self.rev_var not in known:
            raise ValueError(f"no rev_var is named {self.rev_var!r}; {nearest(str(self.rev_var), known)}")

    def __call__(self, m: Marginal) -> Scalar:
        """λ at the steps (m.s, m.tau).

        Raises:
            ValueError: If the times are not steps of a chain.
        """
        if m.s is None:
            raise ValueError(
                "DiscreteVLB needs the steps of a chain; draw times by DiscreteTimesteps(steps), or use ELBO()."
            )
        if not isinstance(m.tau, Tensor) and m.tau == 0:
            raise ValueError("ChainBound is a step's weight, and no step ends at tau = 0; ask at the knots from k = 1.")
        if self.rev_var == "beta_tilde":
            return 0.5 * ew.expm1(ou.log_snr(m.s) - ou.log_snr(m.tau))
        # beta / (1 - beta), finite also where beta rounds to 1
        odds = ew.expm1(2.0 * (m.tau - m.s))
        return odds / (2.0 * ou.beta(m.tau, 0.0))


@dataclass(frozen=True)
class ELBO(Weighting):
    r"""The evidence bound in continuous time, $\lambda = -\tfrac12\,d\,\mathrm{logSNR}/du = (d\tau/du)/\sigma^2$.

    Source: Kingma et al. 2021, eq. 17.
    """

    def __call__(self, m: Marginal) -> Scalar:
        """rate / σ²."""
        return ew.div(m.rate, ou.beta(m.tau, 0.0))


@dataclass(frozen=True)
class LikelihoodWeighting(Weighting):
    r"""Score errors weighted by $g^2$: $\tfrac12 g^2\|\hat s - s\|^2$ with $g^2 = 2\,d\tau/du$, which is `ELBO`.

    Source: Song et al. 2021 (Maximum likelihood training of score-based diffusion models), theorem 1.
    """

    def __call__(self, m: Marginal) -> Scalar:
        """½ g² / σ²."""
        return ew.div(0.5 * (2.0 * m.rate), m.sigma * m.sigma)


@dataclass(frozen=True)
class SNR(Weighting):
    r"""$\mathrm{SNR}^{power}\|\hat x_0 - x_0\|^2$: power 1 is `Simple`, power 0 plain regression on x_0.

    Source: Salimans & Ho 2022, section 4.
    """

    power: float = 1.0

    def __call__(self, m: Marginal) -> Scalar:
        """SNR^(power - 1)."""
        return _constant(1.0, m) if self.power == 1.0 else ew.exp((self.power - 1.0) * m.log_snr)


@dataclass(frozen=True)
class MinSNR(Weighting):
    r"""$\min(\mathrm{SNR}, \gamma)\|\hat x_0 - x_0\|^2$, so $\lambda = \min(1, \gamma/\mathrm{SNR})$.

    Source: Hang et al. 2023, eq. 7.
    """

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma!r}.")

    def __call__(self, m: Marginal) -> Scalar:
        """min(SNR, γ) / SNR."""
        return ew.clamp(self.gamma * ew.exp(-m.log_snr), high=1.0)


@dataclass(frozen=True)
class P2(Weighting):
    r"""$\lambda = (k + \mathrm{SNR})^{-\gamma}$ on the simple loss.

    Source: Choi et al. 2022 (Perception prioritized training), eq. 8.
    """

    k: float = 1.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        if not (self.k > 0 and self.gamma >= 0):
            raise ValueError(f"k must be positive and gamma at least 0, got k = {self.k!r}, gamma = {self.gamma!r}.")

    def __call__(self, m: Marginal) -> Scalar:
        """(k + SNR)^-γ."""
        return ew.exp(-self.gamma * ew.log(self.k + m.snr))


@dataclass(frozen=True)
class EDM(Weighting):
    r"""EDM's weight and noise law together: $\tilde\sigma = \sigma/\alpha$ log-normal, unit weight on its own target.

    Held against uniform u, so it is the same loss on every clock:
    $\lambda = \frac{\tilde\sigma^2 + \sigma_d^2}{\sigma_d^2}\,p(\ell)\,|d\ell/du|$ with $\ell = -2\ln\tilde\sigma$ and
    $\ln\tilde\sigma \sim N(P_{mean}, P_{std}^2)$.

    Source: Karras et al. 2022, table 1.
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if not (self.p_std > 0 and self.sigma_data > 0):
            raise ValueError(
                f"p_std and sigma_data must be positive, got p_std = {self.p_std!r}, sigma_data = {self.sigma_data!r}."
            )

    def __call__(self, m: Marginal) -> Scalar:
        """λ from the density of log-SNR."""
        z = (-0.5 * m.log_snr - self.p_mean) / self.p_std
        # one exponent: beyond sigma~ = e^300 the factors alone would overflow
        near, far = -0.5 * z * z, -0.5 * z * z - m.log_snr
        density = (ew.exp(near) + ew.exp(far) / self.sigma_data**2) / (2.0 * self.p_std * math.sqrt(2 * math.pi))
        return ew.where(m.log_snr == math.inf, 0.0, density * (2.0 * ELBO()(m)))  # at tau = 0 the limit


@dataclass(frozen=True)
class SigmoidWeighting(Weighting):
    r"""$w = \mathrm{sigmoid}(bias - \ell)$, so $\lambda = w\,\lambda_{ELBO}$: the same loss on every clock.

    Source: Kingma & Gao 2023, section 5; Hoogeboom et al. 2024 (Simpler diffusion).
    """

    bias: float = 2.0

    def __call__(self, m: Marginal) -> Scalar:
        """sigmoid(bias - logSNR) · λ_ELBO."""
        value = ew.sigmoid(self.bias - m.log_snr) * ELBO()(m)
        return ew.where(m.log_snr == math.inf, math.exp(self.bias) * m.rate, value)  # at tau = 0 the limit


@dataclass(frozen=True)
class Regression(Weighting):
    r"""Plain squared error in a target's own units: $\lambda = (\det/\alpha)^2$.

    `Eps()` gives `Simple`, `X0()` gives ``SNR(power=0)``, `V()` Salimans & Ho's SNR + 1, `Velocity()` flow matching.

    Source: Kingma & Gao 2023, appendix D.
    """

    target: Parameterization = V()

    def __post_init__(self) -> None:
        check_kind("target", self.target, Parameterization)

    def __call__(self, m: Marginal) -> Scalar:
        """(det / α)²."""
        factor = self.target.eps_factor(m.tau)
        return 1.0 / (factor * factor)


@dataclass(frozen=True)
class CustomWeighting(Weighting):
    """A user's own λ as a function of a `Marginal` (``m.tau``, ``m.log_snr``, ``m.rate``, … of shape ``(B,)``).

    A function has no text form: to store one with a checkpoint, make it a small frozen dataclass like those above.
    """

    function: Callable[[Marginal], Scalar]

    def __repr__(self) -> str:
        return f"Custom({getattr(self.function, '__qualname__', self.function)})"

    def __call__(self, m: Marginal) -> Scalar:
        """function(m), which is shown tensors also where one time is asked for."""
        if isinstance(m.tau, Tensor):
            return self.function(m)
        wide = [None if v is None else torch.as_tensor(v, dtype=torch.float64).reshape(1) for v in (m.tau, m.rate, m.s)]
        assert wide[0] is not None
        assert wide[1] is not None
        return float(self.function(Marginal(wide[0], wide[1], wide[2])))


def canonical(
    weighting: Weighting,
    schedule: Schedule,
    *,
    parameterization: Parameterization | None = None,
    density: Callable[[Marginal], Scalar] | None = None,
) -> Callable[[Scalar], Scalar]:
    r"""The canonical weight $w(\ell) = \lambda\,p/\lambda_{ELBO}$ of $E_{u \sim p}[\lambda\,\|error\|^2]$.

    Args:
        weighting: λ on the error.
        schedule: The clock on which u is drawn.
        parameterization: Whose output's error is measured; default the noise's.
        density: p(u) as a function of the marginal, against uniform; default 1.

    Returns:
        w, a function of log-SNR in nats (a number or a tensor within the clock's range).
    """

    def weight(log_snr: Scalar) -> Scalar:
        tau = ou.tau_from_log_snr(log_snr)
        m = Marginal(tau, schedule.rate(schedule.u(tau)))
        value = weighting(m) * (1.0 if parameterization is None else Regression(parameterization)(m))
        return value * (1.0 if density is None else density(m)) / ELBO()(m)

    return weight


Equivalence = tuple[str, Weighting, Schedule, Parameterization, Callable[[Marginal], Scalar] | None]


def equivalences() -> list[Equivalence]:
    """The literature's losses: (name, weight on the error, clock, whose error, density of u against uniform)."""
    vp, cos = LinearVP(), Cosine()
    snr = CustomWeighting(lambda m: m.snr)
    return [
        ("DDPM simple: |eps|²", Simple(), vp, Eps(), None),
        ("Song: σ² |score|²", CustomWeighting(lambda m: m.sigma**2), vp, Score(), None),
        ("SNR |x0|²", snr, vp, X0(), None),
        ("α² |v|²", CustomWeighting(lambda m: m.alpha**2), vp, V(), None),
        ("SNR(power=1)", SNR(), vp, Eps(), None),
        ("MinSNR(gamma=inf)", MinSNR(math.inf), vp, Eps(), None),
        ("ELBO", ELBO(), vp, Eps(), None),
        ("Likelihood: ½ g² |score|²", CustomWeighting(lambda m: m.rate), vp, Score(), None),
        ("VDM: -½ dSNR/du |x0|²", CustomWeighting(lambda m: m.rate * m.snr / m.sigma**2), vp, X0(), None),
        ("1, u drawn ∝ λ_ELBO", Simple(), vp, Eps(), ELBO()),
        ("x0 regression", Simple(), vp, X0(), None),
        ("SNR(power=0)", SNR(0.0), vp, Eps(), None),
        ("v regression", Simple(), vp, V(), None),
        ("(SNR + 1) |x0|²", CustomWeighting(lambda m: m.snr + 1.0), vp, X0(), None),
        ("EDM's |F|², uniform u", Simple(), vp, V(1.0), None),
        ("P2(k=1, gamma=1)", P2(), vp, Eps(), None),
        ("σ² |eps|²", CustomWeighting(lambda m: m.sigma**2), vp, Eps(), None),
        ("MinSNR(gamma=5)", MinSNR(), vp, Eps(), None),
        ("min(SNR, 5) |x0|²", CustomWeighting(lambda m: ew.clamp(m.snr, high=5.0)), vp, X0(), None),
        ("flow matching: |velocity|²", Simple(), StraightPath(), Velocity(), None),
        (
            "π/2 |v|², cosine clock",
            CustomWeighting(lambda m: 0.5 * math.pi * Simple()(m)),
            Cosine(shift=1e-12),
            V(),
            None,
        ),
        ("EDM", EDM(), vp, Eps(), None),
        ("EDM on a cosine clock", EDM(), cos, Eps(), None),
        ("Sigmoid(bias=2)", SigmoidWeighting(), vp, Eps(), None),
    ]


def equivalence_table(log_snrs: tuple[float, ...] = (-6.0, -3.0, 0.0, 3.0, 6.0)) -> str:
    """The table of the literature's losses as text: w at a few log-SNRs; rows with the same w stand in one group."""
    lines, groups = [], []
    for name, weighting, schedule, parameterization, density in equivalences():
        weight = canonical(weighting, schedule, parameterization=parameterization, density=density)
        values = [float(weight(value)) for value in log_snrs]
        for group in groups:
            if all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(values, group[0], strict=True)):
                group[1].append(name)
                break
        else:
            groups.append((values, [name]))
    lines.append(f"{'w at log-SNR =':46}" + "".join(f"{value:>11g}" for value in log_snrs))
    for values, names in groups:
        lines.append("-" * len(lines[0]))
        shown = "".join(f"{value:>11.4g}" for value in values)
        lines.extend(f"{name:46}{shown if i == 0 else ''}" for i, name in enumerate(names))
    return "\n".join(lines)
