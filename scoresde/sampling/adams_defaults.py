r"""Default settings of `Adams`, by number of steps and by what the network estimates.

Two difficulties decide where x₀ is interpolated, which solves the linear part $d(x/\sigma) = x_0\,d(\alpha/\sigma)$
exactly. Near the data $v = (\alpha/\sigma)\,x - x_0/\sigma$ is stiff: $\partial v/\partial x \approx 1/\varphi$. A step
from φ to ψ with $(\varphi - \psi)/\varphi$ above about 0.3 is outside the stability region of Adams–Bashforth 4. And a
badly trained noise estimate sends some samples far from the data. There x₀ is nearly constant, while αv grows like α.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["AdamsSettings", "adams_settings"]


class AdamsSettings(NamedTuple):
    """Default settings of `Adams`; see its arguments.

    Attributes:
        stiff_from: Steps that shorten the angle φ by more than this fraction interpolate x₀ in the angle; 1 for none.
    """

    predictor_order: int
    corrector_order: int
    prediction: str
    variable: str
    stiff_from: float = 1.0


_STIFF = 0.3

# from this number of steps on
_SETTINGS = {
    1: AdamsSettings(3, 0, "v", "angle"),
    6: AdamsSettings(2, 3, "v", "angle"),
    12: AdamsSettings(4, 3, "alpha_v", "angle", _STIFF),
    75: AdamsSettings(5, 4, "alpha_v", "angle", _STIFF),
}
_SETTINGS_FOR_NOISE_ESTIMATES = {
    1: AdamsSettings(2, 2, "x0", "artanh_sigma"),
    12: AdamsSettings(4, 3, "x0", "artanh_sigma"),
    40: AdamsSettings(3, 3, "x0", "artanh_sigma"),
}


def adams_settings(steps: int, noise_estimate: bool) -> AdamsSettings:
    """The default settings for a number of steps, and for a network that estimates noise or not."""
    table = _SETTINGS_FOR_NOISE_ESTIMATES if noise_estimate else _SETTINGS
    return table[max(least for least in table if least <= steps)]
