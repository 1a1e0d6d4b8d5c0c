"""How is a model trained? `train(model, data, Training(steps=...))`: AdamW or Muon, an average of the weights, resume.

Step k depends on the settings, the data and k alone (`batches`), so a run that was stopped and resumed is the run that
was not. `settings` says what a run is, `update` moves the weights, `loop` runs it, `directory` and `record` keep it on
disk, `processes` makes several act as one, `watch` and `diagnostics` look at the result.
"""

from __future__ import annotations

from scoresde.training.diagnostics import LevelLoss, loss_by_log_snr
from scoresde.training.loop import Every, Moment, Trained, train
from scoresde.training.muon import Muon
from scoresde.training.settings import Training
from scoresde.training.watch import Watch

__all__ = ["Every", "LevelLoss", "Moment", "Muon", "Trained", "Training", "Watch", "loss_by_log_snr", "train"]
