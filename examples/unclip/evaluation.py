"""What the system reaches on held-out emoji: cosines, recall, guidance curves and bounds, with standard errors."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import scoresde as sd
from scoresde.likelihood import Bound
from scoresde.metrics import density_coverage
from scoresde.objective import SNR
from unclip.dataset import Dataset
from unclip.decoder import RESIDUAL_SCALE, halved, noised, residual
from unclip.embedding import FEATURES, shown
from unclip.prior import draw, recall
from unclip.reference import Reference
from unclip.stages import PRIOR_TRUNCATION, Stages
from unclip.training import held_out_conditions

__all__ = [
    "bounds",
    "cosine",
    "curve",
    "decoder_cosines",
    "evaluate",
    "print_figures",
    "prior_figures",
    "sheet",
    "text_figures",
]

CAPTION = 1  # of the texts: name and tags
SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
SHEET = 40


def evaluate(
    stages: Stages, data: Dataset, reference: Reference, part: str, out: Path, guidance: tuple[float, float]
) -> dict[str, Any]:
    """All figures of one part, also written as ``figures.json``; the pictures of `sheet` as tensors under "sheet"."""
    figures: dict[str, Any] = {"part": part, "emoji": len(data.emoji[part])}
    print("decoder ...")
    figures["decoder"] = decoder_cosines(stages, data, part, guidance[1])
    print("prior ...")
    figures["prior"] = prior_figures(stages, stages.prior, data, part, guidance[0])
    print("text to image ...")
    figures["text"] = text_figures(stages, data, part, guidance)
    print("guidance ...")
    figures["curve"] = curve(stages, data, part, guidance[0])
    print("bounds ...")
    figures["bounds"] = bounds(stages, data, part)
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    figures["sheet"] = sheet(stages, data, reference, part, guidance)
    return figures


def mean_of(values: Tensor) -> list[float]:
    """Mean over held-out emoji and its standard error."""
    values = values.double()
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the features alone, ``(n,)``."""
    return cosine_similarity(a[:, :FEATURES], b[:, :FEATURES], dim=1)


def decoder_cosines(stages: Stages, data: Dataset, part: str, guidance: float, **settings: Any) -> dict[str, Any]:
    """Cosine of samples to the image whose embedding was given, by which embedding the decoder read.

    "own": that of the image; "none": no embedding; "wrong": of the next emoji. "real" is the cosine of the real image
    at 24 x 24 pixels, "nearest" that of the nearest training image.
    """
    figures, targets = {}, data.embeddings[part]
    n, styles = targets.shape[:2]
    for name, change in _embeddings().items():
        per_style = []
        for style in range(styles):
            given = change(targets[:, style])
            images = stages.decode(given, style, 1.0 if name == "none" else guidance, range(n), **settings)
            per_style.append(cosine(stages.embedder(shown(images)), targets[:, style]))
        figures[name] = mean_of(torch.stack(per_style).mean(0))
    real = stages.embedder(shown(data.images[part].flatten(0, 1)))
    figures["real"] = mean_of(cosine(real, targets.flatten(0, 1)).unflatten(0, (n, styles)).mean(1))
    table = normalize(data.embeddings["train"].flatten(0, 1)[:, :FEATURES], dim=1)
    nearest = (normalize(targets.flatten(0, 1)[:, :FEATURES], dim=1) @ table.mT).max(1).values
    figures["nearest"] = mean_of(nearest.unflatten(0, (n, styles)).mean(1))
    return figures


def _embeddings() -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "own": lambda e: e,
        "none": lambda e: torch.full_like(e, torch.nan),
        "wrong": lambda e: e.roll(1, 0),
    }


