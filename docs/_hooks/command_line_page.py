"""Reference page of the command line, from the commands' own help."""

from __future__ import annotations

import inspect
import re
from typing import Any

import typer

from scoresde.cli import app

__all__ = ["page"]


def _text(text: str) -> str:
    """A help text as Markdown: its indented paragraphs, which click marks with a backspace, are code."""
    parts = []
    for part in inspect.cleandoc(text).split("\n\n"):
        lines = part.splitlines()
        if lines and lines[0] == "\b":
            parts.append("```sh\n" + inspect.cleandoc("\n".join(lines[1:])) + "\n```")
        else:
            parts.append(_escaped(" ".join(lines)))
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    """Text in which only what stands in backticks, and the names of options, are marked up."""
    pieces = re.split(r"(`[^`]+`|(?<![\w-])--?[a-z][\w-]*)", text)
    return "".join(f"`{piece.strip('`')}`" if i % 2 else _without_markup(piece) for i, piece in enumerate(pieces))


def _without_markup(text: str) -> str:
    return re.sub(r"([\\*_\[\]<>#|])", r"\\\1", text)


def _parameter(parameter: Any, context: Any) -> str:
    """One option or argument as an entry of a definition list."""
    record = parameter.get_help_record(context)
    if record is None:  # an argument without help
        record = (parameter.make_metavar(context), "")
    names, text = record
    return f"`{names}`\n:   {_escaped(' '.join(text.split())) or '&nbsp;'}\n"


def _command(name: str, command: Any, parent: Any) -> str:
    context = command.context_class(command, info_name=name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    shown = [parameter for parameter in command.get_params(context) if not getattr(parameter, "hidden", False)]
    entries = "\n".join(_parameter(parameter, context) for parameter in shown)
    return f"## {name}\n\n{_text(command.help or '')}\n\n```text\n{usage}\n```\n\n{entries}"


def page() -> str:
    """Markdown of the page: the general help, then every command with its options."""
    group: Any = typer.main.get_command(app)  # typer may bring a click of its own, so its classes are not named here
    context = group.context_class(group, info_name="scoresde")
    commands = "\n".join(_command(name, command, context) for name, command in group.commands.items())
    head = "# Command line\n\nWhat `scoresde --help` and `scoresde COMMAND --help` print.\n\n"
    return f"{head}{_text(group.help or '')}\n\n{commands}"
