"""Comparison of five weightings with one network: error by noise level, bits per dimension, and distance of samples.

    python examples/swap_weighting.py

A weighting sets how much each noise level counts in training. All models are trained on the same images
(Fashion-MNIST), with the same initial weights, number of steps and timestep sampling; only the weighting differs. They
are evaluated on the same test images: their error at every noise level, bits per dimension by the continuous bound, and
the distance of their samples from real images. Three seeds show the random variation.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from fashion_mnist import build_model, load_images
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import KernelDecoder, continuous_vlb
from scoresde.metrics import EfficientNetLite0, Features, features_of, image_distances
from scoresde.model import Model
from scoresde.objective.equivalences import canonical
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import ImportanceTimesteps
from scoresde.objective.weighting import EDM, ELBO, MinSNR, SigmoidWeighting, Simple, Weighting
from scoresde.plots.image_grid import tile_images
from scoresde.process.schedule import Cosine
from scoresde.sampling import Adams, sample
from scoresde.storage import checkpoint
from scoresde.training import Training, loss_by_log_snr, train

WEIGHTINGS: tuple[Weighting, ...] = (ELBO(), Simple(), MinSNR(gamma=5), SigmoidWeighting(bias=2), EDM())

DISTANCES = {"frechet": "Fréchet distance", "kernel": "kernel distance"}
FEATURES = 112  # of `EfficientNetLite0`; a Fréchet distance needs more images than that


def name_of(weighting: Weighting) -> str:
    """Name of its class, without settings."""
    return type(weighting).__name__


@dataclass
class Results:
    """Results of one weighting, with one entry per seed.

    Attributes:
        bits, stderr: Bits per dimension of the test images, and their standard error.
        losses: Held-out error in ε at each noise level.
        distances, floor: Distances of samples to real images, and their floor.
        images: Samples of the first seed, or None.
    """

    bits: list[float] = field(default_factory=list)
    stderr: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    images: Tensor | None = None


def train_with(weighting: Weighting, data: Data, steps: int, channels: int, seed: int) -> Model:
    """A model trained with this weighting; timesteps are uniform in log-SNR for every weighting."""
    settings = Training(
        steps=steps,
        batch_size=32,
        loss=Loss(weighting, ImportanceTimesteps(ELBO())),
        lr=2e-3,
        lr_end=0.0,
        betas=(0.9, 0.99),
        warmup=min(100, steps),
        ema=0.99,
        precision="bf16",
        dequantize=False,
        seed=seed,
    )
    return train(build_model(data, channels, seed), data, settings).model


def evaluate(
    model: Model, data: Data, results: Results, events: int, samples: int, real: Features | None, distance: str
) -> Tensor:
    """Appends one model's results, with the same noise and events for all. Returns the log-SNRs of the losses."""
    description, seeded = data.description, lambda: torch.Generator().manual_seed(0)
    values = data.test[:events]
    with torch.autocast("cpu", torch.bfloat16):
        bound = continuous_vlb(
            model, values, decoder=KernelDecoder(), evaluations=16, generator=seeded(), batch_size=128
        )
        losses = loss_by_log_snr(model, description.to_model(description.center(values)), 16, generator=seeded())
        images = sample(model, samples, Adams(steps=20), seeds=range(samples), batch_size=100).data if samples else None
    results.bits.append(bound.mean)
    results.stderr.append(bound.mean_stderr)
    results.losses.append(losses.loss.tolist())
    if images is not None and real is not None:
        features = features_of(images, EfficientNetLite0())
        metric = image_distances(features, real, metrics=(distance,), generator=seeded())[distance]
        results.distances.append(metric.value.value)
        results.floor.append(metric.floor.value)
        results.images = images[:25] if results.images is None else results.images
    return losses.log_snr


def draw_weights(ax: Axes) -> None:
    """The canonical weight of each, scaled to a maximum of 1."""
    log_snr = torch.linspace(-10, 13, 300, dtype=torch.float64)
    for weighting in WEIGHTINGS:
        weight = torch.as_tensor(canonical(weighting, Cosine())(log_snr))
        ax.plot(log_snr, weight / weight.max(), label=name_of(weighting))
    ax.set(xlabel="log-SNR, nats", ylabel="weight w, maximum = 1", title="weight of each noise level")
    ax.set(xlim=(13, -10), ylim=(0, 1.05))


def draw_losses(ax: Axes, log_snr: Tensor, results: dict[str, Results]) -> None:
    """Error of each weighting relative to the first, by log-SNR: the mean over seeds, and their range."""
    losses_by_name = {name: torch.tensor(entry.losses) for name, entry in results.items()}
    base = next(iter(losses_by_name.values())).mean(0)
    for name, losses in losses_by_name.items():
        ax.plot(log_snr, losses.mean(0) / base, marker="o", ms=3, label=name)
        ax.fill_between(log_snr, losses.amin(0) / base, losses.amax(0) / base, alpha=0.15)
    ax.set(xlabel="log-SNR, nats", title="held-out error in ε", xlim=(13, -10))
    ax.set_ylabel(f"relative to {name_of(WEIGHTINGS[0])}")


