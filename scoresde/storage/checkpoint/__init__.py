"""How is a run kept on disk? safetensors + JSON in directories that are whole or not there; nothing is ever unpickled.

`writing` and `reading` keep directories of tensors beside a JSON text; `state` puts tensors back into modules and
optimizers; `model` adds the settings of a `ScoreModel`, so that it can be rebuilt from the directory alone;
`averages` keeps snapshots of averaged weights, from which one of any length is made; `calibrated` keeps grids fitted to
a model beside it.
"""

from scoresde.storage.checkpoint.calibrations import load_calibration, save_calibration
from scoresde.storage.checkpoint.posthoc_ema import (
    discard_after,
    length_of,
    load_weights,
    power_decay,
    power_of,
    reconstruct,
    save_snapshot,
    weights_of,
)
from scoresde.storage.checkpoint.reading import Checkpoint, latest_checkpoint, numbered, read_checkpoint
from scoresde.storage.checkpoint.saved_model import load, model_settings, require_same, save
from scoresde.storage.checkpoint.state_dicts import load_into, load_optimizer, optimizer_state
from scoresde.storage.checkpoint.writing import only_writer, write_checkpoint, write_text

__all__ = [
    "Checkpoint",
    "discard_after",
    "latest_checkpoint",
    "length_of",
    "read_checkpoint",
    "load_calibration",
    "load_into",
    "load",
    "load_optimizer",
    "load_weights",
    "model_settings",
    "numbered",
    "only_writer",
    "optimizer_state",
    "power_decay",
    "power_of",
    "reconstruct",
    "require_same",
    "write_checkpoint",
    "save_calibration",
    "save",
    "save_snapshot",
    "weights_of",
    "write_text",
]
