"""`scoresde likelihood`: how likely are data under a trained model?"""

from __future__ import annotations

from pathlib import Path

import typer

from scoresde.cli import options

__all__ = ["likelihood"]


def likelihood(
    checkpoint: Path = typer.Argument(..., help="A run directory (its newest checkpoint), or one checkpoint."),
    data: str = typer.Option(
        None, "--data", help="Name or file; default: what the model was trained on.", show_default=False
    ),
    part: str = typer.Option("test", "--part", help="test or train."),
    limit: int = typer.Option(None, "--limit", help="Only the first so many."),
    trace: str = typer.Option(None, "--trace", help='"Exact()" or "Hutchinson(probes=8)"; default by dimension.'),
    draws: int = typer.Option(1, "--draws", help="Dequantisation draws per event, for levels."),
    tolerance: float = typer.Option(0.1, "--tolerance", help="Of a step of the path, in units of the noise's scale."),
    seed: int = typer.Option(0, "--seed", help="Of dequantisation and trace probes."),
    batch_size: int = typer.Option(512, "--batch-size", help="Events at once."),
    out: Path = typer.Option(None, "--out", help="A .csv with one line per event."),
    raw: bool = typer.Option(False, "--raw", help="The weights as trained instead of their average."),
    bins: int = options.BINS,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Score data by the probability-flow ODE: bits per dimension of levels, nats otherwise.

    For example:

        scoresde likelihood runs/digits --limit 100

        scoresde likelihood runs/digits --trace "Hutchinson(probes=8)" --out values.csv

        scoresde likelihood runs/faces --data faces.npy --bins 256
    """
    from scoresde.cli import show
    from scoresde.cli.objects import load_data, load_model, parse, place
    from scoresde.compare import Scoring
    from scoresde.compare.score import each_score
    from scoresde.likelihood import Trace
    from scoresde.likelihood.trace import default_trace
    from scoresde.spec import nearest

    place(out)
    model = load_model(checkpoint, device, raw)
    if model.data is None:
        raise ValueError(f"{checkpoint} does not say what its data were; score it in Python, by scoresde.log_prob.")
    chosen = default_trace(model.data.dims) if trace is None else parse(trace, Trace)
    how = Scoring(chosen, tolerance, limit, batch_size, seed, draws)
    if part not in ("test", "train"):
        raise ValueError(f"no part of the data is named {part!r}; {nearest(part, ('test', 'train'))}")
    loaded = load_data(model.data.name if data is None else data, bins, test_fraction, split_seed)
    events = loaded.test if part == "test" else loaded.train
    model.data.validate(events)
    values, stderr, summary = each_score(model, events, how, progress=not quiet)
    show.settings(
        {
            "data": f"{loaded.description.name}, {part} part, {summary['events']} events",
            summary["unit"]: f"{summary['value']:.4f} ± {summary['stderr']:.4f} (over the events)",
            "probes add": f"± {summary['probe_stderr']:.4f}",
            "network calls": str(summary["nfe"]),
        }
    )
    if out is not None:
        lines = [f"{i},{v:.6f},{e:.6f}" for i, (v, e) in enumerate(zip(values.tolist(), stderr.tolist()))]
        out.write_text("\n".join([f"index,{summary['unit']},probe_stderr", *lines]) + "\n", encoding="utf-8")
        show.done(f"{len(lines)} values in {out}")
