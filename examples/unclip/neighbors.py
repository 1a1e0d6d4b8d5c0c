r"""Retrieved neighbors: the training images whose embeddings have the largest cosine with a given embedding.

The decoder reads them as channels, as in semi-parametric diffusion (Blattmann et al. 2022, "Retrieval-augmented
diffusion models"). The embedding says what to draw, and its neighbors show how such things look.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["COUNT", "POOL", "choices", "nearest_rows"]

COUNT, POOL = 4, 8
"""Neighbors that the decoder reads; and the nearest ones of which training draws them."""


def nearest_rows(
    table: Tensor, queries: Tensor, count: int, table_groups: Tensor | None = None, query_groups: Tensor | None = None
) -> Tensor:
    """Rows of the table of the largest cosines, the nearest first, ``(n, count)``.

    Args:
        table: Embeddings ``(m, d)``.
        queries: Embeddings ``(n, d)``.
        count: Neighbors of each.
        table_groups, query_groups: Integers ``(m,)`` and ``(n,)``. A row of the query's own group is no neighbor of it,
            so that training meets neighbors as different as a new image does.
    """
    cosines = normalize(queries, dim=1) @ normalize(table, dim=1).mT
    if table_groups is not None and query_groups is not None:
        cosines = cosines.masked_fill(table_groups == query_groups[:, None], -2.0)
    return cosines.topk(count, dim=1).indices


def choices(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Some of the neighbors of each query at random, in their order, ``(n, count)``.

    Args:
        rows: Neighbors, the nearest first, ``(n, pool)``.
        count: Neighbors to choose.
        generator: Source of the choice.
    """
    order = torch.rand(rows.shape, generator=generator).argsort(1)[:, :count].sort(1).values
    return rows.gather(1, order)
