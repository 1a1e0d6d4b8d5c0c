"""The trained system: texts to embeddings to images, scores, variations, and paths between images or texts."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import normalize

import scoresde as sd
from scoresde.storage.checkpoint import load, save
from unclip.decoder import enlarged, noised
from unclip.embedding import Embedder, shown
from unclip.prior import Ridge, best_of, draw
from unclip.towers import Towers

PRIOR_TRUNCATION, TRUNCATION = 0.3, 0.3
"""Factors of the noise at the start of sampling, in the prior and in the decoder; chosen on validation."""
_NETWORKS = ("prior", "base", "upsampler")
__all__ = ["PRIOR_TRUNCATION", "TRUNCATION", "Stages", "half_precision", "spherical"]


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
        moments: Mean and covariance of training embeddings, for the prior's sampler.
        ridge: The linear estimate beside it.
        base: Decoder to 12 x 12.
        upsampler: Decoder from there to 24 x 24.
        embedder: Of images.
        towers: Text-image score.
    """

    prior: sd.ScoreModel
    moments: sd.Moments
    ridge: Ridge
    base: sd.ScoreModel
    upsampler: sd.ScoreModel
    embedder: Embedder
    towers: Towers

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
        drawn = torch.stack(
            [draw(self.prior, self.moments, texts, style, guidance, each, truncation=truncation) for each in rounds]
        )
        return best_of(drawn, lambda embeddings: self.towers(texts, embeddings))

    def decode(
        self,
        embeddings: Tensor,
        style: int | None = 0,
        guidance: float = 2.0,
        seeds: range | None = None,
        steps: tuple[int, int] = (24, 16),
        truncation: float = TRUNCATION,
    ) -> Tensor:
        """Images of embeddings, integer values, uint8, ``(n, 3, 24, 24)``.

        Args:
            embeddings: ``(n, 224)``; a row of NaN is the null: an image of any kind.
            style: Index of the style; None leaves it open.
            guidance: Scale of classifier-free guidance on the embedding, in the base model.
            seeds: One per image.
            steps: Network calls of base model and upsampler; guidance doubles the first.
            truncation: Factor of the noise at which both samplers start. Below 1 images are more alike and cleaner
                (Brock et al. 2019).
        """
        n = len(embeddings)
        seeds = range(n) if seeds is None else seeds
        cond = {"embedding": embeddings, "altered": torch.zeros(n, dtype=torch.int64)}
        if style is not None:
            cond["style"] = torch.full((n,), style)
        small = _sampled(self.base, steps[0], seeds, guidance, truncation, cond)
        small = torch.cat([noised(each[None], seed) for each, seed in zip(small, seeds, strict=True)])
        detail = _sampled(self.upsampler, steps[1], seeds, 1.0, truncation, {**cond, "small": small})
        return (enlarged(small) + detail).round().clamp(0, 255).to(torch.uint8)

    def score(self, texts: Tensor, images: Tensor) -> Tensor:
        """Cosine of each text with its own image by the two towers, ``(n,)``.

        Args:
            texts: ``(n, 384)``.
            images: Integer images, ``(n, 3, 24, 24)``.
        """
        return self.towers(texts, self.embedder(shown(images)))

    def save(self, folder: Path) -> None:
        """Writes everything below ``folder`` in 16 bits, but the closed forms in the networks, their buffers, in 32."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"embedder.{name}": value.half() for name, value in vars(self.embedder).items()}
        tensors |= {f"ridge.{name}": value.half() for name, value in vars(self.ridge).items()}
        tensors |= {f"towers.{name}": value.half() for name, value in self.towers.state_dict().items()}
        tensors |= {f"moments.{name}": getattr(self.moments, name).float() for name in ("mean", "axes", "variances")}
        tensors["moments.rest"] = torch.tensor([self.moments.rest])
        for name in _NETWORKS:
            shutil.rmtree(folder / name, ignore_errors=True)
            model: sd.ScoreModel = getattr(self, name)
            save(half_precision(model), folder / name, keep=1)
            (folder / name / ".saving.lock").unlink()
            tensors |= {f"{name}.{buffer}": value for buffer, value in model.net.named_buffers()}
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "maps.safetensors")

    @classmethod
    def load(cls, folder: Path) -> Stages:
        """Reads a folder of `save`; computes in float32."""
        tensors = {name: value.float() for name, value in load_file(folder / "maps.safetensors").items()}

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.split(".", 1)[1]: value for name, value in tensors.items() if name.startswith(f"{prefix}.")}

        models = [load(folder / name) for name in _NETWORKS]
        for name, model in zip(_NETWORKS, models, strict=True):
            model.net.float().load_state_dict(part(name), strict=False)
        prior, base, upsampler = models
        moments = part("moments")
        return cls(
            prior,
            sd.Moments(moments["mean"], moments["axes"], moments["variances"], float(moments["rest"])),
            Ridge(**part("ridge")),
            base,
            upsampler,
            Embedder(**part("embedder")),
            Towers.of(part("towers")),
        )


def _sampled(
    model: sd.ScoreModel, steps: int, seeds: range, guidance: float, truncation: float, cond: dict[str, Tensor]
) -> Tensor:
    """Samples given conditions in data units, by the probability flow from scaled noise."""
    assert model.data is not None
    guided = model if guidance == 1 else sd.CFG(model, guidance, names=["embedding"])
    noise = [torch.randn(model.data.model_shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    given = model.data.to_model_cond(cond)
    return sd.sample(guided, len(seeds), sd.Adams(steps), init=truncation * torch.stack(noise), **given).data
