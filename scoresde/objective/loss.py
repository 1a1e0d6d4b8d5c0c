r"""What is minimized? $E_u[\lambda(u)\,\|\hat\varepsilon - \varepsilon\|^2]$, measured in the network's own target.

An error in the output times $\alpha/\det$ is the error in $\varepsilon$ (see `scoresde.process.parameterization`), so the loss
is $\lambda\,(\alpha/\det)^2\,\|out - target\|^2$: one function has one loss in whatever parameterization it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import expand, widest_dtype
from scoresde.model import Model
from scoresde.objective.timesteps import TimestepDraw, Timesteps, UniformTimesteps
from scoresde.objective.weighting import DiscreteVLB, Simple, Weighting
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.process.sde import SDE, Marginal

__all__ = ["Loss"]


@dataclass(frozen=True)
class Loss:
    r"""Denoising score matching: per sample $c\,\lambda\,\|\hat\varepsilon - \varepsilon\|^2$ at one random time.

    The squares are summed over the event.

    A learned reverse variance has a term of its own, ``hybrid`` times the chain's bound from its second step on, in
    nats, in which the mean is held fixed, so that it moves the variance alone: with $m$ the prediction's ``mix`` and
    $g = \log\beta - \log\tilde\beta$, the KL of a step is
    $\sum \tfrac12(m g + e^{-m g} - 1) + e^{-m g}\,\lambda_{\tilde\beta}(\hat\varepsilon - \varepsilon)^2$.

    Args:
        weighting: λ.
        timesteps: How u is drawn; c is its correction.
        hybrid: Weight of the bound that trains a learned variance; Nichol & Dhariwal have 0.001 (of bits, where ours
            are nats). 0 leaves the variance untrained.

    Raises:
        ValueError: If ``hybrid`` is negative, or times are not those of a chain.

    Source: Vincent 2011; Ho, Jain & Abbeel 2020; Song et al. 2021; Nichol & Dhariwal 2021, section 3.1 (hybrid).
    """

    weighting: Weighting = Simple()
    timesteps: Timesteps = UniformTimesteps()
    hybrid: float = 0.0

    def __post_init__(self) -> None:
        for name, value, kind in (("weighting", self.weighting, Weighting), ("timesteps", self.timesteps, Timesteps)):
            check_kind(name, value, kind)
        if not 0 <= self.hybrid < float("inf"):
            raise ValueError(f"hybrid must be finite and not negative, got {self.hybrid!r}; 0.001 is usual.")
        if self.hybrid and self.timesteps.chain is None:
            raise ValueError(
                f"a learned variance is that of a chain's steps, got timesteps={self.timesteps}; draw times by DiscreteTimesteps(steps) or "
                "DiscreteLossMomentTimesteps(DiscreteTimesteps(steps))."
            )

    def __call__(self, model: Model, x0: Tensor, generator: torch.Generator | None = None, **cond: object) -> Tensor:
        """The loss of each sample.

        Args:
            model: Trained or exact.
            x0: Data in the model's units, ``(B, *D)``.
            generator: Source of times and noise; default torch's global one.
            **cond: Passed to the network.

        Returns:
            ``(B,)``, at least float32, differentiable in the model's parameters. Not divided by the event's size.

        Raises:
            ValueError: If λ is negative, NaN, infinite or of a wrong shape.
        """
        if not x0.is_floating_point():
            raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first.")
        noise = Noise(generator)
        draw = self.timesteps.draw(self.timesteps.base(x0, noise), model.sde)
        return self.at(model, x0, draw, noise.normal(x0), **cond)

    def at(self, model: Model, x0: Tensor, draw: TimestepDraw, eps: Tensor, **cond: object) -> Tensor:
        """The loss at given times and noise, ``(B,)``; see the call."""
        if not (x0.device.type == "meta" or isinstance(x0, FakeTensor)):
            check_weighting(self.weighting, self.timesteps, model.sde)
        m = Marginal(model.sde.schedule._tau(draw.u), model.sde.schedule._rate(draw.u), draw.s)
        prediction = model(model.sde.perturb(x0, m.tau, eps), m.tau, **cond)
        target = prediction.parameterization.target(x0, eps, m.tau)
        weight = _weigh(self.weighting, m, draw.u)
        factor = prediction.parameterization.eps_factor(m.limit.tau)
        error = (prediction.out - target).flatten(1) if x0.ndim > 1 else (prediction.out - target).unsqueeze(1)
        wide = widest_dtype(x0.device)
        each = weight * (factor * factor) * error.square().sum(1, dtype=wide)
        if self.hybrid and self.timesteps.chain is not None:
            bound = _variance_bound(prediction, m, factor, error.detach().reshape(x0.shape))
            each = each + self.hybrid * self.timesteps.chain.count * bound.flatten(1).sum(1, dtype=wide)
        return draw.correction * each


def _variance_bound(prediction: Prediction, m: Marginal, factor: Scalar, error: Tensor) -> Tensor:
    """A step's KL by element, ``(B, *D)``, as a function of the variance alone; 0 in the chain's first step.

    Args:
        prediction: With ``mix``.
        m: The steps.
        factor: The error in eps per ``error``, which is that of the output, ``(B, *D)``.

    Raises:
        ValueError: If the model returns no ``mix``, or the times are no steps.
    """
    if prediction.mix is None or m.s is None:
        raise ValueError(
            "the hybrid loss trains a learned variance at a chain's steps, got a prediction without mix, or a draw "
            "without s; build the model with ScoreModel(…, learned_variance=True), or take hybrid=0."
        )
    first = m.s == 0  # whose term is a decoder's
    m = Marginal(m.tau, m.rate, ew.where(first, 0.5 * m.tau, m.s)).limit
    assert m.s is not None
    gap = ew.log(ou.beta(m.tau, 0.0)) - ew.log(ou.beta(m.s, 0.0))  # log β - log β̃
    on = ew.where(first, 0.0 * gap, 1.0 + 0.0 * gap)
    shrunk = prediction.mix * expand(gap, error)
    square = expand(DiscreteVLB("beta_tilde")(m) * factor * factor, error) * error.square()
    return expand(on, error) * (0.5 * (shrunk + torch.expm1(-shrunk)) + torch.exp(-shrunk) * square)


def _weigh(weighting: Weighting, m: Marginal, u: Tensor) -> Tensor:
    weight = weighting(m.limit)
    if not isinstance(weight, Tensor) or weight.shape != u.shape:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(
            f"a weighting must return one number per time, but {weighting} gave {shape} for {tuple(u.shape)}."
        )
    return weight


def check_weighting(weighting: Weighting, timesteps: Timesteps, sde: SDE) -> None:
    """Looks at λ at evenly spread draws, 4096 or as many as the chain has steps, once per (weighting, timesteps, process).

    Raises:
        ValueError: Naming the weighting and the first time at which λ is negative, NaN or infinite.
        TypeError: If one of the three cannot be hashed.
    """
    try:
        hash((weighting, timesteps, sde))
    except TypeError as error:
        raise TypeError(
            f"{weighting}, {timesteps} and {sde} must be hashable, got {error}; write their classes as "
            "@dataclass(frozen=True), with tuples for lists."
        ) from error
    _check_once(weighting, timesteps, sde)


@lru_cache(maxsize=64)
def _check_once(weighting: Weighting, timesteps: Timesteps, sde: SDE) -> None:
    with torch.inference_mode(False), torch.no_grad():
        n = max(4096, timesteps.chain.count if timesteps.chain else 0)
        draw = timesteps.draw(torch.arange(n, dtype=torch.float64, device="cpu") / n, sde)
        weight = _weigh(weighting, sde.marginal(draw.u, draw.s), draw.u)
        bad = ~(torch.isfinite(weight) & (weight >= 0))
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            u = draw.u[i].item()
            raise ValueError(
                f"a weighting must be finite and not negative, but {weighting} is {weight[i].item():g} at "
                f"tau = {float(sde.schedule.tau(u)):.4g} (u = {u:.4g}); change it there, or draw other times."
            )
