r"""Langevin steps and samplers made of them: $x' = x + \delta\,score + std\,z$ at a fixed time τ.

With $score = -\hat\varepsilon/\sigma$, repeated steps move a state of any distribution toward that of $x_\tau$, up to
a bias. More steps of the reverse process do not remove the bias, so a `StepSampler` made of Langevin steps has no
order. Each class states instead the stationary distribution of its steps for data N(m, c² I), for which x has the
variance $var = \alpha^2c^2 + \sigma^2$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, ClassVar

from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_kind, check_positive
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.ddpm import DDPM
from scoresde.sampling.grid import Grid, UniformLogSNR
from scoresde.sampling.multistep import Multistep

__all__ = ["AnnealedLangevin", "Corrector", "Langevin", "PartialRefresh", "PredictorCorrector"]


class Corrector(CheckedArguments, ABC):
    """A Langevin step at one time. Its size for a sample depends on the state of that sample only."""

    @abstractmethod
    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        """The next state at the same time.

        Args:
            x: State, ``(B, *D)``.
            eps_hat: Noise estimate at ``x``, shape ``(B, *D)``.
            sigma: Noise scale at this time, above 0.
            noise: Unit normal noise, ``(B, *D)``.
        """


@dataclass(frozen=True)
class PartialRefresh(Corrector):
    r"""Keeps the fraction ``keep`` κ of the noise estimate and replaces the rest by new noise.

    $x' = \alpha\hat x_0 + \kappa\sigma\hat\varepsilon + \sigma\sqrt{(1 - \kappa)(2 - (1 - \kappa)p)}\,z$ with
    $p = \|\hat\varepsilon\|^2/d$ of the sample, at most $2/(1 - \kappa)$. This is a Langevin step with
    $\delta = (1 - \kappa)\sigma^2$ whose noise is reduced by the variance that its finite length adds. For data at one
    point p is about 1, and the root becomes that of $1 - \kappa^2$. Where the data are much wider than the noise, p is
    about 0, and the noise is that of a Langevin step.

    On data N(m, c² I), in any dimension, the stationary variance is var itself where p does not reach its bound. The
    equation of the second moment, linear in $E\,p = E\|x - \alpha m\|^2\sigma^2/(d\,var^2)$, has that solution for
    every c.

    Args:
        keep: κ in [0, 1).

    Raises:
        ValueError: If ``keep`` is outside [0, 1).
    """

    keep: float = 0.8

    def __post_init__(self) -> None:
        if not 0 <= self.keep < 1:
            raise ValueError(f"keep must lie in [0, 1), got {self.keep!r}; 0 replaces all noise.")

    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        replaced = 1.0 - self.keep
        variance = (_mean_square(eps_hat) * (-replaced * replaced) + 2.0 * replaced).clamp(min=0.0)
        return x.add(eps_hat, alpha=-replaced * sigma).addcmul(noise, variance.sqrt(), value=sigma)


@dataclass(frozen=True)
class Langevin(Corrector):
    r"""$x' = x + \delta\,score + \sqrt{2\delta}\,z$ with $\delta = 2(snr\,\|z\|/\|score\|)^2$, at most $\sigma^2$.

    The norms are those of each sample, not means over the batch as in the paper's code. The steps are taken in the
    coordinates of the variance-exploding view. In x the same step has no further factor of α; the paper gives VP one,
    $1 - \beta_k$, which is nearly 1. The bound on δ is ours: in few dimensions $1/\|score\|^2$ has no mean. There,
    longer steps where the score is small also push x away from the modes; use `PartialRefresh`, the default.

    On data N(m, c² I) of many dimensions the stationary variance is $(1 + snr^2)\,var$, the same factor at every time.
    Where the bound is active, below $\sigma^2/var \approx 2\,snr^2$, it is $var/(1 - \sigma^2/(2\,var))$.

    Args:
        snr: Ratio of a step's drift to its noise; above 0.

    Raises:
        ValueError: If ``snr`` is not a positive finite number.

    Source: Song et al. 2021, algorithms 4 and 5.
    """

    snr: float = 0.16

    def __post_init__(self) -> None:
        check_positive(snr=self.snr)

    def correct(self, x: Tensor, eps_hat: Tensor, sigma: float, noise: Tensor) -> Tensor:
        ratio = _mean_square(noise) / _mean_square(eps_hat)
        relative_delta = (ratio * (2.0 * self.snr * self.snr)).clamp(max=1.0)  # delta / sigma²
        return x.addcmul(eps_hat, relative_delta, value=-sigma).addcmul(
            noise, (relative_delta * 2.0).sqrt(), value=sigma
        )


def _mean_square(x: Tensor) -> Tensor:
    """Mean square of each sample, ``(B, 1, …, 1)``."""
    return (x * x).mean(tuple(range(1, x.ndim)), keepdim=True) if x.ndim > 1 else x * x


@dataclass(frozen=True)
class PredictorCorrector(StepSampler):
    """A step of another sampler, then ``corrections`` Langevin steps at the time it reaches.

    Each correction costs one network call. At s = 0 no noise is left to correct, so the last step is the predictor's
    alone. With corrections the sampler has no order; see `PartialRefresh` and `Langevin` for their stationary
    distributions. A multistep predictor is refused with corrections, because it continues from stored states, which
    would undo them.

    Args:
        steps: Number of steps of the predictor.
        grid: Times of these steps; default uniform in log-SNR.
        predictor: Any `StepSampler`; with corrections not a `Multistep`. Leave its own ``steps`` and ``grid`` at their
            defaults, or repeat those above.
        corrections: Number of corrector steps after each predictor step, 0 or more.
        corrector: The Langevin step; ``Langevin(0.16)`` is the paper's.

    Raises:
        ValueError: If the predictor has other steps or another grid, or is a multistep method with corrections; if
            ``corrections`` is not an integer of at least 0.
        TypeError: If the predictor is not a `StepSampler`, or the corrector not a `Corrector`.

    Source: Song et al. 2021, algorithms 2 and 3.
    """

    grid: Grid = field(default_factory=UniformLogSNR)
    predictor: StepSampler = field(default_factory=DDPM)
    corrections: int = 1
    corrector: Corrector = field(default_factory=PartialRefresh)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("predictor", self.predictor, StepSampler)
        check_kind("corrector", self.corrector, Corrector)
        check_integer("corrections", self.corrections, least=0)
        if self.corrections and isinstance(self.predictor, Multistep):
            raise ValueError(
                f"the predictor must be a single-step method, got {self.predictor}; a multistep method continues from "
                "states that corrections would change. Take DDPM(), DDIM() or Heun(), or corrections=0."
            )
        for name in ("steps", "grid"):
            if getattr(self.predictor, name) not in (getattr(self, name), _field_default(self.predictor, name)):
                raise ValueError(
                    f"the predictor must use the {name} of PredictorCorrector, {getattr(self, name)}, got "
                    f"{self.predictor}; give {name}= to PredictorCorrector and leave it out of the predictor."
                )

    @cached_property
    def _configured_predictor(self) -> StepSampler:
        """The predictor with our steps and grid, because its settings may depend on them."""
        return replace(self.predictor, steps=self.steps, grid=self.grid)

    @property
    def order(self) -> int | None:
        """The predictor's without corrections, None with them."""
        return None if self.corrections else self._configured_predictor.order

    @property
    def start_order(self) -> int | None:
        """The predictor's without corrections, None with them."""
        return None if self.corrections else self._configured_predictor.start_order

    @property
    def stochastic(self) -> bool:
        """True with corrections; without them as the predictor."""
        return self.corrections > 0 or self._configured_predictor.stochastic

    def brownian_clock(self, tau: float) -> float:
        return self._configured_predictor.brownian_clock(tau)

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        x, memory = self._configured_predictor.step(predict, x, tau, s, noise, memory)
        if s > 0:
            sigma, correct = ou.sigma(s), self.corrector.correct
            for _ in range(self.corrections):
                x = correct(x, predict(x, s).eps, sigma, noise())
        return x, memory

    def moved(self, memory: Any, tau: float, change: Any) -> Any:
        return self._configured_predictor.moved(memory, tau, change)


