"""What a run trains on: a `TrainingSource` states a loss, and a `BatchSource` draws the batches that the loss takes.

A data set of events is trained with the loss of the settings (`batches`). A source of its own, such as the teacher's
trajectories of a distillation, brings its loss along.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from scoresde.training.settings import Training

__all__ = ["BatchSource", "EventOrder", "TrainingSource", "check_shards", "derive"]

_ORDER = 1  # purpose of a derived seed


class BatchSource(ABC):
    """The shards of every batch of a run.

    Attributes:
        fingerprint: A hash of what is trained on.
        cond_fingerprint: A hash of the conditions that are trained on, or None.
        observed_share: Share of the values that are not missing.
    """

    fingerprint: str
    cond_fingerprint: str | None = None
    observed_share: float = 1.0

    @abstractmethod
    def draw(self, step: int, shard: int) -> tuple[Tensor, dict[str, Any]]:
        """The first argument of the loss, ``(batch_size / shards, *D)``, and the network's other inputs.

        Seeds the global random state, so that update ``step`` depends on ``step`` alone.
        """

    def close(self) -> None:  # noqa: B027
        """Ends reading ahead; nothing can be drawn after this."""


class TrainingSource(ABC):
    """What is trained on in place of a data set, with its loss: the ``data`` of `scoresde.training.train`.

    Attributes:
        loss: ``loss(model, batch, **cond)``, the loss of each sample, ``(B,)``; a dataclass with a text form. That of
            the settings is not used.
    """

    loss: Callable[..., Tensor]

    @abstractmethod
    def batches(self, settings: Training, device: torch.device, shards: int) -> BatchSource:
        """The batches of a run.

        Args:
            settings: Of the run.
            device: Device of the batches.
            shards: Number of shards of each batch.
        """


class EventOrder:
    """The order in which events are trained on: event ``order(epoch)[p mod N]`` at position p of epoch ``p div N``.

    Args:
        count: Number N of events.
        settings: Of the run: seed and batch size.
        shards: Number of shards of each batch.
        device: Of the indices.

    Raises:
        ValueError: If the batch cannot be cut into equal shards.
    """

    def __init__(self, count: int, settings: Training, shards: int, device: torch.device) -> None:
        check_shards(settings, shards)
        self._count, self._settings, self._shards, self._device = count, settings, shards, device
        self._orders: dict[int, Tensor] = {}

    def indices(self, step: int, shard: int) -> Tensor:
        """Indices of the events in shard ``shard`` of batch ``step`` (0 is the first), ``(batch_size / shards,)``."""
        count = self._settings.batch_size // self._shards
        position, parts = step * self._settings.batch_size + shard * count, []
        while count:
            epoch, first = divmod(position, self._count)
            part = self._order(epoch)[first : first + count]
            parts.append(part)
            position, count = position + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(derive(self._settings.seed, _ORDER, epoch))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = torch.randperm(self._count, generator=generator).to(self._device)
        return self._orders[epoch]


def check_shards(settings: Training, shards: int) -> None:
    """Checks that a batch can be cut into equal shards.

    Raises:
        ValueError: If not.
    """
    if settings.batch_size % shards:
        raise ValueError(
            f"batch_size must be a multiple of accumulate x processes = {shards}, got {settings.batch_size}."
        )


def derive(*numbers: int) -> int:
    """A seed of 63 bits that depends on all ``numbers``: SplitMix64 (Steele, Lea & Flood 2014) over each in turn."""
    z = 0
    for number in numbers:
        z = (z + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        z ^= z >> 31
    return z >> 1
