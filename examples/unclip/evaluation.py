"""What the system reaches on held-out emoji: cosines, recall, guidance curves and bounds, with standard errors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

import scoresde as sd
from scoresde.metrics import density_coverage
from scoresde.objective import SNR
from unclip.dataset import Dataset
from unclip.decoder import GUIDED
from unclip.embedding import FEATURES, shown
from unclip.prior import draw, recall
from unclip.stages import METHODS, PRIOR_TRUNCATION, Stages
from unclip.training import fit_ridge

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
    "text_samples",
]

CAPTION = 1  # of the texts: name and tags
SCALES = (1.0, 1.5, 2.0, 3.0)
SHEET = 40


def evaluate(
    stages: Stages,
    data: Dataset,
    part: str,
    out: Path,
    guidance: tuple[float, float],
    priors: Sequence[sd.ScoreModel] = (),
) -> dict[str, Any]:
    """All figures of one part, also written as ``figures.json``; the pictures of `sheet` as tensors under "sheet".

    Args:
        stages: What is measured.
        data: The data set.
        part: "validation" or "test".
        out: Folder of the file.
        guidance: Scales of the prior and of the decoder.
        priors: The same prior trained from other seeds.
    """
    figures: dict[str, Any] = {"part": part, "emoji": len(data.emoji[part])}
    print("decoder ...")
    figures["decoder"] = decoder_cosines(stages, data, part, guidance[1])
    print("prior ...")
    figures["prior"] = prior_figures(stages, stages.prior, data, part, guidance[0])
    for seed, prior in enumerate(priors, 1):
        figures[f"prior, seed {seed}"] = prior_figures(stages, prior, data, part, guidance[0])
    print("text to image ...")
    figures["text"] = text_figures(stages, data, part, guidance)
    print("guidance ...")
    figures["curve"] = curve(stages, data, part, guidance[0])
    print("bounds ...")
    figures["bounds"] = bounds(stages, data, part)
    out.mkdir(parents=True, exist_ok=True)
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    figures["sheet"] = sheet(stages, data, part, guidance)
    return figures


def mean_of(values: Tensor) -> list[float]:
    """Mean over held-out emoji and its standard error."""
    values = values.double()
    return [float(values.mean()), float(values.std() / len(values) ** 0.5)]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the features alone, ``(n,)``."""
    return cosine_similarity(a[:, :FEATURES], b[:, :FEATURES], dim=1)


def decoder_cosines(stages: Stages, data: Dataset, part: str, guidance: float, **settings: Any) -> dict[str, Any]:
    """Cosine of samples to the image whose embedding was given, by what the decoder read.

    "own": the embedding of the image; "none": nothing; "wrong": another embedding, with the layout and the neighbors of
    that one. "without neighbors" and "neighbors alone" give the own embedding in part. "real" is the cosine of the real
    image at 32 x 32 pixels, "nearest" that of the nearest training image, which is the first of the neighbors.
    "sample to its nearest" is the cosine of a sample of "own" to the training image that is most like it, and "real to
    its nearest" that of a real image.
    """
    targets, reference, per_style = data.embeddings[part], stages.reference, []
    n, styles = targets.shape[:2]
    for style in range(styles):
        target, cosines = targets[:, style], {}
        for name, (change, given) in _readings().items():
            scale = 1.0 if name == "none" else guidance
            images = stages.decode(change(target), style, scale, range(n), given=given, **settings)
            samples = stages.embedder(shown(images))
            cosines[name] = cosine(samples, target)
            if name == "own":
                cosines["sample to its nearest"] = reference.nearest(samples)[1]
        real = stages.embedder(shown(data.images[part][:, style]))
        copies = stages.embedder(shown(reference.flat[reference.neighbors(target, 1)[:, 0]]))
        cosines |= {"real": cosine(real, target), "nearest": cosine(copies, target)}
        cosines |= {"real to its nearest": reference.nearest(real)[1]}
        cosines |= {"own minus nearest": cosines["own"] - cosines["nearest"]}
        per_style.append(cosines)
    return {name: mean_of(torch.stack([each[name] for each in per_style]).mean(0)) for name in per_style[0]}


