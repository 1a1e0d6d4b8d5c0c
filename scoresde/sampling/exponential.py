r"""Exponential Adams weights: $x_s = A\,x_\tau + \sum_j b_j f_j$ from network predictions $f_j$ at several times.

For each prediction $f$ there is a scale $c$ and a measure $w$ in which the probability-flow ODE has no linear part,
$d(c\,x) = f\,dw$. Here λ is half the log-SNR and $\rho = \sigma/\alpha = e^{-\lambda}$:

| $f$ | $c$ | $w$ |
|---|---|---|
| ``"eps"`` | $1/\alpha$ | $\rho$ |
| ``"x0"`` | $1/\sigma$; with a noise function $1/(\sigma m)$ | $\alpha/\sigma$; with one $\alpha/(\sigma m)$ |
| ``"v"`` | 1 | the angle φ |
| ``"alpha_v"`` | 1 | $\mathrm{artanh}\,\sigma = \tau + \log(1 + \sigma)$ |

The last one is $\alpha v = \varepsilon - \sigma x = \sigma\,dx/d\tau$, what the noise estimate adds to that of
standard normal data. An error of a noise estimate is an error of the same size in αv, but an error $1/\alpha$ times as
large in v, which no polynomial in the angle follows to where α is small.

So the linear part is solved exactly, $A = c_\tau/c_s$, and $f$ is replaced by the polynomial through the $f_j$:
$b_j = \int L_j\,dw/c_s$, with $L_j$ the Lagrange polynomials of their times in a variable of choice. All multistep and
exponential Runge–Kutta methods of the literature have this form.

Sources: Zhang & Chen 2023 (DEIS), Lu et al. 2022 (DPM-Solver), Xue et al. 2023 (SA-Solver, for the noise), Salimans &
Ho 2022 (for the angle).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.annotations import CheckedArguments
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.schedule import Schedule
from scoresde.sampling.noise_function import NoiseFunction

__all__ = ["PREDICTIONS", "VARIABLES", "Interpolation", "advance"]

PREDICTIONS = ("eps", "x0", "v", "alpha_v")
VARIABLES = {
    "log_snr": ou.log_snr,
    "angle": ou.angle,
    "sigma": ou.sigma,
    "rho": lambda tau: ew.exp(-0.5 * ou.log_snr(tau)),
    "tau": lambda tau: tau,
    "artanh_sigma": lambda tau: tau + ew.log1p(ou.sigma(tau)),
}
_NODES, _ARTANH_NODES, _CACHE_SIZE = 8, 12, 8192
_LATEST_ALPHA_V = -math.log(1e-6)


@dataclass(frozen=True)
class Interpolation(CheckedArguments):
    """A polynomial interpolation of network predictions, and the noise that a step adds.

    Args:
        prediction: ``"eps"``, ``"x0"``, ``"v"`` or ``"alpha_v"``.
        variable: The polynomial's variable: ``"log_snr"``, ``"angle"``, ``"sigma"``, ``"rho"``, ``"tau"``, or a clock,
            for its u.
        noise: Noise function; None for the ODE. Only with ``"x0"``.
        midpoint: Uses the value of a polynomial through two predictions in the middle of the step (in log-SNR) for the
            whole step, as DPM-Solver++ does at order 2, instead of integrating it.

    Raises:
        ValueError: If a name is unknown, or a noise function is given with another prediction than x0.
        TypeError: If the variable or the noise function is of another type.
    """

    prediction: str = "x0"
    variable: str | Schedule = "log_snr"
    noise: NoiseFunction | None = None
    midpoint: bool = False

    def __post_init__(self) -> None:
        if self.prediction not in PREDICTIONS:
            raise ValueError(
                f"no prediction is named {self.prediction!r}; {nearest(str(self.prediction), PREDICTIONS)}"
            )
        if isinstance(self.variable, str) and self.variable not in VARIABLES:
            raise ValueError(f"no variable is named {self.variable!r}; {nearest(self.variable, VARIABLES)}")
        if not isinstance(self.variable, (str, Schedule)):
            raise TypeError(f"variable must be one of {', '.join(VARIABLES)} or a clock, got {self.variable!r}.")
        if not isinstance(self.noise, (NoiseFunction, type(None))):
            raise TypeError(f"noise must be a noise function or None, got {self.noise!r}; write e.g. Eta(0.5).")
        if self.noise is not None and self.prediction != "x0":
            raise ValueError(f"a noise function goes with prediction='x0', got {self.prediction!r}; take 'x0'.")

    @cached_property
    def member(self) -> str:
        """The member of `Prediction` that steps read: α of ``"alpha_v"`` is part of the weights."""
        return "v" if self.prediction == "alpha_v" else self.prediction

    @cached_property
    def read(self) -> Callable[[Any], Any]:
        """The `member` of a prediction."""
        return attrgetter(self.member)

    @property
    def regular_at_data(self) -> bool:
        """Whether a step to τ = 0 may use several predictions: the measure and its variable are finite there."""
        return self.member == "v"

    def coordinate(self, tau: Scalar) -> Scalar:
        """The polynomial's variable at ``tau``.

        Raises:
            ValueError: If it is the u of a clock that ends before ``tau``.
        """
        clock = self.variable
        if isinstance(clock, str):
            return VARIABLES[clock](tau)
        if isinstance(tau, float) and tau > clock.tau_max:
            raise ValueError(
                f"the polynomial is in the u of {clock}, which ends at tau = {clock.tau_max:.6g}, got tau = {tau:.6g}; "
                "pass the model's own clock, variable=model.sde.schedule."
            )
        return clock.u(tau)

    def weights(self, tau: Scalar, s: Scalar, times: tuple[Scalar, ...]) -> tuple[Scalar, list[Scalar]]:
        """A and b_j of the step from ``tau`` to ``s``, with values of `member` at ``times``.

        Where α < 1e-6, αv has lost v to rounding, at τ = ∞ entirely: a polynomial through such a time interpolates v.

        Floats give floats, cached. If one is a tensor, all results are 0-d tensors with gradients.
        """
        if isinstance(tau, Tensor) or isinstance(s, Tensor) or any(isinstance(time, Tensor) for time in times):
            return _weights(self, tau, s, times)
        key, cache = (tau, s, times), self._cache
        if key not in cache:
            if len(cache) >= _CACHE_SIZE:
                cache.clear()
            cache[key] = _weights(self, tau, s, times)
        return cache[key]

    def noise_std(self, tau: float, s: float) -> float:
        r"""Standard deviation of the noise that the step adds, $\sigma_s\sqrt{1 - \kappa^2}$; 0 for the ODE."""
        if self.noise is None or s == 0:
            return 0.0
        key, cache = (tau, s), self._cache
        if key not in cache:
            kappa = self.noise.kappa(tau, s)
            cache[key] = ou.sigma(s) * ew.sqrt(max(1.0 - kappa * kappa, 0.0))
        return cache[key]

    @cached_property
    def _cache(self) -> dict[Any, Any]:
        return {}


def advance(x: Any, on_x: Scalar, weights: Sequence[Scalar], values: Sequence[Any]) -> Any:
    """A x + Σ b_j f_j."""
    x = combine(on_x, x, weights[0], values[0])
    for weight, value in zip(weights[1:], values[1:]):
        x = x.add(value, alpha=weight) if isinstance(weight, float) else combine(1.0, x, weight, value)
    return x


def _weights(
    interpolation: Interpolation, tau: Scalar, s: Scalar, times: tuple[Scalar, ...]
) -> tuple[Scalar, list[Scalar]]:
    prediction = interpolation.prediction
    if prediction == "alpha_v":
        return _weights_of_alpha_v(interpolation, tau, s, times)
    if tau == math.inf and (prediction == "eps" or (prediction == "x0" and len(times) > 1)):
        raise ValueError(
            f"{interpolation} needs a start with some signal left, got tau = inf; use a clipped clock, start=, or "
            "Adams(), which works in the angle."
        )
    on_x, total = _constant_step(interpolation, tau, s)
    if len(times) == 1:
        return on_x, [total]
    coordinates = [interpolation.coordinate(time) for time in times]
    if math.inf in map(abs, coordinates):
        raise ValueError(
            f"{interpolation} needs a finite start, got tau = inf; use variable='angle', a clipped clock, or start=."
        )
    nodes = _quadrature(interpolation, tau, s, interpolation.midpoint and len(times) == 2)
    norm = _sum([mass for mass, _ in nodes])
    return on_x, [
        total * (_sum([mass * _lagrange(coordinates, j, point) for mass, point in nodes]) / norm)
        for j in range(len(times))
    ]


def _weights_of_alpha_v(
    interpolation: Interpolation, tau: Scalar, s: Scalar, times: tuple[Scalar, ...]
) -> tuple[Scalar, list[Scalar]]:
    """The weights of the values of v: those of αv times α of each time."""
    if any(time > _LATEST_ALPHA_V for time in (tau, *times)):
        return _weights(replace(interpolation, prediction="v"), tau, s, times)
    a, b = map(VARIABLES["artanh_sigma"], (tau, s))
    if len(times) == 1:
        return 1.0, [(b - a) * ou.alpha(times[0])]
    coordinates = [interpolation.coordinate(time) for time in times]
    nodes = [
        (weight, interpolation.coordinate(_tau_from_artanh_sigma(a + (b - a) * point)))
        for point, weight in _nodes(_ARTANH_NODES, isinstance(a, Tensor) or isinstance(b, Tensor))
    ]
    return 1.0, [
        (b - a) * ou.alpha(time) * _sum([mass * _lagrange(coordinates, j, point) for mass, point in nodes])
        for j, time in enumerate(times)
    ]


def _tau_from_artanh_sigma(w: Scalar) -> Scalar:
    """log cosh w."""
    return w + ew.log1p(0.5 * ew.expm1(-2.0 * w))


def _sum(values: list[Scalar]) -> Scalar:
    total = sum(values)
    return total.sum() if isinstance(total, Tensor) else total


def _constant_step(interpolation: Interpolation, tau: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """A and the sum of the b_j: the step of a prediction that is constant over the step."""
    if interpolation.prediction == "v":
        return 1.0, ou.angle(s) - ou.angle(tau)
    if interpolation.prediction == "eps":
        growth = ew.exp(tau - s)
        return growth, ou.sigma(s) - growth * ou.sigma(tau)
    shrink = ou.sigma(s) / ou.sigma(tau)
    if interpolation.noise is not None:
        shrink = shrink * interpolation.noise.kappa(float(tau), float(s)) if s > 0 else 0.0
    return shrink, ou.alpha(s) - shrink * ou.alpha(tau)


def _quadrature(interpolation: Interpolation, tau: Scalar, s: Scalar, midpoint: bool) -> list[tuple[Scalar, Scalar]]:
    """Quadrature nodes of the step: the measure's mass at each (up to a factor), and the polynomial's variable there.

    One pair per node for floats; for tensors a single pair of vectors.
    """
    in_angle = interpolation.prediction == "v"
    size = 4 if interpolation.variable == "angle" and in_angle else 1 if midpoint else _NODES
    to, back = (ou.angle, ou.tau_from_angle) if in_angle else (ou.log_snr, ou.tau_from_log_snr)
    a, b = to(tau), to(s)
    pairs = []
    for point, weight in _nodes(size, isinstance(tau, Tensor) or isinstance(s, Tensor)):
        node = a + (b - a) * point
        mass = weight if in_angle else weight * _density(interpolation, node, a, b)
        pairs.append((mass, interpolation.coordinate(back(node))))
    return pairs


def _density(interpolation: Interpolation, node: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """dw / d log-SNR at a node of the step from log-SNR ``a`` to ``b``, up to a factor common to the step."""
    if interpolation.prediction == "eps":
        return ew.exp(0.5 * (a - node))
    growth = ew.exp(0.5 * (node - b))
    if interpolation.noise is None:
        return growth
    noise, rho, end = interpolation.noise, ew.exp(-0.5 * float(node)), ew.exp(-0.5 * float(b))
    return growth * ew.exp(noise.log_m(end) - noise.log_m(rho)) * (1.0 + noise.slope(rho))


def _lagrange(coordinates: list[Scalar], j: int, point: Scalar) -> Scalar:
    value = 1.0
    for i, coordinate in enumerate(coordinates):
        if i != j:
            value = value * ((point - coordinate) / (coordinates[j] - coordinate))
    return value


def _nodes(size: int, as_vectors: bool) -> list[tuple[Scalar, Scalar]]:
    """Nodes and weights on [0, 1]: pairs of floats, or a single pair of vectors."""
    if not as_vectors:
        return list(zip(*_gauss(size)))
    points, weights = _gauss(size)
    return [(torch.tensor(points, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64))]


@lru_cache(maxsize=8)
def _gauss(n: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gauss–Legendre nodes and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(n)
    return tuple((0.5 * (points + 1.0)).tolist()), tuple((0.5 * weights).tolist())
