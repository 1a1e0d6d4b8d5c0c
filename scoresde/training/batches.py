"""Batches of events: which events update k trains on, and from which seeds; both follow from (seed, k) alone.

Position p of the endless data stream is event ``order(epoch)[p mod N]`` of epoch ``p div N``; step k holds the
positions ``k B ... (k + 1) B - 1``. A batch consists of equal shards, each with its own seed, which processes share.
So two processes train on the same batches as one process that accumulates two shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde.data import Data, Description
from scoresde.data.prefetch import Prefetcher
from scoresde.model import ScoreModel
from scoresde.training.condition_batches import ConditionBatches
from scoresde.training.data_checks import check_augment, check_quantized, checked_events, observed_share
from scoresde.training.settings import Training
from scoresde.training.source import BatchSource, EventOrder, check_shards, derive

__all__ = ["Batches", "cond_fingerprint", "fingerprint", "seed_device", "to_model_units"]

_RESIDENT = 1 << 30  # largest data, bytes, that stay on the device; larger ones are sent batch by batch
_STEP = 2  # purpose of a derived seed


class Batches(BatchSource):
    """The shards of every batch, in model units on the device; integer values are dequantized or at bin centers.

    Data that are too large for the device stay where they are, such as on a disk. This process's next shard is then
    read while it computes.

    Args:
        model: Its network's type is that of the batches; it gets the data's description and event shape.
        data: A data set, or events ``(N, *D)`` in the units of ``model.data`` if it has one, else in model units.
        settings: Of the run.
        device: Device of the batches.
        shards: Number of shards of each batch.

    Attributes:
        observed_share: Share of the data's values that are not missing.

    Raises:
        TypeError: If a tensor of data is not floating and the model has no description; if values may be missing and
            the network does not read which are observed.
        ValueError: If there are no events, or the data do not fit their description, the model or the settings; if
            the batch cannot be cut into equal shards.
    """

    def __init__(self, model: ScoreModel, data: Data | Tensor, settings: Training, device: torch.device, shards: int):
        events, cond, description = checked_events(model, data)
        check_shards(settings, shards)
        settings.loss.check_process(model)
        if description is not None and getattr(model.net, "trained_on_bin_centers", False):
            check_quantized(model, description, settings.dequantize and not events.is_floating_point())
        self._missing = description is not None and description.missing
        self.observed_share = 1.0
        if description is not None and description.missing:
            self.observed_share = observed_share(model, events, description)
        if settings.augment is not None:
            check_augment(model, events, self._missing, cond)
        model.data = description
        model.event_shape = tuple(events.shape[1:]) if description is None else description.model_shape
        self.dtype = next((p.dtype for p in model.parameters() if p.dtype == torch.float64), torch.float32)
        self.description: Description | None = description
        self.device, self.settings, self.shards = device, settings, shards
        resident = events.nbytes <= _RESIDENT
        self.events = events.to(device) if resident else events
        kept = description is not None and (description.quantized or description.classes is not None)
        if resident and not kept:
            self.events, self.description = self._to_model_units(self.events), None  # scaled once
        self._prefetcher = None if resident or events.device.type != "cpu" else Prefetcher(events)
        self._cond = ConditionBatches(model.net, cond, description, settings, device, self.dtype)
        self._order = EventOrder(len(self.events), settings, shards, self.events.device)
        self.fingerprint = fingerprint(events)
        self.cond_fingerprint = cond_fingerprint(cond)

    def indices(self, step: int, shard: int) -> Tensor:
        """Indices of the events in shard ``shard`` of batch ``step`` (0 is the first), ``(batch_size / shards,)``."""
        return self._order.indices(step, shard)

    def close(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()

    def draw(self, step: int, shard: int) -> tuple[Tensor, dict[str, Any]]:
        """Seeds the global random state for this shard; dequantization and augmentation draw from it.

        Returns:
            Events in model units, ``(batch_size / shards, *D)``, NaN at missing values; and the network's other inputs:
            its conditions, and ``observed`` if values may be missing.
        """
        seed_device(derive(self.settings.seed, _STEP, step, shard), self.device)
        index = self.indices(step, shard)
        x0 = self._to_model_units(self._rows(index, step, shard).to(self.device, non_blocking=True))
        cond: dict[str, Any] = {"observed": ~x0.isnan()} if self._missing else {}
        if self.settings.augment is not None:
            x0, cond["augment"] = self.settings.augment(x0)
        return x0, {**cond, **self._cond.draw(index, x0)}

    def _rows(self, index: Tensor, step: int, shard: int) -> Tensor:
        if self._prefetcher is None:
            return self.events[index]
        processes = max(1, self.shards // self.settings.accumulate)
        steps, next_shard = divmod(shard + processes, self.shards)
        return self._prefetcher.take(index, self.indices(step + steps, next_shard))

    def _to_model_units(self, events: Tensor) -> Tensor:
        if self.description is not None:
            events = to_model_units(events, self.description, self.settings.dequantize)
        return events.to(self.dtype)


def cond_fingerprint(cond: Mapping[str, Tensor]) -> str | None:
    """A hash that identifies the conditions of a data set, as `fingerprint` does its events; None without any.

    Args:
        cond: Of the train part, by name, each ``(N, *)``, in data units.
    """
    if not cond:
        return None
    each = "".join(f"{name} {fingerprint(values)} " for name, values in sorted(cond.items()))
    return hashlib.sha256(each.encode()).hexdigest()[:16]


def fingerprint(events: Tensor) -> str:
    """A hash that identifies a data set, of its shape, type and up to 1024 evenly spaced events.

    Args:
        events: Of the train part, ``(N, *D)``, in the units of their source.

    Returns:
        16 hexadecimal digits, as under ``events`` in ``config.json`` and checkpoints.
    """
    digest = hashlib.sha256(f"{tuple(events.shape)} {events.dtype}".encode())
    some = events[:: max(1, -(-len(events) // 1024))].detach().cpu().contiguous()
    digest.update(some.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def to_model_units(events: Tensor, description: Description, dequantize: bool) -> Tensor:
    """Events in model units.

    Args:
        events: In data units, ``(B, *D)``.
        description: Of the data.
        dequantize: Whether integer values, and the columns of a table that lie on a grid, are dequantized (from the
            global random state) or moved to bin centers.
    """
    if description.is_quantized(events):
        events = description.dequantize(events) if dequantize else description.center(events)
    return description.to_model(events)


def seed_device(seed: int, device: torch.device) -> None:
    """Seeds the CPU and ``device``; torch.manual_seed would seed every device, which takes 1 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)
