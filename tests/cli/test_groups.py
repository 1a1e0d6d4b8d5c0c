"""A group of options is flattened into options of the command."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from scoresde.cli.groups import with_groups


@dataclass(frozen=True)
class Span:
    """Two options, one of which is repeatable."""

    low: Annotated[float, typer.Option("--low")] = 1.5
    marks: Annotated[list[str], typer.Option("--mark")] = field(default_factory=list)


def command(path: Path, *, span: Span, high: float = typer.Option(2.0, "--high")) -> None:
    """A command with a group between its own options."""
    typer.echo(f"{path.name} {span} {high:g}")


def run(*arguments: str) -> str:
    app = typer.Typer()
    app.command()(with_groups(command))
    result = CliRunner().invoke(app, [*arguments])
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_fields_of_a_group_are_options_with_their_defaults() -> None:
    assert run("a.csv") == "a.csv Span(low=1.5, marks=[]) 2"
    assert run("a.csv", "--low", "3", "--mark", "x", "--mark", "y", "--high", "7") == (
        "a.csv Span(low=3.0, marks=['x', 'y']) 7"
    )


def test_two_options_of_one_name_are_refused() -> None:
    def twice(*, span: Span, low: float = typer.Option(0.0, "--lowest")) -> None:
        """A command with the name ``low`` twice."""

    with pytest.raises(TypeError, match="options need names of their own, twice repeats low"):
        with_groups(twice)
