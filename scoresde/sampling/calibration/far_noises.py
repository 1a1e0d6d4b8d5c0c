r"""Far noises: noises whose norms are the largest among many draws of the prior, $\|x\|^2 \sim s^2\chi^2_d$.

A network extrapolates from noises of large norm, and where it is wrong there, a few trajectories end far outside the
data and dominate a root mean square error. Some tens of random noises hardly contain one of them. So one noise in five
gets a norm from the tail of its distribution, and a small weight.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoresde.sampling.calibration.noises import NoiseBatch

__all__ = ["DRAWS", "with_far_noises"]

DRAWS = 16  # for each noise
_EVERY = 5


def with_far_noises(noises: NoiseBatch, std: float) -> tuple[NoiseBatch, Tensor]:
    """Noises of which every fifth is moved, along its direction, to where the largest of many draws are.

    The k-th of n of them gets the norm that a share of (k + 1/2) / total of all draws exceeds, total = `DRAWS` times
    the number of noises. So n draws of all would lie beyond the tail that they represent.

    Args:
        noises: Draws of N(0, std² I).
        std: Standard deviation of an element.

    Returns:
        The noises, and weights ``(B,)``, 1 on average, with which means over them estimate means over the prior. A
        noise in the tail has the weight of one draw; the others share that of all draws outside the tail.
    """
    from scipy.special import chdtri  # here, because scipy takes long to import

    count, total = len(noises) // _EVERY, DRAWS * len(noises)
    if not count:
        return noises, noises.x.new_ones(len(noises))
    flat = noises.x.reshape(len(noises), -1).clone()
    far = slice(_EVERY - 1, count * _EVERY, _EVERY)
    norms = [std * chdtri(flat.shape[1], (k + 0.5) / total) ** 0.5 for k in range(count)]
    flat[far] *= (torch.tensor(norms).to(flat) / torch.linalg.vector_norm(flat[far], dim=1))[:, None]
    in_tail = (torch.linalg.vector_norm(flat, dim=1) >= std * chdtri(flat.shape[1], count / total) ** 0.5).to(flat)
    tail = in_tail.sum()
    weights = in_tail + (1.0 - in_tail) * (total - tail) / (len(noises) - tail)
    return replace(noises, x=flat.reshape(noises.x.shape)), weights / weights.mean()
