"""`KernelDensity`: the exact model of a data set's kernel density, a mixture of one isotropic component per event."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_positive
from scoresde.analytic.covariances import check_floating
from scoresde.analytic.mixtures import _Mixture
from scoresde.process.sde import SDE

__all__ = ["KernelDensity"]


class KernelDensity(_Mixture):
    """Exact model of a data set's kernel density estimate with a Gaussian kernel.

    As the bandwidth tends to 0, this is the optimum of denoising score matching on the data set.

    Args:
        data: ``(n, *D)``; its type is that of the model.
        bandwidth: Standard deviation of the kernel, in units of the data.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``data`` is not a floating tensor.
        ValueError: If ``bandwidth`` is not positive and finite, or ``data`` is empty.
    """

    def __init__(self, data: Tensor, bandwidth: float, sde: SDE | None = None) -> None:
        check_floating("data", data)
        check_arguments(KernelDensity, locals())
        check_positive(bandwidth=bandwidth)
        if bandwidth > 1e15:
            raise ValueError(f"bandwidth must be at most 1e15, so that its square is finite, got {bandwidth!r}.")
        variances = torch.full((len(data), 1), bandwidth**2).to(data)
        super().__init__(torch.zeros(len(data)).to(data), data, variances, None, sde)
