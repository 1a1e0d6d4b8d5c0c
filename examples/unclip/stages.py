"""The trained system: texts to embeddings to images, scores, variations, and paths between images or texts."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

import scoresde as sd
from scoresde.storage.checkpoint import load, save
from unclip.decoder import GUIDED
from unclip.embedding import FEATURES, Embedder, shown
from unclip.prior import KernelRidge, best_of, draw
from unclip.reference import Reference
from unclip.towers import Towers

PRIOR_TRUNCATION, TRUNCATION = 0.3, 0.3
"""Factors of the noise at the start of sampling, in the prior and in the decoder; chosen on validation."""
_NETWORKS = ("prior", "decoder")
METHODS = ("regression", "prior")
"""How a text becomes an embedding; the first is the better one on validation."""
__all__ = ["METHODS", "PRIOR_TRUNCATION", "TRUNCATION", "Stages", "half_precision", "spherical"]


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points between ``a`` and ``b`` on a great circle, ``(points, d)``; the norm changes linearly.

    Args:
        a, b: ``(d,)``.
        t: ``(points,)``, 0 at ``a`` and 1 at ``b``.
    """
    unit_a, unit_b = normalize(a, dim=0), normalize(b, dim=0)
    angle = (unit_a @ unit_b).clamp(-1 + 1e-6, 1 - 1e-6).arccos()
    t = t[:, None]
    direction = (torch.sin((1 - t) * angle) * unit_a + torch.sin(t * angle) * unit_b) / torch.sin(angle)
    return direction * ((1 - t) * a.norm() + t * b.norm())


def half_precision(model: sd.ScoreModel) -> sd.ScoreModel:
    """A copy with weights in 16 bits, half the size of the file."""
    model = copy.deepcopy(model)
    model.net.half()
    return model


@dataclass(eq=False)
class Stages:
    """The parts that turn a text into an image.

    Attributes:
        prior: Of embeddings given a text.
        regression: The kernel regression beside it.
        decoder: Of images given an embedding and its neighbors.
        embedder: Of images.
        towers: Text-image score.
        reference: The training images, of which the neighbors are taken.
    """

    prior: sd.ScoreModel
    regression: KernelRidge
    decoder: sd.ScoreModel
    embedder: Embedder
    towers: Towers
    reference: Reference

    def embed(
        self,
        texts: Tensor,
        style: int = 0,
        guidance: float = 1.0,
        seeds: range | None = None,
        draws: int = 2,
        truncation: float = PRIOR_TRUNCATION,
    ) -> Tensor:
        """Image embeddings of texts by the prior, the best of some draws by the towers, ``(n, 224)``.

        Args:
            texts: ``(n, 384)``.
            style: Index of the style.
            guidance: Scale of classifier-free guidance on the text.
            seeds: One per text.
            draws: Number of draws.
            truncation: Factor of the noise at which sampling starts.
        """
        seeds = range(len(texts)) if seeds is None else seeds
        rounds = [range(seeds.start + k * 1_000_000, seeds.stop + k * 1_000_000) for k in range(draws)]
        drawn = torch.stack([draw(self.prior, texts, style, guidance, each, truncation=truncation) for each in rounds])
        return best_of(drawn, lambda embeddings: self.towers(texts, embeddings))

    def estimate(self, texts: Tensor) -> Tensor:
        """Image embeddings of texts by the regression, ``(n, 224)``, with the colors of the nearest training image.

        An average of many images has short features, such as no image has, and colors without a shape. So the features
        get the length of those of images, and the layout is that of one image. Chosen on validation.
        """
        average = self.regression(texts)
        features = normalize(average[:, :FEATURES], dim=1) * FEATURES**0.5
        full = torch.cat([features, average[:, FEATURES:]], 1)
        nearest = self.reference.embeddings.flatten(0, 1)[self.reference.neighbors(full, 1)[:, 0]]
        return torch.cat([features, nearest[:, FEATURES:]], 1)

    def decode(
        self,
        embeddings: Tensor,
        style: int = 0,
        guidance: float = 1.5,
        seeds: range | None = None,
        steps: int = 16,
        truncation: float = TRUNCATION,
        given: tuple[str, ...] = GUIDED,
    ) -> Tensor:
        """Images of embeddings, integer values, uint8, ``(n, 3, 32, 32)``.

        Args:
            embeddings: ``(n, 224)``; a row of NaN is the null, for an image of any kind.
            style: Index of the style.
            guidance: Scale of classifier-free guidance on all that follows from the embedding.
            seeds: One per image.
            steps: Network calls; guidance doubles them.
            truncation: Factor of the noise at which sampling starts. Below 1 images are more alike and cleaner (Brock
                et al. 2019).
            given: Which of the conditions that follow from the embedding the decoder reads.
        """
        n = len(embeddings)
        seeds = range(n) if seeds is None else seeds
        model = self.decoder if guidance == 1 else sd.CFG(self.decoder, guidance, names=GUIDED)
        assert model.data is not None
        noise = [torch.randn(model.data.model_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        cond = self.reference.conditions(embeddings, self.embedder)
        cond = {name: value if name in given else torch.full_like(value, torch.nan) for name, value in cond.items()}
        cond |= {"style": torch.full((n,), style), "altered": torch.zeros(n, dtype=torch.int64)}
        inputs: dict[str, Any] = model.data.to_model_cond(cond)
        return sd.sample(model, n, sd.Adams(steps), init=truncation * torch.stack(noise), **inputs).data

    def score(self, texts: Tensor, images: Tensor) -> Tensor:
        """Cosine of each text with its own image by the two towers, ``(n,)``.

        Args:
            texts: ``(n, 384)``.
            images: Integer images, ``(n, 3, 32, 32)``.
        """
        return self.towers(texts, self.embedder(shown(images)))

    def save(self, folder: Path) -> None:
        """Writes everything below ``folder`` in 16 bits, but the closed forms in the networks, their buffers, in 32."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"embedder.{name}": value.half() for name, value in vars(self.embedder).items()}
        tensors |= {f"regression.{name}": value.half() for name, value in vars(self.regression).items()}
        tensors |= {f"towers.{name}": value.half() for name, value in self.towers.state_dict().items()}
        for name in _NETWORKS:
            shutil.rmtree(folder / name, ignore_errors=True)
            model: sd.ScoreModel = getattr(self, name)
            save(half_precision(model), folder / name, keep=1)
            (folder / name / ".saving.lock").unlink()
            tensors |= {f"{name}.{buffer}": value for buffer, value in model.net.named_buffers()}
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "maps.safetensors")
        self.reference.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Stages:
        """Reads a folder of `save`; computes in float32."""
        tensors = {name: value.float() for name, value in load_file(folder / "maps.safetensors").items()}

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

        models = [load(folder / name) for name in _NETWORKS]
        for name, model in zip(_NETWORKS, models, strict=True):
            model.net.float().load_state_dict(part(name), strict=False)
        prior, decoder = models
        return cls(
            prior,
            KernelRidge(**part("regression")),
            decoder,
            Embedder(**part("embedder")),
            Towers.of(part("towers")),
            Reference.load(folder),
        )
