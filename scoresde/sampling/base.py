"""Samplers: a `Sampler` takes a state along the reverse process; a `StepSampler` repeats one pure `step` on a grid."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.noise import Noise
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.mixed import Mixed
from scoresde.process.prediction import Prediction
from scoresde.process.sde import SDE
from scoresde.sampling.brownian import VirtualBrownianTree
from scoresde.sampling.coupling import coupled_step
from scoresde.sampling.grid import Chain, Grid
from scoresde.sampling.observer import StepHook

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Predict", "Sampler", "SamplingContext", "SolverError", "StepSampler", "check_deterministic"]

Predict = Callable[..., Prediction]
"""One network call: ``predict(x, tau)``; of a few-step student ``predict(x, tau, s)``, with the end of the step."""


class SolverError(RuntimeError):
    """A solver stopped before the end. `sample` first checks whether the network returned NaN or infinity."""


@dataclass
class SamplingContext:
    """What a sampler needs in addition to the state of a batch.

    Attributes:
        predict: The network call, counted.
        sde: The process.
        noise: Source of randomness.
        start: OU time of the first state.
        observe: Called after each step, or None.
        brownian: The Brownian path from which steps take their noise, on the sampler's clock; None for independent
            noise in every step.
        jump_times: `Model.jump_times` of a few-step student; None for other models, whose calls do not take the end of
            the step.
    """

    predict: Predict
    sde: Process
    noise: Noise
    start: float
    observe: StepHook | None = None
    brownian: VirtualBrownianTree | None = None
    jump_times: tuple[float, ...] | None = None


class Sampler(CheckedArguments, ABC):
    """A numerical method for the reverse process. Settings are dataclass fields; no state is stored between calls."""

    process_kind: ClassVar[type[Process]] = SDE
    """The processes that the method reverses."""

    def check_process(self, process: Process) -> None:
        """Refuses a process of another kind.

        Raises:
            TypeError: Names samplers that reverse it.
        """
        if not isinstance(process, self.process_kind):
            remedy = "Adams() or DDPM()" if isinstance(process, SDE) else "Ancestral() or ExactSimulation()"
            if isinstance(process, Mixed):
                own = self if isinstance(self, StepSampler) and self.process_kind is SDE else None
                remedy = "MixedSampler()" if own is None else f"MixedSampler({type(own).__name__}({own.steps}))"
            raise TypeError(
                f"{type(self).__name__} reverses a process of the class {self.process_kind.__name__}, got a model of "
                f"{type(process).__name__}; take {remedy}."
            )

    def for_model(self, model: Model) -> Self:
        """The sampler with the settings that it leaves to the model; default: this sampler. `sample` calls it."""
        return self

    @abstractmethod
    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Takes ``x`` from ``context.start`` to the end of the reverse process.

        Args:
            x: State in x, ``(B, *D)``.
            context: Network, process, noise and observer.

        Returns:
            The last state and its OU time.

        Raises:
            SolverError: If the solver cannot reach the end.
        """


