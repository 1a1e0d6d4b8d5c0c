r"""Singlestep samplers: exponential Runge–Kutta methods, whose steps have stages and store nothing for the next step.

A stage is the state at a node inside the step. The integral of `exponential`, with a polynomial through earlier stages,
leads to each stage and to the end of the step.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.exponential import Interpolation, advance
from scoresde.sampling.grid import DenseEnds, Grid
from scoresde.sampling.noise_function import rho

__all__ = ["DPMSolver", "Heun", "Singlestep", "Stages"]


@dataclass(frozen=True)
class Stages:
    """An explicit Runge–Kutta method, defined by interpolation.

    Args:
        nodes: Positions of the stages in log-SNR, from 0 (the step's start, always the first) to 1 (its end).
        uses: For each stage but the first, the earlier stages whose polynomial leads to it.
        final: The stages whose polynomial leads to the end of the step.
        order: Order of the global error.
    """

    nodes: tuple[float, ...]
    uses: tuple[tuple[int, ...], ...]
    final: tuple[int, ...]
    order: int


@dataclass(frozen=True)
class Singlestep(StepSampler):
    """A method with stages. Subclasses define `interpolation` and `stages`.

    Each is a class attribute if it is constant, and a property if it depends on the settings. A last step to τ = 0,
    where log-SNR is infinite, uses the first stage alone.

    Args:
        steps: Number of steps, not of network calls.
        grid: The times of the steps; default `DenseEnds`.
    """

    steps: int = 20
    grid: Grid = field(default_factory=DenseEnds)

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.interpolation, self.stages  # raises for invalid settings now, not in the first step

    @property
    @abstractmethod
    def interpolation(self) -> Interpolation:
        """The interpolated prediction and its variable."""

    @property
    @abstractmethod
    def stages(self) -> Stages:
        """Nodes of the stages, and the stages from which each is reached."""

    @property
    def order(self) -> int | None:
        return self.stages.order

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        stages, predictions, times = self.stages, [predict(x, tau)], [tau]
        if s == 0:
            return self._advance(x, tau, s, times, predictions, (0,)), None
        for node, uses in zip(stages.nodes[1:], stages.uses):
            time = _between(tau, s, node)
            predictions.append(predict(self._advance(x, tau, time, times, predictions, uses), time))
            times.append(time)
        return self._advance(x, tau, s, times, predictions, stages.final), None

    def _advance(
        self,
        x: Any,
        tau: Scalar,
        s: Scalar,
        times: list[Scalar],
        predictions: list[Prediction],
        uses: tuple[int, ...],
    ) -> Any:
        """A x + Σ b_j f_j; each f_j enters as a combination of output and state, without a tensor of its own."""
        on_x, weights = self.interpolation.weights(tau, s, tuple([times[i] for i in uses]))
        member, terms = self.interpolation.member, []
        for weight, i in zip(weights, uses):
            on_out, on_state = predictions[i].coefficients(member)
            terms.append((weight * on_out, predictions[i].out))
            if i == 0:
                on_x = on_x + weight * on_state
            else:
                terms.append((weight * on_state, predictions[i].x))
        return advance(x, on_x, *zip(*terms))


def _between(tau: Scalar, s: Scalar, node: float) -> Scalar:
    """The time at a node in log-SNR; the step's end exactly."""
    if node == 1.0:
        return s
    start = ou.log_snr(tau)
    if start == -math.inf:
        raise ValueError(
            "stages in log-SNR need a finite start, got tau = inf; use a clipped clock, start= or Adams()."
        )
    return ou.tau_from_log_snr(start + node * (ou.log_snr(s) - start))


_DPM_STAGES = {
    1: Stages((0.0,), (), (0,), 1),
    2: Stages((0.0, 0.5), ((0,),), (1,), 2),
    3: Stages((0.0, 1 / 3, 2 / 3), ((0,), (0, 1)), (0, 2), 3),
}


@dataclass(frozen=True)
class DPMSolver(Singlestep):
    r"""DPM-Solver-1, -2, -3 (``prediction="eps"``) and DPM-Solver++(2S), (3S) (``"x0"``).

    A step makes as many network calls as the order says; order 1 is DDIM. The paper's $r_1 = 1/2$ at order 2; 1/3 and
    2/3 at order 3.

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
    def interpolation(self) -> Interpolation:
        return Interpolation(self.prediction, "log_snr")

    @cached_property
    def stages(self) -> Stages:
        if self.solver_order not in _DPM_STAGES:
            raise ValueError(f"DPMSolver has orders 1, 2 and 3, got {self.solver_order!r}; take `Adams` for others.")
        return _DPM_STAGES[self.solver_order]


@dataclass(frozen=True)
class Heun(Singlestep):
    r"""Heun's method in ρ = σ/α (EDM); with churn, Karras's stochastic sampler.

    With $y = x/\alpha$ the ODE is $dy/d\rho = \varepsilon$. A step makes two network calls, one where it ends at τ = 0.
    Churn first adds exact forward noise, from ρ to $\rho(1 + \gamma)$ with
    $\gamma = \min(churn/steps, \sqrt2 - 1)$, and then solves back from there; never beyond the first time.

    Args:
        steps: Number of steps.
        grid: Default `DenseEnds`; the paper's is `Karras`.
        churn: $S_{churn}$; 0 is the deterministic sampler.
        low, high: $S_{min}$ and $S_{max}$, the interval of ρ in which noise is added.
        noise_scale: $S_{noise}$; values other than 1 change the distribution.

    Raises:
        ValueError: If ``churn`` is negative, the interval empty, or ``noise_scale`` not positive.

    Source: Karras et al. 2022, algorithms 1–2.
    """

    churn: float = 0.0
    low: float = 0.0
    high: float = math.inf
    noise_scale: float = 1.0

    interpolation: ClassVar[Interpolation] = Interpolation("eps", "rho")
    stages: ClassVar[Stages] = Stages((0.0, 1.0), ((0,),), (0, 1), 2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.churn >= 0 and 0 <= self.low < self.high and self.noise_scale > 0):
            raise ValueError(f"Heun needs churn >= 0, 0 <= low < high and noise_scale > 0, got {self}.")

    @property
    def order(self) -> int | None:
        """2; None where the churn's noise is scaled, which changes the distribution."""
        return 2 if self.churn == 0 or self.noise_scale == 1 else None

    @property
    def stochastic(self) -> bool:
        """Whether there is churn."""
        return self.churn > 0

    @property
    def strong_order(self) -> float | None:
        """1/2 with churn: whether a step adds noise depends on its first time."""
        return 0.5 if self.churn > 0 and self.order is not None else None

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """One step; the memory is the first time of sampling, beyond which churn does not go."""
        if self.churn == 0:
            return super().step(predict, x, tau, s, noise, None)
        first = tau if memory is None else memory
        if s > 0 and self.low <= rho(tau) <= self.high:
            x, tau = self._churn(x, tau, first, noise)
        return super().step(predict, x, tau, s, noise, None)[0], first

    def _churn(self, x: Any, tau: float, first: float, noise: Callable[[], Any]) -> tuple[Any, float]:
        """The noisier state and its time."""
        growth = 1.0 + min(self.churn / self.steps, math.sqrt(2.0) - 1.0)
        noisier = min(ou.tau_from_log_snr(ou.log_snr(tau) - 2.0 * math.log(growth)), first)
        std = self.noise_scale * ew.sqrt(ou.beta(noisier, tau))
        return combine(ew.exp(tau - noisier), x, std, noise()), noisier
