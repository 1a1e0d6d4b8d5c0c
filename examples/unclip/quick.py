"""A run of seconds without packages: a few updates of every network, and pictures by the stored weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from unclip.dataset import Dataset
from unclip.embedding import Embedder
from unclip.emoji import STYLES, Emoji
from unclip.page import Picture, Row, write_page
from unclip.reference import Reference
from unclip.stages import Stages
from unclip.text import TEXT
from unclip.training import train_stages

__all__ = ["quick_check", "small_dataset"]


def small_dataset(reference: Reference, embedder: Embedder, count: int = 24) -> Dataset:
    """Some training emoji as all parts, with random numbers in place of text embeddings."""
    rows = torch.linspace(0, len(reference.labels) - 1, count).long()
    images, embeddings = reference.images[rows], reference.embeddings[rows]
    texts = torch.randn(count, 2, TEXT, generator=torch.Generator().manual_seed(0)) / TEXT**0.5
    emoji = [Emoji(str(i), reference.labels[i], (), str(i)) for i in rows.tolist()]
    cond = {
        "embedding": embeddings.flatten(0, 1),
        "style": torch.arange(len(STYLES)).repeat(count),
        "altered": torch.arange(len(STYLES) * count) % 2,
    }
    parts = ("train", "validation", "test")
    return Dataset(
        dict.fromkeys(parts, emoji),
        dict.fromkeys(parts, images),
        dict.fromkeys(parts, embeddings),
        dict.fromkeys(parts, texts),
        images.flatten(0, 1),
        cond,
        embedder,
    )


def quick_check(weights: Path, out: Path) -> None:
    """Trains every network for a few updates, and decodes two training images by the stored weights."""
    shutil.rmtree(out, ignore_errors=True)
    reference, stages = Reference.load(weights), Stages.load(weights)
    trained = train_stages(small_dataset(reference, stages.embedder), out, shorter=2000, progress=False)
    trained.save(out / "weights")
    embeddings = reference.embeddings[:2, 0]
    pictures = {"stored weights": stages, "a few updates": Stages.load(out / "weights")}
    rows = [
        Row(name, [Picture(image) for image in each.decode(embeddings, steps=(4, 4))])
        for name, each in pictures.items()
    ]
    write_page(out / "index.html", "Quick check", "These pictures mean nothing.", rows)
    print(f"page: {out / 'index.html'}")
