"""`scoresde info`: what is installed, what can be written where, and what is in a checkpoint."""

from __future__ import annotations

from pathlib import Path

import typer

__all__ = ["info"]


def info(
    checkpoint: Path = typer.Argument(None, help="A run directory or a checkpoint: what is in it.", show_default=False),
    weightings: bool = typer.Option(False, "--weightings", help="The table of which weightings are one and the same."),
) -> None:
    """Show versions, devices and what can be written on the command line.

    For example:

        scoresde info

        scoresde info --weightings

        scoresde info runs/digits
    """
    if weightings and checkpoint is not None:
        raise ValueError(f"--weightings is a table of the package's own, got {checkpoint} too; leave one of them out.")
    if weightings:
        from scoresde.objective.weighting import equivalence_table

        typer.echo(equivalence_table())
    elif checkpoint is not None:
        _checkpoint(checkpoint)
    else:
        _package()


def _package() -> None:
    import torch

    from scoresde.cli import console as show
    from scoresde.cli.parsing import families, known
    from scoresde.data.sources import FILES, SOURCES
    from scoresde.data.toys import TOYS
    from scoresde.storage.environment import versions

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    found = versions()
    show.settings(
        {
            "versions": ", ".join(f"{name} {version}" for name, version in found.items()),
            "devices": ", ".join(["cpu", *(f"cuda:{i} ({name})" for i, name in enumerate(gpus))]),
            "data": ", ".join((*SOURCES, *TOYS)) + ", hf:NAME, a folder of pictures, " + ", ".join(FILES),
        }
    )
    typer.echo()
    show.settings({place: ", ".join(sorted(known(kind))) for place, kind in families().items()})


def _checkpoint(path: Path) -> None:
    from scoresde.cli import console as show
    from scoresde.storage.checkpoint import read_checkpoint

    found = read_checkpoint(path)
    settings = found.meta.get("model") or {}
    sizes = {group: sum(t.numel() for t in tensors.values()) for group, tensors in found.tensors.items()}
    lines = {"checkpoint": str(found.path)}
    lines |= {name: str(value) for name, value in settings.items() if value not in (None, "None")}
    lines |= {name: str(found.meta[name]) for name in ("step", "training", "torch") if name in found.meta}
    lines["tensors"] = ", ".join(f"{group} {size:,}" for group, size in sizes.items())
    show.settings(lines)
