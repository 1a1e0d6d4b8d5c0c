"""Several draws of each of many posteriors whose observations are the known entries of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde._core.call_inputs import check_per_sample
from scoresde._core.checks import check_integer, check_seeds
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Mask
from scoresde.guidance.posterior import Posterior, PosteriorMethod
from scoresde.inverse.base import PosteriorSampler
from scoresde.inverse.sample_posterior import sample_posterior
from scoresde.inverse.seeds import draw_seeds
from scoresde.model import Model
from scoresde.sampling import Eta, Sampler, SASolver, sample

__all__ = ["ConditionalDraws", "refuse_sampler"]

_SAMPLER = SASolver(steps=99, noise=Eta(4.0, low=0.3, high=5.0))

Method = PosteriorMethod | PosteriorSampler

_PARTICLE_NOISE = 0.01


@dataclass(frozen=True, eq=False)
class ConditionalDraws:
    """What draws the unknown entries of events, model units.

    Attributes:
        model: The model of complete events.
        method: A `PosteriorMethod`, which steers the model, or a `PosteriorSampler`, which takes the observation.
        sampler: Of the steered model; not used by a `PosteriorSampler`. None: one with 16 times the noise of the
            reverse SDE where modes part, which lets samples change them (``tests/benchmarks/posteriors.py``).
        draws: Number of draws of each event.
        noise_std: Standard deviation of the noise of known entries, model units: a number or ``(*E)``. None is 0, and
            0.01 for a `PosteriorSampler`, whose particles need some.
        batch_size: Events at once; None for all.
    """

    model: Model
    method: Method
    sampler: Sampler | None
    draws: int
    noise_std: float | Tensor | None
    batch_size: int | None = None

    def __call__(
        self,
        x: Tensor,
        known: Tensor,
        generator: torch.Generator | None,
        seeds: Sequence[int] | None,
        cond: dict[str, Any],
    ) -> tuple[Tensor, int]:
        """Draws, ``(n, draws, *E)``, and the network evaluations per draw.

        Args:
            x: Events, ``(n, *E)``; unknown entries are not read and may be NaN.
            known: Which entries are known, ``(n, *E)``.
            generator, seeds: Source of randomness; one seed per event.
            cond: Passed to the network, one entry per event.

        Raises:
            ValueError: If numbers of draws, seeds or conditioning do not fit.
        """
        check_integer("draws", self.draws)
        check_per_sample(cond, len(x), "event")
        if generator is not None and seeds is not None:
            raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
        seeds = None if seeds is None else check_seeds(seeds, len(x))
        if not len(x):
            return x.new_empty((0, self.draws, *x.shape[1:])), 0
        if generator is None and seeds is None:
            generator = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, ())))
        noise_std = self.noise_std
        if noise_std is None:
            noise_std = _PARTICLE_NOISE if isinstance(self.method, PosteriorSampler) else 0.0
        observation = Observation(Mask(known, per_observation=True), x, noise_std)
        if isinstance(self.method, PosteriorSampler):
            options = {"generator": generator, "seeds": seeds, "batch_size": self.batch_size, "dtype": x.dtype}
            result = sample_posterior(self.model, observation, self.draws, self.method, **options, **cond)
            return result.x, result.nfe
        posterior = Posterior(self.model, observation, self.method)
        index = torch.arange(len(x), device=x.device).repeat_interleave(self.draws)
        each = None if seeds is None else [seed for first in seeds for seed in draw_seeds(first, self.draws)]
        repeated = {name: value.repeat_interleave(self.draws, 0) for name, value in cond.items()}
        rows = None if self.batch_size is None else self.batch_size * self.draws
        options = {"generator": generator, "seeds": each, "batch_size": rows, "dtype": x.dtype}
        shape = (len(index), *x.shape[1:])
        samples = sample(
            posterior,
            shape,
            _SAMPLER if self.sampler is None else self.sampler,
            observation=index,
            **options,
            **repeated,
        )
        return samples.x.unflatten(0, (len(x), self.draws)), samples.nfe


def refuse_sampler(method: Method | None, sampler: Sampler | None) -> None:
    """Refuses a sampler beside a method that draws by itself.

    Raises:
        ValueError: If there are both.
    """
    if sampler is not None and isinstance(method, PosteriorSampler):
        raise ValueError(
            f"{type(method).__name__} draws by itself and takes no sampler, got {sampler}; leave the sampler out, or "
            "steer the model by method=MMPS()."
        )
