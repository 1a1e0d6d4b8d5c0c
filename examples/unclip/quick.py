"""A run of seconds without packages: a few updates of every network, and images by the stored weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from unclip.dataset import Dataset
from unclip.embedding import Embedder
from unclip.emoji import STYLES, Emoji
from unclip.figures import draw_rows
from unclip.neighbors import POOL, nearest_rows
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
    groups = torch.arange(count).repeat_interleave(len(STYLES))
    flat, flat_images = embeddings.flatten(0, 1), images.flatten(0, 1)
    cond = {
        "embedding": flat,
        "style": torch.arange(len(STYLES)).repeat(count),
        "altered": torch.arange(len(STYLES) * count) % 2,
        "neighbors": flat_images[nearest_rows(flat, flat, POOL, groups, groups)],
    }
    parts = ("train", "validation", "test")
    return Dataset(
        dict.fromkeys(parts, emoji),
        dict.fromkeys(parts, images),
        dict.fromkeys(parts, embeddings),
        dict.fromkeys(parts, texts),
        flat_images,
        cond,
        embedder,
    )


def quick_check(weights: Path, out: Path) -> None:
    """Trains every network for a few updates in ``out / "quick"``, and draws by the stored weights: ``unclip.png``."""
    shutil.rmtree(out / "quick", ignore_errors=True)
    stages = Stages.load(weights)
    data = small_dataset(stages.reference, stages.embedder)
    train_stages(data, out / "quick", shorter=2000, progress=False).save(out / "quick" / "weights")
    Stages.load(out / "quick" / "weights").decode(stages.reference.embeddings[:1, 0], steps=2)
    chosen = stages.reference.embeddings[:: len(stages.reference.labels) // 8, 0][:8]
    images = stages.reference.images[:: len(stages.reference.labels) // 8, 0][:8]
    rows = [Row("training images", list(map(Picture, images)))]
    rows.append(Row("decoded from their embeddings", list(map(Picture, stages.decode(chosen, steps=8)))))
    draw_rows(rows, out / "unclip.png")
    write_page(out / "index.html", "Quick check", "Training images, and images decoded from their embeddings.", rows)
    print(f"page: {out / 'index.html'}")
