"""Which events are seen at step k, and from which random numbers? Both follow from (seed, k) alone: nothing to store.

Position p of the endless data stream is event ``order(epoch)[p mod N]`` of epoch ``p div N``; step k holds the
positions ``k B ... (k + 1) B - 1``. It is cut into equal shards, each with a seed of its own, which processes share
out: two processes see what one process sees that accumulates two shards.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde.data import Augment, Data, Description
from scoresde.data.prefetch import Prefetcher
from scoresde.model import ScoreModel
from scoresde.process.parameterization import V
from scoresde.training.settings import Training

__all__ = ["Batches", "derive", "fingerprint", "in_model_units"]

_RESIDENT = 1 << 30  # bytes of data that are kept on the device rather than sent batch by batch
_ORDER, _STEP = 1, 2  # what a derived seed is for


def derive(*numbers: int) -> int:
    """A seed of 63 bits that depends on all of ``numbers``: SplitMix64 (Steele, Lea & Flood 2014) over each in turn."""
    z = 0
    for number in numbers:
        z = (z + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        z ^= z >> 31
    return z >> 1


class Batches:
    """The shards of every step, in model units on the device, quantized data freshly dequantized, or at their centers.

    Data that are too large to be held on the device stay where they are, on a disk say, and this process's next shard
    is read while it computes.

    Args:
        model: Its network's type is the events'; takes the data's description and event shape if it has none.
        data: A data set, or events ``(N, *D)``: of ``model.data`` if it has one, else in model units.
        settings: Of the run.
        device: Where batches are wanted.
        shards: Number of shards of each step.

    Raises:
        ValueError: If there are no events, one is not finite or not as described, ``data`` and ``model.data``
            differ, the shards cannot be equal, or they are to be augmented and cannot be, or the network is not told.
    """

    def __init__(self, model: ScoreModel, data: Data | Tensor, settings: Training, device: torch.device, shards: int):
        events, labels, about = _events(model, data)
        if settings.batch_size % shards:
            raise ValueError(
                f"batch_size must be a multiple of accumulate x processes = {shards}, got {settings.batch_size}."
            )
        if about is not None and getattr(model.net, "on_centers", False):
            _check_levels(model, about, settings.dequantize and not events.is_floating_point())
        if settings.augment is not None:
            _check_augment(model, events)
        model.data, model.event_shape = about, tuple(events.shape[1:])
        self.dtype = next((p.dtype for p in model.parameters() if p.dtype == torch.float64), torch.float32)
        self.description: Description | None = about
        self.device, self.settings, self.shards = device, settings, shards
        self.null_label: int | None = getattr(model.net, "null_label", None)
        resident = events.nbytes <= _RESIDENT
        self.events = events.to(device) if resident else events
        if resident and (self.description is None or self.description.bins is None):
            self.events, self.description = self._to_model(self.events), None  # scaled once
        self._ahead = None if resident or events.device.type != "cpu" else Prefetcher(events)
        self.labels = None if labels is None else labels.to(self.events.device)
        self._orders: dict[int, Tensor] = {}
        self.fingerprint = fingerprint(events)

    def indices(self, step: int, shard: int) -> Tensor:
        """Which events shard ``shard`` of step ``step`` (0 is the first) holds, ``(batch_size / shards,)``."""
        count = self.settings.batch_size // self.shards
        at, parts = step * self.settings.batch_size + shard * count, []
        while count:
            epoch, first = divmod(at, len(self.events))
            part = self._order(epoch)[first : first + count]
            parts.append(part)
            at, count = at + len(part), count - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def close(self) -> None:
        """Ends the reading ahead; nothing can be drawn afterwards."""
        if self._ahead is not None:
            self._ahead.close()

    def draw(self, step: int, shard: int) -> tuple[Tensor, dict[str, Any]]:
        """Seeds the global random state for this shard, and takes from it what dequantization and augmentation need.

        Returns:
            Events in model units, ``(batch_size / shards, *D)``, and what else the network is given.
        """
        _seed(derive(self.settings.seed, _STEP, step, shard), self.device)
        index = self.indices(step, shard)
        x0 = self._to_model(self._rows(index, step, shard).to(self.device, non_blocking=True))
        told: dict[str, Any] = {}
        if self.settings.augment is not None:
            x0, told["augment"] = self.settings.augment(x0)
        if self.labels is None:
            return x0, told
        labels = self.labels[index].to(self.device, non_blocking=True)
        if self.null_label is not None and self.settings.label_dropout:
            dropped = torch.rand(labels.shape, device=self.device) < self.settings.label_dropout
            labels = torch.where(dropped, self.null_label, labels)
        return x0, {**told, "cond": labels}

    def _rows(self, index: Tensor, step: int, shard: int) -> Tensor:
        if self._ahead is None:
            return self.events[index]
        processes = max(1, self.shards // self.settings.accumulate)
        further, then = divmod(shard + processes, self.shards)
        return self._ahead.take(index, self.indices(step + further, then))

    def _to_model(self, events: Tensor) -> Tensor:
        about = self.description
        events = events if about is None else in_model_units(events, about, self.settings.dequantize)
        return events.to(self.dtype)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            generator = torch.Generator().manual_seed(derive(self.settings.seed, _ORDER, epoch))
            self._orders = {k: v for k, v in self._orders.items() if k == epoch - 1}
            self._orders[epoch] = torch.randperm(len(self.events), generator=generator).to(self.events.device)
        return self._orders[epoch]


def fingerprint(events: Tensor) -> str:
    """What tells one data set from another: shape, type, and up to 1024 evenly spaced events.

    Args:
        events: Of the train part, ``(N, *D)``, as they are read.

    Returns:
        16 hexadecimal digits, as ``config.json`` and checkpoints have them under ``events``.
    """
    digest = hashlib.sha256(f"{tuple(events.shape)} {events.dtype}".encode())
    some = events[:: max(1, -(-len(events) // 1024))].detach().cpu().contiguous()
    digest.update(some.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def in_model_units(events: Tensor, about: Description, dequantize: bool) -> Tensor:
    """Events ``(B, *D)`` from data units, levels by the global random state or, without ``dequantize``, at centers."""
    if about.bins is not None and not events.is_floating_point():
        events = about.dequantize(events) if dequantize else about.center(events)
    return about.to_model(events)


def _events(model: ScoreModel, data: Data | Tensor) -> tuple[Tensor, Tensor | None, Description | None]:
    """Checked events, labels if the network reads any, and what the events are."""
    events = data.train if isinstance(data, Data) else data
    about = data.description if isinstance(data, Data) else model.data
    if model.data is not None and model.data != about:
        raise ValueError(
            f"data must be what the model was made for, {model.data}, got {about}; scaling has one source. Build the "
            "model without data, or with this one."
        )
    if events.ndim == 0 or not len(events):
        raise ValueError(f"data must hold at least one event, (N, *D), got shape {tuple(events.shape)}.")
    if model.event_shape is not None and tuple(events.shape[1:]) != model.event_shape:
        raise ValueError(f"events must have the model's shape {model.event_shape}, got {tuple(events.shape[1:])}.")
    if about is None:
        if not events.is_floating_point():
            raise TypeError(f"a tensor of data must be floating, in model units, got {events.dtype}; pass a Data.")
        check_finite(events, "data")
    elif not isinstance(data, Data):  # whose values were checked when it was made
        about.validate(events)
    classes = getattr(model.net, "num_classes", None)
    labels = data.train_labels if isinstance(data, Data) else None
    return events, None if classes is None else _labels(labels, classes), about


def _labels(labels: Tensor | None, classes: int) -> Tensor:
    """Labels ``(N,)`` of a network of so many classes; the null label is the network's own, no event has it."""
    if labels is None:
        raise ValueError(
            f"a network of {classes} classes learns from labels, the data have none; name them where the data are "
            "read (label=, or labels beside x), or leave num_classes out."
        )
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < classes:
        wrong = low if low < 0 else high
        first = int((labels == wrong).nonzero()[0])
        raise ValueError(
            f"labels must be one of 0 ... {classes - 1}, got {wrong} at index {first}; subtract the lowest, or set "
            "num_classes to their number."
        )
    return labels


