"""Which commands are there? Each in its own file; here they get their names."""

from __future__ import annotations

import inspect
import io
import sys

import typer

from scoresde.cli.calibrate import calibrate
from scoresde.cli.compare import compare
from scoresde.cli.errors import shown
from scoresde.cli.info import info
from scoresde.cli.likelihood import likelihood
from scoresde.cli.sample import sample
from scoresde.cli.train import train

__all__ = ["app"]

_HELP = """Diffusion models on one clock: train one, sample it in every way, score data, compare.

A first run, a few minutes each:

    scoresde train --data digits --out runs/digits

    scoresde sample runs/digits -n 64 --out grid.png

    scoresde likelihood runs/digits --limit 100

    scoresde compare --data digits --out runs/demo

Samplers, weightings, networks and so on are written as in Python, e.g. --sampler "DDPM(steps=250)" (quoted, for the
shell's sake); `scoresde info` lists them. They are parsed, never evaluated.
"""

app = typer.Typer(
    name="scoresde",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def version(asked: bool) -> None:
    """Prints the version and ends."""
    if asked:
        from importlib.metadata import version

        typer.echo(version("scoresde"))
        raise typer.Exit


def main(
    show_version: bool = typer.Option(False, "--version", callback=version, is_eager=True, help="Show the version."),
) -> None:
    """What can be asked of the package as a whole; a letter that the terminal does not know is shown as a ``?``."""
    del show_version  # whose callback has answered
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _help(doc: str) -> str:
    """A docstring whose indented paragraphs are kept line by line (click's mark for that is a backspace)."""
    parts: list[str] = []
    for part in inspect.cleandoc(doc).split("\n\n"):
        if part.startswith(" ") and parts and parts[-1].startswith("\b"):
            parts[-1] += "\n" + part
        else:
            parts.append("\b\n" + part if part.startswith(" ") else part)
    return "\n\n".join(parts)


for command in (train, sample, calibrate, likelihood, compare, info):
    app.command(name=command.__name__, help=_help(command.__doc__ or ""))(shown(command))
app.callback(help=_help(_HELP))(main)
