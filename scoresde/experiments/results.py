"""How are results kept? `results.json` says everything that a report says; `arrays.npz` holds what it draws.

Both are written whole or not at all. JSON has no NaN: an unknown number is null.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scoresde._core.atomic import atomic_file

__all__ = [
    "FORMAT",
    "Results",
    "read",
    "write",
]

FORMAT = {"format": "scoresde comparison", "version": 1}
"""What `results.json` begins with."""


@dataclass(frozen=True, eq=False)
class Results:
    """What a comparison's folder holds.

    Attributes:
        folder: Where it is.
        said: The content of ``results.json``.
        arrays: Name -> array.
    """

    folder: Path
    said: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write(folder: Path, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes ``arrays.npz``, then ``results.json``.

    Args:
        folder: Where to; made where it is missing.
        said: JSON, and NaN or infinities, which become null.
        arrays: Name -> array of numbers.

    Returns:
        The path of ``results.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "arrays.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    with atomic_file(folder / "results.json") as path:
        text = json.dumps(_plain({**FORMAT, **said}), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder / "results.json"


def read(folder: str | os.PathLike[str]) -> Results:
    """Reads what `write` wrote.

    Args:
        folder: A comparison's folder.

    Raises:
        FileNotFoundError: If there are no results.
        ValueError: If they are not a comparison's, or of a newer format.
    """
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file() or not (folder / "arrays.npz").is_file():
        raise FileNotFoundError(
            f"a comparison's folder holds results.json and arrays.npz, {folder} does not; make one: scoresde compare."
        )
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT["format"] or said["version"] > FORMAT["version"]:
            raise ValueError(f"it is of format {said['format']!r}, version {said['version']}, this reads {FORMAT}")
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} must be the results of a comparison, but {error}; make them anew.") from error
    return Results(folder, said, arrays)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
