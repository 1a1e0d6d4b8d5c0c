r"""What do Langevin steps add? At one time they draw a state of any law towards that of $x_\tau$, up to a bias.

A step is $x' = x - \delta\,\hat\varepsilon/\sigma + std\,z$, with $score = -\hat\varepsilon/\sigma$. More steps on the
way back do not take the bias away: a `StepSampler` made of them has no order, and each class states the law that its
steps leave where they are at home, on data N(m, c² I), for which x has the variance $var = \alpha^2c^2 + \sigma^2$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.ddpm import DDPM
from scoresde.sampling.grid import Grid, UniformLogSNR
from scoresde.sampling.multistep import Multistep

__all__ = ["AnnealedLangevin", "Corrector", "Langevin", "PartialRefresh", "PredictorCorrector"]


class Corrector(ABC):
    """A step at one time, sized for each sample by its own state alone."""

    @abstractmethod
    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """The next state at the same time.

        Args:
            x: State, ``(B, *D)``.
            eps_hat: Noise estimate there, as ``x``.
            sigma: Noise scale there, above 0.
            noise: Unit normal noise, as ``x``.
        """


@dataclass(frozen=True)
class PartialRefresh(Corrector):
    r"""Keeps the fraction ``keep`` κ of the noise estimate and fills up with fresh noise.

    $x' = \alpha\hat x_0 + \kappa\sigma\hat\varepsilon + \sigma\sqrt{(1 - \kappa)(2 - (1 - \kappa)p)}\,z$ with
    $p = \|\hat\varepsilon\|^2/d$ of the sample, at most $2/(1 - \kappa)$: a Langevin step with
    $\delta = (1 - \kappa)\sigma^2$ whose noise is less by what its length adds. For data at one point p is about 1, and
    the root that of $1 - \kappa^2$; where the data spread wider than the noise p is about 0, and it is Langevin's.

    On data N(m, c² I), in any dimension, the stationary variance is var itself where p stays in its bounds: the second
    moment's equation, linear in $E\,p = E\|x - \alpha m\|^2\sigma^2/(d\,var^2)$, has that solution for every c.

    Args:
        keep: κ in [0, 1).
    """

    keep: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep must lie in [0, 1), got {self.keep!r}; 0 renews all noise.")

    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """See the class."""
        part = 1.0 - self.keep
        variance = (_mean_square(eps_hat) * (-part * part) + 2.0 * part).clamp(min=0.0)
        return x.add(eps_hat, alpha=-part * sigma).addcmul(noise, variance.sqrt(), value=sigma)


@dataclass(frozen=True)
class Langevin(Corrector):
    r"""$x' = x + \delta\,score + \sqrt{2\delta}\,z$ with $\delta = 2(snr\,\|z\|/\|score\|)^2$, at most $\sigma^2$.

    Norms are each sample's own, not the batch's means as in the paper's code. Its steps are in the coordinates of the
    variance-exploding view; carried over to x the same step has no further factor of α (the paper gives VP one,
    $1 - \beta_k$, which is nearly 1). The bound is ours: in few dimensions $1/\|score\|^2$ has no mean. There, longer
    steps where the score is small also drive x from the modes: take `PartialRefresh`, the default.

    On data N(m, c² I) of many dimensions the stationary variance is $(1 + snr^2)\,var$, the same factor at every time;
    where the bound holds, below $\sigma^2/var \approx 2\,snr^2$, it is $var/(1 - \sigma^2/(2\,var))$.

    Args:
        snr: Ratio of a step's drift to its noise; above 0.

    Source: Song et al. 2021, algorithms 4 and 5.
    """

    snr: float = 0.16

    def __post_init__(self) -> None:
        if not 0 < self.snr < math.inf:
            raise ValueError(f"snr must be a positive finite number, got {self.snr!r}.")

    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """See the class."""
        ratio = _mean_square(noise) / _mean_square(eps_hat)
        part = (ratio * (2.0 * self.snr * self.snr)).clamp(max=1.0)  # of sigma²
        return x.addcmul(eps_hat, part, value=-sigma).addcmul(noise, (part * 2.0).sqrt(), value=sigma)


def _mean_square(x: Tensor) -> Tensor:
    """Per sample, ``(B, 1, …, 1)``."""
    return (x * x).mean(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x * x


@dataclass(frozen=True)
class PredictorCorrector(StepSampler):
    """A step of another sampler, then ``corrections`` steps at the time where it arrives, a network call each.

    At s = 0 there is no noise left to correct, and the last step is the predictor's alone. With corrections it has no
    order: see `PartialRefresh` and `Langevin` for what their steps leave. A multistep method goes on from states that
    it remembers, and would undo them.

    Args:
        steps: Number of the predictor's steps.
        grid: Where they are, default even in log-SNR. Those of the predictor itself must be its defaults, or these.
        predictor: Any `StepSampler`; with corrections no `Multistep`.
        corrections: Number of steps after each, 0 or more.
        corrector: How; ``Langevin(0.16)`` is the paper's.

    Raises:
        ValueError: If the predictor has other steps or another grid, or is a multistep method that is to be corrected,
            or ``corrections`` is negative or no integer.
        TypeError: If the predictor is no `StepSampler`, or the corrector no `Corrector`.

    Source: Song et al. 2021, algorithms 2 and 3.
    """

    grid: Grid = field(default_factory=UniformLogSNR)
    predictor: StepSampler = field(default_factory=DDPM)
    corrections: int = 1
    corrector: Corrector = field(default_factory=PartialRefresh)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kind in {"predictor": StepSampler, "corrector": Corrector}.items():
            check_kind(name, getattr(self, name), kind)
        if isinstance(self.corrections, bool) or not isinstance(self.corrections, int) or self.corrections < 0:
            raise ValueError(f"corrections must be an integer of at least 0, got {self.corrections!r}.")
        if self.corrections and isinstance(self.predictor, Multistep):
            raise ValueError(
                f"a multistep method goes on from states that corrections would change, got {self.predictor}; take one "
                "of single steps, such as DDPM(), DDIM() or Heun(), or corrections=0."
            )
        for name in ("steps", "grid"):
            if getattr(self.predictor, name) not in (getattr(self, name), _default(self.predictor, name)):
                raise ValueError(
                    f"the predictor walks the {name} of the whole, {getattr(self, name)}, got {self.predictor}; give "
                    f"{name}= to PredictorCorrector and leave it out of the predictor."
                )

    @cached_property
    def _walker(self) -> StepSampler:
        """The predictor with the steps and the grid of the whole, on which its settings may depend."""
        return replace(self.predictor, steps=self.steps, grid=self.grid)

    @property
    def order(self) -> int | None:
        """None; without corrections the predictor's."""
        return None if self.corrections else self._walker.order

    @property
    def start_order(self) -> int | None:
        """As `order`."""
        return None if self.corrections else self._walker.start_order

    @property
    def stochastic(self) -> bool:
        """Yes; without corrections as the predictor."""
        return self.corrections > 0 or self._walker.stochastic

    def brownian_clock(self, tau: float) -> float:
        """The predictor's."""
        return self._walker.brownian_clock(tau)

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        x, memory = self._walker.step(predict, x, tau, s, noise, memory)
        if s > 0:
            sigma, correct = ou.sigma(s), self.corrector.correct
            for _ in range(self.corrections):
                x = correct(x, predict(x, s).eps, sigma, noise())
        return x, memory


