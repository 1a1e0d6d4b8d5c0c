"""IDX files, the format of MNIST: a big-endian header, then the values.

The header has two zero bytes, one byte for the type, one for the number of axes, and four bytes per axis size.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from scoresde._core.annotations import check_arguments

__all__ = ["read_idx"]

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file, gzipped or not (recognized by its first bytes, not by its name).

    Args:
        path: The file.

    Returns:
        A writable array of the header's shape in native byte order.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not an IDX file, or is truncated or too long.

    Source: LeCun, Cortes & Burges, "The MNIST database", section on file formats.
    """
    check_arguments(read_idx, locals())
    raw = _read_bytes(Path(path))
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES:
        raise ValueError(f"an IDX file starts with 0, 0, type, axes; {path} starts with {raw[:4].hex(' ')}: not IDX.")
    dtype, start = np.dtype(_TYPES[raw[2]]), 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"the header of {path} must have {start} bytes, got {len(raw)}; download the file again.")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    expected = start + math.prod(shape) * dtype.itemsize
    if len(raw) != expected:
        raise ValueError(
            f"{path} of shape {shape} must have {expected} bytes, got {len(raw)}; download the file again."
        )
    values = np.frombuffer(raw, dtype, offset=start).reshape(shape)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _read_bytes(path: Path) -> bytearray:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            return bytearray(gzip.GzipFile(fileobj=file).read() if is_gzip else file.read())
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path} must be a complete gzip file, got: {error}; download the file again.") from error
