r"""Where should the steps of this sampler be for this model? A few steps, fitted by gradient to a fine reference.

The knots between the start and the end are softmax shares of the range of $\sqrt\phi$. They flow through the sampler as
0-d tensors, so that the error at the end has a gradient with respect to them. What is kept is the grid that is best on
noises that the descent never saw, the sampler's own grid among the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from scoresde import ou
from scoresde._tensor import Noise
from scoresde.model import Model, evaluating
from scoresde.sampler.base import StepSampler
from scoresde.sampler.grid import Custom, PowerAngle
from scoresde.sampler.multistep import Adams

__all__ = ["Calibration", "calibrate"]

_STARTS = (1.5, 2.0, 2.5, 3.0)
_PATIENCE = 5


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns. Errors are root mean squares over all elements, on the validation noises.

    Attributes:
        sampler: The sampler on the fitted grid.
        original: The sampler as it was given, on its own grid.
        error: With the fitted grid.
        original_error: With its own.
        fit_error: With the fitted grid, on the noises that it was fitted to: far below ``error``, there are too few.
        noises: Number of noises fitted to, and as many held out.
    """

    sampler: StepSampler
    original: StepSampler
    error: float
    original_error: float
    fit_error: float
    noises: int


def calibrate(
    model: Model,
    sampler: StepSampler,
    steps: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    noises: int = 64,
    iterations: int = 150,
    rate: float = 0.05,
    low_memory: bool = False,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **cond: Tensor,
) -> Calibration:
    """Fits the grid of a deterministic sampler to a model.

    Costs about ``3 * steps * iterations`` network calls on ``noises`` samples, and twice 8 ``steps`` (128 at least) for
    the reference, fourth-order Adams.

    Args:
        model: The model; evaluated in eval mode, its parameters are left alone.
        sampler: A deterministic step sampler; its own grid says where the fitted one ends.
        steps: Number of steps; default the sampler's.
        shape: Of one event; default the model's.
        noises: Starts to fit to; as many more decide which grid is kept.
        iterations: Of gradient descent (Adam).
        rate: Its first step size, in the logarithm of a step's share; it falls to 0 by a cosine.
        low_memory: Keeps one network call's activations at a time and computes the others again (gradient
            checkpointing): half as fast.
        generator: Source of the noises; default a new one with seed 0.
        dtype: Of the states; default the model's, at least float32.
        **cond: Passed to the network, one entry per noise, ``(2 * noises, …)``.

    Returns:
        The calibrated sampler and its errors; on the validation noises it is never worse than the original.

    Raises:
        TypeError: If the sampler is no `StepSampler`.
        ValueError: If it is stochastic, or a number is not positive.

    Source: the idea of fitting steps to a model: Watson et al. 2022 (differentiable sampler search), Xue et al. 2024;
    the parametrization is ours.
    """
    original = _checked(sampler, steps, noises, iterations)
    task = _Task.make(model, original, shape, noises, low_memory, generator, dtype, cond)
    with evaluating(model):
        task.solve()
        best, fitted = _descend(task, iterations, rate)
        own = task.own
        original_error = task.error(own, held_out=True)
        taus, error = min(((own, original_error), *best), key=lambda pair: pair[1])
    return Calibration(
        replace(original, grid=Custom(tuple(taus))) if taus is not own else original,
        original,
        error,
        original_error,
        task.error(taus, held_out=False) if taus is own else fitted(taus),
        noises,
    )


def _checked(sampler: StepSampler, steps: int | None, noises: int, iterations: int) -> StepSampler:
    if not isinstance(sampler, StepSampler):
        raise TypeError(f"calibrate needs a step sampler, got {sampler!r}; pass one such as Adams(steps=10).")
    if sampler.stochastic or sampler.order is None:
        raise ValueError(
            f"calibrate needs a deterministic sampler, whose end is a function of its start, got {sampler!r}; "
            "take Adams() or DDIM(), or calibrate the same method without noise."
        )
    for name, value in {"noises": noises, "iterations": iterations}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return sampler if steps is None else replace(sampler, steps=steps)


