"""Script of the process in which `torch_files` reads a ``torch.save`` file: ``_convert.py FILE FOLDER SETTINGS``.

It writes the tensors to ``FOLDER/weights.safetensors``, the other values to the header of that file, or the reason of a
refusal to ``FOLDER/answer.json``. It limits itself before it looks at the file, and again after it has imported torch.
Before torch reads a pickle, its opcodes are listed, which executes nothing, and compared with shorter lists of opcodes
and names than those of torch's weights-only loader.
"""

from __future__ import annotations

import contextlib
import json
import math
import pickletools
import re
import sys
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_ENTRIES, _DEPTH, _TEXT = 500_000, 24, 4 << 20
_MARGIN = 512 << 20  # bytes of memory beyond what the file determines
_NAMES = re.compile(  # tensors in memory, containers, types: no sparse, quantized, nested, meta or wrapped tensors
    r"torch \w+Storage|torch\.storage \w+Storage|torch (Size|device|Tensor)"
    r"|torch (b?float\w+|u?int\d+|bool|complex\d+|half|double)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.nn\.parameter Parameter|collections (OrderedDict|Counter)|_codecs encode"
    r"|(builtins|__builtin__) (set|bytearray|complex)"
)
_OPCODES = re.compile(
    "PROTO|STOP|MARK|GLOBAL|REDUCE|BUILD|NEWOBJ|BINPERSID|NONE|NEWTRUE|NEWFALSE|BININT[12]?|LONG1|BINFLOAT|BINUNICODE"
    "|SHORT_BINSTRING|EMPTY_(TUPLE|LIST|DICT|SET)|TUPLE[123]?|APPENDS?|SETITEMS?|(LONG_)?BIN(GET|PUT)|MEMOIZE|FRAME"
)


class _RefusedError(Exception):
    pass


def _limit(size: int, seconds: int, written: int, expansion: int) -> None:
    """Limits of the system, where it has them: memory beyond what is now in use, time, files, core dumps."""
    try:
        import resource
    except ImportError:  # Windows
        return

    def soft(kind: int, value: int) -> None:
        hard = resource.getrlimit(kind)[1]
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))

    soft(resource.RLIMIT_CORE, 0)
    soft(resource.RLIMIT_CPU, seconds)
    soft(resource.RLIMIT_FSIZE, written)
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft(resource.RLIMIT_AS, pages * resource.getpagesize() + (2 * expansion + 1) * size + _MARGIN)


def _unlimited_memory() -> None:
    """Lifts the soft limit on memory, for the import of torch."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _check_archive(path: Path, size: int) -> None:
    """Refuses archives that torch.save does not write: compressed or overlapping entries, code."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if len(entries) > _ENTRIES:
        raise _RefusedError(f"an archive of {len(entries)} entries")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise _RefusedError("compressed entries, which torch.save does not write and which can unpack to any size")
    if (total := sum(entry.file_size for entry in entries)) > size:
        raise _RefusedError(f"entries of {total} bytes in a file of {size} bytes, so that they overlap")
    names = [entry.filename for entry in entries]
    if len(set(names)) < len(names):
        raise _RefusedError("two entries of the same name")
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise _RefusedError("a TorchScript archive, which holds code")
    pickles = [name for name in names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _RefusedError(f"an archive of {', '.join(names[:3]) or 'nothing'} with {len(pickles)} files data.pkl")
    with zipfile.ZipFile(path) as archive, archive.open(pickles[0]) as file:
        _check_pickle(file)


def _check_stream(path: Path) -> None:
    """The pickles of a file from before torch 1.6: a number, a version, the system, the content, and the storages."""
    with path.open("rb") as file:
        for _ in range(5):
            _check_pickle(file)


def _check_pickle(file: IO[bytes]) -> None:
    """Refuses opcodes and names that a dictionary of tensors does not need, up to the end of the next pickle."""
    texts = ["?", "?"]
    for opcode, value, _ in pickletools.genops(file):
        argument = str(value)
        if opcode.name == "GLOBAL" and not _NAMES.fullmatch(argument):
            raise _RefusedError(f"code: the pickle refers to {argument[:200].replace(' ', '.')}")
        if opcode.name == "STACK_GLOBAL":
            raise _RefusedError(f"code: the pickle refers to {'.'.join(texts)[:200]}")
        if "UNICODE" in opcode.name:
            texts = [texts[1], argument]
        elif not _OPCODES.fullmatch(opcode.name):
            raise _RefusedError(f"code: the pickle opcode {opcode.name}")


def _load(path: Path, archive: bool) -> Any:
    import torch

    torch.set_num_threads(1)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive or None)  # noqa: TID251
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if "memory" in text.lower():  # torch's allocator raises a RuntimeError
            raise MemoryError from error
        cause = text.rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
        raise _RefusedError(f"what torch's weights-only loader refuses ({cause[:300]})") from None


