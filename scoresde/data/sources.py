"""Data sources by name or path: built-in data sets, toys, files, folders of images and Hugging Face."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import array_remedy, is_array
from scoresde._core.checks import check_integer, check_seed
from scoresde._core.suggest import unknown_name
from scoresde.data.binary_images import binarized
from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.parts import label_kind
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.huggingface import is_huggingface, load_huggingface
from scoresde.data.idx_files import read_idx
from scoresde.data.image_folder import load_images
from scoresde.data.numpy_files import load_file
from scoresde.data.split import split
from scoresde.data.tables.frames import is_frame, load_frame
from scoresde.data.tables.table_files import load_table
from scoresde.data.text_files import PREFIX, holds_prose, load_text
from scoresde.data.toys import TOYS, heartbeat

__all__ = ["FILES", "SOURCES", "functions_of", "load_data", "reader_of"]

_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_NUMERALS = tuple("0123456789")


def load_data(source: str | Path | object, *, seed: int = 0, test_fraction: float = 0.2, **options: Any) -> Data:
    """Loads data by name or from a file.

    - ``"digits"``: scikit-learn's 1797 handwritten digits, ``(1, 8, 8)``, values 0 ... 16. Option ``binarize``: as in
      ``scoresde.data.load_images``.
    - ``"mnist"``, ``"fashion-mnist"``: 70 000 images, ``(1, 28, 28)``, values 0 ... 255, with their standard split,
      from four IDX files, gzipped or not. Options ``binarize``, and ``root``: their folder; default
      ``$SCORESDE_DATA/<name>``, then the folder of Debian's package.
    - ``"heartbeat"``: sequences of bits with a pulse at every fifth place, ``(20,)``: options ``n``, ``length`` and
      ``period``.
    - a two-dimensional toy distribution, such as ``"ring"``: options ``n`` (number of events,
      default 10 000) and the options of the toy.
    - a path that ends in ``.npy`` or ``.npz``: the options of ``scoresde.data.load_file``.
    - a path that ends in ``.csv``, ``.tsv``, ``.txt`` (also followed by ``.gz``) or ``.parquet``: the options of
      ``scoresde.data.load_table``. A ``.txt`` of prose is no table, but as the next entry.
    - a path that ends in ``.txt`` or ``.txt.gz`` and holds prose, or any path after ``text:``: the options of
      ``scoresde.data.load_text``.
    - ``"hf:<name>"``, or a data set of the package ``datasets``: the options of ``scoresde.data.load_huggingface``.
    - a table in memory, such as a pandas or polars frame or a ``pyarrow.Table``: the options of
      ``scoresde.data.load_frame``.
    - a folder of images: the options of ``scoresde.data.load_images``.

    Scaling: quantized data fill ``[-1, 1)``; categories have none; toys keep their coordinates; files without ``bins``
    are standardized, tables by column.

    Args:
        source: Name or path, or a table in memory, or a ``datasets.Dataset`` or ``DatasetDict``.
        seed: Seed of the split and of a toy's samples. Data with a split of their own do not use it.
        test_fraction: Fraction of test events, rounded up, in ``[0, 1)``. Data with a split of their own do not use it.
        **options: As above.

    Returns:
        Data in data units.

    Raises:
        ValueError: If the name or an option is unknown, or the data are malformed or contradict the options.
        FileNotFoundError: If a file is missing; the error lists the folders searched and what to install.
        ModuleNotFoundError: If the package that reads the source is missing; the error names the extra.

    Example:
        >>> from scoresde import load_data
        >>> digits = load_data("digits")
        >>> digits.train.shape, digits.description.bins
        (torch.Size([1437, 1, 8, 8]), 17)
    """
    check_arguments(load_data, locals())
    _check_source(source)
    name = _text(source)
    reader = reader_of(source)
    if reader is None:
        others = (
            f" A path must be a folder of images, or end in {', '.join(FILES)}; text:<path> is any text, hf:<name> "
            "Hugging Face's."
        )
        raise ValueError(unknown_name("data source", name, (*SOURCES, *TOYS)) + others)
    valid = [option for function in functions_of(source) for option in _options(function)]
    load = partial(reader, name)
    if reader is load_huggingface:
        load = partial(load_huggingface, source if is_huggingface(source) else name.removeprefix("hf:"))
        name = name if isinstance(source, str) else type(source).__name__
    elif reader is load_frame:
        load, name = partial(load_frame, source), type(source).__name__
    elif name in SOURCES and reader is SOURCES[name]:
        load = reader
    for option in options:
        if option not in valid:
            raise ValueError(unknown_name(f"option of {name!r}", option, ("seed", "test_fraction", *valid)))
    return load(seed, test_fraction, **options)


def reader_of(source: str | Path | object) -> Callable[..., Data] | None:
    """The function with which `load_data` reads a source; None for an unknown source."""
    name = _text(source)
    if is_frame(source) and not is_huggingface(source):
        return load_frame
    if name.startswith(PREFIX):
        return load_text
    if (suffix := _suffix(name)) in FILES:
        return load_text if suffix in (".txt", ".txt.gz") and holds_prose(Path(name)) else FILES[suffix]
    if is_huggingface(source) or name.startswith("hf:"):
        return load_huggingface
    if name in TOYS:
        return _load_toy
    return SOURCES.get(name, load_images if len(name) < 4096 and Path(name).is_dir() else None)


def functions_of(source: str | Path | object) -> tuple[Callable[..., Any], ...]:
    """The functions whose keyword arguments are the options of a source: its reader, and the function of a toy."""
    reader = reader_of(source)
    toy = (TOYS[str(source)],) if reader is _load_toy else ()
    return (*(() if reader is None else (reader,)), *toy)


def _check_source(source: object) -> None:
    if isinstance(source, (str, os.PathLike)) or is_frame(source) or is_huggingface(source):
        return
    if isinstance(source, Data):
        remedy = "it is loaded already: sd.train(model, data)"
    elif isinstance(source, Tensor) or is_array(source):
        remedy = (
            "an array needs no reader: sd.train(model, x), or sd.Data(train, test, sd.Description('x', x.shape[1:]))"
        )
    elif hasattr(source, "collect"):
        remedy = "compute it first, frame.collect()"
    else:
        remedy = array_remedy(source)
    raise TypeError(
        f"source must be the name of a data set, a path or a table in memory, got a {type(source).__name__}; {remedy}."
    )


def _text(source: object) -> str:
    """The name or path of a source; empty for a table in memory."""
    return "" if is_huggingface(source) or is_frame(source) else str(source)


def _suffix(name: str) -> str:
    """The suffix of a path in lower case; of a gzipped file the last two."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    return "".join(suffixes[-2:] if suffixes[-1:] == [".gz"] else suffixes[-1:])


