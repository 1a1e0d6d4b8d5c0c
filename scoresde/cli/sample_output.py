"""Output files of samples: a PNG with images or strips, ``.npz`` and ``.npy`` with numbers, a text, or a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde._core.arrays import write_npz
from scoresde.cli.outputs import atomic_output

if TYPE_CHECKING:
    import numpy as np

    from scoresde.data import Description
    from scoresde.model import Model
    from scoresde.sampling import Samples

__all__ = ["FORMATS", "check_output", "default_output", "joined_texts", "output_format", "parse_grid", "write_samples"]

FORMATS = ("png", "csv", "tsv", "npz", "npy", "txt", "parquet")
"""Formats of an output file, which are also its suffixes."""

_DASHES = 24 * "-"
_TABLES = {"csv": ",", "tsv": "\t", "parquet": ""}  # with the separator of text


def default_output(model: Model) -> str:
    """A file name that suits the model's samples."""
    from scoresde.plots.image_grid import is_image

    if is_image(model.event_shape or ()):
        return "grid.png"
    if model.data is not None and model.data.classes is not None:
        return "samples.npy" if model.data.alphabet is None or len(model.data.shape) > 1 else "samples.txt"
    is_table = model.data is not None and model.data.columns is not None
    return "samples.csv" if is_table else "samples.npz"


def output_format(out: Path | None, name: str | None) -> str | None:
    """The format of an output file, one of `FORMATS`: ``name``, else that of the suffix; None without a file.

    Raises:
        ValueError: If there is no such format, or ``name`` comes without a file.
    """
    from scoresde._core.suggest import unknown_name

    if name is not None and out is None:
        raise ValueError(f"--format is that of the file of --out, got {name} without --out; name a file.")
    if out is None:
        return None
    chosen = out.suffix.lower().removeprefix(".") if name is None else name.lower().removeprefix(".")
    if chosen not in FORMATS:
        if name is not None:
            raise ValueError(unknown_name("--format", name, FORMATS))
        raise ValueError(
            f"--out must end in .{', .'.join(FORMATS)}, got {out}; .npz takes data of every shape. Or name the format: "
            "--format npz."
        )
    return chosen


def parse_grid(text: str | None) -> tuple[int, int] | None:
    """Rows and columns of ``"8x8"``; None for None.

    Raises:
        ValueError: If the text has another form.
    """
    if text is None:
        return None
    rows, _, columns = text.lower().replace("×", "x").partition("x")
    if not (rows.strip().isdecimal() and columns.strip().isdecimal() and int(rows) and int(columns)):
        raise ValueError(f"--grid takes rows x columns, such as 8x8, got {text!r}.")
    return int(rows), int(columns)


def check_output(kind: str | None, model: Model) -> None:
    """Refuses a format that the model's samples do not have, before anything is sampled.

    Raises:
        ValueError: If ``kind`` is png and the model's events are neither images nor short sequences of categories, txt
            and they have no alphabet, or a table and they have several axes.
        ModuleNotFoundError: If ``kind`` is parquet and pyarrow is missing.
    """
    from scoresde.plots.image_grid import is_image

    shape = model.event_shape or ()
    if kind == "png" and not is_image(shape) and not _is_strip(shape, model.data):
        raise ValueError(f"a .png shows images, got events of shape {model.event_shape}; write them as .npz.")
    if kind == "txt" and (model.data is None or model.data.alphabet is None or len(shape) > 1):
        raise ValueError(
            f"a .txt holds sequences of an alphabet, got events of shape {model.event_shape} without one; write them "
            "as .npz."
        )
    if kind in _TABLES and len(shape) > 1:
        raise ValueError(f"a .{kind} holds a table, got events of shape {model.event_shape}; write them as .npz.")
    if kind == "parquet":
        from scoresde.data.tables.columns import arrow_table

        arrow_table({})


def write_samples(out: Path, samples: Samples, kind: str | None = None, grid: tuple[int, int] | None = None) -> None:
    """Writes samples.

    Args:
        out: The file.
        samples: What is written, in data units. A PNG is a grid of images, or has a strip for each sequence of
            categories. A text has a sequence in each line, or if it holds lines itself between lines of dashes. A
            ``.npy`` has the array alone. A table has the columns of
            `Samples.columns`. A ``.npz`` has the arrays ``x``, ``tau`` and ``nfe``; ``labels`` if classes were drawn;
            for a model of a table ``columns``, their names, and ``table``, one record per sample; with a trajectory
            ``trajectory`` (model units) and ``taus``.
        kind: One of `FORMATS`; None takes that of the suffix.
        grid: Rows and columns of a PNG; None for as many columns as rows.
    """
    kind = output_format(out, kind)
    with atomic_output(out) as path:
        if kind == "png" and _is_strip(tuple(samples.x.shape[1:]), samples.description):
            from scoresde.plots.strips import save_strips

            assert samples.description is not None
            assert samples.description.classes is not None
            save_strips(path, _values(samples), samples.description.classes)
        elif kind == "npy":
            import numpy as np

            with path.open("wb") as file:
                np.save(file, _values(samples), allow_pickle=False)
        elif kind == "txt":
            path.write_text(joined_texts(samples.texts()), encoding="utf-8")
        elif kind == "png":
            from scoresde.plots.image_grid import save_image_grid

            save_image_grid(path, _values(samples), samples.description, *(grid or (None, None)))
        elif kind == "parquet":
            import pyarrow.parquet

            from scoresde.data.tables.columns import arrow_table

            pyarrow.parquet.write_table(arrow_table(samples.columns()), path)
        elif kind in _TABLES:
            _write_text(path, samples.columns(), _TABLES[kind])
        else:
            _write_arrays(path, samples)


def joined_texts(texts: list[str]) -> str:
    """Texts one in each line; between lines of dashes if one of them has several lines."""
    if any("\n" in text for text in texts):
        return "".join(f"{text}\n{_DASHES}\n" for text in texts)
    return "".join(f"{text}\n" for text in texts)


def _is_strip(shape: tuple[int, ...], description: Description | None) -> bool:
    from scoresde.plots.strips import is_strip

    return description is not None and description.classes is not None and is_strip(shape)


def _values(samples: Samples) -> np.ndarray:
    return (samples.x if samples.description is None else samples.data).cpu().numpy()


def _write_text(path: Path, columns: dict[str, np.ndarray], delimiter: str) -> None:
    """A delimited text file. Floats have the fewest digits that read back as the same number in their own type."""
    values = [column.tolist() if column.dtype.kind == "U" else column for column in columns.values()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(value) for value in row] for row in zip(*values, strict=True))


def _cell(value: Any) -> str:
    """A value as text; a missing number is empty."""
    return "" if value != value else str(value)


def _write_arrays(path: Path, samples: Samples) -> None:
    import numpy as np

    arrays = {"x": _values(samples), "tau": np.asarray(samples.tau), "nfe": np.asarray(samples.nfe)}
    if samples.labels is not None:
        arrays["labels"] = samples.labels.cpu().numpy()
    if samples.description is not None and samples.description.columns is not None:
        columns = samples.columns()
        records = np.empty(len(samples.x), [(name, column.dtype) for name, column in columns.items()])
        for name, column in columns.items():
            records[name] = column
        arrays |= {"columns": np.array(samples.description.columns.names), "table": records}
    if samples.trajectory is not None:
        arrays |= {"trajectory": samples.trajectory.cpu().numpy(), "taus": np.asarray(samples.taus)}
    with path.open("wb") as file:  # np.savez appends .npz to other names
        write_npz(file, arrays)
