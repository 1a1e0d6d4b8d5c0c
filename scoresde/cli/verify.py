"""``scoresde verify``: whether a run's network is called as it was trained, on the user's own data."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from scoresde.cli import options

__all__ = ["verify"]


def verify(
    checkpoint: Path = options.CHECKPOINT,
    data: str = typer.Option(
        None,
        "--data",
        help="Name or path of the data; default: what the model was trained on, read and split in the same way.",
        show_default=False,
    ),
    part: str = typer.Option(
        None,
        "--part",
        help="test, train or all; default test, and all for --data that the model was not trained on.",
        show_default=False,
    ),
    limit: int = typer.Option(128, "--limit", min=32, help="Largest number of events; the cost is proportional."),
    seed: int = typer.Option(
        0, "--seed", min=0, max=options.MOST_SEED, help="Random seed of the choice of events and of the noise."
    ),
    out: Path = typer.Option(None, "--out", help="Output file, .json, with all numbers."),
    raw: bool = options.RAW,
    average: float = options.AVERAGE,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    imports: list[str] = options.IMPORT,
    device: str = options.DEVICE,
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
    from scoresde.cli.held_out import check_events, check_part, select_events
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parsing import known
    from scoresde.cli.recorded_config import import_recorded

    if out is not None and out.suffix != ".json":
        raise ValueError(f"--out must end in .json, got {out}.")
    check_part(part, test_fraction)
    modules = import_recorded(checkpoint, imports)
    check_writable(out)

    from rich.console import Console

    from scoresde.cli import console
    from scoresde.cli.loading import as_score_model, load_model
    from scoresde.evaluation import verify as verify_model
    from scoresde.storage.checkpoint import read_checkpoint

    stored = read_checkpoint(checkpoint)
    model = as_score_model(load_model(stored, device, raw, average, known(modules=modules)))
    if model.data is None:
        raise ValueError(f"{checkpoint} has no description of its data; verify it in Python, by scoresde.verify.")
    others = {}
    if "ema" in stored.tensors and average is None:
        name = "the averaged weights" if raw else "the raw weights"
        others[name] = as_score_model(load_model(stored, device, not raw, None, known(modules=modules)))
    source = {"data": data, "bins": bins, "test_fraction": test_fraction, "split_seed": split_seed, "read": read}
    held_out = select_events(checkpoint, stored, part, None, source)
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
