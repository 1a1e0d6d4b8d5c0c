r"""How does a network know that data have levels? It is told what each value says by itself, and learns the rest.

Of a value $x = \alpha x_0 + \sigma\varepsilon$ whose $x_0$ is one of K levels $c_k$, drawn by a histogram p and without
regard to its neighbors, all is known: $m = E[x_0 \mid x] = \sum_k c_k\,\mathrm{softmax}_k(\log p_k -
\tfrac12 SNR\,(x/\alpha - c_k)^2)$, and $v = \alpha\varepsilon - \sigma x_0$ is expected at $(\alpha x - m)/\sigma$.
Once the noise is finer than a level's width this is the whole answer, which a network alone learns slowly. What the
neighbors say of $x_0$ enters the same sum as a normal factor, which shifts the parabola and widens or narrows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoresde.nn._checks import check_positive, check_range
from scoresde.nn._layers import full_precision, transformed
from scoresde.nn._wrapper import NetworkWrapper

__all__ = ["QuantizedSkip"]

_HELD = 1 << 18  # numbers of the table (value, level) that are held at once: they stay in a core's cache
_FACTOR = 10.0  # nats by which neighbors may raise or lower a value's precision


@dataclass(eq=False, repr=False, init=False)
class QuantizedSkip(NetworkWrapper):
    r"""Adds to an inner network the expected v of each value by itself; the sum estimates v (`V()`).

    The histogram is part of the weights: uniform until `fit` has seen data. The inner network, which begins at 0,
    learns what the neighbors add. For data trained on the levels' centers (``Training(dequantize=False)``).

    An inner network of three ``outputs`` (a, b, g) adds a to v, and b and g to the expectation itself: they make of
    the logits' parabola $-(s\,(x/\alpha - c_k))^2$, $s = \sqrt{SNR/2}$, the parabola $-(s\,e^{g/2}(x/\alpha - c_k)
    + b)^2$, which is to multiply the law of $x_0$ by a normal density. What neighbors know is then told apart from
    what the levels are, which one sum of both is slow to learn.

    Attributes:
        net: The inner network, of one output or three; it states its ``outputs`` if there are three.
        bins: Number of levels, K.
        low, high: What they fill in model units, so that level k lies at $low + (k + 1/2)(high - low)/K$.

    Raises:
        ValueError: If ``bins`` is not positive, ``low`` not below ``high``, or ``net`` states other outputs.
    """

    on_centers: ClassVar[bool] = True
    """It is a model of levels at their centers, and of no others."""
    net: nn.Module
    bins: int = 256
    low: float = -1.0
    high: float = 1.0

    def __init__(self, net: nn.Module, bins: int = 256, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        check_positive("bins", bins, whole=True)
        check_range("(low, high)", (low, high))
        self.net, self.bins, self.low, self.high = net, bins, float(low), float(high)
        if (outputs := getattr(net, "outputs", 1)) not in (1, 3):
            raise ValueError(f"net must have 1 output or 3, got outputs={outputs}; build it with outputs=3.")
        self.register_buffer("log_histogram", torch.zeros(bins))
        self.log_histogram: Tensor

    def fit(self, levels: Tensor) -> QuantizedSkip:
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

    def expected(self, x: Tensor, log_snr: Tensor, shift: Tensor | None = None, gain: Tensor | None = None) -> Tensor:
        """E[x_0 | x] of each value by itself.

        Args:
            x: ``(B, *D)``, at least float32.
            log_snr: Nats, ``(B,)``, finite.
            shift, gain: b and g of the neighbors, ``(B, *D)``; None for 0.

        Returns:
            ``(B, *D)``, between the first level's center and the last's.
        """
        step = (self.high - self.low) / self.bins
        centers = self.low + step * (torch.arange(self.bins, dtype=x.dtype, device=x.device) + 0.5)
        level = log_snr.to(x.dtype).reshape(-1, *(1 for _ in x.shape[1:]))
        slope = (0.5 * level.exp()).sqrt()
        slope = (slope if gain is None else slope * (0.5 * gain.clamp(-_FACTOR, _FACTOR)).exp()).expand_as(x)
        middle = slope * (x / torch.sigmoid(level).sqrt())
        middle = middle if shift is None else middle + shift
        known = (self.log_histogram.to(x.dtype), centers)
        if torch.is_grad_enabled() and middle.requires_grad and not transformed(middle):
            mean = _Mean.apply(middle, slope, *known)
            assert isinstance(mean, Tensor)
            return mean
        return _mean(middle, slope, *known)

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
            added, shift, gain = (learned, None, None) if learned.ndim == x.ndim else learned.to(wide.dtype).unbind(-1)
            alone = (alpha * wide - self.expected(wide, level, shift, gain)) / sigma
        return (alone + added).to(x.dtype)


def _parts(middle: Tensor, slope: Tensor, levels: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both cut along the batch, so that a table of a part holds no more than `_HELD` numbers, or one sample's."""
    rows = max(1, _HELD * len(middle) // max(middle.numel() * levels, 1))
    return zip(middle.split(rows), slope.split(rows), strict=True)


def _posterior(middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
    """softmax of log p_k - (middle - slope c_k)^2 over the levels, ``(B, *D, K)``."""
    away = torch.addcmul(middle.unsqueeze(-1), slope.unsqueeze(-1), centers, value=-1)
    return torch.addcmul(log_p, away, away, value=-1).softmax(-1)


def _mean(middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
    """The mean of c_k under `_posterior`, ``(B, *D)``."""
    parts = [_posterior(*part, log_p, centers) @ centers for part in _parts(middle, slope, len(centers))]
    return torch.cat(parts) if parts else middle


class _Mean(torch.autograd.Function):
    """`_mean` whose derivative keeps the posterior's second and third moments and not its table.

    With d = c - mean: d mean / d middle = 2 slope E[d^2], and
    d mean / d slope = 2 (middle - 2 slope mean) E[d^2] - 2 slope E[d^3].
    """

    @staticmethod
    def forward(ctx: Any, middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for part in _parts(middle, slope, len(centers)):
            p = _posterior(*part, log_p, centers)
            mean = p @ centers
            d = centers - mean.unsqueeze(-1)
            p.mul_(d).mul_(d)
            found.append((mean, p.sum(-1), p.mul_(d).sum(-1)))
        mean, second, third = (torch.cat(part) for part in zip(*found, strict=True))
        ctx.save_for_backward(middle, slope, log_p, centers, mean, second, third)
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        middle, slope, log_p, centers, mean, second, third = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, of which the moments know nothing
            apart = middle.view_as(middle), slope.view_as(slope)  # neither a function of the other
            wanted = [part for part, asked in zip(apart, ctx.needs_input_grad, strict=False) if asked]
            found = iter(torch.autograd.grad(_mean(*apart, log_p, centers), wanted, grads, create_graph=True))
            return tuple(next(found) if asked else None for asked in ctx.needs_input_grad)
        by_slope = 2 * ((middle - 2 * slope * mean) * second - slope * third)
        return grads[0] * (2 * slope * second), grads[0] * by_slope, None, None