def draw_rows(ax: Axes, values: dict[str, list[float]], stderr: dict[str, float], digits: int) -> None:
    """A row for each weighting: its seeds, their mean, and the standard error of the mean if it is known."""
    for row, (name, seeds) in enumerate(values.items()):
        mean = sum(seeds) / len(seeds)
        ax.errorbar([mean], [row], xerr=[stderr.get(name, 0.0)], fmt="o", color=f"C{row}", capsize=3)
        ax.scatter(seeds, [row] * len(seeds), s=14, color=f"C{row}", alpha=0.5)
        ax.annotate(f"{mean:.{digits}f}", (mean, row), (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(ylim=(len(values) - 0.5, -0.6))
    ax.grid(axis="y", visible=False)


def draw_figure(results: dict[str, Results], log_snr: Tensor, data: Data, distance: str, path: Path) -> None:
    """One figure: weights, errors at each noise level, bits, distances, and samples."""
    figure = plt.figure(figsize=(13, 7.6), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    top, bottom = halves
    axes = top.subplots(1, 4, width_ratios=(1, 1.1, 0.9, 0.9))
    draw_weights(axes[0])
    draw_losses(axes[1], log_snr, results)
    stderr = {name: math.sqrt(sum(e * e for e in entry.stderr)) / len(entry.stderr) for name, entry in results.items()}
    draw_rows(axes[2], {name: entry.bits for name, entry in results.items()}, stderr, 3)
    axes[2].set(xlabel="continuous bound, test images", title="bits per dimension")
    if any(entry.distances for entry in results.values()):
        draw_rows(axes[3], {name: entry.distances for name, entry in results.items()}, {}, 0)
        floors = [value for entry in results.values() for value in entry.floor]
        axes[3].axvline(sum(floors) / len(floors), color="0.5", ls=":")
        axes[3].set(xlabel="samples; dotted: real images", title=DISTANCES[distance])
        axes[3].set_yticks([])
        for ax, (name, entry) in zip(bottom.subplots(1, len(results)), results.items(), strict=True):
            assert entry.images is not None
            ax.imshow(tile_images(entry.images.numpy(), data.description))
            ax.set_title(name)
            ax.axis("off")
    top.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(results))
    figure.savefig(path)


def main(
    steps: Annotated[int, typer.Option(help="Updates of each model.")] = 600,
    channels: Annotated[int, typer.Option(help="Width of the network at its finest resolution.")] = 16,
    seeds: Annotated[int, typer.Option(help="Models trained with each weighting.")] = 3,
    events: Annotated[int, typer.Option(help="Test images that are scored.")] = 512,
    samples: Annotated[int, typer.Option(help="Samples of each model.")] = 240,
    out: Annotated[Path, typer.Option(help="Folder of the figure.")] = Path("runs/examples"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="A few updates and a few images; its numbers mean little.")
    ] = False,
) -> None:
    """Trains models with each weighting, prints bits and distances, and draws swap_weighting.png."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    data = load_images()
    if quick:
        steps, channels, seeds, events, samples = 30, 8, 1, 16, 9
    distance = "frechet" if samples > FEATURES else "kernel"
    results, log_snr = {name_of(weighting): Results() for weighting in WEIGHTINGS}, torch.empty(0)
    real = features_of(data.test[-2 * samples :], EfficientNetLite0()) if samples else None
    for seed in range(seeds):
        for weighting in WEIGHTINGS:
            name = name_of(weighting)
            entry = results[name]
            model = train_with(weighting, data, steps, channels, seed)
            log_snr = evaluate(model, data, entry, events, samples, real, distance)
            text = f"{entry.bits[-1]:.3f} ± {entry.stderr[-1]:.3f} bits/dim on {events} test images"
            if samples:
                text += f", {DISTANCES[distance]} {entry.distances[-1]:.2f} (floor {entry.floor[-1]:.2f})"
            print(f"{name:16} seed {seed}: {text}", flush=True)
    draw_figure(results, log_snr, data, distance, out / "swap_weighting.png")
    rows = {name: {k: v for k, v in vars(entry).items() if k != "images"} for name, entry in results.items()}
    record = {"steps": steps, "log_snr": log_snr.tolist(), "weightings": rows}
    checkpoint.write_text(out / "swap_weighting.json", json.dumps(record, indent=1))
    print(f"wrote {out / 'swap_weighting.png'}")


if __name__ == "__main__":
    typer.run(main)
