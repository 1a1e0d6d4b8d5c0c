"""Helpers that the tests of the commands share."""

from __future__ import annotations

import csv
from pathlib import Path

from typer.testing import CliRunner, Result

from scoresde.cli import app

NET = "MLP(width=16, depth=1)"
SMALL = ("--network", NET, "--steps", 1, "--batch-size", 4, "--monitor-every", 0, "-q")


def run(*words: str | Path | int) -> Result:
    """Runs a command in this process."""
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


def one_line(result: Result) -> str:
    """The printed text, with single spaces."""
    return " ".join((result.output + result.stderr).split())


def csv_rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV by their header."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))
