"""Does what the documentation and the README show run as it is written there?"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from subclasses import concrete

from scoresde.objective.weighting import equivalence_table
from scoresde.sampling import Multistep, Sampler, StepSampler
from scoresde.storage.spec import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])

# A reader waits a minute for a trained network; a test does not. Each text must occur, so that none goes stale.
SHORTER = {
    "README.md": {
        "steps=1000": "steps=2",
        "steps=250": "steps=3",
        "sd.ODE()": "sd.ODE(rtol=0.1, atol=0.1)",
        "digits.test[:100])": "digits.test[:3], solver=sd.AdaptiveSolver(1.0))",
    }
}


def blocks(page: Path) -> str:
    """The page's Python, one block after the other, at the line numbers of the page."""
    kept, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        inside = (line == "```python") if fence else inside
        kept.append(line if inside and not fence else "")
    return "\n".join(kept)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_on_a_docs_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = blocks(page)
    for long, short in SHORTER.get(page.name, {}).items():
        assert long in source, f"{page.name} no longer says {long}; take it out of SHORTER"
        source = source.replace(long, short)
    monkeypatch.chdir(tmp_path)  # what a page writes
    exec(compile(source, str(page), "exec", dont_inherit=True), {"__name__": "page"})


def test_the_docs_show_the_table_of_weightings_that_the_library_prints():
    shown = re.search(
        r"```text\n(w at log-SNR.*?)\n```", (ROOT / "docs/weightings.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert shown is not None
    assert shown[1] == "\n".join(line.rstrip() for line in equivalence_table((-6.0, 0.0, 6.0)).splitlines())


def test_the_orders_in_the_docs_are_those_that_the_samplers_declare():
    page = (ROOT / "docs/sampling-mechanisms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?`) \| (\d) \|.*\| (\d?) ?\|$", page, re.MULTILINE)
    assert len(rows) > 15
    known = {kind.__name__: kind for kind in concrete(StepSampler)}
    for names, order, calls in rows:
        for text in re.findall(r"`(.+?)`", names):
            sampler = parse(text, known)
            assert sampler.order == sampler.start_order == int(order), text
            assert (sampler.start_calls if isinstance(sampler, Multistep) else 0) == int(calls or 0), text


def test_every_sampler_is_named_in_the_docs():
    page = (ROOT / "docs/sampling-mechanisms.md").read_text(encoding="utf-8")
    assert [kind.__name__ for kind in concrete(Sampler) if f"`{kind.__name__}(" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_docs_link_to_files_that_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for script in re.findall(r"examples/\w+\.py", text):
        assert (ROOT / script).exists(), f"{page.name} names {script}"
