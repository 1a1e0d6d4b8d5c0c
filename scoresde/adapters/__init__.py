"""Adapters: networks of other code bases that take a step, a time or a noise level, called as `net(x, log_snr)`.

`FromStep` passes DDPM's step, `FromTime` the clock's u, `FromSigma` the noise level of variance-exploding coordinates
and `FromSigmaTable` its place in a table; `FromSchedule` asks a denoiser for its own schedule. Each unwraps an output
that is a tuple or has a member ``sample``. `OneHot` turns a label into the one-hot vector that some networks take,
and `Label` passes it under the name that others take.
`Given` stands in a stored model for a network that the user passes again when it is loaded.
"""

from scoresde.adapters.base import Adapter, Given, unwrapped
from scoresde.adapters.from_schedule import FromSchedule
from scoresde.adapters.from_sigma import FromSigma
from scoresde.adapters.from_sigma_table import FromSigmaTable
from scoresde.adapters.from_step import FromStep
from scoresde.adapters.from_time import FromTime
from scoresde.adapters.label import Label
from scoresde.adapters.one_hot import OneHot

__all__ = [
    "Adapter",
    "FromSchedule",
    "FromSigma",
    "FromSigmaTable",
    "FromStep",
    "FromTime",
    "Given",
    "Label",
    "OneHot",
    "unwrapped",
]