def _load_digits(seed: int, test_fraction: float, *, binarize: float | str | None = None) -> Data:
    """Scikit-learn's handwritten digits, ``(1, 8, 8)``, integer values 0 ... 16, or bits.

    Args:
        seed, test_fraction: The split.
        binarize: As in `load_images`.
    """
    from sklearn.datasets import load_digits  # not at import: it takes a second

    data, target = load_digits(return_X_y=True)
    values = torch.as_tensor(data).to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = torch.as_tensor(target)
    train, test = split(len(values), test_fraction, seed)
    description = Description("digits", (1, 8, 8), bins=17, conditions=label_kind(_NUMERALS))
    data = Data(values[train], values[test], description, {LABEL: labels[train]}, {LABEL: labels[test]})
    return binarized(data, binarize, seed)


def _load_heartbeat(seed: int, test_fraction: float, *, n: int = 10_000, length: int = 20, period: int = 5) -> Data:
    """Sequences of bits with a pulse at every fifth place, which begin at a random place.

    Args:
        seed, test_fraction: Seed of the places, and the fraction of sequences that is held out.
        n: Number of sequences.
        length: Bits of a sequence.
        period: Places between two pulses.
    """
    check_integer("n", n)
    bits, phases = heartbeat(n, torch.Generator().manual_seed(check_seed(seed)), length=length, period=period)
    train, test = split(n, test_fraction, seed=None)
    description = Description("heartbeat", (length,), classes=2)
    return Data(bits[train], bits[test], description, {LABEL: phases[train]}, {LABEL: phases[test]})


