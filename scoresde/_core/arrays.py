"""Arrays as tensors: NumPy arrays, lists of numbers and pandas frames converted without loss, or refused by name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

__all__ = ["ArrayLike", "array_remedy", "as_tensor", "as_tensors", "is_array", "write_npz"]

ArrayLike = Tensor | np.ndarray | Sequence[Any]
"""What `as_tensor` converts, pandas frames aside."""


def as_tensor(value: Any, name: str, device: torch.device | None = None) -> Tensor:
    """A tensor with the values of an array, in a type that holds all of them.

    Args:
        value: A tensor (returned as it is); a NumPy array, number or memory-mapped file of a real type; a list or tuple
            of numbers, tensors or arrays of one shape; a pandas DataFrame or Series of numbers.
        name: Name of the argument in an error.
        device: Where an array goes that is not a tensor; default the CPU.

    Returns:
        NumPy's types are kept (float64 stays float64). Unsigned integers of 16 to 64 bits become int64. Python's floats
        become float64, as do a frame's columns of different types. Arrays that can be written share their memory.

    Raises:
        TypeError: If ``value`` is something else (also a torch Dataset or DataLoader), or holds texts, dates, objects,
            complex or extended numbers; the message has the call that works.
        ValueError: If lists have unequal lengths, values are masked, or an integer fits no type of torch.
    """
    if isinstance(value, Tensor):
        return value
    if _is_pandas(value):
        tensor = _from_frame(value, name)
    elif isinstance(value, (np.ndarray, np.generic)):
        tensor = _from_numpy(value, name)
    elif isinstance(value, (list, tuple)):
        tensor = _from_list(value, name)
    else:
        raise TypeError(f"{name} must be a tensor or a NumPy array, got {_received(value)}; {array_remedy(value)}.")
    return tensor if device is None else tensor.to(device)


def as_tensors(values: Mapping[str, Any], device: torch.device | None = None) -> dict[str, Any]:
    """Keyword arguments of which arrays, frames and lists of numbers are converted by `as_tensor`; others stay."""
    return {name: as_tensor(value, name, device) if is_array(value) else value for name, value in values.items()}


def is_array(value: object) -> bool:
    """Whether a value is a NumPy array or number, a pandas frame or series, or a list of numbers and such lists."""
    if isinstance(value, (list, tuple)):
        return len(value) > 0 and all(isinstance(v, (bool, int, float, np.generic)) or is_array(v) for v in value)
    return isinstance(value, (np.ndarray, np.generic)) or _is_pandas(value)


def _from_numpy(value: np.ndarray | np.generic, name: str) -> Tensor:
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise ValueError(f"{name} must have all values, got a masked array; drop or fill them: x.filled(value).")
        value = value.data
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{name} must hold real numbers of up to 64 bits, got a NumPy array of {array.dtype}; "
            f"{'encode texts, dates and objects as numbers first' if array.dtype.kind in 'OSUMmV' else 'convert it'}, "
            "e.g. x.astype(np.float64)."
        )
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:  # torch has no arithmetic for these
        if array.dtype.itemsize == 8 and array.size and int(array.max()) >= 2**63:
            raise ValueError(
                f"{name} must hold integers below 2^63, got {int(array.max())} ({array.dtype}); subtract an offset "
                "first, or pass x.astype(np.float64)."
            )
        array = array.astype(np.int64)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride < 0 for stride in array.strides) or not (array.flags.writeable or isinstance(value, np.memmap)):
        array = array.copy()
    with warnings.catch_warnings():  # a memory-mapped file is read, not copied; nothing here writes into events
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _from_list(value: list[Any] | tuple[Any, ...], name: str) -> Tensor:
    if value and all(isinstance(v, (Tensor, np.ndarray)) for v in value):
        tensors = [as_tensor(v, f"{name}[{i}]") for i, v in enumerate(value)]
        shapes, kinds = {tuple(t.shape) for t in tensors}, {t.dtype for t in tensors}
        if len(shapes) > 1 or len(kinds) > 1:
            raise ValueError(
                f"{name} must hold events of one shape and type, got shapes {sorted(shapes)[:3]} of "
                f"{', '.join(sorted(map(str, kinds)))}; bring them to one shape, and pass torch.stack(events)."
            )
        return torch.stack(tensors)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"{name} must hold rows of numbers of one length, got a {type(value).__name__} whose rows differ; bring "
            "them to one length, and pass a tensor (N, *D)."
        ) from error
    if array.dtype.kind not in "biuf":
        entries = np.asarray(value, dtype=object).flat
        kind = next((type(v).__name__ for v in entries if not _is_number(v)), "number of more than 64 bits")
        raise TypeError(
            f"{name} must hold numbers, got a {type(value).__name__} with a {kind}; encode it as numbers, and pass a "
            "tensor (N, *D)."
        )
    return _from_numpy(array, name)


def _is_number(value: object) -> bool:
    return isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating))


def _is_pandas(value: object) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def _from_frame(value: Any, name: str) -> Tensor:
    columns = list(value.dtypes.items()) if value.ndim == 2 else [(getattr(value, "name", None), value.dtype)]
    wrong = [f"{column!r} ({kind})" for column, kind in columns if getattr(kind, "kind", "O") not in "biuf"]
    if wrong:
        raise TypeError(
            f"{name} must have columns of numbers, got {', '.join(wrong[:5])}{' …' if len(wrong) > 5 else ''}; encode "
            "them, select others (frame.select_dtypes('number')), or read it by name: sd.load_data(frame)."
        )
    kinds = {str(kind) for _, kind in columns}
    if len(kinds) == 1 and not np.asarray(value.isna()).any():
        kind = columns[0][1]
        return _from_numpy(value.to_numpy(dtype=getattr(kind, "numpy_dtype", kind)), name)  # pandas' nullable types
    array = value.to_numpy(dtype=np.float64, na_value=np.nan)
    for i, (column, kind) in enumerate(columns):
        largest = np.nanmax(np.abs(array[:, i] if array.ndim == 2 else array), initial=0.0)
        if kind.kind in "iu" and largest >= 2.0**53:
            raise ValueError(
                f"{name} must hold numbers that fit one type, got integers up to {largest:g} in column {column!r} "
                "beside other columns or missing cells; subtract an offset, or pass the column alone."
            )
    return _from_numpy(array, name)


def _received(value: object) -> str:
    if isinstance(value, (str, os.PathLike)):
        return f"the path {os.fspath(value)!r}"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def array_remedy(value: object) -> str:
    """The call that works, or what to pass, where a tensor is needed and ``value`` is not a tensor."""
    if is_array(value):
        return "pass torch.as_tensor(x)"
    if isinstance(value, (str, os.PathLike)):
        return "read it first: sd.load_data(path).train"
    if isinstance(value, DataLoader):
        return "call this for each of its batches, or pass its events as one tensor: torch.cat([x for x, *_ in loader])"
    if isinstance(value, TensorDataset):
        return "pass its tensor: dataset.tensors[0]"
    if isinstance(value, Dataset):
        return "pass its events as one tensor: torch.stack([x for x, *_ in dataset])"
    if isinstance(value, (int, float, type)) or value is None:
        return "pass a batch of events, (N, *D)"
    if hasattr(value, "train") and hasattr(value, "description"):
        return "pass one of its parts: data.train or data.test, in model units data.description.to_model(data.test)"
    if hasattr(value, "to_numpy"):
        return "pass x.to_numpy()"
    if hasattr(value, "__array__"):
        return "pass np.asarray(x)"
    return "pass a tensor (N, *D), or an array by torch.as_tensor(x)"


def write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays to a compressed ``.npz`` file, without pickling any.

    Args:
        file: Open for writing.
        arrays: By name.

    Raises:
        TypeError: If an array holds Python objects, which NumPy would pickle.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name} must hold numbers or texts, got Python objects; convert it, nothing is pickled.")
    np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType] -- its stub reads allow_pickle from them
