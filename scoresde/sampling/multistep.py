r"""Multistep samplers: exponential Adams methods, $x_s = A\,x_\tau + \sum_j b_j f_j$ from the last predictions $f_j$.

The predictor (Adams–Bashforth) extrapolates a polynomial through the last ``order`` predictions over the step. The
corrector (Adams–Moulton) needs no network call: once the next prediction is made, it repeats the step before with it.

The start keeps the order. A warm-up by orders 1, 2, 3 … would leave an error of second order, whatever follows. Here,
as long as there are few predictions, each step starts again from the first state and uses all predictions so far. That
costs nothing up to order 3, one more network call at order 4, and three at order 5: early predictions are made again,
from better states.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.schedule import Schedule
from scoresde.sampling.adams_defaults import AdamsSettings, adams_settings
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.exponential import Interpolation, advance
from scoresde.sampling.grid import DenseEnds, Grid
from scoresde.sampling.noise_function import NoiseFunction, rho

__all__ = ["Adams", "Multistep"]


class History(NamedTuple):
    """The memory that a step passes to the next.

    Attributes:
        tau, x: Time and state from which the last step started.
        std, noise: The noise that it added and its standard deviation; None and 0 if it added none.
        times, predictions: Times and network predictions, the newest first.
    """

    tau: Scalar
    x: Any
    std: float
    noise: Any
    times: tuple[Scalar, ...]
    predictions: list[Any]


@dataclass(frozen=True)
class Multistep(StepSampler):
    """A method that reuses past predictions. Subclasses define `interpolation`, `predictor` and, if any, `corrector`.

    Each is a class attribute if it is constant, and a property if it depends on the settings.

    Args:
        steps: Number of steps; `start_calls` network calls come on top.
        grid: The times of the steps; default `DenseEnds`.

    Raises:
        ValueError: If the order of the predictor or the corrector is not an integer in its range.
    """

    steps: int = 20
    grid: Grid = field(default_factory=DenseEnds)

    corrector: ClassVar[int] = 0
    """Number of predictions that the corrector uses, the new one among them; 0 for no corrector."""

    restarts: ClassVar[bool] = True
    """Whether early steps start again from the first state; otherwise they are steps of lower order."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("the predictor's order", self.predictor, 1, 6)
        check_integer("the corrector's order", self.corrector, 0, 6)
        _ = self.interpolation  # raises for invalid settings now, not in the first step

    @property
    @abstractmethod
    def interpolation(self) -> Interpolation:
        """The interpolated prediction, its variable and the noise function."""

    @property
    @abstractmethod
    def predictor(self) -> int:
        """Number of predictions that the predictor uses."""

    @property
    def order(self) -> int:
        """Order of the predictor, one higher if the corrector allows it; with a noise function at most 2."""
        order = min(self.predictor + 1, self.corrector) if self.corrector else self.predictor
        return min(order, 2) if self.stochastic else order

    @property
    def start_order(self) -> int:
        """`order`; without restarts at most 2, the order of a start by steps of order 1, 2 …."""
        return self.order if self.restarts else min(self.order, 2)

    @property
    def start_calls(self) -> int:
        """Network calls of the start beyond one per step."""
        return sum(range(1, self.order - 2)) if self.restarts else 0

    @property
    def stochastic(self) -> bool:
        """Whether there is a noise function."""
        return self.interpolation.noise is not None

    def brownian_clock(self, tau: float) -> float:
        """1/m², on which the noise of a step of any length is an increment."""
        noise = self.interpolation.noise
        return super().brownian_clock(tau) if noise is None else ew.exp(-2.0 * noise.log_m(rho(tau)))

    def interpolation_of(self, tau: Scalar, s: Scalar) -> Interpolation:
        """The interpolation of the step from ``tau`` to ``s``; default: `interpolation`, for all steps."""
        return self.interpolation

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        past, common = memory, self.interpolation
        # The coordinate is infinite at s = 0: there one prediction, from x, is held constant.
        constant = s == 0 and not common.regular_at_data
        predictions, times = [predict(x, tau)], (tau,)
        origin, begin = x, tau
        if past is not None:
            reused = max(self.predictor, self.corrector) - 1
            predictions, times = predictions + past.predictions[:reused], times + past.times[:reused]
            starting = self.restarts and common.noise is None and len(times) < self.order
            if starting:
                predictions = self._repeat_early(predict, past, times, predictions)
            if self.corrector:
                x = self._corrected(past, times, predictions)
            origin, begin = (past.x, past.tau) if starting and not constant else (x, tau)
        used = times[: 1 if constant else self.predictor]
        end, draw = _advance(self.interpolation_of(begin, s), origin, begin, s, used, predictions), None
        std = common.noise_std(tau, s) if common.noise else 0.0
        if std > 0:
            draw = noise()
            end = combine(1.0, end, std, draw)
        return end, History(begin, origin, std, draw, times, predictions)

    def moved(self, memory: Any, tau: float, change: Any) -> Any:
        if memory is None:
            return None
        used = memory.times[: 1 if tau == 0 else self.predictor]
        on_x, _ = self.interpolation_of(memory.tau, tau).weights(memory.tau, tau, used)
        return memory._replace(x=combine(1.0, memory.x, 1.0 / on_x, change))

    def _corrected(self, past: History, times: tuple[Scalar, ...], predictions: list[Any]) -> Any:
        """The last step repeated with the new prediction in its polynomial, and with the same noise."""
        interpolation = self.interpolation_of(past.tau, times[0])
        x = _advance(interpolation, past.x, past.tau, times[0], times[: self.corrector], predictions)
        return x if past.noise is None else combine(1.0, x, past.std, past.noise)

    def _repeat_early(
        self, predict: Predict, past: History, times: tuple[Scalar, ...], predictions: list[Any]
    ) -> list[Any]:
        """Early predictions made again from better states; the first is exact, the list is newest first."""
        count = len(times)
        if count > self.order - 2:
            return predictions
        predictions = list(predictions)
        for i in range(count - 2, -1, -1):
            interpolation = self.interpolation_of(past.tau, times[i])
            state = _advance(interpolation, past.x, past.tau, times[i], times, predictions)
            predictions[i] = predict(state, times[i])
        return predictions


