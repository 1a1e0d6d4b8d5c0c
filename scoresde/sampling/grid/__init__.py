"""Time grids of samplers: ``steps + 1`` strictly falling OU times, from the start of sampling to its end.

The grids of the DDPM chain (`Chain`, `Spaced`), `ThenZero` and `ShiftedFlow` end at 0; every other grid ends at
``tau_min``. Each has exactly ``steps`` distinct steps, whatever the length of the clock. Only `Spaced` rounds times, to
integer timesteps, for networks that were trained on integers.
"""

from scoresde.sampling.grid.base import ExplicitGrid, Grid
from scoresde.sampling.grid.chain import Chain, Spaced
from scoresde.sampling.grid.dense_ends import DenseEnds
from scoresde.sampling.grid.then_zero import ShiftedFlow, ThenZero
from scoresde.sampling.grid.uniform import (
    Karras,
    PowerU,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
)

__all__ = [
    "Chain",
    "DenseEnds",
    "ExplicitGrid",
    "Grid",
    "Karras",
    "PowerU",
    "ShiftedFlow",
    "Spaced",
    "ThenZero",
    "UniformAngle",
    "UniformLogSNR",
    "UniformTau",
    "UniformU",
]
