"""Training: `train(model, data, Training(steps=...))` minimizes the loss with AdamW or Muon and keeps an EMA.

Update k depends on the settings, the data and k alone (`batches`). So a run that was interrupted and resumed gives the
same result as an uninterrupted one. `settings` holds the settings, `state` one update, `loop` the loop, `run_directory`
and `run_log` the files, `multi_process` distributed training, `monitor` and `loss_by_log_snr` evaluation during
training.
"""

from __future__ import annotations

from scoresde.training.adapters import add_adapters
from scoresde.training.loop import Callback, CallbackState, TrainingResult, train
from scoresde.training.loss_by_log_snr import LossByLogSNR, loss_by_log_snr
from scoresde.training.monitor import Monitor
from scoresde.training.optimizers import Muon
from scoresde.training.settings import Training

__all__ = [
    "Callback",
    "CallbackState",
    "LossByLogSNR",
    "Monitor",
    "Muon",
    "Training",
    "TrainingResult",
    "add_adapters",
    "loss_by_log_snr",
    "train",
]
