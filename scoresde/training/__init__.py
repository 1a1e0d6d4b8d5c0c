"""How is a model trained? `train(model, data, Training(steps=...))`: AdamW, an average of the weights, resume.

Step k depends on the settings, the data and k alone (`batches`), so a run that was stopped and resumed is the run that
was not. `settings` says what a run is, `loop` runs it, `run` keeps it on disk, `diagnostics` looks at the result.
"""

from __future__ import annotations

from scoresde.training.diagnostics import LevelLoss, loss_by_log_snr
from scoresde.training.loop import Every, Moment, Trained, train
from scoresde.training.settings import Training

__all__ = ["Every", "LevelLoss", "Moment", "Trained", "Training", "loss_by_log_snr", "train"]
