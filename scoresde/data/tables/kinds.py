"""The kind of each column of a table, found from its cells: numeric, integer, category, date, constant, identifier.

Numbers of up to 6 decimals lie on a grid; so do continuous numbers of which some values occur often (rain that is
mostly 0), on one of a millionth of their spread. Values on a grid are dequantized.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np

from scoresde._core.suggest import unknown_name
from scoresde.data.tables.dates import are_dates, date_step
from scoresde.data.tables.notation import DATE_RULE, is_other_date, month_position, plain_number, remedies
from scoresde.data.tables.parse_columns import encode_classes, is_number

__all__ = ["KINDS", "FoundColumn", "category_texts", "checked_kinds", "find_kind", "find_kinds", "read_column"]

KINDS = ("numeric", "integer", "category", "date", "constant", "identifier")
_MOST_CATEGORIES = 100  # texts of a column that is a category unless the user says otherwise
_MANY = 20  # rows from which two different numbers are two categories, and a running count is one
_DIFFERENT = 0.9  # share of different texts from which they identify rows
_DECIMALS = 6
_ATOM = 0.01  # share of rows with one value from which a continuous column has ties
_IDENTIFIER = re.compile(r"(?:.*[_ .-])?(?i:id|uuid|guid|index|key|rowid|row)|.*[a-z](?:ID|Id)|Unnamed: \d+")
_SEPARATED = re.compile(r"[+-]?\d*(?:[.,;|\t ]+[+-]?\d*(?:[eE][+-]?\d+)?)+")
"""Numbers that were not split, or have a decimal comma: 1,5 or 1;2."""
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+")


class _Cells(Protocol):
    names: list[str]

    def missing(self, name: str) -> np.ndarray: ...
    def numbers(self, name: str) -> np.ndarray: ...
    def texts(self, name: str) -> list[str]: ...
    def type_of(self, name: str) -> str: ...
    def dates(self, name: str) -> tuple[np.ndarray, str]: ...


@dataclass(frozen=True, eq=False)
class FoundColumn:
    """A column that was read.

    Attributes:
        name: Its name.
        kind: One of `KINDS`.
        values: Numbers in data units, ``(n,)`` float64, NaN where missing; codes of a category. Empty for columns that
            are not modeled.
        texts: Of a category, in the order of its codes.
        step: Spacing of the grid of values, or 0.
        unit: Of dates, see `scoresde.data.tables.dates.parse_dates`; else empty.
        is_bool: Whether the categories are False and True of a file that has such a type.
        value: Of a constant.
    """

    name: str
    kind: str
    values: np.ndarray
    texts: tuple[str, ...] = ()
    step: float = 0.0
    unit: str = ""
    is_bool: bool = False
    value: Any = None

    @property
    def modeled(self) -> bool:
        """Whether it is a feature of the events."""
        return self.kind not in ("constant", "identifier")


def checked_kinds(kinds: object, names: Sequence[str]) -> dict[str, str]:
    """The option ``kinds`` after checks: column -> kind.

    Raises:
        TypeError: If it is no mapping.
        ValueError: If a column or a kind is unknown.
    """
    if not isinstance(kinds, Mapping):
        raise TypeError(f"kinds= takes columns and their kinds, got {kinds!r}; such as kinds={{'zip': 'category'}}.")
    for name, kind in kinds.items():
        if name not in names:
            raise ValueError(unknown_name("column in kinds=", str(name), names))
        if kind not in KINDS:
            raise ValueError(unknown_name(f"kind of column {name!r}", str(kind), KINDS))
    return dict(kinds)


def find_kind(table: _Cells, name: str) -> str:
    """The kind of a column, one of `KINDS`, from its cells that are not missing.

    Raises:
        ValueError: If most but not all cells are numbers, if numbers or dates are written in a notation that is not
            read, or texts are too many for categories.
    """
    present = np.flatnonzero(~table.missing(name))
    if not len(present):
        return "numeric"
    form, complete = table.type_of(name), len(present) == len(table.missing(name))
    if form == "date":
        return "constant" if complete and len(np.unique(table.dates(name)[0])) == 1 else "date"
    if form != "text":
        return _kind_of_numbers(table, name, present)
    column = table.texts(name)
    texts = [column[row] for row in present]
    distinct = set(texts)
    numbers = [text for text in distinct if is_number(text) or _DECIMAL_COMMA.fullmatch(text)]
    padded = any(re.fullmatch(r"0\d+", text) for text in distinct)  # 01234: a code, no number
    if len(numbers) == len(distinct) and not padded:
        return _kind_of_numbers(table, name, present)
    single = len(distinct) == 1 and complete
    if not single and all(map(is_other_date, distinct)):
        _refuse_dates(name, column, int(present[0]), distinct)
    separated = all(
        text in numbers or _SEPARATED.fullmatch(text) or (plain_number(text) and not single) for text in distinct
    )
    if not padded and (len(numbers) > len(distinct) / 2 or separated):
        table.numbers(name)  # the error names the first text that is no number
    if single:
        return "constant"
    if are_dates(list(distinct)):
        return "date"
    if len(distinct) > _DIFFERENT * len(texts):
        return "identifier"
    if len(distinct) > _MOST_CATEGORIES:
        raise ValueError(
            f"a column of texts must have at most {_MOST_CATEGORIES} different ones to be a category, {name!r} has "
            f"{len(distinct)} in {len(texts)} rows; leave it out with kinds={{{name!r}: 'identifier'}}, merge rare "
            f"texts, or keep all of them with kinds={{{name!r}: 'category'}}."
        )
    return "category"


def find_kinds(table: _Cells, names: Sequence[str], stated: Mapping[str, str]) -> dict[str, str]:
    """The kind of each column: the stated one, or that of `find_kind`.

    Raises:
        ValueError: As `find_kind`, of the first such column; it names the others too.
    """
    found = {name: stated.get(name) or _kind_or_error(table, name) for name in names}
    errors = {name: kind for name, kind in found.items() if isinstance(kind, ValueError)}
    if errors:
        first, *others = errors
        more = f" Further columns need such a decision: {', '.join(map(repr, others))}." if others else ""
        raise ValueError(f"{errors[first]}{more}")
    return {name: str(kind) for name, kind in found.items()}


def _kind_or_error(table: _Cells, name: str) -> str | ValueError:
    try:
        return find_kind(table, name)
    except ValueError as error:
        return error


def read_column(table: _Cells, name: str, rows: np.ndarray, kind: str) -> FoundColumn:
    """Reads a column as a kind.

    Args:
        table: The table.
        name: The column.
        rows: Numbers of the rows that are used, ``(n,)``.
        kind: Its kind.

    Raises:
        ValueError: If the cells are not of that kind.
    """
    missing = table.missing(name)
    present = rows[~missing[rows]]
    if kind == "identifier":
        return FoundColumn(name, kind, np.empty(0))
    if kind == "constant":
        return FoundColumn(name, kind, np.empty(0), value=_constant(table, name, present))
    if kind == "category":
        values = np.full(len(missing), np.nan)
        values[present], texts = encode_classes(name, category_texts(table, name, present), present)
        return FoundColumn(name, kind, values[rows], texts, is_bool=table.type_of(name) == "bool")
    if kind == "date":
        values, unit = table.dates(name)
        return FoundColumn(name, kind, values[rows], step=date_step(values[present], unit), unit=unit)
    values = table.numbers(name)[rows]
    step = _whole_step(name, values) if kind == "integer" else _step(values)
    return FoundColumn(name, kind, _rounded(values, step), step=step)


def category_texts(table: _Cells, name: str, present: np.ndarray) -> list[str]:
    """Texts of the cells; numbers that are written in several ways, as 1 and 1.0, in one."""
    texts = table.texts(name)
    distinct = {texts[row] for row in present}
    if not all(is_number(text) and not re.fullmatch(r"0\d+", text) for text in distinct):
        return texts
    if len({float(text) for text in distinct}) == len(distinct):
        return texts
    return [f"{float(text):.17g}" if is_number(text) else text for text in texts]


def _refuse_dates(name: str, texts: Sequence[str], row: int, distinct: set[str]) -> NoReturn:
    raise ValueError(
        f"{DATE_RULE}, {name!r} holds {texts[row]!r} at row {row} (rows count from 0); rewrite the column, with "
        f"pandas: pandas.to_datetime(table[{name!r}]{month_position(distinct)}).dt.date, {remedies(name)}"
    )


def _kind_of_numbers(table: _Cells, name: str, present: np.ndarray) -> str:
    try:
        values = table.numbers(name)[present]
    except ValueError:
        if _large_identifiers(table.texts(name), present):
            return "identifier"
        raise
    distinct = np.unique(values)
    if len(distinct) == 1 and len(present) == len(table.missing(name)):
        return "constant"
    if table.type_of(name) == "bool" or set(distinct.tolist()) <= {0.0, 1.0}:
        return "category"
    if len(distinct) == 2 and len(values) >= _MANY:
        return "category"
    if np.any(values != np.rint(values)):
        return "numeric"
    every_value_new = len(distinct) == len(values) >= _MANY
    running = len(distinct) == distinct[-1] - distinct[0] + 1
    return "identifier" if every_value_new and (running or _IDENTIFIER.fullmatch(name)) else "integer"


def _large_identifiers(texts: list[str], present: np.ndarray) -> bool:
    """Whether cells are whole numbers that are nearly all different; float64 does not hold some of them."""
    distinct = {texts[row] for row in present}
    many = len(present) >= _MANY and len(distinct) > _DIFFERENT * len(present)
    return many and all(re.fullmatch(r"[+-]?\d+", text) for text in distinct)


def _constant(table: _Cells, name: str, present: np.ndarray) -> Any:
    column = table.texts(name)
    distinct = {column[row] for row in present}
    if len(distinct) != 1:
        raise ValueError(f"kinds= says that {name!r} is constant, but it has {len(distinct)} values; leave that out.")
    text, form = distinct.pop(), table.type_of(name)
    if form == "bool":
        return text == "True"
    if form == "date" or not is_number(text) or re.fullmatch(r"0\d+", text):
        return text
    value = float(table.numbers(name)[present[0]])
    return int(value) if value.is_integer() and form != "float" and "." not in text else value


def _whole_step(name: str, values: np.ndarray) -> float:
    fractions = np.flatnonzero(~np.isnan(values) & (values != np.rint(values)))
    if len(fractions):
        raise ValueError(
            f"kinds= says that {name!r} holds integers, got {values[fractions[0]].item()}; state numeric, or leave "
            "it out."
        )
    return 1.0


def _step(values: np.ndarray) -> float:
    """Spacing of the grid of real numbers; 0 if they are continuous."""
    present = values[~np.isnan(values)]
    largest = float(np.abs(present).max(initial=0.0))
    single = np.array_equal(present, present.astype(np.float32))
    tolerance = largest * float(np.finfo(np.float32 if single else np.float64).eps) * 2
    for decimals in range(_DECIMALS + 1):
        if tolerance < 0.1**decimals / 10 and np.all(np.abs(present - np.round(present, decimals)) <= tolerance):
            return float(f"1e-{decimals}")  # 1.0 for whole numbers that the user calls numeric
    _, counts = np.unique(present, return_counts=True)
    if counts.max(initial=0) <= max(1.0, _ATOM * len(present)):
        return 0.0
    spread = float(np.subtract(*np.quantile(np.unique(present), (0.75, 0.25))))
    return float(f"1e{int(np.floor(np.log10(spread))) - 6}")


def _rounded(values: np.ndarray, step: float) -> np.ndarray:
    """Values on their grid; decimals as the nearest floats."""
    if not step:
        return values
    inverse = round(1 / step) if step < 1 else 0
    return np.rint(values * inverse) / inverse if inverse else np.rint(values / step) * step
