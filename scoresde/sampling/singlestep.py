r"""How does a sampler look ahead within a step? By stages, each a step of its own: exponential Runge–Kutta methods.

A stage stands at a place in the step; it is reached by `exponential`'s integral with a polynomial through earlier
stages, and so is the end of the step. Nothing is kept from step to step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.exponential import Interpolation, advance
from scoresde.sampling.grid import DenseEnds, Grid
from scoresde.sampling.noise_function import rho

__all__ = ["DPMSolver", "Heun", "Singlestep", "Stages"]


@dataclass(frozen=True)
class Stages:
    """An explicit method by interpolation.

    Args:
        places: Of the stages, in log-SNR, from 0 (the step's start, always the first) to 1 (its end).
        uses: For each stage but the first, the earlier stages whose polynomial leads to it.
        final: The stages whose polynomial leads to the end.
        order: Of the global error.
    """

    places: tuple[float, ...]
    uses: tuple[tuple[int, ...], ...]
    final: tuple[int, ...]
    order: int


@dataclass(frozen=True)
class Singlestep(StepSampler):
    """A method with stages; see the module. Subclasses say which by their properties.

    A last step to τ = 0, where log-SNR has no middle, is that of the first stage alone.
    """

    steps: int = 20
    grid: Grid = field(default_factory=DenseEnds)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.how, self.stages  # refuses what does not fit, now

    @property
    @abstractmethod
    def how(self) -> Interpolation:
        """What is interpolated."""

    @property
    @abstractmethod
    def stages(self) -> Stages:
        """At which places, and from which of them."""

    @property
    def order(self) -> int | None:
        """Of the stages."""
        return self.stages.order

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        stages, made, at = self.stages, [predict(x, tau)], [tau]
        if s == 0:
            return self._to(x, tau, s, at, made, (0,)), None
        for place, uses in zip(stages.places[1:], stages.uses):
            here = _between(tau, s, place)
            made.append(predict(self._to(x, tau, here, at, made, uses), here))
            at.append(here)
        return self._to(x, tau, s, at, made, stages.final), None

    def _to(
        self, x: Any, tau: Scalar, s: Scalar, at: list[Scalar], made: list[Prediction], uses: tuple[int, ...]
    ) -> Any:
        """A x + Σ b_j f_j, each f_j in its network's output and its own state, so that none is formed by itself."""
        on_x, weights = self.how.weights(tau, s, tuple([at[i] for i in uses]))
        member, terms = self.how.prediction, []
        for weight, i in zip(weights, uses):
            on_out, besides = made[i].on(member)
            terms.append((weight * on_out, made[i].out))
            if i == 0:
                on_x = on_x + weight * besides
            else:
                terms.append((weight * besides, made[i].x))
        return advance(x, on_x, *zip(*terms))


def _between(tau: Scalar, s: Scalar, place: float) -> Scalar:
    """The time at a place in log-SNR; the step's end exactly."""
    if place == 1.0:
        return s
    start = ou.log_snr(tau)
    if start == -math.inf:
        raise ValueError(
            "stages in log-SNR need a finite start, got tau = inf; use a clipped clock, start= or Adams()."
        )
    return ou.tau_from_log_snr(start + place * (ou.log_snr(s) - start))


_DPM = {
    1: Stages((0.0,), (), (0,), 1),
    2: Stages((0.0, 0.5), ((0,),), (1,), 2),
    3: Stages((0.0, 1 / 3, 2 / 3), ((0,), (0, 1)), (0, 2), 3),
}


@dataclass(frozen=True)
class DPMSolver(Singlestep):
    r"""DPM-Solver-1, -2, -3 (``prediction="eps"``) and DPM-Solver++(2S), (3S) (``"x0"``).

    As many network calls a step as the order says; order 1 is DDIM. The paper's $r_1 = 1/2$, and 1/3, 2/3 at order 3.

    Args:
        steps: Number of steps, not of network calls.
        grid: Default `DenseEnds`; the paper's is `UniformLogSNR`.
        solver_order: 1, 2 or 3.
        prediction: ``"eps"`` or ``"x0"``.

    Raises:
        ValueError: If the order or the prediction is another.

    Source: Lu et al. 2022 (DPM-Solver), algorithms 1–2 and appendix; Lu et al. 2023 (DPM-Solver++), algorithm 1.
    """

    solver_order: int = 2
    prediction: str = "eps"

    @cached_property
    def how(self) -> Interpolation:
        """See the class."""
        return Interpolation(self.prediction, "log_snr")

    @cached_property
    def stages(self) -> Stages:
        """See the class."""
        if self.solver_order not in _DPM:
            raise ValueError(f"DPMSolver has orders 1, 2 and 3, got {self.solver_order!r}; take `Adams` for others.")
        return _DPM[self.solver_order]


@dataclass(frozen=True)
class Heun(Singlestep):
    r"""Heun's method in ρ = σ/α (EDM), and with churn Karras's stochastic sampler.

    With $y = x/\alpha$ the ODE is $dy/d\rho = \varepsilon$; two network calls a step, one where it ends at τ = 0. Churn
    first takes a step towards the noise, from ρ to $\rho(1 + \gamma)$, $\gamma = \min(churn/steps, \sqrt2 - 1)$, by
    exact forward noise, and solves back from there; never beyond the walk's first time.

    Args:
        steps: Number of steps.
        grid: Default `DenseEnds`; the paper's is `Karras`.
        churn: $S_{churn}$; 0 is the deterministic sampler.
        low, high: $S_{min}$ and $S_{max}$, the interval of ρ in which noise is added.
        noise_scale: $S_{noise}$; other than 1 it does not keep the law.

    Raises:
        ValueError: If ``churn`` is negative, the interval empty, or ``noise_scale`` not positive.

    Source: Karras et al. 2022, algorithms 1–2.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.churn >= 0 and 0 <= self.low < self.high and self.noise_scale > 0):
            raise ValueError(f"Heun needs churn >= 0, 0 <= low < high and noise_scale > 0, got {self}.")

    @cached_property
    def how(self) -> Interpolation:
        """See the class."""
        return Interpolation("eps", "rho")

    @cached_property
    def stages(self) -> Stages:
        """See the class."""
        return Stages((0.0, 1.0), ((0,),), (0, 1), 2)

    @property
    def order(self) -> int | None:
        """2; None where the churn's noise is scaled, which does not keep the law."""
        return 2 if self.churn == 0 or self.noise_scale == 1 else None

    @property
    def stochastic(self) -> bool:
        """Whether there is churn."""
        return self.churn > 0

    @property
    def strong_order(self) -> float | None:
        """1/2 with churn: whether a step churns depends on where it begins."""
        return 0.5 if self.churn > 0 and self.order is not None else None

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class; the memory is the walk's first time, beyond which churn does not go."""
        if self.churn == 0:
            return super().step(predict, x, tau, s, noise, None)
        first = tau if memory is None else memory
        if s > 0 and self.low <= rho(tau) <= self.high:
            x, tau = self._churned(x, tau, first, noise)
        return super().step(predict, x, tau, s, noise, None)[0], first

    def _churned(self, x: Any, tau: float, first: float, noise: Callable[[], Any]) -> tuple[Any, float]:
        growth = 1.0 + min(self.churn / self.steps, math.sqrt(2.0) - 1.0)
        back = min(ou.tau_from_log_snr(ou.log_snr(tau) - 2.0 * math.log(growth)), first)
        std = self.noise_scale * ew.sqrt(ou.beta(back, tau))
        return combine(ew.exp(tau - back), x, std, noise()), back
