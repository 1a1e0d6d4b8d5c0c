"""``torch.save`` files, read by torch's weights-only loader in a process of its own.

Such a file is a pickle, a program whose opcodes can call any function; the weights-only loader admits those that build
tensors and containers. The process (`_convert`) bounds what a file may cost by limits of the system: memory by the size
of the file, time, and the size of what is written. It hands the tensors over as a safetensors file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from torch import Tensor

from scoresde.bridges.weights.files import check_file, parse_json
from scoresde.bridges.weights.safetensors_files import read_safetensors, safetensors_header

__all__ = ["EXPORT", "Value", "read_torch_file"]

Value = int | float | bool | str | None

EXPORT = (
    "If you trust the file, open it with the code that wrote it and export its state dict: "
    "`safetensors.torch.save_file({k: v.contiguous() for k, v in net.state_dict().items()}, 'weights.safetensors')`, "
    "with net = pickle.load(file)['ema'] for EDM and EDM2, or torch.load(file, weights_only=False)"
)
_EXPANSION = 4  # tensors that share memory in the file are written one by one
_MARGIN = 16 << 20  # bytes of disk, for the header
_SCRIPT = Path(__file__).with_name("_convert.py")


def read_torch_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Value], tuple[str, ...]]:
    """Tensors, other values, and names of what was skipped; names of nested containers are joined by dots.

    Args:
        path: The file, in either format of ``torch.save``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is refused, or the process met a limit.
    """
    size = check_file(path)
    _refuse_other_formats(path)
    with tempfile.TemporaryDirectory(prefix="scoresde-weights-") as folder:
        written = min(_EXPANSION * size + _MARGIN, shutil.disk_usage(folder).free - _MARGIN)
        if written < size:
            raise ValueError(
                f"reading {path} needs {(size + _MARGIN) / 2**20:.4g} MiB in {tempfile.gettempdir()}, which are not "
                "free; free some space, or set TMPDIR to another disk."
            )
        _run(path, Path(folder), size, written)
        file = Path(folder) / "weights.safetensors"
        rest = parse_json(safetensors_header(file)["__metadata__"]["rest"].encode(), "the handed-over values")
        tensors = {name: tensor.clone() for name, tensor in read_safetensors(file).items()}
    return tensors, rest["values"], tuple(rest["skipped"])


def _run(path: Path, folder: Path, size: int, written: int) -> None:
    seconds = 60 + size // (10 << 20)
    packages = [str(Path(entry).resolve()) for entry in sys.path if entry]  # without the working directory
    settings = {"sys_path": packages, "seconds": seconds, "written": written, "expansion": _EXPANSION}
    command = [sys.executable, "-I", str(_SCRIPT), str(path.resolve()), str(folder), json.dumps(settings)]
    none, environment = subprocess.DEVNULL, os.environ | {"OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            timeout=2 * seconds,
            check=False,
            stdin=none,
            stdout=none,
            stderr=none,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{path} must be read within {2 * seconds} s, got no end; the process was stopped.") from error
    answer = folder / "answer.json"
    if done.returncode == 0 and (folder / "weights.safetensors").exists():
        return
    if answer.exists():
        reason = str(parse_json(answer.read_bytes(), "the answer of the process")["reason"])[:2000]
    else:
        reason = f"the process that read it ended with code {done.returncode}, as by a limit on memory, time or size"
    remedy = EXPORT if "code" in reason else "Download the file again, or convert it to safetensors if you trust it"
    raise ValueError(f"{path} must be a file of tensors as torch.save writes it, got: {reason}. {remedy}.")


def _refuse_other_formats(path: Path) -> None:
    """Tells apart what is no ``torch.save`` file by its first bytes: a zip archive, or a pickle of protocol 2 on."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[:2] == b"PK" or (start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")):
        return
    if start[:12] == b"version http" or b"git-lfs" in start:
        kind = "a pointer of Git LFS, not the file; run git lfs pull"
    elif start.lstrip()[:1] in (b"<", b"{", b"["):
        kind = "a text (HTML or JSON), as a failed download leaves"
    elif start[257:262] == b"ustar":
        kind = "a tar archive"
    elif start[:2] == b"\x1f\x8b":
        kind = "a gzip archive; unpack it if you trust it"
    else:
        kind = f"a file that begins with {start[:8]!r}"
    raise ValueError(f"{path} must be a torch.save file (a zip archive or a pickle), got {kind}. It was not read.")
