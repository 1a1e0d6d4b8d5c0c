r"""Calibration: fits a deterministic sampler to a model so that its last states are nearest to reference solutions.

Three things are fitted:

- the times of the steps, by a descent on the loss of rollouts from a pool of noises;
- the orders, if the sampler is an `Adams` that leaves them open;
- the mean and covariance of the data, from coarse solutions. If these moments lower the error, the sampler runs in
  whitened coordinates (`Whitened`).

Only values of the network are used, never its gradient, so any deterministic sampler and any network can be used. Most
of the search needs no network calls: methods and grids are compared on a `Surrogate`, made of the calls that solved the
reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import check_per_sample
from scoresde._core.checks import check_integer
from scoresde._core.progress import ProgressBar
from scoresde.model import Model, check_model, evaluating, gaussian_process, refuse_unknown
from scoresde.sampling.base import StepSampler, check_deterministic
from scoresde.sampling.calibration.calibration import Calibration
from scoresde.sampling.calibration.fitting import Effort, fit_sampler, planned_evaluations
from scoresde.sampling.calibration.meter import Meter
from scoresde.sampling.calibration.noises import NoiseBatch
from scoresde.sampling.calibration.preparation import default_noises, draw_noises, prepare, reference_evaluations
from scoresde.sampling.moments import Moments

__all__ = ["calibrate"]


@overload
def calibrate(model: Model, sampler: StepSampler, steps: int | None = None, **settings: Any) -> Calibration: ...
@overload
def calibrate(model: Model, sampler: StepSampler, steps: Sequence[int], **settings: Any) -> list[Calibration]: ...
def calibrate(
    model: Model,
    sampler: StepSampler,
    steps: int | Sequence[int] | None = None,
    *,
    shape: Sequence[int] | None = None,
    noises: int | None = None,
    iterations: int | None = None,
    search: int = 0,
    pool: int = 1,
    whiten: bool | Moments = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
    **cond: Tensor,
) -> Calibration | list[Calibration]:
    """Fits a deterministic sampler to a model, at the same number of network calls.

    Cost: with the default settings, a fit of `Adams` at 10 calls makes less than 15 000 network evaluations, as many as
    300 samples at 50 calls. More than half of them solve the reference, which the fits of several numbers of ``steps``
    share.

    For data with well separated modes, the few noises that lead to a wrong mode dominate the error. For such data use
    ``pool=8``, ``search=60`` and a thousand noises or more. One round of the search is ten rollouts, for up to three
    candidates.

    Args:
        model: The model; run in eval mode, without gradients.
        sampler: A deterministic step sampler. The calibrated sampler has the same first and last time. For `Adams` with
            its default orders, the weights of all steps are fitted, see `NonStationary`. For any other sampler only
            times and moments are.
        steps: Number of steps of the original sampler; default ``sampler.steps``. Several numbers give one fit each.
        shape: Shape of one event; default that of the model.
        noises: Number of noises to fit to. As many others are held out. Default 75; 200 for events of up to 16 values,
            whose networks are cheap. Without a larger ``pool``, one in five is moved to where the largest of sixteen
            times as many draws are, with a small weight: from there a network may lead far outside the data.
        iterations: Iterations of a descent on the network, at most; default 15 divided by the steps, at least 1, and 8
            for events of up to 16 values. It uses a fifth of the noises.
        search: Rounds of an evolution strategy after the descents; 0 for none. With a search, descents use all noises,
            and `Adams` is tried with several fixed orders too. For events of up to 16 values, whose networks are cheap,
            both hold without a search.
        pool: How many times ``noises`` are drawn, for the fit and again for the held-out set. With ``pool > 1`` a fifth
            of the noises used are the first of their pool. The others are those from which two coarse rollouts end
            farthest apart. Weights make the errors estimates for the pool.
        whiten: True also tries whitened coordinates, with moments of coarse solutions from other noises; False only x.
            Pass `Moments` of the data for events of more than 4096 elements, or with fewer than 16 noises: no moments
            are estimated there.
        batch_size: Noises in one network call; default all.
        generator: Source of all randomness; the global random state is then not used. Default: a new generator seeded
            from the global one.
        dtype: Type of the states; default the model's, at least float32.
        progress: Shows a progress bar.
        **cond: Passed to the network, one entry per noise, ``(2 * pool * noises, …)``.

    Returns:
        The calibrated sampler and its errors, or a list of them for several ``steps``. On the held-out noises it is
        never worse than the original. They are used for nothing else than to choose between the original and up to
        three fits: in x, in whitened coordinates, and with fixed orders. So ``error`` is hardly too small.

    Raises:
        TypeError: If ``model`` is not a Model, ``sampler`` not a `StepSampler`, or a keyword is neither an option nor
            read by the network.
        ValueError: If the sampler is stochastic or its grid does not fit the process; if a number is out of its range
            or given twice; if the shape or the conditioning does not fit.
        RuntimeError: If the reference solution is not finite.

    Example:
        >>> import torch
        >>> from scoresde import Adams, GaussianMixture, calibrate
        >>> generator = torch.Generator().manual_seed(0)
        >>> five, ten = calibrate(GaussianMixture.ring(), Adams(), [5, 10], noises=32, generator=generator)
        >>> five.error < 0.5 * five.original_error, ten.error < 0.5 * ten.original_error
        (True, True)

    Source: fitting a sampler's steps to a model: Watson et al. 2022 (differentiable sampler search); Xue et al. 2024
    (optimized time steps); Shaul et al. 2024 (weights of each step). Descent: Marquardt 1963. The fit to reference
    solutions by least squares, its surrogate and the parameterization by step fractions in the root of the angle are
    ours.
    """
    check_model(model)
    gaussian_process(model, "calibrate")
    requested = _checked_samplers(sampler, steps)
    _check_counts(noises=noises, pool=pool, iterations=iterations, batch_size=batch_size)
    check_integer("search", search, least=0)
    check_arguments(calibrate, locals())
    refuse_unknown(calibrate, model, cond)
    noises = default_noises(model, shape) if noises is None else noises
    originals = [each.for_model(model) for each in requested]
    with (
        ProgressBar("calibrating", enabled=progress) as bar,
        torch.inference_mode(False),
        torch.no_grad(),
        evaluating(model),
    ):
        x, generator = draw_noises(model, shape, 2 * pool * noises, generator, dtype)
        check_per_sample(cond, len(x), "noise (2 * pool * noises)")
        meter, trial_generator = Meter(bar), _cpu_generator(generator)
        efforts = {each: Effort.of(each.steps, x, iterations, search, trial_generator) for each in originals}
        batch = NoiseBatch(x, {name: value.to(x.device) for name, value in cond.items()}, batch_size, meter)
        results, spent, groups = [], 0, _groups(model, originals)
        meter.planned = sum(reference_evaluations(model, group, noises, pool) for group in groups)
        meter.planned += sum(planned_evaluations(model, each, x[:noises], effort) for each, effort in efforts.items())
        for group in groups:
            shared = prepare(model, group, batch, noises, whiten, generator)
            for original in group:
                fitted = fit_sampler(model, original, shared, efforts[original])
                results.append(replace(fitted, evaluations=meter.spent - spent))
                spent = meter.spent
        meter.finish()
    results.sort(key=lambda each: originals.index(each.original))
    results = [_as_requested(*pair) for pair in zip(results, requested)]
    return results if isinstance(steps, Sequence) else results[0]


def _checked_samplers(sampler: StepSampler, steps: int | Sequence[int] | None) -> list[StepSampler]:
    """The original samplers: ``sampler`` with each number of steps."""
    check_deterministic(sampler, "calibrate")
    if steps is None:
        return [sampler]
    counts = list(steps) if isinstance(steps, Sequence) else [steps]
    for count in counts:
        check_integer("steps", count)
    if not counts or len(set(counts)) < len(counts):
        raise ValueError(f"steps must be one number or several, each given once, got {steps}.")
    return [replace(sampler, steps=count) for count in counts]


def _as_requested(result: Calibration, requested: StepSampler) -> Calibration:
    """The result for the sampler without the settings that it leaves to the model, by which it is found again."""
    sampler = requested if result.sampler == result.original else result.sampler
    return replace(result, sampler=sampler, original=requested)


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None:
            check_integer(name, value)


def _groups(model: Model, originals: list[StepSampler]) -> list[list[StepSampler]]:
    """The samplers by the first and the last time of their grids, for each of which there is one reference."""
    groups: dict[tuple[float, float], list[StepSampler]] = {}
    for original in originals:
        taus = original.grid.times(model.sde, original.steps)
        groups.setdefault((taus[0], taus[-1]), []).append(original)
    return list(groups.values())


def _cpu_generator(source: torch.Generator) -> torch.Generator:
    """A CPU generator seeded from another generator."""
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    return torch.Generator().manual_seed(seed)
