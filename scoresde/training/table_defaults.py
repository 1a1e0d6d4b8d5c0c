"""Default settings for tables: a `Pointwise` head on an `MLP`, whose size and training depend on the number of rows.

Columns of real tables are rounded: they are multiples of a grid width, and dequantized they are piecewise constant.
The head reads each entry by Fourier features, which resolve such steps; the trunk reads the other columns without them.
"""

from __future__ import annotations

import math

from torch import nn

from scoresde.data import Description
from scoresde.nn import MLP, FourierInput, MixedNet, Pointwise
from scoresde.objective.loss import Loss
from scoresde.objective.mixed import MixedLoss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.categorical import Categorical
from scoresde.process.mixed import Mixed
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.training.settings import Training

__all__ = ["mixed_network", "mixed_process", "table_network", "table_training"]

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


def mixed_process(description: Description) -> Mixed:
    """The process of a table whose categories are codes: `VPSDE` and the uniform kernel on the cosine clock.

    Args:
        description: With codes.
    """
    return Mixed(VPSDE(Cosine()), Categorical(description.codes))


def mixed_network(description: Description, process: Mixed, rows: int | None) -> nn.Module:
    """The network of a table whose categories are codes: that of `table_network` inside a `MixedNet`.

    Args:
        description: With codes.
        process: An absorbing one has masks, which the network reads too.
        rows: Training rows; None if not known, which counts as many.
    """
    numbers, mask = description.dims - len(description.codes), process.categorical.kernel == "absorbing"
    inner = table_network(MixedNet.inner_shape(numbers, description.codes, mask), rows)
    return MixedNet(inner, numbers, description.codes, mask)


def table_training(rows: int | None, mixed: bool = False) -> Training:
    """The training: at most 200 epochs (200 updates for the smallest tables), so that small tables do not overfit."""
    steps = _STEPS
    if rows is not None:
        steps = min(_STEPS, max(_FEWEST_STEPS, math.ceil(_EPOCHS * rows / _BATCH)))
    loss = (MixedLoss if mixed else Loss)(ELBO(), LossMomentTimesteps())
    training = Training(_STEPS, _BATCH, loss, lr=4e-3, lr_end=0.0)
    return training.fitted(steps)
