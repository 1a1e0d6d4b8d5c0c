r"""The image embedding: what the prior draws from a text and the decoder turns into an image.

$e = (W(f - \bar f),\; (L - \bar L) A)$: principal components of EfficientNet-Lite0's 1280 features f, whitened, and of
the image's own colors L on a coarse grid, of variance 1/4 in the mean. The features say what is shown. Their network
averages over the image and forgets where; the colors say that. The score of an image is the cosine of the first part.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from scoresde.metrics import EfficientNetLite0, features_of

__all__ = ["COLORS", "FEATURES", "LAYOUT", "SIZE", "Embedder", "features", "resized", "shown"]

FEATURES, COLORS = 128, 96
"""Numbers of the two parts of the embedding."""
SIZE, LAYOUT = 32, 16
"""Height and width of the decoder's images, and of the coarse image that the colors describe."""
_NETWORK_SIZE, _COLOR_SIZE = 96, 12


def features(images: Tensor) -> Tensor:
    """Features of images, float32 in [0, 1], ``(n, 3, H, W)``: ``(n, 1280)``. Smaller images are enlarged smoothly."""
    if images.shape[-1] < 64:
        images = interpolate(images, (_NETWORK_SIZE, _NETWORK_SIZE), mode="bicubic")
    values = (255 * images.clamp(0, 1)).round().to(torch.uint8)
    return features_of(values, _network()).points


@functools.cache
def _network() -> EfficientNetLite0:
    return EfficientNetLite0(_NETWORK_SIZE).eval()


def resized(images: Tensor, size: int) -> Tensor:
    """Images on a coarser grid, antialiased, ``(n, 3, size, size)``."""
    return interpolate(images, (size, size), mode="bilinear", antialias=True)


def shown(values: Tensor) -> Tensor:
    """Integer values 0 … 255 as float32 in [0, 1]."""
    return values.float() / 255


@dataclass(frozen=True, eq=False)
class Embedder:
    """Two linear maps, fitted to training images.

    Attributes:
        feature_mean, feature_map: ``(1280,)`` and ``(1280, 128)``.
        color_mean, color_map: ``(432,)`` and ``(432, 96)``.
    """

    feature_mean: Tensor
    feature_map: Tensor
    color_mean: Tensor
    color_map: Tensor

    @classmethod
    def fit(cls, images: Tensor, table: Tensor) -> Embedder:
        """Principal components of training images.

        Args:
            images: float32 in [0, 1], ``(n, 3, 64, 64)``.
            table: Their `features`, ``(n, 1280)``.
        """
        feature_mean, axes, deviations = _components(table, FEATURES)
        color_mean, color_axes, color_deviations = _components(_colors(images), COLORS)
        scale = 2 * color_deviations.square().mean().sqrt()
        return cls(feature_mean, axes / deviations, color_mean, color_axes / scale)

    def __call__(self, images: Tensor) -> Tensor:
        """Embeddings ``(n, 224)`` of images, float32 in [0, 1], ``(n, 3, H, W)``."""
        return self.of(images, features(images))

    def layout(self, embeddings: Tensor) -> Tensor:
        """The coarse images that the colors of embeddings describe, float32, 0 … 255, ``(n, 3, 16, 16)``."""
        colors = embeddings[:, FEATURES:] @ torch.linalg.pinv(self.color_map) + self.color_mean
        coarse = colors.unflatten(1, (3, _COLOR_SIZE, _COLOR_SIZE))
        return 255 * interpolate(coarse, (LAYOUT, LAYOUT), mode="bicubic").clamp(0, 1)

    def of(self, images: Tensor, table: Tensor) -> Tensor:
        """Embeddings of images whose `features` are known."""
        color = (_colors(images) - self.color_mean) @ self.color_map
        return torch.cat([(table - self.feature_mean) @ self.feature_map, color], 1)


def _colors(images: Tensor) -> Tensor:
    return avg_pool2d(resized(images, 2 * _COLOR_SIZE), 2).flatten(1)


def _components(table: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, the first principal axes as columns, and the standard deviations along them."""
    mean = table.mean(0)
    _, singular_values, axes = torch.linalg.svd(table - mean, full_matrices=False)
    return mean, axes[:count].mT.contiguous(), singular_values[:count] / len(table) ** 0.5