@dataclass(frozen=True)
class StepSampler(Sampler):
    """A fixed-step method: one pure `step`, applied along a grid of times.

    A subclass defines `step` and declares its `order`. It may declare `stochastic`, `start_order`, `strong_order` and
    `brownian_clock`. A value that does not depend on the settings is a class attribute, ``order: ClassVar[int] = 1``;
    one that does is a property. ``steps`` is always the first field, ``grid`` the second.

    Args:
        steps: Number of steps.
        grid: The times of the steps.

    Raises:
        TypeError: If ``grid`` is not a Grid.
        ValueError: If ``steps`` is not a positive integer.
    """

    steps: int = 1000
    grid: Grid = field(default_factory=Chain)

    stochastic: ClassVar[bool] = False
    """Whether the step draws noise."""

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_kind("grid", self.grid, Grid)

    @property
    @abstractmethod
    def order(self) -> int | None:
        """Order of the global error in the step size.

        It is the error of the map from the first state to the last. Where the step draws noise, it is the error of the
        last mean and variance. For a multistep method it holds from an exact start; `start_order` holds from the
        method's own start. None where more steps alone do not lead to the data's distribution, as for Langevin steps of
        a fixed size. Such a class states its stationary distribution instead.
        """

    @property
    def start_order(self) -> int | None:
        """Order with the method's own start; default `order`."""
        return self.order

    @property
    def strong_order(self) -> float | None:
        """Order of the root mean square error at the end along one Brownian path; None where none can be stated.

        Additive noise gives order 1 to every method that uses only the path's increments.
        """
        return 1.0 if self.stochastic and self.order is not None else None

    def brownian_clock(self, tau: float) -> float:
        r"""Time $b(\tau) \ge 0$ of the Brownian path from which coupled runs take the noise of a step.

        $z = (W_{b(s)} - W_{b(\tau)})/\sqrt{b(s) - b(\tau)}$; b grows as τ falls. Default: the signal-to-noise ratio.
        On it, the noise of the exactly solved linear part of the reverse SDE is an increment for steps of any length.
        """
        return ew.exp(ou.log_snr(tau))

    @abstractmethod
    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """One reverse step from ``tau`` to ``s``.

        Args:
            predict: ``predict(x, tau)``, one network call (`Jumps` also passes ``s``, which students take).
            x: State at ``tau``: a tensor, or an exact distribution. Only + and × with floats are allowed (``x * c`` is
                faster than ``c * x`` in torch, and `_core.tensors.combine` faster than both).
            tau, s: OU times with ``0 <= s < tau``.
            noise: Draws unit normal noise like ``x``. Call it only if ``s > 0``.
            memory: What the last step returned; None in the first step.

        Returns:
            State at ``s`` and the memory for the next step.
        """

    def moved(self, memory: Any, tau: float, change: Any) -> Any:
        """What `step` remembers, if the state at ``tau`` is changed from outside between two steps.

        Args:
            memory: What the last step returned; None before the first.
            tau: OU time of the state.
            change: What was added to the state, like ``x``.

        Returns:
            The memory for the next step. A method that remembers states moves them, so that it would have arrived at
            the changed state. Default: the memory itself.
        """
        return memory

    def for_model(self, model: Model) -> Self:
        grid = self.grid.for_model(model)
        if grid is self.grid:
            return self
        adapted = vars(self).setdefault("_adapted", {})  # kept, because a sampler caches its weights
        if grid not in adapted:
            adapted[grid] = replace(self, grid=grid)
        return adapted[grid]

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Applies `step` along the grid; see `Sampler.run`."""
        taus = self.grid.times(context.sde, self.steps, context.start)
        step = self.step
        if context.brownian is not None:
            step = coupled_step(step, self.brownian_clock, context.brownian)
        predict, observe, memory = context.predict, context.observe, None

        def noise() -> Tensor:
            return context.noise.normal(x)

        for i in range(self.steps):
            result = step(predict, x, taus[i], taus[i + 1], noise, memory)
            x, memory = result if i else self._checked(result, x)
            if observe is not None:
                observe(i + 1, self.steps, taus[i + 1], x)
        return x, taus[-1]

    def _checked(self, result: object, x: Tensor) -> tuple[Tensor, Any]:
        """What the first `step` returned, if it is a state like ``x`` and a memory."""
        if isinstance(result, tuple) and len(result) == 2 and getattr(result[0], "shape", None) == x.shape:
            return result
        first = result[0] if isinstance(result, tuple) and result else result
        got = f"a state of shape {tuple(first.shape)}" if isinstance(first, Tensor) else type(first).__name__
        alone = "" if isinstance(result, tuple) and len(result) == 2 else " without a memory"
        raise TypeError(
            f"step must return (x, memory), with x of shape {tuple(x.shape)}, got {got}{alone} from "
            f"{type(self).__name__}; a sampler without memory returns the memory that it received."
        )


def check_deterministic(sampler: object, user: str) -> None:
    """Refuses a sampler whose last state is not a function of its first.

    Args:
        sampler: The sampler to check.
        user: What needs it, for the message.

    Raises:
        TypeError: If it is not a `StepSampler`.
        ValueError: If it draws noise.
    """
    if not isinstance(sampler, StepSampler):
        raise TypeError(f"{user} needs a step sampler, got {sampler!r}; pass one such as Adams(steps=10).")
    if sampler.stochastic or sampler.order is None:
        raise ValueError(
            f"{user} needs a deterministic sampler, whose last state is a function of its first, got {sampler!r}; "
            "take Adams() or DDIM(), or the same method without noise."
        )
