"""How a user's ``.npy`` and ``.npz`` files of any shape become data; nothing is ever unpickled."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde.data.dataset import Data, split
from scoresde.data.description import Description

__all__ = ["load_file", "standardization"]

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
        path: The file. A .npz may also hold ``train_labels`` and ``test_labels``, or ``labels`` beside ``x``.
        seed, test_fraction: The split of data that do not come split.
        bins: States that the values are levels ``0 ... bins - 1``. ``None``: continuous, also where they are integers.
        shuffle: Draw the test part at random. ``False`` takes the last events and leaves a .npy on the disk (mapped).
        per_feature: Standardize each entry of the first event axis by itself (tables, channels).
        low, high: Declared range.
        offset, scale: The scaling; continuous data default to mean and standard deviation of the train part.

    Returns:
        Data in data units; the type of the file is kept where torch has it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is malformed, holds objects or text, or its values are not as described.
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
        raise ValueError(f"bins={bins} states integer levels, {path} holds {train.dtype}; store them as integers.")
    shape = tuple(train.shape[1:])
    # checked before anything is computed from it, so that a NaN is named and not averaged
    Description(path.stem, shape, bins=bins, low=low, high=high).validate(train)
    if bins is None and (offset is None or scale is None):
        mean, std = standardization(train, per_feature)
        offset, scale = mean if offset is None else offset, std if scale is None else scale
    description = Description(path.stem, shape, bins=bins, low=low, high=high, offset=offset, scale=scale)
    return Data(train, test, description, train_labels, test_labels)


def standardization(
    y: Tensor, per_feature: bool = False, names: Sequence[str] | None = None
) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Mean and standard deviation of ``y`` ``(N, *D)``: over everything, or per entry of the first event axis.

    ``names`` are what an error calls those entries.

    Returns:
        ``offset, scale`` for a ``Description``.

    Raises:
        ValueError: If values do not vary, or there is no feature axis.
    """
    if per_feature and y.ndim < 2:
        raise ValueError(f"per_feature needs a feature axis, got shape {tuple(y.shape)}; leave per_feature out.")
    axes = [axis for axis in range(y.ndim) if not per_feature or axis != 1]
    if y.dtype in (torch.int32, torch.int64):
        y = y.double()
    std, mean = torch.std_mean(y if y.dtype in (torch.float32, torch.float64) else y.float(), dim=axes, correction=0)
    constant = (std <= 1e-7 * mean.abs()).nonzero()
    if len(constant):
        which = (names[int(constant[0])] if names else int(constant[0])) if per_feature else None
        which = "every value" if which is None else f"feature {which}"
        raise ValueError(
            f"data must vary to be standardized, {which} is constant; drop it, or state offset= and scale=."
        )
    return (tuple(mean.tolist()), tuple(std.tolist())) if per_feature else (mean.item(), std.item())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as file:  # opened here: NumPy leaves a broken archive open
            packed = file.read(2) == b"PK"
            file.seek(0)
            if packed:
                archive = np.load(file, allow_pickle=False)
                arrays = {key: archive[key] for key in archive.files}
            else:
                arrays = {"x": np.load(path, mmap_mode="c", allow_pickle=False)}  # "c": writes stay in memory
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; check the path (here: {Path.cwd()}).") from None
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path} must be a whole {path.suffix} file of numbers (pickles are never loaded), got: {error}; "
            f"write it with np.save{'z' if path.suffix == '.npz' else ''}."
        ) from error
    if not ({"train", "test"} <= arrays.keys() or "x" in arrays):
        raise ValueError(f"{path} must hold 'train' and 'test', or 'x'; it holds {sorted(arrays)}; rename them.")
    return {key: _tensor(array, f"{path}[{key}]") for key, array in arrays.items()}


def _tensor(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(
            f"{name} must hold real numbers with a sample axis, got {array.dtype}, shape {array.shape}; convert it."
        )
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    elif array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)  # torch computes with no other unsigned type
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
