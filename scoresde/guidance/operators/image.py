r"""Operators of images, series and volumes: `AveragePool` (down-sampling), `Blur` (periodic) and `FourierMask`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_finite, check_integer, check_tensor
from scoresde.guidance.operators.base import LinearOperator, SpectralOperator

__all__ = ["AveragePool", "Blur", "FourierMask"]


class AveragePool(SpectralOperator):
    r"""Means of blocks of ``factor`` elements along each grid axis, $A A^T = factor^{-n} I$ with n grid axes.

    The adjoint repeats a value over its block, divided by the block's size; the pseudo-inverse repeats it undivided.

    Args:
        event_shape: ``(C, *grid)``, every grid axis divisible by ``factor``.
        factor: Elements per block and axis.

    Raises:
        ValueError: If ``factor`` is not a positive integer or does not divide a grid axis.
    """

    def __init__(self, event_shape: tuple[int, ...], factor: int = 2) -> None:
        super().__init__()
        check_arguments(AveragePool, locals())
        check_integer("factor", factor)
        channels, *grid = tuple(event_shape) or (0,)
        if not grid or any(size % factor for size in grid):
            raise ValueError(
                f"event_shape must be (C, *grid) with every grid axis divisible by factor = {factor}, got "
                f"{tuple(event_shape)}."
            )
        self.event_shape, self.factor = tuple(event_shape), factor
        self.output_shape = (channels, *(size // factor for size in grid))
        self._block = factor ** len(grid)

    def apply(self, x0: Tensor) -> Tensor:
        split = [part for size in self.output_shape[1:] for part in (size, self.factor)]
        axes = tuple(range(3, 3 + 2 * (len(self.output_shape) - 1), 2))
        return x0.reshape(len(x0), self.event_shape[0], *split).mean(axes)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._repeat(y) / self._block

    def _repeat(self, y: Tensor) -> Tensor:
        for axis in range(2, y.ndim):
            y = y.repeat_interleave(self.factor, axis)
        return y

    def gram_diagonal(self, like: Tensor) -> Tensor:
        return like.new_full((1,) * len(self.output_shape), 1.0 / self._block)

    def singular_values(self, like: Tensor) -> Tensor:
        return like.new_full((math.prod(self.output_shape),), self._block**-0.5)

    def left(self, y: Tensor) -> Tensor:
        return y.reshape(len(y), math.prod(self.output_shape))

    def right(self, x0: Tensor) -> Tensor:
        return self.apply(x0).reshape(len(x0), math.prod(self.output_shape)) * self._block**0.5

    def right_adjoint(self, z: Tensor) -> Tensor:
        return self._repeat(z.reshape(len(z), *self.output_shape)) * self._block**-0.5


class Blur(LinearOperator):
    r"""Convolution of each channel with a kernel, $(Ax)_i = \sum_j k_j x_{i-j}$, periodic at the boundary, by FFT.

    The adjoint is the correlation with the same kernel.

    Args:
        kernel: One axis per grid axis, odd sizes not above those of the grid; its center is its middle element.
        event_shape: ``(C, *grid)``.

    Raises:
        ValueError: If the shapes do not fit or an entry is not finite.
    """

    response: Tensor

    def __init__(self, kernel: Tensor, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        check_tensor("kernel", kernel)
        check_arguments(Blur, locals())
        grid = tuple(event_shape[1:])
        fits = kernel.ndim == len(grid) > 0 and all(k % 2 and k <= size for k, size in zip(kernel.shape, grid))
        if not fits or not kernel.is_floating_point():
            raise ValueError(
                f"kernel must be floating with one axis per grid axis of {tuple(event_shape)}, of odd sizes not above "
                f"it, got {tuple(kernel.shape)}, {kernel.dtype}."
            )
        check_finite(kernel, "kernel")
        self.event_shape = self.output_shape = tuple(event_shape)
        self._axes = tuple(range(-len(grid), 0))
        padded = kernel.new_zeros(grid)
        padded[tuple(slice(k) for k in kernel.shape)] = kernel
        padded = padded.roll([-(k // 2) for k in kernel.shape], self._axes)
        self.register_buffer("response", torch.view_as_real(torch.fft.rfftn(padded, dim=self._axes)))

    def _filter(self, x: Tensor, conjugate: bool) -> Tensor:
        response = torch.view_as_complex(self.response.to(x.dtype))
        spectrum = torch.fft.rfftn(x, dim=self._axes) * (response.conj() if conjugate else response)
        return torch.fft.irfftn(spectrum, s=self.event_shape[1:], dim=self._axes)

    def apply(self, x0: Tensor) -> Tensor:
        return self._filter(x0, conjugate=False)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._filter(y, conjugate=True)


class FourierMask(SpectralOperator):
    r"""Real and imaginary parts of some Fourier coefficients, as magnetic resonance imaging measures them.

    The transform is orthonormal over the grid axes. A coefficient and the one of the opposite frequency are complex
    conjugates, so only one of the two is kept, times √2: the rows of A are orthonormal, $A A^T$ is the identity on the
    measured entries, and independent noise of standard deviation s is noise s/√2 in each part of such a coefficient.

    Args:
        observed: Bool, ``(*grid)``, in the order of ``torch.fft.fftn`` (zero frequency first). A coefficient counts if
            it or the opposite one is true.
        event_shape: ``(C, *grid)``.

    Measurements have shape ``(C, *grid, 2)``; entries that are not measured are 0.

    Raises:
        TypeError: If ``observed`` is not bool.
        ValueError: If the shapes do not fit.
    """

    weight: Tensor

    def __init__(self, observed: Tensor, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        check_tensor("observed", observed)
        check_arguments(FourierMask, locals())
        if observed.dtype is not torch.bool:
            raise TypeError(f"observed must be a bool tensor, got {observed.dtype}; write mask > 0.")
        if not len(event_shape) > 1 or tuple(observed.shape) != tuple(event_shape[1:]):
            raise ValueError(f"observed must have the shape of the grid of {tuple(event_shape)}, got {observed.shape}.")
        self.event_shape, self.output_shape = tuple(event_shape), (*event_shape, 2)
        self._axes = tuple(range(-observed.ndim, 0))
        self.register_buffer("weight", _coefficient_weights(observed))
        self._measured = event_shape[0] * int((self.weight > 0).sum())

    def support(self) -> Tensor:
        return (self.weight > 0).expand(self.output_shape)

    def measured(self) -> int:
        return self._measured

    def apply(self, x0: Tensor) -> Tensor:
        return torch.view_as_real(torch.fft.fftn(x0, dim=self._axes, norm="ortho")) * self.weight.to(x0.dtype)

    def adjoint(self, y: Tensor) -> Tensor:
        spectrum = torch.view_as_complex((y * self.weight.to(y.dtype)).contiguous())
        return torch.fft.ifftn(spectrum, dim=self._axes, norm="ortho").real

    def gram_diagonal(self, like: Tensor) -> Tensor:
        return self.support().to(like.dtype)

    def singular_values(self, like: Tensor) -> Tensor:
        return self.support().to(like.dtype).flatten()

    def left(self, y: Tensor) -> Tensor:
        return y.reshape(len(y), math.prod(self.output_shape))

    def right(self, x0: Tensor) -> Tensor:
        return self.apply(x0).reshape(len(x0), math.prod(self.output_shape))

    def right_adjoint(self, z: Tensor) -> Tensor:
        return self.adjoint(z.reshape(len(z), *self.output_shape))


def _coefficient_weights(observed: Tensor) -> Tensor:
    """Factors of the real and imaginary parts, ``(*grid, 2)``: √2 for one of each pair, 1 and 0 where it is real."""
    size = observed.numel()
    flat = torch.arange(size, device=observed.device).reshape(observed.shape)
    axes = tuple(range(observed.ndim))
    opposite = flat.flip(axes).roll([1] * observed.ndim, axes)  # the element of frequency -f, at position of f
    kept = observed | observed.flip(axes).roll([1] * observed.ndim, axes)
    pair, alone = kept & (flat < opposite), kept & (flat == opposite)
    pair, alone = pair.double() * math.sqrt(2.0), alone.double()
    return torch.stack([pair + alone, pair], -1)
