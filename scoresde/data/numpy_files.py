"""Data from NumPy files, ``.npy`` and ``.npz``, of any event shape; pickled objects are never loaded."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.data.alphabets import as_alphabet
from scoresde.data.axes import arrange_axes
from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.parts import select
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.npz_conditions import conditions_of_events, entries_of, warn_unread
from scoresde.data.split import split
from scoresde.data.standardize import feature_deviations, standardization
from scoresde.data.tables.column_names import several_names
from scoresde.data.tables.missing_cells import MissingCells, check_choice

__all__ = ["load_file"]

_UNLIKE = 1 / 8  # deviation of a column or channel over that of all values, below which columns have unlike scales
_CHUNK = 1 << 16  # events that are read at once
_NARROW = 0.0045  # deviation in model units: sigma at the default tau_min, 1e-5, where sampling ends
_Scaling = float | tuple[float, ...] | None
_BESIDE_SAMPLES = ("tau", "nfe", "columns", "table", "trajectory", "taus")  # what `scoresde sample` writes beside x


def load_file(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    bins: int | None = None,
    classes: int | None = None,
    alphabet: str | Sequence[str] | None = None,
    shuffle: bool = True,
    per_feature: bool | None = None,
    channels: str | None = None,
    missing: str = "refuse",
    condition: str | Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    offset: _Scaling = None,
    scale: _Scaling = None,
) -> Data:
    """Reads a ``.npy`` array ``(N, *D)``, or a ``.npz`` with ``train`` and ``test``, or ``x``.

    Args:
        path: The file. A .npz may also hold ``train_labels`` and ``test_labels``, or ``labels`` for ``x``, and further
            conditions (see ``condition``).
        seed, test_fraction: The split of data that have no train and test part.
        bins: Declares quantized data: integer values ``0 ... bins - 1``. ``None`` means continuous, for integers too.
        classes: Declares categories: integers ``0 ... classes - 1`` without an order, such as bits or tokens.
        alphabet: What the classes stand for, such as ``"ACGT"``, or names in a tuple; states ``classes`` too.
        shuffle: Draw the test part at random. ``False`` takes the last events and keeps a .npy file memory-mapped.
        per_feature: Standardize each entry of the first event axis separately (columns, channels). ``None`` does so for
            tables ``(N, D)`` and series ``(N, C, L)`` whose columns or channels have unlike deviations, and says so.
        channels: Where the channels are: ``"first"``, ``(N, C, ...)``; ``"last"``, ``(N, ..., C)``, which is moved;
            ``"none"``, which adds an axis of one channel. ``None`` decides by the shape, says what it adds, and asks
            where the shape is not clear.
        missing: ``"refuse"`` raises an error if a value is missing (NaN), ``"drop"`` leaves its event out, with a
            warning. ``"mask"`` keeps missing values: training counts observed ones only, and the network receives the
            mask. It leaves out events without any value.
        condition: Name or names of conditions in a .npz, such as ``"text"``: its entry ``text`` beside ``x``, or its
            entries ``train_text`` and ``test_text`` beside ``train`` and ``test``, with one entry per event.
        low, high: Declared range.
        offset, scale: The scaling; continuous data default to mean and standard deviation of the train part.

    Returns:
        Data in data units, in the type of the file; unsigned integers of more than 8 bits become int64.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is malformed, holds objects or text, or its values contradict the arguments; if there
            are not as many labels as events; if the shape looks like other axes than ``(N, C, ...)``.
    """
    skipped = ("bins", "classes", "alphabet", "channels", "missing", "condition")
    check_arguments(load_file, {k: v for k, v in locals().items() if k not in skipped})
    path = Path(path)
    check_choice(missing)
    symbols = None if alphabet is None else as_alphabet(alphabet)
    classes = symbols.count if classes is None and symbols is not None else classes
    conditions = several_names("condition", condition) or ()
    train, test, train_cond, test_cond = _parts(
        _read(path), path, conditions, test_fraction, seed if shuffle else None, missing
    )
    for part in (train, test):
        if bins is not None and part.is_floating_point():
            raise ValueError(f"bins={bins} declares integer values, {path} holds {part.dtype}; store them as integers.")
        if classes is not None and part.is_floating_point():
            raise ValueError(f"classes={classes} declares integers, {path} holds {part.dtype}; store them as integers.")
    if train.shape[1:] != test.shape[1:]:
        shapes = f"train {tuple(train.shape)} and test {tuple(test.shape)}"
        raise ValueError(f"train and test must hold events of one shape, {path} holds {shapes}; store them alike.")
    rank = train.ndim
    integers = bins if classes is None else classes
    train, test, choice = _arranged(train, test, channels, integers, path.name)
    for part in (train_cond, test_cond):  # images beside images lie as these do
        part |= {n: arrange_axes(v, choice, integers, n) for n, v in part.items() if v.ndim == rank > 2}
    shape = tuple(train.shape[1:])
    if classes is not None:
        stated = {"bins": bins, "low": low, "high": high, "offset": offset, "scale": scale}
        description = Description(path.stem, shape, classes=classes, alphabet=symbols, **stated)
        return Data(train, test, description, train_cond, test_cond)
    masked = missing == "mask" and any(_has_nan(part) for part in (train, test))
    # validated before mean and deviation are computed, so that the error names the index of a NaN
    Description(path.stem, shape, bins=bins, low=low, high=high, missing=masked).validate(train)
    if masked:
        MissingCells.of_events(train).check_columns()
    if bins is None and (offset is None or scale is None):
        mean, std = standardization(train, _unlike(train, path.name) if per_feature is None else per_feature)
        offset, scale = mean if offset is None else offset, std if scale is None else scale
    description = Description(
        path.stem, shape, bins=bins, low=low, high=high, offset=offset, scale=scale, missing=masked
    )
    _warn_if_narrow(train, description, path.name)
    _warn_if_integers(train, description, path.name)
    return Data(train, test, description, train_cond, test_cond)


def _parts(
    arrays: dict[str, Tensor],
    path: Path,
    conditions: Sequence[str],
    test_fraction: float,
    seed: int | None,
    missing: str,
) -> tuple[Tensor, Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Events and conditions of both parts, without the events that ``missing`` leaves out."""
    names = ("x",) if "x" in arrays else ("train", "test")
    cond = {name: conditions_of_events(arrays, name, conditions, path) for name in names}
    warn_unread(arrays, names, [entry for name in names for entry in entries_of(name, conditions).values()], path)
    for name in names:
        cond_of = cond[name]
        arrays[name], labels, rows = _read_rows(arrays[name], cond_of.get(LABEL), missing)
        cond[name] = select(cond_of, rows) | ({} if labels is None else {LABEL: labels})
    if names != ("x",):
        return arrays["train"], arrays["test"], cond["train"], cond["test"]
    x = arrays["x"]
    train, test = split(len(x), test_fraction, seed)
    return x[train], x[test], select(cond["x"], train), select(cond["x"], test)


