"""Exact linear-Gaussian recursion of a sampler: the bias and the order of its steps without random numbers.

For data N(mean, std²) the model is linear in x, so a state stays c_0 + c_1 x_T + c_2 z_1 + c_3 z_2 + …: a vector of
coefficients that grows with every draw of noise. `StepSampler.step` runs on it as it runs on tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scoresde.process import ou
from scoresde.process.parameterization import Parameterization, V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import SDE
from scoresde.sampling import StepSampler

__all__ = ["FinalState", "GaussianData", "LinearState", "fitted_order", "rms_error", "run_sampler"]


@dataclass(frozen=True, eq=False)
class LinearState:
    """c_0 + c_1 x_T + Σ c_{1+i} z_i, with + and × by floats as the only operations."""

    coefficients: np.ndarray

    def __add__(self, other: LinearState) -> LinearState:
        return self.add(other)

    def __mul__(self, factor: float) -> LinearState:
        assert isinstance(factor, float)
        return LinearState(factor * self.coefficients)

    __rmul__ = __mul__

    def add(self, other: LinearState, *, alpha: float = 1.0) -> LinearState:
        """self + alpha * other, the signature of `torch.Tensor.add`."""
        short, long = sorted((self.coefficients, alpha * other.coefficients), key=len)
        total = long.copy()
        total[: len(short)] += short
        return LinearState(total)


@dataclass(frozen=True)
class GaussianData:
    """Data N(mean, std²) and their exact linear model, as the output of any parameterization."""

    mean: float
    std: float
    parameterization: Parameterization = field(default_factory=V)

    def moments(self, tau: float) -> tuple[float, float]:
        """Mean and standard deviation of x at ``tau``."""
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        return alpha * self.mean, math.sqrt(alpha * alpha * self.std**2 + sigma * sigma)

    def predict(self, x: LinearState, tau: float) -> Prediction:
        """E[x_0 | x] and E[eps | x], combined to the output of the network."""
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        mean, std = self.moments(tau)
        residual = x.add(LinearState(np.array([1.0])), alpha=-mean) * (1.0 / std**2)
        p, q = map(float, self.parameterization.coefficients(tau))
        out = (residual * (p * alpha * self.std**2 + q * sigma)).add(LinearState(np.array([1.0])), alpha=p * self.mean)
        return GaussianPrediction(x, tau, out, self.parameterization)  # pyright: ignore[reportArgumentType]

    def ode_map(self, tau: float, s: float) -> tuple[float, float]:
        """Gain and bias of the probability-flow ODE from ``tau`` to ``s``, which preserves (x - mean) / std."""
        (mean, std), (final_mean, final_std) = self.moments(tau), self.moments(s)
        return final_std / std, final_mean - final_std / std * mean


@dataclass(frozen=True)
class FinalState:
    """A state as the map gain · x_T + bias plus noise, and its moments if x_T has its exact distribution."""

    gain: float
    bias: float
    mean: float
    variance: float
    draws: int


def run_sampler(
    sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float] | None = None, exact_steps: int = 0
) -> FinalState:
    """Runs the sampler on the distribution of x, from the end of the clock, on its grid or at ``taus``.

    After each of the first ``exact_steps`` steps the state is replaced by the exact solution of the ODE.
    """
    return _run_states(sampler, sde, data, taus, exact_steps)[-1]


def rms_error(sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float], exact_steps: int = 0) -> float:
    """Root mean square error over the last third of the steps, so that no sign change hides the order.

    The error is that of the map over |x_T| <= 1, or of mean and variance if the sampler is stochastic.
    """
    states = _run_states(sampler, sde, data, taus, exact_steps)
    last_third = range(2 * len(states) // 3, len(states))
    errors = [_error(sampler, data, states[i], taus[0], taus[i + 1]) for i in last_third]
    return math.sqrt(sum(error**2 for error in errors) / len(errors))


def _error(sampler: StepSampler, data: GaussianData, state: FinalState, tau: float, s: float) -> float:
    if sampler.stochastic:
        mean, std = data.moments(s)
        return abs(state.mean - mean) + abs(state.variance - std**2)
    gain, bias = data.ode_map(tau, s)
    return abs(state.gain - gain) + abs(state.bias - bias)


def _run_states(
    sampler: StepSampler, sde: SDE, data: GaussianData, taus: list[float] | None, exact_steps: int
) -> list[FinalState]:
    taus = sampler.grid.times(sde, sampler.steps) if taus is None else taus
    x, memory, draws, states = LinearState(np.array([0.0, 1.0])), None, 0, []
    mean, std = data.moments(taus[0])

    def noise() -> LinearState:
        nonlocal draws
        draws += 1
        return LinearState(np.eye(1, 2 + draws, 1 + draws)[0])

    for i, (tau, s) in enumerate(zip(taus, taus[1:])):
        x, memory = sampler.step(data.predict, x, tau, s, noise, memory)
        if i < exact_steps:
            gain, bias = data.ode_map(taus[0], s)
            x = LinearState(np.array([bias, gain]))
        bias, gain = x.coefficients[:2].tolist()
        variance = (gain * std) ** 2 + float(np.square(x.coefficients[2:]).sum())
        states.append(FinalState(gain, bias, bias + gain * mean, variance, draws))
    return states


def fitted_order(error: Callable[[int], float], steps: list[int]) -> float:
    """Minus the slope of log error against log steps, by least squares."""
    return -float(np.polyfit(np.log(steps), np.log([error(n) for n in steps]), 1)[0])
