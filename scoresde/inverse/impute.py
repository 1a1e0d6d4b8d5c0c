r"""Imputation: draws of the missing values of events from $p(x_{missing} \mid x_{observed})$, a mask for each event.

An observed value on a grid, such as an integer, or a category is an interval of model units and not a point. Its center
is taken: where a model dequantizes, the position in a bin is independent of all values, so that every position has the
same distribution of the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import check_per_sample, cond_inputs, empty_state
from scoresde._core.checks import check_finite, check_integer, check_level, check_seeds
from scoresde.data import Description
from scoresde.data.tables.column_maps import CategoryColumn
from scoresde.data.tables.columns import arrow_table, table_arrays
from scoresde.data.tables.far_values import refuse_far_values, warn_of_far_values
from scoresde.data.tables.filled_table import filled_numbers
from scoresde.data.tables.frames import is_frame
from scoresde.data.tables.incomplete_table import IncompleteTable
from scoresde.guidance.posterior import PosteriorMethod
from scoresde.inverse.base import PosteriorSampler
from scoresde.inverse.bridge_smc import BridgeSMC
from scoresde.inverse.conditional_draws import ConditionalDraws, knows_entries, refuse_sampler
from scoresde.inverse.twisted_smc import TwistedSMC
from scoresde.inverse.units import KnownEvents
from scoresde.model import Model, refuse_unknown
from scoresde.process.sde import SDE
from scoresde.sampling import Sampler

__all__ = ["Imputed", "check_interval", "impute"]


@dataclass(frozen=True, eq=False)
class Imputed:
    """Draws of completed events.

    Attributes:
        data: In data units where the model knows its data, else in model units, ``(n, draws, *D)``. Observed values
            are those that arrived, bit for bit.
        x: Model units, ``(n, draws, *E)``.
        missing: Which values were missing, ``(n, *D)``.
        nfe: Network evaluations per draw, of a particle method per particle; a product with the Jacobian counts as one.
        description: Of the data, or None.
        table: The table that was read, or the frame that came in; else None.
    """

    data: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    missing: Tensor = field(repr=False)
    nfe: int
    description: Description | None = field(default=None, repr=False)
    table: Any = field(default=None, repr=False)

    def mean(self) -> Tensor:
        """Mean over the draws, ``(n, *D)`` float64; of a category the code that was drawn most often."""
        mean = self.data.double().mean(1)
        for column in self._coded:
            mean[:, column] = self.data[:, :, column].mode(1).values.double()
        return mean

    def interval(self, level: float = 0.9) -> tuple[Tensor, Tensor]:
        r"""Interval of each value that holds it with probability ``level`` where the draws have its distribution.

        The ends are at the ranks $(m + 1)(1 \mp level)/2$ among m draws, interpolated linearly and at most those of the
        extreme draws: m draws and the value itself are m + 1 exchangeable numbers. Codes of categories have an interval
        too, which has no meaning unless they are ordered.

        Args:
            level: In (0, 1).

        Returns:
            Lower and upper ends, ``(n, *D)`` float64 each; equal for observed values.

        Raises:
            ValueError: If ``level`` is out of range, or the draws are too few: m draws reach (m - 1)/(m + 1).
        """
        check_interval(level, self.data.shape[1])
        ordered, draws = self.data.double().sort(1).values, self.data.shape[1]

        def at(quantile: float) -> Tensor:
            rank = min(max((draws + 1) * quantile - 1, 0.0), draws - 1.0)  # within rounding
            below = min(int(rank), draws - 1)
            return ordered[:, below].lerp(ordered[:, min(below + 1, draws - 1)], rank - below)

        return at(0.5 - 0.5 * level), at(0.5 + 0.5 * level)

    def columns(self, draw: int = 0) -> dict[str, np.ndarray]:
        """One draw as named columns, ``(n,)`` each: texts, integers, floats, bools and dates; see `Samples.columns`.

        Args:
            draw: Its number, from 0.

        Raises:
            ValueError: If there is no such draw, or an event has more than one axis.
        """
        check_integer("draw", draw, 0, self.data.shape[1] - 1)
        return table_arrays(self.data[:, draw].detach().cpu().numpy(), self.description)

    def frame(self, draw: int = 0) -> Any:
        """The table that came in with its missing cells filled by one draw.

        Rows, index, order and types of the columns are those that came in, and so are columns that are not modeled,
        such as identifiers. A column changes its type only if a filled value does not fit into it.

        Args:
            draw: Its number, from 0.

        Returns:
            A frame of pandas or polars, or a ``pyarrow.Table``, whichever came in. Of a file or a tensor a
            ``pandas.DataFrame``, or a ``pyarrow.Table`` where pandas is not installed; of a tensor with the `columns`.
        """
        columns = self.columns(draw)
        if isinstance(self.table, IncompleteTable):
            return self.table.frame(columns)
        if type(self.table).__module__.partition(".")[0] == "pandas":
            return filled_numbers(self.table, self.data[:, draw].detach().cpu().numpy())
        try:
            import pandas
        except ImportError:
            return arrow_table(columns)
        return pandas.DataFrame(columns)

    @cached_property
    def _coded(self) -> list[int]:
        """The columns of categories."""
        encoding = None if self.description is None else self.description.encoding
        columns = () if encoding is None else encoding.columns
        return [i for i, column in enumerate(columns) if isinstance(column, CategoryColumn)]


def impute(
    model: Model,
    table: Any,
    draws: int = 20,
    method: PosteriorMethod | PosteriorSampler | None = None,
    sampler: Sampler | None = None,
    *,
    noise_std: float | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    **cond: Tensor,
) -> Imputed:
    """Draws the missing values of events given the observed ones.

    Args:
        model: Trained or exact model of complete events; also one that was trained on incomplete ones.
        table: Events with NaN for missing values, ``(n, *D)``: in data units where the model knows its data
            (``model.data``), else in model units. Or, for a model of a table that was read by name, the path of a file
            or a table in memory, which is read with the columns, kinds and codes of that table. Its columns that are
            conditions of the network are passed to it.
        draws: Number of draws of each event. 20 give intervals of 90 %.
        method: How the model is conditioned; default ``TwistedSMC(steps=60, particles=256)``, whose draws approach the
            model's own conditional distribution as particles grow. ``MMPS()`` is cheaper, and exact for Gaussian data.
            Of categories, and of numbers and categories, ``BridgeSMC()``. A network that reads the condition
            ``known`` needs none of them: by default it is sampled as it is, hundreds of times faster.
        sampler: Of the model that a `PosteriorMethod` steers; default as that of `inpaint`. Of a network that reads
            ``known``, default ``Adams()``, or ``MixedSampler()`` of numbers and categories.
        noise_std: Standard deviation of noise of the observed values in model units, where a column has a variance of
            about 1. Particle methods need some; they count draws in which observed values agree within it. Default
            0.01 for these, 0 for others. What comes back has the observed values themselves.
        generator: Source of all randomness; default a new generator seeded from the global one.
        seeds: One integer in [0, 2**63) per event instead; its draws then do not depend on its batch.
        batch_size: Events at once; default all.
        **cond: Passed to the network, one entry per event, ``(n, …)``; in place of a column of that name.

    Returns:
        See `Imputed`.

    Raises:
        TypeError: If the model is not a Model, or a path is given to a model that does not know its table.
        ValueError: If a value contradicts the description; if shapes or seeds do not fit.
        RuntimeError: As `sample`.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, impute
        >>> model = Gaussian(torch.zeros(2).double(), torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double())
        >>> filled = impute(model, torch.tensor([[2.0, torch.nan]]).double(), draws=2000, seeds=[0])
        >>> round(float(filled.mean()[0, 1]), 1)
        1.8
    """
    refuse_unknown(impute, model, cond)
    check_arguments(impute, {key: value for key, value in locals().items() if key != "table"})
    check_integer("draws", draws)
    if method is None:
        steered = TwistedSMC(steps=60, particles=256) if isinstance(model.sde, SDE) else BridgeSMC()
        method = None if knows_entries(model) else steered
    if method is None and noise_std is not None:
        raise ValueError(
            f"noise_std must be None where the network reads the known entries, got {noise_std}; leave it out, or "
            "choose a method, such as TwistedSMC()."
        )
    refuse_sampler(method, sampler)
    table = _opened(model, table)
    values, recorded = _read(model, table)
    cond = {**recorded, **cond}
    events = KnownEvents.of(model, values, "table", missing=True)
    check_finite(events.values.nan_to_num(posinf=math.inf, neginf=-math.inf), "table")
    missing = events.values.isnan() if events.values.is_floating_point() else torch.zeros_like(events.values) > 0
    if model.data is not None:
        refuse_far_values(model.data, events.values)
        warn_of_far_values(model.data, events.values)
    known = events.model_mask(~missing)
    conditional = ConditionalDraws(model, method, sampler, draws, noise_std, batch_size)
    seeds = None if seeds is None else check_seeds(seeds, len(known))
    inputs: dict[str, Any] = cond_inputs(model, cond)
    check_per_sample(inputs, len(known), "event")
    rows = (~known).flatten(1).any(1).nonzero().flatten()  # events with a missing value
    some = None if seeds is None else [seeds[row] for row in rows.tolist()]
    each = {name: value[rows.to(value.device)] for name, value in inputs.items()}
    drawn, nfe = conditional(events.x[rows], known[rows], generator, some, each)
    result = events.x.unsqueeze(1).repeat_interleave(draws, 1)
    result[rows] = torch.where(known[rows].unsqueeze(1), result[rows], drawn)
    return Imputed(events.to_data(result, ~missing), result, missing.to(result.device), nfe, model.data, _kept(table))


def check_interval(level: float, draws: int) -> None:
    """Checks that an interval of a level can be stated from so many draws.

    Raises:
        TypeError, ValueError: If the level is not a number in (0, 1), or above (draws - 1)/(draws + 1).
    """
    check_level(level)
    if level > (draws - 1) / (draws + 1) + 1e-9:
        need = math.ceil((1 + level) / (1 - level) - 1e-9)
        raise ValueError(
            f"an interval of level {level:g} needs at least {need} draws, got {draws}; draw more, or lower the level."
        )


def _opened(model: Model, table: Any) -> Any:
    """A file or frame as an `IncompleteTable` of a model that knows its columns; anything else as it is."""
    is_path = isinstance(table, (str, os.PathLike))
    if not is_path and not is_frame(table):
        return table
    if model.data is not None and model.data.encoding is not None:
        return IncompleteTable(table, model.data)
    if is_path:
        raise TypeError(
            f"a path needs a model of a table that was read by name, got {os.fspath(table)!r} and a model without one; "
            "pass a tensor with NaN for missing values."
        )
    return table


def _kept(table: Any) -> Any:
    return table if isinstance(table, IncompleteTable) or is_frame(table) else None


def _read(model: Model, table: Any) -> tuple[Any, dict[str, Tensor]]:
    """The values of a table, and the conditions of the model that it has columns for; none of a tensor or frame."""
    if not isinstance(table, IncompleteTable):
        return table, {}
    assert model.data is not None
    like = empty_state(model)
    inner = model
    while isinstance(wrapped := getattr(inner, "model", None), Model):
        inner = wrapped
    given = table.conditions(getattr(getattr(inner, "net", None), "conditions", None) or {})
    cond = {
        name: value.to(like) if value.is_floating_point() else value.to(like.device)
        for name, value in model.data.to_model_cond(given).items()
    }
    return torch.from_numpy(table.values), cond
