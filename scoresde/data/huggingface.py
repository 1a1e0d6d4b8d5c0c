"""How does a data set of Hugging Face become data? By its columns: one of pictures, or numbers of a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.suggest import unknown_name
from scoresde.data.arrow import ArrowTable
from scoresde.data.cache import cache_file, store
from scoresde.data.dataset import Data, split
from scoresde.data.decode import decoded
from scoresde.data.decode_image import ImageDecoder
from scoresde.data.description import Description
from scoresde.data.image_folder import alike
from scoresde.data.tables import tabulate

__all__ = ["is_huggingface", "load_huggingface"]

_Index = Tensor | slice


def is_huggingface(source: object) -> bool:
    """Whether ``source`` is an object of the package ``datasets``; imports nothing."""
    return any(cls.__module__.partition(".")[0] == "datasets" for cls in type(source).__mro__)


def load_huggingface(
    source: Any,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    image: str | None = None,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    categories: Sequence[str] = (),
    parts: Sequence[str] | None = None,
    config: str | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    workers: int = 0,
    cache: str | Path | None = None,
) -> Data:
    """Reads a data set of the package ``datasets`` (``pip install scoresde[datasets]``): pictures, or a table.

    Args:
        source: A name on the hub or a folder that holds its files, as ``datasets.load_dataset`` takes it; or a
            ``Dataset`` or ``DatasetDict``.
        seed, test_fraction: The split of data that have one part.
        image: The column of pictures; else the features are ``columns``.
        columns, categories: As in `load_table`; ``None`` takes all columns but ``label``.
        label: The column of classes.
        parts: Names of the train part and, if there is one, the test part. ``None``: ``train`` and ``test``, or the
            only one there is.
        config: Which configuration of a source by name.
        size, channels, workers, cache: As in `load_images`.

    Returns:
        Data in data units: pictures ``(C, H, W)`` of 256 levels, or a table ``(D,)`` standardized by column.

    Raises:
        ModuleNotFoundError: If ``datasets`` is missing.
        ValueError: If a column or part is unknown, the source is streamed, or as `load_images` and `load_table`.
    """
    found = source if is_huggingface(source) else _by_name(str(source), config)
    name = _name(source, config)
    chosen = _parts(found, parts)
    divide = _divide(chosen, seed, test_fraction)
    if image is None:
        wanted = None if columns is None else [*columns, *([] if label is None else [label])]
        return tabulate(_arrow(chosen, wanted, label), name, divide, columns, label, categories)
    if columns is not None or categories:
        raise ValueError(f"an event is a picture or a row of numbers, got image={image!r} and columns; leave one out.")
    for part in chosen:
        if image not in part.column_names:
            raise ValueError(unknown_name("column", image, part.column_names))
    read = _Row(tuple(chosen), image, ImageDecoder(size, channels))
    return _pictures(chosen, name, divide, read, label, workers, cache)


def _by_name(name: str, config: str | None) -> Any:
    try:
        datasets = importlib.import_module("datasets")  # an extra
    except ImportError:
        missing = f"'hf:{name}' is read by datasets, which is missing; pip install 'scoresde[datasets]'."
        raise ModuleNotFoundError(missing) from None
    return datasets.load_dataset(name, config)


def _name(source: Any, config: str | None) -> str:
    if is_huggingface(source):
        return str(getattr(getattr(source, "info", None), "dataset_name", None) or "dataset")
    return "-".join([Path(str(source)).name, *([config] if config else [])])


def _parts(found: Any, names: Sequence[str] | None) -> list[Any]:
    """One or two ``Dataset``s, train first."""
    if not isinstance(found, dict):
        _check_whole(found)
        if names is not None:
            raise ValueError(f"parts= names those of a DatasetDict, got one part and {names!r}; leave it out.")
        return [found]
    if names is None:
        names = ["train", "test"] if {"train", "test"} <= found.keys() else list(found)
        if len(names) > 1 and names != ["train", "test"]:
            raise ValueError(f"which parts are train and test must be said, there are {names}; pass parts=(..., ...).")
    for name in names:
        if name not in found:
            raise ValueError(unknown_name("part", name, found))
        _check_whole(found[name])
    if len(names) not in (1, 2):
        raise ValueError(f"parts= names the train part and perhaps the test part, got {list(names)}.")
    return [found[name] for name in names]


def _check_whole(part: Any) -> None:
    if not hasattr(part, "with_format") or not hasattr(part, "__len__"):
        raise ValueError(f"a data set must be there as a whole, got {type(part).__name__}; load it without streaming.")


def _divide(parts: list[Any], seed: int, test_fraction: float) -> Callable[[int], tuple[_Index, _Index]]:
    if len(parts) == 1:
        return partial(split, test_fraction=test_fraction, seed=seed)
    return lambda n: (slice(0, len(parts[0])), slice(len(parts[0]), n))


def _arrow(parts: list[Any], columns: list[str] | None, label: str | None) -> ArrowTable:
    """Both parts' columns, one below the other; a column of coded classes keeps their names."""
    import pyarrow

    known = list(parts[0].column_names)
    for column in known if columns is None else columns:
        for part in parts:
            if column not in part.column_names:
                raise ValueError(unknown_name("column", column, part.column_names))
    tables = [part.select_columns(known if columns is None else columns).with_format("arrow")[:] for part in parts]
    names = getattr(parts[0].features.get(label), "names", None)
    return ArrowTable(pyarrow.concat_tables(tables), {label: names} if label is not None and names else None)


def _pictures(
    parts: list[Any],
    name: str,
    divide: Callable[[int], tuple[_Index, _Index]],
    read: _Row,
    label: str | None,
    workers: int,
    cache: str | Path | None,
) -> Data:
    rows = [(i, row) for i, part in enumerate(parts) for row in range(len(part))]
    ordered = [[rows[k] for k in torch.arange(len(rows))[index].tolist()] for index in divide(len(rows))]
    order, cut = [*ordered[0], *ordered[1]], len(ordered[0])
    made_of = (read.picture, read.column, *(part._fingerprint for part in parts), tuple(order))
    file = cache_file(cache, name, made_of)
    events = store(lambda: alike(decoded(read, order, workers), order), len(order), file)
    names, train_labels, test_labels = None, None, None
    if label is not None:
        whole, names = _arrow(parts, [label], label).classes(label)
        train_labels, test_labels = (torch.from_numpy(whole)[index] for index in divide(len(rows)))
    about = Description(name, tuple(events.shape[1:]), bins=256, labels=names)
    return Data(events[:cut], events[cut:], about, train_labels, test_labels)


@dataclass(frozen=True)
class _Row:
    """Reads picture ``(part, row)``; may be sent to a worker."""

    parts: tuple[Any, ...]
    column: str
    picture: ImageDecoder

    def __call__(self, at: tuple[int, int]) -> np.ndarray:
        part, row = at
        try:
            image = self.parts[part][row][self.column]
            if not hasattr(image, "mode"):
                raise ValueError(f"column {self.column!r} must hold pictures, got {type(image).__name__}.")
            return self.picture.levels(image)
        except (ValueError, OSError) as error:
            raise ValueError(f"row {row} of part {part}: {error}") from None