def _read_rows(events: Tensor, labels: Tensor | None, missing: str) -> tuple[Tensor, Tensor | None, Tensor | slice]:
    """Events and labels without the rows that ``missing`` leaves out, and the rows that are left.

    With ``"refuse"`` only labels are looked at here: a NaN among events is refused with its index where all values are
    validated. Whole numbers that were stored as floats, so that a label could be NaN, become integers.
    """
    unlabeled = labels is not None and _has_nan(labels)
    if missing == "refuse" and not unlabeled:
        return events, labels, slice(None)
    rows = torch.from_numpy(MissingCells.of_events(events, labels if unlabeled else None).rows(missing))
    if len(rows) < len(events):
        events, labels = events[rows], None if labels is None else labels[rows]
    if labels is not None and unlabeled and torch.equal(labels, labels.round()):
        labels = labels.long()
    return events, labels, rows


def _has_nan(values: Tensor) -> bool:
    return values.is_floating_point() and any(bool(part.isnan().any()) for part in values.split(_CHUNK))


def _unlike(train: Tensor, name: str) -> bool:
    """Whether a table has a column, or series a channel, that one scale for all makes narrow; a warning says so."""
    if train.ndim not in (2, 3) or train.shape[1] < 2:
        return False
    deviations, whole = feature_deviations(train), standardization(train)[1]
    assert isinstance(whole, float)
    least, most = min(deviations), max(deviations)
    if least == 0 or least >= _UNLIKE * whole:
        return False
    warnings.warn(
        f"{name}: {'columns' if train.ndim == 2 else 'channels'} have standard deviations from {least:.3g} to "
        f"{most:.3g}, so each is standardized by its own. Pass per_feature=True to confirm this, per_feature=False for "
        "one scale.",
        stacklevel=3,
    )
    return True


