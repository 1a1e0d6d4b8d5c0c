r"""How does this sampler end nearest to where it should, on this model? Three things are fitted to a fine reference.

The data's mean and covariance, as the model's own field has them, so that only what is beyond them is walked
(`whitened`); the orders, where an `Adams` leaves them open; and the times, which a `descent` moves. Walks and reference
start from the same noises. Only values are asked for, never the network's gradient: any deterministic sampler and any
network will do. What is kept is best on noises that the fit never saw, the sampler as it was among the candidates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from scoresde._tensor import Noise
from scoresde.model import Model, check_model, check_per_sample, evaluating, refuse_unknown
from scoresde.parameterization import Prediction, V
from scoresde.sampler.base import Predict, StepSampler, check_deterministic
from scoresde.sampler.descent import Shares, Walks, descend, unit
from scoresde.sampler.grid import Custom
from scoresde.sampler.multistep import Adams
from scoresde.sampler.whitened import Coordinates, Moments, Whitened

__all__ = ["Calibration", "calibrate"]

_ORDERS = ((2, 0), (2, 3), (3, 0))
_FEWEST, _LARGEST = 16, 4096


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns. Errors are root mean squares over all elements at the end, in x.

    Attributes:
        sampler: What was fitted, or the sampler as it was if nothing was better. Makes no more network calls than that.
        original: The sampler as it was given, on its own grid.
        error: Of ``sampler``, on the noises that were held out.
        original_error: Of ``original``, on the same.
        fit_error: Of ``sampler``, on the noises that it was fitted to; if it is far below ``error``, they are too few.
        noises: How many noises it was fitted to; as many were held out.
    """

    sampler: StepSampler | Whitened
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
    noises: int = 128,
    iterations: int = 20,
    starts: int = 2,
    whiten: bool | Moments = True,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **cond: Tensor,
) -> Calibration:
    """Fits a deterministic sampler to a model, at the same number of network calls.

    An iteration costs about as many network calls as half of ``steps`` walks, on ``noises`` samples; most fits end
    after ten. There is one from each of ``starts``, and so for each of three orders if ``sampler`` is an `Adams` that
    leaves its orders open. The reference costs 8 ``steps`` calls, 128 at least, on twice as many samples.

    Args:
        model: The model; evaluated in eval mode, without gradients.
        sampler: A deterministic step sampler. Its grid says where the fitted one ends.
        steps: Number of steps; default the sampler's.
        shape: Of one event; default the model's.
        noises: Starts to fit to; as many more decide what is kept. Where data lie in parts far from each other, take
            thousands: only few noises are led to the wrong part, and those decide the error.
        iterations: Of a descent, at most; it ends where one gains less than a thousandth.
        starts: Grids to descend from, at most four.
        whiten: Whether the walk may leave out the data's mean and covariance; or these, from data, where events are
            too large (over 4096 elements) or the noises too few (under 16) to have them from the model.
        generator: Source of the noises; default a new one with seed 0. The global random state is left alone.
        dtype: Of the states; default the model's, at least float32.
        **cond: Passed to the network, one entry per noise, ``(2 * noises, …)``.

    Returns:
        The calibrated sampler and its errors: on the noises held out it is never worse than the original.

    Raises:
        TypeError: If the model is none, the sampler is no `StepSampler`, or a keyword is neither an option nor read by
            the network.
        ValueError: If the sampler is stochastic or cannot walk from the clock's end, a number is not positive, or the
            shape or the conditioning does not fit.
        RuntimeError: If the reference does not end in finite numbers.

    Source: fitting a sampler's steps to a model: Watson et al. 2022 (differentiable sampler search); Xue et al. 2024
    (optimised time steps). Descent: Marquardt 1963. Shares of the range of the root of the angle are ours.
    """
    check_model(model)
    original = _checked(sampler, steps, noises=noises, iterations=iterations, starts=starts)
    refuse_unknown(calibrate, model, cond)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        own = original.grid.times(model.sde, original.steps)
        x, source = _starts(model, shape, 2 * noises, generator, dtype)
        check_per_sample(cond, len(x), "noise (2 * noises)")
        cond = {name: value.to(x.device) for name, value in cond.items()}
        job = _Job(model, original, own, x, _reference(model, own, x, cond), cond)
        moments = _moments(job, whiten, source)
        plain = job.walks(original, None, held=True)
        best = Calibration(original, original, *2 * [plain.error(own)], job.walks(original, None).error(own), noises)
        for way in _ways(original):
            for found in job.candidates(way, moments, iterations, starts):
                best = min(best, replace(best, **found), key=lambda each: each.error)
        return best