@dataclass
class _Task:
    """The sampler, the starts (the first half to fit to) and where they should end."""

    model: Model
    sampler: StepSampler
    x: Tensor
    low_memory: bool
    cond: dict[str, Tensor]
    own: list[float]
    ends: Tensor

    @staticmethod
    def make(
        model: Model,
        sampler: StepSampler,
        shape: Sequence[int] | None,
        noises: int,
        low_memory: bool,
        generator: torch.Generator | None,
        dtype: torch.dtype | None,
        cond: dict[str, Tensor],
    ) -> _Task:
        event = model.event_shape if shape is None else tuple(shape)
        if event is None:
            raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=.")
        held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
        kind = torch.promote_types(held.dtype, torch.float32) if dtype is None else dtype
        source = torch.Generator(held.device).manual_seed(0) if generator is None else generator
        like = torch.empty(2 * noises, *event, dtype=kind, device=held.device)
        x = model.sde.prior(like, Noise(source), model.sde.tau_max)
        return _Task(model, sampler, x, low_memory, cond, sampler.grid.times(model.sde, sampler.steps), x)

    def solve(self) -> None:
        """The reference's ends."""
        steps, end = max(8 * self.sampler.steps, 128), self.own[-1]
        grid = PowerAngle().place(replace(self.model.sde, tau_min=end) if end else self.model.sde, steps, self.own[0])
        fine = Adams(steps, predictor_order=4, corrector_order=4)
        with torch.no_grad():
            self.ends = self._walk(fine, [*grid[:-1], end], self.x, self.cond)

    def walk(self, taus: Sequence[Any], held_out: bool) -> Tensor:
        """The mean square error at the end of the walk over ``taus``, ``()``."""
        half = len(self.x) // 2
        rows = slice(half, None) if held_out else slice(0, half)
        end = self._walk(self.sampler, taus, self.x[rows], {name: value[rows] for name, value in self.cond.items()})
        return (end - self.ends[rows]).square().mean()

    def error(self, taus: Sequence[float], held_out: bool) -> float:
        """Root mean square error; infinite where the walk blew up."""
        with torch.no_grad():
            error = float(self.walk(taus, held_out).sqrt())
        return error if math.isfinite(error) else math.inf

    def _walk(self, sampler: StepSampler, taus: Sequence[Any], x: Tensor, cond: dict[str, Tensor]) -> Tensor:
        call = partial(self.model.predict, **cond)

        def predict(x: Tensor, tau: Any) -> Any:
            if self.low_memory and torch.is_grad_enabled():
                return recompute(call, x, tau, use_reentrant=False)
            return call(x, tau)

        def noise() -> Tensor:
            raise AssertionError("a deterministic sampler drew noise")

        memory = None
        for tau, s in zip(taus, taus[1:]):
            x, memory = sampler.step(predict, x, tau, s, noise, memory)
        return x


def _descend(task: _Task, iterations: int, rate: float) -> tuple[list[tuple[list[float], float]], Callable[..., float]]:
    """Candidates with their validation errors, and the fit's error of one."""
    first, last, steps = task.own[0], task.own[-1], task.sampler.steps
    high, low = math.sqrt(ou.angle(first)), math.sqrt(ou.angle(last))

    def shares(taus: Sequence[float]) -> Tensor:
        places = [math.sqrt(ou.angle(tau)) for tau in taus]
        return torch.tensor([math.log(a - b) for a, b in zip(places, places[1:])], dtype=torch.float64)

    def times(theta: Tensor) -> list[Any]:
        done = torch.cumsum(torch.softmax(theta, 0), 0)
        places = [high + (low - high) * done[i] for i in range(steps - 1)]
        return [first, *(ou.tau_from_angle(place * place) for place in places), last]

    def powers(power: float) -> list[float]:
        a, b = ou.angle(first) ** (1 / power), ou.angle(last) ** (1 / power)
        return [first, *(ou.tau_from_angle((a + (b - a) * i / steps) ** power) for i in range(1, steps)), last]

    starts = [task.own, *(powers(power) for power in _STARTS)]
    theta = shares(min(starts, key=lambda taus: task.error(taus, held_out=False))).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    seen: list[tuple[list[float], float]] = []
    for i in range(iterations + 1):
        if i % _PATIENCE == 0 or i == iterations:
            taus = [float(tau) for tau in times(theta.detach())]
            seen.append((taus, task.error(taus, held_out=True)))
        if i < iterations and steps > 1:
            (theta.grad,) = torch.autograd.grad(task.walk(times(theta), held_out=False).log(), theta)
            torch.nan_to_num_(theta.grad)
            optimiser.step()
            schedule.step()
    return seen, lambda taus: task.error(taus, held_out=False)