def _field_default(sampler: StepSampler, name: str) -> Any:
    match = next(f for f in fields(sampler) if f.name == name)
    return match.default_factory() if callable(match.default_factory) else match.default


@dataclass(frozen=True)
class AnnealedLangevin(StepSampler):
    r"""Annealed Langevin dynamics (NCSN): ``repeats`` steps at each noise level, with $\delta \propto \rho^2$.

    In $y = x/\alpha$ the noise level is $\rho = \sigma/\alpha$. The state y is carried over from one level to the next,
    where $y' = y + \tfrac12a\,score + \sqrt a\,z$ with $a = step\_size\,\rho^2$. In x that is
    $x' = x - \tfrac12step\_size\,\sigma\hat\varepsilon + \sqrt{step\_size}\,\sigma z$. The noise levels are those at
    the grid's times after the start. A step to s = 0 returns the data estimate, as in `DDPM`. The paper's ε is
    ``step_size`` times ρ² of the last level.

    On data N(m, c² I) the stationary distribution at a level is
    $N(\alpha m, var/(1 - step\_size\,\sigma^2/(4\,var)))$. The samples keep noise that is too wide by this factor;
    ``sample(…, denoise=True)`` removes it.

    Args:
        steps: Number of noise levels.
        grid: Their times; default uniform in log-SNR, so that ρ falls geometrically. Needs a clock with a finite end.
        repeats: Langevin steps, and network calls, per noise level.
        step_size: In (0, 4); at 4 the noise no longer shrinks.

    Raises:
        ValueError: If a setting is out of its range; when sampling, if the start is at infinite τ.

    Source: Song & Ermon 2019, algorithm 1; Song & Ermon 2020 for more noise levels with fewer steps each.
    """

    steps: int = 100
    grid: Grid = field(default_factory=UniformLogSNR)
    repeats: int = 5
    step_size: float = 0.2

    order: ClassVar[None] = None  # the bias is that of the step size, whatever the number of noise levels
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("repeats", self.repeats)
        if not 0 < self.step_size < 4:
            raise ValueError(f"step_size must lie in (0, 4), got {self.step_size!r}; in the paper it is near 0.2.")

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
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
