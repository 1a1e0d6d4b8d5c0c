"""The hooks of the documentation: folders in the navigation, the page of the command line, the choice of a version."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from browser import Browser
from mkdocs.structure.files import File, Files

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "_hooks"))  # where mkdocs looks for the modules that a hook imports

import command_line_page  # noqa: E402
import navigation  # noqa: E402
import reference  # noqa: E402
import site_version  # noqa: E402


def test_a_folder_in_the_navigation_becomes_its_pages_and_an_empty_one_nothing() -> None:
    names = ("index.md", "theory/b.md", "theory/a.md", "theory/index.md", "gallery/index.md")
    files = Files([File(name, "docs", "site", use_directory_urls=False) for name in names])
    items = ["index.md", {"Tutorials": "tutorials/"}, {"Gallery": "gallery/"}, {"Theory": ["index.md", "theory/"]}]
    assert navigation.expanded(items, files) == [
        "index.md",
        {"Gallery": "gallery/index.md"},
        {"Theory": ["index.md", "theory/index.md", "theory/a.md", "theory/b.md"]},
    ]


def test_every_public_object_has_one_entry_at_the_shortest_path_that_exports_it() -> None:
    entries = [(section.module, name) for section in reference.sections().values() for name in section.names]
    assert ("scoresde.sampling", "Karras") in entries
    assert ("scoresde.sampling.grid", "Karras") not in entries
    assert ("scoresde.process.ou", "alpha_bar") in entries
    assert ("scoresde.bridges.edm", "open_file") in entries
    assert not any(module.startswith("scoresde.cli") for module, _ in entries)
    assert len(entries) == len(set(entries))


def test_every_module_with_entries_is_on_one_page() -> None:
    pages = [reference.page(title) for title in reference.families()]
    shown = [module for page in pages for module in reference.sections() if f"::: {module}\n" in page]
    assert sorted(shown) == sorted(reference.sections())


def test_a_page_of_the_reference_lists_its_entries_functions_first_and_names_of_types_last() -> None:
    page = reference.page("Sampling")
    names = ("sample", "DDIM", "UniPC", "Observer")
    places = [page.index(f"[`{name}`][{reference.identifier('scoresde.sampling', name)}]") for name in names]
    entries = [page.index(f"        - {name}\n") for name in names[1:]]
    assert places == sorted(places)
    assert entries == sorted(entries)
    assert places[-1] < entries[0]
    assert "::: scoresde.sampling.sample.sample\n" in page  # hidden by the module of that name


def test_the_page_of_the_command_line_marks_up_options_and_nothing_else() -> None:
    assert command_line_page._escaped("with --from, a *star* and `x < 1` [required]") == (
        r"with `--from`, a \*star\* and `x < 1` \[required\]"
    )
    page = command_line_page.page()
    assert "## calibrate\n" in page
    assert "`--sampler" in page[page.index("## sample\n") : page.index("## edit\n")]


def test_versions_are_listed_with_the_newest_first(tmp_path: Path) -> None:
    for version in ("0.9", "0.10", "1.0"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "index.html").write_text("")
    (tmp_path / "not a version").mkdir()
    assert site_version.write_versions(tmp_path) == ["1.0", "0.10", "0.9"]
    assert (tmp_path / "versions.js").read_text() == 'var siteVersions = ["1.0", "0.10", "0.9"];\n'
    assert "url=1.0/index.html" in (tmp_path / "index.html").read_text()


PAGE = """<!doctype html>
<html lang="en">
<title>{version}</title>
<h1 class="md-header__title">{version}</h1>
<script src="{base}/../versions.js"></script>
<script src="{base}/../version-choice.js" data-base="{base}" data-version="{version}"></script>
"""


@pytest.mark.parametrize(("path", "base"), [("page.html", "."), ("below/page.html", "..")], ids=["top", "below"])
def test_a_page_that_is_opened_from_a_folder_offers_the_other_versions(
    browser: Browser, tmp_path: Path, path: str, base: str
) -> None:
    for version in ("0.1", "0.2"):
        (tmp_path / version / path).parent.mkdir(parents=True)
        (tmp_path / version / path).write_text(PAGE.format(version=version, base=base))
        (tmp_path / version / "index.html").write_text(PAGE.format(version=version, base="."))
    shutil.copy(DOCS / "js" / "version-choice.js", tmp_path)
    site_version.write_versions(tmp_path)
    browser.open(tmp_path / "0.1" / path)
    assert browser.run("return [...document.querySelectorAll('option')].map(o => o.value)") == ["0.2", "0.1"]
    assert browser.run("return document.querySelector('select').value") == "0.1"
    browser.run("const s = document.querySelector('select'); s.value = '0.2'; s.dispatchEvent(new Event('change'));")
    assert browser.run("return document.title") == "0.2"
    assert browser.console_errors() == []
