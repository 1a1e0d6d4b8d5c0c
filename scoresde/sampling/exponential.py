r"""What does a step make of predictions? The linear part is solved exactly, the prediction held as a polynomial.

With a prediction $f$ there is a scale $c$ and a measure $w$ in which the probability-flow ODE has no linear part,
$d(c\,x) = f\,dw$ (λ is half the log-SNR, $\rho = \sigma/\alpha = e^{-\lambda}$):

| $f$ | $c$ | $w$ |
|---|---|---|
| ``"eps"`` | $1/\alpha$ | $\rho$ |
| ``"x0"`` | $1/\sigma$; with a noise function $1/(\sigma m)$ | $\alpha/\sigma$; with one $\alpha/(\sigma m)$ |
| ``"v"`` | 1 | the angle φ |

So from τ to s $x_s = A\,x_\tau + \sum_j b_j f_j$ with $A = c_\tau/c_s$ and $b_j = \int L_j\,dw/c_s$, $L_j$ the Lagrange
polynomials of the times at which the $f_j$ stand, in a variable of one's choice. This holds for every multistep and
every exponential Runge–Kutta method of the literature. Sources: Zhang & Chen 2023 (DEIS), Lu et al. 2022
(DPM-Solver), Xue et al. 2023 (SA-Solver, for the noise), Salimans & Ho 2022 for the angle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.schedule import Schedule
from scoresde.sampling.noise_function import NoiseFunction

__all__ = ["PREDICTIONS", "VARIABLES", "Interpolation", "advance"]

PREDICTIONS = ("eps", "x0", "v")
VARIABLES = {
    "log_snr": ou.log_snr,
    "angle": ou.angle,
    "sigma": ou.sigma,
    "rho": lambda tau: ew.exp(-0.5 * ou.log_snr(tau)),
    "tau": lambda tau: tau,
}
_NODES, _REMEMBERED = 8, 8192


@dataclass(frozen=True)
class Interpolation:
    """What is held as a polynomial, of what, and how much noise goes with it.

    Args:
        prediction: ``"eps"``, ``"x0"`` or ``"v"``.
        variable: Of the polynomial: ``"log_snr"``, ``"angle"``, ``"sigma"``, ``"rho"``, ``"tau"``, or a clock, for
            its u.
        noise: Noise function; None for the ODE. Only with ``"x0"``.
        midpoint: Takes the polynomial's value in the middle of the step (in log-SNR) for all of the step, as
            DPM-Solver++ does at order 2, instead of integrating it.

    Raises:
        ValueError: If a name is unknown, or noise is asked for with another prediction than x0.
        TypeError: If the variable or the noise function is something else.
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

    def place(self, tau: Scalar) -> Scalar:
        """The polynomial's variable at ``tau``.

        Raises:
            ValueError: If it is the u of a clock that has ended.
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

    def weights(self, tau: Scalar, s: Scalar, at: tuple[Scalar, ...]) -> tuple[Scalar, list[Scalar]]:
        """A and b_j of the step from ``tau`` to ``s`` with predictions that stand at the times ``at``.

        Floats in, floats out, remembered; with a tensor among them all are 0-d tensors, with gradients.
        """
        if isinstance(tau, Tensor) or isinstance(s, Tensor) or any(isinstance(each, Tensor) for each in at):
            return _weights(self, tau, s, at)
        key, known = (tau, s, at), self._known
        if key not in known:
            if len(known) >= _REMEMBERED:
                known.clear()
            known[key] = _weights(self, tau, s, at)
        return known[key]

    @cached_property
    def _known(self) -> dict[Any, Any]:
        return {}

    def fresh(self, tau: float, s: float) -> float:
        r"""Standard deviation of the noise that comes with the step, $\sigma_s\sqrt{1 - \kappa^2}$; 0 for the ODE."""
        if self.noise is None or s == 0:
            return 0.0
        key, known = (tau, s), self._known
        if key not in known:
            kept = self.noise.kept(tau, s)
            known[key] = ou.sigma(s) * ew.sqrt(max(1.0 - kept * kept, 0.0))
        return known[key]


def advance(x: Any, on_x: Scalar, weights: Sequence[Scalar], values: Sequence[Any]) -> Any:
    """A x + Σ b_j f_j."""
    x = combine(on_x, x, weights[0], values[0])
    for weight, value in zip(weights[1:], values[1:]):
        x = x.add(value, alpha=weight) if isinstance(weight, float) else combine(1.0, x, weight, value)
    return x


def _weights(how: Interpolation, tau: Scalar, s: Scalar, at: tuple[Scalar, ...]) -> tuple[Scalar, list[Scalar]]:
    if tau == math.inf and (how.prediction == "eps" or (how.prediction == "x0" and len(at) > 1)):
        raise ValueError(
            f"{how} needs a start with some signal left, got tau = inf; use a clipped clock, start=, or Adams(), which "
            "works in the angle."
        )
    on_x, total = _held(how, tau, s)
    if len(at) == 1:
        return on_x, [total]
    places = [how.place(each) for each in at]
    if math.inf in map(abs, places):
        raise ValueError(
            f"{how} needs a finite start, got tau = inf; use variable='angle', a clipped clock, or start=."
        )
    nodes = _quadrature(how, tau, s)
    norm = _sum([share for share, _ in nodes])
    return on_x, [
        total * (_sum([share * _lagrange(places, j, p) for share, p in nodes]) / norm) for j in range(len(at))
    ]


def _sum(values: list[Scalar]) -> Scalar:
    total = sum(values)
    return total.sum() if isinstance(total, Tensor) else total


def _held(how: Interpolation, tau: Scalar, s: Scalar) -> tuple[Scalar, Scalar]:
    """A and the sum of the b_j: the step of a prediction that does not change."""
    if how.prediction == "v":
        return 1.0, ou.angle(s) - ou.angle(tau)
    if how.prediction == "eps":
        growth = ew.exp(tau - s)
        return growth, ou.sigma(s) - growth * ou.sigma(tau)
    shrink = ou.sigma(s) / ou.sigma(tau)
    if how.noise is not None:
        shrink = shrink * how.noise.kept(float(tau), float(s)) if s > 0 else 0.0
    return shrink, ou.alpha(s) - shrink * ou.alpha(tau)


def _quadrature(how: Interpolation, tau: Scalar, s: Scalar) -> list[tuple[Scalar, Scalar]]:
    """The measure's shares at times in the step (up to a factor), and the polynomial's variable there.

    One pair a time for floats; for tensors one pair in all, of vectors.
    """
    in_angle = how.prediction == "v"
    size = 4 if how.variable == "angle" and in_angle else 1 if how.midpoint else _NODES
    to, back = (ou.angle, ou.tau_from_angle) if in_angle else (ou.log_snr, ou.tau_from_log_snr)
    points: list[tuple[Scalar, Scalar]] = list(zip(*_gauss(size)))
    if isinstance(tau, Tensor) or isinstance(s, Tensor):
        points = [
            (torch.tensor(each[0], dtype=torch.float64), torch.tensor(each[1], dtype=torch.float64))
            for each in [_gauss(size)]
        ]
    a, b = to(tau), to(s)
    pairs = []
    for point, weight in points:
        here = a + (b - a) * point
        pairs.append((weight if in_angle else weight * _density(how, here, a, b), how.place(back(here))))
    return pairs


def _density(how: Interpolation, here: Scalar, a: Scalar, b: Scalar) -> Scalar:
    """dw / d log-SNR, up to a factor that is common to the step."""
    if how.prediction == "eps":
        return ew.exp(0.5 * (a - here))
    growth = ew.exp(0.5 * (here - b))
    if how.noise is None:
        return growth
    noise, rho, end = how.noise, ew.exp(-0.5 * float(here)), ew.exp(-0.5 * float(b))
    return growth * ew.exp(noise.log_m(end) - noise.log_m(rho)) * (1.0 + noise.slope(rho))


def _lagrange(places: list[Scalar], j: int, p: Scalar) -> Scalar:
    value = 1.0
    for i, place in enumerate(places):
        if i != j:
            value = value * ((p - place) / (places[j] - place))
    return value


@lru_cache(maxsize=8)
def _gauss(n: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Gauss–Legendre nodes and weights on [0, 1]."""
    points, weights = np.polynomial.legendre.leggauss(n)
    return tuple((0.5 * (points + 1.0)).tolist()), tuple((0.5 * weights).tolist())
