"""How is a run kept on disk? safetensors + JSON in directories that are whole or not there; nothing is ever unpickled.

`writing` and `reading` keep directories of tensors beside a JSON text; `state` puts tensors back into modules and
optimisers; `model` adds the settings of a `ScoreModel`, so that it can be rebuilt from the directory alone;
`calibrated` keeps grids fitted to it beside it.
"""

from scoresde.checkpoint.calibrated import load_calibration, save_calibration
from scoresde.checkpoint.model import load_model, require_same, save_model
from scoresde.checkpoint.reading import Checkpoint, latest, load
from scoresde.checkpoint.state import load_into, load_optimizer, optimizer_state
from scoresde.checkpoint.writing import only_writer, save

__all__ = [
    "Checkpoint",
    "latest",
    "load",
    "load_calibration",
    "load_into",
    "load_model",
    "load_optimizer",
    "only_writer",
    "optimizer_state",
    "require_same",
    "save",
    "save_calibration",
    "save_model",
]
