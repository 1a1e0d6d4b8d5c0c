r"""The decoder: an image embedding becomes an image, in two diffusion models as in the paper's cascade.

`base_model` draws 12 x 12 pixels given the embedding; `upsampler` draws 24 x 24 given these and the embedding. Both
read the style and whether the training image was an altered copy; all of these are conditions, with null entries.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

import scoresde as sd
from scoresde.data import ClassCondition, ConditionKind, ImageCondition, VectorCondition
from scoresde.nn import Channels, Classes, Condition, Vector
from unclip.embedding import COLORS, FEATURES, SIZE
from unclip.emoji import STYLES

__all__ = [
    "RESIDUAL_SCALE",
    "base_data",
    "base_model",
    "base_settings",
    "enlarged",
    "halved",
    "noised",
    "residual",
    "upsampler",
    "upsampler_data",
    "upsampler_settings",
]

EMBEDDING = FEATURES + COLORS
RESIDUAL_SCALE = 18.0
"""Standard deviation of the upsampler's events, in values of 256."""


def halved(values: Tensor) -> Tensor:
    """Integer images on half the grid: rounded means of 2 x 2 pixels, uint8, ``(n, 3, H / 2, W / 2)``."""
    return avg_pool2d(values.float(), 2).round().to(torch.uint8)


def _conditions() -> dict[str, Condition]:
    return {"embedding": Vector(EMBEDDING), "style": Classes(len(STYLES)), "altered": Classes(2)}


def base_model(
    data: sd.Data, width: int = 384, depth: int = 4, embedding_width: int = 160, dropout: float = 0.1
) -> sd.ScoreModel:
    """A multilayer perceptron over all 432 values, beside the exact v of their linear regression on the embedding.

    Args:
        data: Of `base_data`, to which the regression is fitted.
        width, depth, embedding_width, dropout: Of the perceptron.
    """
    shape = (3, SIZE // 2, SIZE // 2)
    net = sd.GaussianSkip(
        sd.MLP(shape, width, depth, embedding_width, dropout, conditions=_conditions()), condition="embedding"
    )
    description = data.description
    x0 = description.to_model(description.center(data.train))
    net.fit(x0, description.to_model_cond(data.train_cond), penalty=0.01)
    return sd.ScoreModel(net, sd.VPSDE(sd.Cosine()), sd.V(), data=description)


def upsampler(channels: int = 32, dropout: float = 0.0) -> sd.ScoreModel:
    """A UNet on patches of 2 x 2 pixels, that is on the grid of the small image, which is one of its conditions.

    Its events are what the enlarged small image lacks, and it estimates them (`X0`). So before training it adds nothing
    to the enlarged image.
    """
    conditions = {**_conditions(), "small": Channels(3)}
    net = sd.UNet(
        (3, SIZE, SIZE), channels, (1, 2), blocks=1, attention=(), dropout=dropout, conditions=conditions, patch=2
    )
    return sd.ScoreModel(net, sd.VPSDE(sd.Cosine()), sd.X0())


def base_data(images: Tensor, held_out: Tensor, cond: dict[str, Tensor], held_out_cond: dict[str, Tensor]) -> sd.Data:
    """Training and validation part of the small images, 12 x 12, with 256 values.

    Args:
        images, held_out: Integer images, uint8, ``(n, 3, 24, 24)``.
        cond, held_out_cond: ``embedding`` ``(n, 224)``, ``style`` and ``altered`` ``(n,)``.
    """
    description = sd.Description("emoji-12", (3, SIZE // 2, SIZE // 2), bins=256, conditions=_kinds())
    return sd.Data(halved(images), halved(held_out), description, cond, held_out_cond)


def upsampler_data(
    images: Tensor, held_out: Tensor, cond: dict[str, Tensor], held_out_cond: dict[str, Tensor]
) -> sd.Data:
    """What the enlarged small image lacks, `residual`, with the further condition ``small``."""
    grid = SIZE // 2
    small = ImageCondition((3, grid, grid), offset=127.5, scale=127.5)
    description = sd.Description(
        "emoji-24 residual", (3, SIZE, SIZE), scale=RESIDUAL_SCALE, conditions={**_kinds(), "small": small}
    )
    smalls = [noised(halved(part)) for part in (images, held_out)]
    return sd.Data(
        residual(images.float(), smalls[0]),
        residual(held_out.float(), smalls[1]),
        description,
        {**cond, "small": smalls[0]},
        {**held_out_cond, "small": smalls[1]},
    )


def residual(values: Tensor, small: Tensor) -> Tensor:
    """Values of an image minus those of the enlarged condition ``small``, ``(n, 3, 24, 24)``."""
    return values - enlarged(small)


def noised(small: Tensor, seed: int = 0) -> Tensor:
    """The condition ``small``: values of an image plus noise of 6 of 256 values, float32.

    The upsampler learns to trust the small image only so far, as those that the base model draws are not exact
    (conditioning augmentation, Ho et al. 2022). Sampling adds the same noise.
    """
    return small.float() + 6 * torch.randn(small.shape, generator=torch.Generator().manual_seed(seed))


def enlarged(small: Tensor) -> Tensor:
    """Values of a small image on the large grid, bicubic, ``(n, 3, 24, 24)``."""
    return interpolate(small, scale_factor=2, mode="bicubic")


def _kinds() -> dict[str, ConditionKind]:
    return {
        "embedding": VectorCondition(EMBEDDING),
        "style": ClassCondition(len(STYLES), STYLES),
        "altered": ClassCondition(2, ("no", "yes")),
    }


def base_settings(steps: int = 8000, seed: int = 0) -> sd.Training:
    """Batches of 128; a tenth of the embeddings are left out, and as many styles, independently."""
    return sd.Training(
        steps=steps,
        batch_size=128,
        loss=sd.Loss(sd.MinSNR(5)),
        lr=1e-3,
        lr_end=0.0,
        weight_decay=0.01,
        ema=0.998,
        condition_dropout={"embedding": 0.1, "style": 0.1},
        seed=seed,
    )


def upsampler_settings(steps: int = 8000, seed: int = 0) -> sd.Training:
    """Batches of 24 for the UNet; the small image is never left out."""
    return sd.Training(
        steps=steps,
        batch_size=24,
        loss=sd.Loss(sd.MinSNR(5)),
        lr=2e-3,
        lr_end=0.0,
        ema=0.998,
        condition_dropout={"embedding": 0.1, "style": 0.1},
        seed=seed,
    )
