"""Trains the small networks of the tests of `verify` on emoji (see README.md); minutes of one CPU core each.

    PYTHONPATH=tests/benchmarks python tests/evaluation/emoji/train_networks.py train.npz eps class edm

Each is written to NAME.safetensors beside this file, in bfloat16; of the first the raw weights too (eps-raw).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from emoji_networks import BUILDERS, FOLDER, data_of
from safetensors.torch import save_file
from torch import nn

from scoresde import Loss, Training, train
from scoresde.objective.timesteps import DiscreteTimesteps, LogNormalTimesteps, StratifiedTimesteps
from scoresde.objective.weighting import EDM

LOSSES = {
    "eps": Loss(timesteps=DiscreteTimesteps(1000)),
    "class": Loss(timesteps=StratifiedTimesteps()),
    "edm": Loss(EDM(), LogNormalTimesteps(p_mean=-1.2, p_std=1.2)),
}


def write(net: nn.Module, path: Path) -> None:
    """Weights as bfloat16."""
    save_file({name: value.detach().bfloat16().contiguous() for name, value in net.state_dict().items()}, path)


def main(train_file: Path, names: list[str], updates: int = 2500, batch: int = 64) -> None:
    """Trains and writes networks by name. The first keeps its learning rate, so that averaging matters."""
    arrays = np.load(train_file)
    data = data_of(arrays["x"], arrays["labels"], tuple(arrays["classes"]))
    for name in names:
        torch.manual_seed(0)
        model = BUILDERS[name](data.description)
        end = 1.0 if name == "eps" else 0.0
        settings = Training(updates, batch, LOSSES[name], lr=2e-3, lr_end=end, ema=0.995, condition_dropout=0.1)
        result = train(model, data, settings, progress=False, status=print)
        write(result.model.net, FOLDER / f"{name}.safetensors")
        if name == "eps":
            write(result.raw.net, FOLDER / "eps-raw.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
