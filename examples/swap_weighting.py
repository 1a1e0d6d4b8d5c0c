"""Same network, same budget, another weighting: what does it buy, and at which noise level?

    python examples/swap_weighting.py

A weighting decides which noise levels training listens to. Each model is trained on the same handwritten digits, from
the same initial weights, for as many steps and at noise levels drawn alike; only the weighting differs. Then all are
held against the same held-out digits: their error at every noise level, and bits per dimension by the probability-flow
ODE. One seed proves little: --seeds 3 trains three models of each.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.compare import recipe_for
from scoresde.data import Data, load
from scoresde.likelihood import Adaptive, Hutchinson, bits_per_dim
from scoresde.model import Model
from scoresde.schedule import Schedule
from scoresde.training import loss_by_log_snr, train
from scoresde.weighting import ELBO, MinSNR, Sigmoid, Simple, Weighting, canonical

WEIGHTINGS: tuple[Weighting, ...] = (ELBO(), Simple(), MinSNR(gamma=5), Sigmoid(bias=2))


def train_with(weighting: Weighting, data: Data, steps: int, seed: int) -> Model:
    """The data's default recipe with another weighting."""
    recipe = recipe_for(data.description)
    loss = replace(recipe.training.loss, weighting=weighting)
    settings = replace(recipe.training, steps=steps, seed=seed, loss=loss)
    return train(recipe.build(data.description, seed), data, settings, progress=True).model


def score(model: Model, data: Data, events: int, levels: int, tol: float) -> tuple[float, float, Tensor, Tensor]:
    """Bits per dimension with its standard error, and the error in eps at each log-SNR; draws are the same for all."""
    generator = torch.Generator().manual_seed(0)
    bits = bits_per_dim(model, data.test[:events], trace=Hutchinson(2), solver=Adaptive(tol), generator=generator)
    x = data.description.to_model(data.description.dequantise(data.test, torch.Generator().manual_seed(0)))
    found = loss_by_log_snr(model, x, levels, repeats=2, generator=torch.Generator().manual_seed(0))
    return bits.mean, bits.stderr, found.log_snr, found.loss


def draw_weights(ax: Axes, clock: Schedule) -> None:
    """The canonical weight of each, scaled to 1 at its highest."""
    log_snr = torch.linspace(-10, 10, 300, dtype=torch.float64)
    for weighting in WEIGHTINGS:
        weight = torch.as_tensor(canonical(weighting, clock)(log_snr))
        ax.plot(log_snr, weight / weight.max(), label=str(weighting))
    ax.set(xlabel="log-SNR, nats", ylabel="weight w, highest = 1", title="what training listens to")
    ax.set(xlim=(10, -10), ylim=(0, 1.05))


def draw_losses(ax: Axes, log_snr: Tensor, losses: dict[str, Tensor]) -> None:
    """Each model's error over that of the first, by log-SNR."""
    base = losses[str(WEIGHTINGS[0])]
    for name, loss in losses.items():
        ax.plot(log_snr, loss / base, marker="o", ms=3, label=name)
    ax.set(xlabel="log-SNR, nats", title="held-out error in ε by noise level", xlim=(10, -10))
    ax.set_ylabel(f"relative to {WEIGHTINGS[0]}")


def draw_bits(ax: Axes, bits: dict[str, list[float]], errors: dict[str, float]) -> None:
    """Bits per dimension of each seed, and their mean with its error over the test set."""
    for row, (name, values) in enumerate(bits.items()):
        mean = sum(values) / len(values)
        ax.errorbar([mean], [row], xerr=[errors[name]], fmt="o", color=f"C{row}", capsize=3)
        ax.scatter(values, [row] * len(values), s=14, color=f"C{row}", alpha=0.5)
        ax.annotate(f"{mean:.3f}", (mean, row), (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_yticks(range(len(bits)), list(bits))
    ax.set(xlabel="bits per dimension (less is better)", title="held-out digits, ODE", ylim=(len(bits) - 0.5, -0.6))
    ax.grid(axis="y", visible=False)


def main(
    steps: Annotated[int, typer.Option(help="Updates of the weights, for each model.")] = 1500,
    seeds: Annotated[int, typer.Option(help="Models trained with each weighting.")] = 1,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/examples"),
    quick: Annotated[bool, typer.Option("--quick", help="A few updates, a few digits.")] = False,
) -> None:
    """Trains a model for each weighting, prints its bits per dimension, and draws swap_weighting.png."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    data = load("digits")
    steps, events, levels, tol = (2, 2, 5, 1e-1) if quick else (steps, 128, 20, 1e-3)
    bits: dict[str, list[float]] = {}
    errors: dict[str, float] = {}
    losses: dict[str, Tensor] = {}
    log_snr = torch.empty(0)
    for weighting in WEIGHTINGS:
        name = str(weighting)
        for seed in range(seeds):
            model = train_with(weighting, data, steps, seed)
            mean, error, log_snr, loss = score(model, data, events, levels, tol)
            bits.setdefault(name, []).append(mean)
            errors[name] = math.hypot(errors.get(name, 0.0), error / seeds)
            losses[name] = losses.get(name, torch.zeros_like(loss)) + loss / seeds
            print(f"{name:16} seed {seed}: {mean:.3f} ± {error:.3f} bits/dim on {events} held-out digits", flush=True)

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.0), width_ratios=(1, 1.1, 0.9))
    draw_weights(axes[0], recipe_for(data.description).sde.schedule)
    draw_losses(axes[1], log_snr, losses)
    draw_bits(axes[2], bits, errors)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(WEIGHTINGS))
    figure.savefig(out / "swap_weighting.png")
    print(f"wrote {out / 'swap_weighting.png'}")


if __name__ == "__main__":
    typer.run(main)
