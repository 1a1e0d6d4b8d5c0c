r"""Two towers, trained contrastively: the score of a text and an image is the cosine of two short vectors.

This is CLIP's idea (Radford et al. 2021) on top of two fixed encoders: each tower is a linear map, and the loss is the
cross-entropy of finding the own text among those of the batch and the own image among its images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unclip.embedding import FEATURES
from unclip.text import TEXT

__all__ = ["Towers", "train_towers"]


class Towers(nn.Module):
    """Maps of a text embedding and of the features of an image into one space.

    Args:
        width: Size of that space.
    """

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.text = nn.Linear(TEXT, width)
        self.image = nn.Linear(FEATURES, width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def texts(self, texts: Tensor) -> Tensor:
        """Unit vectors ``(n, width)`` of text embeddings ``(n, 384)``."""
        return F.normalize(self.text(texts * TEXT**0.5), dim=-1)

    def images(self, embeddings: Tensor) -> Tensor:
        """Unit vectors ``(n, width)`` of image embeddings ``(n, 224)``; only the features are read."""
        return F.normalize(self.image(embeddings[..., :FEATURES]), dim=-1)

    def forward(self, texts: Tensor, embeddings: Tensor) -> Tensor:
        """Score of each text with its own image, ``(n,)``, in [-1, 1]."""
        return (self.texts(texts) * self.images(embeddings)).sum(-1)

    @classmethod
    def of(cls, weights: dict[str, Tensor]) -> Towers:
        """Towers with these weights, in evaluation mode."""
        towers = cls(len(weights["text.bias"]))
        towers.load_state_dict(weights)
        return towers.eval().requires_grad_(False)


def train_towers(
    texts: Tensor,
    embeddings: Tensor,
    groups: Tensor,
    *,
    width: int = 96,
    epochs: int = 60,
    batch: int = 256,
    lr: float = 2e-3,
    decay: float = 0.3,
    noise: float = 0.5,
    dropout: float = 0.3,
    seed: int = 0,
) -> Towers:
    """Trains both towers.

    Args:
        texts: Some per emoji, ``(n, t, 384)``.
        embeddings: One per style, ``(n, styles, 224)``.
        groups: Group of each emoji, ``(n,)``; others of its group do not count as wrong.
        width: Of `Towers`.
        epochs, batch, lr, decay: Of AdamW; the rate falls to 0 along half a cosine.
        noise: Standard deviation of noise on the features, whose own is 1.
        dropout: Probability of dropping an input of either tower.
        seed: Of weights, order and noise.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = Towers(width)
        optimizer = torch.optim.AdamW(towers.parameters(), lr=lr, weight_decay=decay)
        steps = epochs * max(1, len(texts) // batch)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(texts)).split(batch)[: max(1, len(texts) // batch)]:
                text = texts[rows, torch.randint(texts.shape[1], (len(rows),))]
                image = embeddings[rows, torch.randint(embeddings.shape[1], (len(rows),))]
                image = image + noise * torch.randn_like(image)
                a = towers.texts(F.dropout(text, dropout))
                b = towers.images(F.dropout(image, dropout))
                logits = towers.log_scale.exp().clamp(max=100.0) * a @ b.mT
                alike = groups[rows][:, None] == groups[rows][None]
                logits = logits.masked_fill(alike & ~torch.eye(len(rows), dtype=torch.bool), -math.inf)
                own = torch.arange(len(rows))
                loss = 0.5 * (F.cross_entropy(logits, own) + F.cross_entropy(logits.mT, own))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return towers.eval().requires_grad_(False)
