"""Binarized images: bounds of binary diffusion beside a Bernoulli mixture, an RBM and an autoregressive network.

    python tests/benchmarks/binary_images.py --seconds 120
    python tests/benchmarks/binary_images.py --data mnist.npy   # statically binarized MNIST, uint8 (N, 784), 0 and 1

All models train for the same processor time on one thread, and their settings are chosen on the validation part. Nats
per image on the test part, smaller is better: exact for the mixture and the autoregressive network, estimated by
annealed importance sampling for the RBM (which is optimistic), an upper bound for the diffusion. All methods see the
same images, so a difference of two means is known better than either: its error is that of the paired differences.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from processor_time import seconds_per_step
from sklearn.datasets import load_digits
from sklearn.neural_network import BernoulliRBM
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.likelihood import continuous_vlb
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.objective import PathKL
from scoresde.process import Binomial, Categorical
from scoresde.training import Callback, CallbackState, Training, train

Parts = tuple[Tensor, Tensor, Tensor]


def digits(seed: int) -> Parts:
    """Train, validation and test part of 8x8 digits, ``(N, 64)`` of 0 and 1: whether a pixel is at least half."""
    images = torch.from_numpy(load_digits(return_X_y=True)[0] >= 8).float()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    return images[order[:1200]], images[order[1200:1437]], images[order[1437:]]


def from_file(path: Path) -> Parts:
    """The same of a file; the last 10,000 are the test part, the 5,000 before them the validation part."""
    images = torch.from_numpy(np.load(path)).flatten(1).float()
    return images[:-15_000], images[-15_000:-10_000], images[-10_000:]


def bernoulli_mixture(parts: Parts, seconds: float, seed: int) -> Tensor:
    """Log-probabilities of the test part by the best of several mixtures, fitted by EM."""
    train_part, valid, test = (part.double() for part in parts)
    generator, best, end = (
        torch.Generator().manual_seed(seed),
        (-math.inf, test.new_zeros(len(test))),
        time.process_time() + seconds,
    )
    for count in (10, 20, 40, 80, 160, 320):
        if time.process_time() > end:
            break
        chosen = train_part[torch.randperm(len(train_part), generator=generator)[:count]]
        probs, log_weights = 0.25 + 0.5 * chosen, torch.full((len(chosen),), -math.log(len(chosen))).double()

        def joint(x: Tensor, probs: Tensor = probs, log_weights: Tensor = log_weights) -> Tensor:
            return x @ probs.log().T + (1 - x) @ (1 - probs).log().T + log_weights

        for _ in range(200):
            r = joint(train_part, probs, log_weights).softmax(1)
            mass = r.sum(0)
            probs = (r.T @ train_part + 0.5) / (mass[:, None] + 1.0)
            log_weights = ((mass + 0.5) / (mass + 0.5).sum()).log()
            if time.process_time() > end:
                break
        score = float(joint(valid, probs, log_weights).logsumexp(1).mean())
        if score > best[0]:
            best = score, joint(test, probs, log_weights).logsumexp(1)
    return best[1]


def rbm(parts: Parts, seconds: float, seed: int) -> Tensor:
    """Log-probabilities of the test part by the best of several RBMs, whose log Z is annealed (AIS)."""
    train_part, valid, test = parts
    best = (-math.inf, torch.zeros(len(test)).double())
    settings = [(components, rate) for components in (64, 256) for rate in (0.1, 0.02)]
    for components, rate in settings:
        machine, end = BernoulliRBM(components, learning_rate=rate, batch_size=32, n_iter=1, random_state=seed), None
        end = time.process_time() + seconds / len(settings)
        while time.process_time() < end:  # as many rows as chains: the update is a difference of sums over both
            machine.partial_fit(train_part[torch.randint(len(train_part), (machine.batch_size,))].numpy())
        log_z = annealed_log_z(machine, train_part, seed)
        score = float(free_energy_log_prob(machine, valid, log_z).mean())
        if score > best[0]:
            best = score, free_energy_log_prob(machine, test, log_z)
    return best[1]


def weights_of(machine: BernoulliRBM) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (hidden, visible), visible and hidden biases, float64."""
    w, b, c = machine.components_, machine.intercept_visible_, machine.intercept_hidden_
    return torch.as_tensor(w).double(), torch.as_tensor(b).double(), torch.as_tensor(c).double()


