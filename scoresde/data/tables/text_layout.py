"""Layout of a delimited text file: its delimiter, and whether its first line names the columns."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import warnings
from collections.abc import Sequence
from pathlib import Path

from scoresde.data.tables.missing_cells import is_missing
from scoresde.data.tables.parse_columns import is_number

__all__ = ["find_delimiter", "has_header", "splits_into_rows"]

_CANDIDATES = (",", "\t", ";", "|")
_WRITTEN = {"\\t": "\t", "tab": "\t", "space": " "}  # as one types them on a command line
_SAMPLE = 200  # rows that are read to find the delimiter
_HEAD = 1 << 20  # characters that hold them


def find_delimiter(path: Path, text: str, delimiter: str | None) -> str:
    r"""The delimiter that is stated, or else the one that gives each of the first 200 rows as many fields, at least 2.

    Args:
        path: The file, for its suffix and error messages.
        text: Its content.
        delimiter: The delimiter, or None. ``\t``, ``tab`` and ``space`` are understood.

    Returns:
        One character; a comma, or a tab in a .tsv file, for a table of one column.

    Raises:
        TypeError: If ``delimiter`` is no text.
        ValueError: If it is not one character, or several delimiters are possible.
    """
    if delimiter is not None:
        return _stated(delimiter)
    usual = "\t" if ".tsv" in path.name.lower() else ","
    widths = {mark: _widths(text, mark) for mark in _CANDIDATES}
    regular = [mark for mark, counts in widths.items() if len(set(counts)) == 1 and counts[0] > 1]
    if not regular:
        if _separated_by_spaces(text, widths):
            return " "
        regular = [mark for mark, counts in widths.items() if counts and counts[0] > 1]  # an error names the row
    if len(regular) > 1 and not (usual == "\t" and usual in regular):
        raise ValueError(
            f"the delimiter of {path} must be clear, but its rows could be split at any of {regular}; state it with "
            "delimiter=."
        )
    return regular[0] if len(regular) == 1 else usual


def splits_into_rows(text: str) -> bool:
    """Whether a text of several lines looks like a table: some delimiter gives each row as many fields, at least 2."""
    widths = {mark: _widths(text, mark) for mark in _CANDIDATES}
    if any(len(counts) > 1 and len(set(counts)) == 1 and counts[0] > 1 for counts in widths.values()):
        return True
    return _separated_by_spaces(text, widths)


def _stated(delimiter: str) -> str:
    if not isinstance(delimiter, str):
        raise TypeError(f"delimiter must be one character, got {delimiter!r}; pass text, such as delimiter=';'.")
    mark = _WRITTEN.get(delimiter, delimiter)
    if len(mark) != 1 or mark in '"\r\n\0' or mark.isalnum():
        raise ValueError(f"delimiter must be one character, no letter, digit or quote, got {delimiter!r}; pass ';'.")
    return mark


def _sample(text: str, delimiter: str) -> list[list[str]]:
    """The first rows that are not blank, up to one whose quotes do not fit."""
    head = text[:_HEAD]
    head = head if len(head) == len(text) else head[: head.rfind("\n") + 1]
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # where quotes do not fit
        rows.extend(itertools.islice((row for row in reader if row), _SAMPLE))
    return rows


def _widths(text: str, delimiter: str) -> list[int]:
    return [len(row) for row in _sample(text, delimiter)]


def _separated_by_spaces(text: str, widths: dict[str, list[int]]) -> bool:
    """Whether only spaces split the first row, and they split every row into as many fields, numbers in the last."""
    rows = _sample(text, " ")
    if any(counts and counts[0] > 1 for counts in widths.values()) or len({len(row) for row in rows}) != 1:
        return False
    return len(rows[0]) > 1 and all(map(is_number, rows[-1]))


def has_header(
    path: Path, rows: Sequence[Sequence[str]], header: bool | None, missing_texts: Sequence[str], decimal: str = "."
) -> bool:
    """Whether the first row names the columns: as stated, or because it holds no number.

    A first row of numbers is data, with a warning.

    Args:
        path: The file, for messages.
        rows: All rows.
        header: True or False states it; None decides.
        missing_texts: Texts that stand for a missing cell.
        decimal: The decimal mark.

    Raises:
        TypeError: If ``header`` is not True, False or None.
        ValueError: If the first row is blank, holds numbers beside other texts, counts 0, 1, ... as names may, or
            holds values that occur again below it.
    """
    if header is not None:
        if not isinstance(header, bool):
            raise TypeError(f"header must be True, False or None, got {header!r}; to name columns, use columns=.")
        return header
    first = [cell.strip() for cell in rows[0]]
    if _names_as_pandas(first, rows):
        return True
    if not any(first):
        raise ValueError(f"the first line of {path} must name the columns, got nothing; write names or header=False.")
    numbers = [cell for cell in first if is_number(cell.replace(decimal, "."))]
    absent = is_missing(first, missing_texts)
    others = [cell for cell, blank in zip(first, absent) if not blank and cell not in numbers]
    if not numbers:
        if others and not _recurs(first, rows):
            return True
        reason = "holds values that occur below it" if others else "holds markers of missing cells only"
    elif others:
        reason = "holds numbers beside texts"
    elif _counts_up(numbers):
        reason = "counts up, as names of columns without a name do"
    else:
        warnings.warn(
            f"the first line of {path} holds numbers, so it is data and the columns are called x0 ... "
            f"x{len(first) - 1}; pass header=False to say so, or header=True if these are names.",
            stacklevel=2,
        )
        return False
    raise ValueError(
        f"the first line of {path} must be clearly names or clearly data, but {first[:5]} {reason}; pass header=True "
        "if it names the columns, header=False if it is data."
    )


def _names_as_pandas(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether pandas wrote the first row for columns without names: a blank above the row numbers, then 0, 1, ..."""
    names_count = len(first) > 1 and list(first) == ["", *map(str, range(len(first) - 1))]
    return names_count and len(rows) > 1 and all(row[0].strip() == str(i) for i, row in enumerate(rows[1:]))


def _recurs(first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether every text of the first row occurs in its column below."""
    return all(not cell or any(row[i].strip() == cell for row in rows[1:]) for i, cell in enumerate(first))


def _counts_up(numbers: Sequence[str]) -> bool:
    """Whether texts are consecutive integers, as in 0, 1, 2 or 2019, 2020; a single one must be 0."""
    if not all(number.isdecimal() for number in numbers):
        return False
    values = [int(number) for number in numbers]
    return values == list(range(values[0], values[0] + len(values))) and (len(values) > 1 or values == [0])