def _warn_if_integers(train: Tensor, description: Description, name: str) -> None:
    """Warns of bits, and of bytes of images, series and volumes, that are taken as real numbers."""
    integers = description.bins is None and train.numel() > 0 and not train.is_floating_point()
    if integers and train.ndim > 2 and train.dtype is torch.uint8 and int(train.max()) > 1:
        warnings.warn(
            f"{name} holds bytes, which are taken as real numbers: samples are no integers, and log p is no bits per "
            "dimension. Pass bins=256 (--bins 256) for integers, or store floats to confirm this.",
            stacklevel=3,
        )
    if integers and int(train.min()) == 0 and int(train.max()) == 1:
        warnings.warn(
            f"{name} holds 0 and 1 alone, which are taken as numbers of a Gaussian process; for a process of bits pass "
            "classes=2 (--classes 2).",
            stacklevel=3,
        )


def _warn_if_narrow(train: Tensor, description: Description, name: str) -> None:
    """Warns of features whose deviation in model units is hidden by the noise at which sampling ends."""
    if description.bins is not None or train.ndim < 2 or train.shape[1] < 2:
        return
    scale = description.scale if isinstance(description.scale, tuple) else (description.scale,) * train.shape[1]
    widths = [deviation / float(s or 1.0) for deviation, s in zip(feature_deviations(train), scale, strict=True)]
    narrow = [i for i, width in enumerate(widths) if width < _NARROW]
    if narrow:
        warnings.warn(
            f"{name}: {len(narrow)} of {len(widths)} features are narrower than the noise at which sampling ends, "
            f"feature {narrow[0]} has standard deviation {widths[narrow[0]]:.2g} in model units; pass "
            "per_feature=True, or drop constants.",
            stacklevel=3,
        )


def _arranged(
    train: Tensor, test: Tensor, channels: str | None, bins: int | None, name: str
) -> tuple[Tensor, Tensor, str]:
    """Both parts with channels first, and what was chosen; the shape of all events decides, once for both."""
    if channels is not None:
        return arrange_axes(train, channels, bins, name), arrange_axes(test, channels, bins, name), channels
    whole = train.new_empty((len(train) + len(test), *train.shape[1:]), device="meta")
    arranged = arrange_axes(whole, None, bins, name)
    choice = "first" if arranged.ndim == whole.ndim else "none"
    return arrange_axes(train, choice, bins, name), arrange_axes(test, choice, bins, name), choice


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        raise IsADirectoryError(f"path must be a .npy or .npz file, got the folder {path}; load_images reads images.")
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
    return {key: _to_tensor(array, f"{path}[{key}]") for key, array in arrays.items() if key not in _BESIDE_SAMPLES}


def _to_tensor(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(
            f"{name} must hold real numbers with a sample axis, got {array.dtype}, shape {array.shape}; convert it."
        )
    if array.dtype.kind == "f" and array.itemsize > 8:
        raise ValueError(f"{name} must hold numbers of at most 64 bits, got {array.dtype}; store them as float64.")
    if array.dtype.kind == "b":
        array = array.view(np.uint8)
    elif array.dtype.kind == "u" and array.itemsize > 1:
        _check_range(array, name)
        array = array.astype(np.int64)  # torch has no arithmetic for the other unsigned types
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))


def _check_range(array: np.ndarray, name: str) -> None:
    """Refuses unsigned integers that int64 does not hold; they would become negative."""
    if array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(
            f"integers must be below 2^63, got {int(array.max())} in {name}; subtract a constant, or use a larger unit."
        )
