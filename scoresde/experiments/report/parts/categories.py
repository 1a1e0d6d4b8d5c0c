"""Categories: texts, strips of sequences or sheets of images, and statistics of their classes.

In the forward process a mask is drawn in a color of its own, and in texts as a dot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

import scoresde.data
from scoresde.data import Description
from scoresde.experiments.report.parts.curves import Curve, curves
from scoresde.experiments.report.parts.images import images_per_sheet
from scoresde.experiments.report.parts.part import DataPart, frame_title, sample_panels
from scoresde.experiments.report.pictures import SQUARE, Panel, Picture
from scoresde.experiments.results import Results
from scoresde.plots.image_grid import grid, is_image, to_bytes
from scoresde.plots.strips import class_colors, is_strip
from scoresde.plots.style import FAINT, SERIES
from scoresde.storage import spec

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["colored_rows", "part_for"]

_TEXTS, _LONGEST = 4, 240  # texts of a panel, and characters of each
_ROWS = 24  # strips of a panel
_CELL, _GAP = 4, 2  # pixels of a strip's cell, and between two strips
_LAGS = 40
_MASK = "·"


def part_for(content: dict[str, Any]) -> DataPart:
    """The part for events of categories: texts, images, sequences, or other events."""
    description = _description(content["data"]["description"])
    if description.alphabet is not None and len(description.shape) == 1:
        return _part("text", "texts", "Look for words that do not exist, and for breaks.", _texts, _text_frames)
    if is_image(description.shape):
        advice = "Look for broken shapes, and for variety. A click enlarges a sheet."
        return _part("image", "images", advice, _images, _image_frames)
    advice = "Each row is a sequence, each color a class. Look for classes and orders that never occur."
    if is_strip(description.shape):
        return _part("sequence", "sequences", advice, _strips, _strip_frames)
    advice = "Each row is the first entries of an event, each color a class. Look for classes that never occur."
    return _part("event", "events", advice, _strips, _strip_frames)


@cache
def _description(text: str) -> Description:
    return spec.parse(text, spec.known_classes(scoresde.data), kind=Description, stored=True)


def _part(
    event: str,
    events: str,
    advice: str,
    draw: Callable[[Description, np.ndarray, int], Panel],
    frames: Callable[[Description, np.ndarray], Panel],
) -> DataPart:
    def forward(results: Results) -> Picture:
        about, states = _description(results.content["data"]["description"]), results.arrays["forward"]
        panels = [frames(about, x.astype(np.int64)).titled(frame_title(results, i)) for i, x in enumerate(states)]
        return Picture(f"Noised {events}, from data to noise.", panels, columns=len(panels))

    def samples(results: Results, summary: Summary) -> dict[str, Picture]:
        about = _description(results.content["data"]["description"])
        sheets = len(summary.weightings) * (1 + len(summary.samplers))

        def panel(title: str, x: np.ndarray, _: int | None) -> Panel:
            return draw(about, x.astype(np.int64), sheets).titled(title)

        label = f"Some {events}:"
        return {"samples": Picture(label, sample_panels(results, summary, panel), columns=min(3, sheets))}

    return DataPart(
        event,
        events,
        advice,
        forward,
        samples,
        _statistics,
        "Classes and their dependence",
        "The shares of the classes, and how often two entries at a distance along the last axis have the same class.",
    )


def _statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    about = _description(results.content["data"]["description"])
    assert about.classes is not None
    shares = partial(_shares, classes=about.classes)
    pictures = {"shares": curves(results, summary, shares, "Share of each class.", ("class", "share"), unordered=True)}
    if about.shape and about.shape[-1] > 2:
        names = ("distance of two entries", "share of equal pairs")
        pictures["agreement"] = curves(results, summary, _agreement, "Equal entries by distance.", names)
    return pictures


def _shares(x: np.ndarray, classes: int) -> Curve:
    return np.arange(classes), np.bincount(x.reshape(-1).astype(np.int64), minlength=classes) / max(1, x.size)


def _agreement(x: np.ndarray) -> Curve:
    lags = np.arange(1, min(_LAGS, x.shape[-1] - 1) + 1)
    return lags, np.asarray([np.mean(x[..., : x.shape[-1] - k] == x[..., k:]) for k in lags])


def _texts(about: Description, x: np.ndarray, _: int) -> Panel:
    assert about.alphabet is not None
    texts = [about.alphabet.decode(row) for row in x[:_TEXTS]]
    return Panel("", texts=tuple(_shortened(text) for text in texts), size=(4.2, 3.0))


def _text_frames(about: Description, x: np.ndarray) -> Panel:
    assert about.alphabet is not None
    symbols = (*(" " if symbol == "\n" else symbol for symbol in about.alphabet.symbols), _MASK)
    texts = ("".join(symbols[code] for code in row[: _LONGEST // 4]) for row in x[:2])
    return Panel("", texts=tuple(map(_shortened, texts)), size=(2.4, 1.6))


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"


def _images(about: Description, x: np.ndarray, sheets: int) -> Panel:
    images = _colored(about, x[: images_per_sheet(3 * int(np.prod(x.shape[-2:])), sheets)])
    return Panel("", sheet=grid(images, gap=1), size=SQUARE)


def _image_frames(about: Description, x: np.ndarray) -> Panel:
    column = grid(_colored(about, x), columns=1, gap=1)
    return Panel("", sheet=column, size=(1.1, 1.1 * column.shape[0] / column.shape[1]))


def _colored(about: Description, x: np.ndarray) -> np.ndarray:
    """Images of codes as bytes, ``(n, H, W, 3)``; three channels of bits are colors."""
    assert about.classes is not None
    channels = x.shape[1] if x.ndim == 4 else 1
    if channels == 3 and about.classes == 2 and x.max() < 2:
        return to_bytes(x, 0.0, 1.0)
    return _colors(about.classes)[x[:, 0] if x.ndim == 4 else x]


def _colors(classes: int) -> np.ndarray:
    """The color of each class, and last that of the mask, bytes ``(classes + 1, 3)``."""
    mask = SERIES[0] if classes == 2 else FAINT
    return np.concatenate([class_colors(classes), np.frombuffer(bytes.fromhex(mask[1:]), np.uint8)[None]])


def _strips(about: Description, x: np.ndarray, _: int) -> Panel:
    assert about.classes is not None
    return Panel("", sheet=colored_rows(x[:_ROWS], about.classes), size=(3.6, 2.4))


def _strip_frames(about: Description, x: np.ndarray) -> Panel:
    assert about.classes is not None
    return Panel("", sheet=colored_rows(x, about.classes), size=(1.8, 0.8))


def colored_rows(x: np.ndarray, classes: int) -> np.ndarray:
    """Codes as rows of colored cells between transparent gaps, bytes ``(height, width, 4)``.

    Args:
        x: Codes of states, ``(n, *D)``; the code C is the mask.
        classes: Number of classes C.
    """
    cells = _colors(classes)[x.reshape(len(x), -1)[:, :512]].repeat(_CELL, 1)
    return grid(cells[:, None].repeat(_CELL, 1), columns=1, gap=_GAP)
