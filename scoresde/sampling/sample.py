"""The function `sample`: samples of a model, drawn by any sampler."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input, check_per_sample, cond_inputs, empty_state
from scoresde._core.checks import check_device, check_finite, check_integer, check_seeds
from scoresde._core.progress import ProgressBar
from scoresde._core.tensors import has_values
from scoresde.model import Model, check_model, evaluating, refuse_unknown
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling.base import Sampler, StepSampler
from scoresde.sampling.batch import BatchResult, SamplingBatch
from scoresde.sampling.observer import Observer, Progress
from scoresde.sampling.samples import Samples, class_labels

__all__ = ["sample"]


def sample(
    model: Model,
    shape: int | Sequence[int],
    sampler: Sampler,
    *,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    start: float | None = None,
    init: ArrayLike | None = None,
    denoise: bool = False,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    trajectory: bool = False,
    previews: bool = False,
    coupled: bool = False,
    progress: bool = False,
    observe: Observer | None = None,
    **cond: Tensor,
) -> Samples:
    """Draws samples.

    Args:
        model: Trained or exact; evaluated in eval mode, without gradients.
        shape: Number of samples (the model must know its event shape), or ``(n, *D)``.
        sampler: E.g. ``DDPM(steps=250)``, ``EulerMaruyama()``, ``ODE()``.
        generator: Source of all randomness; the global random state does not change. Default: a new generator
            seeded from the global one.
        seeds: One integer in [0, 2**63) per sample, instead of a generator. Each sample then depends on its own
            seed, not on its batch, except for solvers whose batch shares one step size. The global random state
            does not change.
        start: OU time of the first state; default the end of the clock. Below it the first state is N(0, I) in x.
        init: State at ``start`` in the view's coordinates, ``(n, *D)``, instead of a draw from the prior.
        denoise: Ends with one more network call, which replaces x by its data estimate; counted in ``nfe``. A sampler
            that ends at τ = 0 needs none.
        batch_size: Samples at once; default all.
        device: Where to sample; default where the model is. The model is not moved.
        dtype: Type of the state; default the wider of the model's and that of ``init``, at least float32.
        trajectory: Also returns the states at all times, the first among them.
        previews: Also returns the data estimates with which the steps were made; this needs no more network calls.
        coupled: Takes a step's noise from a Brownian path that does not depend on the steps, so that samples converge
            as steps grow. There is one path per sample with ``seeds``, else one per batch. Needs a step sampler, whose
            ``brownian_clock`` it uses; without effect on those that draw no noise.
        progress: Shows a progress bar.
        observe: Called with a `Progress` after each step of each batch. A true return value stops the batch: its
            samples stay at that τ, see ``Samples.tau``. ``denoise`` still works.
        **cond: Passed to the network, one entry per sample, ``(n, …)``.

    Returns:
        The samples, see `Samples`.

    Raises:
        TypeError: If the model is not a Model or the sampler not a Sampler; if ``coupled`` needs a step sampler and
            gets another; if a keyword is neither an option nor read by the network.
        ValueError: If the shape, seeds, start, init, batch size or conditioning do not fit.
        RuntimeError: If the network returns NaN or infinity; the message names the network call, tau and the samples.
            If the samples are finite but far outside the range of the data; the message names sampler and grid.

    Example:
        >>> from scoresde import Adams, GaussianMixture, sample
        >>> samples = sample(GaussianMixture.ring(), 16, Adams(steps=20), seeds=range(16))
        >>> samples.x.shape, samples.nfe
        (torch.Size([16, 2]), 20)
    """
    check_model(model)
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a Sampler, got {sampler!r}; pass an object such as DDPM(steps=250).")
    check_arguments(sample, locals())
    sampler.check_process(model.sde)
    if coupled and not isinstance(sampler, StepSampler):
        raise TypeError(
            f"coupled needs a sampler whose steps state the clock of their noise, got {sampler}; take a StepSampler."
        )
    refuse_unknown(sample, model, cond)
    init, cond = None if init is None else as_input(model, init, "init"), cond_inputs(model, cond)
    size = _size(model, shape)
    like = empty_state(model, dtype, check_device(device))
    if dtype is None and init is not None:
        like = like.to(torch.promote_types(like.dtype, init.dtype))
    seeds = None if seeds is None else check_seeds(seeds, size[0])
    if generator is not None and seeds is not None:
        raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
    if generator is None and seeds is None and has_values(like):
        generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
    _check_per_sample(size, init, cond)
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    sampler = sampler.for_model(model)
    first, rows_per_batch = _checked_start(model, start, init), max(size[0], 1) if batch_size is None else batch_size
    results: list[BatchResult] = []
    with ProgressBar("sampling", enabled=progress) as bar, torch.no_grad(), evaluating(model):
        for i in range(0, size[0], rows_per_batch):
            rows = slice(i, min(i + rows_per_batch, size[0]))
            batch = SamplingBatch(
                model,
                sampler,
                like.new_empty((rows.stop - rows.start, *size[1:])),
                first,
                None if init is None else init[rows],
                {name: value[rows].to(like.device) for name, value in cond.items()},
                denoise,
                trajectory,
                previews,
                coupled,
                _observers(bar, i, size[0], observe),
            )
            results.append(batch.run(generator, None if seeds is None else seeds[rows]))
            bar.update(rows.stop / max(size[0], 1))
    return replace(_join(results, like.new_empty(size), model), labels=class_labels(cond))


def _observers(bar: ProgressBar, first: int, total: int, observe: Observer | None) -> tuple[Observer, ...]:
    """The observers of a batch that begins with sample ``first`` of ``total``: the progress bar and the caller's."""

    def advance(progress: Progress) -> None:
        bar.update((first + len(progress.x) * progress.done / progress.steps) / total)

    return (*((advance,) if bar.enabled else ()), *(() if observe is None else (observe,)))


