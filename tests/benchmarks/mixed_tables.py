"""A table of numbers and categories: categories as codes on the mixed process beside one-hot Gaussian columns.

Both are trained for the same processor time on the same rows, by the default recipe of each. The table is a CSV file,
such as diamonds (54 000 rows; 6 decimal columns, one of integers, 3 categories), which
``pip download plotnine --no-deps`` brings as ``plotnine/data/diamonds.csv``.

    python tests/benchmarks/mixed_tables.py --table diamonds.csv --seconds 240

Distances of samples to held-out rows over their floors, and the classifier, are those of `table_round_trip.py`. The
held-out bound on -log p(row) is in nats: numbers that lie on a grid and categories as probabilities, other numbers as
densities in their units. All three values are bounds of the same quantity:

- codes: the bound of the mixed process, whose terms are said apart;
- one-hot: the bound of the Gaussian process on dequantized one-hot columns;
- copula: normal scores of the numbers by the same maps, categories as intervals of normal variables, and one matrix of
  correlations; positions within an interval by importance sampling, 64 draws.

Processor time is that of one thread, so another process on the machine does not change the comparison.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from processor_time import seconds_per_step
from table_round_trip import report
from torch import Tensor

from scoresde.data import Data, load_data
from scoresde.likelihood import continuous_vlb
from scoresde.model import ScoreModel
from scoresde.sampling import DDPM, MixedSampler, Sampler, sample
from scoresde.training import train
from scoresde.training.defaults import default_recipe

_INTERVAL_DRAWS = 64


def trained(data: Data, seconds: float, seed: int) -> ScoreModel:
    """The default recipe's model after ``seconds`` of processor time."""
    torch.manual_seed(seed)  # of the weights
    recipe = default_recipe(data.description, len(data.train))
    settings = recipe.training.fitted(
        int(seconds / seconds_per_step(lambda: recipe.build(data), data, recipe.training))
    )
    settings = replace(settings, seed=seed)
    begin = time.process_time()
    model = train(recipe.build(data), data, settings, progress=False).model
    spent = time.process_time() - begin
    print(f"{type(model.sde).__name__}: {settings.steps} steps in {spent:.0f} s of processor time", flush=True)
    return model


def bound(model: ScoreModel, rows: Tensor, draws: int) -> tuple[np.ndarray, dict[str, float]]:
    """Bounds on -log p of rows in data units, nats, the mean over dequantizations; and the mean of each term."""
    description = model.data
    assert description is not None
    total, terms = np.zeros(len(rows)), {}
    for draw in range(draws):
        generator = torch.Generator().manual_seed(draw)
        x = description.to_model(description.dequantize(rows, generator))
        result = continuous_vlb(model, x.float(), seeds=range(draw * len(rows), (draw + 1) * len(rows)), batch_size=500)
        log_det = description.log_det(x)
        total += (result.nats - log_det).numpy() / draws
        for name, value in {**result.terms, "units of the numbers": -log_det}.items():
            terms[name] = terms.get(name, 0.0) + float(value.mean()) / draws
    return total, terms


class Copula:
    """A Gaussian copula: normal scores of numbers by a table's own maps, categories as intervals.

    Args:
        data: A table with codes; its train part is fitted.
    """

    def __init__(self, data: Data) -> None:
        self.description, generator = data.description, torch.Generator().manual_seed(0)
        encoding = data.description.encoding
        assert encoding is not None
        assert encoding.codes
        self.count = len(encoding.classes)
        x = self._model_units(data.train, generator)
        codes = x[:, -self.count :].long()
        self.shares = []
        for i, classes in enumerate(encoding.classes):
            self.shares.append((torch.bincount(codes[:, i], minlength=classes) + 0.5).double())
        self.shares = [share / share.sum() for share in self.shares]
        z, _ = self._scores(x, generator)
        self.normal = torch.distributions.MultivariateNormal(z.mean(0), torch.cov(z.T))

    def _model_units(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        return self.description.to_model(self.description.dequantize(rows, generator))

    def _scores(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Scores of all columns at random positions in the intervals, and log p(c) - log φ(z) of the categories."""
        numbers, codes = x[:, : -self.count], x[:, -self.count :].long()
        scores, log_volume = [numbers], torch.zeros(len(x), dtype=torch.float64)
        for i, share in enumerate(self.shares):
            upper = share.cumsum(0)
            mass = share[codes[:, i]]
            u = torch.rand(len(x), dtype=torch.float64, generator=generator)
            z = torch.special.ndtri(((upper - share)[codes[:, i]] + u * mass).clamp(1e-9, 1 - 1e-9))
            scores.append(z[:, None])
            log_volume += mass.log() + 0.5 * z.square() + 0.5 * np.log(2 * np.pi)
        return torch.cat(scores, 1), log_volume

    def nll(self, rows: Tensor, draws: int) -> np.ndarray:
        """-log p of rows, nats."""
        total = np.zeros(len(rows))
        for draw in range(draws):
            generator = torch.Generator().manual_seed(draw)
            x = self._model_units(rows, generator)
            each = []
            for _ in range(_INTERVAL_DRAWS):
                z, log_volume = self._scores(x, generator)
                each.append(self.normal.log_prob(z) + log_volume)
            log_p = torch.logsumexp(torch.stack(each), 0) - np.log(_INTERVAL_DRAWS)
            total -= (log_p + self.description.log_det(x)).numpy() / draws
        return total


def mean_and_error(values: np.ndarray) -> str:
    """The mean of a sample and its standard error."""
    return f"{values.mean():.3f} ± {values.std(ddof=1) / np.sqrt(len(values)):.3f}"


def main() -> None:
    """Trains both, prints distances and bounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path, required=True, help="a CSV file")
    parser.add_argument("--seconds", type=float, default=240.0, help="processor time of each training")
    parser.add_argument("--samples", type=int, default=1000, help="of each set")
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--events", type=int, default=1000, help="held-out rows of the bounds")
    parser.add_argument("--draws", type=int, default=2, help="dequantizations of each held-out row")
    parser.add_argument("--steps", type=int, default=250, help="of the samplers")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights, the batches and the samples")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bounds: dict[str, np.ndarray] = {}
    for name, codes in (("codes", True), ("one-hot", False)):
        data = load_data(options.table, seed=options.seed, one_hot=not codes)
        model = trained(data, options.seconds, options.seed)
        chain = DDPM(options.steps)
        sampler: Sampler = MixedSampler(chain) if codes else chain
        n = options.sets * options.samples
        first = options.seed * n
        samples = sample(model, n, sampler, seeds=range(first, first + n), batch_size=options.samples).data.numpy()
        print(f"\n{name}")
        for what, value in report(data, samples, options.sets, options.seed).items():
            print(f"{what}: {value:.3f}")
        held_out = data.test[: options.events]
        bounds[name], terms = bound(model, held_out, options.draws)
        print(f"held-out bound, nats: {mean_and_error(bounds[name])}")
        print("; ".join(f"{term} {value:.3f}" for term, value in terms.items()), "\n", flush=True)
        if codes:
            bounds["copula"] = Copula(data).nll(held_out, options.draws)
    print(f"copula, nats: {mean_and_error(bounds['copula'])}")
    for other in ("one-hot", "copula"):
        print(f"{other} - codes, paired: {mean_and_error(bounds[other] - bounds['codes'])}")


if __name__ == "__main__":
    main()
