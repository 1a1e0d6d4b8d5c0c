"""Default settings for tables: a `Pointwise` head on an `MLP`, whose size and training depend on the number of rows.

Columns of real tables are rounded: they are multiples of a grid width, and dequantized they are piecewise constant.
The head reads each entry by Fourier features, which resolve such steps; the trunk reads the other columns without them.
"""

from __future__ import annotations

import math

from torch import nn

from scoresde.nn import MLP, FourierInput, Pointwise
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.training.settings import Training

__all__ = ["table_network", "table_training"]

_WIDEST = 64  # values of an event with a head: the head's cost grows with them, the trunk's does not
_FEW = 2000  # rows; with fewer the network is smaller and has dropout
_STEPS, _BATCH = 8000, 256  # about two minutes of one core for ten columns
_EPOCHS, _FEWEST_STEPS = 200, 200


def table_network(shape: tuple[int, ...], rows: int | None) -> nn.Module:
    """The network, with a head if the event has at most 64 values.

    Args:
        shape: Event shape in model units.
        rows: Training rows; None if not known, which counts as many.
    """
    few = rows is not None and rows < _FEW
    width, depth, dropout = (128, 2, 0.3) if few else (192, 3, 0.0)
    if math.prod(shape) > _WIDEST:
        return MLP(shape, 256, depth, dropout=dropout)
    trunk = MLP(shape, width, depth, dropout=dropout, outputs=16)
    return Pointwise(trunk, FourierInput(0.5, (0, 1, 2, 3, 4, 5), damped=True))


def table_training(rows: int | None) -> Training:
    """The training: at most 200 epochs (200 updates for the smallest tables), so that small tables do not overfit."""
    steps = _STEPS
    if rows is not None:
        steps = min(_STEPS, max(_FEWEST_STEPS, math.ceil(_EPOCHS * rows / _BATCH)))
    training = Training(_STEPS, _BATCH, Loss(ELBO(), LossMomentTimesteps()), lr=4e-3, lr_end=0.0)
    return training.fitted(steps)
