"""Stored results of a comparison: ``results.json`` with every number of the report, ``arrays.npz`` with what it draws.

Both files appear only when complete. JSON has no NaN, so an unknown number is null.
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

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import write_npz
from scoresde._core.atomic import atomic_file

__all__ = ["FORMAT", "Results", "read_results", "write_results"]

FORMAT = {"format": "scoresde comparison", "version": 3}
"""The first entries of ``results.json``."""


@dataclass(frozen=True, eq=False)
class Results:
    """The results in a comparison's folder.

    Attributes:
        folder: The folder.
        content: The content of ``results.json``.
        arrays: Arrays by name.
    """

    folder: Path
    content: dict[str, Any]
    arrays: dict[str, np.ndarray]


def write_results(folder: Path, content: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes ``arrays.npz``, then ``results.json``.

    Args:
        folder: Created if it does not exist.
        content: JSON. NaN and infinities become null.
        arrays: Arrays of numbers by name.

    Returns:
        The path of ``results.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "arrays.npz") as path, path.open("wb") as file:
        write_npz(file, arrays)
    with atomic_file(folder / "results.json") as path:
        text = json.dumps(_finite({**FORMAT, **content}), indent=1, ensure_ascii=False, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder / "results.json"


def read_results(folder: str | os.PathLike[str]) -> Results:
    """Reads what `write_results` wrote.

    Args:
        folder: A comparison's folder.

    Raises:
        FileNotFoundError: If there are no results.
        ValueError: If the files are not those of a comparison, or have another format version.
    """
    check_arguments(read_results, locals())
    folder = Path(folder)
    path = folder / "results.json"
    if not path.is_file() or not (folder / "arrays.npz").is_file():
        raise FileNotFoundError(
            f"a comparison's folder holds results.json and arrays.npz, {folder} does not; make one: scoresde compare."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {name: content[name] for name in FORMAT} != FORMAT:
            raise ValueError(f"it has format {content['format']!r}, version {content['version']}, not {FORMAT}")
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be the results of a comparison, but {error}; run the comparison again."
        ) from error
    return Results(folder, content, arrays)


def _finite(value: Any) -> Any:
    """A JSON value with None in place of NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
