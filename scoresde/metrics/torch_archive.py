r"""How are tensors read from a file of ``torch.save`` without unpickling it?

Such a file is a pickle, a program whose opcodes may call anything, beside the raw values. Here the opcodes are only
listed (``pickletools``), and a small machine of our own follows those that a dictionary of tensors needs. A name is
never looked up: four stand for a dictionary or a tensor, the storages for a type, and any other is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_tensors"]

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of files before torch 1.6
_DTYPES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
    "torch ByteStorage": np.dtype("u1"),
}
_DICTIONARY, _TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: np.dtype[Any]
    key: str


@dataclass(frozen=True)
class _Strided:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Reads a dictionary of tensors as ``torch.save`` wrote it, before torch 1.6 or since, and executes nothing of it.

    Args:
        path: The file, of little-endian values.

    Returns:
        Name to tensor on the CPU, of the types float16, float32, float64, int32, int64 and uint8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds anything but such a dictionary, or is damaged.
    """
    path = Path(path)
    try:
        found, values = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}")
        return {_text(name): _tensor(value, values) for name, value in found.items()}
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a dictionary of tensors as torch.save writes it, got: {error}. Nothing else of a pickle "
            "is read, as it could run code; fetch the file again, or convert it to safetensors where you trust it."
        ) from error


def _read_zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed entries")
        (listing,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = listing.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("values that are not little-endian")
        files = (name for name in archive.namelist() if name.startswith(root + "data/"))
        values = {name.removeprefix(root + "data/"): archive.read(name) for name in files}
        return _follow(io.BytesIO(archive.read(listing))), values


def _read_stream(path: Path) -> tuple[Any, dict[str, bytes]]:
    with path.open("rb") as file:
        if (_follow(file), _follow(file)) != (_MAGIC, _PROTOCOL) or _follow(file)["little_endian"] is not True:
            raise ValueError("another format, or values that are not little-endian")
        storages: dict[str, _Storage] = {}
        found = _follow(file, storages)
        values = {}
        for key in _follow(file):
            (count,) = struct.unpack("<q", file.read(8))
            values[key] = file.read(max(0, count) * storages[key].dtype.itemsize)
        return found, values


def _follow(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    """What the next pickle of a file describes: numbers, text, containers, names that nobody looked up, and tensors."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(file):
        name = opcode.name
        if name == "STOP":
            return stack.pop()
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[_number(argument)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[_number(argument)])
        elif name == "BINPERSID":
            stack.append(_storage(stack.pop(), storages))
        elif name != "PROTO":
            _step(name, argument, stack)
    raise ValueError("a pickle without an end")


def _step(name: str, argument: Any, stack: list[Any]) -> None:
    if name in ("BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"):
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name == "MARK":
        stack.append(_MARK)
    elif name == "GLOBAL":
        stack.append(_Name(argument))
    elif name == "TUPLE":
        stack.append(tuple(_since_mark(stack)))
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        stack[-1].extend(items)
    elif name in ("SETITEM", "SETITEMS"):
        items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
        stack[-1].update(zip(items[::2], items[1::2]))
    elif name == "BUILD":  # the attributes of a dictionary: versions of its modules
        stack.pop()
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append(_made(stack.pop(), arguments))
    else:
        raise ValueError(f"the pickle opcode {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _made(name: Any, arguments: tuple[Any, ...]) -> Any:
    if name == _Name(_DICTIONARY) and arguments == ():
        return {}
    if name == _Name(_TENSOR):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, _Storage) and len(shape) == len(strides):
            return _Strided(storage, _number(offset), tuple(map(_number, shape)), tuple(map(_number, strides)))
    raise ValueError(f"a call of {name.text if isinstance(name, _Name) else name!r}")


def _storage(described: Any, storages: dict[str, _Storage] | None) -> _Storage:
    kind, dtype, key = described[:3]
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.text not in _DTYPES:
        raise ValueError(f"values of the kind {described[:2]!r}")
    made = _Storage(_DTYPES[dtype.text], _text(key))
    return made if storages is None else storages.setdefault(made.key, made)


def _tensor(value: Any, values: dict[str, bytes]) -> Tensor:
    if not isinstance(value, _Strided):
        raise ValueError(f"an entry that is a {type(value).__name__}")
    flat = np.frombuffer(values[value.storage.key], value.storage.dtype)
    reach = value.offset + sum(stride * (size - 1) for stride, size in zip(value.strides, value.shape))
    if math.prod(value.shape) > len(flat) or (math.prod(value.shape) > 0 and reach >= len(flat)):
        raise ValueError(f"a tensor of shape {value.shape} up to value {reach} of {len(flat)}")
    return torch.tensor(flat).as_strided(value.shape, value.strides, value.offset).clone()


def _number(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} where a number >= 0 must stand")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} where a name must stand")
    return value
