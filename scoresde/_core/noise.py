"""Sources of randomness: one generator for a batch, or one per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Noise:
    """Where randomness comes from: one generator for the batch, or one per sample.

    With per-sample seeds the numbers of a sample depend on its seed and on how many draws came before, never on its
    neighbors.

    Args:
        generator: Source for the whole batch; None means torch's global one.
        seeds: One integer per sample, instead of a generator.

    Raises:
        ValueError: If both are given.
    """

    def __init__(self, generator: torch.Generator | None = None, seeds: Sequence[int] | None = None) -> None:
        if generator is not None and seeds is not None:
            raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
        self._generator = generator
        self._seeds = None if seeds is None else [int(seed) for seed in seeds]
        self._sources: list[torch.Generator] = []

    @property
    def per_sample(self) -> bool:
        """Whether every sample has a source of its own."""
        return self._seeds is not None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of ``like``, shape ``(B, *D)``."""
        source = self._generator
        if self._seeds is None and (source is None or source.device == like.device):
            # as torch.randn, at half its call's cost
            return torch.empty_like(like, memory_format=torch.contiguous_format).normal_(generator=source)
        return self._draw(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape, type and device of ``like``, shape ``(B, *D)``."""
        return self._draw(torch.rand, like)

    def rademacher(self, like: Tensor) -> Tensor:
        """Signs ±1 of the shape, type and device of ``like``, shape ``(B, *D)``."""
        return torch.where(self.uniform(like) < 0.5, -1.0, 1.0).to(like.dtype)

    def ragged(self, counts: Sequence[int], like: Tensor, law: str = "rademacher") -> Tensor:
        """For each sample a number of draws of its own, one sample after the other.

        Args:
            counts: How many for each of the B samples.
            like: Shape, type and device of one draw, ``(*D)``.
            law: ``"rademacher"`` (signs) or ``"normal"``.

        Returns:
            ``(sum(counts), *D)``.
        """
        function = torch.randn if law == "normal" else torch.rand
        if self._seeds is None:
            out = self._draw(function, like.new_empty((sum(counts), *like.shape)))
        else:
            sources = self._own(like, len(counts))
            kind = {"dtype": like.dtype, "device": like.device}
            out = torch.cat([function((n, *like.shape), generator=g, **kind) for n, g in zip(counts, sources)])
        return out if law == "normal" else torch.where(out < 0.5, -1.0, 1.0).to(like.dtype)

    def _own(self, like: Tensor, count: int) -> list[torch.Generator]:
        """The samples' own generators."""
        assert self._seeds is not None
        if len(self._seeds) != count:
            raise ValueError(f"seeds must have one entry per sample: {count} samples, got {len(self._seeds)} seeds.")
        if not self._sources:
            self._sources = [torch.Generator(like.device).manual_seed(seed) for seed in self._seeds]
        return self._sources

    def _draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        if self._seeds is None:
            source = self._generator
            device = like.device if source is None or like.device.type == "meta" else source.device
            out = function(like.shape, generator=source, dtype=like.dtype, device=device)
            return out.to(like.device, non_blocking=True)
        if like.device.type == "meta":
            return torch.empty_like(like)
        out = torch.empty_like(like)
        for row, source in zip(out, self._own(like, len(like)), strict=True):
            row.copy_(function(row.shape, generator=source, dtype=like.dtype, device=like.device))
        return out
