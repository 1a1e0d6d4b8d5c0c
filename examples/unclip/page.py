"""A page of images: rows of pictures with a line of text under each, in one HTML file."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

__all__ = ["Picture", "Row", "enlarged", "write_page"]

_STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); gap: .75rem; }
figure { margin: 0; } img { width: 100%; display: block; border: 1px solid #e3e3e3; border-radius: 6px; }
figcaption { font-size: .78rem; color: #555; overflow-wrap: anywhere; }
p { max-width: 46rem; color: #444; }
"""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image, uint8, ``(3, H, W)``, and the text under it."""

    image: Tensor
    text: str = ""


@dataclass(frozen=True, eq=False)
class Row:
    """Pictures under a heading."""

    heading: str
    pictures: list[Picture]


def enlarged(image: Tensor, size: int = 120) -> Image.Image:
    """A picture of ``size`` pixels, smoothly enlarged."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).resize((size, size), Image.Resampling.BICUBIC)


def write_page(path: Path, title: str, intro: str, rows: list[Row]) -> None:
    """Writes the page."""
    body = "".join(
        f"<h2>{html.escape(row.heading)}</h2><div class=row>{''.join(map(_figure, row.pictures))}</div>" for row in rows
    )
    head = f'<meta charset=utf-8><meta name=viewport content="width=device-width"><title>{html.escape(title)}</title>'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<!doctype html><html lang=en>{head}<style>{_STYLE}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(intro)}</p>{body}</html>",
        encoding="utf-8",
    )


def _figure(picture: Picture) -> str:
    buffer = io.BytesIO()
    enlarged(picture.image).save(buffer, "PNG")
    data, text = base64.b64encode(buffer.getvalue()).decode(), html.escape(picture.text)
    return f'<figure><img src="data:image/png;base64,{data}" alt="{text}"><figcaption>{text}</figcaption></figure>'
