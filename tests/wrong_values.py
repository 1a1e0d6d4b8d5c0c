"""Values of the wrong kind, which a caller may pass to any argument, and the judgment of what a call then does."""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import scoresde as sd

__all__ = ["WRONG", "complaint"]

ROOT = str(Path(sd.__file__).parent)


class Rows(Dataset):
    """A torch data set with a length and items."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(2)


def _frames() -> dict[str, Callable[[], Any]]:
    frames: dict[str, Callable[[], Any]] = {}
    try:
        import pandas as pd

        frames["frame"] = lambda: pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
        frames["frame of texts"] = lambda: pd.DataFrame({"a": ["x", "y"], "b": [3, 4]})
    except ImportError:
        pass
    try:
        import pyarrow as pa

        frames["arrow table"] = lambda: pa.table({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    except ImportError:
        pass
    return frames


WRONG: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "text": lambda: "abc",
    "empty text": lambda: "",
    "bytes": lambda: b"abc",
    "path": lambda: Path("missing"),
    "True": lambda: True,
    "False": lambda: False,
    "0": lambda: 0,
    "-1": lambda: -1,
    "3": lambda: 3,
    "2.5": lambda: 2.5,
    "-1.5": lambda: -1.5,
    "1e30": lambda: 1e30,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "complex": lambda: 1j,
    "NumPy integer": lambda: np.int64(2),
    "NumPy float": lambda: np.float32(0.5),
    "empty list": list,
    "floats": lambda: [1.0, 2.0],
    "integers": lambda: (1, 2),
    "ragged list": lambda: [[1.0], [1.0, 2.0]],
    "texts": lambda: ["a", "b"],
    "Nones": lambda: (None, None),
    "NaNs": lambda: (math.nan, math.nan),
    "dict": lambda: {"x": 1.0},
    "empty dict": dict,
    "set": lambda: {1.0},
    "range": lambda: range(3),
    "iterator": lambda: iter([1.0, 2.0]),
    "object": object,
    "array": lambda: np.ones((6, 2), np.float32),
    "array of integers": lambda: np.ones((6, 2), np.int64),
    "array of texts": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array([None, 1], dtype=object),
    "empty array": lambda: np.zeros((0, 2)),
    "0-d array": lambda: np.array(1.5),
    "tensor": lambda: torch.linspace(-1, 1, 12).reshape(6, 2),
    "tensor of other shape": lambda: torch.ones(6, 3),
    "vector": lambda: torch.ones(2),
    "0-d tensor": lambda: torch.tensor(0.5),
    "empty tensor": lambda: torch.zeros(0, 2),
    "tensor of integers": lambda: torch.ones(6, 2, dtype=torch.int64),
    "bool tensor": lambda: torch.ones(6, 2, dtype=torch.bool),
    "complex tensor": lambda: torch.ones(6, 2, dtype=torch.complex64),
    "half tensor": lambda: torch.ones(6, 2, dtype=torch.float16),
    "NaN tensor": lambda: torch.full((6, 2), math.nan),
    "infinite tensor": lambda: torch.full((6, 2), math.inf),
    "meta tensor": lambda: torch.ones(6, 2, device="meta"),
    "tensor with gradient": lambda: torch.ones(6, 2, requires_grad=True),
    "DataLoader": lambda: DataLoader(Rows()),
    "Dataset": Rows,
    "TensorDataset": lambda: TensorDataset(torch.ones(6, 2)),
    "network": lambda: nn.Linear(2, 2),
    "class": lambda: sd.DDPM,
    "function": lambda: lambda x: x,
    "sampler": lambda: sd.DDIM(2),
    "process": sd.VPSDE,
    "weighting": sd.ELBO,
    "model": lambda: sd.Gaussian(torch.zeros(2), 1.0),
    "description": lambda: sd.Description("a", (2,)),
    "data": lambda: sd.Data(torch.ones(2, 2), torch.ones(2, 2), sd.Description("a", (2,))),
    "generator": torch.Generator,
    "dtype": lambda: torch.complex64,
    "device": lambda: torch.device("meta"),
    **_frames(),
}
"""By name, functions that make the value afresh."""


@functools.cache
def _raise_statements(file: str) -> list[tuple[int, int]]:
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    return [(node.lineno, node.end_lineno or node.lineno) for node in ast.walk(tree) if isinstance(node, ast.Raise)]


def _last(traceback: TracebackType | None) -> tuple[str, int]:
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_code.co_filename, traceback.tb_lineno


OURS = (TypeError, ValueError, OSError, RuntimeError, NotImplementedError, ImportError)
BARE = (RecursionError, UnicodeError)


def _is_ours(error: BaseException) -> bool:
    """Whether an error of an allowed type was raised by a raise statement of the package."""
    file, line = _last(error.__traceback__)
    if file == __file__ or not isinstance(error, OURS) or isinstance(error, BARE):
        return False
    return file.startswith(ROOT) and any(first <= line <= last for first, last in _raise_statements(file))


def _is_of_the_call(error: BaseException) -> bool:
    """Whether Python itself refused the call: a missing, surplus or unknown argument."""
    return isinstance(error, TypeError) and _last(error.__traceback__)[0] == __file__ and "argument" in str(error)


def _tensors(value: Any, depth: int = 0) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, float):
        return [torch.tensor(value, dtype=torch.float64)]
    if depth > 3 or isinstance(value, (nn.Module, str, bytes)):
        return []
    if isinstance(value, Mapping):
        return [t for v in value.values() for t in _tensors(v, depth + 1)]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v, depth + 1)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [t for f in dataclasses.fields(value) for t in _tensors(getattr(value, f.name, None), depth + 1)]
    return []


def complaint(call: Callable[[], Any], finite: bool = True) -> str | None:
    """What is wrong with the outcome of a call, or None: neither our own error nor, if ``finite``, a finite result."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:
        if _is_ours(error) or _is_of_the_call(error):
            return None
        file, line = _last(error.__traceback__)
        return f"{type(error).__name__}: {error} ({file}:{line})"
    if not finite:
        return None
    bad = [t for t in _tensors(result) if t.device.type != "meta" and not bool(torch.isfinite(t).all())]
    return f"the result is not finite: {bad[0].flatten()[:4].tolist()}" if bad else None
