"""Captioned emoji in two styles, grouped so that variants of one emoji lie in one part of the data set."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unclip.packages import package

__all__ = ["STYLES", "Emoji", "load_emoji", "read_image", "split"]

STYLES = ("google", "twitter")
"""Noto Color Emoji (Apache-2.0) and Twemoji (CC-BY 4.0)."""

_COUNTRY_FLAGS, _LAST_TONE = 98, 0x1F3FF
_TONES = range(0x1F3FB, _LAST_TONE + 1)
_IGNORED = {0x200D, 0x2640, 0x2642, *_TONES, *range(0x1F9B0, 0x1F9B4)}  # gender, skin tones, hair
_SAME = {
    **dict.fromkeys((0x1F468, 0x1F469), 0x1F9D1),  # man, woman: person
    **dict.fromkeys((0x1F466, 0x1F467), 0x1F9D2),  # boy, girl: child
    **dict.fromkeys((0x1F474, 0x1F475), 0x1F9D3),  # old man, old woman: older person
    **dict.fromkeys((0x1F934, 0x1F478), 0x1FAC5),  # prince, princess: person with crown
    **dict.fromkeys((0x1F385, 0x1F936), 0x1F384),  # Santa and Mrs. Claus; the tree of Mx. Claus
    **dict.fromkeys((0x1F57A, 0x1F483), 0x1F57A),  # dancers
    **dict.fromkeys(range(0x1F550, 0x1F568), 0x1F550),  # clock faces
}


@dataclass(frozen=True)
class Emoji:
    """One emoji.

    Attributes:
        code: Its code points, hexadecimal, joined by ``-``; without variation selectors.
        label: Its name, such as "cat with tears of joy".
        tags: Further words.
        group: Emoji of one group differ in gender, hair, time of a clock face, or the number of persons.
        tones: Code points of its skin tones; empty if it has none.
    """

    code: str
    label: str
    tags: tuple[str, ...]
    group: str
    tones: tuple[str, ...] = ()

    @property
    def caption(self) -> str:
        """Name and tags as one text."""
        return ", ".join((self.label, *self.tags))


def load_emoji(cache: Path) -> list[Emoji]:
    """All emoji that both styles have, without the flags of countries, in Unicode's order."""
    entries = json.loads((package("emojibase-data", cache) / "en" / "data.json").read_text())
    shown = set.intersection(*(set(_images(style, cache)) for style in STYLES))
    emoji = []
    for entry in sorted(entries, key=lambda entry: entry.get("order", 0)):
        code = _bare(entry["hexcode"])
        if "group" not in entry or entry.get("subgroup") == _COUNTRY_FLAGS or code not in shown:
            continue
        tones = [_bare(skin["hexcode"]) for skin in entry.get("skins", []) if isinstance(skin.get("tone"), int)]
        tones = tuple(tone for tone in tones if tone in shown)
        emoji.append(Emoji(code, entry["label"], tuple(entry.get("tags", ())), _group(code), tones))
    return emoji


@functools.cache
def _images(style: str, cache: Path) -> dict[str, Path]:
    """Files by code; the packages differ in where they write the variation selector, so it is left out."""
    return {_bare(path.stem): path for path in sorted(_folder(style, cache).glob("*.png"))}


def _bare(code: str) -> str:
    return "-".join(point for point in code.lower().split("-") if point != "fe0f")


def _folder(style: str, cache: Path) -> Path:
    return package(f"emoji-datasource-{style}", cache) / "img" / style / "64"


def _group(code: str) -> str:
    points = {int(point, 16) for point in code.split("-")} - _IGNORED
    return "-".join(f"{point:x}" for point in sorted({_SAME.get(point, point) for point in points}))


def split(emoji: list[Emoji], held_out: int = 150, seed: int = 0) -> dict[str, list[Emoji]]:
    """Parts "train", "validation" and "test" with no group in common.

    Args:
        emoji: In any order.
        held_out: Groups of validation, and as many of test. They are represented by their first emoji alone, so that
            held-out emoji are independent of each other.
        seed: Of the order of the groups.
    """
    groups: dict[str, list[Emoji]] = {}
    for each in emoji:
        groups.setdefault(each.group, []).append(each)
    names = sorted(groups)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed)).tolist()
    test, validation, train = order[:held_out], order[held_out : 2 * held_out], order[2 * held_out :]
    return {
        "train": [each for i in sorted(train) for each in groups[names[i]]],
        "validation": [groups[names[i]][0] for i in sorted(validation)],
        "test": [groups[names[i]][0] for i in sorted(test)],
    }


def read_image(code: str, style: str, cache: Path) -> Tensor:
    """The image on white, float32 in [0, 1], ``(3, 64, 64)``."""
    with Image.open(_images(style, cache)[code]) as image:
        values = torch.from_numpy(np.array(image.convert("RGBA"), dtype=np.float32) / 255).permute(2, 0, 1)
    return values[:3] * values[3:] + 1 - values[3:]
