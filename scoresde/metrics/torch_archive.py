r"""Reader of ``torch.save`` files that does not unpickle them.

Such a file holds raw values and a pickle, a program whose opcodes can call any function. This reader only lists the
opcodes (``pickletools``) and interprets those that a dictionary of tensors needs. It never looks up a name: one name
stands for a dictionary, one for a tensor, the storages for a dtype, and every other name is refused.
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

from scoresde._core.annotations import check_arguments

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
    """Reads a dictionary of tensors in either format of ``torch.save`` (before torch 1.6, and since); executes no code.

    Args:
        path: The file; its values must be little-endian.

    Returns:
        Name to tensor on the CPU; dtypes are float16, float32, float64, int32, int64 and uint8.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file does not hold such a dictionary, or is damaged.
    """
    check_arguments(read_tensors, locals())
    path = Path(path)
    try:
        entries, storages = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
        if not isinstance(entries, dict):
            raise ValueError(f"it holds a {type(entries).__name__}")
        return {_text(name): _tensor(value, storages) for name, value in entries.items()}
    except (ValueError, LookupError, TypeError, AttributeError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a dictionary of tensors as torch.save writes it, got: {error}. Nothing else of a pickle "
            "is read, as it could run code; download the file again, or convert it to safetensors if you trust it."
        ) from error


def _read_zip(path: Path) -> tuple[Any, dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise ValueError("compressed entries")
        (pickle_name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        root = pickle_name.removesuffix("data.pkl")
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ValueError("values that are not little-endian")
        files = (name for name in archive.namelist() if name.startswith(root + "data/"))
        values = {name.removeprefix(root + "data/"): archive.read(name) for name in files}
        return _interpret(io.BytesIO(archive.read(pickle_name))), values


def _read_stream(path: Path) -> tuple[Any, dict[str, bytes]]:
    with path.open("rb") as file:
        if (_interpret(file), _interpret(file)) != (_MAGIC, _PROTOCOL) or _interpret(file)["little_endian"] is not True:
            raise ValueError("another format, or values that are not little-endian")
        storages: dict[str, _Storage] = {}
        entries = _interpret(file, storages)
        values = {}
        for key in _interpret(file):
            (count,) = struct.unpack("<q", file.read(8))
            values[key] = file.read(max(0, count) * storages[key].dtype.itemsize)
        return entries, values


def _interpret(file: IO[bytes], storages: dict[str, _Storage] | None = None) -> Any:
    """Content of the next pickle of a file: numbers, text, containers, unresolved names, and tensors."""
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
    elif name == "BUILD":  # attributes of the dictionary (module versions) are dropped
        stack.pop()
    elif name == "REDUCE":
        arguments = stack.pop()
        stack.append(_construct(stack.pop(), arguments))
    else:
        raise ValueError(f"the pickle opcode {name}")


def _since_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not _MARK:
        items.append(item)
    return items[::-1]


def _construct(name: Any, arguments: tuple[Any, ...]) -> Any:
    if name == _Name(_DICTIONARY) and arguments == ():
        return {}
    if name == _Name(_TENSOR):
        storage, offset, shape, strides = arguments[:4]
        if isinstance(storage, _Storage) and len(shape) == len(strides):
            return _Strided(storage, _number(offset), tuple(map(_number, shape)), tuple(map(_number, strides)))
    raise ValueError(f"a call of {name.text if isinstance(name, _Name) else name!r}")


def _storage(persistent_id: Any, storages: dict[str, _Storage] | None) -> _Storage:
    kind, dtype, key = persistent_id[:3]
    if kind != "storage" or not isinstance(dtype, _Name) or dtype.text not in _DTYPES:
        raise ValueError(f"values of the kind {persistent_id[:2]!r}")
    storage = _Storage(_DTYPES[dtype.text], _text(key))
    return storage if storages is None else storages.setdefault(storage.key, storage)


def _tensor(value: Any, values: dict[str, bytes]) -> Tensor:
    if not isinstance(value, _Strided):
        raise ValueError(f"an entry that is a {type(value).__name__}")
    flat = np.frombuffer(values[value.storage.key], value.storage.dtype)
    last = value.offset + sum(stride * (size - 1) for stride, size in zip(value.strides, value.shape))
    if math.prod(value.shape) > len(flat) or (math.prod(value.shape) > 0 and last >= len(flat)):
        raise ValueError(f"a tensor of shape {value.shape} up to value {last} of {len(flat)}")
    return torch.tensor(flat).as_strided(value.shape, value.strides, value.offset).clone()


def _number(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} in place of a number >= 0")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} in place of a name")
    return value
