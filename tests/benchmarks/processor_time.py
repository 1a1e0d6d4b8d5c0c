"""Training for a given processor time: the pace of an update, and the settings of a run that takes so long.

Processor time is that of one thread, so another process on the machine does not change a comparison.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from scoresde.data import Data
from scoresde.model import ScoreModel
from scoresde.training import Training, train

__all__ = ["seconds_per_step"]


def seconds_per_step(
    build: Callable[[], ScoreModel], data: Data | Tensor, settings: Training, steps: int = 100
) -> float:
    """Processor time of one update, from two short runs whose difference leaves out the start.

    Args:
        build: Makes a new model, whose training is thrown away.
        data: As for `scoresde.training.train`.
        settings: Of the run; ``steps`` and ``minutes`` are replaced.
        steps: Updates that are measured.
    """
    times = []
    for count in (20, 20, 20 + steps):  # the first is slower than the others
        begin = time.process_time()
        train(build(), data, replace(settings, steps=count, minutes=None), progress=False)
        times.append(time.process_time() - begin)
    return (times[2] - times[1]) / steps