def free_energy_log_prob(machine: BernoulliRBM, x: Tensor, log_z: float) -> Tensor:
    """log p(x) of an RBM with a given log Z."""
    w, b, c = weights_of(machine)
    return x.double() @ b + F.softplus(x.double() @ w.T + c).sum(1) - log_z


def annealed_log_z(machine: BernoulliRBM, data: Tensor, seed: int, chains: int = 200, steps: int = 2000) -> float:
    """log Z of an RBM by annealed importance sampling from the pixels' frequencies (Salakhutdinov & Murray 2008)."""
    generator = torch.Generator().manual_seed(seed)
    w, b, c = weights_of(machine)
    frequency = (data.double().mean(0) * len(data) + 1) / (len(data) + 2)
    base = frequency.logit()
    x = torch.bernoulli(frequency.expand(chains, -1), generator=generator)
    log_w = torch.zeros(chains).double()
    betas = torch.linspace(0, 1, steps + 1).double().tolist()

    def log_f(x: Tensor, beta: float) -> Tensor:
        return (1 - beta) * (x @ base) + beta * (x @ b) + F.softplus(beta * (x @ w.T + c)).sum(1)

    for low, high in zip(betas, betas[1:], strict=False):
        log_w += log_f(x, high) - log_f(x, low)
        hidden = torch.bernoulli((high * (x @ w.T + c)).sigmoid(), generator=generator)
        x = torch.bernoulli(((1 - high) * base + high * (hidden @ w + b)).sigmoid(), generator=generator)
    start = F.softplus(base).sum() + len(c) * math.log(2)
    return float(start + log_w.logsumexp(0) - math.log(chains))


