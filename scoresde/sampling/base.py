"""What is a way back from the prior? A sampler that `run`s; most are one pure `step`, walked along a grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.noise import Noise
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.process.sde import SDE
from scoresde.sampling.brownian import Brownian
from scoresde.sampling.grid import Chain, Grid

__all__ = [
    "StepHook",
    "Observer",
    "SamplingContext",
    "Predict",
    "Progress",
    "Sampler",
    "SolverError",
    "StepSampler",
    "check_deterministic",
]

Predict = Callable[[Any, Any], Prediction]
"""One network call: ``predict(x, tau)``."""

StepHook = Callable[[int, int, float, Tensor], None]
"""How a sampler tells of a step: ``observe(done, steps, tau, x)``; it may raise, to end the walk there."""


@dataclass(frozen=True, eq=False)
class Progress:
    """How far a walk has come: what an observer is handed after each step.

    Attributes:
        done, steps: Steps done, and in all; adaptive solvers, which do not know theirs, tell per cents of the way.
        tau: OU time at which ``x`` stands.
        x: State, not in the view's coordinates, ``(B, *D)``.
        prediction: The last network call, made at a time above ``tau``.
    """

    done: int
    steps: int
    tau: float
    x: Tensor
    prediction: Prediction

    @property
    def x0(self) -> Tensor:
        """Preview: the data estimate of the last network call, ``(B, *D)``; computed when asked for, without a call."""
        return self.prediction.x0


Observer = Callable[[Progress], object]
"""Called after each step; a true answer ends the walk there (so does tqdm's ``update``, which answers now and then)."""


class SolverError(RuntimeError):
    """A solver stopped before the end; `sample` first looks whether the network is to blame."""


@dataclass
class SamplingContext:
    """What a sampler is given for one batch.

    Attributes:
        predict: The network call, counted.
        sde: The process.
        noise: Source of randomness.
        start: OU time at which ``x`` stands.
        observe: Called after each step, or None.
        brownian: Where the noise of a step comes from, on the sampler's clock; None for fresh noise in every step.
    """

    predict: Predict
    sde: SDE
    noise: Noise
    start: float
    observe: StepHook | None = None
    brownian: Brownian | None = None


class Sampler(ABC):
    """A way back along the clock. Settings are dataclass fields; nothing is kept between calls."""

    @abstractmethod
    def run(self, x: Tensor, path: SamplingContext) -> tuple[Tensor, float]:
        """Takes ``x`` from ``path.start`` back.

        Args:
            x: State in x, ``(B, *D)``.
            path: Network, process, noise and observer.

        Returns:
            The state and the OU time at which it stands.

        Raises:
            SolverError: If the solver cannot go on.
        """


@dataclass(frozen=True)
class StepSampler(Sampler):
    """A fixed-step method: one pure `step`, walked along a grid.

    Args:
        steps: Number of steps.
        grid: Where they are.

    Raises:
        TypeError: If ``grid`` is none.
        ValueError: If ``steps`` is not a positive integer.
    """

    steps: int = 1000
    grid: Grid = field(default_factory=Chain)

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_kind("grid", self.grid, Grid)

    @property
    @abstractmethod
    def order(self) -> int | None:
        """Order of the global error in the step: of the terminal map, or variance where the step draws noise.

        A multistep method's is that from an exact start, `start_order` that from its own. None where more steps alone
        do not lead to the data's law, as with Langevin steps of a fixed size: then its stationary law is stated.
        """

    @property
    def start_order(self) -> int | None:
        """Order with the method's own start-up."""
        return self.order

    @property
    def stochastic(self) -> bool:
        """Whether the step draws noise."""
        return False

    def brownian_clock(self, tau: float) -> float:
        r"""Time $b(\tau) \ge 0$ of the Brownian path that a step's noise is taken from where runs are coupled.

        $z = (W_{b(s)} - W_{b(\tau)})/\sqrt{b(s) - b(\tau)}$; it grows as τ falls. Default: the signal-to-noise ratio,
        on which the noise of the exactly solved linear part of the reverse SDE is an increment whatever the step.
        """
        return ew.exp(ou.log_snr(tau))

    @property
    def strong_order(self) -> float | None:
        """Order of the root mean square error at the end along one Brownian path; None where there is none to state.

        1 is what additive noise gives to every method that takes nothing but the path's increments.
        """
        return 1.0 if self.stochastic and self.order is not None else None

    @abstractmethod
    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """One step back from ``tau`` to ``s``.

        Args:
            predict: ``predict(x, tau)``, one network call.
            x: State at ``tau``, touched only by + and × with floats (``x * c`` is faster than ``c * x`` in torch, and
                `_tensor.combine` than both): a tensor, or an exact law.
            tau, s: OU times with ``0 <= s < tau``.
            noise: Draws unit normal noise like ``x``; to be called only if ``s > 0``.
            memory: What the last step returned; None at first.

        Returns:
            State at ``s`` and the memory for the next step.
        """

    def run(self, x: Tensor, path: SamplingContext) -> tuple[Tensor, float]:
        """Walks the grid; see `Sampler.run`."""
        taus = self.grid.times(path.sde, self.steps, path.start)
        step = self.step if path.brownian is None else _coupled(self, path.brownian)
        predict, observe, memory = path.predict, path.observe, None

        def noise() -> Tensor:
            return path.noise.normal(x)

        for i in range(self.steps):
            x, memory = step(predict, x, taus[i], taus[i + 1], noise, memory)
            if observe is not None:
                observe(i + 1, self.steps, taus[i + 1], x)
        return x, taus[-1]


def check_deterministic(sampler: object, who: str) -> None:
    """Refuses a sampler whose end is not a function of its start.

    Args:
        sampler: What was given.
        who: Who needs it, for the message.

    Raises:
        TypeError: If it is no step sampler.
        ValueError: If it draws noise.
    """
    if not isinstance(sampler, StepSampler):
        raise TypeError(f"{who} needs a step sampler, got {sampler!r}; pass one such as Adams(steps=10).")
    if sampler.stochastic or sampler.order is None:
        raise ValueError(
            f"{who} needs a deterministic sampler, whose end is a function of its start, got {sampler!r}; "
            "take Adams() or DDIM(), or the same method without noise."
        )


def _coupled(sampler: StepSampler, brownian: Brownian) -> Callable[..., tuple[Any, Any]]:
    """The sampler's step with its first noise taken from the Brownian path; what it draws beside that stays fresh."""
    clock = sampler.brownian_clock

    def step(predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any) -> tuple[Any, Any]:
        drawn = False

        def coupled() -> Any:
            nonlocal drawn
            before, after = clock(tau), clock(s)
            if drawn or before == after:  # beside the path: further draws, and those of a step that it does not touch
                return noise()
            drawn = True
            return brownian.normal(before, after)

        return sampler.step(predict, x, tau, s, coupled, memory)

    return step
