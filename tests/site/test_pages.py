"""The built site: its links, images and search, and its pages in a browser. `make docs` builds it and runs this file.

What needs a browser is skipped where Chromium is not installed. `make test` leaves this folder out (norecursedirs).
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from functools import cache, partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote, urlsplit

import pytest
from browser import Browser

import scoresde

SITE = Path(__file__).parents[2] / "site"
# One page of each kind; the first that matches. Kinds that may be absent end in "?".
KINDS = {
    "home": "index.html",
    "guide": "training.html",
    "choosing": "choosing/sampler.html",
    "theory": "weightings.html",
    "reference": "reference/distillation.html",
    "command line": "reference/command-line.html",
    "tutorial": "tutorials/your_table.html",
    "gallery": "gallery.html",
    "chapter?": "theory/*.html",
}


class Page(HTMLParser):
    """What a page links to, loads and shows."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.images: list[tuple[str, str]] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids.update(filter(None, (values.get("id"), values.get("name") if tag == "a" else None)))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in values:
            self.loaded.append(values["src"])
        if tag == "link" and values.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(values["href"])
        if tag == "img":
            self.images.append((values.get("src", ""), values.get("alt", "")))


@cache
def pages() -> dict[str, Page]:
    """Every page but that of a missing address, by its path below the site."""
    paths = [path for path in sorted(SITE.rglob("*.html")) if path.name != "404.html"]
    assert paths, f"{SITE} holds no pages; make docs builds them"
    return {path.relative_to(SITE).as_posix(): Page(path) for path in paths}


def page_of(kind: str) -> Path:
    """The page of a kind; skips an optional one that is absent."""
    path = next(iter(sorted(SITE.glob(KINDS[kind]))), None)
    if path is None and kind.endswith("?"):
        pytest.skip(f"the site has no {kind[:-1]}")
    assert path is not None, f"the site has no {KINDS[kind]}"
    return path


def open_new(browser: Browser, address: Path | str, width: int = 1280, dark: bool = False) -> None:
    """Opens a page in the given mode; the choice that the theme stored before is forgotten."""
    browser.open(address, width, dark=dark)
    browser.run("localStorage.clear()")
    browser.open(address, width, dark=dark)


def test_every_link_leads_to_a_page_and_an_anchor_that_exist() -> None:
    broken = []
    for path, page in pages().items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
                continue
            target = (SITE / path).parent / unquote(parts.path) if parts.path else SITE / path
            if not target.resolve().is_file():
                broken.append(f"{path}: {link}")
            elif parts.fragment and target.suffix == ".html" and not parts.fragment.startswith("__"):
                name = target.resolve().relative_to(SITE.resolve()).as_posix()
                if name in pages() and unquote(parts.fragment) not in pages()[name].ids:
                    broken.append(f"{path}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere() -> None:
    loaded = [(path, source) for path, page in pages().items() for source in page.loaded]
    assert len(loaded) > 100
    assert [entry for entry in loaded if urlsplit(entry[1]).netloc] == []


def test_the_text_of_an_image_says_what_it_shows() -> None:
    images = [(path, source, text) for path, page in pages().items() for source, text in page.images]
    assert len(images) > 10
    assert [(path, source) for path, source, text in images if len(text.split()) < 6] == []


def test_the_reference_has_every_name_of_the_front_door() -> None:
    ids = {name for path, page in pages().items() if path.startswith("reference/") for name in page.ids}
    shown = {identifier.rpartition(".")[2] for identifier in ids}
    names = [name for name in scoresde.__all__ if isinstance(getattr(scoresde, name), (type, FunctionType))]
    assert len(names) > 80
    assert [name for name in names if name not in shown] == []


def test_no_link_to_the_reference_is_left_as_text() -> None:
    left = {path: re.findall(r"\]\[scoresde[\w.]*\]", (SITE / path).read_text(encoding="utf-8")) for path in pages()}
    assert {path: found for path, found in left.items() if found} == {}


def test_the_page_of_the_command_line_has_every_command() -> None:
    from scoresde.cli import app

    names = [command.name for command in app.registered_commands]
    assert len(names) > 10
    assert [name for name in names if name not in pages()["reference/command-line.html"].ids] == []


def test_the_search_index_is_the_same_in_both_forms() -> None:
    text = (SITE / "search/search_index.json").read_text(encoding="utf-8")
    assert len(json.loads(text)["docs"]) > 500
    assert (SITE / "search/search_index.js").read_text(encoding="utf-8") == f"var __index = {text}"


def test_no_page_overflows_on_a_phone(browser: Browser) -> None:
    found = {}
    for path in pages():
        browser.open(SITE / path, 420)
        if elements := browser.overflowing():
            found[path] = elements[:3]
    assert found == {}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_opens_without_an_error_and_without_a_serious_fault_of_accessibility(
    browser: Browser, kind: str, dark: bool
) -> None:
    browser.driver.set_script_timeout(300)  # a long page on a busy machine
    open_new(browser, page_of(kind), dark=dark)
    assert browser.run("return document.body.dataset.mdColorScheme") == ("slate" if dark else "default")
    assert browser.accessibility_faults() == []  # among them: a contrast below AA, images without a text
    assert browser.console_errors() == []


@pytest.fixture
def server() -> Iterator[str]:
    """The site over http."""
    handler = partial(_Quiet, directory=str(SITE))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Prints nothing."""


@pytest.mark.parametrize("protocol", ["file", "http"])
def test_search_finds_a_class_and_a_phrase(browser: Browser, server: str, protocol: str) -> None:
    open_new(browser, SITE / "index.html" if protocol == "file" else f"{server}/index.html")
    for query, expected in (("EulerMaruyama", "reference/sampling.html"), ("zero terminal signal", "sampling.html")):
        browser.run("document.querySelector('[data-md-component=search-query]').focus()")
        field = browser.driver.switch_to.active_element
        field.clear()
        field.send_keys(query)
        links, end = [], time.monotonic() + 60
        while not any(expected in link for link in links) and time.monotonic() < end:
            time.sleep(0.2)
            links = browser.run("return [...document.querySelectorAll('.md-search-result a')].map(a => a.href)")
        assert any(expected in link for link in links), (query, links)
    assert browser.console_errors() == []
