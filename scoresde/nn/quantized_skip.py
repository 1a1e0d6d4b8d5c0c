r"""A closed-form skip connection for quantized data: the posterior mean of each value, given the values' histogram.

Let $x = \alpha x_0 + \sigma\varepsilon$, where $x_0$ is one of K bin centers $c_k$ with histogram p, independent of its
neighbors. Then $m = E[x_0 \mid x] = \sum_k c_k\,\mathrm{softmax}_k(\log p_k - \tfrac12 SNR\,(x/\alpha - c_k)^2)$, and
the expected $v = \alpha\varepsilon - \sigma x_0$ is $(\alpha x - m)/\sigma$. Once the noise is narrower than a bin,
this estimate is exact; a network without this skip connection learns it slowly. Information from neighbors enters the
same sum as a normal factor, which shifts the parabola in the exponent and changes its curvature.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.checks import check_integer
from scoresde.nn._argument_checks import check_interval
from scoresde.nn._execution import full_precision, is_exporting, is_transformed
from scoresde.nn._network_wrapper import NetworkWrapper

__all__ = ["QuantizedSkip"]

_MAX_TABLE_SIZE = 1 << 18  # entries of the table (value, bin) in memory at once: they fit into a core's cache
_MAX_LOG_GAIN = 10.0  # nats by which the neighbors may raise or lower the precision of a value


@dataclass(eq=False, repr=False, init=False)
class QuantizedSkip(NetworkWrapper):
    r"""Adds the expected v of each value, given that value alone, to an inner network; the sum estimates v (`V()`).

    The histogram is part of the weights: uniform until `fit` has counted the data. The inner network starts at 0 and
    learns what the neighbors add. For models trained on bin centers (``Training(dequantize=False)``).

    An inner network of three ``outputs`` (a, b, g) adds a to v, and corrects the expectation by b and g. They replace
    the parabola $-(s\,(x/\alpha - c_k))^2$, $s = \sqrt{SNR/2}$, of the logits by $-(s\,e^{g/2}(x/\alpha - c_k) + b)^2$.
    This multiplies the distribution of $x_0$ by a normal density. Information from neighbors is then separate from
    the quantization itself, whereas a single output learns their sum slowly.

    Attributes:
        net: The inner network, of one output or three per entry; it declares ``outputs`` if there are three.
        bins: Number of bins, K.
        low, high: Range of the bins in model units: bin k has its center at $low + (k + 1/2)(high - low)/K$.

    Raises:
        ValueError: If ``bins`` is not positive, ``low`` not below ``high``, or ``net`` declares other outputs.
    """

    trained_on_bin_centers: ClassVar[bool] = True
    """The network models data at bin centers, without dequantization noise; training and likelihoods read this."""
    net: nn.Module
    bins: int = 256
    low: float = -1.0
    high: float = 1.0

    def __init__(self, net: nn.Module, bins: int = 256, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        check_integer("bins", bins)
        check_interval("(low, high)", (low, high))
        if max(abs(low), abs(high)) > 1e6:
            raise ValueError(f"low and high are in model units, of order 1, got {low!r} and {high!r}; scale the data.")
        self.net, self.bins, self.low, self.high = net, bins, float(low), float(high)
        if (outputs := getattr(net, "outputs", 1)) not in (1, 3):
            raise ValueError(f"net must have 1 output or 3, got outputs={outputs}; build it with outputs=3.")
        self.register_buffer("log_histogram", torch.zeros(bins))
        self.log_histogram: Tensor

    def fit(self, values: ArrayLike) -> QuantizedSkip:
        """Sets the histogram to the counts of the values plus one (Laplace smoothing), so that no bin has mass 0.

        Args:
            values: Integer values 0 ... ``bins`` - 1, of any shape.

        Returns:
            This network.

        Raises:
            TypeError, ValueError: If the values are not integers, or one is out of range.
        """
        values = as_tensor(values, "values")
        if values.is_floating_point() or values.is_complex():
            raise TypeError(f"values must be integers, got {values.dtype}; pass the data before any scaling.")
        counts = torch.zeros(self.bins, dtype=torch.float64)
        for chunk in values.flatten().split(1 << 24):  # a memory-mapped file need not fit into memory
            if len(chunk) and not 0 <= int(chunk.min()) <= int(chunk.max()) < self.bins:
                raise ValueError(
                    f"values must lie in 0 ... {self.bins - 1}, got {int(chunk.min())} ... {int(chunk.max())}; "
                    "set bins to their number."
                )
            counts += torch.bincount(chunk.long(), minlength=self.bins).cpu()
        self.log_histogram.copy_(((counts + 1) / (counts + 1).sum()).log())
        return self

    def posterior_mean(
        self, x: Tensor, log_snr: Tensor, shift: Tensor | None = None, log_gain: Tensor | None = None
    ) -> Tensor:
        """E[x_0 | x] of each value, given that value and the neighbors' factor.

        Args:
            x: ``(B, *D)``, at least float32.
            log_snr: Nats, ``(B,)``, finite.
            shift, log_gain: b and g of the neighbors, ``(B, *D)``; None for 0.

        Returns:
            ``(B, *D)``, between the centers of the first and the last bin.
        """
        bin_width = (self.high - self.low) / self.bins
        centers = self.low + bin_width * (torch.arange(self.bins, dtype=x.dtype, device=x.device) + 0.5)
        per_sample = log_snr.to(x.dtype).reshape(-1, *(1 for _ in x.shape[1:]))
        slope = (0.5 * per_sample.exp()).sqrt()
        if log_gain is not None:
            slope = slope * (0.5 * log_gain.clamp(-_MAX_LOG_GAIN, _MAX_LOG_GAIN)).exp()
        slope = slope.expand_as(x)
        middle = slope * (x / torch.sigmoid(per_sample).sqrt())
        middle = middle if shift is None else middle + shift
        prior = (self.log_histogram.to(x.dtype), centers)
        if torch.is_grad_enabled() and middle.requires_grad and not is_transformed(middle):
            mean = _PosteriorMean.apply(middle, slope, *prior)
            assert isinstance(mean, Tensor)
            return mean
        return _posterior_mean(middle, slope, *prior)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        augment: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Log-SNR in nats, shape ``(B,)``; infinities are allowed.
            augment, delta: Passed to the inner network if not None.
            **cond: Conditions of the inner network by name.

        Returns:
            v, shape and dtype of ``x``.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        learned = self._inner_output(x, log_snr, augment=augment, delta=delta, **cond)
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            clamped = log_snr.clamp(*self.log_snr_range).to(wide.dtype)
            per_sample = clamped.reshape(-1, *(1 for _ in x.shape[1:]))
            alpha, sigma = torch.sigmoid(per_sample).sqrt(), torch.sigmoid(-per_sample).sqrt()
            update, shift, log_gain = (learned, None, None)
            if learned.ndim > x.ndim:
                update, shift, log_gain = learned.to(wide.dtype).unbind(-1)
            v = (alpha * wide - self.posterior_mean(wide, clamped, shift, log_gain)) / sigma
        return (v + update).to(x.dtype)


def _chunks(middle: Tensor, slope: Tensor, bins: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both split along the batch: the table of a chunk has at most `_MAX_TABLE_SIZE` entries, or is one sample's.

    torch.export gets one chunk: the number of chunks would depend on the size of the batch, which is a symbol there.
    """
    if is_exporting():
        return iter([(middle, slope)])
    rows = max(1, _MAX_TABLE_SIZE * len(middle) // max(middle.numel() * bins, 1))
    return zip(middle.split(rows), slope.split(rows), strict=True)


def _posterior(middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
    """softmax of log p_k - (middle - slope c_k)^2 over the bins, ``(B, *D, K)``."""
    distance = torch.addcmul(middle.unsqueeze(-1), slope.unsqueeze(-1), centers, value=-1)
    return torch.addcmul(log_p, distance, distance, value=-1).softmax(-1)


def _posterior_mean(middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
    """The mean of c_k under `_posterior`, ``(B, *D)``."""
    means = [_posterior(*chunk, log_p, centers) @ centers for chunk in _chunks(middle, slope, len(centers))]
    return torch.cat(means) if means else middle


class _PosteriorMean(torch.autograd.Function):
    """`_posterior_mean` whose backward pass stores the posterior's second and third moments instead of its table.

    With d = c - mean: d mean / d middle = 2 slope E[d^2], and
    d mean / d slope = 2 (middle - 2 slope mean) E[d^2] - 2 slope E[d^3].
    """

    @staticmethod
    def forward(ctx: Any, middle: Tensor, slope: Tensor, log_p: Tensor, centers: Tensor) -> Tensor:
        moments: list[tuple[Tensor, Tensor, Tensor]] = []
        for chunk in _chunks(middle, slope, len(centers)):
            p = _posterior(*chunk, log_p, centers)
            mean = p @ centers
            d = centers - mean.unsqueeze(-1)
            p.mul_(d).mul_(d)
            moments.append((mean, p.sum(-1), p.mul_(d).sum(-1)))
        mean, second, third = (torch.cat(moment) for moment in zip(*moments, strict=True))
        ctx.save_for_backward(middle, slope, log_p, centers, mean, second, third)
        return mean

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        middle, slope, log_p, centers, mean, second, third = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is required, which the stored moments do not give
            inputs = middle.view_as(middle), slope.view_as(slope)  # neither depends on the other in this graph
            required = [x for x, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
            mean = _posterior_mean(*inputs, log_p, centers)
            derivatives = iter(torch.autograd.grad(mean, required, grads, create_graph=True))
            return tuple(next(derivatives) if needed else None for needed in ctx.needs_input_grad)
        by_slope = 2 * ((middle - 2 * slope * mean) * second - slope * third)
        return grads[0] * (2 * slope * second), grads[0] * by_slope, None, None
