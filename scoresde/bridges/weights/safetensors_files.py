"""``.safetensors`` files and the JSON index of sharded ones.

Such a file is an 8-byte length, a JSON header of that length with type, shape and place of every tensor, and their
values. It holds no code and its tensors cannot be larger than the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from scoresde.bridges.weights.files import check_file, parse_json, read_json

__all__ = ["read_index", "read_safetensors", "safetensors_header"]

_HEADER_LIMIT = 32 << 20  # bytes; 1e5 tensors have some 1e7


def read_safetensors(path: Path, within: Path | None = None) -> dict[str, Tensor]:
    """Tensors by name.

    Args:
        path: The file.
        within: The folder in which it must lie.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a file.
    """
    safetensors_header(path, within)
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, TypeError, OSError) as error:
        raise ValueError(
            f"{path} must be a whole safetensors file, got: {error}. Nothing was read; download it again."
        ) from error


def safetensors_header(path: Path, within: Path | None = None) -> dict[str, Any]:
    """The JSON header: entries ``dtype``, ``shape``, ``data_offsets`` by name, and ``__metadata__``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not begin with such a header.
    """
    size = check_file(path, within)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or not 2 <= length <= min(size - 8, _HEADER_LIMIT):
            raise ValueError(
                f"{path} must begin with the length of a safetensors header, at most {_HEADER_LIMIT} bytes and inside "
                f"the file, got {length} in a file of {size} bytes; it is another format, or damaged."
            )
        return parse_json(file.read(length), f"the header of {path}")


def read_index(path: Path) -> dict[str, str]:
    """File of each tensor, from an index such as ``diffusion_pytorch_model.safetensors.index.json``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not an index, or names a file outside its folder or that is not there.
    """
    entries = read_json(path).get("weight_map")
    if not isinstance(entries, dict) or not entries or not all(isinstance(name, str) for name in entries.values()):
        raise ValueError(
            f"{path} must have an object `weight_map` from tensors to files, got {type(entries).__name__}."
        )
    for name in sorted(set(entries.values())):
        if not name or any(mark in name for mark in "/\\\0:") or name in (".", ".."):
            raise ValueError(
                f"{path} must name files of its own folder, got {name[:80]!r}, a path; nothing was opened. An index "
                "that leads elsewhere was not written by a training code: do not trust the folder."
            )
        check_file(path.parent / name)
    return entries