def prior_figures(
    stages: Stages, prior: sd.ScoreModel, data: Dataset, part: str, guidance: float, draws: int = 8
) -> dict[str, Any]:
    """Loss by which text the prior read; recall of the mean of some draws, of one draw and of the ridge regression."""
    texts, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    figures: dict[str, Any] = {"loss": _prior_losses(prior, texts, targets)}
    middle = targets.mean(1)
    n, styles = targets.shape[:2]
    seeds = [range(k * 100_000, k * 100_000 + n) for k in range(draws)]
    drawn = torch.stack(
        [
            draw(prior, stages.moments, texts, k % styles, guidance, each, truncation=PRIOR_TRUNCATION)
            for k, each in enumerate(seeds)
        ]
    )
    estimates = {"mean of draws": drawn.mean(0), "one draw": drawn[0], "ridge": stages.ridge(texts)}
    figures["recall"] = {
        name: {k: mean_of(recall(estimate, middle, k)) for k in (1, 5)} for name, estimate in estimates.items()
    }
    difference = recall(estimates["mean of draws"], middle, 5) - recall(estimates["ridge"], middle, 5)
    figures["mean of draws minus ridge"] = mean_of(difference)
    a = stages.towers.texts(texts)
    b = normalize(stages.towers.images(targets).mean(1), dim=1)
    ranks = _ranks(a @ b.mT)
    figures["recall"]["two towers, real images"] = {k: mean_of((ranks < k).float()) for k in (1, 5)}
    return figures


def _prior_losses(prior: sd.ScoreModel, texts: Tensor, targets: Tensor, rounds: int = 8) -> dict[str, list[float]]:
    """Mean squared error of the prior per number, over its own training times; the same noise for each text."""
    n, styles = targets.shape[:2]
    losses, style = {}, torch.arange(styles).repeat(n)
    description = prior.data
    assert description is not None
    loss = sd.Loss(SNR(0.0))
    for name, change in _embeddings().items():
        cond = description.to_model_cond({"text": change(texts).repeat_interleave(styles, 0), "style": style})
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            values = [loss(prior, targets.flatten(0, 1), **cond) / targets.shape[2] for _ in range(rounds)]
        losses[name] = mean_of(torch.stack(values).mean(0).unflatten(0, (n, styles)).mean(1))
    return losses


def _ranks(scores: Tensor) -> Tensor:
    """Number of columns that score above the own one, in each row."""
    return (scores > scores.diagonal()[:, None]).sum(1)


def text_figures(stages: Stages, data: Dataset, part: str, guidance: tuple[float, float]) -> dict[str, Any]:
    """Cosine of samples from captions to the real images of the emoji, for the prior and for the ridge.

    "shuffled" compares with the images of the next emoji. "top-5 of all" is the share of samples whose own caption the
    towers rank among the first five of all captions; "top-5 of 40" does so among 40.
    """
    texts, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    styles = targets.shape[1]
    figures: dict[str, Any] = {}
    for name in ("prior", "prior, name alone", "ridge"):
        own, shuffled, top, top_sheet = [], [], [], []
        for style in range(styles):
            text = data.texts[part][:, 0] if name == "prior, name alone" else texts
            embeddings = stages.ridge(text) if name == "ridge" else stages.embed(text, style, guidance[0])
            samples = stages.embedder(shown(stages.decode(embeddings, style, guidance[1])))
            own.append(cosine(samples, targets[:, style]))
            shuffled.append(cosine(samples, targets[:, style].roll(1, 0)))
            scores = stages.towers.images(samples) @ stages.towers.texts(texts).mT
            top.append((_ranks(scores) < 5).float())
            top_sheet.append((_ranks(scores[:SHEET, :SHEET]) < 5).float())
        own, shuffled = torch.stack(own).mean(0), torch.stack(shuffled).mean(0)
        figures[name] = {
            "own": mean_of(own),
            "shuffled": mean_of(shuffled),
            "difference": mean_of(own - shuffled),
            "top-5 of all": mean_of(torch.stack(top).mean(0)),
            "top-5 of 40": mean_of(torch.stack(top_sheet).mean(0)),
        }
    return figures


