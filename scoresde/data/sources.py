"""Where data come from: ``load(source)`` finds them by name or path and answers with ``Data`` in data units."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scoresde._core.suggest import unknown_name
from scoresde.data.arrays import load_file
from scoresde.data.dataset import Data, split
from scoresde.data.description import Description
from scoresde.data.huggingface import is_huggingface, load_huggingface
from scoresde.data.idx import read_idx
from scoresde.data.image_folder import load_images
from scoresde.data.tables import load_table
from scoresde.data.toys import TOYS

__all__ = ["FILES", "SOURCES", "load_data", "reader_of"]

_CLOTHES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_NUMERALS = tuple("0123456789")


def load_data(source: str | Path | object, *, seed: int = 0, test_fraction: float = 0.2, **options: Any) -> Data:
    """Loads data by name or from a file.

    - ``"digits"``: scikit-learn's 1797 handwritten digits, ``(1, 8, 8)``, 17 levels.
    - ``"mnist"``, ``"fashion-mnist"``: 70 000 images, ``(1, 28, 28)``, 256 levels, in their own split, from four IDX
      files, gzipped or not. Option ``root``: their folder; else ``$SCORESDE_DATA/<name>``, else where Debian has them.
    - a toy in the plane, such as ``"ring"``: options ``n`` (10 000, both parts together) and the toy's own.
    - a path that ends in ``.npy`` or ``.npz``: the options of ``scoresde.data.load_file``.
    - a path that ends in ``.csv``, ``.tsv`` or ``.parquet``: the options of ``scoresde.data.load_table``.
    - ``"hf:<name>"``, or a data set of the package ``datasets``: the options of ``scoresde.data.load_huggingface``.
    - a folder of pictures: the options of ``scoresde.data.load_images``.

    Scaling: quantized data fill ``[-1, 1)``; toys keep their coordinates; files without ``bins`` are standardized,
    tables by column.

    Args:
        source: Name or path, or a ``datasets.Dataset`` or ``DatasetDict``.
        seed: Fixes the split and a toy's draw. Data that come split do not use it.
        test_fraction: Share of test events, rounded up, in ``[0, 1)``. Data that come split do not use it.
        **options: As above.

    Returns:
        Data in data units.

    Raises:
        ValueError: If the name or an option is unknown, or the data are malformed or not as described.
        FileNotFoundError: If a file is missing; the error says where it was looked for and what to install.
        ModuleNotFoundError: If the package that reads the source is missing; the error names the extra.
    """
    name = "" if is_huggingface(source) else str(source)
    read = reader_of(source)
    if read is load_huggingface:
        loaded = source if is_huggingface(source) else name.removeprefix("hf:")
        name = name if isinstance(source, str) else type(source).__name__
        reader, known = partial(load_huggingface, loaded), _options(load_huggingface)
    elif read is _toy:
        reader, known = partial(_toy, name), _options(_toy) + _options(TOYS[name])
    elif name in SOURCES:
        reader, known = SOURCES[name], _options(SOURCES[name])
    elif read is not None:
        reader, known = partial(read, name), _options(read)
    else:
        ends = f" A path must be a folder of pictures, or end in {', '.join(FILES)}; hf:<name> is Hugging Face's."
        raise ValueError(unknown_name("data source", name, (*SOURCES, *TOYS)) + ends)
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(f"option of {name!r}", option, ("seed", "test_fraction", *known)))
    return reader(seed, test_fraction, **options)


def reader_of(source: str | Path | object) -> Callable[..., Data] | None:
    """What `load` reads a source with; None of what it does not know."""
    name = "" if is_huggingface(source) else str(source)
    if Path(name).suffix in FILES:
        return FILES[Path(name).suffix]
    if is_huggingface(source) or name.startswith("hf:"):
        return load_huggingface
    if name in TOYS:
        return _toy
    return SOURCES.get(name, load_images if Path(name).is_dir() else None)


def _digits(seed: int, test_fraction: float) -> Data:
    from sklearn.datasets import load_digits  # not at import: it takes a second

    data, target = load_digits(return_X_y=True)
    levels = torch.as_tensor(data).to(torch.uint8).reshape(-1, 1, 8, 8)
    labels = torch.as_tensor(target)
    train, test = split(len(levels), test_fraction, seed)
    description = Description("digits", (1, 8, 8), bins=17, labels=_NUMERALS)
    return Data(levels[train], levels[test], description, labels[train], labels[test])


def _toy(name: str, seed: int, test_fraction: float, *, n: int = 10_000, **options: Any) -> Data:
    points, labels = TOYS[name](n, torch.Generator().manual_seed(seed), **options)
    train, test = split(n, test_fraction, seed=None)  # independent draws need no shuffling
    return Data(points[train], points[test], Description(name, (2,)), labels[train], labels[test])


def _idx(name: str, names: tuple[str, ...], seed: int, test_fraction: float, *, root: str | Path | None = None) -> Data:
    del seed, test_fraction  # these data come split
    folder = _folder(name, root)
    train, train_labels, test, test_labels = (torch.from_numpy(read_idx(_find(folder, file))) for file in _IDX_FILES)
    description = Description(name, (1, *train.shape[1:]), bins=256, labels=names)
    return Data(train[:, None], test[:, None], description, train_labels.long(), test_labels.long())


def _folder(name: str, root: str | Path | None) -> Path:
    shared = [Path("/usr/share/datasets")]  # where Debian's dataset-* packages install
    if "SCORESDE_DATA" in os.environ:
        shared.insert(0, Path(os.environ["SCORESDE_DATA"]))
    folders = [base / name for base in shared] if root is None else [Path(root), Path(root) / name]
    for folder in folders:
        if _find(folder, _IDX_FILES[0]).exists():
            return folder
    package = f", or (Debian, Ubuntu) apt-get install dataset-{name}" if name == "fashion-mnist" else ""
    raise FileNotFoundError(
        f"{name} needs {_IDX_FILES[0]} (or .gz) and its three kin, found in none of {', '.join(map(str, folders))}; "
        f"pass root=<their folder>, set SCORESDE_DATA to the folder above one named {name}{package}."
    )


def _find(folder: Path, file: str) -> Path:
    packed = folder / f"{file}.gz"
    return packed if packed.exists() else folder / file


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
    ".csv": load_table,
    ".tsv": load_table,
    ".parquet": load_table,
}
SOURCES: dict[str, Callable[..., Data]] = {
    "digits": _digits,
    "mnist": partial(_idx, "mnist", _NUMERALS),
    "fashion-mnist": partial(_idx, "fashion-mnist", _CLOTHES),
}
