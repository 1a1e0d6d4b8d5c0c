"""``scoresde verify``: whether a run's network is called as it was trained, on the user's own data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import typer

from scoresde.cli import options
from scoresde.cli.data_options import HeldOutOptions
from scoresde.cli.model_options import ModelOptions

__all__ = ["verify"]


def verify(
    checkpoint: options.Checkpoint,
    limit: int = typer.Option(128, "--limit", min=32, help="Largest number of events; the cost is proportional."),
    seed: int = typer.Option(
        0, "--seed", min=0, max=options.MOST_SEED, help="Random seed of the choice of events and of the noise."
    ),
    out: Path = typer.Option(None, "--out", help="Output file, .json, with all numbers."),
    *,
    source: HeldOutOptions,
    weights: ModelOptions,
) -> None:
    """Check that a network is called as it was trained.

    Its error on the data is compared with that of other readings of the same network: another target or sign, another
    clock or step, data of another range, scale, channel order or orientation, other weights of the run. Ends with
    status 1 if a check fails. What the data cannot decide is reported as undecidable.

    For example:

        scoresde verify runs/digits

        scoresde verify runs/faces --data faces.npy

        scoresde verify runs/digits --raw --out checks.json
    """
    from scoresde.cli.held_out import check_events
    from scoresde.cli.outputs import check_writable

    if out is not None and out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    modules = weights.modules(checkpoint)
    check_writable(out)

    from rich.console import Console

    from scoresde.cli import console
    from scoresde.cli.loading import as_score_model
    from scoresde.evaluation import verify as verify_model
    from scoresde.evaluation.verify.events import ENOUGH
    from scoresde.storage.checkpoint import read_checkpoint

    stored = read_checkpoint(checkpoint)
    model = as_score_model(weights.load(stored, modules))
    if model.data is None:
        raise ValueError(f"{checkpoint} has no description of its data; verify it in Python, by scoresde.verify.")
    others = {}
    if "ema" in stored.tensors and weights.average is None:
        name = "the averaged weights" if weights.raw else "the raw weights"
        others[name] = as_score_model(replace(weights, raw=not weights.raw).load(stored, modules))
    held_out = source.select(checkpoint, stored, None)
    if source.part is None and len(held_out.events) < ENOUGH:
        held_out = replace(source, part="all").select(checkpoint, stored, None)
    check_events(model, held_out.events)
    result = verify_model(model, held_out.events, cond=held_out.cond, others=others, limit=limit, seed=seed)
    Console().print(result)
    if out is not None:
        out.write_text(json.dumps(result.to_json(), indent=2))
    counts = ", ".join(f"{sum(c.outcome == o for c in result.checks)} {o}" for o in ("passed", "failed", "undecidable"))
    line = f"{counts}; {held_out.name}, {result.events} of {held_out.count}, {result.seconds:.0f} s"
    if result.ok:
        console.print_done(line)
        return
    console.print_status(line)
    raise typer.Exit(result.exit_code)
