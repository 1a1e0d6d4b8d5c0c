"""The Typer application: the commands and their names, the general help text and ``--version``."""

from __future__ import annotations

import inspect
import io
import sys

import typer

from scoresde.cli.calibrate import calibrate
from scoresde.cli.compare import compare
from scoresde.cli.distill import distill
from scoresde.cli.edit import edit
from scoresde.cli.errors import report_errors
from scoresde.cli.groups import with_groups
from scoresde.cli.impute import impute
from scoresde.cli.info import info
from scoresde.cli.inpaint import inpaint
from scoresde.cli.likelihood import likelihood
from scoresde.cli.open import open_command
from scoresde.cli.sample import sample
from scoresde.cli.train import train
from scoresde.cli.verify import verify
from scoresde.cli.watch import watch

__all__ = ["app"]

_HELP = """Train diffusion models, sample from them, compute likelihoods, and compare samplers.

A first session takes a few minutes:

    scoresde train --data digits --out runs/digits

    scoresde sample runs/digits -n 64 --out grid.png

    scoresde likelihood runs/digits --limit 100

    scoresde compare --data digits --out runs/demo

Samplers, weightings, networks and other settings are written as in Python, in quotes: --sampler "DDPM(steps=250)".
They are parsed, never evaluated. `scoresde info` lists them; `scoresde info DDPM` shows the settings of one.
"""

app = typer.Typer(
    name="scoresde",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def print_version(requested: bool) -> None:
    """Prints the version and exits."""
    if requested:
        from importlib.metadata import version

        typer.echo(version("scoresde"))
        raise typer.Exit


def main(
    show_version: bool = typer.Option(
        False, "--version", callback=print_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    """Prepares standard output: a character that its encoding lacks is replaced by a question mark."""
    del show_version  # print_version has already handled it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _help(docstring: str) -> str:
    """A docstring whose indented paragraphs keep their line breaks (click marks them with a backspace)."""
    parts: list[str] = []
    for part in inspect.cleandoc(docstring).split("\n\n"):
        if part.startswith(" ") and parts and parts[-1].startswith("\b"):
            parts[-1] += "\n" + part
        else:
            parts.append("\b\n" + part if part.startswith(" ") else part)
    return "\n\n".join(parts)


_COMMANDS = (
    *(train, sample, edit, inpaint, impute, calibrate, distill),
    *(likelihood, compare, watch, open_command, verify, info),
)
for command in _COMMANDS:
    app.command(name=command.__name__.removesuffix("_command"), help=_help(command.__doc__ or ""))(
        report_errors(with_groups(command))
    )
app.callback(help=_help(_HELP))(main)
