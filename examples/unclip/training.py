"""Training of both stages, each in a run directory of its own, so that an interrupted training is resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

import scoresde as sd
from unclip.dataset import Dataset
from unclip.decoder import base_data, base_model, base_settings, upsampler, upsampler_data, upsampler_settings
from unclip.prior import RIDGE_PENALTY, Ridge, prior_data, prior_model, prior_settings
from unclip.stages import Stages
from unclip.towers import Towers, train_towers

__all__ = [
    "fit_ridge",
    "fit_towers",
    "held_out_conditions",
    "train_base",
    "train_prior",
    "train_stages",
    "train_upsampler",
]


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
        moments=sd.Moments.of(data.embeddings["train"].flatten(0, 1)),
        ridge=fit_ridge(data),
        base=train_base(data, runs / "base", shorter, progress),
        upsampler=train_upsampler(data, runs / "upsampler", shorter, progress),
        embedder=data.embedder,
        towers=fit_towers(data),
    )


def fit_ridge(data: Dataset) -> Ridge:
    """All texts of the training emoji to the mean of their styles."""
    texts = data.texts["train"]
    embeddings = data.embeddings["train"].mean(1).repeat_interleave(texts.shape[1], 0)
    return Ridge.fit(texts.flatten(0, 1), embeddings, RIDGE_PENALTY)


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


def train_base(data: Dataset, run: Path, shorter: int = 1, progress: bool | None = None) -> sd.ScoreModel:
    """The decoder's first network."""
    parts = base_data(data.copies, data.images["validation"].flatten(0, 1), *_conditions(data))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = base_model(parts)
    return _trained(model, parts, base_settings(), run, shorter, progress)


def train_upsampler(data: Dataset, run: Path, shorter: int = 1, progress: bool | None = None) -> sd.ScoreModel:
    """The decoder's second network."""
    parts = upsampler_data(data.copies, data.images["validation"].flatten(0, 1), *_conditions(data))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = upsampler()
    return _trained(model, parts, upsampler_settings(), run, shorter, progress)


def held_out_conditions(data: Dataset, part: str) -> dict[str, torch.Tensor]:
    """The decoder's conditions of the images of a part, each image in its own style, unaltered."""
    n, styles = data.embeddings[part].shape[:2]
    return {
        "embedding": data.embeddings[part].flatten(0, 1),
        "style": torch.arange(styles).repeat(n),
        "altered": torch.zeros(n * styles, dtype=torch.int64),
    }


def _conditions(data: Dataset) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return data.copies_cond, held_out_conditions(data, "validation")


def _trained(
    model: sd.ScoreModel, data: sd.Data, settings: sd.Training, run: Path, shorter: int, progress: bool | None
) -> sd.ScoreModel:
    if shorter > 1:
        settings = replace(settings.fitted(max(2, settings.steps // shorter)), batch_size=16)
    resume = (run / "config.json").exists()
    return sd.train(model, data, settings, run_dir=run, resume=resume, save_every=250, progress=progress).model
