"""Checkpoints: directories of safetensors and JSON that are complete or absent; nothing is ever unpickled.

`writing` and `reading` hold the format: tensors and a JSON text. `state_dicts` restores modules and optimizers,
`saved_model` adds the settings of a `ScoreModel`, so that it can be rebuilt from the directory alone. `posthoc_ema`
stores snapshots of averaged weights, from which an EMA of any length is computed; `calibrations` stores samplers
calibrated to a model.
"""

from scoresde.storage.checkpoint.calibrations import load_calibration, save_calibration
from scoresde.storage.checkpoint.initial_weights import CopiedWeights, start_from
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
    "CopiedWeights",
    "discard_after",
    "latest_checkpoint",
    "length_of",
    "load",
    "load_calibration",
    "load_into",
    "load_optimizer",
    "load_weights",
    "model_settings",
    "numbered",
    "only_writer",
    "optimizer_state",
    "power_decay",
    "power_of",
    "read_checkpoint",
    "reconstruct",
    "require_same",
    "save",
    "save_calibration",
    "save_snapshot",
    "start_from",
    "weights_of",
    "write_checkpoint",
    "write_text",
]
