r"""Places in a sorted table, $\#\{i : t_i < v\}$."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.elementwise import is_exporting

__all__ = ["place_in"]


def place_in(table: Tensor, values: Tensor) -> Tensor:
    """Number of entries of a sorted table that lie below each value, int64 with the shape of ``values``.

    While torch.export traces, the comparisons are summed: ONNX has no binary search.
    """
    values = values.detach().to(table.dtype)
    if is_exporting():
        return (table < values.unsqueeze(-1)).sum(-1)
    return torch.searchsorted(table, values.contiguous())
