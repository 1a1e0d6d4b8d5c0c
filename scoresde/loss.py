r"""What is minimised? $E_u[\lambda(u)\,\|\hat\varepsilon - \varepsilon\|^2]$, measured in the network's own target.

An error in the output times $\alpha/\det$ is the error in $\varepsilon$ (see `scoresde.parameterization`), so the loss
is $\lambda\,(\alpha/\det)^2\,\|out - target\|^2$: one function has one loss in whatever parameterization it is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde import _tensor as t
from scoresde._tensor import Noise
from scoresde.model import Model
from scoresde.sde import SDE, Marginal
from scoresde.times import Draw, Times, Uniform
from scoresde.weighting import Simple, Weighting

__all__ = ["Loss"]


@dataclass(frozen=True)
class Loss:
    r"""Denoising score matching: per sample $c\,\lambda\,\|\hat\varepsilon - \varepsilon\|^2$ at one random time.

    The squares are summed over the event.

    Args:
        weighting: λ.
        times: How u is drawn; c is its correction.

    Source: Vincent 2011; Ho, Jain & Abbeel 2020; Song et al. 2021.
    """

    weighting: Weighting = Simple()
    times: Times = Uniform()

    def __post_init__(self) -> None:
        for name, value, kind in (("weighting", self.weighting, Weighting), ("times", self.times, Times)):
            if not isinstance(value, kind):
                raise TypeError(
                    f"{name} must be a {kind.__name__}, got {value!r}; pass an object, not its class or name."
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
        draw = self.times.draw(self.times.base(x0, noise), model.sde)
        return self.at(model, x0, draw, noise.normal(x0), **cond)

    def at(self, model: Model, x0: Tensor, draw: Draw, eps: Tensor, **cond: object) -> Tensor:
        """The loss at given times and noise, ``(B,)``; see the call."""
        if not (x0.device.type == "meta" or isinstance(x0, FakeTensor)):
            check_weighting(self.weighting, self.times, model.sde)
        m = Marginal(model.sde.schedule._tau(draw.u), model.sde.schedule._rate(draw.u), draw.s)
        prediction = model(model.sde.perturb(x0, m.tau, eps), m.tau, **cond)
        target = prediction.parameterization.target(x0, eps, m.tau)
        weight = _weigh(self.weighting, m, draw.u)
        factor = prediction.parameterization.eps_factor(m.limit.tau)
        error = (prediction.out - target).flatten(1) if x0.ndim > 1 else (prediction.out - target).unsqueeze(1)
        return draw.correction * weight * (factor * factor) * error.square().sum(1, dtype=t.wide(x0.device))


def _weigh(weighting: Weighting, m: Marginal, u: Tensor) -> Tensor:
    weight = weighting(m.limit)
    if not isinstance(weight, Tensor) or weight.shape != u.shape:
        shape = tuple(weight.shape) if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(
            f"a weighting must return one number per time, but {weighting} gave {shape} for {tuple(u.shape)}."
        )
    return weight


def check_weighting(weighting: Weighting, times: Times, sde: SDE) -> None:
    """Looks at λ at 4096 evenly spread draws of the times, once per (weighting, times, process).

    Raises:
        ValueError: Naming the weighting and the first time at which λ is negative, NaN or infinite.
        TypeError: If one of the three cannot be hashed.
    """
    for part in (weighting, times, sde):
        if type(part).__hash__ is None:
            raise TypeError(f"{part!r} must be hashable; write its class as @dataclass(frozen=True).")
    _check_once(weighting, times, sde)


@lru_cache(maxsize=64)
def _check_once(weighting: Weighting, times: Times, sde: SDE) -> None:
    with torch.inference_mode(False), torch.no_grad():
        draw = times.draw(torch.arange(4096, dtype=torch.float64, device="cpu") / 4096, sde)
        weight = _weigh(weighting, sde.marginal(draw.u, draw.s), draw.u)
        bad = ~(torch.isfinite(weight) & (weight >= 0))
        if bool(bad.any()):
            i = int(bad.nonzero()[0])
            u = draw.u[i].item()
            raise ValueError(
                f"a weighting must be finite and not negative, but {weighting} is {weight[i].item():g} at "
                f"tau = {float(sde.schedule.tau(u)):.4g} (u = {u:.4g}); change it there, or draw other times."
            )