@dataclass(frozen=True, eq=False)
class _Job:
    """What all candidates share: model, starts and right ends; the first half is fitted to, the second held out."""

    model: Model
    original: StepSampler
    own: list[float]
    x: Tensor
    ends: Tensor
    cond: dict[str, Tensor]

    def walks(self, way: StepSampler, moments: Moments | None, held: bool = False) -> Walks:
        """Those of a way from one half of the starts, in the coordinates of the moments."""
        half = len(self.x) // 2
        rows = slice(half, None) if held else slice(half)
        predict: Predict = partial(self.model.predict, **{name: value[rows] for name, value in self.cond.items()})
        x, ends = self.x[rows], self.ends[rows]
        if moments is None:
            return Walks(predict, way, x, ends, lambda last: last, unit(self.model, x))
        frame = Coordinates(moments, x)
        return Walks(
            partial(frame.predict, predict, self.own[0]),
            way,
            frame.enter(x, self.own[0]),
            ends,
            partial(frame.leave, tau=self.own[-1]),
            unit(self.model, x),
        )

    def candidates(
        self, way: StepSampler, moments: Moments | None, iterations: int, starts: int
    ) -> Iterator[dict[str, Any]]:
        """What a descent comes by: samplers with their errors."""
        shares = Shares.make(self.own, self.model.sde.tau_min)
        steps = self._steps(way, shares, moments is not None)
        fit, held = self.walks(way, moments), self.walks(way, moments, held=True)
        found = [(held.error(taus), taus) for taus in descend(fit, shares, steps, iterations, starts)]
        error, taus = min(found)
        fitted = replace(way, steps=steps, grid=Custom(tuple(taus)))
        sampler = fitted if moments is None else Whitened(fitted, moments)
        yield {"sampler": sampler, "error": error, "fit_error": fit.error(taus)}

    def _steps(self, way: StepSampler, shares: Shares, whitened: bool) -> int:
        """As many as the network calls of the original allow."""
        budget = _calls(self.original, self.own, self.x, False)
        for steps in range(self.original.steps + 3, self.original.steps, -1):
            if _calls(way, shares.times(shares.power(2.0, steps)), self.x, whitened) <= budget:
                return steps
        return self.original.steps


def _calls(way: StepSampler, taus: list[float], x: Tensor, whitened: bool) -> int:
    """Network calls of a walk; whitened, that at the start is none."""
    x, calls, memory = x[:1], 0, None

    def predict(x: Tensor, tau: float) -> Prediction:
        nonlocal calls
        calls += not (whitened and tau == taus[0])
        return Prediction(x, tau, torch.zeros_like(x), V())

    for tau, s in zip(taus, taus[1:]):
        x, memory = way.step(predict, x, tau, s, lambda: None, memory)
    return calls


def _ways(original: StepSampler) -> list[StepSampler]:
    """The sampler, or if it leaves its orders open those with settled ones."""
    if isinstance(original, Adams) and original.predictor_order is None and original.corrector_order is None:
        settled = (*_ORDERS, (original.predictor, original.corrector))
        return [replace(original, predictor_order=p, corrector_order=c) for p, c in dict.fromkeys(settled)]
    return [original]


def _moments(job: _Job, whiten: bool | Moments, source: torch.Generator) -> Moments | None:
    """Of the model's own samples, as its field has them; None where there are too few, or they are too large."""
    if isinstance(whiten, Moments):
        return whiten
    half, last = len(job.x) // 2, job.own[-1]
    if not whiten or half < _FEWEST or job.x[0].numel() > _LARGEST or job.original.steps < 2:
        return None
    predict = partial(job.model.predict, **{name: value[:half] for name, value in job.cond.items()})
    data = job.ends[:half] if last == 0 else predict(job.ends[:half], last).x0
    return Moments.of(data).sharpened(predict, data, Noise(source).normal)


def _checked(sampler: StepSampler, steps: int | None, **counts: int) -> StepSampler:
    check_deterministic(sampler, "calibrate")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return sampler if steps is None else replace(sampler, steps=steps)


def _starts(
    model: Model, shape: Sequence[int] | None, n: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> tuple[Tensor, torch.Generator]:
    """Noises, and where they come from."""
    event = model.event_shape if shape is None else tuple(shape)
    if event is None:
        raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=(…).")
    held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
    kind = torch.promote_types(held.dtype, torch.float32) if dtype is None else dtype
    source = torch.Generator(held.device).manual_seed(0) if generator is None else generator
    x = model.sde.prior(torch.empty(n, *event, dtype=kind, device=held.device), Noise(source), model.sde.tau_max)
    model._check_event(x)
    return x, source


def _reference(model: Model, own: list[float], x: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """Where the ODE leads from ``x``; the network is not asked below ``tau_min``, also if the walk ends at 0."""
    steps, shares = max(8 * (len(own) - 1), 128), Shares.make(own, model.sde.tau_min)
    taus, way = shares.times(shares.power(2.0, steps)), Adams(steps, predictor_order=4, corrector_order=4)
    ends = Walks(partial(model.predict, **cond), way, x, x, lambda last: last, 0.0).end(taus)
    if not bool(torch.isfinite(ends).all()):
        raise RuntimeError(
            f"the reference, Adams(steps={steps}), must end in finite numbers, got NaN or infinity; "
            "sample(model, …) with it says at which network call."
        )
    return ends
