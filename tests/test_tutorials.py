"""Tutorials: each states what it is for and ends with a described figure; notebooks run, and become pages."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.py"))

SMALL = """
# %% [markdown]
# # A small one
#
# At the end you have a figure of $x^2$.

# %%
import scoresde as sd

print(sd.VPSDE.__name__, "<b>")
6 * 7

# %% alt="A parabola"
import matplotlib.pyplot as plt

figure, axes = plt.subplots()
axes.plot([0, 1, 2], [0, 1, 4])
axes.set(xlabel="time")
plt.show()
""".lstrip()


@pytest.fixture(scope="module")
def hooks() -> Any:
    """The modules of docs/_hooks that run notebooks and write pages."""
    folder = str(ROOT / "docs/_hooks")
    sys.path.insert(0, folder)
    try:
        import notebook_page
        import notebooks
    finally:
        sys.path.remove(folder)
    return notebooks, notebook_page


@pytest.fixture
def small(hooks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hooks with one small tutorial in place of those of the site."""
    monkeypatch.setattr(hooks[0], "SOURCES", tmp_path)
    monkeypatch.setattr(hooks[0], "RESULTS", tmp_path / "results")
    (tmp_path / "small.py").write_text(SMALL, encoding="utf-8")
    return hooks


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_says_what_the_reader_will_have_and_ends_with_a_described_figure(path: Path, hooks: Any):
    notebook = hooks[0].read(path.stem)
    assert hooks[0].title(notebook)
    assert hooks[0].summary(notebook).startswith("At the end ")
    last = [cell for cell in notebook.cells if cell.cell_type == "code"][-1]
    assert last.source.rstrip().endswith("plt.show()"), "the last code cell of a tutorial draws its figure"
    assert len(last.metadata["alt"]) > 40


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_the_links_of_a_tutorial_lead_to_pages(path: Path):
    text = path.read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert links, f"{path.name} says nowhere what to read next"
    for link in links:
        target = path.parent / link
        is_tutorial = target.parent == path.parent and target.with_suffix(".py").exists()
        assert target.exists() or is_tutorial, f"{path.name} links to {link}"


def test_every_tutorial_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [path.stem for path in TUTORIALS if f"tutorials/{path.stem}.md" not in navigation] == []


@pytest.mark.slow
def test_a_tutorial_runs_and_its_page_shows_what_it_printed_and_drew(small: Any):
    notebooks, notebook_page = small
    assert notebooks.executed("small") is None
    notebooks.run("small")
    notebook = notebooks.executed("small")
    page = notebook_page.page("small", notebook, ran=True)
    assert "VPSDE &lt;b&gt;" in page
    assert ">42<" in page
    assert 'aria-label="A parabola"' in page
    assert "var(--series-0)" in page
    assert "#0072b2" not in page
    (download,) = [
        output
        for cell in json.loads(notebooks.portable(notebook))["cells"]
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert notebooks.SVG not in download["data"]


@pytest.mark.slow
def test_the_outputs_of_a_changed_tutorial_are_not_shown(small: Any):
    notebooks, _ = small
    notebooks.run("small")
    assert notebooks.executed("small") is not None
    (notebooks.SOURCES / "small.py").write_text(SMALL.replace("6 * 7", "6 * 8"), encoding="utf-8")
    assert notebooks.executed("small") is None


@pytest.mark.slow
def test_a_tutorial_that_fails_stops_the_build(small: Any):
    notebooks, _ = small
    (notebooks.SOURCES / "small.py").write_text(SMALL.replace("6 * 7", "6 / 0"), encoding="utf-8")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        notebooks.run("small")
    assert notebooks.executed("small") is None


@pytest.mark.slow
def test_a_figure_without_a_description_is_refused(small: Any):
    notebooks, _ = small
    (notebooks.SOURCES / "small.py").write_text(SMALL.replace(' alt="A parabola"', ""), encoding="utf-8")
    with pytest.raises(ValueError, match="has no description"):
        notebooks.run("small")


def test_what_a_cell_printed_in_parts_is_one_block(hooks: Any):
    notebook = hooks[0].jupytext.reads(SMALL, fmt="py:percent")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    stream = hooks[0].nbformat.v4.new_output
    first.outputs = [stream("stream", name="stdout", text=text) for text in ("one\n", "two\n")]
    page = hooks[1].page("small", notebook, ran=True)
    assert ">one\ntwo<" in page
    assert page.count("<samp>") == 1


def test_identifiers_of_two_figures_of_a_page_differ(hooks: Any):
    svg = '<svg><clipPath id="a"/><path clip-path="url(#a)"/><use xlink:href="#a"/></svg>'
    assert hooks[1].own_ids(svg, "fig2-") == (
        '<svg><clipPath id="fig2-a"/><path clip-path="url(#fig2-a)"/><use xlink:href="#fig2-a"/></svg>'
    )
