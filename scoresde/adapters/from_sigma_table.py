r"""`FromSigmaTable`: a network of the place t of the noise level in a table, $\tilde\sigma_t = \tilde\sigma$."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.tables import place_in
from scoresde._core.tensors import constant, expand, widest_dtype
from scoresde.adapters.base import Adapter

__all__ = ["FromSigmaTable"]

_SNAP = 2e-3  # as in `FromStep`


@dataclass(eq=False, repr=False, init=False)
class FromSigmaTable(Adapter):
    r"""Calls ``net(c_in x̃, t)`` with the place t of $\tilde\sigma = e^{-\mathrm{logSNR}/2}$ in a table, from 0 on.

    Between two entries t is interpolated linearly in $\log\tilde\sigma$; beyond the ends it is that of the end. With
    the levels of a DDPM chain, $\sqrt{(1 - \bar\alpha)/\bar\alpha}$, these are the steps of k-diffusion's wrappers.

    Args:
        net: The network; its output is unwrapped as that of `FromStep`.
        sigmas: The levels, strictly rising or strictly falling.
        rounding: Whether the network takes integers (int64): the nearest place in $\log\tilde\sigma$. Otherwise it
            receives fractions, in float32; those within 2e-3 of an integer are that integer.
        scaled: Whether $c_{in} = 1/\sqrt{1 + \tilde\sigma^2}$, so that the network receives x; otherwise it receives
            $\tilde x = x/\alpha$.
        score_output: Whether the output is the score in x̃, of which $-\tilde\sigma\,out$ is the noise.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If there are fewer than two levels, one is not positive and finite, or they do not rise or fall.

    Source: Song & Ermon 2019, whose networks take the place in a falling table; k-diffusion's ``DiscreteSchedule``.
    """

    net: nn.Module
    sigmas: tuple[float, ...]
    rounding: bool = False
    scaled: bool = True
    score_output: bool = False

    def __init__(
        self,
        net: nn.Module,
        sigmas: tuple[float, ...],
        rounding: bool = False,
        scaled: bool = True,
        score_output: bool = False,
    ) -> None:
        super().__init__(net)
        self.sigmas = tuple(float(sigma) for sigma in sigmas)
        if len(self.sigmas) < 2 or not all(0 < sigma < math.inf for sigma in self.sigmas):
            raise ValueError(
                f"sigmas must be two or more positive finite levels, got {len(self.sigmas)}: {sigmas!r:.80}."
            )
        pairs = list(zip(self.sigmas, self.sigmas[1:]))
        self._falls = all(a > b for a, b in pairs)
        if not self._falls and not all(a < b for a, b in pairs):
            raise ValueError("sigmas must rise strictly or fall strictly, got a table that does neither; sort it.")
        self._logs = tuple(sorted(math.log(sigma) for sigma in self.sigmas))
        self.rounding, self.scaled, self.score_output = rounding, scaled, score_output

    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        wide = log_snr.to(widest_dtype(log_snr.device))
        if not self.scaled:
            x = x * expand(torch.sigmoid(wide).rsqrt(), x)
        logs, log_sigma = constant(self._logs, wide), -0.5 * wide
        index = (place_in(logs, log_sigma) - 1).clamp(0, len(self._logs) - 2)
        low, high = logs.take(index), logs.take(index + 1)
        t = index + ((log_sigma - low) / (high - low)).clamp(0.0, 1.0)
        if self._falls:
            t = len(self._logs) - 1 - t
        nearest = t.round()
        if self.rounding:
            return x, nearest.long()
        return x, nearest.where((t - nearest).abs() < _SNAP, t).float()

    def output(self, out: Tensor, log_snr: Tensor) -> Tensor:
        if not self.score_output:
            return out
        return out * expand(-torch.exp(-0.5 * log_snr.to(widest_dtype(log_snr.device))), out)
