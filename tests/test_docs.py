"""Documentation and README: their Python blocks run, and their tables, orders and links match the library."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from subclasses import concrete

from scoresde import sampling
from scoresde.objective.discrete_equivalences import discrete_equivalence_table
from scoresde.objective.equivalences import equivalence_table
from scoresde.sampling import Multistep, Sampler, StepSampler
from scoresde.storage.spec import parse

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]

# Replacements that make a page fast enough for a test. Each text must occur on its page.
FASTER = {
    "README.md": {
        "fitted(1000)": "fitted(2)",
        "steps=250": "steps=3",
        "digits.test[:100])": "digits.test[:3], solver=sd.AdaptiveSolver(1.0))",
    }
}


def python_blocks(page: Path) -> str:
    """The Python blocks of a page as one source, at the line numbers of the page."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        is_fence = line.startswith("```")
        inside = (line == "```python") if is_fence else inside
        lines.append(line if inside and not is_fence else "")
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_python_on_a_docs_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = python_blocks(page)
    for slow, fast in FASTER.get(page.name, {}).items():
        assert slow in source, f"{page.name} no longer contains {slow}; remove it from FASTER"
        source = source.replace(slow, fast)
    monkeypatch.chdir(tmp_path)  # for the files that a page writes
    exec(compile(source, str(page), "exec", dont_inherit=True), {"__name__": "page"})


def test_the_docs_show_the_tables_of_weightings_that_the_library_prints():
    printed = re.findall(
        r"```text\n(w at log-SNR.*?)\n```", (ROOT / "docs/weightings.md").read_text(encoding="utf-8"), re.DOTALL
    )
    tables = [table((-6.0, 0.0, 6.0)).splitlines() for table in (equivalence_table, discrete_equivalence_table)]
    assert printed == ["\n".join(line.rstrip() for line in lines) for lines in tables]


def test_the_orders_in_the_docs_are_those_that_the_samplers_declare():
    page = (ROOT / "docs/sampling-mechanisms.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.+?`) \| (\d) \|.*\| (\d?) ?\|$", page, re.MULTILINE)
    assert len(rows) > 15
    known = {sampler.__name__: sampler for sampler in concrete(StepSampler)}
    for names, order, calls in rows:
        for text in re.findall(r"`(.+?)`", names):
            sampler = parse(text, known)
            assert sampler.order == sampler.start_order == int(order), text
            assert (sampler.start_calls if isinstance(sampler, Multistep) else 0) == int(calls or 0), text


def test_the_docs_name_every_sampler_that_the_sampling_package_exports():
    page = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    exported = [cls.__name__ for cls in concrete(Sampler) if cls.__name__ in sampling.__all__]
    assert len(exported) > 15
    assert [name for name in exported if f"`{name}(" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_the_docs_link_to_files_that_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        path = page.parent / target
        is_tutorial = path.parent.name == "tutorials" and path.with_suffix(".py").exists()  # made from a notebook
        is_reference = path.parent.name == "reference"  # made from the code
        assert path.exists() or is_tutorial or is_reference, f"{page.name} links to {target}"
    for script in re.findall(r"examples/\w+\.py", text):
        assert (ROOT / script).exists(), f"{page.name} names {script}"
