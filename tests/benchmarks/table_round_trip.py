"""A mixed table goes in and out by two commands; each column of the samples is compared with held-out rows.

The table is a CSV file, such as diamonds (54 000 rows; 6 decimal columns, one of integers, 3 categories), which
``pip download plotnine --no-deps`` brings as ``plotnine/data/diamonds.csv``. A share of its cells is deleted at random.
Then ``scoresde train`` and ``scoresde sample --out new.csv`` run as commands. Beside the samples stands a Gaussian
copula of the same train part: empirical marginals, and the correlations of their normal scores.

    python tests/benchmarks/table_round_trip.py --table diamonds.csv --minutes 5

Per numeric column: Wasserstein distance to the held-out rows in standard deviations, over its floor; per category:
total variation over its floor. A floor is the median over 20 sets of as many train rows. One set of 1000 samples varies
by half of its floor, so the figures of model and copula are medians over 5 sets, too. The classifier's AUC is that of
boosted trees that tell samples from held-out rows, cross-validated; 0.5 if it cannot.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import norm, rankdata, wasserstein_distance
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import cross_val_score

from scoresde.data import Data, load_data

_DRAWS = 20  # sets of train rows behind a floor


def delete_cells(source: Path, target: Path, share: float, seed: int) -> None:
    """Copies a CSV file with a share of its cells blank."""
    rows = list(csv.reader(source.open(newline="")))
    blank = np.random.default_rng(seed).random((len(rows) - 1, len(rows[0]))) < share
    kept = [["" if gone else cell for cell, gone in zip(row, mask)] for row, mask in zip(rows[1:], blank)]
    with target.open("w", newline="") as file:
        csv.writer(file).writerows([rows[0], *kept])


def run(*words: object) -> float:
    """Runs a command of scoresde; returns its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "scoresde", *map(str, words)], check=True)
    return time.perf_counter() - start


