r"""How does a network know that data have levels? It is told what each value says by itself, and learns the rest.

Of a value $x = \alpha x_0 + \sigma\varepsilon$ whose $x_0$ is one of K levels $c_k$, drawn by a histogram p and without
regard to its neighbours, all is known: $m = E[x_0 \mid x] = \sum_k c_k\,\mathrm{softmax}_k(\log p_k -
\tfrac12 SNR\,(x/\alpha - c_k)^2)$, and $v = \alpha\varepsilon - \sigma x_0$ is expected at $(\alpha x - m)/\sigma$.
Once the noise is finer than a level's width this is the whole answer, which a network alone learns slowly.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde.nn._around import Around
from scoresde.nn._checks import check_positive, check_range
from scoresde.nn._layers import full_precision

__all__ = ["LevelSkip"]

_HELD = 1 << 18  # numbers of the table (value, level) that are held at once: they stay in a core's cache


@dataclass(eq=False, repr=False, init=False)
class LevelSkip(Around):
    r"""Adds to an inner network the expected v of each value by itself; the sum estimates v (`V()`).

    The histogram is part of the weights: uniform until `fit` has seen data. The inner network, which begins at 0,
    learns what the neighbours add. For data trained on the levels' centres (``Training(dequantize=False)``).

    Attributes:
        net: The inner network.
        bins: Number of levels, K.
        low, high: What they fill in model units, so that level k lies at $low + (k + 1/2)(high - low)/K$.

    Raises:
        ValueError: If ``bins`` is not positive, or ``low`` not below ``high``.
    """

    net: nn.Module
    bins: int = 256
    low: float = -1.0
    high: float = 1.0

    def __init__(self, net: nn.Module, bins: int = 256, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        check_positive("bins", bins, whole=True)
        check_range("(low, high)", (low, high))
        self.net, self.bins, self.low, self.high = net, bins, float(low), float(high)
        self.register_buffer("log_histogram", torch.zeros(bins))
        self.log_histogram: Tensor

    def fit(self, levels: Tensor) -> LevelSkip:
        """Counts how often each level occurs, each once more than it does, so that none is thought impossible.

        Args:
            levels: Whole numbers 0 ... ``bins`` - 1, of any shape.

        Returns:
            Itself.

        Raises:
            TypeError, ValueError: If they are not whole numbers, or one is out of range.
        """
        if levels.is_floating_point():
            raise TypeError(f"levels must be whole numbers, got {levels.dtype}; pass the data before any scaling.")
        counts = torch.zeros(self.bins, dtype=torch.float64)
        for part in levels.flatten().split(1 << 24):  # a mapped file need not fit into memory
            if len(part) and not 0 <= int(part.min()) <= int(part.max()) < self.bins:
                raise ValueError(
                    f"levels must lie in 0 ... {self.bins - 1}, got {int(part.min())} ... {int(part.max())}; "
                    "set bins to their number."
                )
            counts += torch.bincount(part.long(), minlength=self.bins).cpu()
        self.log_histogram.copy_(((counts + 1) / (counts + 1).sum()).log())
        return self

    def expected(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """E[x_0 | x] of each value by itself.

        Args:
            x: ``(B, *D)``, at least float32.
            log_snr: Nats, ``(B,)``, finite.

        Returns:
            ``(B, *D)``, between the first level's centre and the last's.
        """
        step = (self.high - self.low) / self.bins
        centres = self.low + step * (torch.arange(self.bins, dtype=x.dtype, device=x.device) + 0.5)
        log_p = self.log_histogram.to(x.dtype)
        rows = max(1, _HELD * len(x) // max(x.numel() * self.bins, 1))
        parts = []
        for value, level in zip(x.split(rows), log_snr.to(x.dtype).split(rows)):
            level = level.reshape(-1, *(1 for _ in value.shape[1:]))
            away = ((value / torch.sigmoid(level).sqrt()).unsqueeze(-1) - centres) * (
                0.5 * level.exp()
            ).sqrt().unsqueeze(-1)
            parts.append(torch.addcmul(log_p, away, away, value=-1).softmax(-1) @ centres)
        return torch.cat(parts) if parts else x

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Noise level in nats, shape ``(B,)``; infinities are allowed.
            cond, augment: Passed to the inner network, where they are not None.

        Returns:
            v, shape and dtype of ``x``.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        learned = self._inner(x, log_snr, cond, augment)
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            level = log_snr.clamp(*self.log_snr_range).to(wide.dtype)
            per_sample = level.reshape(-1, *(1 for _ in x.shape[1:]))
            alpha, sigma = torch.sigmoid(per_sample).sqrt(), torch.sigmoid(-per_sample).sqrt()
            alone = (alpha * wide - self.expected(wide, level)) / sigma
        return (alone + learned).to(x.dtype)
