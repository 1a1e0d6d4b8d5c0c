"""How is a sample drawn? One `sample` for every way back from the prior."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.progress import ProgressBar
from scoresde._core.tensors import has_values
from scoresde.data import Description
from scoresde.model import Model, check_model, check_per_sample, evaluating, refuse_unknown
from scoresde.process import ou
from scoresde.sampling.base import Observer, Progress, Sampler, StepSampler
from scoresde.sampling.batch import BatchResult, SamplingBatch

__all__ = ["Samples", "sample"]


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Attributes:
        x: Samples in the view's coordinates (those of the data, at ``tau``), model units, ``(n, *D)``.
        tau: OU time at which they stand: ``tau_min``, or 0 after the chain's last step or a final denoising, or where
            an observer stopped.
        nfe: Network calls per sample (of a batch-coupled adaptive solver: of the batch with the most).
        taus: Times of the start, of every step and of a final denoising; None without trajectory or previews.
        trajectory: States at those times, view's coordinates, ``(len(taus), n, *D)``, or None.
        previews: The data estimates of the last network calls before ``taus[1:]``, in the data's coordinates,
            ``(len(taus) - 1, n, *D)``, or None.
        description: The data's description, or None.
    """

    x: Tensor
    tau: float
    nfe: int
    taus: tuple[float, ...] | None = None
    trajectory: Tensor | None = None
    previews: Tensor | None = None
    description: Description | None = None

    @cached_property
    def data(self) -> Tensor:
        """The samples in the data's own units (levels, where they are quantized), ``(n, *D)``.

        Raises:
            ValueError: If the model does not carry its data's description.
        """
        if self.description is None:
            raise ValueError("data units need the data's description, got a model without one; use .x (model units).")
        return self.description.to_data(self.x)


def sample(
    model: Model,
    shape: int | Sequence[int],
    sampler: Sampler,
    *,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    start: float | None = None,
    init: Tensor | None = None,
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
        shape: Number of samples (the model then knows its event shape), or ``(n, *D)``.
        sampler: Which way back, e.g. ``DDPM(steps=250)``, ``EulerMaruyama()``, ``ODE()``.
        generator: Source of all randomness; the global random state is then left alone. Default: a new generator
            seeded from the global one.
        seeds: One integer per sample instead: a sample then depends on its own seed only, not on its batch (but for
            solvers that say that the batch shares their step). The global random state is left alone.
        start: OU time to start from; default the end of the clock. Below it the start is N(0, I) in x.
        init: State at ``start`` in the view's coordinates, ``(n, *D)``, instead of a draw from the prior.
        denoise: Ends with one more network call, which replaces x by its data estimate; counted in ``nfe``. A sampler
            that ends at τ = 0 makes none.
        batch_size: Samples at once; default all.
        device: Where to sample; default where the model is. The model is not moved.
        dtype: Type of the state; default the wider of the model's and that of ``init``, at least float32.
        trajectory: Also returns the states along the way, the start among them.
        previews: Also returns the data estimates along the way, those that the steps were made with: no more calls.
        coupled: Takes a step's noise from a Brownian path that stays the same when the steps change (one per sample
            with ``seeds``, else one for a batch), so that results converge as steps grow. For step samplers, on the
            clock that each declares; without effect on those that draw no noise.
        progress: Shows a progress bar.
        observe: Called with a `Progress` after each step of each batch. A true answer stops the batch there: its
            samples stand at that τ (``denoise`` then still works), see ``Samples.tau``.
        **cond: Passed to the network, one entry per sample, ``(n, …)``.

    Returns:
        The samples, see `Samples`.

    Raises:
        TypeError: If the model or the sampler is none, or no step sampler where ``coupled`` needs one, or a keyword is
            neither an option nor read by the network.
        ValueError: If the shape, seeds, start, init, batch size or conditioning do not fit.
        RuntimeError: If the network returns NaN or infinity: names the network call, tau and the samples.
    """
    check_model(model)
    if not isinstance(sampler, Sampler):
        raise TypeError(f"sampler must be a Sampler, got {sampler!r}; pass an object such as DDPM(steps=250).")
    if coupled and not isinstance(sampler, StepSampler):
        raise TypeError(
            f"coupled needs a sampler whose steps state the clock of their noise, got {sampler}; take a StepSampler."
        )
    refuse_unknown(sample, model, cond)
    size = _size(model, shape)
    like = _reference(model, device, dtype, init)
    seeds = None if seeds is None else [int(seed) for seed in seeds]
    if generator is not None and seeds is not None:
        raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
    if generator is None and seeds is None and has_values(like):
        generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
    _check_per_sample(size, seeds, init, cond)
    first, chunk = _start(model, start, init), _chunk(size[0], batch_size)
    walks: list[BatchResult] = []
    with ProgressBar("sampling", enabled=progress) as bar, torch.no_grad(), evaluating(model):
        for i in range(0, size[0], chunk):
            rows = slice(i, min(i + chunk, size[0]))
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
            walks.append(batch.walk(generator, None if seeds is None else seeds[rows]))
            bar.update(rows.stop / max(size[0], 1))
    return _join(walks, like.new_empty(size), model)


def _observers(bar: ProgressBar, first: int, total: int, observe: Observer | None) -> tuple[Observer, ...]:
    """The observers of a batch that begins with sample ``first`` of ``total``: the progress bar and the caller's."""

    def advance(now: Progress) -> None:
        bar.update((first + len(now.x) * now.done / now.steps) / total)

    return (*((advance,) if bar.enabled else ()), *(() if observe is None else (observe,)))


