"""How does a folder of pictures become data? Each is decoded once, in the order of the split, to ``uint8``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data.cache import cache_file, store
from scoresde.data.dataset import Data, split
from scoresde.data.decode import decoded
from scoresde.data.decode_image import SUFFIXES, ImageDecoder
from scoresde.data.description import Description

__all__ = ["alike", "load_images"]

_PARTS = ("train", "test")


def load_images(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    labels: bool = True,
    workers: int = 0,
    cache: str | Path | None = None,
) -> Data:
    """Reads a folder of pictures and all folders in it: ``(C, H, W)``, 256 levels.

    Taken are the files that end in `SUFFIXES`, sorted by their path (names that begin with a dot are not looked at,
    links to folders not followed). Where the folder holds ``train`` and ``test``, they are the two parts. Pictures in
    folders are labeled with the outermost one: ``cats/1.png`` and ``cats/old/2.png`` are ``cats``.

    Args:
        path: The folder.
        seed, test_fraction: The split of pictures that do not come split.
        size, channels: As in `Picture`. Without them all pictures must be alike.
        labels: Whether folders are classes.
        workers: Processes that decode; 0 decodes in this one. The result does not depend on it.
        cache: A folder for the decoded levels, for data larger than memory: made once, in a file whose name tells
            which pictures and options it is made of (another split, another file), and mapped into memory ever
            after. Before several processes train, let one load the data. None decodes into memory at each call.

    Returns:
        Data in data units, ``uint8``.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is no picture, one is broken, has too many bits or transparency, they are not alike, or
            some are in folders and some are not; the file is named.
        OSError: If ``cache`` cannot be written.
    """
    root, picture = Path(path), ImageDecoder(size, channels)
    parts = _parts(root)
    if len(parts) == 1:
        parts = _divided(parts[0], *split(len(parts[0]), test_fraction, seed))
    cut, files = len(parts[0]), [*parts[0], *parts[1]]
    train_labels, test_labels, names = _labels(parts, files) if labels else (None, None, None)
    paths = [file.path for file in files]
    events = store(
        lambda: alike(decoded(picture, paths, workers), paths),
        len(files),
        cache_file(cache, root.resolve().name, (picture, *(_identity(root, path) for path in paths)))
        if cache
        else None,
    )
    about = Description(root.resolve().name, tuple(events.shape[1:]), bins=256, labels=names)
    return Data(events[:cut], events[cut:], about, train_labels, test_labels)


def alike(events: Iterator[np.ndarray], names: Sequence[object]) -> Iterator[np.ndarray]:
    """The same pictures one by one, as long as each is shaped like the first.

    Raises:
        ValueError: At the first that is not; both are named.
    """
    first: tuple[int, ...] = ()
    for event, name in zip(events, names):
        first = first or event.shape
        if event.shape != first:
            raise ValueError(
                f"pictures must be alike, got {_told(first)} ({names[0]}) and {_told(event.shape)} ({name}); pass "
                f"size={min(first[1:])} to scale and cut them, channels=3 or 1 to make them RGB or gray."
            )
        yield event


@dataclass(frozen=True)
class _File:
    """A picture's path, and the outermost folder of its part that it is in ("" if in none)."""

    path: Path
    folder: str


def _parts(root: Path) -> list[list[_File]]:
    """The pictures of ``train`` and of ``test`` where there are both, else of the whole folder."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; check the path (here: {Path.cwd()}).")
    folders = [root / part for part in _PARTS]
    folders = folders if all(folder.is_dir() for folder in folders) else [root]
    parts = [_pictures(folder) for folder in folders]
    if not parts[0]:
        raise ValueError(f"{folders[0]} must hold pictures, got none; their names end in {', '.join(SUFFIXES)}.")
    return parts


def _pictures(folder: Path) -> list[_File]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))
    return [_File(folder / name, name.partition("/")[0] if "/" in name else "") for name in names]


def _divided(files: list[_File], *parts: Tensor | slice) -> list[list[_File]]:
    return [[files[i] for i in torch.arange(len(files))[part].tolist()] for part in parts]


def _labels(
    parts: list[list[_File]], files: list[_File]
) -> tuple[Tensor | None, Tensor | None, tuple[str, ...] | None]:
    """Labels of both parts and the names of the classes, sorted; None where no picture is in a folder."""
    names = sorted({file.folder for file in files})
    if names == [""]:
        return None, None, None
    if "" in names:
        alone = next(file.path for file in files if not file.folder)
        raise ValueError(f"every picture or none is in a folder of its class, {alone} is in none; pass labels=False.")
    train, test = (torch.tensor([names.index(file.folder) for file in part], dtype=torch.int64) for part in parts)
    return train, test, tuple(names)


def _identity(root: Path, path: Path) -> tuple[str, int, int]:
    """What tells a file from what it was, without reading it."""
    stat = path.stat()
    return path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns


def _told(shape: tuple[int, ...]) -> str:
    kind = {1: "gray", 3: "RGB", 4: "RGBA"}.get(shape[0], f"{shape[0]} channels")
    return f"{kind} {shape[1]} high and {shape[2]} wide"
