"""Training of both stages, each in a run directory of its own, so that an interrupted training is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize

import scoresde as sd
from unclip.dataset import Dataset
from unclip.decoder import decoder_data, decoder_model, decoder_settings
from unclip.embedding import FEATURES
from unclip.neighbors import COUNT, choices
from unclip.prior import RIDGE_PENALTY, KernelRidge, Ridge, prior_data, prior_model, prior_settings
from unclip.reference import Reference
from unclip.stages import Stages
from unclip.towers import Towers, train_towers

__all__ = [
    "fit_regression",
    "fit_ridge",
    "fit_towers",
    "held_out_conditions",
    "train_decoder",
    "train_prior",
    "train_stages",
    "training_images",
]

_DRAWS = {0: 4, 1: 2}
"""Choices of neighbors by ``altered``: the images themselves occur as often as all altered copies."""
_ALL_NULL = 1 / 12


def train_stages(data: Dataset, runs: Path, shorter: int = 1, progress: bool | None = None) -> Stages:
    """Trains everything, or resumes.

    Args:
        data: The data set.
        runs: Folder of the run directories.
        shorter: Divides the number of updates of each network.
        progress: Whether to show a bar.
    """
    return Stages(
        prior=train_prior(data, runs / "prior", 0, shorter, progress),
        regression=fit_regression(data),
        decoder=train_decoder(data, runs / "decoder", shorter, progress),
        embedder=data.embedder,
        towers=fit_towers(data),
        reference=Reference.of(data),
    )


def fit_ridge(data: Dataset) -> Ridge:
    """All texts of the training emoji to the mean of their styles."""
    texts = data.texts["train"]
    embeddings = data.embeddings["train"].mean(1).repeat_interleave(texts.shape[1], 0)
    return Ridge.fit(texts.flatten(0, 1), embeddings, RIDGE_PENALTY)


def fit_regression(data: Dataset) -> KernelRidge:
    """The mean of the texts of each training emoji, scaled to unit length, to the mean of its styles."""
    return KernelRidge.fit(normalize(data.texts["train"].mean(1), dim=1), data.embeddings["train"].mean(1))


def fit_towers(data: Dataset) -> Towers:
    """The score, from training emoji alone."""
    return train_towers(data.texts["train"], data.embeddings["train"], data.groups)


def train_prior(
    data: Dataset, run: Path, seed: int = 0, shorter: int = 1, progress: bool | None = None
) -> sd.ScoreModel:
    """The prior; validation is used only to report a loss."""
    parts = prior_data(
        data.embeddings["train"], data.texts["train"], data.embeddings["validation"], data.texts["validation"]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = prior_model(parts)
    return _trained(model, parts, prior_settings(seed=seed), run, shorter, progress)


def train_decoder(data: Dataset, run: Path, shorter: int = 1, progress: bool | None = None) -> sd.ScoreModel:
    """The decoder."""
    images, cond = training_images(data)
    held_out = data.images["validation"].flatten(0, 1)
    parts = decoder_data(images, held_out, cond, held_out_conditions(data, "validation"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = decoder_model()
    return _trained(model, parts, decoder_settings(), run, shorter, progress)


def training_images(data: Dataset, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The decoder's images with several choices of neighbors each, and their conditions.

    In half of the choices image, layout and neighbors are mirrored; the features of a mirror image are nearly the same.
    In a twelfth all conditions that follow from the embedding are null, for the guidance and for images of any kind.

    Returns:
        Images, uint8, ``(m, 3, 32, 32)``, and `decoder_data`'s conditions.
    """
    generator, given = torch.Generator().manual_seed(seed), data.copies_cond
    rows = torch.cat([(given["altered"] == flag).nonzero()[:, 0].repeat(draws) for flag, draws in _DRAWS.items()])
    pool = torch.arange(given["neighbors"].shape[1]).expand(len(rows), -1)
    neighbors = given["neighbors"][rows[:, None], choices(pool, COUNT, generator)].flatten(1, 2)
    grids = [data.copies[rows], neighbors.half(), data.embedder.layout(given["embedding"])[rows].half()]
    mirrored = (torch.rand(len(rows), generator=generator) < 0.5)[:, None, None, None]
    images, neighbors, layout = (torch.where(mirrored, grid.flip(3), grid) for grid in grids)
    features = given["embedding"][rows, :FEATURES].clone()
    nothing = torch.rand(len(rows), generator=generator) < _ALL_NULL
    for values in (features, layout, neighbors):
        values[nothing] = torch.nan
    cond = {"features": features, "layout": layout, "neighbors": neighbors}
    return images, {**cond, "style": given["style"][rows], "altered": given["altered"][rows]}


def held_out_conditions(data: Dataset, part: str) -> dict[str, Tensor]:
    """The decoder's conditions of the images of a part, each image in its own style, unaltered."""
    n, styles = data.embeddings[part].shape[:2]
    reference = Reference.of(data)
    cond = reference.conditions(data.embeddings[part].flatten(0, 1), data.embedder)
    return {**cond, "style": torch.arange(styles).repeat(n), "altered": torch.zeros(n * styles, dtype=torch.int64)}


def _trained(
    model: sd.ScoreModel, data: sd.Data, settings: sd.Training, run: Path, shorter: int, progress: bool | None
) -> sd.ScoreModel:
    if shorter > 1:
        settings = replace(settings.fitted(max(2, settings.steps // shorter)), batch_size=16)
    resume = (run / "config.json").exists()
    return sd.train(model, data, settings, run_dir=run, resume=resume, save_every=250, progress=progress).model
