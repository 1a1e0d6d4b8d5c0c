r"""Bridge sequential Monte Carlo: known entries follow $q(x_s \mid x_\tau, y)$ one by one, and weights make it exact.

The twist is $\psi_\tau(x) = \prod_i p(y_i \mid x)$ over the known entries: $N(y_i;\ \hat x_{0,i},\ \sigma^2)$ of
numbers, the model's probability of the class $y_i$ of categories. Unknown entries take a step of the chain. A
particle's weight grows by $p(x_s \mid x_\tau)\,\psi_s(x_s)/(q(x_s \mid x_\tau, y)\,\psi_\tau(x_\tau))$ over the known
entries. So numbers, categories, and both are conditioned in one way.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import combine, widest_dtype
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Mask
from scoresde.inverse._particles import Population, resample, take_memory
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.posterior_samples import PosteriorSamples, equal_weights
from scoresde.inverse.twisted_smc import chain_times, check_threshold
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.codes import at_codes, draw_codes
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.mixed import MixedPrediction
from scoresde.process.prediction import Prediction
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.grid import DenseEnds, Grid

__all__ = ["BridgeSMC"]

_LEAST_PROBABILITY = 1e-30


@dataclass(frozen=True)
class BridgeSMC(PosteriorSampler):
    r"""Particles of the model's chain given known entries of numbers, categories, or both.

    Exact for the chain as the particles grow; the chain has steps of variance β for numbers, and the reverse
    probabilities for categories. One network evaluation per step and particle, no Jacobian.

    It is for values known exactly: noise of the measurement is not removed. For numbers alone, and for operators other
    than masks, take `TwistedSMC`.

    Args:
        steps: Number of steps.
        particles: Number of particles for each observation, at least 2.
        grid: Times of the chain; the last step ends at 0 whatever the grid.
        threshold: The particles are resampled where their effective sample size is below this fraction of their number.

    Raises:
        ValueError: If a number is out of range.
        TypeError: When sampling: if the operator is not a `Mask`.

    Example:
        >>> import torch
        >>> from scoresde.analytic import MixedMixture
        >>> from scoresde.inverse import BridgeSMC, impute
        >>> means, probs = torch.tensor([[-1.0], [1.0]]), torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
        >>> model = MixedMixture(torch.ones(2), means, torch.full((2, 1), 0.1), probs)
        >>> filled = impute(model, torch.tensor([[-1.2, torch.nan]]), 8, BridgeSMC(40, 64), seeds=[0])
        >>> filled.x[0, :, 1]
        tensor([0., 0., 0., 0., 0., 0., 0., 0.])

    Source: Wu, Trippe, Naesseth, Blei & Cunningham 2023, section 3.3 (inpainting), with exact bridges as proposals of
    the known entries; the categories are ours.
    """

    process_kind: ClassVar[type[Process]] = Process

    steps: int = 60
    particles: int = 256
    grid: Grid = field(default_factory=DenseEnds)
    threshold: float = 0.5

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_integer("particles", self.particles, 2)
        check_kind("grid", self.grid, Grid)
        check_threshold(self.threshold)

    def states(self, n: int | None) -> int:
        return self.particles

    def prepare(self, model: Model, observation: Observation, like: Tensor) -> tuple[Tensor, Tensor]:
        """Known entries, bool, and their values, each ``(m, 1, *D)``, or ``(1, 1, *D)`` for one mask of all."""
        operator = observation.operator
        if not isinstance(operator, Mask):
            raise TypeError(
                f"BridgeSMC takes known entries, so it needs a Mask, got {type(operator).__name__}; take TwistedSMC()."
            )
        known, y = operator.observed.to(like.device), observation.y.to(like)
        known = known if operator.count is not None else known.unsqueeze(0)
        return known.unsqueeze(1), (y if observation.count is not None else y.unsqueeze(0)).unsqueeze(1)

    def run(self, context: PosteriorContext) -> PosteriorSamples:
        known, y = context.prepared
        x = context.prior()
        known = (known if len(known) == 1 else known[context.index]).expand(x.shape)
        y = y[context.index].expand(x.shape).where(known, 0.0)
        taus = chain_times(self.grid.for_model(context.model), context.model.sde, self.steps)
        prediction = context.predict(x, taus[0])
        log_psi = _over_particles(_log_twist(prediction, *_flat(y, known)), x)
        population, trace = Population.new(len(x), x.shape[1], x.device).weighted(log_psi), []
        for _, s in pairwise(taus):
            trace.append(population.effective_sample_size())
            uniform = context.noise.uniform(population.log_normalizer)
            population, parents = resample(population, uniform, self.threshold)
            prediction, log_psi = take_memory(prediction, parents), log_psi.gather(1, parents)
            moved, log_ratio = _Step(context, len(x), s).draw(prediction, *_flat(y, known))
            x = moved.reshape(x.shape)
            if s > 0:  # the twist is the probability of y in the step to 0, so that weights stay
                prediction = context.predict(x, s)
                after = _over_particles(_log_twist(prediction, *_flat(y, known)), x)
                population = population.weighted(_over_particles(log_ratio, x) + after - log_psi)
                log_psi = after
        trace.append(population.effective_sample_size())
        log_weights = torch.log_softmax(population.log_weights, 1)
        if context.n is not None:
            x, log_weights = equal_weights(x, log_weights, context.n, context.noise)
        evidence, error = population.log_normalizing_constant(), population.stderr()
        return PosteriorSamples(x, log_weights, context.nfe, torch.stack(trace, 1), evidence, error, context.model.data)


def _flat(y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    return y.flatten(0, 1), known.flatten(0, 1)


def _over_particles(values: Tensor, x: Tensor) -> Tensor:
    """Numbers of all particles, ``(m P,)``, as ``(m, P)``."""
    return values.reshape(x.shape[:2])


def _total(each: Tensor, known: Tensor) -> Tensor:
    """Sum over the known entries, ``(B, *D)`` -> ``(B,)``, of the widest floating type."""
    return each.where(known, 0.0).reshape(len(each), -1).sum(1, dtype=widest_dtype(each.device))


def _log_normal(x: Tensor, mean: Tensor, variance: float) -> Tensor:
    return -0.5 * ((x - mean).square() / variance + math.log(2 * math.pi * variance))


def _log_twist(prediction: Prediction, y: Tensor, known: Tensor) -> Tensor:
    r"""$\log p(y \mid x)$ of the known entries, ``(B,)``; states, ``y`` and ``known`` are ``(B, *D)``."""
    if isinstance(prediction, MixedPrediction):
        n = prediction.continuous.x.shape[-1]
        log_psi = _log_twist(prediction.continuous, y[..., :n], known[..., :n])
        return log_psi + _log_twist(prediction.categorical, y[..., n:], known[..., n:])
    if isinstance(prediction, DiscretePrediction):
        return _total(at_codes(prediction.probs, y).clamp(min=_LEAST_PROBABILITY).log(), known)
    return _total(_log_normal(y, prediction.x0, float(ou.beta(prediction.tau, 0.0))), known)


@dataclass(frozen=True, eq=False)
class _Step:
    """A step of all entries to ``s``, in which known ones follow their bridges.

    Attributes:
        context: Source of randomness.
        count: Number of observations, each with its own seed.
        s: End of the step.
    """

    context: PosteriorContext
    count: int
    s: float

    def draw(self, prediction: Prediction, y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """States at ``s``, ``(B, *D)``, and log p/q of their known entries, ``(B,)``."""
        if isinstance(prediction, MixedPrediction):
            n = prediction.continuous.x.shape[-1]
            numbers, first = self.draw(prediction.continuous, y[..., :n], known[..., :n])
            codes, second = self.draw(prediction.categorical, y[..., n:], known[..., n:])
            return torch.cat([numbers, codes], -1), first + second
        if isinstance(prediction, DiscretePrediction):
            return self._codes(prediction, y, known)
        return self._numbers(prediction, y, known)

    def _numbers(self, prediction: Prediction, y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        tau, x = float(prediction.tau), prediction.x
        on_x0, on_x, beta_tilde = (float(c) for c in posterior_coefficients(tau, self.s))
        variance = beta_tilde + on_x0 * on_x0 * float(ou.beta(tau, 0.0))
        mean, bridge = (combine(on_x, x, on_x0, x0) for x0 in (prediction.x0, y))
        if self.s == 0:
            return torch.where(known, bridge, mean), _total(torch.zeros_like(x), known)
        z = self.context.normal(self._shared(x)).reshape(x.shape)
        moved = torch.where(known, bridge + math.sqrt(beta_tilde) * z, mean + math.sqrt(variance) * z)
        ratio = _log_normal(moved, mean, variance) - _log_normal(moved, bridge, beta_tilde)
        return moved, _total(ratio, known)

    def _codes(self, prediction: DiscretePrediction, y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        x, probs = prediction.x, prediction.step_probs(self.s)
        bridge = prediction.process._posterior(x, y, prediction.tau, self.s)
        wide = torch.empty_like(x, dtype=widest_dtype(x.device))
        uniform = self.context.noise.uniform(self._shared(wide)).reshape(x.shape)
        moved = draw_codes(torch.where(known.unsqueeze(-1), bridge, probs), uniform).to(x.dtype)
        ratio = [at_codes(values, moved).clamp(min=_LEAST_PROBABILITY).log() for values in (probs, bridge)]
        return moved, _total(ratio[0] - ratio[1], known)

    def _shared(self, x: Tensor) -> Tensor:
        """A batch ``(m P, *D)`` as ``(m, P, *D)``, whose rows have one seed each."""
        return x.reshape(self.count, self.context.like.shape[1], *x.shape[1:])
