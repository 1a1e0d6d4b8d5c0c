"""The README's first screen: its numbers are those of the benchmarks' tables in the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import geometric_mean, median

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def rows(page: str, name: str) -> list[list[str]]:
    """The rows of the tables that a benchmark writes between two comments of a page, heads included."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    table = text[text.index(f"<!-- {name} -->") : text.index(f"<!-- /{name} -->")]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def first_number(cell: str) -> float | None:
    match = re.match(r"-?\d*\.\d+", cell)
    return float(match[0]) if match else None


def claim(start: str) -> str:
    """The line of the README that begins with the given words."""
    return next(line for line in README.splitlines() if line.startswith(start))


def test_the_error_of_the_fitted_sampler_is_that_of_the_table() -> None:
    table = rows("choosing/sampler.md", "networks")
    column = next(row for row in table if "10 calls" in row).index("10 calls")
    errors = [first_number(row[column]) for row in table if row[0].endswith("calibrated")]
    assert len(errors) == 11
    assert f"**{median(filter(None, errors)):.2f}**" in claim("- **It fits the sampler")


def test_the_distances_from_exact_posteriors_are_those_of_the_table() -> None:
    table = rows("choosing/guidance.md", "posteriors")
    ours = [first_number(cell) for cell in next(row for row in table if "its default" in row[0])[1:7]]
    released = [row[1:7] for row in table if row[0].startswith(("*azula*", "*deepinv*"))]
    assert len(released) > 10
    best = [min(filter(None, map(first_number, column))) for column in zip(*released)]
    line = claim("- **It draws from the right posterior")
    assert f"**{geometric_mean(filter(None, ours)):.2f}**" in line
    assert f"{geometric_mean(best):.1f} times" in line


def test_the_coverage_of_the_intervals_is_that_of_the_page() -> None:
    line, page = claim("- **It knows the error"), (ROOT / "docs/likelihood.md").read_text(encoding="utf-8")
    assert re.search(r"Of 300 points, 94 to 96 % lay in their 95 % intervals", page)
    assert re.search(r"6\.8 nats for one fixed probe", page)
    assert "**94 to 96 %**" in line
    assert "6.8 nats" in line


def test_each_claim_names_a_command_that_exists() -> None:
    commands = re.findall(r"`python (\S+?\.py)`$", README, re.MULTILINE)
    assert len(commands) == 3
    assert [path for path in commands if not (ROOT / path).exists()] == []