def _size(model: Model, shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, (int, numbers.Integral)):
        if model.event_shape is None:
            raise ValueError(
                f"a number of samples needs a model that knows its event shape, got n = {shape} and a model without "
                "one; pass the whole shape (n, *D), or event_shape to ScoreModel."
            )
        shape = (int(shape), *model.event_shape)
    size = tuple(int(n) for n in shape)
    if not size or any(n < 0 for n in size):
        raise ValueError(f"shape must be (n, *D) with n >= 0, got {size}.")
    return size


def _reference(
    model: Model, device: torch.device | str | None, dtype: torch.dtype | None, init: Tensor | None
) -> Tensor:
    """An empty tensor of the type and device to sample in."""
    held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
    kind = torch.promote_types(held.dtype, torch.float32) if dtype is None else dtype
    if dtype is None and init is not None:
        kind = torch.promote_types(kind, init.dtype)
    if not kind.is_floating_point:
        raise TypeError(f"dtype must be a floating type, got {kind}; float32 or float64 are usual.")
    return torch.empty(0, dtype=kind, device=held.device if device is None else device)


def _check_per_sample(
    size: tuple[int, ...], seeds: list[int] | None, init: Tensor | None, cond: dict[str, Tensor]
) -> None:
    check_per_sample(cond, size[0])
    if seeds is not None and len(seeds) != size[0]:
        raise ValueError(f"seeds must have one entry per sample, {size[0]}, got {len(seeds)}.")
    if init is not None:
        if init.shape != size:
            raise ValueError(f"init must have the shape of the samples, {size}, got {tuple(init.shape)}.")
        check_finite(init, "init")


def _start(model: Model, start: float | None, init: Tensor | None) -> float:
    low, high = model.sde.tau_min, model.sde.tau_max
    start = high if start is None else start
    if not low < start <= high * (1 + 1e-6):
        raise ValueError(f"start must lie in (tau_min, tau_max] = ({low:g}, {high:g}], got {start!r}.")
    alpha = ou.alpha(float(start))
    if init is None and alpha > 0.1:
        warnings.warn(
            f"sampling starts at tau = {start:.4g}, where alpha = {alpha:.3g} of the data is still in x, from N(0, I), "
            "a bad guess; start later, take a clock that ends later, or give the state by init=.",
            stacklevel=3,
        )
    return float(start)


def _chunk(n: int, batch_size: int | None) -> int:
    if batch_size is None:
        return max(n, 1)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}.")
    return batch_size


def _join(walks: list[BatchResult], empty: Tensor, model: Model) -> Samples:
    if not walks:
        return Samples(empty, model.sde.tau_min, 0, description=model.data)
    ends = sorted({walk.tau for walk in walks})
    if len(ends) > 1:
        raise ValueError(
            f"samples must stand at one tau, but batches were stopped at {', '.join(f'{tau:g}' for tau in ends)}; "
            "leave batch_size out, or stop at a tau."
        )
    times = {tuple(walk.times) for walk in walks}
    if len(times) > 1:
        raise ValueError(
            "a trajectory and previews need the same times in every batch; leave batch_size out for adaptive solvers."
        )
    return Samples(
        torch.cat([walk.x for walk in walks]),
        walks[0].tau,
        max(walk.nfe for walk in walks),
        (times.pop() or None) if walks[0].states or walks[0].previews else None,
        _along([walk.states for walk in walks]),
        _along([walk.previews for walk in walks]),
        model.data,
    )


def _along(kept: list[list[Tensor]]) -> Tensor | None:
    """Tensors of each time of each batch as ``(times, n, *D)``; None where there are none."""
    return torch.cat([torch.stack(each) for each in kept], 1) if kept[0] else None
