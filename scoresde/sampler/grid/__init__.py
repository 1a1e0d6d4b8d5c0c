"""At which times does a sampler stop? A grid is ``steps + 1`` strictly falling OU times, from the start to its end.

The chain's grids end at 0 (their last step is τ₁ → 0); every other ends at ``tau_min``. There are exactly ``steps``
distinct steps whatever the clock's own length. No time is rounded, but by `Spaced`, for networks that know integers.
"""

from scoresde.sampler.grid.base import Custom, Grid
from scoresde.sampler.grid.chain import Chain, Spaced
from scoresde.sampler.grid.even import BothEnds, Karras, PowerU, UniformAngle, UniformLogSNR, UniformTau, UniformU

__all__ = [
    "Chain",
    "Custom",
    "Grid",
    "Karras",
    "BothEnds",
    "PowerU",
    "Spaced",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
]
