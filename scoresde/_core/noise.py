"""Sources of random numbers: one generator for a batch, or one generator per sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scoresde._core.checks import check_seeds

__all__ = ["Noise"]


class Noise:
    """A source of random numbers: one generator for the batch, or one per sample.

    With per-sample seeds, the numbers of a sample depend on its seed and on the number of earlier draws. They do not
    depend on the other samples of the batch.

    Args:
        generator: Generator for the whole batch; None means torch's global one.
        seeds: One integer in [0, 2**63) per sample, instead of a generator.

    Raises:
        ValueError: If both are given, or a seed is not such an integer.
    """

    def __init__(self, generator: torch.Generator | None = None, seeds: Sequence[int] | None = None) -> None:
        if generator is not None and seeds is not None:
            raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator, got {generator!r}; write torch.Generator().manual_seed(0)."
            )
        self._generator = generator
        self._seeds = None if seeds is None else check_seeds(seeds)
        self._per_sample_generators: list[torch.Generator] = []

    @property
    def per_sample(self) -> bool:
        """Whether each sample has a separate generator."""
        return self._seeds is not None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers with the shape, type and device of ``like``, ``(B, *D)``."""
        generator = self._generator
        if self._seeds is None and (generator is None or generator.device == like.device):
            # equal to torch.randn, at half the cost of its call
            return torch.empty_like(like, memory_format=torch.contiguous_format).normal_(generator=generator)
        return self._draw(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) with the shape, type and device of ``like``, ``(B, *D)``."""
        return self._draw(torch.rand, like)

    def rademacher(self, like: Tensor) -> Tensor:
        """Signs ±1 with the shape, type and device of ``like``, ``(B, *D)``."""
        return _signs(self.uniform(like))

    def ragged(self, counts: Sequence[int], like: Tensor, distribution: str = "rademacher") -> Tensor:
        """A separate number of draws for each sample, concatenated in the order of the samples.

        Args:
            counts: Number of draws for each of the B samples.
            like: Shape, type and device of one draw, ``(*D)``.
            distribution: ``"rademacher"`` (signs) or ``"normal"``.

        Returns:
            ``(sum(counts), *D)``.
        """
        function = torch.randn if distribution == "normal" else torch.rand
        if self._seeds is None:
            numbers = self._draw(function, like.new_empty((sum(counts), *like.shape)))
        else:
            kind = {"dtype": like.dtype, "device": like.device}
            generators = self._generators(like.device, len(counts))
            parts = [function((n, *like.shape), generator=g, **kind) for n, g in zip(counts, generators)]
            numbers = torch.cat(parts)
        return numbers if distribution == "normal" else _signs(numbers)

    def _generators(self, device: torch.device, count: int) -> list[torch.Generator]:
        """The generators of the samples, seeded at the first draw."""
        assert self._seeds is not None
        if len(self._seeds) != count:
            raise ValueError(f"seeds must have one entry per sample: {count} samples, got {len(self._seeds)} seeds.")
        if not self._per_sample_generators:
            self._per_sample_generators = [torch.Generator(device).manual_seed(seed) for seed in self._seeds]
        return self._per_sample_generators

    def _draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        if self._seeds is None:
            generator = self._generator
            device = like.device if generator is None or like.device.type == "meta" else generator.device
            numbers = function(like.shape, generator=generator, dtype=like.dtype, device=device)
            return numbers.to(like.device, non_blocking=True)
        if like.device.type == "meta":
            return torch.empty_like(like)
        numbers = torch.empty_like(like)
        for row, generator in zip(numbers, self._generators(like.device, len(like)), strict=True):
            row.copy_(function(row.shape, generator=generator, dtype=like.dtype, device=like.device))
        return numbers


def _signs(uniform: Tensor) -> Tensor:
    """Signs ±1 from uniform numbers in [0, 1)."""
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform.dtype)