def _check_levels(model: ScoreModel, about: Description, dequantize: bool) -> None:
    """Refuses what a network that knows the data's levels would take for others."""
    net, name = model.net, type(model.net).__name__
    if about.bins is None or isinstance(about.offset, tuple) or isinstance(about.scale, tuple):
        raise ValueError(
            f"{name} needs data of levels under one scale, got bins={about.bins}, offset={about.offset} and "
            f"scale={about.scale}; state them so, or take its inner network alone."
        )
    assert about.offset is not None
    assert about.scale is not None
    if dequantize:
        raise ValueError(
            f"{name} must be trained on levels' centers, got Training(dequantize=True); set dequantize=False, or "
            "--centers."
        )
    if model.parameterization != V():
        raise ValueError(f"{name} estimates v, got {model.parameterization}; build the model with V().")
    known: Any = net
    told = known.bins, known.low, known.high
    there = about.bins, (0.0 - about.offset) / about.scale, (about.bins - about.offset) / about.scale
    if any(abs(a - b) > 1e-6 for a, b in zip(told, there, strict=True)):
        got, are = (f"bins={bins}, low={low:.6g}, high={high:.6g}" for bins, low, high in (told, there))
        raise ValueError(f"{name} must know the data's levels, {are}, got {got}; build it with {are}.")


def _check_augment(model: ScoreModel, events: Tensor) -> None:
    net, count = model.net, getattr(model.net, "augment", 0)
    if events.ndim != 4:
        raise ValueError(f"augment changes pictures (C, H, W), got events {tuple(events.shape[1:])}; leave it out.")
    if count != Augment.dims:
        raise ValueError(
            f"augment needs a network that is told each change by {Augment.dims} numbers, or it would sample changed "
            f"pictures, got {type(net).__name__} which reads {count or 'none'}; build it as UNet or DiT with "
            f"augment={Augment.dims}, or leave Training's augment out."
        )


def _seed(seed: int, device: torch.device) -> None:
    """Seeds what a step draws from; torch.manual_seed reaches for every device there is, and takes 1 ms."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    elif device.type != "cpu":
        getattr(torch, device.type).manual_seed(seed)
