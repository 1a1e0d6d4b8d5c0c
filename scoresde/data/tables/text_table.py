"""Delimited text files as columns of text: encoding, compression, delimiter and header line are found or stated."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scoresde.data.tables.column_names import check_unique, name_blanks
from scoresde.data.tables.dates import parse_dates
from scoresde.data.tables.missing_cells import MISSING_TEXTS, is_missing
from scoresde.data.tables.parse_columns import encode_classes, parse_numbers
from scoresde.data.tables.text_layout import find_delimiter, has_header

__all__ = ["TextTable"]

_BOMS = (  # utf-32 first: its mark begins with that of utf-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


class TextTable:
    """A delimited text file as columns of text.

    Args:
        path: The file; gzip is recognized by its first bytes.
        delimiter: Separator of the fields; None finds it. A space stands for any number of spaces.
        encoding: Encoding of the text; None is UTF-8, or what a byte order mark states.
        header: Whether the first line names the columns; None finds out. Without a header they are x0, x1, ...
        decimal: The decimal mark, ``"."`` or ``","``.
        missing_texts: Texts that stand for a missing cell.

    Raises:
        ValueError: If the text cannot be decoded, the delimiter or the header is ambiguous, rows differ in length, or
            two columns have the same name.
    """

    def __init__(
        self,
        path: Path,
        delimiter: str | None = None,
        encoding: str | None = None,
        header: bool | None = None,
        decimal: str = ".",
        missing_texts: Sequence[str] = MISSING_TEXTS,
    ) -> None:
        if not isinstance(decimal, str) or decimal not in (".", ","):
            raise ValueError(f"decimal must be '.' or ',', got {decimal!r}.")
        text = _read_text(path, encoding)
        if stated := re.match(r"sep=(.)\r?\n", text):  # written by Excel
            text, delimiter = text[stated.end() :], delimiter or stated[1]
        self.delimiter = find_delimiter(path, text, delimiter)
        self.decimal, self._missing_texts = decimal, missing_texts
        rows = _rows(path, text, self.delimiter)
        if not rows:
            raise ValueError(f"the first line of {path} must name the columns, got nothing; write a table.")
        for i, row in enumerate(rows):
            if len(row) != len(rows[0]):
                raise ValueError(
                    f"every row of {path} must have {len(rows[0])} fields, got {len(row)} at row {i - 1} (rows count "
                    "from 0 below the first line); check delimiter= and quotes."
                )
        if has_header(path, rows, header, missing_texts, decimal):
            self.names = name_blanks(rows.pop(0))
            check_unique(self.names, "rename one of them, or pass header=False if the first line is data")
        else:
            self.names = [f"x{i}" for i in range(len(rows[0]))]
        self.rows = len(rows)
        self._columns = dict(zip(self.names, zip(*rows))) if rows else dict.fromkeys(self.names, ())

    def missing(self, name: str) -> np.ndarray:
        """Whether each cell of a column is missing, ``(N,)``."""
        return is_missing(self._columns[name], self._missing_texts)

    def numbers(self, name: str) -> np.ndarray:
        """A column as ``float64``, ``(N,)``; NaN in missing cells."""
        return parse_numbers(name, self._columns[name], self.missing(name), self.decimal)

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row."""
        return [value.strip() for value in self._columns[name]]

    def cells(self, name: str) -> list[str]:
        """The fields of a column as they are in the file, without quotes."""
        return list(self._columns[name])

    def type_of(self, name: str) -> str:
        """The type of a column that the file states: a text file states none."""
        return "text"

    def dates(self, name: str) -> tuple[np.ndarray, str]:
        """A column as days or seconds, ``(N,)``, and their unit; see `parse_dates`."""
        return parse_dates(name, self.texts(name), self.missing(name))

    def classes(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The class codes 0, 1, ... of the given rows, ``(M,)``, and the names of the classes."""
        return encode_classes(name, self.texts(name), rows)


def _rows(path: Path, text: str, delimiter: str) -> list[list[str]]:
    """The fields of each row; a blank line is a missing cell in a file of one column, and no row in any other."""
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True))
    except csv.Error as error:
        raise ValueError(f"{path} must be a table in UTF-8, got: {error}; check delimiter= and quotes.") from error
    while rows and not rows[-1]:
        rows.pop()
    one_column = max(map(len, rows), default=0) == 1
    return [row or [""] for row in rows if row or one_column]


def _read_text(path: Path, encoding: str | None) -> str:
    if encoding is not None and not isinstance(encoding, str):
        raise TypeError(f"encoding must be text, such as 'latin-1', got {encoding!r}.")
    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} must be a complete gzip file, got: {error}; write it again.") from error
    text = _decode(path, content, encoding).removeprefix("\ufeff")
    if "\0" in text:
        raise ValueError(
            f"{path} must be text, got a zero byte; if it is UTF-16, pass encoding='utf-16-le' or 'utf-16-be'."
        )
    return text


def _decode(path: Path, content: bytes, encoding: str | None) -> str:
    """The text in the stated encoding, that of the byte order mark, or UTF-8."""
    marked = next((name for mark, name in _BOMS if content.startswith(mark)), None)
    name = encoding or marked or "utf-8"
    try:
        codec = codecs.lookup(name).name
        if marked and codec[:5] != codecs.lookup(marked).name[:5]:
            raise ValueError(f"{path} begins with the mark of {marked.upper()}, got {name!r}; leave encoding= out.")
        return content.decode(name)
    except LookupError:
        raise ValueError(
            f"encoding must be one that Python knows, got {encoding!r}; such as 'latin-1', 'cp1252', 'utf-16'."
        ) from None
    except UnicodeError as error:
        raise ValueError(
            f"{path} must be a table in {name.upper()}, got: {error}; pass the right one with encoding=, such as "
            "'latin-1', 'cp1252' or 'utf-16'."
        ) from error
