r"""Where should the steps of this sampler be for this model? Where its ends are nearest to a fine reference's.

Both start from the same noises, and a `descent` moves the times. It asks for ends only, never for the network's
gradient: any deterministic sampler and any network will do. What is kept is the grid that is best on noises that the
descent never saw, the sampler's own among the candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde._tensor import Noise
from scoresde.model import Model, check_model, check_per_sample, evaluating, refuse_unknown
from scoresde.sampler.base import StepSampler
from scoresde.sampler.descent import Shares, Walks, descend
from scoresde.sampler.grid import Custom
from scoresde.sampler.multistep import Adams

__all__ = ["Calibration", "calibrate"]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns. Errors are root mean squares over all elements at the end, in x.

    Attributes:
        sampler: The sampler on the fitted grid, or as it was if no grid was better.
        original: The sampler as it was given, on its own grid.
        error: Of ``sampler``, on the noises that were held out.
        original_error: Of ``original``, on the same.
        fit_error: Of ``sampler``, on the noises that it was fitted to; if it is far below ``error``, they are too few.
        noises: How many noises it was fitted to; as many were held out.
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
    noises: int = 128,
    iterations: int = 20,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **cond: Tensor,
) -> Calibration:
    """Fits the grid of a deterministic sampler to a model.

    An iteration costs about as many network calls as half of ``steps`` walks, on ``noises`` samples; most fits end
    after ten. The reference costs 8 ``steps`` calls, 128 at least, on twice as many samples.

    Args:
        model: The model; evaluated in eval mode, without gradients.
        sampler: A deterministic step sampler. Its grid says where the fitted one ends, and is the first candidate.
        steps: Number of steps; default the sampler's.
        shape: Of one event; default the model's.
        noises: Starts to fit to; as many more decide which grid is kept.
        iterations: Of the descent, at most; it ends where one gains less than a thousandth.
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
    original = _checked(sampler, steps, noises=noises, iterations=iterations)
    refuse_unknown(calibrate, model, cond)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        own = original.grid.times(model.sde, original.steps)
        x = _starts(model, shape, 2 * noises, generator, dtype)
        check_per_sample(cond, len(x), "noise (2 * noises)")
        cond = {name: value.to(x.device) for name, value in cond.items()}
        ends = _reference(model, own, x, cond)
        fit, held = (
            Walks(model, original, x[rows], ends[rows], {name: value[rows] for name, value in cond.items()})
            for rows in (slice(0, noises), slice(noises, None))
        )
        found = [(taus, held.error(taus)) for taus in (own, *descend(fit, own, iterations))]
        taus, error = min(found, key=lambda pair: pair[1])
        fitted = original if taus is own else replace(original, grid=Custom(tuple(taus)))
        return Calibration(fitted, original, error, found[0][1], fit.error(taus), noises)


def _checked(sampler: StepSampler, steps: int | None, **counts: int) -> StepSampler:
    if not isinstance(sampler, StepSampler):
        raise TypeError(f"calibrate needs a step sampler, got {sampler!r}; pass one such as Adams(steps=10).")
    if sampler.stochastic or sampler.order is None:
        raise ValueError(
            f"calibrate needs a deterministic sampler, whose end is a function of its start, got {sampler!r}; "
            "take Adams() or DDIM(), or the same method without noise."
        )
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return sampler if steps is None else replace(sampler, steps=steps)


def _starts(
    model: Model, shape: Sequence[int] | None, n: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> Tensor:
    event = model.event_shape if shape is None else tuple(shape)
    if event is None:
        raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=(…).")
    held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
    kind = torch.promote_types(held.dtype, torch.float32) if dtype is None else dtype
    source = torch.Generator(held.device).manual_seed(0) if generator is None else generator
    x = model.sde.prior(torch.empty(n, *event, dtype=kind, device=held.device), Noise(source), model.sde.tau_max)
    model._check_event(x)
    return x


def _reference(model: Model, own: list[float], x: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """Where the ODE leads from ``x``; the network is not asked below ``tau_min``, also if the walk ends at 0."""
    steps, shares = max(8 * (len(own) - 1), 128), Shares.make(own, model.sde.tau_min)
    taus = shares.times(shares.power(2.0, steps))
    ends = Walks(model, Adams(steps, predictor_order=4, corrector_order=4), x, x, cond).end(taus)
    if not bool(torch.isfinite(ends).all()):
        raise RuntimeError(
            f"the reference, Adams(steps={steps}), must end in finite numbers, got NaN or infinity; "
            "sample(model, …) with it says at which network call."
        )
    return ends
