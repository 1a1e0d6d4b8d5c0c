"""Noise levels of diffusers' schedulers, unrounded, from u = 1 to u = 1e-3, as lists of steps + 1 ratios sigma/alpha.

The schedulers' own lists round the times to integers (or the noise levels to float32), and end at sigma = 0 or with a
step of length 0. Without rounding they do better. "leading" is left out: it starts below u = 1 with the noise of u = 1.
"lu lambdas" equals "exponential" (its rho is 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import beta

from race.problems import CLOCK, END, START, U_END
from scoresde.process import ou

__all__ = ["CUSTOM", "SHIPPED", "noise_levels", "ratio"]


def ratio(tau: float) -> float:
    """sigma/alpha at OU time ``tau``."""
    return math.exp(-0.5 * float(ou.log_snr(tau)))


FIRST, LAST = ratio(START), ratio(END)


def _of_u(u: np.ndarray) -> np.ndarray:
    return np.array([ratio(float(CLOCK.tau(v))) for v in u])


def _linspace(n: int) -> np.ndarray:
    return _of_u(np.linspace(1.0, U_END, n + 1))


def _trailing(n: int) -> np.ndarray:
    return _of_u(np.array([*(k / n for k in range(n, 0, -1)), U_END]))


def _karras(n: int) -> np.ndarray:
    return np.linspace(FIRST ** (1 / 7), LAST ** (1 / 7), n + 1) ** 7


def _exponential(n: int) -> np.ndarray:
    return np.exp(np.linspace(math.log(FIRST), math.log(LAST), n + 1))


def _beta(n: int) -> np.ndarray:
    return LAST + (FIRST - LAST) * beta.ppf(np.linspace(1.0, 0.0, n + 1), 0.6, 0.6)


def _flow(shift: float) -> Callable[[int], np.ndarray]:
    def levels(n: int) -> np.ndarray:
        # r/(1 + r) is the time of flow matching; points are uniform in the time before the shift
        ends = [r / (1 + r) for r in (FIRST, LAST)]
        first, last = (v / (shift - (shift - 1) * v) for v in ends)
        uniform = np.linspace(first, last, n + 1)
        time = shift * uniform / (1 + (shift - 1) * uniform)
        return time / (1 - time)

    return levels


def _quadratic(n: int) -> np.ndarray:
    return _of_u(np.linspace(1.0, math.sqrt(U_END), n + 1) ** 2)


def _angle(n: int) -> np.ndarray:
    return np.tan(np.linspace(math.atan(FIRST), math.atan(LAST), n + 1))


SHIPPED: dict[str, Callable[[int], np.ndarray]] = {
    "linspace": _linspace,
    "trailing": _trailing,
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
    "flow": _flow(1.0),
    "flow3": _flow(3.0),
}
# Spacings that diffusers does not ship, but that a user can pass.
CUSTOM: dict[str, Callable[[int], np.ndarray]] = {"quadratic": _quadratic, "angle": _angle}


def noise_levels(name: str, steps: int) -> list[float]:
    """The spacing ``name``: ``steps + 1`` decreasing ratios with exact ends."""
    levels = {**SHIPPED, **CUSTOM}[name](steps).tolist()
    return [FIRST, *levels[1:-1], LAST]
