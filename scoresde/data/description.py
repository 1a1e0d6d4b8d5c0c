r"""Description of a data set (shape, range, quantization) and its scaling, $x = (y - offset) / scale$.

``y`` is in data units, ``x`` in model units; data are scaled nowhere else. Quantized data are integer values ``k`` in
``0 ... bins - 1``. Dequantized, ``y = k + u`` with ``u`` uniform in ``[0, 1)`` fills the bin ``[k, k + 1)``. By default
``offset = scale = bins / 2``, so that ``x = 2 y / bins - 1`` fills ``[-1, 1)``. Continuous data default to
``offset = 0, scale = 1``.

Categories are integers ``0 ... classes - 1`` without an order. Their model units are the same numbers in a floating
tensor (codes), as the states of `scoresde.process.Categorical` are.

A table that was read by name has an ``encoding`` instead (`scoresde.data.tables.encoding`): its model units are not an
affine function of its data units, and their shape `Description.model_shape` differs from ``shape``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.checks import check_event_shape
from scoresde._core.tensors import has_values
from scoresde.data.alphabets import Alphabet
from scoresde.data.codes import check_codes, checked_classes
from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.fit import LABEL, check_name
from scoresde.data.conditions.kinds import ClassCondition
from scoresde.data.conditions.model_units import cond_in_model_units
from scoresde.data.description_checks import checked_range, checked_scaling, checked_shape
from scoresde.data.tables.columns import Columns
from scoresde.data.tables.encoding import TableEncoding
from scoresde.data.tables.kinds_table import density_note
from scoresde.data.units import AffineUnits, Units, units_of
from scoresde.data.value_checks import check_values

__all__ = ["Description"]

_CHUNK = 1 << 22  # values that `validate` reads at once: a memory-mapped file need not fit into memory


@dataclass(frozen=True)
class Description(CheckedArguments):
    r"""A data set's name, event shape, range, quantization and scaling, as plain Python values.

    Args:
        name: Name of the data.
        shape: Event shape ``D``, without the batch axis.
        bins: Number of bins (distinct integer values) of quantized data; ``None`` for continuous data.
        low, high: Declared range in data units, both ends included; ``None`` is unbounded. Quantized data have the
            range ``[0, bins)``, set automatically.
        offset, scale: The scaling. A number, or a tuple with one number per entry of the first event axis (a table's
            features, an image's channels), as a tuple, an array or a tensor. ``None`` is the default stated above. With
            an ``encoding`` they are mean and deviation of each column, and scale only those that are standardized.
        columns: Names and kinds of a table's columns, or None.
        missing: Whether values of continuous data may be missing; these are NaN.
        encoding: The map of each column of a table to model units, or None.
        conditions: The kind of each condition by name, e.g. ``{"label": ClassCondition(10)}``; `Data` adds those that
            are left out, with the scaling of its train part.
        classes: Number of classes of categories, integers ``0 ... classes - 1`` without an order; None for other data.
            They have no bins and no scaling, and values may not be missing.
        alphabet: What the classes stand for, such as ``Characters("ACGT")``, which states ``classes`` too; or None.

    Raises:
        ValueError: If a field is out of its domain or the range contradicts ``bins``.

    Example:
        >>> import torch
        >>> from scoresde import Description
        >>> from scoresde.data import Characters
        >>> description = Description("gray", (1,), bins=256)
        >>> description.to_model(description.center(torch.tensor([[0], [255]])))
        tensor([[-0.9961],
                [ 0.9961]])
        >>> genes = Description("genes", (3,), alphabet=Characters("ACGT"))
        >>> genes.classes, genes.to_model(torch.tensor([[0, 3, 2]])), genes.texts(torch.tensor([[0, 3, 2]]))
        (4, tensor([[0., 3., 2.]]), ['ATG'])
    """

    former_fields: ClassVar[tuple[str, ...]] = ("labels",)
    """Fields that a stored text of an earlier version may have, see `scoresde.storage.spec.parse`."""

    name: str
    shape: tuple[int, ...]
    bins: int | None = None
    low: float | None = None
    high: float | None = None
    offset: float | tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    columns: Columns | None = field(default=None, metadata={"write": "if set"})
    missing: bool = field(default=False, metadata={"write": "if set"})
    encoding: TableEncoding | None = field(default=None, metadata={"write": "if set"})
    conditions: Mapping[str, ConditionKind] = field(default_factory=dict, hash=False, metadata={"write": "if set"})
    classes: int | None = field(default=None, metadata={"write": "if set"})
    alphabet: Alphabet | None = field(default=None, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        shape = checked_shape(self.shape)
        object.__setattr__(self, "classes", checked_classes(self))
        bins, low, high = checked_range(self.bins, self.low, self.high, self.missing)
        if self.classes is not None:
            low, high = 0.0, self.classes - 1.0
        offset, scale = (0.0, 1.0) if bins is None else (bins / 2, bins / 2)
        for name, value in {"shape": shape, "bins": bins, "low": low, "high": high}.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "offset", checked_scaling("offset", self.offset, offset, shape))
        object.__setattr__(self, "scale", checked_scaling("scale", self.scale, scale, shape))
        for condition in self.conditions:
            check_name(condition)
        object.__setattr__(self, "conditions", dict(sorted(self.conditions.items())))
        if self.columns is not None and shape != (len(self.columns.names),):
            raise ValueError(f"columns must name each entry of {shape}, got {len(self.columns.names)} names.")
        if self.encoding is not None and (self.bins is not None or shape != (len(self.encoding.columns),)):
            raise ValueError(
                f"an encoding must have one column for each entry of {shape}, and bins=None; got "
                f"{len(self.encoding.columns)} columns and bins={self.bins}."
            )

    @classmethod
    def upgraded(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of this version that mean the same as stored ones: names of classes were the field ``labels``."""
        rest = {name: value for name, value in settings.items() if name != "labels"}
        names = settings.get("labels")
        return rest if names is None else {**rest, "conditions": {LABEL: ClassCondition(len(names), names)}}

    @property
    def dims(self) -> int:
        """Number of dimensions d of one event."""
        return math.prod(self.shape)

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes of the condition "label" in the order of their integers, or None."""
        kind = self.conditions.get(LABEL)
        return kind.names if isinstance(kind, ClassCondition) else None

    @property
    def model_shape(self) -> tuple[int, ...]:
        """Event shape in model units: that of the data, or ``(E,)`` for a table with an encoding."""
        return self.shape if self.encoding is None else (self.encoding.size,)

    @property
    def model_dims(self) -> int:
        """Number of dimensions of one event in model units."""
        return math.prod(self.model_shape)

    @property
    def codes(self) -> tuple[int, ...]:
        """Number of classes of each column of a table that is a code in model units; ``()`` for other data."""
        return () if self.encoding is None or not self.encoding.codes else self.encoding.classes

    @property
    def quantized(self) -> bool:
        """Whether values, or some columns of a table, are dequantized."""
        return self.bins is not None or (self.encoding is not None and self.encoding.dequantizes)

    def is_quantized(self, y: Tensor) -> bool:
        """Whether ``y`` holds values to be dequantized: integers of quantized data, or rows of a table."""
        return self._units.is_quantized(y)

    @cached_property
    def _units(self) -> Units:
        return units_of(self)

    def log_det(self, x: Tensor) -> Tensor:
        r"""Logarithm of the volume ratio $|dx/dy|$ at x, nats: what leads from log p of x to that of y.

        It is the same for all events, $-\sum \log scale$, unless a table has an encoding. Then it is
        $\log|dx/d(y, u)|$, with y the continuous columns and u in [0, 1) the positions in their bins of all others: the
        sum is a log-density of the former and, on average over u, a lower bound of the log-probability of the latter.

        Args:
            x: Model units, shape ``(B, *D)``, or ``(B, E)`` with an encoding; missing values (NaN) count 0 there.

        Returns:
            Shape ``(B,)``, float64 (on the CPU if the device does not support it).
        """
        if self.encoding is not None:
            self._check_shape(x, self.model_shape)
        return self._units.log_det(x)

    def to_model(self, y: ArrayLike) -> Tensor:
        r"""Data units to model units, $x = (y - offset) / scale$; does not check the range, does not clip.

        Computed in float64, then cast, where the offset is larger than 16 scales, so that no digit of ``y`` is lost.
        The columns of a table with an encoding are mapped one by one, and a value on the grid of its column, or the
        code of a category, goes to the center of its bin.

        Args:
            y: Values in data units, shape ``(B, *D)``. Integers of continuous data become the default float type. With
                an encoding also what `dequantize` and `center` return, ``(B, E)``.

        Returns:
            Model units, shape ``(B, *D)``, or ``(B, E)`` with an encoding; a floating type is kept.

        Raises:
            ValueError: If the event shape is wrong, or ``y`` holds integer values that were not dequantized.
        """
        y = as_tensor(y, "y")
        if y.shape[1:] != self.model_shape:
            self._check_shape(y)
        return self._units.to_model(y)

    def to_model_cond(self, cond: Mapping[str, Any]) -> dict[str, Any]:
        """Conditions in data units to model units, as a network takes them: ``model(x, tau, **to_model_cond(cond))``.

        Names of classes become their integers, vectors and tokens are standardized, images are scaled, integer ones at
        the centers of their bins. An entry of only NaN stays NaN, which a network reads as null.

        Args:
            cond: By name, each with one entry per event, ``(N, *)``; classes may be given by their names.

        Returns:
            Tensors by name. Floating types are kept, integers become the default float type; classes are int64.

        Raises:
            ValueError: If a condition is not described, or its values are not as described.
        """
        return cond_in_model_units(self.conditions, cond)

    def to_data(self, x: ArrayLike) -> Tensor:
        r"""Model units to data units, $y = offset + scale\,x$; for quantized data the bin that contains ``y``.

        Quantized: ``floor(y)``, then clipped to ``0 ... bins - 1``, as integers. It always inverts
        ``to_model(center(k))``, and ``to_model(dequantize(k))`` except within rounding error of a bin edge.
        A table with an encoding: each number in the range of the train part and on its grid, the code of each category.
        Categories: the codes as integers. Continuous: not clipped. Where the offset is larger than 16 scales (a column
        of Unix time), ``y`` is float64, because float32 cannot tell its values apart.

        Args:
            x: Model units, shape ``(B, *D)``, or ``(B, E)`` with an encoding.

        Returns:
            Data units, shape ``(B, *D)``. Quantized, and categories: ``uint8`` for up to 256 values, else ``int64``.
            With an encoding: float64. Continuous: float64 as stated above, else the type of ``x``, but float32 for half
            precision. float64 values are on the CPU if the device of ``x`` does not support them.

        Raises:
            ValueError: If the event shape is wrong, quantized values are NaN, or categories are no codes of classes.
        """
        x = as_tensor(x, "x")
        self._check_shape(x, self.model_shape)
        return self._units.to_data(x)

    def texts(self, y: ArrayLike) -> list[str]:
        """The texts that events of categories write, one for each event.

        Args:
            y: Data units, integers ``(B, L)``.

        Raises:
            ValueError: If the data have no alphabet, their events are no sequences ``(L,)``, or a value is no class.
        """
        if self.alphabet is None or len(self.shape) != 1:
            raise ValueError(
                f"texts are those of sequences (L,) with an alphabet, got {self.name!r}, events {self.shape} "
                f"{'without one' if self.alphabet is None else 'with one'}; describe what the classes stand for by "
                "Description(..., alphabet=Characters(...))."
            )
        y = as_tensor(y, "y")
        self.validate(y)
        return [self.alphabet.decode(row) for row in y.cpu().numpy()]

    def dequantize(self, values: ArrayLike, generator: torch.Generator | None = None) -> Tensor:
        r"""Dequantization: integer values to data units, $y = k + u$ with ``u`` uniform in ``[0, 1)``.

        Args:
            values: Integer values k, shape ``(B, *D)``; with an encoding the rows of a table, ``(B, D)``.
            generator: Source of ``u``, on the device of ``values``; ``None`` uses the global random state.

        Returns:
            ``(B, *D)`` in the default float type, in float64 for more than 4096 bins. A sum that would round up to
            ``k + 1`` is the float just below it, so that ``y`` stays in the bin of k. With an encoding ``(B, E)``
            float64: the unfolded values of `scoresde.data.tables.encoding`; continuous columns do not change.

        Raises:
            ValueError: If the data are continuous, the values are not integers, or the event shape is wrong.

        Source: Theis, van den Oord & Bethge 2016, sec. 3.1.
        """
        check_arguments(Description.dequantize, locals())
        values = as_tensor(values, "values")
        self._check_shape(values)
        return self._units.dequantize(values, generator)

    def center(self, values: ArrayLike) -> Tensor:
        """Integer values to bin centers in data units, ``k + 1/2``, shape ``(B, *D)``; raises as `dequantize` does.

        With an encoding the rows of a table, ``(B, D)``, to unfolded values at the centers, ``(B, E)``.
        """
        values = as_tensor(values, "values")
        self._check_shape(values)
        return self._units.center(values)

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        r"""$-(\log p_x + \log|dx/dy|) / (d \ln 2)$: bits per value of a density of dequantized data.

        Categories are not dequantized: their bits are those of the log-probability, per entry of the event.

        Args:
            log_prob: Log-density in model units, of categories the log-probability, nats, any shape.

        Returns:
            Bits per dimension, the shape of ``log_prob``. Their mean over ``u`` bounds those of the integer values from
            above.

        Raises:
            ValueError: If the data are continuous.
        """
        units = self._units
        if not isinstance(units, AffineUnits) or (self.bins is None and self.classes is None):
            raise ValueError(
                f"bits per dimension need quantized data, got {self.name!r} with bins=None; "
                "state bins= and scale= (or classes=, of categories) in its Description, or report nats."
            )
        log_prob = as_tensor(log_prob, "log_prob")
        return -(log_prob + units.log_volume) / (self.dims * math.log(2))

    def density_note(self) -> str:
        """One sentence that says which columns of a table enter log p as a density; empty for other data."""
        return density_note(self)

    def validate(self, y: ArrayLike) -> None:
        """Refuses values that contradict this description.

        Args:
            y: Data units, shape ``(B, *D)``: integer values, or dequantized or continuous ones. ``B`` may be 0.

        Raises:
            ValueError: If the event shape is wrong, or a value is NaN (unless values may be missing), infinite,
                complex or outside the declared range, or a continuous integer lies beyond 2^53; the error names the
                first index.
        """
        y = as_tensor(y, "y")
        self._check_shape(y)
        if not has_values(y):
            raise ValueError("data must have values, got a tensor on the meta device; move them to the CPU.")
        if y.is_complex():
            raise ValueError(f"data must be real, got {y.dtype}; pass the two parts as two features or channels.")
        if y.dtype == torch.uint8 and (self.bins or self.classes or 0) >= 256:
            return  # every byte is valid: a memory-mapped file need not be read
        rows = max(1, _CHUNK // self.dims)
        for start in range(0, len(y), rows):
            if self.classes is not None:
                check_codes(y[start : start + rows], start, self.classes)
            else:
                check_values(y[start : start + rows], start, self.bins, self.low, self.high, self.missing)
        if self.encoding is not None:
            self.encoding.check_values(y, None if self.columns is None else self.columns.names)

    def _check_shape(self, y: Tensor, shape: tuple[int, ...] | None = None) -> None:
        check_event_shape(y, self.shape if shape is None else shape, f"a batch of {self.name!r}")
