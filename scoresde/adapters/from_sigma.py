r"""`FromSigma`: a network of $\tilde\sigma = e^{-\mathrm{logSNR}/2}$, in the coordinates $\tilde x = x/\alpha$."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_positive
from scoresde._core.suggest import nearest
from scoresde._core.tensors import expand, widest_dtype
from scoresde.adapters.base import Adapter

__all__ = ["FromSigma"]

_LEVELS = ("sigma", "log", "quarter log", "log half", "angle")
_OUTPUTS = ("unchanged", "negative", "score")


@dataclass(eq=False, repr=False, init=False)
class FromSigma(Adapter):
    r"""Calls ``net(c_in x̃, c_noise)``, with $\tilde x = x/\alpha$ and a function of $\tilde\sigma$.

    A denoiser $D(\tilde x, \tilde\sigma)$ needs only the defaults and the parameterization `X0`. EDM's raw network has
    ``sigma_data=0.5, level="quarter log", output_form="negative"`` and the parameterization ``V(sigma_data=0.5)``. A
    network of the score in $\tilde x$, $-\varepsilon/\tilde\sigma$, has ``output_form="score"`` and the
    parameterization `Eps`.

    Args:
        net: The network; its output is unwrapped as that of `FromStep`.
        sigma_data: Standard deviation $\sigma_d$ of $c_{in} = 1/\sqrt{\sigma_d^2 + \tilde\sigma^2}$; None for
            $c_{in} = 1$.
        level: What the network receives: ``"sigma"``, $\tilde\sigma$; ``"log"``, its logarithm; ``"quarter log"``,
            a quarter of that; ``"log half"``, that of half the level; ``"angle"``,
            $\tfrac2\pi\,\mathrm{atan}\,\tilde\sigma$ in [0, 1].
        output_form: ``"unchanged"``; ``"negative"``, -out; ``"score"``, $-\tilde\sigma\,out$.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If ``sigma_data`` is not positive, or ``level`` or ``output_form`` is unknown.

    Source: Karras et al. 2022, table 1 and eq. 7.

    Example:
        >>> import torch
        >>> from scoresde import VE, X0, ScoreModel
        >>> from scoresde.adapters import FromSigma
        >>> class Denoiser(torch.nn.Module):
        ...     def forward(self, x, sigma):  # exact for normal data of variance 4
        ...         return (4 / (4 + sigma**2)).reshape(-1, 1) * x
        >>> model = ScoreModel(FromSigma(Denoiser()), VE(), X0(), event_shape=(1,))
        >>> model(torch.ones(1, 1), 0.3).score
        tensor([[-0.3779]])
    """

    net: nn.Module
    sigma_data: float | None = None
    level: str = "sigma"
    output_form: str = "unchanged"

    def __init__(
        self,
        net: nn.Module,
        sigma_data: float | None = None,
        level: str = "sigma",
        output_form: str = "unchanged",
    ) -> None:
        super().__init__(net)
        if sigma_data is not None:
            check_positive(sigma_data=sigma_data)
        for name, value, known in (("level", level, _LEVELS), ("output_form", output_form, _OUTPUTS)):
            if value not in known:
                raise ValueError(f"no {name} is named {value!r}; {nearest(str(value), known)}")
        self.sigma_data, self.level, self.output_form = sigma_data, level, output_form

    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        wide = log_snr.to(widest_dtype(log_snr.device))
        sigma = torch.exp(-0.5 * wide)
        factor = torch.sigmoid(wide).rsqrt()
        if self.sigma_data is not None:
            factor = factor * (self.sigma_data**2 + sigma * sigma).rsqrt()
        return x * expand(factor, x), self._level(sigma, wide).float()

    def _level(self, sigma: Tensor, log_snr: Tensor) -> Tensor:
        if self.level == "angle":
            return sigma.atan() * (2.0 / math.pi)
        log_sigma = -0.5 * log_snr
        return {
            "sigma": sigma,
            "log": log_sigma,
            "quarter log": 0.25 * log_sigma,
            "log half": log_sigma - math.log(2.0),
        }[self.level]

    def output(self, out: Tensor, log_snr: Tensor) -> Tensor:
        if self.output_form == "unchanged":
            return out
        if self.output_form == "negative":
            return -out
        return out * expand(-torch.exp(-0.5 * log_snr.to(widest_dtype(log_snr.device))), out)
