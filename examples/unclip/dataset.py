"""Everything that training and evaluation read: images, embeddings and texts of each part, and altered copies."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from unclip.copies import copies, toned
from unclip.embedding import SIZE, Embedder, features, resized
from unclip.emoji import STYLES, Emoji, load_emoji, read_image, split
from unclip.neighbors import POOL, nearest_rows
from unclip.text import TextEncoder

__all__ = ["PARTS", "Dataset", "group_indices", "load_dataset", "variants"]

PARTS = ("train", "validation", "test")
_FILE = "prepared.safetensors"


@dataclass(frozen=True, eq=False)
class Dataset:
    """The data set, of one image per style and some texts of each emoji.

    Attributes:
        emoji: By part, n each.
        images: Integer images by part, uint8, ``(n, styles, 3, 32, 32)``.
        embeddings: By part, ``(n, styles, 224)``; of the images of 64 x 64 pixels.
        texts: Text embeddings by part, ``(n, t, 384)``: name, caption (name and tags), and in training further ones.
        copies: Training images of the decoder, uint8, ``(m, 3, 32, 32)``: the images themselves, some in other skin
            tones, and altered ones.
        copies_cond: Their ``embedding`` ``(m, 224)``, ``style`` and ``altered`` ``(m,)``, and their ``neighbors``,
            uint8, ``(m, 8, 3, 32, 32)``, the nearest first, altered like the copy.
        embedder: Fitted to the training images.
    """

    emoji: dict[str, list[Emoji]]
    images: dict[str, Tensor]
    embeddings: dict[str, Tensor]
    texts: dict[str, Tensor]
    copies: Tensor
    copies_cond: dict[str, Tensor]
    embedder: Embedder

    @property
    def groups(self) -> Tensor:
        """Group of each training emoji as an integer, ``(n,)``."""
        return group_indices(self.emoji["train"])


def group_indices(emoji: list[Emoji]) -> Tensor:
    """Group of each emoji as an integer, ``(n,)``."""
    index = {name: i for i, name in enumerate(sorted({each.group for each in emoji}))}
    return torch.tensor([index[each.group] for each in emoji])


def load_dataset(cache: Path, altered_copies: int = 3) -> Dataset:
    """The data set from the packages in ``cache``; computed once, in some minutes, and then read from a file there."""
    emoji, path = split(load_emoji(cache)), cache / _FILE
    if not path.exists():
        save_file(_prepare(emoji, cache, altered_copies), path)
    t = load_file(path)
    images, embeddings, texts = (
        {part: t[f"{kind}.{part}"] for part in PARTS} for kind in ("images", "embeddings", "texts")
    )
    cond = {name: t[f"copies.{name}"] for name in ("embedding", "style", "altered", "neighbors")}
    embedder = Embedder(**{name.removeprefix("embedder."): t[name] for name in t if name.startswith("embedder.")})
    return Dataset(emoji, images, embeddings, texts, t["copies"], cond, embedder)


def variants(emoji: Emoji, rng: random.Random, count: int = 3) -> list[str]:
    """Texts of a training emoji: its name, its caption, and ``count`` random choices of name and tags."""
    texts = [emoji.label, emoji.caption]
    for _ in range(count):
        tags = rng.sample(emoji.tags, min(len(emoji.tags), rng.randint(1, 4)))
        texts.append(", ".join([emoji.label] * (rng.random() < 0.6) + tags) or emoji.label)
    return texts


def _prepare(emoji: dict[str, list[Emoji]], cache: Path, altered_copies: int) -> dict[str, Tensor]:
    tensors, plain, tables = {}, {}, {}
    for part, members in emoji.items():
        print(f"preparing {part} ...")
        plain[part] = torch.stack([read_image(each.code, style, cache) for each in members for style in STYLES])
        tables[part] = features(plain[part])
        tensors[f"images.{part}"] = _integers(plain[part]).unflatten(0, (-1, len(STYLES)))
    embedder = Embedder.fit(plain["train"], tables["train"])
    for part, images in plain.items():
        tensors[f"embeddings.{part}"] = embedder.of(images, tables[part]).unflatten(0, (-1, len(STYLES)))
    tensors |= {f"embedder.{name}": value for name, value in vars(embedder).items()}
    table = tensors["embeddings.train"].flatten(0, 1)
    tensors |= _copies(emoji["train"], embedder, plain["train"], table, cache, altered_copies) | _texts(emoji, cache)
    return {name: value.contiguous() for name, value in tensors.items()}


def _copies(
    emoji: list[Emoji], embedder: Embedder, plain: Tensor, table: Tensor, cache: Path, count: int
) -> dict[str, Tensor]:
    """The decoder's training images, from the plain ones ``(n * styles, 3, 64, 64)`` and their embeddings."""
    n, styles = len(emoji), len(STYLES)
    groups = group_indices(emoji).repeat_interleave(styles)
    rows, small = nearest_rows(table, table, POOL, groups, groups), _integers(plain)
    images, embeddings, neighbors = [small], [table], [small[rows]]
    style, flags = [torch.arange(styles).repeat(n)], [torch.zeros(n * styles, dtype=torch.int64)]

    def add(part: Tensor, pool: Tensor, index: int, flag: int) -> None:
        images.append(_integers(part))
        embeddings.append(embedder(part))
        neighbors.append(pool)
        style.append(torch.full((len(part),), index))
        flags.append(torch.full((len(part),), flag))

    for index in range(styles):
        print(f"copies of {STYLES[index]} ...")
        own = rows.unflatten(0, (n, styles))[:, index]
        part, emoji_index = toned(emoji, index, cache)
        add(part, small[own[emoji_index]], index, 0)
        for seed in range(count):
            part, pool = copies(emoji, index, cache, plain, own, seed)
            add(part, _integers(pool.flatten(0, 1)).unflatten(0, (n, POOL)), index, 1)
    parts = {"embedding": embeddings, "style": style, "altered": flags, "neighbors": neighbors}
    return {"copies": torch.cat(images), **{f"copies.{name}": torch.cat(values) for name, values in parts.items()}}


def _texts(emoji: dict[str, list[Emoji]], cache: Path) -> dict[str, Tensor]:
    encoder, rng, tensors = TextEncoder(cache), random.Random(0), {}
    for part, members in emoji.items():
        print(f"texts of {part} ...")
        rows = [variants(each, rng, 3 if part == "train" else 0) for each in members]
        tensors[f"texts.{part}"] = encoder([text for row in rows for text in row]).unflatten(0, (len(rows), -1))
    return tensors


def _integers(images: Tensor) -> Tensor:
    return (255 * resized(images, SIZE)).round().clamp(0, 255).to(torch.uint8)