def _size(model: Model, shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, (int, numbers.Integral)):
        if model.event_shape is None:
            raise ValueError(
                f"a number of samples needs a model that knows its event shape, got n = {shape} and a model without "
                "one; pass the whole shape (n, *D), or event_shape to ScoreModel."
            )
        shape = (int(shape), *model.event_shape)
    if isinstance(shape, numbers.Real):
        check_integer("shape", shape, 0)
    if not all(float(n).is_integer() for n in shape):
        raise ValueError(f"shape must be (n, *D), integers, got {tuple(shape)}.")
    size = tuple(int(n) for n in shape)
    if not size or any(n < 0 for n in size):
        raise ValueError(f"shape must be (n, *D) with n >= 0, got {size}.")
    return size


def _check_per_sample(size: tuple[int, ...], init: Tensor | None, cond: dict[str, Tensor]) -> None:
    check_per_sample(cond, size[0])
    if init is not None:
        if init.shape != size:
            raise ValueError(f"init must have the shape of the samples, {size}, got {tuple(init.shape)}.")
        check_finite(init, "init")


def _checked_start(model: Model, start: float | None, init: Tensor | None) -> float:
    low, high = model.sde.tau_min, model.sde.tau_max
    start = high if start is None else start
    if not low < start <= high * (1 + 1e-6):
        raise ValueError(f"start must lie in (tau_min, tau_max] = ({low:g}, {high:g}], got {start!r}.")
    alpha = ou.alpha(float(start))
    if init is None and alpha > 0.1:
        noise = "N(0, I)" if isinstance(model.sde, SDE) else "the noise distribution"
        warnings.warn(
            f"sampling starts at tau = {start:.4g}, where alpha = {alpha:.3g} of the data is still in x, but the first "
            f"state is drawn from {noise}; start later, take a clock that ends later, or give the state by init=.",
            stacklevel=3,
        )
    return float(start)


def _join(results: list[BatchResult], empty: Tensor, model: Model) -> Samples:
    if not results:
        return Samples(empty, model.sde.tau_min, 0, description=model.data)
    ends = sorted({result.tau for result in results})
    if len(ends) > 1:
        raise ValueError(
            "all samples must end at the same tau, but batches were stopped at "
            f"{', '.join(f'{tau:g}' for tau in ends)}; leave batch_size out, or stop at a tau."
        )
    times = {tuple(result.times) for result in results}
    if len(times) > 1:
        raise ValueError(
            "a trajectory and previews need the same times in every batch; leave batch_size out for adaptive solvers."
        )
    return Samples(
        torch.cat([result.x for result in results]),
        results[0].tau,
        max(result.nfe for result in results),
        (times.pop() or None) if results[0].states or results[0].previews else None,
        _stack_times([result.states for result in results]),
        _stack_times([result.previews for result in results]),
        model.data,
    )


def _stack_times(batches: list[list[Tensor]]) -> Tensor | None:
    """Tensors of each time of each batch as ``(times, n, *D)``; None for empty lists."""
    return torch.cat([torch.stack(tensors) for tensors in batches], 1) if batches[0] else None