class Autoregressive(nn.Module):
    """Masked layers: the logit of pixel i reads pixels before i alone (Germain et al. 2015, MADE)."""

    def __init__(self, size: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        degrees = [
            torch.arange(size),
            *[torch.arange(width) % (size - 1) for _ in range(depth)],
            torch.arange(size) - 1,
        ]
        widths = [size, *[width] * depth, size]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.masks = [(high[:, None] >= low[None, :]).float() for low, high in zip(degrees, degrees[1:], strict=False)]
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for i, (layer, mask) in enumerate(zip(self.layers, self.masks, strict=True)):
            assert isinstance(layer, nn.Linear)
            h = F.linear(h, layer.weight * mask, layer.bias)
            h = h if i == len(self.layers) - 1 else self.dropout(F.relu(h))
        return h

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-probability of each image, ``(B,)``."""
        return -F.binary_cross_entropy_with_logits(self(x), x, reduction="none").sum(1)


def autoregressive(parts: Parts, seconds: float, seed: int) -> Tensor:
    """Log-probabilities of the test part by a masked network, at its best epoch on the validation part."""
    train_part, valid, test = parts
    best = (-math.inf, torch.zeros(len(test)))
    for dropout in (0.2, 0.5):
        torch.manual_seed(seed)
        net, end = Autoregressive(train_part.shape[1], 512, 2, dropout), time.process_time() + seconds / 2
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
        while time.process_time() < end:
            net.train()
            for index in torch.randperm(len(train_part)).split(64):
                optimizer.zero_grad()
                (-net.log_prob(train_part[index]).mean()).backward()
                optimizer.step()
            net.eval()
            with torch.no_grad():
                score = float(net.log_prob(valid).mean())
                if score > best[0]:
                    best = score, net.log_prob(test)
    return best[1]


def diffusion(process: Any, mask: bool) -> Callable[[Parts, float, int], Tensor]:
    """A function that trains a diffusion of bits and returns minus its bound on the test part."""

    def fitted(parts: Parts, seconds: float, seed: int) -> Tensor:
        train_part, valid, test = parts
        best: tuple[float, Any] = (-math.inf, None)
        for dropout in (0.1, 0.3):
            torch.manual_seed(seed)
            shape = (train_part.shape[1],)
            net = MLP(CategoricalNet.inner_shape(shape, 2, mask), width=384, depth=3, dropout=dropout)
            model = ScoreModel(CategoricalNet(net, shape, 2, mask), process)
            states: list[tuple[float, dict[str, Tensor]]] = []

            def check(state: CallbackState, states: list[Any] = states) -> None:
                score = -float(continuous_vlb(state.model, valid, evaluations=16, seeds=range(len(valid))).nats.mean())
                if not states or score > states[-1][0]:
                    states.append((score, {k: v.clone() for k, v in state.model.state_dict().items()}))

            settings = Training(batch_size=128, loss=PathKL(), lr=1e-3, lr_end=0.0, ema=0.999, seed=seed)
            pace = seconds_per_step(lambda model=model: copy.deepcopy(model), train_part, settings)
            settings = settings.fitted(int(seconds / 2 / pace))
            calls = [Callback(max(1, settings.steps // 10), check)]
            result = train(model, train_part, settings, callbacks=calls, progress=False)
            if states[-1][0] > best[0]:
                result.model.load_state_dict(states[-1][1])
                best = states[-1][0], result.model
        return -continuous_vlb(best[1], test, evaluations=128, generator=torch.Generator().manual_seed(seed)).nats

    return fitted


METHODS: dict[str, Callable[[Parts, float, int], Tensor]] = {
    "Bernoulli mixture": bernoulli_mixture,
    "RBM, annealed log Z": rbm,
    "autoregressive": autoregressive,
    "diffusion, Binomial()": diffusion(Binomial(), mask=False),
    "diffusion, absorbing": diffusion(Categorical(2, "absorbing"), mask=True),
}


def results_of(parts: Parts, seconds: float, seed: int, chosen: list[str]) -> Iterator[tuple[str, Tensor, float]]:
    """Name, nats of each image of the test part, and seconds of each method whose name has a chosen part."""
    for name, method in METHODS.items():
        if not any(part in name for part in chosen):
            continue
        began = time.process_time()
        yield name, -method(parts, seconds, seed).double(), time.process_time() - began


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean over images and its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def main(
    methods: Annotated[str, typer.Option(help="Parts of names with commas; default all.")] = "",
    seconds: Annotated[float, typer.Option(help="Processor time of each training.")] = 120.0,
    data: Annotated[Path | None, typer.Option(help="Images of 0 and 1, .npy; default binarized digits.")] = None,
    seed: Annotated[int, typer.Option(help="Of split, weights and batches.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of the table.")] = Path("runs/benchmarks"),
) -> None:
    """Prints and writes nats per image of each method."""
    torch.set_num_threads(1)
    parts, each = digits(seed) if data is None else from_file(data), {}
    rows: list[dict[str, Any]] = []
    for name, nats, spent in results_of(parts, seconds, seed, methods.split(",")):
        each[name] = nats
        mean, error = mean_and_error(nats)
        rows.append({"method": name, "nats": mean, "stderr": error, "seconds": spent})
        typer.echo(f"{name:24s} {mean:8.3f} ± {error:.3f} nats   {spent:.0f} s")
    for ours in (name for name in each if name.startswith("diffusion")):
        for other in (name for name in each if not name.startswith("diffusion")):
            mean, error = mean_and_error(each[ours] - each[other])
            rows.append({"method": f"{ours} - {other}", "nats": mean, "stderr": error})
            typer.echo(f"{ours} - {other}: {mean:+.3f} ± {error:.3f} nats, paired")
    out.mkdir(parents=True, exist_ok=True)
    (out / f"binary_images_{seed}.json").write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    typer.run(main)
