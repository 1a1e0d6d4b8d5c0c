r"""τ-leaping, in which entries jump independently with rates that do not change, and its second-order form.

The clock of a leap is $h = \log((1 - \bar\alpha)/\bar\alpha)$. In units of it the reverse rates
$\mu_j = \pi_x(1 - \bar\alpha)(\bar\alpha w_j + (1 - \bar\alpha)\pi_j W)$ of the uniform kernel are bounded (see
`scoresde.process.discrete_prediction`). A leap of length $\Delta$ leaves an entry's state with the probability
$1 - e^{-\Delta\sum_j\mu_j}$, for j in proportion to $\mu_j$. On the absorbing kernel's clock $\log(1 - \bar\alpha)$,
$\mu_j = p(x_0 = j \mid x)$ and a leap is the chain's step. That step also takes the place of a leap of infinite length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde.process import ou
from scoresde.sampling.base import Predict
from scoresde.sampling.discrete import CodeNoise, DiscreteSampler, predicted

__all__ = ["TauLeaping", "TrapezoidalLeaping", "leap_probs"]


@dataclass(frozen=True)
class TauLeaping(DiscreteSampler):
    r"""Leaps from τ to s with the rates at τ.

    An entry jumps once at most in a step. With the absorbing kernel a leap is the chain's step, so that `Ancestral` has
    the same distribution. With the uniform kernel the chain's step also follows the change of the rates in time, which
    a leap does not; it is more accurate with few steps.

    Args:
        steps: Number of steps.
        grid: Default `Chain`, whose last step draws $x_0$.

    Example:
        >>> import torch
        >>> from scoresde import sample
        >>> from scoresde.analytic import DiscreteTable
        >>> from scoresde.sampling import TauLeaping
        >>> sample(DiscreteTable(torch.tensor([[0, 1], [1, 2]])), 3, TauLeaping(10), seeds=range(3)).nfe
        10

    Source: Campbell et al. 2022, section 4.3 (τ-leaping), with one jump at most for unordered classes.
    """

    def step(self, predict: Predict, x: Tensor, tau: float, s: float, noise: CodeNoise) -> Tensor:
        prediction = predicted(predict, x, tau)
        length = ou.log_snr(s) - ou.log_snr(tau)
        if length == math.inf or prediction.process.kernel == "absorbing":
            return noise.codes(prediction.step_weights(s)).to(x.dtype)
        length *= -0.5 * math.expm1(-2.0 * tau)
        return noise.codes(leap_probs(prediction.hot, prediction.rates, length)).to(x.dtype)


@dataclass(frozen=True)
class TrapezoidalLeaping(DiscreteSampler):
    r"""The θ-trapezoidal method of second order, made of the chain's steps: two network calls per step.

    Stage 1 is the chain's step to a time ρ with $\bar\alpha_\rho = \bar\alpha_\tau + \theta(\bar\alpha_s -
    \bar\alpha_\tau)$; it gives y. Stage 2 is the chain's step from y to s with the probabilities
    $\max(0, a_1 p(x_0 \mid y) - a_2 p'(x_0))$ of $x_0$, normalized, where $a_1 = 1/(2\theta(1 - \theta))$ and
    $a_2 = a_1 - 1$. Here $p'$ is Bayes' rule at ρ for an entry's state in y and what the other entries of x say of it.

    The chain's steps follow the change of the rates in time, so that only jumps of other entries matter: pairs of jumps
    have the right probability. The order is 2 where nothing is cut at 0: where no jump of another entry lowers a
    probability below $a_2/a_1$ of its value, one half at θ = ½. Data that forbid combinations of classes exceed that;
    the order is then 1, with a smaller error than that of `Ancestral`.

    Args:
        steps: Number of steps.
        grid: Default `Chain`, which ends at 0.
        theta: θ in (0, 1).

    Raises:
        ValueError: If ``theta`` is outside (0, 1).

    Source: Ren et al. 2025, algorithm 2, which leaps with frozen rates in both stages.
    """

    steps: int = 500
    theta: float = 0.5

    order: ClassVar[int] = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.theta < 1:
            raise ValueError(f"theta must lie in (0, 1), got {self.theta!r}; the symmetric method has 0.5.")

    def step(self, predict: Predict, x: Tensor, tau: float, s: float, noise: CodeNoise) -> Tensor:
        first, middle = predicted(predict, x, tau), _time_between(tau, s, self.theta)
        y = noise.codes(first.step_weights(middle)).to(x.dtype)
        second = predicted(predict, y, middle)
        masked, factor = second.process.kernel == "absorbing", 0.5 / (self.theta * (1.0 - self.theta))
        # a mask says nothing of x_0, and known entries are not read
        unchanged = first if masked else second.with_evidence(first.evidence)
        probs = (second.unknown_probs * factor).sub(unchanged.unknown_probs, alpha=factor - 1.0).clamp(min=0.0)
        corrected = second.with_evidence(probs.log() if masked else probs.log() - second.log_likelihood)
        return noise.codes(corrected.step_weights(s)).to(x.dtype)


def _time_between(tau: float, s: float, theta: float) -> float:
    r"""OU time at which $\bar\alpha$ has gone the fraction ``theta`` of its way from ``tau`` to ``s``."""
    start, end = ou.alpha_bar(tau), ou.alpha_bar(s)
    if end < 0.5:
        return ou.tau_from_alpha_bar(start + theta * (end - start))
    noise = ou.beta(tau, 0.0)  # the same to full relative precision near the data
    return -0.5 * math.log1p(-(noise + theta * (ou.beta(s, 0.0) - noise)))


def leap_probs(hot: Tensor, rates: Tensor, length: float) -> Tensor:
    """Probabilities of the states after a leap, ``(B, *D, S)``.

    Args:
        hot: Indicators of the states before the leap, ``(B, *D, S)``.
        rates: Rates to each state, 0 to the state itself, ``(B, *D, S)``.
        length: Length of the leap in units of the clock.
    """
    total = rates.sum(-1, keepdim=True)
    jump = -torch.expm1(total * -length)
    share = jump / total.clamp(min=torch.finfo(total.dtype).tiny)
    return torch.addcmul(hot * (1.0 - jump), rates, share)
