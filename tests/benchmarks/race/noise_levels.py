"""Noise levels of diffusers' schedulers, unrounded, from u = 1 to the end, as lists of steps + 1 ratios sigma/alpha.

The schedulers' own lists round the times to integers (or the noise levels to float32), and end at sigma = 0 or with a
step of length 0. Without rounding they do better. "leading" is left out: it starts below u = 1 with the noise of u = 1.
"lu lambdas" equals "exponential" (its rho is 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.stats import beta

from race.span import Span, ratio

__all__ = ["CUSTOM", "SHIPPED", "noise_levels"]

Levels = Callable[[Span, int], np.ndarray]


def _of_u(span: Span, u: np.ndarray) -> np.ndarray:
    return np.array([ratio(float(span.clock.tau(float(v)))) for v in u])


def _linspace(span: Span, n: int) -> np.ndarray:
    return _of_u(span, np.linspace(span.u_start, span.u_end, n + 1))


def _trailing(span: Span, n: int) -> np.ndarray:
    return _of_u(span, np.array([*(span.u_start * (k / n) for k in range(n, 0, -1)), span.u_end]))


def _karras(span: Span, n: int) -> np.ndarray:
    return np.linspace(span.first ** (1 / 7), span.last ** (1 / 7), n + 1) ** 7


def _exponential(span: Span, n: int) -> np.ndarray:
    return np.exp(np.linspace(math.log(span.first), math.log(span.last), n + 1))


def _beta(span: Span, n: int) -> np.ndarray:
    return span.last + (span.first - span.last) * beta.ppf(np.linspace(1.0, 0.0, n + 1), 0.6, 0.6)


def _flow(shift: float) -> Levels:
    def levels(span: Span, n: int) -> np.ndarray:
        # r/(1 + r) is the time of flow matching; points are uniform in the time before the shift
        ends = [r / (1 + r) for r in (span.first, span.last)]
        first, last = (v / (shift - (shift - 1) * v) for v in ends)
        uniform = np.linspace(first, last, n + 1)
        time = shift * uniform / (1 + (shift - 1) * uniform)
        return time / (1 - time)

    return levels


def _quadratic(span: Span, n: int) -> np.ndarray:
    return _of_u(span, np.linspace(math.sqrt(span.u_start), math.sqrt(span.u_end), n + 1) ** 2)


def _angle(span: Span, n: int) -> np.ndarray:
    return np.tan(np.linspace(math.atan(span.first), math.atan(span.last), n + 1))


SHIPPED: dict[str, Levels] = {
    "linspace": _linspace,
    "trailing": _trailing,
    "karras": _karras,
    "exponential": _exponential,
    "beta": _beta,
    "flow": _flow(1.0),
    "flow3": _flow(3.0),
}
# Spacings that diffusers does not ship, but that a user can pass.
CUSTOM: dict[str, Levels] = {"quadratic": _quadratic, "angle": _angle}


def noise_levels(span: Span, name: str, steps: int) -> list[float]:
    """The spacing ``name`` over ``span``: ``steps + 1`` decreasing ratios with exact ends."""
    levels = {**SHIPPED, **CUSTOM}[name](span, steps).tolist()
    return [span.first, *levels[1:-1], span.last]