def other(values: Tensor) -> Tensor:
    """The rows half of the part away: emoji that are alike follow each other, so the next one would not do."""
    return values.roll(len(values) // 2, 0)


def _embeddings() -> dict[str, Callable[[Tensor], Tensor]]:
    return {"own": lambda e: e, "none": lambda e: torch.full_like(e, torch.nan), "wrong": other}


def _readings() -> dict[str, tuple[Callable[[Tensor], Tensor], tuple[str, ...]]]:
    own = _embeddings()["own"]
    readings: dict[str, tuple[Callable[[Tensor], Tensor], tuple[str, ...]]] = {
        name: (change, GUIDED) for name, change in _embeddings().items()
    }
    return {**readings, "without neighbors": (own, ("features", "layout")), "neighbors alone": (own, ("neighbors",))}


def prior_figures(
    stages: Stages, prior: sd.ScoreModel, data: Dataset, part: str, guidance: float, draws: int = 8
) -> dict[str, Any]:
    """Loss by which text the prior read; recall of its draws and of the regressions on the text."""
    texts, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    figures: dict[str, Any] = {"loss": _prior_losses(prior, texts, targets)}
    middle = targets.mean(1)
    n, styles = targets.shape[:2]
    seeds = [range(k * 100_000, k * 100_000 + n) for k in range(draws)]
    drawn = torch.stack(
        [draw(prior, texts, k % styles, guidance, each, truncation=PRIOR_TRUNCATION) for k, each in enumerate(seeds)]
    )
    estimates = {"mean of draws": drawn.mean(0), "one draw": drawn[0], "ridge": fit_ridge(data)(texts)}
    estimates["kernel regression"] = stages.regression(texts)
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
    """Cosine of samples from captions to the real images of the emoji, by how the text became an embedding.

    "shuffled" compares with the images of another emoji. "top-5 of all" is the share of samples whose own caption the
    towers rank among the first five of all captions; "top-5 of 40" does so among 40. "nearest" is not a sample but the
    training image that is the first neighbor of the regression's embedding, and "real" the real image itself.
    """
    captions, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    styles = targets.shape[1]
    figures: dict[str, Any] = {}
    for name in ("regression", "regression, name alone", "prior", "prior, name alone", "nearest", "real"):
        texts = data.texts[part][:, 0] if name.endswith("alone") else captions
        own, shuffled, top, top_sheet = [], [], [], []
        for style in range(styles):
            if name == "real":
                images = data.images[part][:, style]
            elif name == "nearest":
                images = stages.reference.flat[stages.reference.neighbors(stages.estimate(texts), 1)[:, 0]]
            else:
                images = text_samples(stages, texts, style, guidance, name.split(",")[0])
            samples = stages.embedder(shown(images))
            own.append(cosine(samples, targets[:, style]))
            shuffled.append(cosine(samples, other(targets[:, style])))
            scores = stages.towers.images(samples) @ stages.towers.texts(captions).mT
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


def text_samples(
    stages: Stages, texts: Tensor, style: int, guidance: tuple[float, float], method: str = METHODS[0]
) -> Tensor:
    """One image of each text, uint8, ``(n, 3, 32, 32)``."""
    embeddings = stages.estimate(texts) if method == "regression" else stages.embed(texts, style, guidance[0])
    return stages.decode(embeddings, style, guidance[1])


def curve(stages: Stages, data: Dataset, part: str, prior_guidance: float) -> list[dict[str, Any]]:
    """Guidance scale of the decoder against text-image score and coverage of the real images, style by style."""
    texts, targets = data.texts[part][:, CAPTION], data.embeddings[part]
    points = []
    for scale in SCALES:
        scores, shares, own = [], [], []
        for style in range(targets.shape[1]):
            samples = stages.embedder(shown(text_samples(stages, texts, style, (prior_guidance, scale))))
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
    """Bits per dimension of the decoder by which embedding it read, of 32 x 32 images with uniform dequantization."""
    images, n, styles = data.images[part].flatten(0, 1), *data.embeddings[part].shape[:2]
    description = stages.decoder.data
    assert description is not None
    bits: dict[str, Tensor] = {}
    for name, change in _embeddings().items():
        embeddings = change(data.embeddings[part]).flatten(0, 1)
        cond = stages.reference.conditions(embeddings, stages.embedder)
        cond |= {"style": torch.arange(styles).repeat(n), "altered": torch.zeros(n * styles, dtype=torch.int64)}
        generator, given = torch.Generator().manual_seed(0), description.to_model_cond(cond)
        bound = sd.continuous_vlb(
            stages.decoder, images, evaluations=evaluations, generator=generator, batch_size=100, **given
        )
        assert bound.bits is not None
        bits[name] = bound.bits.unflatten(0, (n, styles)).mean(1)
    figures: dict[str, Any] = {name: mean_of(values) for name, values in bits.items()}
    for a, b in (("none", "own"), ("wrong", "own"), ("wrong", "none")):
        figures[f"{a} minus {b}"] = mean_of(bits[a] - bits[b])
    return figures


def sheet(
    stages: Stages, data: Dataset, part: str, guidance: tuple[float, float], style: int = 0
) -> list[dict[str, Any]]:
    """Captions, real images, samples and nearest training images of the first 40 held-out emoji."""
    texts = data.texts[part][:SHEET, CAPTION]
    images = text_samples(stages, texts, style, guidance)
    embeddings = stages.embedder(shown(images))
    indices, cosines = stages.reference.nearest(embeddings)
    ranks = _ranks(stages.towers.images(embeddings) @ stages.towers.texts(texts).mT)
    return [
        {
            "caption": data.emoji[part][i].label,
            "real": data.images[part][i, style],
            "sample": images[i],
            "nearest": stages.reference.flat[int(indices[i])],
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
