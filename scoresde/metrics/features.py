"""Features of images from a network: one table for the Fréchet distance, one for kernels and nearest neighbors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_finite, check_integer
from scoresde.metrics.metric_estimate import as_events

__all__ = ["Features", "Network", "features_of", "rgb"]


@dataclass(frozen=True)
class Features(CheckedArguments):
    """Features of ``n`` images.

    Args:
        moments: For the Fréchet distance, which needs more samples than features, ``(n, f)``.
        points: For kernels and neighbors, ``(n, g)``; may be the same tensor.

    Raises:
        ValueError: If either is not a table, or they have different numbers of rows.
    """

    moments: Tensor
    points: Tensor

    def __post_init__(self) -> None:
        shapes = tuple(self.moments.shape), tuple(self.points.shape)
        if self.moments.ndim != 2 or self.points.ndim != 2 or len(self.moments) != len(self.points):
            raise ValueError(
                f"features must be of shapes (n, f) and (n, g), got {shapes[0]} and {shapes[1]}; pool the spatial axes."
            )

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, rows: Tensor) -> Features:
        """Features of some of the images, by index ``(k,)``."""
        return Features(self.moments[rows], self.points[rows])


Network = Callable[[Tensor], Tensor | Features]
"""Any function of images. A returned tensor ``(n, f)`` serves both as ``moments`` and as ``points``."""


def features_of(images: ArrayLike, network: Network, *, batch: int = 64) -> Features:
    """Features of images, batch by batch, without gradients, on the CPU.

    Args:
        images: Inputs of the network, ``(n, C, H, W)``.
        network: Such as `EfficientNetLite0`. A module must already be in ``eval`` mode.
        batch: Images at once.

    Returns:
        Features of all images in their order.

    Raises:
        TypeError: If the network does not return a tensor or `Features`.
        ValueError: If there are no images, ``batch < 1``, or the network's output is not finite, not one row per
            image, or not a table.
    """
    check_arguments(features_of, locals())
    images = as_events(images, "images")
    check_integer("batch", batch)
    if len(images) == 0:
        raise ValueError(f"features need images and batch >= 1, got 0 images and batch={batch}; pass (n, C, H, W).")
    with torch.no_grad():
        parts = [_batch_features(part, network) for part in images.split(batch)]
    moments = torch.cat([part.moments for part in parts])
    shared = all(part.moments is part.points for part in parts)
    points = moments if shared else torch.cat([part.points for part in parts])
    check_finite(moments, "the features")
    check_finite(points, "the features")
    return Features(moments, points)


def _batch_features(images: Tensor, network: Network) -> Features:
    output = network(images)
    if isinstance(output, Tensor):
        moments = points = output.cpu()
    elif isinstance(output, Features):
        moments, points = output.moments.cpu(), output.points.cpu()
    else:
        raise TypeError(
            f"the network must return a tensor (n, f) or Features, got {type(output).__name__}; wrap it in a function."
        )
    if len(moments) != len(images):
        raise ValueError(f"the network must return one row per image, got {len(moments)} of {len(images)}.")
    return Features(moments, points)


def rgb(images: Tensor) -> Tensor:
    """Gray or color images as three channels, for networks trained on photographs.

    Args:
        images: uint8, ``(n, 1, H, W)`` or ``(n, 3, H, W)``, values 0 … 255.

    Returns:
        uint8, ``(n, 3, H, W)``; a single channel is repeated.

    Raises:
        TypeError: If the dtype is not uint8, because the range of other types is unknown.
        ValueError: If the shape is not one of the two.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"images must be uint8 values 0 … 255, got {images.dtype}; convert model units by Description.to_data, "
            "values in [0, 1] by (255 * x).round().byte()."
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 1:
        raise ValueError(f"images must be of shape (n, 1 or 3, H, W), got {tuple(images.shape)}; select channels.")
    return images.expand(-1, 3, -1, -1)
