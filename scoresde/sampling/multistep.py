r"""How does a sampler use the calls that it has made? By a polynomial through the last predictions, an Adams method.

Predictor (Adams–Bashforth): through the last ``order`` predictions, extrapolated over the step. Corrector
(Adams–Moulton, without a call of its own): once the next prediction is there, the step before is made again with it.

The start keeps the order. A warm-up by orders 1, 2, 3 … leaves an error of second order behind, whatever comes after;
here, while the past is short, each step starts again from the first state and uses all that is known since. That costs
nothing up to order 3, one more network call at order 4, three at order 5 (early predictions are made again, from
better states).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.process.schedule import Schedule
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.exponential import Interpolation, advance
from scoresde.sampling.grid import DenseEnds, Grid
from scoresde.sampling.noise_function import NoiseFunction, rho

__all__ = ["Adams", "Multistep"]

_FEW = 12


class History(NamedTuple):
    """What a step leaves to the next.

    Attributes:
        tau, x: Where the last step started from, and the state there.
        std, fresh: The noise that it added and its standard deviation; 0 and None for none.
        at, values: Times and predictions, the newest first.
    """

    tau: Scalar
    x: Any
    std: float
    fresh: Any
    at: tuple[Scalar, ...]
    values: list[Any]


@dataclass(frozen=True)
class Multistep(StepSampler):
    """A method that reuses past predictions; see the module. Subclasses say which by their properties."""

    steps: int = 20
    grid: Grid = field(default_factory=DenseEnds)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, least in (("predictor", self.predictor, 1), ("corrector", self.corrector, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 6:
                raise ValueError(f"the {name}'s order must be a whole number from {least} to 6, got {value!r}.")
        _ = self.how  # refuses what does not fit, now

    @property
    @abstractmethod
    def how(self) -> Interpolation:
        """What is interpolated."""

    @property
    @abstractmethod
    def predictor(self) -> int:
        """Predictions that the predictor uses."""

    @property
    def corrector(self) -> int:
        """Predictions that the corrector uses, the new one among them; 0 for none."""
        return 0

    @property
    def order(self) -> int:
        """That of the predictor, raised by one by a corrector that allows it; with a noise function 2 at most."""
        order = min(self.predictor + 1, self.corrector) if self.corrector else self.predictor
        return min(order, 2) if self.stochastic else order

    @property
    def start_calls(self) -> int:
        """Network calls that the start makes beyond one a step."""
        return sum(range(1, self.order - 2))

    @property
    def stochastic(self) -> bool:
        """Whether there is a noise function."""
        return self.how.noise is not None

    def brownian_clock(self, tau: float) -> float:
        """1/m², on which the noise of any step is an increment."""
        noise = self.how.noise
        return super().brownian_clock(tau) if noise is None else ew.exp(-2.0 * noise.log_m(rho(tau)))

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        how, past = self.how, memory
        last = s == 0 and how.prediction != "v"  # the coordinate is infinite there: one prediction is held, from x
        values, at = [getattr(predict(x, tau), how.prediction)], (tau,)
        origin, begin = x, tau
        if past is not None:
            keep = max(self.predictor, self.corrector) - 1
            values, at = values + past.values[:keep], at + past.at[:keep]
            starting = how.noise is None and len(at) < self.order
            if starting:
                values = self._again(predict, past, at, values)
            if self.corrector:
                x = self._corrected(past, at, values)
            origin, begin = (past.x, past.tau) if starting and not last else (x, tau)
        used = 1 if last else self.predictor
        on_x, weights = how.weights(begin, s, at[:used])
        ahead, fresh, std = advance(origin, on_x, weights, values), None, how.fresh(tau, s) if how.noise else 0.0
        if std > 0:
            fresh = noise()
            ahead = combine(1.0, ahead, std, fresh)
        return ahead, History(begin, origin, std, fresh, at, values)

    def _corrected(self, past: History, at: tuple[Scalar, ...], values: list[Any]) -> Any:
        """The last step made again with the new prediction in its polynomial, and with the same noise."""
        on_x, weights = self.how.weights(past.tau, at[0], at[: self.corrector])
        x = advance(past.x, on_x, weights, values)
        return x if past.fresh is None else combine(1.0, x, past.std, past.fresh)

    def _again(self, predict: Predict, past: History, at: tuple[Scalar, ...], values: list[Any]) -> list[Any]:
        """Early predictions made again from better states; the first one is exact, the list is newest first."""
        known = len(at)
        if known > self.order - 2:
            return values
        values = list(values)
        for i in range(known - 2, -1, -1):
            on_x, weights = self.how.weights(past.tau, at[i], at)
            values[i] = getattr(predict(advance(past.x, on_x, weights, values), at[i]), self.how.prediction)
        return values


@dataclass(frozen=True)
class Adams(Multistep):
    r"""Any exponential Adams method; as it stands, the sampler that the library recommends.

    On ``"v"`` in the angle it is the plain Adams method, as $dx/d\phi = v$ has no linear part: no clock, no view and no
    end of the process is special, τ = ∞ included.

    Args:
        steps: Number of steps; `start_calls` network calls come on top from order 4 on.
        grid: Default `DenseEnds`.
        predictor_order: Predictions that the predictor uses, 1 to 6; None: 3 below 12 steps, 4 from there.
        corrector_order: Predictions that the corrector uses, the new one among them; 0 for none. None: none below 12
            steps, where it carries the errors of long steps on, and as many as the predictor's from there.
        prediction: ``"v"``, ``"x0"`` or ``"eps"``: what is interpolated.
        variable: In what: ``"angle"``, ``"sigma"``, ``"log_snr"``, ``"rho"``, ``"tau"``, or a clock, for its u.
        noise: Noise function, with ``"x0"``; None for the ODE.

    Raises:
        ValueError: If an order is not one, or a name unknown.
    """

    predictor_order: int | None = None
    corrector_order: int | None = None
    prediction: str = "v"
    variable: str | Schedule = "angle"
    noise: NoiseFunction | None = None

    @cached_property
    def how(self) -> Interpolation:
        """See the class."""
        return Interpolation(self.prediction, self.variable, self.noise)

    @property
    def predictor(self) -> int:
        """See the class."""
        return self.predictor_order if self.predictor_order is not None else 3 if self.steps < _FEW else 4

    @property
    def corrector(self) -> int:
        """See the class."""
        if self.corrector_order is not None:
            return self.corrector_order
        return self.predictor if self.steps >= _FEW else 0
