"""Missing cells: what counts as missing, how many there are in which column, and the rows that are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from scoresde._core.suggest import unknown_name

__all__ = ["MISSING_TEXTS", "MissingCells", "check_choice", "is_missing"]

MISSING_TEXTS = ("", "NA", "N/A", "<NA>", "#N/A", "NaN", "null", "None", "?")
_CHOICES = ("refuse", "drop", "mask")
_SHOWN = 12
_ENDINGS = {
    "a table": "fill them, or leave those columns out of columns=. If such a text is a value, name the texts that are "
    "missing with missing_texts=.",
    "an array": "or fill them.",
}
_CHUNK = 1 << 22  # values that are read at once: a memory-mapped file need not fit into memory


def is_missing(texts: Sequence[str | None], markers: Sequence[str] = MISSING_TEXTS) -> np.ndarray:
    """Whether each text stands for a missing cell, ``(N,)``: it is blank, None or a marker, in upper or lower case."""
    lower = {marker.strip().lower() for marker in markers} | {""}
    absent = {text for text in set(texts) if text is None or text.strip().lower() in lower}
    return np.fromiter((text in absent for text in texts), bool, len(texts))


def check_choice(missing: str) -> None:
    """Checks the option ``missing`` of a reader.

    Raises:
        ValueError: If there is no such choice.
    """
    if not isinstance(missing, str) or missing not in _CHOICES:
        raise ValueError(unknown_name("choice missing=", str(missing), _CHOICES))


@dataclass(frozen=True, eq=False)
class MissingCells:
    """The missing cells of a table or an array of events.

    Attributes:
        incomplete: Whether a row has a missing cell, ``(N,)``.
        empty: Whether all features of a row are missing, ``(N,)``.
        counts: Number of missing cells of each column that has any, the label included.
        unlabeled: Whether the label of a row is missing, ``(N,)``; None without labels.
        label: Name of the column of labels, or None.
        first: The first missing cell, as text.
        source: ``"a table"`` or ``"an array"``.
    """

    incomplete: np.ndarray
    empty: np.ndarray
    counts: dict[str, int]
    unlabeled: np.ndarray | None = None
    label: str | None = None
    first: str = ""
    source: str = "a table"

    @classmethod
    def of_columns(
        cls, features: Mapping[str, np.ndarray], label: str | None = None, unlabeled: np.ndarray | None = None
    ) -> MissingCells:
        """The missing cells of a table.

        Args:
            features: Whether each cell is missing, ``(N,)`` for each feature.
            label: Name of the column of labels, or None.
            unlabeled: Whether each label is missing, ``(N,)``, or None.
        """
        columns = {**features, **({} if label is None or unlabeled is None else {label: unlabeled})}
        rows = len(next(iter(columns.values()), ()))
        incomplete, empty = np.zeros(rows, bool), np.full(rows, bool(features))
        for mask in columns.values():
            incomplete |= mask
        for mask in features.values():
            empty &= mask
        counts = {name: int(mask.sum()) for name, mask in columns.items() if mask.any()}
        first = ""
        if counts:
            row = int(incomplete.argmax())
            column = next(name for name, mask in columns.items() if mask[row])
            first = f"the first in column {column!r} at row {row}, rows count from 0"
        return cls(incomplete, empty, counts, unlabeled, label, first)

    @classmethod
    def of_events(
        cls, events: Tensor, labels: Tensor | None = None, names: Sequence[str] | None = None
    ) -> MissingCells:
        """The missing values (NaN) of events ``(N, *D)`` and of their labels ``(N,)``.

        Args:
            events: Any device.
            labels: Floating, or None.
            names: Names of the entries of an event ``(D,)``; None calls them x[0], x[1], ...
        """
        n, size = len(events), max(1, events[:1].numel())
        incomplete, empty, counts = np.zeros(n, bool), np.zeros(n, bool), np.zeros(size, np.int64)
        for start in range(0, n if events.is_floating_point() else 0, max(1, _CHUNK // size)):
            rows = slice(start, start + max(1, _CHUNK // size))
            mask = events[rows].isnan().reshape(-1, size).cpu().numpy()
            incomplete[rows], empty[rows] = mask.any(1), mask.all(1)
            counts += mask.sum(0)
        entry = (lambda i: _entry(i, events.shape[1:])) if names is None else names.__getitem__
        named = {entry(i): int(count) for i, count in enumerate(counts) if count}
        unlabeled = None
        if labels is not None:
            unlabeled = labels.isnan().cpu().numpy()
            incomplete |= unlabeled
            named |= {"labels": int(unlabeled.sum())} if unlabeled.any() else {}
        first = f"the first at index {int(incomplete.argmax())}" if named else ""
        return cls(incomplete, empty, named, unlabeled, None if labels is None else "labels", first, "an array")

    def rows(self, missing: str) -> np.ndarray:
        """The rows that are read.

        Args:
            missing: ``"refuse"`` raises an error if there is a missing cell. ``"drop"`` leaves its row out, with a
                warning. ``"mask"`` leaves out rows without any value, with a warning, and keeps all others.

        Returns:
            Row numbers, ``int64``, in order.

        Raises:
            ValueError: If ``missing`` does not admit what is missing, or is unknown; if no row is left.
        """
        check_choice(missing)
        n, dropped = len(self.incomplete), int(self.incomplete.sum())
        if not dropped:
            return np.arange(n)
        if missing == "drop" and dropped < n:
            warnings.warn(f"rows with missing cells are left out: {dropped} of {n} ({self._per_column}).", stacklevel=2)
            return np.flatnonzero(~self.incomplete)
        if missing == "mask":
            return self._rows_with_values()
        remedy = 'leave those rows out with missing="drop"' if dropped < n else "no row would remain without them"
        if empty := [name for name, count in self.counts.items() if count == n and self.source == "a table"]:
            remedy = f"leave out the columns without any value with {_left_out(empty)}"
        remedy += ', keep those cells as missing with missing="mask"' if self._can_mask else ""
        raise ValueError(
            f"{self.source} must have no missing cells, got {sum(self.counts.values())} in {dropped} of {n} rows "
            f"({self._per_column}; {self.first}); {remedy}, {_ENDINGS[self.source]}"
        )

    def _rows_with_values(self) -> np.ndarray:
        """The rows with at least one value; labels and columns must not lack all values."""
        n = len(self.empty)
        if self.unlabeled is not None and self.unlabeled.any():
            raise ValueError(
                f'every row needs its label, also with missing="mask", got {int(self.unlabeled.sum())} of {n} rows '
                f'without {self.label}; leave incomplete rows out with missing="drop", fill the labels, or read none.'
            )
        if self.source == "a table":  # the test part of an array may lack a column
            self.check_columns()
        if self.empty.any():
            warnings.warn(f"rows without any value are left out: {int(self.empty.sum())} of {n}.", stacklevel=3)
        return np.flatnonzero(~self.empty)

    def check_columns(self) -> None:
        """Checks that every column has values.

        Raises:
            ValueError: If not; names those without any.
        """
        n = len(self.empty)
        if lacking := [name for name, count in self.counts.items() if count == n and name != self.label]:
            raise ValueError(
                f"every column must have values, got none in {', '.join(lacking[:_SHOWN])} ({n} rows); leave it out"
                + (f" with {_left_out(lacking)}." if self.source == "a table" else ".")
            )

    @property
    def _can_mask(self) -> bool:
        unlabeled = self.unlabeled is not None and bool(self.unlabeled.any())
        return not unlabeled and max(self.counts.values()) < len(self.empty)

    @property
    def _per_column(self) -> str:
        counts = [f"{name}: {count}" for name, count in self.counts.items()]
        more = f" and {len(counts) - _SHOWN} more columns" if len(counts) > _SHOWN else ""
        return ", ".join(counts[:_SHOWN]) + more


def _left_out(names: Sequence[str]) -> str:
    """The option of a table that leaves columns out."""
    return "kinds={" + ", ".join(f"{name!r}: 'identifier'" for name in names) + "}"


def _entry(index: int, shape: tuple[int, ...]) -> str:
    return "x[" + ", ".join(str(i) for i in np.unravel_index(index, shape)) + "]" if shape else "x"
