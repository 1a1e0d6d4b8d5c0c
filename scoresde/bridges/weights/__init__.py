"""Weights of foreign files as tensors by name, read without executing anything that a file holds.

`read_weights` takes a ``.safetensors`` file, the index of a sharded one, or a ``torch.save`` file. The last is a
pickle; torch's weights-only loader reads it in a process of its own, with limits on memory, time and what it may write.
`read_weight_file` also returns the numbers and texts beside the tensors. `fit` copies weights into a network.
"""

from scoresde.bridges.weights.files import read_json
from scoresde.bridges.weights.fit import choose, fit, without_wrappers
from scoresde.bridges.weights.read import Source, WeightFile, convert_weights, read_weight_file, read_weights

__all__ = [
    "Source",
    "WeightFile",
    "choose",
    "convert_weights",
    "fit",
    "read_json",
    "read_weight_file",
    "read_weights",
    "without_wrappers",
]
