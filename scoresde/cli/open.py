"""``scoresde open``: a model of another code base as a run that every other command takes."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.bridges import Opened

__all__ = ["open_command"]


def open_command(
    path: Path = typer.Argument(..., help="A file or folder: a diffusers pipeline, weights of EDM, score_sde …"),
    out: Path = typer.Option(None, "--out", help="Write a run to this directory.", show_default=False),
    origin: str = typer.Option(
        None, "--origin", help="The code base, if the files do not show it.", show_default=False
    ),
    network: str = typer.Option(
        None,
        "--network",
        help='The network of the weights: a class of a module that --import names, with literals, "OldNet(width=64)".',
        show_default=False,
    ),
    setting: list[str] = typer.Option(
        [],
        "--set",
        metavar="NAME=VALUE",
        help="A fact that the files do not state, by the name that the code base has for it; repeatable.",
        show_default=False,
    ),
    data: str = typer.Option(
        None,
        "--data",
        help="Data that the model was trained on, name or path: verifies the model on them, as scoresde verify does.",
        show_default=False,
    ),
    bins: options.Bins = None,
    read: options.Read = [],
    imports: options.Imports = [],
) -> None:
    """Open a model that was trained with another code base: diffusers, EDM, score_sde, k-diffusion and others.

    It prints what the files state and what had to be assumed, and writes a run for all other commands. Nothing is
    downloaded, and nothing is unpickled. For example:

        scoresde open my-pipeline

        scoresde open my-pipeline --out runs/mine

        scoresde open my-pipeline --data images

        scoresde verify runs/mine --data images

        scoresde sample runs/mine -n 16 --sampler "Adams(steps=20)" --out grid.png
    """
    from scoresde.bridges import open_model, save_opened
    from scoresde.cli.console import print_done
    from scoresde.cli.parsing import import_modules

    if out is not None and out.exists() and any(out.iterdir()):
        raise ValueError(f"--out must be a new directory, got {out}, which holds files; choose another one.")
    modules = import_modules(imports, networks=True)
    net = None if network is None else _network(network, modules)
    settings = _settings(setting)
    opened = open_model(path, net, origin=origin, bins=bins, **settings)
    _print_findings(opened)
    if out is None:
        print_done("nothing was written; --out runs/NAME writes a run", None)
    else:  # before the checks, whose errors must not cost the run
        save_opened(opened, out)
        next_command = f"scoresde verify {out} --data DATA" if data is None else f"scoresde sample {out} -n 16"
        print_done(f"wrote {out}", next_command)
    if data is not None and not _verified(opened, path, settings, data, bins, read):
        raise typer.Exit(1)


def _verified(
    opened: Opened, path: Path, settings: Mapping[str, Any], data: str, bins: int | None, read: Sequence[str]
) -> bool:
    """Prints the checks of the model on data; whether none failed."""
    from rich.console import Console

    from scoresde.cli.held_out import check_bins
    from scoresde.cli.loading import load_data
    from scoresde.data.sources import reader_of
    from scoresde.evaluation import verify
    from scoresde.evaluation.verify import diffusers_chain

    reader = reader_of(data)
    takes_bins = reader is not None and "bins" in inspect.signature(reader).parameters
    loaded = load_data(data, bins if takes_bins else None, read=read)
    check_bins(loaded.description, opened.model.data)
    events = loaded.test if len(loaded.test) >= 64 else loaded.train
    peer = None
    if opened.origin == "diffusers":
        given = {name: value for name, value in settings.items() if name != "steps"}
        peer = diffusers_chain(path, net=getattr(opened.model.net, "net", None), **given)
    result = verify(opened.model, events, peer=peer)
    Console().print(result)
    return result.ok


def _network(text: str, modules: Sequence[Any]) -> Any:
    """The network that a call of a class of the modules makes: any `nn.Module`, its arguments literals of Python."""
    from torch import nn

    from scoresde._core.suggest import unknown_name
    from scoresde.cli.parsing import network_classes
    from scoresde.storage import spec

    classes, known = network_classes(*modules), spec.known_classes(*modules)
    name = text.partition("(")[0].strip()
    if name in known:
        return spec.parse(text, known, kind=nn.Module)
    if name not in classes:
        raise ValueError(f"{unknown_name('network', name, classes)} --import MODULE names the module of its class.")
    positional, named = _literals(text)
    try:
        return classes[name](*positional, **named)
    except Exception as error:
        raise ValueError(f"{text} fails: {type(error).__name__}: {error}; correct --network.") from error


def _literals(text: str) -> tuple[list[Any], dict[str, Any]]:
    """The arguments of a call, which are literals; a name alone has none."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if isinstance(call, ast.Name):
            return [], {}
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError("it is no call")
        values = [ast.literal_eval(value) for value in call.args]
        return values, {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f'--network takes a call of a class with literals, such as "OldNet(width=64)", got {text!r} ({error}).'
        ) from None


def _settings(texts: Sequence[str]) -> dict[str, Any]:
    """Values of ``--set`` by name: literals of Python, and all else as text."""
    settings = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name.isidentifier() or not equals:
            raise ValueError(f"--set takes name=value, such as sigma_data=0.5, got {text!r}.")
        try:
            settings[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            settings[name] = value
    return settings


def _print_findings(opened: Opened) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    model = opened.model
    count = sum(parameter.numel() for parameter in model.net.parameters())
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row("origin", Text(opened.origin))
    grid.add_row("parameters", Text(f"{count:,}"))
    for finding in opened.findings:
        style = "yellow" if finding.source == "assumed" else "dim"
        reason = f"  {finding.source}{': ' if finding.why else ''}{finding.why}"
        grid.add_row(finding.name, Text.assemble(finding.value, (reason, style)))
    Console().print(grid)
    assumed = [finding.name for finding in opened.findings if finding.source == "assumed"]
    if assumed:
        Console(soft_wrap=True).print(
            Text(f"assumed, not stated: {', '.join(assumed)}; --set NAME=VALUE changes it", style="yellow")
        )
