"""`Gaussian`: the exact model of N(m, C), a mixture of one component."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.analytic.covariances import check_floating, variances_and_axes
from scoresde.analytic.mixtures import _Mixture
from scoresde.process.sde import SDE

__all__ = ["Gaussian"]


class Gaussian(_Mixture):
    """Exact model of N(mean, cov).

    Args:
        mean: ``(*D)``; its type is that of the model.
        cov: Variance of an isotropic Gaussian, ``(d,)`` variances or a ``(d, d)`` matrix, with d elements per event.
        sde: The process; default `VPSDE`.

    Raises:
        TypeError: If ``mean`` is not a floating tensor.
        ValueError: If ``cov`` has another shape, has a negative eigenvalue, or is not symmetric.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian
        >>> model = Gaussian(torch.tensor([1.0]), 0.25)
        >>> prediction = model(torch.tensor([[0.5]]), tau=1.0)
        >>> [round(float(value), 4) for value in (prediction.x0, prediction.eps, prediction.score)]
        [1.0135, 0.1367, -0.147]
    """

    def __init__(self, mean: Tensor, cov: Tensor | float, sde: SDE | None = None) -> None:
        check_floating("mean", mean, batch=False)
        check_arguments(Gaussian, locals())
        if isinstance(cov, Tensor) and cov.is_meta and not mean.is_meta:
            raise TypeError("cov must have values, got a tensor on the meta device; move it to the CPU with its data.")
        cov = torch.as_tensor(cov, dtype=mean.dtype, device=mean.device)
        variances, axes = variances_and_axes(cov.unsqueeze(0), mean.numel(), 1)
        super().__init__(torch.zeros(1).to(mean), mean.unsqueeze(0), variances, axes, sde)
