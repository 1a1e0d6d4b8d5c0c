"""Default recipes: the network, process and training settings for data of a given shape and number of bins.

`scoresde train` and `scoresde compare` both start from these.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoresde.data import Data, Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP, FourierInput, Pointwise, QuantizedSkip, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    ImportanceTimesteps,
    LogNormalTimesteps,
    LossMomentTimesteps,
    StratifiedTimesteps,
)
from scoresde.objective.weighting import ELBO
from scoresde.process.parameterization import Parameterization, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import SDE, VPSDE
from scoresde.training import Training

__all__ = ["Recipe", "default_recipe"]


@dataclass(frozen=True, eq=False)
class Recipe:
    """Settings of a model and of its training, before the model is built.

    Attributes:
        network: The network's settings: a dataclass module, whose weights are not used.
        sde: The process.
        parameterization: What the network's output estimates.
        training: Settings of the run; its loss has the default weighting.
    """

    network: nn.Module
    sde: SDE
    parameterization: Parameterization
    training: Training

    def build(self, data: Data, seed: int = 0) -> ScoreModel:
        """A model with new weights that depend on ``seed`` alone; the global random state does not change.

        Args:
            data: The model gets its description; `QuantizedSkip` counts the integer values of the train part.
            seed: Of the initial weights.

        Raises:
            TypeError: If the network is not a dataclass and so cannot be built from its settings.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = _rebuilt(self.network)
        if isinstance(net, QuantizedSkip):
            net.fit(data.train)
        return ScoreModel(net, self.sde, self.parameterization, data.description.shape, data.description)


def default_recipe(description: Description) -> Recipe:
    """The default recipe for small integer data, images from 8 x 8 on, points of up to 3 values, or other events.

    Args:
        description: Of the data; the recipe depends on its shape, bins and scale.
    """
    with torch.random.fork_rng(devices=[]):  # templates draw weights that are never used
        return _recipe_for(description)


def _recipe_for(description: Description) -> Recipe:
    shape, bins, offset, scale = description.shape, description.bins, description.offset, description.scale
    loss = Loss(ELBO(), ImportanceTimesteps(ELBO()))
    if bins is not None and bins <= 64 and description.dims <= 256:
        return _small_integer_data(shape, bins)
    if len(shape) == 3 and min(shape[1:]) >= 8:
        if bins is not None and bins <= 256 and isinstance(offset, float) and isinstance(scale, float):
            return _quantized_images(shape, bins, offset, scale)
        return Recipe(UNet(shape), VPSDE(Cosine()), V(), Training(loss=Loss(timesteps=StratifiedTimesteps()), lr=2e-4))
    if description.dims <= 3:
        training = Training(steps=4000, batch_size=512, loss=loss, lr=2e-3, lr_end=0.0, ema=0.99)
        return Recipe(MLP(shape, width=128, depth=3), VPSDE(Cosine(), tau_min=1e-4), V(), training)
    return Recipe(MLP(shape), VPSDE(Cosine()), V(), Training(loss=loss))


def _small_integer_data(shape: tuple[int, ...], bins: int) -> Recipe:
    """An MLP that gives each value a context, and a head that reads the value's position in its bin."""
    coarse, fine = (FourierInput(bins / 2, octaves, damped=True) for octaves in ((0,), (0, 1, 2, 3)))
    log_snr_range = (-10.0, 13.0)
    trunk = MLP(
        shape, 384, 3, embedding_width=128, dropout=0.1, fourier=coarse, log_snr_range=log_snr_range, outputs=16
    )
    loss = Loss(ELBO(), LogNormalTimesteps(p_mean=-1.5, p_std=2.0, even=0.4))
    training = Training(steps=3000, loss=loss, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, lr_end=0.0)
    return Recipe(Pointwise(trunk, fine, embedding_width=128), VPSDE(), V(), training)


def _quantized_images(shape: tuple[int, ...], bins: int, offset: float, scale: float) -> Recipe:
    """A `UNet` inside a `QuantizedSkip`, trained on bin centers with the ELBO weighting."""
    inner = UNet(shape, outputs=3, fourier=FourierInput(scale, (-1, 0), damped=True))
    loss = Loss(ELBO(), LossMomentTimesteps())
    training = Training(loss=loss, lr=1e-3, betas=(0.9, 0.99), warmup=200, lr_end=0.0, dequantize=False)
    net = QuantizedSkip(inner, bins, (0.0 - offset) / scale, (bins - offset) / scale)
    return Recipe(net, VPSDE(Cosine(), tau_min=1e-6), V(), training)


def _rebuilt(network: nn.Module) -> nn.Module:
    """A module of the same settings with new weights; modules among the settings are rebuilt too."""
    if not dataclasses.is_dataclass(network):
        raise TypeError(
            f"a network must be a dataclass to be rebuilt for each run, {type(network).__name__} is not; make its "
            "settings fields of a dataclass."
        )
    settings: dict[str, Any] = {f.name: getattr(network, f.name) for f in dataclasses.fields(network) if f.init}
    rebuilt = {name: _rebuilt(value) if isinstance(value, nn.Module) else value for name, value in settings.items()}
    return type(network)(**rebuilt)
