"""Names of a table's columns: options that take names, columns without a name, and checks of both."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from scoresde._core.suggest import unknown_name

__all__ = ["check_names", "check_unique", "feature_names", "name_blanks", "one_name", "several_names"]

_NAMELESS = re.compile(r"\s*|Unnamed: [0-9.]+|__index_level_\d+__")  # blank, as pandas reads it, as it writes Parquet


class _HasColumns(Protocol):
    names: list[str]

    def missing(self, name: str) -> np.ndarray: ...
    def texts(self, name: str) -> list[str]: ...


def several_names(option: str, value: Any) -> tuple[str, ...] | None:
    """The value of an option that takes names: one text is one name, None stays None.

    Args:
        option: The option, for the error message.
        value: A name, or a sequence of names.

    Raises:
        TypeError: If it is neither.
    """
    if value is None or isinstance(value, str):
        return None if value is None else (value,)
    is_array = hasattr(value, "tolist") and not isinstance(value, Tensor)
    names = value.tolist() if is_array else value  # NumPy arrays, pandas indexes
    if not isinstance(names, (Sequence, set, frozenset, dict)) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{option}= takes a name or names, got {value!r}; pass texts, such as {option}=('a', 'b').")
    return tuple(sorted(names) if isinstance(names, (set, frozenset)) else names)


def one_name(option: str, value: Any) -> str | None:
    """The value of an option that takes one name, which may come in a sequence of length 1; None stays None.

    Raises:
        TypeError: If it is not one name.
    """
    names = (value,) if isinstance(value, str) else value
    if names is None:
        return None
    if not isinstance(names, Sequence) or len(names) != 1 or not isinstance(names[0], str):
        raise TypeError(f"{option}= takes one name, got {value!r}; pass one text, such as {option}='a'.")
    return names[0]


def name_blanks(names: Sequence[str]) -> list[str]:
    """The names, where a blank one becomes ``Unnamed: i`` with its position, as in pandas."""
    return [name.strip() or f"Unnamed: {i}" for i, name in enumerate(names)]


def check_unique(names: Sequence[str], remedy: str = "rename one of them") -> None:
    """Raises a ValueError if two columns have the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"each column must have its own name, {names.count(name)} are called {name!r}; {remedy}.")
        seen.add(name)


def feature_names(table: _HasColumns, label: str | None, conditions: Sequence[str] = ()) -> list[str]:
    """All columns except label, conditions and columns without a name that only number the rows, with a warning.

    Raises:
        ValueError: If a column without a name holds anything else.
    """
    names = [name for name in table.names if name != label and name not in conditions]
    nameless = [name for name in names if _NAMELESS.fullmatch(name)]
    for name in nameless:
        content = _without_content(table, name)
        if content is None:
            others = tuple(n for n in names if n not in nameless)
            columns = f"columns={others}" if 0 < len(others) <= 8 else "columns="
            raise ValueError(
                f"a column must have a name, the one at position {table.names.index(name)} (from 0) has none; name it "
                f"in the file, leave it out with {columns}, or keep it with columns=({name!r}, ...)."
            )
        warnings.warn(
            f"the column without a name at position {table.names.index(name)} {content} and is left out; to keep it, "
            f"list it in columns= as {name!r}.",
            stacklevel=2,
        )
    return [name for name in names if name not in nameless]


def _without_content(table: _HasColumns, name: str) -> str | None:
    """What a column that says nothing about its rows holds; None for any other column."""
    missing, texts = table.missing(name), table.texts(name)
    if len(texts) and missing.all():
        return "is empty"
    for first in (0, 1):  # pandas counts from 0, R from 1
        if len(texts) and all(text == str(i) for i, text in enumerate(texts, first)):
            return f"counts the rows from {first}"
    return None


def check_names(
    table: _HasColumns, features: Sequence[str], label: str | None, categories: Sequence[str], hint: str = ""
) -> None:
    """Checks the columns that are to be read.

    Args:
        table: The table.
        features: The features.
        label: The label.
        categories: The features that hold text.
        hint: End of the error about an unknown column.

    Raises:
        ValueError: If there is no feature, or a column is unknown or used twice, or a category is no feature.
    """
    if not features:
        raise ValueError(f"a table needs at least one feature, got columns=(); it has {', '.join(table.names)}.")
    labels = [] if label is None else [label]
    for name in (*features, *labels, *categories):
        if name not in table.names:
            raise ValueError(unknown_name("column", name, table.names) + hint)
    for name in features:
        if list(features).count(name) > 1 or name in labels:
            raise ValueError(
                f"each column may be used once, {name!r} is named twice; name it in columns= or as label=."
            )
    for name in categories:
        if name not in features:
            raise ValueError(f"categories= must name features, {name!r} is not one of them; add it to columns=.")
