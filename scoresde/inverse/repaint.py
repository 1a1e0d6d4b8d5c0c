r"""RePaint: ancestral sampling with known entries $\alpha_s y + \sigma_s\varepsilon$ and steps back to more noise."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import combine
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Mask
from scoresde.inverse.base import PosteriorContext, PosteriorSampler
from scoresde.inverse.posterior_samples import PosteriorSamples, unweighted
from scoresde.inverse.twisted_smc import chain_times
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.grid import Chain, Grid

__all__ = ["RePaint"]


@dataclass(frozen=True)
class RePaint(PosteriorSampler):
    r"""Inpainting by resampling: each stretch of ``jump`` steps is repeated ``resamplings`` times.

    After a stretch, unless it is the last repetition, the state is noised back to where the stretch began. So its known
    and unknown entries come to fit each other, which they do not after one pass. Not exact, also not as U grows: the
    known entries of a state are drawn without its unknown ones.

    It is for values known exactly. Noise of the measurement is not removed: known entries end at y whatever it is.

    Args:
        steps: Number of steps of the chain. The network is evaluated about ``steps * resamplings`` times.
        resamplings: How often each stretch is drawn, U, except the last one, which is drawn once; 1 never goes back.
        jump: Steps of a stretch.
        grid: Times of the chain; the last step ends at 0 whatever the grid.

    Raises:
        ValueError: If a number is not a positive integer.
        TypeError: When sampling: if the operator is not a `Mask`.

    Source: Lugmayr, Danelljan, Romero, Yu, Timofte & Van Gool 2022, algorithm 1; jumps of several steps, appendix.
    """

    steps: int = 250
    resamplings: int = 5
    jump: int = 1
    grid: Grid = field(default_factory=Chain)

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_integer("resamplings", self.resamplings)
        check_integer("jump", self.jump)
        check_kind("grid", self.grid, Grid)

    def prepare(self, model: Model, observation: Observation, like: Tensor) -> tuple[Tensor, Tensor]:
        """Known entries, bool, and their values, each ``(m, 1, *D)``, or ``(1, 1, *D)`` for one mask of all."""
        operator = observation.operator
        if not isinstance(operator, Mask):
            raise TypeError(
                f"RePaint replaces known entries, so it needs a Mask, got {type(operator).__name__}; take TwistedSMC() "
                "or Posterior(model, observation)."
            )
        known, y = operator.observed.to(like.device), observation.y.to(like)
        known = known if operator.count is not None else known.unsqueeze(0)
        return known.unsqueeze(1), (y if observation.count is not None else y.unsqueeze(0)).unsqueeze(1)

    def run(self, context: PosteriorContext) -> PosteriorSamples:
        known, y = context.prepared
        known, y = known if len(known) == 1 else known[context.index], y[context.index]
        taus, x = chain_times(self.grid, context.model.sde, self.steps), context.prior()
        for first in range(0, self.steps, self.jump):
            last = min(first + self.jump, self.steps)
            for repetition in range(self.resamplings if last < self.steps else 1):
                if repetition:
                    x = _noised(context, x, taus[last], taus[first])
                for i in range(first, last):
                    x = _step(context, x, (taus[i], taus[i + 1]), known, y)
        return unweighted(x, context.nfe, context.model.data)


def _noised(context: PosteriorContext, x: Tensor, s: float, tau: float) -> Tensor:
    """States at the later time ``tau`` from states at ``s``."""
    return combine(float(ou.alpha(tau - s)), x, math.sqrt(ou.beta(tau, s)), context.normal(x))


def _step(context: PosteriorContext, x: Tensor, times: tuple[float, float], known: Tensor, y: Tensor) -> Tensor:
    """One ancestral step of the unknown entries; the known ones are drawn from their marginal."""
    tau, s = times
    on_x0, on_x, beta_tilde = posterior_coefficients(tau, s)
    mean = context.predict(x, tau).step(on_x, on_x0, "x0").reshape(x.shape)
    if s == 0:
        return torch.where(known, y, mean)
    z = context.normal(x)
    unknown = combine(1.0, mean, math.sqrt(beta_tilde), z)
    return torch.where(known, float(ou.alpha(s)) * y + float(ou.sigma(s)) * z, unknown)
