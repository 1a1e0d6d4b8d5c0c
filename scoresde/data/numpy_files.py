"""Data from NumPy files, ``.npy`` and ``.npz``, of any event shape; pickled objects are never loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.split import split
from scoresde.data.standardize import standardization

__all__ = ["load_file"]

_Scaling = float | tuple[float, ...] | None


def load_file(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    bins: int | None = None,
    shuffle: bool = True,
    per_feature: bool = False,
    low: float | None = None,
    high: float | None = None,
    offset: _Scaling = None,
    scale: _Scaling = None,
) -> Data:
    """Reads a ``.npy`` array ``(N, *D)``, or a ``.npz`` with ``train`` and ``test``, or ``x``.

    Args:
        path: The file. A .npz may also hold ``train_labels`` and ``test_labels``, or ``labels`` for ``x``.
        seed, test_fraction: The split of data that have no train and test part.
        bins: Declares quantized data: integer values ``0 ... bins - 1``. ``None`` means continuous, for integers too.
        shuffle: Draw the test part at random. ``False`` takes the last events and keeps a .npy file memory-mapped.
        per_feature: Standardize each entry of the first event axis separately (columns, channels).
        low, high: Declared range.
        offset, scale: The scaling; continuous data default to mean and standard deviation of the train part.

    Returns:
        Data in data units, in the type of the file if torch has it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is malformed, holds objects or text, or its values contradict the arguments.
    """
    path = Path(path)
    arrays = _read(path)
    if "x" in arrays:
        x, labels = arrays["x"], arrays.get("labels")
        train, test = split(len(x), test_fraction, seed if shuffle else None)
        parts = x[train], x[test], *((None, None) if labels is None else (labels[train], labels[test]))
    else:
        parts = tuple(arrays.get(key) for key in ("train", "test", "train_labels", "test_labels"))
    train, test, train_labels, test_labels = parts
    assert train is not None
    assert test is not None
    if bins is not None and train.is_floating_point():
        raise ValueError(f"bins={bins} declares integer values, {path} holds {train.dtype}; store them as integers.")
    shape = tuple(train.shape[1:])
    # validated before mean and deviation are computed, so that the error names the index of a NaN
    Description(path.stem, shape, bins=bins, low=low, high=high).validate(train)
    if bins is None and (offset is None or scale is None):
        mean, std = standardization(train, per_feature)
        offset, scale = mean if offset is None else offset, std if scale is None else scale
    description = Description(path.stem, shape, bins=bins, low=low, high=high, offset=offset, scale=scale)
    return Data(train, test, description, train_labels, test_labels)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:  # opened here: NumPy leaves a broken archive open
            is_archive = file.read(2) == b"PK"
            file.seek(0)
            if is_archive:
                archive = np.load(file, allow_pickle=False)
                arrays = {key: archive[key] for key in archive.files}
            else:
                arrays = {"x": np.load(path, mmap_mode="c", allow_pickle=False)}  # "c": writes stay in memory
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a complete {path.suffix} file of numbers (pickles are never loaded), got: {error}; "
            f"write it with np.save{'z' if path.suffix == '.npz' else ''}."
        ) from error
    if not ({"train", "test"} <= arrays.keys() or "x" in arrays):
        raise ValueError(f"{path} must hold 'train' and 'test', or 'x'; it holds {sorted(arrays)}; rename them.")
    return {key: _to_tensor(array, f"{path}[{key}]") for key, array in arrays.items()}


def _to_tensor(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(
            f"{name} must hold real numbers with a sample axis, got {array.dtype}, shape {array.shape}; convert it."
        )
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    elif array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)  # torch has no arithmetic for the other unsigned types
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
