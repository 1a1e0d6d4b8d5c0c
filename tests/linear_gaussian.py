"""What does a sampler make of Gaussian data, exactly? Its state as a linear law, so that bias and order need no draws.

For data N(mean, std²) the model is linear in x, so a state stays c_0 + c_1 x_T + c_2 z_1 + c_3 z_2 + …: a vector of
coefficients that grows with every draw of noise. `StepSampler.step` runs on it as it runs on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scoresde.process import ou
from scoresde.process.parameterization import Parameterization, Prediction, V
from scoresde.process.sde import SDE
from scoresde.sampling import StepSampler

__all__ = ["GaussianData", "Law", "Terminal", "error", "order", "walk"]


@dataclass(frozen=True, eq=False)
class Law:
    """c_0 + c_1 x_T + Σ c_{1+i} z_i, touched by + and × with floats only."""

    coefficients: np.ndarray

    def __add__(self, other: Law) -> Law:
        return self.add(other)

    def __mul__(self, factor: float) -> Law:
        assert isinstance(factor, float)
        return Law(factor * self.coefficients)

    __rmul__ = __mul__

    def add(self, other: Law, *, alpha: float = 1.0) -> Law:
        """As `torch.Tensor.add`."""
        short, long = sorted((self.coefficients, alpha * other.coefficients), key=len)
        total = long.copy()
        total[: len(short)] += short
        return Law(total)


@dataclass(frozen=True)
class GaussianData:
    """Data N(mean, std²) and their exact linear model, answered in any parameterization."""

    mean: float
    std: float
    parameterization: Parameterization = field(default_factory=V)

    def law(self, tau: float) -> tuple[float, float]:
        """Mean and standard deviation of x at ``tau``."""
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        return alpha * self.mean, math.sqrt(alpha * alpha * self.std**2 + sigma * sigma)

    def predict(self, x: Law, tau: float) -> Prediction:
        """E[x_0 | x] and E[eps | x], put together as the network's output."""
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        mean, std = self.law(tau)
        residual = x.add(Law(np.array([1.0])), alpha=-mean) * (1.0 / std**2)
        p, q = map(float, self.parameterization.coefficients(tau))
        out = (residual * (p * alpha * self.std**2 + q * sigma)).add(Law(np.array([1.0])), alpha=p * self.mean)
        return Prediction(x, tau, out, self.parameterization)  # pyright: ignore[reportArgumentType]

    def ode_map(self, tau: float, s: float) -> tuple[float, float]:
        """Gain and bias of the probability-flow ODE from ``tau`` to ``s``: it keeps (x - mean) / std."""
        (mean, std), (end_mean, end_std) = self.law(tau), self.law(s)
        return end_std / std, end_mean - end_std / std * mean


@dataclass(frozen=True)
class Terminal:
    """What stands at the end: of the map from x_T, and of the law that it makes of the exact law of x_T."""

    gain: float
    bias: float
    mean: float
    variance: float
    draws: int


def walk(
    sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float] | None = None, exact: int = 0
) -> Terminal:
    """The sampler's steps on the law of x, from the end of the clock over its own grid or the times given.

    After each of the first ``exact`` steps the state is put back on the ODE's exact solution.
    """
    return _walk(sampler, sde, data, taus, exact)[-1]


def error(sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float], exact: int = 0) -> float:
    """Root mean square over the last third of the walk, where no accident of signs can hide the order.

    Of the map over |x_T| <= 1; of mean and variance where noise is drawn.
    """
    ends = _walk(sampler, sde, data, taus, exact)
    last = range(2 * len(ends) // 3, len(ends))
    return math.sqrt(sum(_miss(sampler, data, ends[i], taus[0], taus[i + 1]) ** 2 for i in last) / len(last))


def _miss(sampler: StepSampler, data: GaussianData, end: Terminal, tau: float, s: float) -> float:
    if sampler.stochastic:
        mean, std = data.law(s)
        return abs(end.mean - mean) + abs(end.variance - std**2)
    gain, bias = data.ode_map(tau, s)
    return abs(end.gain - gain) + abs(end.bias - bias)


def _walk(sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float] | None, exact: int) -> list[Terminal]:
    taus = sampler.grid.times(sde, sampler.steps) if taus is None else taus
    x, memory, drawn, ends = Law(np.array([0.0, 1.0])), None, 0, []
    mean, std = data.law(taus[0])

    def noise() -> Law:
        nonlocal drawn
        drawn += 1
        return Law(np.eye(1, 2 + drawn, 1 + drawn)[0])

    for i, (tau, s) in enumerate(zip(taus, taus[1:])):
        x, memory = sampler.step(data.predict, x, tau, s, noise, memory)
        if i < exact:
            gain, bias = data.ode_map(taus[0], s)
            x = Law(np.array([bias, gain]))
        bias, gain, *rest = x.coefficients
        variance = (gain * std) ** 2 + float(np.square(rest).sum())
        ends.append(Terminal(gain, bias, bias + gain * mean, variance, drawn))
    return ends


def order(error: Callable[[int], float], steps: list[int]) -> float:
    """Minus the slope of log error against log steps, by least squares."""
    return -float(np.polyfit(np.log(steps), np.log([error(n) for n in steps]), 1)[0])
