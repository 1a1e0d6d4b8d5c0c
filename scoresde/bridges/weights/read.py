"""`read_weights`: tensors by name from a file in one of the formats of weights.

=====================================  ======================================================================
``.safetensors``                       read directly
``….index.json``                       each file that it names, all in its own folder
``.pt``, ``.pth``, ``.ckpt``, ``.bin``  torch's weights-only loader, in a process with limits
``.pkl`` and all others                refused, with the way out
=====================================  ======================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.bridges.weights.files import check_file
from scoresde.bridges.weights.safetensors_files import read_index, read_safetensors, safetensors_header
from scoresde.bridges.weights.torch_files import EXPORT, Value, read_torch_file

__all__ = ["Source", "WeightFile", "convert_weights", "read_weight_file", "read_weights"]

_TORCH_ENDINGS = (".pt", ".pth", ".ckpt", ".bin")


@dataclass(frozen=True, eq=False)
class WeightFile:
    """Content of a file of weights.

    Entries of nested dictionaries and lists are joined by dots: ``"ema.shadow_params.0"``.

    Attributes:
        path: The file.
        tensors: Tensors by name, on the CPU.
        values: Numbers, texts and None by name, such as ``"step"``.
        skipped: Names of entries of another kind, e.g. a dtype, which were not read.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    values: Mapping[str, Value] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()


Source = str | os.PathLike[str] | WeightFile
"""A path, or the content of a file that was read before."""


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Tensors by name; the names of nested dictionaries are joined by dots.

    Args:
        path: A file, see the table above.

    Returns:
        The tensors, on the CPU, in the types of the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused: another format, code, a link out of its folder, more than the limits, or
            damage. Nothing that it holds is executed.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from safetensors.torch import save_file
        >>> from scoresde.bridges.weights import read_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_file({"weight": torch.ones(2)}, Path(folder) / "model.safetensors")
        ...     read_weights(Path(folder) / "model.safetensors")
        {'weight': tensor([1., 1.])}
    """
    check_arguments(read_weights, locals())
    return dict(read_weight_file(path).tensors)


def read_weight_file(path: Source) -> WeightFile:
    """Tensors, and the numbers and texts beside them, by name.

    Args:
        path: As in `read_weights`; the content of a file is returned as it is.

    Raises:
        FileNotFoundError, ValueError: As `read_weights`.
    """
    check_arguments(read_weight_file, locals())
    if isinstance(path, WeightFile):
        return path
    path = Path(path)
    name = path.name.lower()
    if name.endswith(".safetensors"):
        return WeightFile(path, read_safetensors(path), _metadata(path))
    if name.endswith(".index.json"):
        return WeightFile(path, _read_shards(path))
    if name.endswith(_TORCH_ENDINGS):
        return WeightFile(path, *read_torch_file(path))
    if not path.is_dir():
        check_file(path)
    kind = "a directory" if path.is_dir() else f"{path.suffix or 'no ending'}"
    remedy = EXPORT if name.endswith((".pkl", ".pickle", ".joblib")) else "pass one of these files"
    raise ValueError(
        f"{path} must end in .safetensors, .index.json, {', '.join(_TORCH_ENDINGS)}, got {kind}; it was not opened, "
        f"since other formats can hold code. {remedy}."
    )


def convert_weights(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> None:
    """Writes the tensors of a file of weights as safetensors.

    Args:
        path: As in `read_weights`.
        out: The new file, which must not exist.

    Raises:
        FileExistsError: If ``out`` exists.
        FileNotFoundError, ValueError: As `read_weights`.
    """
    check_arguments(convert_weights, locals())
    if Path(out).exists():
        raise FileExistsError(f"out must be a new file, got {out}, which exists; choose another name.")
    save_file({name: tensor.clone().contiguous() for name, tensor in read_weights(path).items()}, Path(out))


def _metadata(path: Path) -> dict[str, Value]:
    """The texts beside the tensors of a safetensors file."""
    entries = safetensors_header(path).get("__metadata__", {})
    return {str(name): str(text) for name, text in entries.items()} if isinstance(entries, dict) else {}


def _read_shards(path: Path) -> dict[str, Tensor]:
    index = read_index(path)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(index.values())):
        content = read_weight_file(path.parent / shard).tensors if not shard.endswith(".json") else {}
        wanted = {name for name, file in index.items() if file == shard}
        if missing := sorted(wanted - set(content)):
            raise ValueError(f"{shard} must hold the tensors that {path} names, it lacks {', '.join(missing[:8])}.")
        tensors.update({name: content[name] for name in wanted})
    return {name: tensors[name] for name in index}
