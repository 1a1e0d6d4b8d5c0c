"""The gallery: every tutorial and example as a card with the picture that CI made of it.

A page asks for cards by ``<!-- cards: tutorials -->`` or ``<!-- cards: examples -->``.
"""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

import example_pictures
import notebooks
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url
from PIL import Image
from results import ROOT, must_be_complete

_log = get_plugin_logger("gallery")
_WIDTH = 640  # pixels of a thumbnail
_MARKER = re.compile(r"<!-- cards: (\w+) -->")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the thumbnails, and the examples as downloads."""
    for name, picture in {**_tutorial_pictures(), **_example_pictures()}.items():
        if picture is not None:
            files.append(File.generated(config, f"gallery/{name}.png", content=thumbnail(picture)))
        elif must_be_complete():
            raise PluginError(f"{name} has no current picture; run make tutorials examples.")
        else:
            _log.info("%s has no current picture; make tutorials examples makes it", name)
    for name in example_pictures.names():
        path = example_pictures.source(name)
        files.append(File.generated(config, f"gallery/{name}.py", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts the cards where the page asks for them."""
    cards = {
        "tutorials": lambda: _tutorial_cards(page, files, str(config.nav)),
        "examples": lambda: _example_cards(page, files),
    }
    return _MARKER.sub(lambda found: _grid(cards[found[1]]()), markdown)


def thumbnail(picture: bytes) -> bytes:
    """A PNG of the width of a card, on the picture's own background."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.thumbnail((_WIDTH, 2 * _WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.quantize(128).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _tutorial_pictures() -> dict[str, bytes | None]:
    pictures: dict[str, bytes | None] = {}
    for name in notebooks.names():
        notebook = notebooks.executed(name)
        pictures[name] = None
        if notebook is not None:
            output, _alt = notebooks.figures(notebook)[-1]
            pictures[name] = base64.b64decode("".join(output.data["image/png"]))
    return pictures


def _example_pictures() -> dict[str, bytes | None]:
    pictures = {name: example_pictures.picture(name) for name in example_pictures.names()}
    return {name: path.read_bytes() if path else None for name, path in pictures.items()}


def _tutorial_cards(page: Page, files: Files, navigation: str) -> list[str]:
    cards = []
    for name in sorted(notebooks.names(), key=lambda name: navigation.find(f"tutorials/{name}.md")):
        notebook = notebooks.executed(name) or notebooks.read(name)
        alts = [cell.metadata["alt"] for cell in notebook.cells if "alt" in cell.metadata]
        link = get_relative_url(f"tutorials/{name}.html", page.file.url)
        cards.append(_card(page, files, name, notebooks.title(notebook), notebooks.summary(notebook), alts[-1], link))
    return cards


def _example_cards(page: Page, files: Files) -> list[str]:
    cards = []
    for name in example_pictures.names():
        summary = example_pictures.summary(name)
        about = _page_about(name)
        link = get_relative_url(f"{about}.html" if about else f"gallery/{name}.py", page.file.url)
        source = get_relative_url(f"gallery/{name}.py", page.file.url)
        more = f'<a class="sd-card-source" href="{source}" download="{name}.py">Python file</a>'
        title = name.replace("_", " ").capitalize().replace("mnist", "MNIST").replace("ode ", "ODE ")
        cards.append(_card(page, files, name, title, summary, summary, link, more))
    return cards


def _card(page: Page, files: Files, name: str, title: str, text: str, alt: str, link: str, more: str = "") -> str:
    picture = f"gallery/{name}.png"
    shown = '<span class="sd-card-empty"></span>'
    if files.get_file_from_path(picture) is not None:
        url = get_relative_url(picture, page.file.url)
        shown = f'<img src="{url}" alt="{html.escape(alt)}" loading="lazy">'
    body = f'{shown}<span class="sd-card-title">{html.escape(title)}</span>'
    return f'<li class="sd-card"><a href="{link}">{body}</a><p>{html.escape(text)}</p>{more}</li>'


def _grid(cards: list[str]) -> str:
    return f'<ul class="sd-cards">{"".join(cards)}</ul>'


def _page_about(name: str) -> str | None:
    """The page that names the example most often, without its suffix."""
    counts = {
        path.stem: path.read_text(encoding="utf-8").count(f"examples/{name}.py")
        for path in sorted(Path(ROOT / "docs").glob("*.md"))
    }
    best = max(counts, key=lambda stem: counts[stem])
    return best if counts[best] else None
