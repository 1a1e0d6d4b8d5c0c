"""At which noise levels do diffusers' schedulers stop? Their spacings, unrounded, from u = 1 to u = 1e-3.

Each is a list of steps + 1 ratios sigma/alpha. The schedulers' own lists round the times to integers (or the levels to
float32), and end at sigma = 0 or with a step of length 0; handing them these lists is their best chance. "leading" is
left out: it starts below u = 1 with the noise of u = 1. "lu lambdas" is "exponential" (its rho is 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import beta

from race.problems import CLOCK, END, START, U_END
from scoresde.process import ou

__all__ = ["LENT", "OWN", "ladder", "ratio"]


def ratio(tau: float) -> float:
    """sigma/alpha."""
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
    def place(n: int) -> np.ndarray:
        # sigma/(1 + sigma) is flow matching's time; the shift is undone, spaced evenly, and done again
        ends = [r / (1 + r) for r in (FIRST, LAST)]
        first, last = (v / (shift - (shift - 1) * v) for v in ends)
        even = np.linspace(first, last, n + 1)
        time = shift * even / (1 + (shift - 1) * even)
        return time / (1 - time)

    return place


def _quadratic(n: int) -> np.ndarray:
    return _of_u(np.linspace(1.0, math.sqrt(U_END), n + 1) ** 2)


def _angle(n: int) -> np.ndarray:
    return np.tan(np.linspace(math.atan(FIRST), math.atan(LAST), n + 1))


OWN: dict[str, Callable[[int], np.ndarray]] = {
    "linspace": _linspace,
    "trailing": _trailing,
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
    "flow": _flow(1.0),
    "flow3": _flow(3.0),
}
# Spacings that diffusers does not ship; a user could pass them.
LENT: dict[str, Callable[[int], np.ndarray]] = {"quadratic": _quadratic, "angle": _angle}


def ladder(name: str, steps: int) -> list[float]:
    """``steps + 1`` falling ratios, the ends exact."""
    levels = {**OWN, **LENT}[name](steps).tolist()
    return [FIRST, *levels[1:-1], LAST]
