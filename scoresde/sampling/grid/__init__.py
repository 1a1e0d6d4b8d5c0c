"""At which times does a sampler stop? A grid is ``steps + 1`` strictly falling OU times, from the start to its end.

The chain's grids end at 0 (their last step is τ₁ → 0); every other ends at ``tau_min``. There are exactly ``steps``
distinct steps whatever the clock's own length. No time is rounded, but by `Spaced`, for networks that know integers.
"""

from scoresde.sampling.grid.base import ExplicitGrid, Grid
from scoresde.sampling.grid.chain import Chain, Spaced
from scoresde.sampling.grid.uniform import (
    DenseEnds,
    Karras,
    PowerU,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
)

__all__ = [
    "Chain",
    "ExplicitGrid",
    "Grid",
    "Karras",
    "DenseEnds",
    "PowerU",
    "Spaced",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
]
