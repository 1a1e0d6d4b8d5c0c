"""How is a model trained? `train(model, data, Training(steps=...))`: AdamW or Muon, an average of the weights, resume.

Step k depends on the settings, the data and k alone (`batches`), so a run that was stopped and resumed is the run that
was not. `settings` says what a run is, `update` moves the weights, `loop` runs it, `directory` and `record` keep it on
disk, `processes` makes several act as one, `watch` and `diagnostics` look at the result.
"""

from __future__ import annotations

from scoresde.training.loop import Callback, CallbackState, TrainingResult, train
from scoresde.training.loss_by_log_snr import LossByLogSNR, loss_by_log_snr
from scoresde.training.monitor import Monitor
from scoresde.training.muon import Muon
from scoresde.training.settings import Training

__all__ = [
    "Callback",
    "LossByLogSNR",
    "CallbackState",
    "Muon",
    "TrainingResult",
    "Training",
    "Monitor",
    "loss_by_log_snr",
    "train",
]
