r"""Readings of a network: what it is fed and what its output means, so that alternatives can be compared by error.

All readings denoise the same $y = x_0 + \tilde\sigma\varepsilon$. A reading maps y to the values that the network may
have been trained on, $y' = a\,y + b$ in another order of entries, whose noise level is $a\tilde\sigma$. It feeds
$r(\tau)\,\alpha y'$ at a time $g(\tau)$, takes the output for a target $\pm(p\,x_0 + q\,\varepsilon)$ and maps the
estimate of x_0 back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde.adapters import FromSigma, FromTime
from scoresde.evaluation.verify.times import clock_of
from scoresde.model import Model, ScoreModel, gaussian_output
from scoresde.process import ou
from scoresde.process.parameterization import Eps, Parameterization
from scoresde.process.prediction import GaussianPrediction

__all__ = ["Output", "Reading", "OutputTarget", "stated_target"]


@dataclass(frozen=True)
class OutputTarget:
    """What the output may estimate: ``factor`` times the target of a parameterization."""

    name: str
    parameterization: Parameterization
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class DataMap:
    """Values that the network may have been trained on: ``gain * x + offset``, its entries taken in ``order``.

    Attributes:
        gain, offset: Numbers; the offset may have one entry per value of an event, ``(d,)``.
        order: Indices into the flat event, ``(d,)``; None for the same order.
    """

    gain: float = 1.0
    offset: float | Tensor = 0.0
    order: Tensor | None = None

    def apply(self, y: Tensor) -> Tensor:
        """The mapped values of ``y``, ``(n, d)``."""
        y = y if self.order is None else y[:, self.order]
        return (
            y
            if self.gain == 1.0 and isinstance(self.offset, float) and self.offset == 0.0
            else (self.gain * y + self.offset)
        )

    def undo(self, x: Tensor) -> Tensor:
        """The inverse of `apply`."""
        x = (x - self.offset) / self.gain
        if self.order is None:
            return x
        return x[:, torch.argsort(self.order)]


@dataclass(frozen=True, eq=False)
class Output:
    """One output of a network: the state ``x`` at time ``tau`` that it was read for, ``(n, d)`` each."""

    x: Tensor
    tau: float
    out: Tensor
    data: DataMap

    def x0(self, target: OutputTarget) -> Tensor:
        """The estimate of the data that the output gives for a target, ``(n, d)`` float64, in stated model units."""
        prediction = GaussianPrediction(self.x, self.tau, target.factor * self.out, target.parameterization)
        return self.data.undo(prediction.x0)


@dataclass(frozen=True, eq=False)
class Reading:
    """One way to call a model's network.

    Attributes:
        model: The model.
        event_shape: Shape of one event.
        data: Values that the network is given.
        factor: Factor of the state that is fed, a function of tau.
        time: The time at which the network is called, a function of tau.
        cond: Conditions, one entry per event.
    """

    model: Model
    event_shape: tuple[int, ...]
    data: DataMap = DataMap()
    factor: Callable[[float], float] | None = None
    time: Callable[[float], float | None] | None = None
    cond: Mapping[str, Any] = field(default_factory=dict)

    def output(self, y: Tensor, sigma: float, rows: Tensor, batch: int = 64) -> Output | None:
        """The output for ``y``, ``(n, d)`` float64, at noise level ``sigma``; None outside the network's times.

        Args:
            y: Noised data in stated model units.
            sigma: Their noise level.
            rows: Indices of their events among those that the conditions belong to, ``(n,)``.
            batch: Events per network call.
        """
        log_snr = -2.0 * (math.log(sigma) + math.log(abs(self.data.gain)))
        tau = float(ou.tau_from_log_snr(log_snr))
        called = tau if self.time is None else self.time(tau)
        if called is None or not self._inside(called):
            return None
        x = float(ou.alpha(tau)) * self.data.apply(y)
        fed = x if self.factor is None else self.factor(tau) * x
        if called != tau:  # the adapter scales the state by the factor of the time at which it is called
            stated = fed_factor(self.model)
            fed = fed * (stated(tau) / stated(called))
        shaped = fed.reshape(-1, *self.event_shape)
        dtype, device = _kind(self.model)
        cond = {name: value[rows] for name, value in self.cond.items()}
        parts = []
        for start in range(0, len(shaped), batch):
            part = slice(start, start + batch)
            inputs = {name: value[part].to(device) for name, value in cond.items()}
            prediction = self.model.predict(shaped[part].to(device, dtype), called, **inputs)
            parts.append((prediction.out if isinstance(self.model, ScoreModel) else prediction.eps).cpu().double())
        return Output(x, tau, torch.cat(parts).reshape(len(x), -1), self.data)

    def _inside(self, tau: float) -> bool:
        sde, clock = self.model.sde, clock_of(self.model) or self.model.sde.schedule
        low = max(sde.schedule.tau_start, clock.tau_start, 0.5 * sde.tau_min)
        return low <= tau <= min(sde.tau_max, clock.tau_max)


def stated_target(model: Model) -> OutputTarget:
    """The target that a model states; a model without a network of one parameterization has a noise estimate."""
    if isinstance(model, ScoreModel):
        return OutputTarget("as stated", gaussian_output(model))
    return OutputTarget("as stated", Eps())


def _kind(model: Model) -> tuple[torch.dtype, torch.device]:
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    wide = any(t.dtype == torch.float64 for t in tensors)
    return (torch.float64 if wide else torch.float32), device


def fed_factor(model: Model) -> Callable[[float], float]:
    """Factor of x in what the innermost network gets, as a function of tau: that of the adapter; 1 without one."""
    net = getattr(model, "net", None)
    if isinstance(net, FromTime):
        return lambda tau: float(net.sde.scale(tau))
    if not isinstance(net, FromSigma):
        return lambda _tau: 1.0

    def factor(tau: float) -> float:
        log_snr = torch.full((1,), float(ou.log_snr(tau)))
        return float(net.inputs(torch.ones(1, 1, dtype=torch.float64), log_snr)[0])

    return factor
