"""Default recipes: the network, process and training settings for data of a given shape and number of bins.

`scoresde train` and `scoresde compare` both start from these.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.checks import check_integer
from scoresde.data import Data, Description
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Condition, FourierInput, Pointwise, QuantizedSkip, UNet
from scoresde.nn._network_wrapper import NetworkWrapper
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    ImportanceTimesteps,
    LogNormalTimesteps,
    LossMomentTimesteps,
    StratifiedTimesteps,
)
from scoresde.objective.weighting import ELBO
from scoresde.process.base import Process
from scoresde.process.mixed import Mixed
from scoresde.process.outputs import default_output
from scoresde.process.parameterization import NetworkOutput, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.training import Training
from scoresde.training.category_defaults import category_network, category_process, category_training
from scoresde.training.condition_defaults import chosen_conditions, network_conditions
from scoresde.training.data_checks import check_process
from scoresde.training.table_defaults import mixed_network, mixed_process, table_network, table_training

__all__ = ["Recipe", "default_recipe", "innermost", "with_conditions"]

_POSITIONS = 1 << 17  # positions of one batch of series or volumes
_ATTENDED = 512  # most positions of the resolution that attends: attention takes their square


@dataclass(frozen=True, eq=False)
class Recipe(CheckedArguments):
    """Settings of a model and of its training, before the model is built.

    Attributes:
        network: The network's settings: a dataclass module, whose weights are not used.
        sde: The process.
        parameterization: What the network's output estimates.
        training: Settings of the run; its loss has the default weighting.
        reason: Why this network was chosen, one line; empty for a network that the user names.
    """

    network: nn.Module
    sde: Process
    parameterization: NetworkOutput
    training: Training
    reason: str = ""

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
        return ScoreModel(net, self.sde, self.parameterization, data.description.model_shape, data.description)


def default_recipe(
    description: Description,
    rows: int | None = None,
    conditions: Sequence[str] | None = None,
    process: Process | None = None,
) -> Recipe:
    """The default recipe for data of a shape; its ``reason`` says which of these they are.

    Small integer data (at most 256 values of at most 64 bins); images ``(C, H, W)`` from 8 x 8 on, series ``(C, L)``
    from length 16 on and volumes ``(C, D, H, W)`` from 4 x 4 x 4 on, which get a `UNet`; points of up to 3 values;
    tables; other events; categories, which get a `CategoricalNet`; tables with codes of categories, which get a
    `MixedNet`. Volumes and long series have smaller batches, so
    that a training step fits the machine. Data with missing values get an `MLP` that reads which values are observed.

    Args:
        description: Of the data; the recipe depends on its shape, bins and scale, and on whether values may be missing.
        rows: Training events, for tables: they are trained for at most 200 epochs, and those of fewer than 2000 rows
            get a smaller network with dropout. None: not known, which counts as many.
        conditions: Names of conditions of the data that the network reads, with a null for each. None takes all but
            class labels, which most data have: ``default_recipe(description, conditions=["label"])`` takes these. So
            does ``["known"]`` the entries of the event that are known, for imputation by plain sampling.
        process: In place of the default one. With an absorbing kernel the network reads its mask.

    Raises:
        ValueError: If a condition is not described, or the process does not fit the data.
    """
    check_arguments(default_recipe, locals())
    if rows is not None:
        check_integer("rows", rows, 0)
    if process is not None:
        check_process(process, description)
    with torch.random.fork_rng(devices=[]):  # templates draw weights that are never used
        if description.codes:
            recipe = _mixed_table(description, rows, process)
        elif description.classes is not None:
            recipe = _categories(description, process)
        else:
            recipe = _recipe_for(description, rows)
        recipe = recipe if process is None else dataclasses.replace(recipe, sde=process)
        recipe = _with_missing_values(recipe, description) if description.missing else recipe
        shape = getattr(innermost(recipe.network), "event_shape", None)
        declared = network_conditions(description, chosen_conditions(description, conditions), shape)
        return with_conditions(recipe, declared) if declared else recipe


def _recipe_for(description: Description, rows: int | None) -> Recipe:
    shape, bins = description.model_shape, description.bins
    loss = Loss(ELBO(), ImportanceTimesteps(ELBO()))
    if bins is not None and bins <= 64 and description.dims <= 256:
        return _small_integer_data(shape, bins)
    if (kind := _grid_kind(shape)) is not None:
        return _grids(kind, description)
    if description.dims <= 3:
        training = Training(steps=4000, batch_size=512, loss=loss, lr=2e-3, lr_end=0.0, ema=0.99)
        network = MLP(shape, width=128, depth=3)
        return Recipe(network, VPSDE(Cosine(), tau_min=1e-4), V(), training, f"points of {description.dims} values")
    reason = _other_events(shape, description.dims)
    if len(shape) == 1:
        return Recipe(table_network(shape, rows), VPSDE(Cosine()), V(), table_training(rows), reason)
    return Recipe(MLP(shape), VPSDE(Cosine()), V(), Training(loss=loss), reason)


def _categories(description: Description, process: Process | None) -> Recipe:
    process = category_process(description) if process is None else process
    network, reason = category_network(description, process)
    return Recipe(network, process, default_output(process), category_training(description), reason)


def _mixed_table(description: Description, rows: int | None, process: Process | None) -> Recipe:
    process = mixed_process(description) if process is None else process
    assert isinstance(process, Mixed)  # checked
    network, categories = mixed_network(description, process, rows), len(description.codes)
    reason = f"tables of {description.dims} columns, {categories} of them categories"
    return Recipe(network, process, default_output(process), table_training(rows, mixed=True), reason)


def innermost(network: nn.Module) -> nn.Module:
    """The network inside of the wrappers of this package."""
    return innermost(network.net) if isinstance(network, NetworkWrapper) else network


def _with_inner(network: nn.Module, **changes: Any) -> nn.Module:
    """The network with fields of its innermost one changed."""
    if isinstance(network, NetworkWrapper):
        return _rebuilt(network, net=_with_inner(network.net, **changes))
    outer: Any = network
    return dataclasses.replace(outer, **changes)


def _with_missing_values(recipe: Recipe, description: Description) -> Recipe:
    """The recipe with a network that reads which values are observed; an `MLP` does, also inside a wrapper."""
    if isinstance(innermost(recipe.network), MLP):
        network, reason = _with_inner(recipe.network, observed=True), "with missing values"
    else:
        network = MLP(description.model_shape, observed=True)
        reason = f"with missing values, which {type(recipe.network).__name__} does not read, so an MLP"
    return dataclasses.replace(recipe, network=network, reason=f"{recipe.reason}, {reason}")


def with_conditions(recipe: Recipe, conditions: Mapping[str, Condition]) -> Recipe:
    """The recipe with a network that reads conditions; that inside a wrapper of this package does.

    Args:
        recipe: Its network is one of this package, or a dataclass with a field ``conditions``.
        conditions: All conditions of the new network, by name.

    Raises:
        TypeError: If the network has no such field.
    """
    network = _with_inner(recipe.network, conditions=conditions)
    reason = f"{recipe.reason}, conditioned on {', '.join(conditions)}" if recipe.reason else ""
    return dataclasses.replace(recipe, network=network, reason=reason)


def _grid_kind(shape: tuple[int, ...]) -> str | None:
    """Images, series or volumes, with their axes, if the shape is one of them and large enough to have a structure."""
    kinds = {2: ("series (C, L)", 16), 3: ("images (C, H, W)", 8), 4: ("volumes (C, D, H, W)", 4)}
    kind, least = kinds.get(len(shape), (None, 0))
    return kind if kind is not None and min(shape[1:]) >= least else None


def _other_events(shape: tuple[int, ...], dims: int) -> str:
    if len(shape) < 2:
        return f"tables of {dims} columns" if shape else "numbers"
    text = f"events {shape} of {dims} values, too small for a UNet along some axis"
    if shape[-1] <= 4 and min(shape[:-1]) > shape[-1]:
        text += "; if the last axis is one of channels, move it to the front"
    return text


def _grids(kind: str, description: Description) -> Recipe:
    """The recipe for images, series and volumes: inside a `QuantizedSkip` if they have up to 256 bins and one scale."""
    bins, offset, scale = description.bins, description.offset, description.scale
    settings = _unet_settings(description.shape)
    reason = kind
    if bins is not None and bins <= 256 and isinstance(offset, float) and isinstance(scale, float):
        recipe = _quantized_grids(description.shape, bins, offset, scale, settings)
        reason += f" of integer values, {bins} bins"
    else:
        training = Training(loss=Loss(timesteps=StratifiedTimesteps()), lr=2e-4)
        recipe = Recipe(UNet(description.shape, **settings), VPSDE(Cosine()), V(), training)
    training = dataclasses.replace(recipe.training, batch_size=_batch_size(description.shape))
    return dataclasses.replace(recipe, training=training, reason=reason)


def _batch_size(shape: tuple[int, ...]) -> int:
    """128 images; fewer volumes and long series, whose positions are many."""
    if len(shape) == 3:
        return 128
    most = 128 if len(shape) == 2 else 16
    return max(8, min(most, _POSITIONS // math.prod(shape[1:])))


def _unet_settings(shape: tuple[int, ...]) -> dict[str, Any]:
    """Fields of the `UNet`: fewer channels for large volumes, more resolutions where attention would see too much."""
    sizes, settings = shape[1:], {}
    if len(sizes) == 2:
        return settings
    if len(sizes) == 3:
        settings["channels"] = 32 if math.prod(sizes) <= 512 else 16 if math.prod(sizes) <= 16**3 else 8
    levels = 3
    while math.prod(-(-size // 2 ** (levels - 1)) for size in sizes) > _ATTENDED:
        levels += 1
    if levels == 3:
        return settings
    return {**settings, "multipliers": (1, *(2 for _ in range(levels - 1))), "attention": (levels - 1,)}


def _small_integer_data(shape: tuple[int, ...], bins: int) -> Recipe:
    """An MLP that gives each value a context, and a head that reads the value's position in its bin."""
    coarse, fine = (FourierInput(bins / 2, octaves, damped=True) for octaves in ((0,), (0, 1, 2, 3)))
    log_snr_range = (-10.0, 13.0)
    trunk = MLP(
        shape, 384, 3, embedding_width=128, dropout=0.1, fourier=coarse, log_snr_range=log_snr_range, outputs=16
    )
    loss = Loss(ELBO(), LogNormalTimesteps(p_mean=-1.5, p_std=2.0, even=0.4))
    training = Training(steps=3000, loss=loss, lr=3e-3, betas=(0.9, 0.99), weight_decay=0.01, lr_end=0.0)
    reason = f"small integer data, {math.prod(shape)} values of {bins} bins"
    return Recipe(Pointwise(trunk, fine, embedding_width=128), VPSDE(), V(), training, reason)


