"""What is trained when nothing else is said? A network, a process and a training run that suit the shape of the data.

This is the one home of such defaults: `scoresde train` and `scoresde compare` both start from here.
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
    """A model that is not built yet, and how to train it.

    Attributes:
        network: The network's settings: a dataclass module, whose own weights are not used.
        sde: The process.
        parameterization: What the network's output estimates.
        training: The run; its loss's weighting is the default one.
    """

    network: nn.Module
    sde: SDE
    parameterization: Parameterization
    training: Training

    def build(self, data: Data, seed: int = 0) -> ScoreModel:
        """A model with fresh weights that depend on ``seed`` alone; the global random state is left as it was.

        Args:
            data: Whose description it has; `QuantizedSkip` counts the levels of the train part.
            seed: Of the initial weights.

        Raises:
            TypeError: If the network is not a dataclass, so that it cannot be made anew.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net, about = _anew(self.network), data.description
        if isinstance(net, QuantizedSkip):
            net.fit(data.train)
        return ScoreModel(net, self.sde, self.parameterization, about.shape, about)


def default_recipe(description: Description) -> Recipe:
    """The default recipe: few values of few levels, pictures from 8 x 8 on, points in the plane, and everything else.

    Args:
        description: Of the data; its shape and bins decide.

    Returns:
        The recipe.
    """
    with torch.random.fork_rng(devices=[]):  # templates draw weights that are never used
        return _suited(description)


def _suited(description: Description) -> Recipe:
    shape, bins, offset, scale = description.shape, description.bins, description.offset, description.scale
    loss = Loss(ELBO(), ImportanceTimesteps(ELBO()))
    if bins is not None and bins <= 64 and description.dims <= 256:
        return _small_levels(shape, bins)
    if len(shape) == 3 and min(shape[1:]) >= 8:
        if bins is not None and bins <= 256 and isinstance(offset, float) and isinstance(scale, float):
            return _pictures_of_levels(shape, bins, offset, scale)
        return Recipe(UNet(shape), VPSDE(Cosine()), V(), Training(loss=Loss(timesteps=StratifiedTimesteps()), lr=2e-4))
    if description.dims <= 3:
        training = Training(steps=4000, batch_size=512, loss=loss, lr=2e-3, lr_end=0.0, ema=0.99)
        return Recipe(MLP(shape, width=128, depth=3), VPSDE(Cosine(), tau_min=1e-4), V(), training)
    return Recipe(MLP(shape), VPSDE(Cosine()), V(), Training(loss=loss))


def _small_levels(shape: tuple[int, ...], bins: int) -> Recipe:
    """An MLP that gives each value a context, and a head that sees where in its level the value lies."""
    coarse, fine = (FourierInput(bins / 2, octaves, damped=True) for octaves in ((0,), (0, 1, 2, 3)))
    seen = (-10.0, 13.0)
    trunk = MLP(shape, 384, 3, embedding_width=128, dropout=0.1, fourier=coarse, log_snr_range=seen, outputs=16)
    loss = Loss(ELBO(), LogNormalTimesteps(p_mean=-1.5, p_std=2.0, even=0.4))
    training = Training(steps=3000, loss=loss, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, lr_end=0.0)
    return Recipe(Pointwise(trunk, fine, embedding_width=128), VPSDE(), V(), training)


def _pictures_of_levels(shape: tuple[int, ...], bins: int, offset: float, scale: float) -> Recipe:
    """A UNet that says of each value what its neighbors add to what the levels are; trained on the bound itself."""
    inner = UNet(shape, outputs=3, fourier=FourierInput(scale, (-1, 0), damped=True))
    loss = Loss(ELBO(), LossMomentTimesteps())
    training = Training(loss=loss, lr=1e-3, betas=(0.9, 0.99), warmup=200, lr_end=0.0, dequantize=False)
    net = QuantizedSkip(inner, bins, (0.0 - offset) / scale, (bins - offset) / scale)
    return Recipe(net, VPSDE(Cosine(), tau_min=1e-6), V(), training)


def _anew(network: nn.Module) -> nn.Module:
    """A module of the same settings with weights of its own; modules among the settings too."""
    if not dataclasses.is_dataclass(network):
        raise TypeError(
            f"a network is made anew for each run from its settings, {type(network).__name__} is not a dataclass; "
            "make it one, with its settings as fields."
        )
    settings: dict[str, Any] = {f.name: getattr(network, f.name) for f in dataclasses.fields(network) if f.init}
    fresh = {name: _anew(value) if isinstance(value, nn.Module) else value for name, value in settings.items()}
    return type(network)(**fresh)
