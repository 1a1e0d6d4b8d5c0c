"""The small networks of the tests of `verify`: their settings, their data, and how they are read.

| name | network | estimates | process |
|---|---|---|---|
| eps | `UNet`, 225 000 weights | eps | VP, DDPM's betas, 1000 steps |
| class | the same, conditioned on the category | v | VP, cosine |
| edm | the same in EDM's preconditioning | EDM's target | VE |
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from scoresde import VE, VPSDE, Cosine, Data, Description, Eps, LinearBetas, ScoreModel, UNet, V
from scoresde.data import ClassCondition
from scoresde.nn import Classes
from scoresde.process import GeometricSigma

__all__ = ["BUILDERS", "FOLDER", "Preconditioned", "data_of", "held_out", "trained"]

FOLDER = Path(__file__).parents[1] / "evaluation" / "emoji"
SIGMA_DATA = 0.5


class Preconditioned(nn.Module):
    """EDM's input scaling in x around a network: x is divided by the standard deviation of the noised data."""

    def __init__(self, net: nn.Module, sigma_data: float) -> None:
        super().__init__()
        self.net, self.sigma_data = net, sigma_data

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        variance = torch.sigmoid(-log_snr) + self.sigma_data**2 * torch.sigmoid(log_snr)
        return self.net(x / variance.sqrt().reshape(-1, 1, 1, 1), log_snr)


def _unet(classes: int = 0) -> UNet:
    conditions = {"label": Classes(classes)} if classes else {}
    return UNet((3, 16, 16), 16, (1, 2, 2), blocks=1, conditions=conditions)


def _eps(description: Description) -> ScoreModel:
    clock = LinearBetas()
    return ScoreModel(_unet(), VPSDE(clock, tau_min=clock.knots(1000)[1]), Eps(), data=description)


def _class(description: Description) -> ScoreModel:
    return ScoreModel(_unet(9), VPSDE(Cosine(), tau_min=1e-4), V(), data=description)


def _edm(description: Description) -> ScoreModel:
    sde = VE(GeometricSigma(0.002, 80.0), tau_min=2e-6)
    return ScoreModel(Preconditioned(_unet(), SIGMA_DATA), sde, V(SIGMA_DATA), data=description)


BUILDERS: dict[str, Callable[[Description], ScoreModel]] = {"eps": _eps, "class": _class, "edm": _edm}


def data_of(images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Data:
    """Images (N, 3, 16, 16) and their categories as data for training."""
    kind = ClassCondition(len(classes), tuple(str(name) for name in classes))
    description = Description("emoji", (3, 16, 16), bins=256, conditions={"label": kind})
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    return Data(x, x[:0], description, {"label": y}, {"label": y[:0]})


def held_out() -> Data:
    """The 192 held-out images, as the test part."""
    arrays = np.load(FOLDER / "images.npz")
    data = data_of(arrays["x"], arrays["labels"], tuple(arrays["classes"]))
    return Data(data.train[:0], data.train, data.description, {"label": data.train_cond["label"][:0]}, data.train_cond)


def trained(name: str, raw: bool = False) -> ScoreModel:
    """A trained network in evaluation mode."""
    model = BUILDERS[name](held_out().description)
    weights = load_file(FOLDER / f"{name}{'-raw' if raw else ''}.safetensors")
    model.net.load_state_dict({key: value.float() for key, value in weights.items()})
    return model.eval()