def _default(sampler: StepSampler, name: str) -> Any:
    """The default of a field of the sampler's class."""
    made = next(f for f in fields(sampler) if f.name == name)
    return made.default_factory() if callable(made.default_factory) else made.default


@dataclass(frozen=True)
class AnnealedLangevin(StepSampler):
    r"""NCSN: at each level ``repeats`` Langevin steps, in proportion to the level's variance.

    In $y = x/\alpha$, whose noise is $\rho = \sigma/\alpha$, y is kept from one level to the next, and there
    $y' = y + \tfrac12a\,score + \sqrt a\,z$ with $a = step\_size\,\rho^2$; in x that is
    $x' = x - \tfrac12step\_size\,\sigma\hat\varepsilon + \sqrt{step\_size}\,\sigma z$. The levels are the grid's times
    after the start; a step to s = 0 is the data estimate, as `DDPM`'s. The paper's ε is ``step_size`` times the last
    level's ρ².

    On data N(m, c² I) the stationary law of a level is $N(\alpha m, var/(1 - step\_size\,\sigma^2/(4\,var)))$. Noise
    that is too wide by that remains at the end; ``sample(…, denoise=True)`` takes it out.

    Args:
        steps: Number of levels.
        grid: Where they are: default even in log-SNR, ρ falling geometrically; needs a clock with a finite end.
        repeats: Langevin steps, and network calls, per level.
        step_size: In (0, 4); at 4 noise no longer shrinks.

    Raises:
        ValueError: If a setting is out of its range; when sampling, if the start is at infinite τ.

    Source: Song & Ermon 2019, algorithm 1; Song & Ermon 2020 for more levels with fewer steps each.
    """

    steps: int = 100
    grid: Grid = field(default_factory=UniformLogSNR)
    repeats: int = 5
    step_size: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.repeats, bool) or not isinstance(self.repeats, int) or self.repeats < 1:
            raise ValueError(f"repeats must be a positive integer, got {self.repeats!r}.")
        if not 0 < self.step_size < 4:
            raise ValueError(f"step_size must lie in (0, 4), got {self.step_size!r}; in the paper it is near 0.2.")

    @property
    def order(self) -> None:
        """None: the bias is that of the step size, whatever the number of levels."""
        return None

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        if s == 0:
            return predict(x, tau).x0, None
        if tau == math.inf:
            raise ValueError("AnnealedLangevin needs a finite start, got tau = inf; use a clipped clock, or start=.")
        sigma = ou.sigma(s)
        drift, std = -0.5 * self.step_size * sigma, math.sqrt(self.step_size) * sigma
        x = x * math.exp(tau - s)
        for _ in range(self.repeats):
            x = predict(x, s).step(1.0, drift, "eps")
            x = combine(1.0, x, std, noise())
        return x, None
