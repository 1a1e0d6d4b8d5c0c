"""How is a run kept on disk? safetensors + JSON in directories that are whole or not there; nothing is ever unpickled.

`writing` and `reading` keep directories of tensors beside a JSON text; `state` puts tensors back into modules and
optimisers; `model` adds the settings of a `ScoreModel`, so that it can be rebuilt from the directory alone;
`averages` keeps snapshots of averaged weights, from which one of any length is made; `calibrated` keeps grids fitted to
a model beside it.
"""

from scoresde.checkpoint.averages import (
    discard_after,
    length_of,
    load_weights,
    power_decay,
    power_of,
    reconstruct,
    save_snapshot,
    weights_of,
)
from scoresde.checkpoint.calibrated import load_calibration, save_calibration
from scoresde.checkpoint.model import load_model, model_settings, require_same, save_model
from scoresde.checkpoint.reading import Checkpoint, latest, load, numbered
from scoresde.checkpoint.state import load_into, load_optimizer, optimizer_state
from scoresde.checkpoint.writing import only_writer, save, write_text

__all__ = [
    "Checkpoint",
    "discard_after",
    "latest",
    "length_of",
    "load",
    "load_calibration",
    "load_into",
    "load_model",
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
    "save",
    "save_calibration",
    "save_model",
    "save_snapshot",
    "weights_of",
    "write_text",
]
