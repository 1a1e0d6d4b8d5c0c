"""Data from Hugging Face data sets (package ``datasets``): a column of images, or columns of a table."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.suggest import unknown_name
from scoresde.data.cache import cache_file, store
from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.parts import label_kind, select
from scoresde.data.dataset import Data
from scoresde.data.decode_image import ImageDecoder
from scoresde.data.description import Description
from scoresde.data.paired_images import check_equal_shapes
from scoresde.data.parallel_decoding import decode_in_parallel
from scoresde.data.split import split
from scoresde.data.tables.arrow import ArrowTable
from scoresde.data.tables.column_names import one_name, several_names
from scoresde.data.tables.condition_columns import check_condition_columns, read_conditions
from scoresde.data.tables.missing_cells import MISSING_TEXTS, MissingCells
from scoresde.data.tables.table_to_data import table_to_data, with_dates

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
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
    condition: str | Sequence[str] | None = None,
    categories: str | Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    missing: str = "refuse",
    missing_texts: str | Sequence[str] = MISSING_TEXTS,
    parts: str | Sequence[str] | None = None,
    config: str | None = None,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    workers: int = 0,
    cache: str | Path | None = None,
    one_hot: bool = False,
    like: Description | None = None,
) -> Data:
    """Reads a data set of the package ``datasets`` (``pip install scoresde[datasets]``): images, or a table.

    Args:
        source: A name on the hub or a folder with its files, as ``datasets.load_dataset`` takes it; or a ``Dataset``
            or ``DatasetDict``.
        seed, test_fraction: The split of data that have one part.
        image: The column of images; None for a table, whose features are ``columns``.
        columns, condition, categories, kinds, missing, missing_texts, one_hot, like: As in `load_table`;
            ``columns=None`` takes all columns except ``label`` and those of ``condition``, which images take too.
        label: The column of class labels.
        parts: Names of the train part and, optionally, the test part. ``None``: ``train`` and ``test``, or the only
            part.
        config: Name of the configuration, for a source given by name.
        size, channels, workers, cache: As in `load_images`.

    Returns:
        Data in data units: images ``(C, H, W)`` with integer values 0 ... 255, or a table ``(D,)`` standardized by
        column.

    Raises:
        ModuleNotFoundError: If ``datasets`` is missing.
        ValueError: If a column or part is unknown, the source is streamed, or as `load_images` and `load_table`.
    """
    check_arguments(load_huggingface, {"test_fraction": test_fraction})
    dataset = source if is_huggingface(source) else _load_by_name(str(source), config)
    name = _name(source, config)
    columns, label, parts = several_names("columns", columns), one_name("label", label), several_names("parts", parts)
    selected = _select_parts(dataset, parts)
    split_rows = _split_rows(selected, seed, test_fraction)
    conditions = several_names("condition", condition) or ()
    if image is None:
        needed = None if columns is None else [*columns, *([] if label is None else [label]), *conditions]
        table = _to_arrow(selected, needed, several_names("missing_texts", missing_texts) or ())
        return table_to_data(
            table, name, split_rows, columns, label, categories, missing, kinds, like, condition, one_hot
        )
    if columns is not None or categories or kinds or like is not None:
        raise ValueError(f"an event is an image or a row of numbers, got image={image!r} and columns; leave one out.")
    for part in selected:
        if image not in part.column_names:
            raise ValueError(unknown_name("column", image, part.column_names))
    decode = _RowDecoder(tuple(selected), image, ImageDecoder(size, channels))
    return _load_image_column(selected, name, split_rows, decode, label, conditions, workers, cache)


def _load_by_name(name: str, config: str | None) -> Any:
    try:
        datasets = importlib.import_module("datasets")  # an optional dependency
    except ImportError:
        message = f"reading 'hf:{name}' needs datasets, which is missing; pip install 'scoresde[datasets]'."
        raise ModuleNotFoundError(message) from None
    return datasets.load_dataset(name, config)


def _name(source: Any, config: str | None) -> str:
    if is_huggingface(source):
        return str(getattr(getattr(source, "info", None), "dataset_name", None) or "dataset")
    return "-".join([Path(str(source)).name, *([config] if config else [])])


def _select_parts(dataset: Any, names: Sequence[str] | None) -> list[Any]:
    """One or two ``Dataset``s, train first."""
    if not isinstance(dataset, dict):
        _check_not_streamed(dataset)
        if names is not None:
            raise ValueError(f"parts= names parts of a DatasetDict, got one part and {names!r}; leave it out.")
        return [dataset]
    if names is None:
        names = ["train", "test"] if {"train", "test"} <= dataset.keys() else list(dataset)
        if len(names) > 1 and names != ["train", "test"]:
            raise ValueError(
                f"parts= must name the train and the test part, the data have {names}; pass parts=(..., ...)."
            )
    for name in names:
        if name not in dataset:
            raise ValueError(unknown_name("part", name, dataset))
        _check_not_streamed(dataset[name])
    if len(names) not in (1, 2):
        raise ValueError(f"parts= must name the train part and optionally the test part, got {list(names)}.")
    return [dataset[name] for name in names]


def _check_not_streamed(part: Any) -> None:
    if not hasattr(part, "with_format") or not hasattr(part, "__len__"):
        raise ValueError(f"a data set must not be streamed, got {type(part).__name__}; load it without streaming.")


def _split_rows(parts: list[Any], seed: int, test_fraction: float) -> Callable[[np.ndarray], tuple[_Index, _Index]]:
    """A function from the numbers of the rows that are used to the indices, among these, of train and test part."""

    def split_rows(rows: np.ndarray) -> tuple[_Index, _Index]:
        if len(parts) == 1:
            return split(len(rows), test_fraction, seed)
        in_train = int((rows < len(parts[0])).sum())
        return slice(0, in_train), slice(in_train, len(rows))

    return split_rows


def _to_arrow(parts: list[Any], columns: list[str] | None, missing_texts: Sequence[str] = MISSING_TEXTS) -> ArrowTable:
    """The columns of all parts, concatenated by rows, with the class names of encoded columns."""
    import pyarrow

    available = list(parts[0].column_names)
    for column in available if columns is None else columns:
        for part in parts:
            if column not in part.column_names:
                raise ValueError(unknown_name("column", column, part.column_names))
    tables = [part.select_columns(available if columns is None else columns).with_format("arrow")[:] for part in parts]
    features = parts[0].features
    class_names = {column: names for column in features if (names := getattr(features[column], "names", None))}
    return ArrowTable(pyarrow.concat_tables(tables), class_names, missing_texts)


def _load_image_column(
    parts: list[Any],
    name: str,
    split_rows: Callable[[np.ndarray], tuple[_Index, _Index]],
    decode: _RowDecoder,
    label: str | None,
    conditions: Sequence[str],
    workers: int,
    cache: str | Path | None,
) -> Data:
    rows = [(i, row) for i, part in enumerate(parts) for row in range(len(part))]
    every = np.arange(len(rows))
    train, test = ([rows[k] for k in torch.from_numpy(every)[index].tolist()] for index in split_rows(every))
    order, train_count = [*train, *test], len(train)
    inputs = (decode.decoder, decode.column, *(part._fingerprint for part in parts), tuple(order))
    file = cache_file(cache, name, inputs)
    events = store(lambda: check_equal_shapes(decode_in_parallel(decode, order, workers), order), len(order), file)
    cond, kinds, dates = {}, {}, set[str]()
    if label is not None:
        table = _to_arrow(parts, [label])
        unlabeled = MissingCells.of_columns({}, label, table.missing(label))
        if unlabeled.counts:
            raise ValueError(
                f"every image needs its label, got {unlabeled.counts[label]} of {len(rows)} rows without "
                f"{label!r}; leave label= out, or drop those rows first: dataset.filter(lambda row: row[{label!r}] is "
                "not None)."
            )
        classes, names = table.classes(label, np.arange(len(rows)))
        cond, kinds = {LABEL: torch.from_numpy(classes)}, label_kind(names)
    if others := [column for column in conditions if column not in (LABEL, label)]:
        table = _to_arrow(parts, others)
        check_condition_columns(table, others, None)
        values, classes, dates = read_conditions(table, others, every, {}, None)
        cond, kinds = {**cond, **values}, {**kinds, **classes}
    description = Description(name, tuple(events.shape[1:]), bins=256, conditions=kinds)
    train_cond, test_cond = (select(cond, index) for index in split_rows(every))
    return with_dates(Data(events[:train_count], events[train_count:], description, train_cond, test_cond), dates)


@dataclass(frozen=True)
class _RowDecoder:
    """Decodes the image of ``(part, row)``; can be sent to a worker process."""

    parts: tuple[Any, ...]
    column: str
    decoder: ImageDecoder

    def __call__(self, position: tuple[int, int]) -> np.ndarray:
        part, row = position
        try:
            image = self.parts[part][row][self.column]
            if not hasattr(image, "mode"):
                raise ValueError(f"column {self.column!r} must hold images, got {type(image).__name__}.")
            return self.decoder.values(image)
        except (ValueError, OSError) as error:
            raise ValueError(f"row {row} of part {part}: {error}") from None
