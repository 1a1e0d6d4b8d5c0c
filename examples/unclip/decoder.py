r"""The decoder: an embedding and its retrieved neighbors become an image of 32 x 32 pixels, by one diffusion model.

The two parts of the embedding enter as two conditions, the features as a vector and the colors as the coarse image that
they describe. The neighbors enter as channels. Further conditions are the style, and whether the training image was an
altered copy. All have null entries, and all are conditions like any other.
"""

from __future__ import annotations

from torch import Tensor

import scoresde as sd
from scoresde.data import ClassCondition, ImageCondition, VectorCondition
from scoresde.nn import Channels, Classes, Vector
from unclip.embedding import FEATURES, LAYOUT, SIZE
from unclip.emoji import STYLES
from unclip.neighbors import COUNT

__all__ = ["GUIDED", "decoder_data", "decoder_model", "decoder_settings"]

GUIDED = ("features", "layout", "neighbors")
"""The conditions that guidance strengthens: all that follow from the embedding."""


def decoder_model(channels: int = 48, multipliers: tuple[int, ...] = (1, 2, 3), dropout: float = 0.1) -> sd.ScoreModel:
    """A UNet on patches of 2 x 2 pixels that estimates v.

    Args:
        channels, multipliers, dropout: Of the UNet.
    """
    conditions = {
        "features": Vector(FEATURES),
        "layout": Channels(3),
        "neighbors": Channels(3 * COUNT),
        "style": Classes(len(STYLES)),
        "altered": Classes(2),
    }
    net = sd.UNet(
        (3, SIZE, SIZE),
        channels,
        multipliers,
        blocks=1,
        attention=(),
        dropout=dropout,
        conditions=conditions,
        patch=2,
    )
    return sd.ScoreModel(net, sd.VPSDE(sd.Cosine()), sd.V())


def decoder_data(
    images: Tensor, held_out: Tensor, cond: dict[str, Tensor], held_out_cond: dict[str, Tensor]
) -> sd.Data:
    """Images of 256 values with their conditions.

    Args:
        images, held_out: Integer images, uint8, ``(n, 3, 32, 32)``.
        cond, held_out_cond: ``features`` ``(n, 128)``, ``layout`` ``(n, 3, 16, 16)``, ``neighbors``
            ``(n, 12, 32, 32)``, the last two in values of 256; ``style`` and ``altered`` ``(n,)``.
    """
    kinds = {
        "features": VectorCondition(FEATURES),
        "layout": ImageCondition((3, LAYOUT, LAYOUT), offset=127.5, scale=127.5),
        "neighbors": ImageCondition((3 * COUNT, SIZE, SIZE), offset=127.5, scale=127.5),
        "style": ClassCondition(len(STYLES), STYLES),
        "altered": ClassCondition(2, ("no", "yes")),
    }
    description = sd.Description("emoji-32", (3, SIZE, SIZE), bins=256, conditions=kinds)
    return sd.Data(images, held_out, description, cond, held_out_cond)


def decoder_settings(steps: int = 17_000, seed: int = 0) -> sd.Training:
    """Batches of 24. Each condition is left out on its own, and in a twelfth of the data all are (`training`).

    At a learning rate of 0.002 the loss once rose to that of an untrained network and stayed there. The stored weights
    had as many updates in three parts, each with a learning rate that fell to 0.
    """
    return sd.Training(
        steps=steps,
        batch_size=24,
        loss=sd.Loss(sd.MinSNR(5)),
        lr=1e-3,
        lr_end=0.0,
        weight_decay=0.01,
        max_norm=0.3,
        ema=0.998,
        condition_dropout={"features": 0.1, "layout": 0.25, "neighbors": 0.1, "style": 0.1},
        seed=seed,
    )
