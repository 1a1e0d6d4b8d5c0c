"""What does a network see in images? Two sets of features: few for moments, many for neighbors and kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_finite

__all__ = ["Features", "Network", "features_of", "rgb"]


@dataclass(frozen=True)
class Features:
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
                f"features must be of shapes (n, f) and (n, g), got {shapes[0]} and {shapes[1]}; pool what has places."
            )

    def __len__(self) -> int:
        return len(self.moments)

    def take(self, rows: Tensor) -> Features:
        """Features of some of the images, by index ``(k,)``."""
        return Features(self.moments[rows], self.points[rows])


Network = Callable[[Tensor], Tensor | Features]
"""Any function of images; what a tensor ``(n, f)`` holds serves as moments and as points."""


def features_of(images: Tensor, network: Network, *, batch: int = 64) -> Features:
    """Features of images, a batch at a time, without gradients, on the CPU.

    Args:
        images: What the network takes, ``(n, C, H, W)``.
        network: Such as `EfficientNetLite0`. A module must be in the mode that it is meant to be used in (``eval``).
        batch: Images at a time.

    Returns:
        Features of all images in their order.

    Raises:
        TypeError: If the network gives something else than a tensor or `Features`.
        ValueError: If there are no images, ``batch < 1``, or what the network gives is not finite, not one row per
            image, or not a table.
    """
    if len(images) == 0 or batch < 1:
        raise ValueError(f"features need images and batch >= 1, got {len(images)} images and batch={batch}.")
    with torch.no_grad():
        parts = [_one(part, network) for part in images.split(batch)]
    moments = torch.cat([part.moments for part in parts])
    shared = all(part.moments is part.points for part in parts)
    points = moments if shared else torch.cat([part.points for part in parts])
    check_finite(moments, "the features")
    check_finite(points, "the features")
    return Features(moments, points)


def _one(images: Tensor, network: Network) -> Features:
    found = network(images)
    if isinstance(found, Tensor):
        moments = points = found.cpu()
    elif isinstance(found, Features):
        moments, points = found.moments.cpu(), found.points.cpu()
    else:
        raise TypeError(
            f"the network must give a tensor (n, f) or Features, got {type(found).__name__}; wrap it in a function."
        )
    if len(moments) != len(images):
        raise ValueError(f"the network must give one row per image, got {len(moments)} of {len(images)}.")
    return Features(moments, points)


def rgb(images: Tensor) -> Tensor:
    """Levels of gray or colored images as three channels, for networks that know photographs.

    Args:
        images: uint8, ``(n, 1, H, W)`` or ``(n, 3, H, W)``, levels 0 … 255.

    Returns:
        uint8, ``(n, 3, H, W)``; the one channel repeated.

    Raises:
        TypeError: If values are not uint8: in which range would they be?
        ValueError: If shapes are others.
    """
    if images.dtype != torch.uint8:
        raise TypeError(
            f"images must be uint8 levels 0 … 255, got {images.dtype}; model units become levels by "
            "Description.to_data, values in [0, 1] by (255 * x).round().byte()."
        )
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[2:]) < 1:
        raise ValueError(f"images must be of shape (n, 1 or 3, H, W), got {tuple(images.shape)}; pick the channels.")
    return images.expand(-1, 3, -1, -1)