class _Flat:
    """Tensors and values of nested containers by dotted names, up to limits on depth, number and size."""

    def __init__(self, limit: int) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[str, Any] = {}
        self.skipped: list[str] = []
        self._limit, self._bytes, self._text, self._visited = limit, 0, 0, 0

    def add(self, value: Any, name: str = "", depth: int = 0) -> None:
        import torch

        self._visited += 1
        if depth > _DEPTH or self._visited > _ENTRIES:
            raise _RefusedError(f"containers nested deeper than {_DEPTH} or with more than {_ENTRIES} entries")
        if name in self.tensors or name in self.values:
            raise _RefusedError(f"two entries named {name[:80]!r}")
        if isinstance(value, torch.Tensor):
            self._tensor(value, name)
        elif isinstance(value, dict):
            for key, entry in value.items():
                self.add(entry, self._joined(name, str(key) if isinstance(key, (str, int)) else None), depth + 1)
        elif isinstance(value, (list, tuple)):
            for index, entry in enumerate(value):
                self.add(entry, self._joined(name, str(index)), depth + 1)
        elif value is None or isinstance(value, (bool, int, float, str)):
            self._value(value, name)
        else:
            self.skipped.append(name)

    def _joined(self, name: str, key: str | None) -> str:
        if key is None:
            raise _RefusedError(f"a key of {name[:80] or 'the dictionary'!r} that is neither a text nor an integer")
        self._text += len(name) + len(key)
        if self._text > 16 * _TEXT:
            raise _RefusedError("names of more than 64 MiB together")
        return f"{name}.{key}" if name else key

    def _value(self, value: Any, name: str) -> None:
        if isinstance(value, int) and abs(value) >= 1 << 64:
            raise _RefusedError(f"an integer of {value.bit_length()} bits, {name[:80]!r}")
        self._text += len(value) if isinstance(value, str) else 1
        if self._text > 16 * _TEXT:
            raise _RefusedError("texts of more than 64 MiB together")
        self.values[name] = value if not isinstance(value, float) or math.isfinite(value) else str(value)

    def _tensor(self, value: Tensor, name: str) -> None:
        import torch

        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise _RefusedError(f"a tensor that is sparse, quantized or without values, {name[:80]!r}")
        self._bytes += value.numel() * value.element_size()
        if self._bytes > self._limit:
            raise _RefusedError(
                f"tensors of more than {self._limit} bytes together, up to {name[:80]!r} of shape "
                f"{tuple(value.shape)}, which the values in the file do not fill"
            )
        self.tensors[name] = value


def _convert(path: Path, folder: Path, seconds: int, written: int, expansion: int) -> None:
    size = path.stat().st_size
    _limit(size, seconds, written, expansion)
    with path.open("rb") as file:
        archive = file.read(2) == b"PK"
    if archive:
        _check_archive(path, size)
    else:
        _check_stream(path)
    _unlimited_memory()
    import torch
    from safetensors.torch import save_file

    _limit(size, seconds, written, expansion)
    content = _load(path, archive)
    if not isinstance(content, dict):
        raise _RefusedError(f"a {type(content).__name__} in place of a dictionary of tensors")
    flat = _Flat(expansion * size)
    flat.add(content)
    if not flat.tensors:
        raise _RefusedError("no tensor")
    rest = json.dumps({"values": flat.values, "skipped": flat.skipped[:1000]})
    tensors = {name: torch.empty(v.shape, dtype=v.dtype).copy_(v.detach()) for name, v in flat.tensors.items()}
    save_file(tensors, folder / "weights.safetensors", metadata={"rest": rest})


def _main() -> int:
    path, folder, settings = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    sys.path[:] = settings["sys_path"]
    try:
        _convert(path, folder, settings["seconds"], settings["written"], settings["expansion"])
        return 0
    except _RefusedError as error:
        reason = str(error)
    except zipfile.BadZipFile as error:
        reason = f"a damaged archive ({error})"
    except MemoryError:
        reason = "more memory than its size allows"
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error)[:300]}"
    (folder / "weights.safetensors").unlink(missing_ok=True)
    (folder / "answer.json").write_text(json.dumps({"reason": reason}), encoding="utf-8")
    return 3


if __name__ == "__main__":
    sys.exit(_main())
