"""What does one look at while a model is trained? Samples, and the loss by log-SNR on events that were held out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scoresde.data import Data, Description
from scoresde.model import Model
from scoresde.sampling import DDIM, Sampler, sample
from scoresde.storage import checkpoint
from scoresde.training.batches import in_model_units
from scoresde.training.loop import CallbackState
from scoresde.training.loss_by_log_snr import loss_by_log_snr
from scoresde.training.run_log import lines_until

__all__ = ["Monitor"]

LEVELS, SAMPLES = "levels.jsonl", "samples"


@dataclass(frozen=True, eq=False)
class Monitor:
    """A callback, for `Callback`: samples go to ``samples/``, the loss by log-SNR to a line of ``levels.jsonl``.

    Noise and times are the same each time, so that what changes is the model.

    Args:
        folder: The run directory.
        data: Whose test part (the train part where it is empty) is looked at.
        events: How many of its first events.
        count: How many samples; 0 draws none.
        sampler: How they are drawn.
        show: Writes samples, ``(path, values (n, *D) in data units, description)``, under a path that it may give an
            ending; None writes ``.npz``.
        dequantize: As the run's, `Training`: levels are looked at as they are trained on.
    """

    folder: Path
    data: Data = field(repr=False)
    events: int = 256
    count: int = 36
    sampler: Sampler = DDIM(steps=25)
    show: Callable[[Path, np.ndarray, Description], object] | None = None
    dequantize: bool = True

    def __call__(self, moment: CallbackState) -> None:
        """Looks at ``moment.model``."""
        place = next(moment.model.parameters()).device
        with torch.random.fork_rng([place] if place.type == "cuda" else []):
            torch.manual_seed(0)
            self._levels(moment, place)
            if self.count:
                self._samples(moment, place)

    def _levels(self, moment: CallbackState, place: torch.device) -> None:
        about, held = self.data.description, bool(len(self.data.test))
        events = (self.data.test if held else self.data.train)[: self.events]
        labels = self.data.test_labels if held else self.data.train_labels
        x0 = in_model_units(events, about, self.dequantize)
        cond: dict[str, Any] = (
            {} if labels is None or _classes(moment.model) is None else {"cond": labels[: self.events].to(place)}
        )
        x0 = x0.to(place, next(moment.model.parameters()).dtype)
        found = loss_by_log_snr(moment.model, x0, 16, generator=torch.Generator(place).manual_seed(0), **cond)
        row = {"step": moment.step} | {name: getattr(found, name).tolist() for name in ("log_snr", "loss", "stderr")}
        _put(self.folder / LEVELS, moment.step, row)

    def _samples(self, moment: CallbackState, place: torch.device) -> None:
        classes = _classes(moment.model)
        cond: dict[str, Any] = {} if classes is None else {"cond": torch.arange(self.count, device=place) % classes}
        values = sample(moment.model, self.count, self.sampler, seeds=range(self.count), **cond).data.cpu().numpy()
        path = self.folder / SAMPLES / f"step-{moment.step:09d}"
        path.parent.mkdir(exist_ok=True)
        if self.show is None:
            np.savez_compressed(path.with_suffix(".npz"), x=values)
        else:
            self.show(path, values, self.data.description)


def _classes(model: Model) -> int | None:
    return getattr(getattr(model, "net", None), "num_classes", None)


def _put(path: Path, step: int, row: Mapping[str, object]) -> None:
    """Adds a line after those of earlier steps; later ones are of a run that was broken off."""
    kept = lines_until(path, step - 1) if path.exists() else []
    checkpoint.write_text(path, "".join([*kept, json.dumps(row) + "\n"]))
