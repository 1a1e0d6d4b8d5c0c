"""The function `sample_posterior`: samples given an observation, by a method that takes the observation itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import check_per_sample, cond_inputs, empty_state
from scoresde._core.checks import check_device, check_integer, check_kind, check_seeds
from scoresde._core.noise import Noise
from scoresde._core.progress import ProgressBar
from scoresde._core.tensors import has_values
from scoresde.guidance.observation import Observation
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.posterior_samples import PosteriorSamples, join, unweighted
from scoresde.inverse.twisted_smc import TwistedSMC
from scoresde.model import Model, check_model, evaluating, refuse_unknown
from scoresde.sampling.divergence import MagnitudeLimit

__all__ = ["sample_posterior"]


def sample_posterior(
    model: Model,
    observation: Observation,
    n: int | None = None,
    method: PosteriorSampler | None = None,
    *,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    progress: bool = False,
    **cond: Tensor,
) -> PosteriorSamples:
    """Draws samples of the posterior of each of m observations.

    Args:
        model: Trained or exact, and not steered; evaluated in eval mode.
        observation: One observation, or m of them.
        n: Samples per observation. Default: the weighted particles of a particle method, else 1.
        method: Default ``TwistedSMC()``.
        generator: Source of all randomness; default a new generator seeded from the global one.
        seeds: One integer in [0, 2**63) per observation, instead of a generator. The samples of an observation then
            depend on its seed and not on the other observations.
        batch_size: Observations at once; default all.
        device: Where to sample; default where the model is. The model is not moved.
        dtype: Type of the states; default that of the model, at least float32.
        progress: Shows a progress bar.
        **cond: Passed to the network, one entry per observation, ``(m, …)``.

    Returns:
        The samples, see `PosteriorSamples`.

    Raises:
        TypeError: If an argument has the wrong class, or the network does not read a keyword.
        ValueError: If shapes, seeds or conditioning do not fit, the method is not made for the observation, or the
            model is a few-step student.
        RuntimeError: If the network returns NaN or infinity, or samples are far outside the range of the data.
    """
    check_model(model)
    check_kind("observation", observation, Observation)
    method = TwistedSMC() if method is None else method
    check_arguments(sample_posterior, locals())
    method.check_process(model.sde)
    refuse_unknown(sample_posterior, model, cond)
    cond, count = cond_inputs(model, cond), 1 if observation.count is None else observation.count
    check_per_sample(cond, count, "observation")
    like = empty_state(model, dtype, check_device(device))
    _check_fit(model, observation, like)
    for name, value in {"n": n, "batch_size": batch_size}.items():
        if value is not None:
            check_integer(name, value)
    each = None if seeds is None else check_seeds(seeds, count)
    if generator is not None and each is not None:
        raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
    if generator is None and each is None and has_values(like):
        generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
    prepared, states = method.prepare(model, observation, like), method.states(n)
    like = like.new_empty((count, states, *observation.operator.event_shape))
    rows, results = batch_size or max(count, 1), []
    bar = ProgressBar("sampling", enabled=progress)
    with bar, torch.inference_mode(False), torch.no_grad(), evaluating(model):
        for i in range(0, count, rows):
            part = slice(i, min(i + rows, count))
            index = torch.arange(part.start, part.stop, device=like.device)
            noise = Noise(generator, None if each is None else each[part])
            inputs = {name: value[part].to(like.device).repeat_interleave(states, 0) for name, value in cond.items()}
            context = PosteriorContext(model, observation, prepared, index, n, like[part], noise, inputs)
            results.append(_run_checked(method, context, generator, None if each is None else each[part]))
            bar.update(part.stop / count)
    return join(results) if results else unweighted(like[:, : n or states], 0, model.data)


def _check_fit(model: Model, observation: Observation, like: Tensor) -> None:
    """Refuses few-step students, and an observation of other events or on another device than the states."""
    if model.jump_times is not None:
        raise ValueError(
            "sample_posterior needs the posterior mean of the data, got a few-step student; take its teacher."
        )
    event = tuple(observation.operator.event_shape)
    if model.event_shape is not None and tuple(model.event_shape) != event:
        raise ValueError(f"the operator must take the model's events, {model.event_shape}, got {event}.")
    if observation.y.device != like.device:
        raise ValueError(
            f"the observation must be where the states are, on {like.device}, got {observation.y.device}; write "
            f"observation.to('{like.device}')."
        )


def _run_checked(
    method: PosteriorSampler, context: PosteriorContext, generator: torch.Generator | None, seeds: list[int] | None
) -> PosteriorSamples:
    """Samples of one batch; if they are not finite, a second run finds the network call that caused it."""
    before = None if generator is None else generator.get_state()
    result = method.run(context)
    limit = MagnitudeLimit(context.model, 0.0)
    if not has_values(result.x) or limit.check(result.x.flatten(0, 1), cast("Any", method)):
        return result
    if generator is not None and before is not None:
        generator.set_state(before)
    method.run(replace(context, noise=Noise(generator, seeds), checked=True, nfe=0))
    raise RuntimeError(f"samples must be finite, but {method} diverged on finite network outputs; use more steps.")
