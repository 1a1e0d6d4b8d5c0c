"""Data from a folder of images: each image is decoded once, in the order of the split, to ``uint8`` ``(C, H, W)``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.data.binary_images import binarized
from scoresde.data.cache import cache_file, store
from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.parts import label_kind
from scoresde.data.dataset import Data
from scoresde.data.decode_image import ImageDecoder
from scoresde.data.description import Description
from scoresde.data.image_files import ImageFile, find_parts
from scoresde.data.paired_images import check_equal_shapes, file_identity, paired_images
from scoresde.data.parallel_decoding import decode_in_parallel
from scoresde.data.split import split
from scoresde.data.tables.column_names import several_names

__all__ = ["load_images"]


def load_images(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    labels: bool = True,
    condition: str | Sequence[str] | None = None,
    workers: int = 0,
    cache: str | Path | None = None,
    binarize: float | str | None = None,
) -> Data:
    """Reads all images in a folder and its subfolders: ``(C, H, W)``, integer values 0 ... 255, or bits.

    Images are the files with a suffix in `IMAGE_SUFFIXES`, sorted by path. Names that begin with a dot are ignored and
    links to folders are not followed; one warning counts all other files. The label of an image is its outermost
    folder: ``cats/1.png`` and ``cats/old/2.png`` are ``cats``.

    A folder ``train`` beside ``test`` or ``val`` is the train part, and the other one the test part, in upper or lower
    case. Such names are never classes; `find_parts` lists them. Only one held-out part is read: test, else val, else
    dev, else eval. The others are left out, and a warning says so.

    Args:
        path: The folder.
        seed, test_fraction: The split of images that have no folders for their parts.
        size, channels: As in `ImageDecoder`. Without them all images must have the same shape.
        labels: Whether folders are classes.
        condition: A second folder of images, or several: one image per event, with the same path within its folder up
            to the suffix, of any size. The condition has the name of its folder, such as ``low_res``.
        workers: Number of decoding processes; 0 decodes in this one. The result does not depend on it.
        cache: A folder for the decoded values, for data larger than memory. They are written once and memory-mapped
            from then on. The file name depends on the images, the options and the split. Before several processes
            train, load the data in one of them. None decodes into memory in each call.
        binarize: Makes bits, two classes, of the values: 1 where a value is above this fraction of the largest one
            possible, such as 0.5. ``"random"`` draws each bit once, from ``seed``, with the value over the largest one
            as the probability of a 1. None keeps the values. Bits are in memory, also with ``cache``.

    Returns:
        Data in data units, ``uint8``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no image, one is damaged, has too many bits or transparency, their shapes differ, or
            only some are in subfolders; the error names the file. If an image has no partner in ``condition``. If
            folders of parts are beside folders of classes, or
            two of them are the train part.
        OSError: If ``cache`` cannot be written.
    """
    check_arguments(load_images, {key: value for key, value in locals().items() if key != "size"})
    root, decoder = Path(path), ImageDecoder(size, channels)
    parts = find_parts(root)
    if len(parts) == 1:
        parts = _split_files(parts[0], *split(len(parts[0]), test_fraction, seed))
    train_count, files = len(parts[0]), [*parts[0], *parts[1]]
    labeled, names = _labels(parts, files) if labels else (({}, {}), None)
    paths = [file.path for file in files]
    folders = [name for name in several_names("condition", condition) or () if name != LABEL]
    pairs = paired_images(root, paths, folders, workers, cache)
    train_cond, test_cond = (
        {**part, **{n: values[rows] for n, values in pairs.items()}}
        for part, rows in zip(labeled, (slice(train_count), slice(train_count, None)), strict=True)
    )
    name = root.resolve().name
    file = cache_file(cache, name, (decoder, *(file_identity(root, path) for path in paths))) if cache else None
    events = store(lambda: check_equal_shapes(decode_in_parallel(decoder, paths, workers), paths), len(files), file)
    description = Description(name, tuple(events.shape[1:]), bins=256, conditions=label_kind(names))
    data = Data(events[:train_count], events[train_count:], description, train_cond, test_cond)
    return binarized(data, binarize, seed)


def _split_files(files: list[ImageFile], *indices: Tensor | slice) -> list[list[ImageFile]]:
    return [[files[i] for i in torch.arange(len(files))[index].tolist()] for index in indices]


def _labels(
    parts: list[list[ImageFile]], files: list[ImageFile]
) -> tuple[tuple[dict[str, Tensor], dict[str, Tensor]], tuple[str, ...] | None]:
    """Labels of both parts and the names of the classes, sorted; none if no image is in a class folder."""
    names = sorted({file.folder for file in files})
    if names == [""]:
        return ({}, {}), None
    if "" in names:
        outside = next(file.path for file in files if not file.folder)
        raise ValueError(
            f"all images must be in class folders, or none of them, {outside} is in none; pass labels=False."
        )
    train, test = (torch.tensor([names.index(file.folder) for file in part], dtype=torch.int64) for part in parts)
    return ({LABEL: train}, {LABEL: test}), tuple(names)
