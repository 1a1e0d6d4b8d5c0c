"""Several draws of each of many posteriors whose observations are the known entries of events."""

from __future__ import annotations

import math
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
from scoresde.model import Model, ScoreModel
from scoresde.nn.conditions import reads_known
from scoresde.process.sde import SDE
from scoresde.sampling import Adams, Eta, MixedSampler, Sampler, SASolver, sample

__all__ = ["ConditionalDraws", "knows_entries", "refuse_sampler"]

_SAMPLER = SASolver(steps=99, noise=Eta(4.0, low=0.3, high=5.0))

Method = PosteriorMethod | PosteriorSampler

_PARTICLE_NOISE = 0.01


@dataclass(frozen=True, eq=False)
class ConditionalDraws:
    """What draws the unknown entries of events, model units.

    Attributes:
        model: The model of complete events.
        method: A `PosteriorMethod`, which steers the model, or a `PosteriorSampler`, which takes the observation. None:
            the network reads the known entries itself.
        sampler: Of the steered model; not used by a `PosteriorSampler`. None: one with 16 times the noise of the
            reverse SDE where modes part, which lets samples change them (``tests/benchmarks/posteriors.py``). Where
            the network reads the known entries, `Adams`, or `MixedSampler` of numbers and categories.
        draws: Number of draws of each event.
        noise_std: Standard deviation of the noise of known entries, model units: a number or ``(*E)``. None is 0, and
            0.01 for a `PosteriorSampler`, whose particles need some.
        batch_size: Events at once; None for all.
    """

    model: Model
    method: Method | None
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
        if self.method is None:
            return self._drawn(self.model, x, generator, seeds, cond, known=x.where(known, math.nan))
        noise_std = self.noise_std
        if noise_std is None:
            noise_std = _PARTICLE_NOISE if isinstance(self.method, PosteriorSampler) else 0.0
        observation = Observation(Mask(known, per_observation=True), x, noise_std)
        if isinstance(self.method, PosteriorSampler):
            options = {"generator": generator, "seeds": seeds, "batch_size": self.batch_size, "dtype": x.dtype}
            result = sample_posterior(self.model, observation, self.draws, self.method, **options, **cond)
            return result.x, result.nfe
        posterior = Posterior(self.model, observation, self.method)
        return self._drawn(posterior, x, generator, seeds, cond, observation=torch.arange(len(x), device=x.device))

    def _drawn(
        self,
        model: Model,
        x: Tensor,
        generator: torch.Generator | None,
        seeds: Sequence[int] | None,
        cond: dict[str, Any],
        **given: Tensor,
    ) -> tuple[Tensor, int]:
        """Samples of a model that is told, by ``given`` and one entry per event, what is known."""
        each = None if seeds is None else [seed for first in seeds for seed in draw_seeds(first, self.draws)]
        repeated = {name: value.repeat_interleave(self.draws, 0) for name, value in {**cond, **given}.items()}
        rows = None if self.batch_size is None else self.batch_size * self.draws
        options = {"generator": generator, "seeds": each, "batch_size": rows, "dtype": x.dtype}
        samples = sample(model, (len(x) * self.draws, *x.shape[1:]), self._sampler(), **options, **repeated)
        return samples.x.unflatten(0, (len(x), self.draws)), samples.nfe

    def _sampler(self) -> Sampler:
        if self.sampler is not None:
            return self.sampler
        if self.method is not None:
            return _SAMPLER
        return Adams() if isinstance(self.model.sde, SDE) else MixedSampler()


def knows_entries(model: Model) -> bool:
    """Whether the network of a model reads the known entries of an event, so that nothing need steer it."""
    return isinstance(model, ScoreModel) and reads_known(model.net)


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
