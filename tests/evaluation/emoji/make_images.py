"""Emoji at 16 x 16: cuts, scales and splits the sheet of the npm package emoji-datasource-google (see README.md).

    npm pack emoji-datasource-google@16.0.0 && tar xzf emoji-datasource-google-16.0.0.tgz
    python tests/evaluation/emoji/make_images.py package train.npz

It writes the held-out images to images.npz beside this file, and those for training to the second argument.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
CELL, SIZE, HELD_OUT = 34, 16, 192  # each image of 32 pixels has a border of one


def main(package: Path, train: Path) -> None:
    """Reads the sheet, puts each image on white, halves it, and writes both parts."""
    entries = [e for e in json.loads((package / "emoji.json").read_text()) if e["has_img_google"]]
    entries = [e for e in entries if e["category"] != "Component"]
    classes = sorted({e["category"] for e in entries})
    sheet = Image.open(package / "img" / "google" / "sheets" / "32.png").convert("RGBA")
    white = Image.new("RGBA", sheet.size, "white")
    sheet = Image.alpha_composite(white, sheet).convert("RGB")
    images = np.stack([_image(sheet, e["sheet_x"], e["sheet_y"]) for e in entries]).transpose(0, 3, 1, 2)
    labels = np.array([classes.index(e["category"]) for e in entries], dtype=np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    held_out, rest = order[:HELD_OUT], order[HELD_OUT:]
    np.savez_compressed(HERE / "images.npz", x=images[held_out], labels=labels[held_out], classes=np.array(classes))
    np.savez_compressed(train, x=images[rest], labels=labels[rest], classes=np.array(classes))


def _image(sheet: Image.Image, column: int, row: int) -> np.ndarray:
    left, top = CELL * column + 1, CELL * row + 1
    return np.asarray(sheet.crop((left, top, left + 32, top + 32)).resize((SIZE, SIZE), Image.Resampling.BOX))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
