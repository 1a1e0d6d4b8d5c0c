"""Images that are paired by name with those of another folder, such as a low-resolution version of each one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from scoresde.data.cache import cache_file, store
from scoresde.data.conditions.fit import check_name, condition_name
from scoresde.data.decode_image import IMAGE_SUFFIXES, ImageDecoder
from scoresde.data.parallel_decoding import decode_in_parallel

__all__ = ["check_equal_shapes", "file_identity", "paired_images"]

_SHOWN = 3


def paired_images(
    root: Path, paths: Sequence[Path], folders: Sequence[str], workers: int, cache: str | Path | None
) -> dict[str, Tensor]:
    """The partner of each image in each of other folders, ``(N, C, H, W)``, by the name of the folder.

    Args:
        root: Folder of the images.
        paths: The images in it, in their order.
        folders: The other folders. The partner of ``root/cats/1.png`` is ``folder/cats/1`` with any suffix.
        workers, cache: As in `load_images`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If an image has no partner, or several; the error names the first ones.
    """
    images: dict[str, Tensor] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder} of conditions; check the path, or its name.")
        name = condition_name(folder.resolve().name)
        check_name(name)
        if name in images:
            raise ValueError(f"folders of conditions must have different names, got {name!r} twice; rename one.")
        partners = _partners(root, paths, folder)
        decoder = ImageDecoder()
        identities = (decoder, *(file_identity(folder, path) for path in partners))
        file = cache_file(cache, f"{root.resolve().name}-{name}", identities) if cache else None
        images[name] = store(
            lambda: check_equal_shapes(decode_in_parallel(decoder, partners, workers), partners),  # noqa: B023
            len(partners),
            file,
        )
    return images


def _partners(root: Path, paths: Sequence[Path], folder: Path) -> list[Path]:
    """The partner of each image."""
    found: dict[str, list[Path]] = {}
    for parent, _, files in os.walk(folder):
        for path in (Path(parent, file) for file in files if Path(file).suffix.lower() in IMAGE_SUFFIXES):
            found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    keys = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    lacking = [key for key in keys if key not in found]
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise ValueError(
            f"every image needs its partner in {folder}, there is none for {', '.join(lacking[:_SHOWN])}{more} "
            f"({len(lacking)} of {len(keys)}); add them under the same names, or take the images without out of {root}."
        )
    if double := [key for key in keys if len(found[key]) > 1]:
        raise ValueError(
            f"every image needs one partner in {folder}, {double[0]} has "
            f"{', '.join(path.name for path in sorted(found[double[0]]))}; keep one of them."
        )
    return [found[key][0] for key in keys]


def check_equal_shapes(images: Iterator[np.ndarray], names: Sequence[object]) -> Iterator[np.ndarray]:
    """Yields the images unchanged as long as each has the shape of the first.

    Raises:
        ValueError: At the first image of another shape; the error names both.
    """
    shape: tuple[int, ...] = ()
    for image, name in zip(images, names):
        shape = shape or image.shape
        if image.shape != shape:
            raise ValueError(
                f"images must have equal shapes, got {_describe(shape)} ({names[0]}) and {_describe(image.shape)} "
                f"({name}); pass size={min(shape[1:])} to scale and crop them, channels=3 or 1 to make them RGB or "
                "gray."
            )
        yield image


def file_identity(root: Path, path: Path) -> tuple[str, int, int]:
    """Relative path, size and modification time: changes with the file, without reading it."""
    stat = path.stat()
    return path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns


def _describe(shape: tuple[int, ...]) -> str:
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(shape[0], f"{shape[0]} channels")
    return f"{kind} of height {shape[1]} and width {shape[2]}"