def curve(stages: Stages, data: Dataset, part: str, prior_guidance: float) -> list[dict[str, Any]]:
    """Guidance scale of the decoder against text-image score and coverage of the real images, style by style."""
    texts, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    points = []
    for scale in SCALES:
        scores, shares, own = [], [], []
        for style in range(targets.shape[1]):
            embeddings = stages.embed(texts, style, prior_guidance)
            samples = stages.embedder(shown(stages.decode(embeddings, style, scale)))
            scores.append(stages.towers(texts, samples))
            own.append(cosine(samples, targets[:, style]))
            shares.append(density_coverage(samples[:, :FEATURES], targets[:, style, :FEATURES]).coverage)
        coverage = [
            sum(each.value for each in shares) / len(shares),
            sum(each.stderr**2 for each in shares) ** 0.5 / len(shares),
        ]
        points.append(
            {
                "scale": scale,
                "score": mean_of(torch.stack(scores).mean(0)),
                "cosine": mean_of(torch.stack(own).mean(0)),
                "coverage": coverage,
            }
        )
    return points


def bounds(stages: Stages, data: Dataset, part: str, evaluations: int = 32) -> dict[str, Any]:
    """Bits per dimension of the decoder by which embedding it read, of 24 x 24 images with uniform dequantization.

    The base model's bound of the small image plus the upsampler's of the large one given it (with its noise) is a bound
    of the large image, as the small image is a function of it.
    """
    images, cond = data.images[part].flatten(0, 1), held_out_conditions(data, part)
    n, styles = data.embeddings[part].shape[:2]
    small, dims = noised(halved(images)), images[0].numel()
    dequantized = images + torch.rand(images.shape, generator=torch.Generator().manual_seed(1)) - 0.5
    detail = residual(dequantized, small) / RESIDUAL_SCALE
    bits: dict[str, Tensor] = {}
    figures: dict[str, Any] = {}
    for name, change in _embeddings().items():
        given = {**cond, "embedding": change(data.embeddings[part]).flatten(0, 1)}
        base = _bound(stages.base, halved(images), given, evaluations)
        upsampler = _bound(stages.upsampler, detail, {**given, "small": small}, evaluations)
        nats = base.nats + upsampler.nats + dims * math.log(RESIDUAL_SCALE)
        bits[name] = (nats / dims / math.log(2)).unflatten(0, (n, styles)).mean(1)
        assert base.bits is not None
        figures[name] = {"total": mean_of(bits[name]), "small": mean_of(base.bits.unflatten(0, (n, styles)).mean(1))}
    for a, b in (("none", "own"), ("wrong", "own"), ("wrong", "none")):
        figures[f"{a} minus {b}"] = mean_of(bits[a] - bits[b])
    return figures


def _bound(model: sd.ScoreModel, values: Tensor, cond: dict[str, Tensor], evaluations: int) -> Bound:
    assert model.data is not None
    given: dict[str, Any] = model.data.to_model_cond(cond)
    generator = torch.Generator().manual_seed(0)
    return sd.continuous_vlb(model, values, evaluations=evaluations, generator=generator, batch_size=100, **given)


def sheet(
    stages: Stages, data: Dataset, reference: Reference, part: str, guidance: tuple[float, float], style: int = 0
) -> list[dict[str, Any]]:
    """Captions, real images, samples and nearest training images of the first 40 held-out emoji."""
    texts = data.texts[part][:SHEET, CAPTION]
    images = stages.decode(stages.embed(texts, style, guidance[0]), style, guidance[1])
    embeddings = stages.embedder(shown(images))
    indices, cosines = reference.nearest(embeddings)
    ranks = _ranks(stages.towers.images(embeddings) @ stages.towers.texts(texts).mT)
    return [
        {
            "caption": data.emoji[part][i].label,
            "real": data.images[part][i, style],
            "sample": images[i],
            "nearest": reference.flat[int(indices[i])],
            "nearest cosine": float(cosines[i]),
            "rank": int(ranks[i]),
        }
        for i in range(len(texts))
    ]


def print_figures(figures: dict[str, Any], indent: str = "") -> None:
    """One line for each figure."""
    for name, value in figures.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            print_figures(value, indent + "  ")
        elif isinstance(value, list) and len(value) == 2 and isinstance(value[0], float):
            print(f"{indent}{name}: {value[0]:.4f} ± {value[1]:.4f}")
        elif name == "curve":
            for point in value:
                print(f"{indent}scale {point['scale']}: score {point['score']}, coverage {point['coverage']}")
        elif name != "sheet":
            print(f"{indent}{name}: {value}")
