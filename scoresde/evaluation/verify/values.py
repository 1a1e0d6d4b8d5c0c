"""Other values that a network may have been trained on: another range, scale, order of entries or orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.evaluation.verify.reading import DataMap, Reading

__all__ = ["order_alternatives", "value_alternatives"]

Entry = tuple[str, str, str, Callable[[Reading], Reading]]

_LATENT_FACTORS = {
    "Stable Diffusion": (0.18215, 0.0),
    "SDXL": (0.13025, 0.0),
    "SD3": (1.5305, 0.0609),
    "FLUX": (0.3611, 0.1159),
}
_MOST_CHANNELS = 4
_MOST_COLUMNS = 12  # of a table whose pairs of columns are swapped


def value_alternatives(x0: Tensor, shape: tuple[int, ...]) -> list[Entry]:
    """Ranges and scales that these values may have to be mapped to, and latents' factors.

    Args:
        x0: Events in stated model units, ``(n, d)``.
        shape: Shape of one event; only (C, H, W) may be latents.
    """
    low, high = float(x0.min()), float(x0.max())
    mean, deviation = float(x0.mean()), float(x0.std())
    maps: dict[str, tuple[float, float]] = {}
    if low >= -0.02 and high <= 1.02:
        maps["[-1, 1] where the data are given in [0, 1]"] = (2.0, -1.0)
    if low >= -1.05 and high <= 1.05:
        maps["[0, 1] where the data are given in [-1, 1]"] = (0.5, 0.5)
        maps["[0, 255] where the data are given in [-1, 1]"] = (127.5, 127.5)
        maps["inverted values, -x"] = (-1.0, 0.0)
    if low >= 0 and 2 < high <= 256:
        maps["[-1, 1] where the data are given in [0, 255]"] = (1 / 127.5, -1.0)
        maps["[0, 1] where the data are given in [0, 255]"] = (1 / 255.0, 0.0)
    if not 0.87 < deviation < 1.15 or abs(mean) > 0.15 * deviation:
        maps["standardized, to mean 0 and deviation 1"] = (1 / deviation, -mean / deviation)
    for origin, (factor, shift) in _LATENT_FACTORS.items() if len(shape) == 3 else ():
        maps[f"latents times the scaling_factor {factor} of {origin}"] = (factor, -shift * factor)
        maps[f"latents divided by the scaling_factor {factor} of {origin}"] = (1 / factor, shift)
    return [
        (
            "data scale",
            f"it was trained on {name}",
            f"the network sees {gain:.5g} x {offset:+.5g} of the present model units; set offset and scale of the "
            "Description so",
            _mapped(DataMap(gain, offset)),
        )
        for name, (gain, offset) in maps.items()
    ]


def order_alternatives(x0: Tensor, shape: tuple[int, ...]) -> list[Entry]:
    """Other orders of the entries: of images channels reversed, axes swapped, upside down or reshaped channels-last.

    Of a series time reversed, of a table two columns swapped.

    Args:
        x0: Events, ``(n, d)``.
        shape: Shape of one event; an image of up to four channels, a series (C, L), or a table of up to 12 columns.
    """
    if len(shape) == 1 and 2 <= shape[0] <= _MOST_COLUMNS:
        return [_swapped(i, j, shape[0]) for i in range(shape[0]) for j in range(i + 1, shape[0])]
    if len(shape) == 2 and shape[1] > 1:
        reverse = torch.arange(x0.shape[1]).reshape(shape).flip(1).reshape(-1)
        name, remedy = "its series run backwards in time", "reverse the axis of time, x.flip(-1)"
        return [("orientation", name, remedy, _mapped(DataMap(order=reverse)))]
    if len(shape) != 3 or shape[0] > _MOST_CHANNELS:
        return []
    index = torch.arange(x0.shape[1]).reshape(shape)
    channels, height, width = shape
    entries: list[tuple[str, str, str, Tensor]] = []
    if channels >= 3:
        order = index[[2, 1, 0, *range(3, channels)]]
        entries.append(("channel order", "its channels are BGR", "reverse the channels, x[:, [2, 1, 0]]", order))
    if height == width:
        order = index.transpose(1, 2)
        entries.append(("orientation", "its images are transposed", "swap the axes of height and width", order))
    entries.append(("orientation", "its images are upside down", "reverse the axis of height", index.flip(1)))
    if channels > 1:
        order = torch.arange(x0.shape[1]).reshape(height, width, channels).permute(2, 0, 1)
        remedy = "convert images (H, W, C) by permute(2, 0, 1), not by reshape"
        entries.append(("orientation", "the axis of channels was made by reshape", remedy, order))
    return [
        (question, name, remedy, _mapped(DataMap(order=order.reshape(-1)))) for question, name, remedy, order in entries
    ]


def _swapped(i: int, j: int, count: int) -> Entry:
    order = torch.arange(count)
    order[i], order[j] = j, i
    return (
        "column order",
        f"its columns {i} and {j} are swapped",
        f"swap columns {i} and {j} (counted from 0) of the data",
        _mapped(DataMap(order=order)),
    )


def _mapped(data: DataMap) -> Callable[[Reading], Reading]:
    return lambda reading: replace(reading, data=data)
