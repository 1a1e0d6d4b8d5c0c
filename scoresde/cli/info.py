"""``scoresde info``: versions and devices, settings of a class, options of a data source, content of a checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.cli.parsing import Modules

__all__ = ["info"]


def info(
    name: str = typer.Argument(
        None,
        metavar="NAME",
        help="A class, such as DDPM; a data source, such as people.csv; or a run directory or checkpoint.",
        show_default=False,
    ),
    weightings: bool = typer.Option(False, "--weightings", help="Show the table of equivalent loss weightings."),
    data: bool = typer.Option(False, "--data", help="Show the options of every data reader, for --read."),
    imports: options.Imports = [],
) -> None:
    """Show versions, devices and all classes that options take; or one class, data source or checkpoint.

    For example:

        scoresde info

        scoresde info DDPM

        scoresde info runs/digits

        scoresde info people.csv

        scoresde info --data

        scoresde info --weightings
    """
    from scoresde.cli import reader_options
    from scoresde.cli.parsing import import_modules

    if data and (name is not None or weightings):
        raise ValueError("--data shows the options of all readers; leave the name and --weightings out.")
    if weightings and name is not None:
        raise ValueError(f"--weightings shows a table of its own, got {name} too; leave one of them out.")
    if weightings:
        from scoresde.objective.discrete_equivalences import discrete_equivalence_table
        from scoresde.objective.equivalences import equivalence_table

        typer.echo(f"{equivalence_table()}\n\n{discrete_equivalence_table()}")
        return
    if data:
        reader_options.print_all_readers()
        return
    modules = import_modules(imports)
    if name is None:
        _print_package(modules)
    elif reader_options.is_source(name):
        reader_options.print_reader(name)
    elif Path(name).exists():
        _print_checkpoint(Path(name))
    else:
        _print_class(name, modules)


def _print_package(modules: Modules) -> None:
    import torch

    from scoresde.cli import console
    from scoresde.cli.parsing import families, known
    from scoresde.data.sources import FILES, SOURCES
    from scoresde.data.toys import TOYS
    from scoresde.storage.environment import versions

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    console.print_settings(
        {
            "versions": ", ".join(f"{package} {version}" for package, version in versions().items()),
            "devices": ", ".join(["cpu", *(f"cuda:{i} ({gpu})" for i, gpu in enumerate(gpus))]),
            "data": ", ".join((*SOURCES, *TOYS)) + ", hf:NAME, text:PATH, a folder of images, " + ", ".join(FILES),
        }
    )
    typer.echo()
    console.print_settings({option: ", ".join(sorted(known(kind, modules))) for option, kind in families().items()})
    typer.echo("\nscoresde info NAME shows the settings of a class, e.g. scoresde info DDPM.")
    typer.echo("scoresde info --data shows the options of every data reader.")


def _print_class(name: str, modules: Modules) -> None:
    """The module, first docstring line and fields of each class of this name; parentheses after it are ignored."""
    from scoresde._core.suggest import unknown_name
    from scoresde.cli.parsing import families, known

    classes = known(modules=modules)
    name = name.partition("(")[0]
    if name not in classes:
        names = {option_class for kind in families().values() for option_class in known(kind, modules)}
        path = "" if "/" not in name else " A path must exist."
        raise ValueError(unknown_name("class", name, names) + path)
    entry = classes[name]
    for i, cls in enumerate(entry if isinstance(entry, tuple) else (entry,)):
        if i:
            typer.echo()
        _print_fields(cls)


def _print_fields(cls: type) -> None:
    from scoresde.cli import console

    typer.echo(f"{cls.__module__}.{cls.__qualname__}")
    typer.echo((inspect.getdoc(cls) or "").partition("\n")[0])
    fields = [field for field in dataclasses.fields(cls) if field.init]
    if not fields:
        typer.echo("no fields")
        return
    typer.echo()
    console.print_settings({field.name: f"{_type(field)} = {_default(field)}" for field in fields})


def _type(field: dataclasses.Field[Any]) -> str:
    return field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))


def _default(field: dataclasses.Field[Any]) -> str:
    from scoresde.storage.setting_labels import short_text

    if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
        return "(required)"
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    try:
        return short_text(value)
    except TypeError:  # a value without a text form
        return repr(value)


def _print_checkpoint(path: Path) -> None:
    from scoresde.cli import console
    from scoresde.cli.opened_run import opened_lines
    from scoresde.storage.checkpoint import read_checkpoint
    from scoresde.storage.setting_labels import without_long_lists

    checkpoint = read_checkpoint(path)
    settings = checkpoint.meta.get("model") or {}
    sizes = {group: sum(t.numel() for t in tensors.values()) for group, tensors in checkpoint.tensors.items()}
    lines = {"checkpoint": str(checkpoint.path)}
    lines |= {name: without_long_lists(str(value)) for name, value in settings.items() if value not in (None, "None")}
    lines |= {name: str(checkpoint.meta[name]) for name in ("step", "training", "torch") if name in checkpoint.meta}
    lines |= opened_lines(checkpoint)
    lines["tensors"] = ", ".join(f"{group} {size:,}" for group, size in sizes.items())
    console.print_settings(lines)
