"""Monitoring of a model during training: samples, and the loss by log-SNR on held-out events."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde.data import Data, Description
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed
from scoresde.sampling import DDIM, Ancestral, MixedSampler, Sampler, sample
from scoresde.storage import checkpoint
from scoresde.training.batches import to_model_units
from scoresde.training.condition_checks import in_turn, model_cond
from scoresde.training.loop import CallbackState
from scoresde.training.loss_by_log_snr import loss_by_log_snr
from scoresde.training.run_log import lines_until

__all__ = ["Monitor"]

LOSSES, SAMPLES = "loss_by_log_snr.jsonl", "samples"
_LEVELS = 16  # log-SNRs
_STEPS = 25  # of the default sampler


@dataclass(frozen=True, eq=False)
class Monitor(CheckedArguments):
    """A function for `Callback`: writes samples to ``samples/`` and a line to ``loss_by_log_snr.jsonl``.

    Noise, timesteps and conditions are the same in each call, so that differences are the model's. Samples have the
    conditions of held-out events, those of a network of classes one of each class in turn.

    Args:
        folder: The run directory.
        data: Its test part gives the held-out events; its train part, if the test part is empty.
        events: Number of held-out events, the first ones.
        samples: Number of samples; 0 draws none.
        sampler: Draws the samples; None takes ``DDIM(steps=25)``, of categories ``Ancestral(steps=25)``,
            of both ``MixedSampler(DDIM(steps=25))``.
        save_samples: Writes samples: a function of (path without suffix, values ``(n, *D)`` in data units,
            description). None writes ``.npz``.
        dequantize: As in `Training`: whether integer values are dequantized, or moved to bin centers.
    """

    folder: Path
    data: Data = field(repr=False)
    events: int = 256
    samples: int = 36
    sampler: Sampler | None = None
    save_samples: Callable[[Path, np.ndarray, Description], object] | None = None
    dequantize: bool = True

    @property
    def evaluations(self) -> int:
        """Events that the network sees in one call, a step of an unknown sampler counted 50 times."""
        events = min(self.events, len(self.data.test) or len(self.data.train))
        steps = _STEPS if self.sampler is None else getattr(self.sampler, "steps", 50)
        return _LEVELS * events + self.samples * int(steps)

    def __call__(self, state: CallbackState) -> None:
        """Evaluates ``state.model``."""
        device = next(state.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)
            self._write_losses(state, device)
            if self.samples:
                self._write_samples(state, device)

    def _write_losses(self, state: CallbackState, device: torch.device) -> None:
        data, has_test = self.data, bool(len(self.data.test))
        events = (data.test if has_test else data.train)[: self.events]
        x0 = to_model_units(events, data.description, self.dequantize)
        x0 = x0.to(device, next(state.model.parameters()).dtype)
        cond: dict[str, Any] = self._conditions(state, torch.arange(len(events)), device)
        if data.description.missing:
            cond["observed"] = ~x0.isnan()
        losses = loss_by_log_snr(state.model, x0, _LEVELS, generator=torch.Generator(device).manual_seed(0), **cond)
        row = {"step": state.step} | {name: getattr(losses, name).tolist() for name in ("log_snr", "loss", "stderr")}
        _append(self.folder / LOSSES, state.step, row)

    def _conditions(self, state: CallbackState, rows: Tensor, device: torch.device) -> dict[str, Any]:
        """The conditions of some held-out events, as the network reads them."""
        has_test = bool(len(self.data.test))
        given = self.data.test_cond if has_test else self.data.train_cond
        return model_cond(state.model, given, self.data.description, rows, device)

    def _rows_of_samples(self) -> Tensor:
        """The held-out events whose conditions the samples have: the first ones, of all classes in turn."""
        has_test = bool(len(self.data.test))
        count = len(self.data.test if has_test else self.data.train)
        labels = self.data.test_labels if has_test else self.data.train_labels
        order = torch.arange(count) if labels is None else in_turn(labels.cpu())
        return order[torch.arange(self.samples) % count]

    def _write_samples(self, state: CallbackState, device: torch.device) -> None:
        cond = self._conditions(state, self._rows_of_samples(), device)
        sampler = self.sampler
        if sampler is None:
            sampler = Ancestral(_STEPS) if isinstance(state.model.sde, DiscreteProcess) else DDIM(steps=_STEPS)
            sampler = MixedSampler(DDIM(steps=_STEPS)) if isinstance(state.model.sde, Mixed) else sampler
        values = sample(state.model, self.samples, sampler, seeds=range(self.samples), **cond).data.cpu().numpy()
        path = self.folder / SAMPLES / f"step-{state.step:09d}"
        path.parent.mkdir(exist_ok=True)
        if self.save_samples is None:
            np.savez_compressed(path.with_suffix(".npz"), x=values)
        else:
            self.save_samples(path, values, self.data.description)


def _append(path: Path, step: int, row: Mapping[str, object]) -> None:
    """Adds a line after those of earlier steps; later steps come from before an interruption and are dropped."""
    earlier = lines_until(path, step - 1) if path.exists() else []
    checkpoint.write_text(path, "".join([*earlier, json.dumps(row) + "\n"]))
