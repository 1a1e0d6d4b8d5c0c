"""The image files of a folder, by part: train and held out, with the class folder of each file."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from scoresde.data.decode_image import IMAGE_SUFFIXES

__all__ = ["ImageFile", "find_parts"]

_TRAIN = ("train", "training")
_HELD_OUT = ("test", "testing", "val", "valid", "validation", "dev", "eval", "evaluation")  # the first one is read


@dataclass(frozen=True)
class ImageFile:
    """Path of an image, and the name of its class folder ("" if it is in none)."""

    path: Path
    folder: str


@dataclass
class _Skipped:
    """What is not read: files by suffix, links to folders, and folders beside the parts."""

    suffixes: Counter[str] = field(default_factory=Counter)
    links: int = 0
    folders: dict[str, int] = field(default_factory=dict)

    def warn(self, root: Path) -> None:
        """One warning that counts everything that is not read."""
        said = [
            f"{_count(count, 'image', 'images')} in {name}/ (another part)"
            for name, count in self.folders.items()
            if count
        ]
        if self.suffixes:
            kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(self.suffixes.items()))
            total = _count(sum(self.suffixes.values()), "file of another kind", "files of other kinds")
            said.append(f"{total} ({kinds})")
        if self.links:
            said.append(_count(self.links, "link to a folder", "links to folders"))
        if said:
            warnings.warn(
                f"{root}: not read: {'; '.join(said)}. Images are files that end in {', '.join(IMAGE_SUFFIXES)}.",
                stacklevel=4,
            )


def _count(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def find_parts(root: Path) -> list[list[ImageFile]]:
    """The images of the train part and of the held-out part, or of the whole folder if it has no such parts.

    The train part is ``train`` or ``training``, the held-out part the first of ``test``, ``testing``, ``val``,
    ``valid``, ``validation``, ``dev``, ``eval`` and ``evaluation`` that holds images; in any case of letters.

    Args:
        root: The folder.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there are no images, there are two train parts, or held-out parts but no train part.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}; check the path (relative to {Path.cwd()}).")
    skipped = _Skipped()
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    train = [folder for folder in folders if folder.name.lower() in _TRAIN]
    held_out = sorted(
        (folder for folder in folders if folder.name.lower() in _HELD_OUT),
        key=lambda folder: _HELD_OUT.index(folder.name.lower()),
    )
    if held_out or (train and len(train) == len(folders)):
        parts = _parts(root, folders, train, held_out, skipped)
    else:
        parts = [_find_images(root, skipped)]
    if not parts[0]:
        raise ValueError(
            f"{(train or [root])[0] if len(parts) > 1 else root} must contain images, got none; their names end in "
            f"{', '.join(IMAGE_SUFFIXES)}."
        )
    skipped.warn(root)
    return parts


def _parts(
    root: Path, folders: list[Path], train: list[Path], held_out: list[Path], skipped: _Skipped
) -> list[list[ImageFile]]:
    """Train images, and the images of the first held-out folder that has any."""
    names = ", ".join(folder.name for folder in (*train, *held_out))
    if not train:
        if not any(_find_images(folder, _Skipped()) for folder in held_out):
            return [_find_images(root, skipped)]
        raise ValueError(
            f"held-out images need a folder train beside them, {root} has {names} and no train; put the others into "
            "train/, or rename the folder if it is a class."
        )
    if len(train) > 1:
        raise ValueError(f"there must be one train part, {root} has {names}; keep one of them, or rename the other.")
    images, part = _find_images(train[0], skipped), None
    for folder in held_out:
        if part is None:
            part = _find_images(folder, skipped) or None
        else:
            skipped.folders[folder.name] = len(_find_images(folder, _Skipped()))
    for folder in folders:
        if folder not in (*train, *held_out):
            skipped.folders[folder.name] = len(_find_images(folder, _Skipped()))
    loose = _find_images(root, skipped, recursive=False)
    if loose:
        skipped.folders["."] = len(loose)
    return [images] if not held_out else [images, part or []]


def _find_images(folder: Path, skipped: _Skipped, recursive: bool = True) -> list[ImageFile]:
    """Images below a folder, sorted by path; files and folders whose name begins with a dot do not count."""
    names = []
    for parent, subfolders, files in os.walk(folder):
        here = Path(parent)
        subfolders[:] = [name for name in subfolders if recursive and not name.startswith(".")]
        skipped.links += sum((here / name).is_symlink() for name in subfolders)
        for name in (here / file for file in files if not file.startswith(".")):
            if name.suffix.lower() in IMAGE_SUFFIXES:
                names.append(name.relative_to(folder).as_posix())
            else:
                skipped.suffixes[name.suffix.lower() or "without suffix"] += 1
    return [ImageFile(folder / name, name.partition("/")[0] if "/" in name else "") for name in sorted(names)]