def _advance(
    interpolation: Interpolation, x: Any, tau: Scalar, s: Scalar, times: tuple[Scalar, ...], predictions: list[Any]
) -> Any:
    """x at ``s`` from x at ``tau`` and the first predictions, one for each time."""
    on_x, weights = interpolation.weights(tau, s, times)
    return advance(x, on_x, weights, list(map(interpolation.read, predictions[: len(times)])))


@dataclass(frozen=True)
class Adams(Multistep):
    r"""Any exponential Adams method; with its defaults, the sampler that the library recommends.

    Interpolated is v in the angle φ, $dx = v\,d\varphi$, or αv, $dx = \alpha v\,d(\mathrm{artanh}\,\sigma)$: neither
    has a linear part, so no clock, view or end of the process is special, τ = ∞ included. Where v is stiff or the
    network estimates noise, it is x₀, $d(x/\sigma) = x_0\,d(\alpha/\sigma)$. Settings that are None depend on the
    number of steps and on whether the network estimates noise, as the numbers of `DenseEnds` do:

    | steps | predictor, corrector | interpolated | for a noise estimate |
    |---|---|---|---|
    | 1 to 5, events of less than 256 values | 3, none | v in the angle | x₀ in artanh σ; 2, 2 |
    | to 11 | 2, 3 | v in the angle | x₀ in artanh σ; 2, 2 |
    | 12 to 74 | 4, 3 | αv in the angle; x₀ where a step shortens φ by 30 % or more | x₀ in artanh σ; 4, 3 |
    | 75 and more | 5, 4 | the same | x₀ in artanh σ; 4, 3 |

    Args:
        steps: Number of steps; `start_calls` network calls come on top from order 4 on.
        grid: Default `DenseEnds`.
        predictor_order: Predictions that the predictor uses, 1 to 6.
        corrector_order: Predictions that the corrector uses, the new one among them; 0 for no corrector.
        prediction: The interpolated prediction: ``"alpha_v"``, ``"v"``, ``"x0"`` or ``"eps"``.
        variable: The polynomial's variable: ``"angle"``, ``"sigma"``, ``"artanh_sigma"``, ``"log_snr"``, ``"rho"``,
            ``"tau"``, or a clock, for its u.
        noise: Noise function, with ``"x0"``; None for the ODE.
        noise_estimate: On another grid than `DenseEnds`, which states it itself: whether the network estimates noise
            or a score. None: `sample` sets what the model states; elsewhere it means False.

    Raises:
        ValueError: If an order is out of range, or a name unknown.

    Example:
        >>> from scoresde import Adams, GaussianMixture, sample
        >>> model = GaussianMixture.ring()
        >>> sample(model, 4, Adams(steps=10), seeds=range(4)).nfe
        10
    """

    predictor_order: int | None = None
    corrector_order: int | None = None
    prediction: str | None = None
    variable: str | Schedule | None = None
    noise: NoiseFunction | None = None
    noise_estimate: bool | None = field(default=None, metadata={"write": "if set"})

    def for_model(self, model: Model) -> Adams:
        settings = (self.predictor_order, self.corrector_order, self.prediction, self.variable)
        own_grid = isinstance(self.grid, DenseEnds)
        if own_grid or self.noise_estimate is not None or None not in settings or not model.amplifies_at_noise():
            return super().for_model(model)
        if "_for_noise_estimate" not in vars(self):  # kept, because a sampler caches its weights
            vars(self)["_for_noise_estimate"] = replace(self, noise_estimate=True)
        return vars(self)["_for_noise_estimate"].for_model(model)

    @cached_property
    def interpolation(self) -> Interpolation:
        settings = self._settings
        prediction = settings.prediction if self.prediction is None else self.prediction
        return Interpolation(prediction, settings.variable if self.variable is None else self.variable, self.noise)

    @cached_property
    def predictor(self) -> int:
        return self._settings.predictor_order if self.predictor_order is None else self.predictor_order

    @cached_property
    def corrector(self) -> int:
        """``corrector_order``, or its default for this number of steps."""
        return self._settings.corrector_order if self.corrector_order is None else self.corrector_order

    def interpolation_of(self, tau: Scalar, s: Scalar) -> Interpolation:
        """`interpolation`; with the default one, x₀ in the angle for a step in which v is stiff."""
        if self.prediction is not None or self.variable is not None or s == 0 or tau == math.inf:
            return self.interpolation
        stiff_from = self._settings.stiff_from
        if stiff_from < 1 and ou.angle(s) < (1.0 - stiff_from) * ou.angle(tau):
            return self._of_x0
        return self.interpolation

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        if self._skips and self._skips(tau, self.steps):
            predict(x, tau)  # for observers, which show a prediction for every step
            return x, None
        return super().step(predict, x, tau, s, noise, memory)

    @cached_property
    def _skips(self) -> Callable[[Scalar, int], bool] | None:
        """`DenseEnds.skips` of a noise estimate; None where no step is skipped."""
        default = self.prediction is None and self.variable is None
        return self.grid.skips if default and isinstance(self.grid, DenseEnds) and self.grid.noise_estimate else None

    @cached_property
    def _of_x0(self) -> Interpolation:
        return Interpolation("x0", "angle")

    @cached_property
    def _settings(self) -> AdamsSettings:
        if not isinstance(self.grid, DenseEnds):
            return adams_settings(self.steps, bool(self.noise_estimate))
        return adams_settings(self.grid.settings_steps(self.steps), bool(self.grid.noise_estimate))