def _load_toy(name: str, seed: int, test_fraction: float, *, n: int = 10_000, **options: Any) -> Data:
    """A two-dimensional toy distribution.

    Args:
        name: Its name.
        seed, test_fraction: Seed of the points, and the fraction of them that is held out.
        n: Number of points.
        **options: Of the toy.
    """
    check_integer("n", n)
    points, labels = TOYS[name](n, torch.Generator().manual_seed(check_seed(seed)), **options)
    train, test = split(n, test_fraction, seed=None)  # independent samples need no shuffling
    return Data(points[train], points[test], Description(name, (2,)), {LABEL: labels[train]}, {LABEL: labels[test]})


def _load_idx(
    name: str,
    labels: tuple[str, ...],
    seed: int,
    test_fraction: float,
    *,
    root: str | Path | None = None,
    binarize: float | str | None = None,
) -> Data:
    """Images from four IDX files, with the split and the labels that these hold.

    Args:
        name: Name of the data.
        labels: Names of the classes.
        seed, test_fraction: Not used for the split, which these data have.
        root: Folder of the files; None searches ``$SCORESDE_DATA/<name>``, then the folder of Debian's package.
        binarize: As in `load_images`.
    """
    del test_fraction  # these data have a split of their own
    folder = _find_folder(name, root)
    train, train_labels, test, test_labels = (
        torch.from_numpy(read_idx(_idx_path(folder, file))) for file in _IDX_FILES
    )
    description = Description(name, (1, *train.shape[1:]), bins=256, conditions=label_kind(labels))
    data = Data(train[:, None], test[:, None], description, {LABEL: train_labels}, {LABEL: test_labels})
    return binarized(data, binarize, seed)


def _find_folder(name: str, root: str | Path | None) -> Path:
    parents = [Path("/usr/share/datasets")]  # where Debian's dataset-* packages install
    if "SCORESDE_DATA" in os.environ:
        parents.insert(0, Path(os.environ["SCORESDE_DATA"]))
    folders = [parent / name for parent in parents] if root is None else [Path(root), Path(root) / name]
    for folder in folders:
        if _idx_path(folder, _IDX_FILES[0]).exists():
            return folder
    package = f", or (Debian, Ubuntu) apt-get install dataset-{name}" if name == "fashion-mnist" else ""
    raise FileNotFoundError(
        f"{name} needs {', '.join(_IDX_FILES)} (or .gz), not found in {', '.join(map(str, folders))}; "
        f"pass root=<their folder>, set SCORESDE_DATA to the parent of a folder named {name}{package}."
    )


def _idx_path(folder: Path, file: str) -> Path:
    compressed = folder / f"{file}.gz"
    return compressed if compressed.exists() else folder / file


def _options(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
FILES: dict[str, Callable[..., Data]] = {
    ".npy": load_file,
    ".npz": load_file,
    **{f".{kind}{gz}": load_table for gz in ("", ".gz") for kind in ("csv", "tsv", "txt")},
    ".parquet": load_table,
}
SOURCES: dict[str, Callable[..., Data]] = {
    "digits": _load_digits,
    "mnist": partial(_load_idx, "mnist", _NUMERALS),
    "fashion-mnist": partial(_load_idx, "fashion-mnist", _CLOTHES),
    "heartbeat": _load_heartbeat,
}