def copula(rows: np.ndarray, categorical: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of a Gaussian copula, ``(n, D)``; codes of categories are spread over their bins to have ranks.

    Cells that are missing (NaN) are left out of marginals and of the correlations of pairs of columns.
    """
    spread = np.where(categorical, rows + rng.random(rows.shape), rows)
    scores = np.full(rows.shape, np.nan)
    for i in range(rows.shape[1]):
        known = ~np.isnan(rows[:, i])
        scores[known, i] = norm.ppf(rankdata(spread[known, i]) / (known.sum() + 1))
    correlation = np.ma.corrcoef(np.ma.masked_invalid(scores), rowvar=False).filled(0.0)
    values, vectors = np.linalg.eigh(correlation)
    root = vectors * np.sqrt(np.clip(values, 1e-9, None))
    u = norm.cdf(rng.standard_normal((n, len(values))) @ root.T)
    columns = [np.quantile(spread[~np.isnan(spread[:, i]), i], u[:, i], method="inverted_cdf") for i in range(len(u.T))]
    return np.where(categorical, np.floor(np.stack(columns, 1)), np.stack(columns, 1))


def distance(a: np.ndarray, b: np.ndarray, scale: float | None) -> float:
    """Wasserstein distance in units of ``scale``; total variation of codes where that is None."""
    a, b = a[~np.isnan(a)], b[~np.isnan(b)]
    if scale is not None:
        return float(wasserstein_distance(a, b)) / scale
    most = int(max(a.max(), b.max())) + 1
    shares = [np.bincount(v.astype(int), minlength=most) / len(v) for v in (a, b)]
    return 0.5 * float(np.abs(shares[0] - shares[1]).sum())


def auc(samples: np.ndarray, held_out: np.ndarray, categorical: np.ndarray, seed: int) -> float:
    """Cross-validated area under the ROC curve of boosted trees that tell samples from held-out rows."""
    x = np.concatenate([samples, held_out])
    label = np.repeat([0, 1], [len(samples), len(held_out)])
    order = np.random.default_rng(seed).permutation(len(x))
    trees = HistGradientBoostingClassifier(categorical_features=categorical.tolist(), random_state=seed)
    return float(cross_val_score(trees, x[order], label[order], cv=5, scoring="roc_auc").mean())


def as_rows(path: Path, data: Data) -> np.ndarray:
    """A table of samples in the data units of the table that was trained on, ``(n, D)``."""
    samples = load_data(path, like=data.description, test_fraction=0.0, shuffle=False)
    return samples.train.numpy()


def report(data: Data, samples: np.ndarray, sets: int, seed: int) -> dict[str, float]:
    """Prints the table of distances; returns the figures that the targets are about."""
    columns, rng, n = data.description.columns, np.random.default_rng(seed), len(samples) // sets
    assert columns is not None
    train, held_out = data.train.numpy(), data.test.numpy()[:n]
    categorical = np.array([name in columns.categories for name in columns.names])
    simple = copula(train, categorical, len(samples), rng)
    both = [np.split(rows[: sets * n], sets) for rows in (samples, simple)]
    picks = [rng.choice(len(train), n, replace=False) for _ in range(_DRAWS)]
    table = Table("column", "kind", "floor", "model / floor", "copula / floor", box=None)
    ratios: dict[str, list[tuple[float, float]]] = {"number": [], "category": []}
    for i, name in enumerate(columns.names):
        scale = None if categorical[i] else float(np.nanstd(train[:, i]))
        floor = float(np.median([distance(train[pick, i], held_out[:, i], scale) for pick in picks]))
        medians = [np.median([distance(rows[:, i], held_out[:, i], scale) for rows in each]) / floor for each in both]
        ratios["category" if scale is None else "number"].append((float(medians[0]), float(medians[1])))
        table.add_row(name, columns.kinds[name], f"{floor:.4f}", *(f"{ratio:.2f}" for ratio in medians))
    real = [train[pick] for pick in picks[:sets]]
    areas = {
        name: float(np.median([auc(rows, held_out, categorical, seed) for rows in each]))
        for name, each in (("model", both[0]), ("copula", both[1]), ("train rows", real))
    }
    console = Console()
    console.print(table)
    console.print("AUC:", ", ".join(f"{name} {area:.3f}" for name, area in areas.items()))
    numbers, categories = (np.array(ratios[kind]).reshape(-1, 2) for kind in ("number", "category"))
    return {
        "share of numeric columns with W <= 1.5 floors": float((numbers[:, 0] <= 1.5).mean()),
        "mean total variation over the copula's": float(categories[:, 0].mean() / categories[:, 1].mean()),
        "AUC": areas["model"],
    }


def draw(path: Path, data: Data, samples: np.ndarray) -> None:
    """One panel per column: held-out rows as bars or an area, samples as points or a line."""
    import matplotlib.pyplot as plt

    columns, held_out = data.description.columns, data.test.numpy()
    assert columns is not None
    across = 5
    figure, axes = plt.subplots(-(-len(columns.names) // across), across, figsize=(14, 5.2), layout="constrained")
    for i, (name, panel) in enumerate(zip(columns.names, axes.flat)):
        rows, drawn = (v[~np.isnan(v[:, i]), i] for v in (held_out, samples))
        texts = columns.categories.get(name)
        edges = (
            np.arange(len(texts) + 1) - 0.5
            if texts
            else np.linspace(np.quantile(rows, 0.002), np.quantile(rows, 0.998), 41)
        )
        weights = [np.full(len(v), 1 / len(v)) for v in (rows, drawn)]
        panel.hist(rows, edges, weights=weights[0], color="0.8", rwidth=0.8 if texts else None, label="held out")
        panel.hist(drawn, edges, weights=weights[1], histtype="step", color="C0", label="samples")
        if texts:
            panel.set_xticks(range(len(texts)), texts, rotation=45, ha="right", fontsize=8)
        panel.set_title(name, fontsize=10)
        panel.set_yticks([])
    for panel in axes.flat[len(columns.names) :]:
        panel.set_axis_off()
    axes.flat[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="a CSV file")
    parser.add_argument("--out", type=Path, default=Path("round-trip"), help="folder of table, run and samples")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--samples", type=int, default=1000, help="of each set")
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--missing", type=float, default=0.05, help="share of cells that are deleted")
    parser.add_argument("--choice", default="mask", help="missing= of the reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="a .png file with the marginals")
    parser.add_argument("--train", default="", help="more options of scoresde train")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    table, new = options.out / "table.csv", options.out / "new.csv"
    delete_cells(options.table, table, options.missing, options.seed)
    read = ("--read", f"missing={options.choice}")
    common = ("--minutes", options.minutes, "--monitor-every", 0, "-q", "--out", options.out / "run")
    seconds = [
        run("train", "--data", table, *read, *common, *options.train.split()),
        run(
            "sample",
            options.out / "run",
            "-n",
            options.sets * options.samples,
            "--out",
            new,
            "--seed",
            options.seed,
            "-q",
        ),
    ]
    data = load_data(table, missing=options.choice)
    samples = as_rows(new, data)
    figures = report(data.complete(), samples, options.sets, options.seed)
    if options.plot is not None:
        draw(options.plot, data.complete(), samples)
    for name, value in figures.items():
        print(f"{name}: {value:.3f}")
    print(f"training {seconds[0]:.0f} s, sampling {seconds[1]:.0f} s")


if __name__ == "__main__":
    main()
