"""Seeds derived from the seed of an event: for what is drawn later, and for each of several draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch

__all__ = ["draw_seeds", "later_seeds"]


def later_seeds(seeds: Sequence[int]) -> list[int]:
    """Seeds for what is drawn after the first noise: numbers of other streams than those of ``seeds`` themselves."""
    return [draw_seeds(seed, 1)[0] for seed in seeds]


def draw_seeds(seed: int, draws: int) -> list[int]:
    """Seeds of the draws of one event; the first ones are the same for any number of draws."""
    return torch.randint(2**62, (draws,), generator=torch.Generator().manual_seed(seed)).tolist()