def _quantized_grids(
    shape: tuple[int, ...], bins: int, offset: float, scale: float, settings: dict[str, Any]
) -> Recipe:
    """A `UNet` inside a `QuantizedSkip`, trained on bin centers with the ELBO weighting."""
    inner = UNet(shape, outputs=3, fourier=FourierInput(scale, (-1, 0), damped=True), **settings)
    loss = Loss(ELBO(), LossMomentTimesteps())
    training = Training(loss=loss, lr=1e-3, betas=(0.9, 0.99), warmup=200, lr_end=0.0, dequantize=False)
    net = QuantizedSkip(inner, bins, (0.0 - offset) / scale, (bins - offset) / scale)
    return Recipe(net, VPSDE(Cosine(), tau_min=1e-6), V(), training)


def _rebuilt(network: nn.Module, **changes: Any) -> nn.Module:
    """A module of the same settings but ``changes``, with new weights; modules among the settings are rebuilt too."""
    if not dataclasses.is_dataclass(network):
        raise TypeError(
            f"a network must be a dataclass to be rebuilt for each run, {type(network).__name__} is not; make its "
            "settings fields of a dataclass."
        )
    settings: dict[str, Any] = {f.name: getattr(network, f.name) for f in dataclasses.fields(network) if f.init}
    settings |= changes
    rebuilt = {name: _rebuilt(value) if isinstance(value, nn.Module) else value for name, value in settings.items()}
    return type(network)(**rebuilt)
