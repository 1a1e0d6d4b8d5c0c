"""The frame of a page: contents list, style and script around sections, all in one file that loads nothing."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from scoresde._core.durations import duration
from scoresde.experiments.report.definitions import DEFINITIONS, Definition

__all__ = ["RenderedSection", "Section", "render", "render_page"]

_TEMPLATES = Path(__file__).with_name("templates")


@dataclass(frozen=True)
class Section:
    """A section: its identifier, its title, and the template of its content.

    Attributes:
        anchor: Identifier in links.
        title: Heading.
        template: File in ``templates``.
        pictures, tables: Names of what the section shows, for the Markdown file.
    """

    anchor: str
    title: str
    template: str
    pictures: Sequence[str] = ()
    tables: Sequence[str] = ()


@dataclass(frozen=True)
class RenderedSection:
    """A section with its content as HTML."""

    anchor: str
    title: str
    html: str


def render_page(title: str, sections: Sequence[Section], context: Mapping[str, Any], live: float = 0.0) -> str:
    """The page; a section that explains the numbers it links to is added at the end.

    Args:
        title: Of the window.
        sections: In their order. A section whose content is empty is left out.
        context: Variables of the templates, with ``header`` and ``footer``, the templates of both.
        live: Seconds between looks for news; 0 for a page that does not change.
    """
    values = {**context, "definitions": DEFINITIONS}
    header, footer = (render(context[name], values) for name in ("header", "footer"))
    shown = [RenderedSection(s.anchor, s.title, render(s.template, values)) for s in sections]
    shown = [section for section in shown if section.html.strip()]
    if used := _definitions_in("".join([header, *(section.html for section in shown)])):
        html = render("definitions.html.j2", {**values, "used": used})
        shown.append(RenderedSection("definitions", "How each number is computed", html))
    files = {name: (_TEMPLATES / f"page.{end}").read_text("utf-8") for name, end in (("css", "css"), ("script", "js"))}
    files["version"] = f"{zlib.crc32(''.join([title, header, *(s.html for s in shown)]).encode()):08x}"
    frame = {"title": title, "sections": shown, "header": header, "footer": footer, "live": live, **files}
    return render("page.html.j2", frame)


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template filled with values; text is escaped if the template is HTML."""
    return _environment().get_template(template).render(values).strip() + "\n"


def _definitions_in(html: str) -> dict[str, Definition]:
    """The definitions that a text links to, in their own order."""
    names = set(re.findall(r'href="#how-([\w-]+)"', html))
    return {name: definition for name, definition in DEFINITIONS.items() if name in names}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = duration
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")  # of a table in Markdown
    return environment
