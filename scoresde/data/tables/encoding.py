r"""Encoding of a table's rows in model units: numbers by monotone maps, categories one-hot, both dequantized.

Data units are one number per column, ``(B, D)``: a number, the code of a category, days or seconds of a date. Model
units have one entry per column of numbers and one per category, ``(B, E)``. In between are the *unfolded* values, also
``(B, E)`` and in data units: $y + h u$ for a grid of spacing h, $e_c + w (u - 1/2)$ for category c, with e_c its unit
vector and u uniform in [0, 1) for every entry. So a category fills a cube of side $w < 1$; those of two categories are
disjoint, and the largest entry is its category.

The logarithm of the volume that a row's bins and cubes have in model units is what leads from a density there to that
of the continuous columns times the probability of all others: $\log p(y, k, c) \ge E_u \log p(x) + \log|dx/d(y, u)|$,
which has $dx/dy$ for continuous columns and $dx/du$ for dequantized ones.

With ``codes`` a category is one entry, its code, for processes that noise categories as such
(`scoresde.process.mixed`). Unfolded values are then in the order of the columns; model units have all numbers first,
then all codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.tensors import has_float64
from scoresde.data.tables.column_maps import CategoryColumn, NumberColumn
from scoresde.data.tables.encoding_arrays import (
    ColumnArrays,
    in_bins,
    is_on_grid,
    log_slope,
    normal_scores,
    on_grid,
    precision_of,
    values_at,
    widened,
)

__all__ = ["TableEncoding"]


@dataclass(frozen=True)
class TableEncoding:
    """The map of every column of a table.

    Args:
        columns: In the order of the event's entries.
        codes: Whether a category is its code in model units, instead of one-hot entries.

    Raises:
        ValueError: If there is no column.
    """

    columns: tuple[NumberColumn | CategoryColumn, ...]
    codes: bool = field(default=False, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if not self.columns:
            raise ValueError("an encoding needs columns, got none.")

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Number of entries in model units of each column."""
        hot = not self.codes
        return tuple(len(c.mean) if hot and isinstance(c, CategoryColumn) else 1 for c in self.columns)

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """The column of each entry in model units."""
        if self.codes:
            return tuple(sorted(range(len(self.columns)), key=lambda i: isinstance(self.columns[i], CategoryColumn)))
        return tuple(i for i, width in enumerate(self.widths) for _ in range(width))

    @property
    def classes(self) -> tuple[int, ...]:
        """Number of categories of each column of categories."""
        return tuple(len(c.mean) for c in self.columns if isinstance(c, CategoryColumn))

    @property
    def size(self) -> int:
        """Number E of entries in model units."""
        return sum(self.widths)

    @property
    def dequantizes(self) -> bool:
        """Whether a column is dequantized."""
        return any(not self.codes if isinstance(c, CategoryColumn) else c.step for c in self.columns)

    def unfold(self, y: Tensor, generator: torch.Generator | None = None, center: bool = False) -> Tensor:
        """Data units to unfolded values; a number off its grid stays as it is.

        Args:
            y: ``(B, D)``; NaN is missing.
            generator: Source of u, on the device of ``y``.
            center: Take ``u = 1/2`` instead.

        Returns:
            ``(B, E)`` float64, NaN in all entries of a missing value.

        Raises:
            ValueError: If a code is out of range.
        """
        wide, a = widened(y), self._on(y)

        def offset(n: int) -> Tensor | float:
            kind = torch.float64 if has_float64(y.device) else torch.float32
            return 0.5 if center else torch.rand(len(y), n, dtype=kind, device=y.device, generator=generator).to(wide)

        result = wide.new_empty(len(y), self.size)
        placed = in_bins(wide[:, a.numbers], a, offset(len(a.numbers)), precision_of(y))
        result[:, a.numbers if self.codes else a.number_entries] = placed
        codes = wide[:, a.coded]
        out_of_range = ((codes < 0) | (codes > a.count - 1)).any()
        if not out_of_range.is_cpu:
            # Training unfolds each batch, and does not wait for the device.
            torch._assert_async(~out_of_range)  # pyright: ignore[reportPrivateImportUsage]
        elif out_of_range:
            raise ValueError("codes of categories must lie in 0 ... their number - 1; check them by validate.")
        if self.codes:
            result[:, a.coded] = codes
            return result
        hot = wide.new_zeros(len(y), len(a.owner))
        hot.scatter_(1, codes.nan_to_num(0.0).round().long() + a.first, 1.0)
        cube = a.side * (offset(len(a.owner)) - 0.5)
        result[:, a.category_entries] = torch.where(codes.isnan()[:, a.owner], torch.nan, hot + cube)
        return result

    def to_model(self, z: Tensor) -> Tensor:
        """Unfolded values ``(B, E)`` to model units ``(B, E)``, float64."""
        wide, a = widened(z), self._on(z)
        if self.codes:
            return torch.cat([normal_scores(wide[:, a.numbers].T.contiguous(), a).T, wide[:, a.coded]], 1)
        result = torch.empty_like(wide)
        result[:, a.number_entries] = normal_scores(wide[:, a.number_entries].T.contiguous(), a).T
        result[:, a.category_entries] = (wide[:, a.category_entries] - a.mean) / a.scale
        return result

    def to_data(self, x: Tensor) -> Tensor:
        """Model units ``(B, E)`` to data units ``(B, D)``, float64: numbers in range and on their grid, codes."""
        wide, a = widened(x), self._on(x)
        result = wide.new_empty(len(x), len(self.columns))
        values = values_at(wide[:, a.number_entries].T.contiguous(), a).T
        result[:, a.numbers] = torch.minimum(torch.maximum(on_grid(values, a), a.low), a.high)
        if self.codes:
            most = a.count.to(wide) - 1.0
            result[:, a.coded] = torch.minimum(wide[:, len(a.numbers) :].round().clamp(min=0.0), most)
            return result
        hot = wide[:, a.category_entries] * a.scale + a.mean
        for column, first, count in zip(a.coded.tolist(), a.first.tolist(), a.count.tolist()):
            each = hot[:, first : first + count]
            result[:, column] = torch.where(each.isnan().any(1), torch.nan, each.argmax(1).double())
        return result

    def log_det(self, x: Tensor) -> Tensor:
        r"""$\log|dx/d(y, u)|$ at model units ``(B, E)``, nats, ``(B,)`` float64; missing values count 0."""
        wide, a = widened(x), self._on(x)
        scores = wide[:, a.number_entries].T.contiguous()
        each = torch.where(a.step > 0, a.step, 1.0).log()[:, None] + log_slope(scores, a)
        total = each.nan_to_num(0.0).sum(0)
        if self.codes:
            return total
        cubes = (a.side / a.scale).log().expand(len(x), -1)
        return total + torch.where(wide[:, a.category_entries].isnan(), 0.0, cubes).sum(1)

    def check_values(self, y: Tensor, names: Sequence[str] | None) -> None:
        """Refuses values in data units ``(B, D)`` that a column cannot have: off its grid, or no code.

        Raises:
            ValueError: Names the first column and row.
        """
        off = self._off_grid(y)
        if not bool(off.any()):
            return
        row, index = off.nonzero()[0].tolist()
        name, column = index if names is None else repr(names[index]), self.columns[index]
        rule = f"multiples of {column.step:g}" if isinstance(column, NumberColumn) else "codes 0, 1, ... of categories"
        raise ValueError(
            f"column {name} must hold {rule}, got {y[row, index].item()} at row {row}; round it as in the table that "
            "was described."
        )

    def _off_grid(self, y: Tensor) -> Tensor:
        wide, a = widened(y), self._on(y)
        numbers, codes = wide[:, a.numbers], wide[:, a.coded]
        bad = torch.zeros(wide.shape, dtype=torch.bool, device=wide.device)
        bad[:, a.numbers] = (a.step > 0) & ~numbers.isnan() & ~is_on_grid(numbers, a, precision_of(y))
        bad[:, a.coded] = ~codes.isnan() & ((codes != codes.round()) | (codes < 0) | (codes >= a.count))
        return bad

    def _on(self, x: Tensor) -> ColumnArrays:
        if x.device.type == "cpu" or not has_float64(x.device):
            return self._arrays
        if x.device not in self._copies:
            self._copies[x.device] = ColumnArrays(*(array.to(x.device) for array in self._arrays))
        return self._copies[x.device]

    @cached_property
    def _copies(self) -> dict[torch.device, ColumnArrays]:
        """The tensors on devices other than the CPU, each copied there once."""
        return {}

    @cached_property
    def _arrays(self) -> ColumnArrays:
        return ColumnArrays.of(self.columns, self.widths, self.codes)
