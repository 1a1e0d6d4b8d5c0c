"""Training images beside the weights, for the nearest training image of a sample: one PNG, and a table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

from unclip.dataset import Dataset
from unclip.embedding import FEATURES, SIZE, Embedder
from unclip.emoji import STYLES
from unclip.neighbors import COUNT, nearest_rows

__all__ = ["Reference"]

_COLUMNS = 62


@dataclass(frozen=True, eq=False)
class Reference:
    """The training images.

    Attributes:
        images: uint8, ``(n, styles, 3, 32, 32)``.
        embeddings: ``(n, styles, 224)``.
        labels: Names of the emoji, n.
    """

    images: Tensor
    embeddings: Tensor
    labels: tuple[str, ...]

    @classmethod
    def of(cls, data: Dataset) -> Reference:
        """The training part of the data set."""
        labels = tuple(each.label for each in data.emoji["train"])
        return cls(data.images["train"], data.embeddings["train"], labels)

    def nearest(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the training image of largest cosine in the features, ``(m,)``, and that cosine, ``(m,)``.

        Indices count the images of `flat`.
        """
        table = normalize(self.embeddings.flatten(0, 1)[:, :FEATURES], dim=1)
        cosines = normalize(embeddings[:, :FEATURES], dim=1) @ table.mT
        best = cosines.max(1)
        return best.indices, best.values

    def neighbors(self, embeddings: Tensor, count: int) -> Tensor:
        """Indices in `flat` of the training images of largest cosine in the whole embedding, ``(m, count)``."""
        return nearest_rows(self.embeddings.flatten(0, 1), embeddings, count)

    def conditions(self, embeddings: Tensor, embedder: Embedder) -> dict[str, Tensor]:
        """What the decoder reads of embeddings ``(n, 224)``; a row of NaN gives nulls.

        Returns:
            ``features`` ``(n, 128)``, ``layout`` ``(n, 3, 16, 16)`` and the nearest images as ``neighbors``
            ``(n, 12, 32, 32)``; float32, the last two in values of 256.
        """
        null = embeddings.isnan().any(1)
        neighbors = self.flat[self.neighbors(embeddings.nan_to_num(), COUNT)].flatten(1, 2).float()
        neighbors[null] = torch.nan
        layout = embedder.layout(embeddings)
        layout[null] = torch.nan
        return {"features": embeddings[:, :FEATURES], "layout": layout, "neighbors": neighbors}

    @property
    def flat(self) -> Tensor:
        """All images of all styles, ``(n * styles, 3, 32, 32)``."""
        return self.images.flatten(0, 1)

    def label(self, index: int) -> str:
        """Name and style of an image of `flat`."""
        return f"{self.labels[index // len(STYLES)]} ({STYLES[index % len(STYLES)]})"

    def find(self, label: str) -> int:
        """Index of the emoji of this name.

        Raises:
            ValueError: If there is none; the message has some that are similar.
        """
        if label in self.labels:
            return self.labels.index(label)
        words = set(label.lower().split())
        alike = sorted(self.labels, key=lambda each: -len(words & set(each.lower().split())))[:5]
        raise ValueError(f"{label!r} is not the name of a training emoji; similar names are {', '.join(alike)}.")

    def save(self, folder: Path) -> None:
        """Writes ``training-images.png`` (lossless), ``training-images.safetensors`` and their names."""
        flat = self.flat
        rows = -(-len(flat) // _COLUMNS)
        padded = torch.cat([flat, flat.new_zeros(rows * _COLUMNS - len(flat), *flat.shape[1:])])
        sheet = padded.unflatten(0, (rows, _COLUMNS)).permute(0, 3, 1, 4, 2).reshape(rows * SIZE, _COLUMNS * SIZE, 3)
        Image.fromarray(sheet.numpy()).save(folder / "training-images.png", optimize=True)
        save_file({"embeddings": self.embeddings.half().contiguous()}, folder / "training-images.safetensors")
        (folder / "training-images.json").write_text(json.dumps(self.labels, ensure_ascii=False, indent=0))

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """Reads a folder of `save`."""
        embeddings = load_file(folder / "training-images.safetensors")["embeddings"].float()
        with Image.open(folder / "training-images.png") as image:
            sheet = torch.from_numpy(np.array(image.convert("RGB")))
        rows = sheet.shape[0] // SIZE
        images = sheet.unflatten(1, (_COLUMNS, SIZE)).unflatten(0, (rows, SIZE)).permute(0, 2, 4, 1, 3).flatten(0, 1)
        labels = tuple(json.loads((folder / "training-images.json").read_text()))
        return cls(
            images[: embeddings.shape[0] * embeddings.shape[1]].unflatten(0, (-1, len(STYLES))), embeddings, labels
        )
