"""Decoding of one image to ``uint8`` values of shape ``(C, H, W)`` with Pillow; loss of information raises an error."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps

__all__ = ["IMAGE_SUFFIXES", "ImageDecoder"]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""File name suffixes of images, in upper or lower case."""

_GRAY, _COLOR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_DECODING_ERRORS = (OSError, SyntaxError, EOFError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageDecoder:
    """Decoder of images: ``decoder(path)`` and ``decoder.values(image)`` return ``uint8`` values ``(C, H, W)``.

    Images are rotated upright by their EXIF orientation. Gray becomes color by repetition, color becomes gray by
    ITU-R 601 luma.

    Args:
        size: Height and width; one number means both. An image of another size is scaled until it covers them
            (Lanczos, antialiased) and center-cropped. ``None`` keeps the size of each image.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA). ``None`` keeps gray images gray and color images RGB.

    Raises:
        ValueError: If ``size`` or ``channels`` is not one of these.
    """

    size: int | tuple[int, int] | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if size is not None and (
            not isinstance(size, (tuple, list))
            or len(size) != 2
            or not all(isinstance(n, int) and n >= 1 for n in size)
        ):
            raise ValueError(f"size must be a positive integer, or (height, width), got {self.size!r}; 64 is usual.")
        if not isinstance(self.channels, int | None) or self.channels not in (None, *_MODES):
            raise ValueError(f"channels must be 1 (gray), 3 (RGB), 4 (RGBA) or None, got {self.channels!r}.")
        object.__setattr__(self, "size", None if size is None else tuple(size))

    def __call__(self, path: str | Path) -> np.ndarray:
        """Decodes a file to ``uint8`` values ``(C, H, W)``.

        Raises:
            FileNotFoundError, PermissionError: If the file cannot be opened.
            ValueError: If it is not a complete image, or as `values` does; the error names the file.
        """
        try:
            with Image.open(path) as image:
                _check_depth(image)
                image.load()
                return self.values(image)
        except (FileNotFoundError, PermissionError):
            raise
        except _UnsupportedImage as error:
            raise ValueError(f"{path}: {error}") from None
        except _DECODING_ERRORS as error:
            raise ValueError(f"{path} must be a complete image, got: {error}; replace it or remove it.") from error

    def values(self, image: Image.Image) -> np.ndarray:
        """The ``uint8`` values ``(C, H, W)`` of a Pillow image.

        Pillow reduces color files of more than 8 bits per channel to 8 while decoding. Only the call on a path can
        refuse those.

        Raises:
            ValueError: If it has several frames, more than 8 bits per channel, or transparency that would be lost.
        """
        frames = getattr(image, "n_frames", 1)
        if frames > 1:
            raise _UnsupportedImage(f"an image must have one frame, got {frames}; save the frames one by one.")
        image = self._converted(ImageOps.exif_transpose(image))
        if isinstance(self.size, tuple):
            image = _scale_and_crop(image, *self.size)
        values = np.asarray(image)
        return np.ascontiguousarray(values[None] if values.ndim == 2 else values.transpose(2, 0, 1))

    def _converted(self, image: Image.Image) -> Image.Image:
        if image.mode not in (*_GRAY, *_COLOR):
            _raise_depth(f"mode {image.mode}")
        if self.channels == 4:
            return image.convert("RGBA")
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            image = image.convert("RGBA" if image.mode not in _GRAY else "LA")
            lowest = image.getchannel("A").getextrema()[0]
            if lowest != 255:
                raise _UnsupportedImage(
                    f"an image must be opaque unless channels=4, got alpha down to {lowest}; pass channels=4, or paste "
                    "the images on a background."
                )
        natural = 1 if image.mode in _GRAY else 3
        return image.convert(_MODES[natural if self.channels is None else self.channels])


def _check_depth(image: Image.Image) -> None:
    """Refuses a file of more than 8 bits per channel; the decoded image no longer has this information."""
    for decoder, _, _, arguments in getattr(image, "tile", ()):
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        wide = [a for a in arguments if isinstance(a, str) and ";16" in a and a[:3] != "BGR"]  # a BMP has 5 + 6 + 5
        maxima = [a for a in arguments if isinstance(a, int) and a > 255 and decoder.startswith("ppm")]
        if wide or maxima:
            _raise_depth("16 bits")


def _raise_depth(got: str) -> NoReturn:
    raise _UnsupportedImage(
        f"an image must have 8 bits per channel, got {got}; write such data as integers into a .npy file and pass "
        "bins=."
    )


class _UnsupportedImage(ValueError):
    """A complete image that this decoder does not support."""


def _scale_and_crop(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scales to cover ``(height, width)`` and center-crops; an image of that size is returned unchanged."""
    if (image.width, image.height) == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = left, top, image.width - left, image.height - top
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
