r"""The denoising loss $E_u[\lambda(u)\,\|\hat\varepsilon - \varepsilon\|^2]$, computed from the network's own target.

The error in $\varepsilon$ is $\alpha/\det$ times the error of the output (see `scoresde.process.parameterization`). So
the loss is $\lambda\,(\alpha/\det)^2\,\|out - target\|^2$; it does not depend on a function's parameterization.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import expand, has_values, widest_dtype
from scoresde.model import Model
from scoresde.objective.base import Objective
from scoresde.objective.timesteps import TimestepDraw, Timesteps, UniformTimesteps
from scoresde.objective.weighting import DiscreteVLB, Simple, Weighting
from scoresde.process import ou
from scoresde.process.base import Marginal, Process
from scoresde.process.prediction import Prediction
from scoresde.process.sde import SDE

__all__ = ["Loss"]


@dataclass(frozen=True)
class Loss(Objective):
    r"""Denoising score matching: per sample $c\,\lambda\,\|\hat\varepsilon - \varepsilon\|^2$ at one random timestep.

    The squares are summed over the event, or over its observed entries if some are missing: the network's input is 0
    at the others, and it reads which entries are observed.

    A learned reverse variance adds a second term: ``hybrid`` times the chain's variational bound from its second step
    on, in nats. Its gradient reaches the variance alone, the mean is detached. With $m$ the prediction's ``mix`` and
    $g = \log\beta - \log\tilde\beta$, the KL of a step is
    $\sum \tfrac12(m g + e^{-m g} - 1) + e^{-m g}\,\lambda_{\tilde\beta}(\hat\varepsilon - \varepsilon)^2$.

    Args:
        weighting: λ.
        timesteps: How u is drawn; c is the draw's correction.
        hybrid: Weight of the bound that trains a learned variance. Nichol & Dhariwal use 0.001 with a bound in bits;
            this one is in nats. 0 leaves the variance untrained.

    Raises:
        ValueError: If ``hybrid`` is negative, or positive with timesteps that are not a chain's.

    Example:
        >>> import torch
        >>> from scoresde import ELBO, Gaussian, ImportanceTimesteps, Loss
        >>> model, x0 = Gaussian(torch.zeros(2), 1.0), torch.randn(8, 2)
        >>> Loss(ELBO(), ImportanceTimesteps(ELBO()))(model, x0).shape
        torch.Size([8])

    Source: Vincent 2011; Ho, Jain & Abbeel 2020; Song et al. 2021; Nichol & Dhariwal 2021, section 3.1 (hybrid).
    """

    process_kind: ClassVar[type[Process]] = SDE

    weighting: Weighting = Simple()
    timesteps: Timesteps = UniformTimesteps()
    hybrid: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.hybrid < float("inf"):
            raise ValueError(f"hybrid must be finite and not negative, got {self.hybrid!r}; 0.001 is usual.")
        if self.hybrid and self.timesteps.chain is None:
            raise ValueError(
                f"a learned variance needs the steps of a chain, got timesteps={self.timesteps}; draw timesteps by "
                "DiscreteTimesteps(steps) or DiscreteLossMomentTimesteps(DiscreteTimesteps(steps))."
            )

    def at(
        self,
        model: Model,
        x0: Tensor,
        draw: TimestepDraw,
        noise: Tensor,
        *,
        observed: Tensor | None = None,
        **cond: object,
    ) -> Tensor:
        if has_values(x0):
            check_weighting(self.weighting, self.timesteps, model.sde)
        m = Marginal(model.sde.schedule._tau(draw.u), model.sde.schedule._rate(draw.u), draw.s)
        if observed is None:
            x = model.sde.perturb(x0, m.tau, noise)
        else:
            x0 = x0.where(observed, 0.0)
            x, cond = model.sde.perturb(x0, m.tau, noise).where(observed, 0.0), {**cond, "observed": observed}
        prediction = model(x, m.tau, **cond)
        weight = weight_at(self.weighting, m, draw.u)
        error, factor = output_error(prediction, x0, noise, m, observed)
        wide = widest_dtype(x0.device)
        each = weight * (factor * factor) * error.square().sum(1, dtype=wide)
        if self.hybrid and self.timesteps.chain is not None:
            bound = _variance_bound(prediction, m, factor, error.detach().reshape(x0.shape))
            bound = bound if observed is None else bound.where(observed, 0.0)
            each = each + self.hybrid * self.timesteps.chain.count * bound.flatten(1).sum(1, dtype=wide)
        return draw.correction * each


def output_error(
    prediction: Prediction, x0: Tensor, noise: Tensor, m: Marginal, observed: Tensor | None = None
) -> tuple[Tensor, Scalar]:
    """Error of the output of a network for a Gaussian process, 0 where nothing is observed.

    Args:
        prediction: At the noised state.
        x0, noise: Data and noise, ``(B, *D)``.
        m: The times.
        observed: Which entries count, ``(B, *D)``; None for all.

    Returns:
        The error, flat, ``(B, d)``, and the error in eps per error of the output, of the shape of ``m.tau``.
    """
    error = prediction.out - prediction.parameterization.target(x0, noise, m.tau)
    error = error if observed is None else error.where(observed, 0.0)
    error = error.flatten(1) if x0.ndim > 1 else error.unsqueeze(1)
    return error, prediction.parameterization.eps_factor(m.limit.tau)


def _variance_bound(prediction: Prediction, m: Marginal, factor: Scalar, error: Tensor) -> Tensor:
    """KL of each step by element, ``(B, *D)``, as a function of the variance alone; 0 in the chain's first step.

    Args:
        prediction: With ``mix``.
        m: The steps.
        factor: Error in eps per error of the output.
        error: Of the output, ``(B, *D)``.

    Raises:
        ValueError: If the prediction has no ``mix``, or the draw no ``s``.
    """
    if prediction.mix is None or m.s is None:
        raise ValueError(
            "the hybrid loss trains a learned variance on a chain's steps, got a prediction without mix, or a draw "
            "without s; build the model with ScoreModel(…, learned_variance=True), or set hybrid=0."
        )
    first = m.s == 0  # the term of this step is a decoder's likelihood
    m = Marginal(m.tau, m.rate, ew.where(first, 0.5 * m.tau, m.s)).limit
    assert m.s is not None
    gap = ew.log(ou.beta(m.tau, 0.0)) - ew.log(ou.beta(m.s, 0.0))  # log β - log β̃
    mask = ew.where(first, 0.0 * gap, 1.0 + 0.0 * gap)
    log_ratio = prediction.mix * expand(gap, error)  # log of the learned variance over β̃
    square = expand(DiscreteVLB("beta_tilde")(m) * factor * factor, error) * error.square()
    return expand(mask, error) * (0.5 * (log_ratio + torch.expm1(-log_ratio)) + torch.exp(-log_ratio) * square)


def weight_at(weighting: Weighting, m: Marginal, u: Tensor) -> Tensor:
    """λ at the times of ``m``, in its limit where no signal remains, ``(B,)``; checks its shape."""
    weight = weighting(m.limit)
    if not isinstance(weight, Tensor) or weight.shape != u.shape:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(
            f"a weighting must return one number per time, but {weighting} returned {shape} for {tuple(u.shape)}."
        )
    return weight


def check_weighting(weighting: Weighting, timesteps: Timesteps, sde: Process) -> None:
    """Checks that λ is finite and not negative, once per (weighting, timesteps, process).

    It is computed at evenly spaced draws: 4096, or the number of the chain's steps if that is larger.

    Raises:
        ValueError: If it is not; names the weighting and the first such time.
        TypeError: If one of the three is not hashable.
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
def _check_once(weighting: Weighting, timesteps: Timesteps, sde: Process) -> None:
    with torch.inference_mode(False), torch.no_grad():
        count = max(4096, timesteps.chain.count if timesteps.chain else 0)
        draw = timesteps.draw(torch.arange(count, dtype=torch.float64, device="cpu") / count, sde)
        weight = weight_at(weighting, sde.marginal(draw.u, draw.s), draw.u)
        bad = ~(torch.isfinite(weight) & (weight >= 0))
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            u = draw.u[i].item()
            raise ValueError(
                f"a weighting must be finite and not negative, but {weighting} is {weight[i].item():g} at "
                f"tau = {float(sde.schedule.tau(u)):.4g} (u = {u:.4g}); change it there, or draw other timesteps."
            )
