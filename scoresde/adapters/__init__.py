"""Adapters: networks of other code bases that take a step, a time or a noise level, called as `net(x, log_snr)`.

`FromStep` passes DDPM's step, `FromTime` the clock's u, `FromSigma` the noise level of variance-exploding coordinates.
Each unwraps an output that is a tuple or has a member ``sample``. `Given` stands in a stored model for a network that
the user passes again when it is loaded.
"""

from scoresde.adapters.base import Adapter, Given, unwrapped
from scoresde.adapters.from_sigma import FromSigma
from scoresde.adapters.from_step import FromStep
from scoresde.adapters.from_time import FromTime

__all__ = ["Adapter", "FromSigma", "FromStep", "FromTime", "Given", "unwrapped"]
