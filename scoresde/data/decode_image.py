"""How does one picture become levels? Decoded by Pillow to ``uint8`` of ``(C, H, W)``; nothing is lost unsaid."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image, ImageOps

__all__ = ["SUFFIXES", "ImageDecoder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
"""Names of picture files end so, in either case."""

_GRAY, _COLOR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_BROKEN = (OSError, SyntaxError, EOFError, ValueError, struct.error, zlib.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class ImageDecoder:
    """How pictures are read: ``picture(path)`` and ``picture.levels(image)`` answer with levels ``(C, H, W)``.

    Turned upright where the camera says so (EXIF). Gray becomes color by repetition, color gray by ITU-R 601 luma.

    Args:
        size: Height and width; one number is both. A picture of another size is scaled until it covers them (Lanczos,
            antialiased) and its center is cut out. ``None`` keeps each as it is.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA). ``None`` keeps gray gray and color RGB.

    Raises:
        ValueError: If ``size`` or ``channels`` is out of its domain.
    """

    size: int | tuple[int, int] | None = None
    channels: int | None = None

    def __post_init__(self) -> None:
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if size is not None and (len(size) != 2 or not all(isinstance(n, int) and n >= 1 for n in size)):
            raise ValueError(f"size must be a whole number >= 1, or (height, width), got {self.size!r}; 64 is usual.")
        if self.channels not in (None, *_MODES):
            raise ValueError(f"channels must be 1 (gray), 3 (RGB), 4 (RGBA) or None, got {self.channels!r}.")
        object.__setattr__(self, "size", None if size is None else tuple(size))

    def __call__(self, path: str | Path) -> np.ndarray:
        """Levels of a file, ``(C, H, W)`` of ``uint8``.

        Raises:
            FileNotFoundError, PermissionError: As the system says.
            ValueError: If it is no whole picture, or as `levels` does; the file is named.
        """
        try:
            with Image.open(path) as image:
                _check_depth(image)
                image.load()
                return self.levels(image)
        except (FileNotFoundError, PermissionError):
            raise
        except _Refused as error:
            raise ValueError(f"{path}: {error}") from None
        except _BROKEN as error:
            raise ValueError(f"{path} must be a whole picture, got: {error}; replace it or take it away.") from error

    def levels(self, image: Image.Image) -> np.ndarray:
        """Levels of a decoded picture, ``(C, H, W)`` of ``uint8``.

        Of a file in color of more than 8 bits Pillow keeps 8 when it decodes it; that only the call on a path sees.

        Raises:
            ValueError: If it has several frames, more than 8 bits per channel, or transparency that would be lost.
        """
        if getattr(image, "n_frames", 1) > 1:
            raise _Refused(f"a picture has one frame, got {getattr(image, 'n_frames', 1)}; save the frames one by one.")
        image = self._converted(ImageOps.exif_transpose(image))
        if isinstance(self.size, tuple):
            image = _fitted(image, *self.size)
        levels = np.asarray(image)
        return np.ascontiguousarray(levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1))

    def _converted(self, image: Image.Image) -> Image.Image:
        if image.mode not in (*_GRAY, *_COLOR):
            _refuse_depth(f"mode {image.mode}")
        if self.channels == 4:
            return image.convert("RGBA")
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            image = image.convert("RGBA" if image.mode not in _GRAY else "LA")
            lowest = image.getchannel("A").getextrema()[0]
            if lowest != 255:
                raise _Refused(
                    f"transparency is not dropped unsaid, got alpha down to {lowest}; pass channels=4, or paste the "
                    "pictures on a background."
                )
        natural = 1 if image.mode in _GRAY else 3
        return image.convert(_MODES[natural if self.channels is None else self.channels])


def _check_depth(image: Image.Image) -> None:
    """Refuses a file of more than 8 bits, of which a decoded picture in color knows nothing."""
    for decoder, _, _, said in getattr(image, "tile", ()):
        args = said if isinstance(said, tuple) else (said,)
        wide = [a for a in args if isinstance(a, str) and ";16" in a and a[:3] != "BGR"]  # a BMP has 5 + 6 + 5
        most = [a for a in args if isinstance(a, int) and a > 255 and decoder.startswith("ppm")]
        if wide or most:
            _refuse_depth("16 bits")


def _refuse_depth(got: str) -> NoReturn:
    raise _Refused(
        f"a picture has 8 bits per channel, got {got}; write such data as integers into a .npy file and state bins=."
    )


class _Refused(ValueError):
    """A whole picture that breaks a rule of ours."""


def _fitted(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled to cover ``(height, width)`` and cut about its center; a picture of that size is left as it is."""
    if (image.width, image.height) == (width, height):
        return image
    scale = min(image.width / width, image.height / height)
    left, top = (image.width - scale * width) / 2, (image.height - scale * height) / 2
    box = left, top, image.width - left, image.height - top
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)
