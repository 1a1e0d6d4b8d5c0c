"""Default settings for categories: the kernel, a network that reads codes, and the training.

Bits flip (`Binomial`). Other classes are masked (the absorbing kernel), whose masked entries show which ones are noise.
"""

from __future__ import annotations

import math

from torch import nn

from scoresde.data import Description
from scoresde.nn import MLP, CategoricalNet, DiT, UNet
from scoresde.objective.discrete import PathKL
from scoresde.process.base import Process
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.training.settings import Training

__all__ = ["category_network", "category_process", "category_training"]

_SEQUENCE = 32  # entries from which a sequence gets a transformer
_POSITIONS = 1 << 13  # of one batch of sequences: attention takes their square


def category_process(description: Description) -> DiscreteProcess:
    """`Binomial` for two classes, else `Categorical` with the absorbing kernel.

    Args:
        description: Of categories.
    """
    assert description.classes is not None
    return Binomial() if description.classes == 2 else Categorical(description.classes, "absorbing")


def category_network(description: Description, process: Process) -> tuple[nn.Module, str]:
    """A `CategoricalNet` on a `UNet` for images and volumes, a `DiT` for sequences, else an `MLP`; and the reason.

    Args:
        description: Of categories.
        process: An absorbing one has a mask, which the network reads too.
    """
    shape, classes = description.shape, description.classes
    assert classes is not None
    mask = isinstance(process, DiscreteProcess) and process.kernel == "absorbing"
    inner = CategoricalNet.inner_shape(shape, classes, mask)
    values = "bits" if classes == 2 else f"{classes} classes"
    if len(shape) in (1, 2) and shape[-1] >= _SEQUENCE:
        net, kind = DiT(inner, patch=1), f"sequences of {shape[-1]} entries"
    elif len(shape) in (3, 4) and min(shape[1:]) >= 8:
        net, kind = UNet(inner, channels=32), "images (C, H, W)" if len(shape) == 3 else "volumes (C, D, H, W)"
    else:
        net, kind = MLP(inner, 256, 3), f"events of {math.prod(shape)} entries"
    return CategoricalNet(net, shape, classes, mask), f"{kind}, {values}"


def category_training(description: Description) -> Training:
    """The path KL, whose expectation is the bound, with stratified timesteps and a falling learning rate.

    Args:
        description: Of categories; long sequences have smaller batches.
    """
    batch = 128
    if len(description.shape) in (1, 2):
        batch = max(8, min(batch, _POSITIONS // description.shape[-1]))
    return Training(batch_size=batch, loss=PathKL(), lr_end=0.0)
