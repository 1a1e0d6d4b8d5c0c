"""Same network, same budget, another weighting: what does it buy, and at which noise level?

    python examples/swap_weighting.py

A weighting decides which noise levels training listens to. Each model is trained on the same pictures of clothing
(Fashion-MNIST), from the same initial weights, for as many steps and at noise levels drawn alike; only the weighting
differs. Then all are held against the same test pictures: their error at every noise level, bits per dimension by the
bound in continuous time, and the distance of their samples from real pictures. Three seeds say what is chance.
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
from fashion_mnist import clothes, model_for
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.data import Data
from scoresde.likelihood import KernelDecoder, continuous_vlb
from scoresde.metrics import EfficientNetLite0, Features, features_of, image_distances
from scoresde.model import Model
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import ImportanceTimesteps
from scoresde.objective.weighting import EDM, ELBO, MinSNR, SigmoidWeighting, Simple, Weighting, canonical
from scoresde.plots.image_grid import tile_images
from scoresde.process.schedule import Cosine
from scoresde.sampling import Adams, sample
from scoresde.storage import checkpoint
from scoresde.training import Training, loss_by_log_snr, train

WEIGHTINGS: tuple[Weighting, ...] = (ELBO(), Simple(), MinSNR(gamma=5), SigmoidWeighting(bias=2), EDM())


def name_of(weighting: Weighting) -> str:
    """Its class, without settings."""
    return type(weighting).__name__


@dataclass
class Found:
    """What is known of one weighting: an entry per seed."""

    bits: list[float] = field(default_factory=list)
    stderr: list[float] = field(default_factory=list)
    losses: list[list[float]] = field(default_factory=list)
    frechet: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    shown: Tensor | None = None


def train_with(weighting: Weighting, data: Data, steps: int, channels: int, seed: int) -> Model:
    """A model trained with this weighting, at noise levels that are even in log-SNR whatever it is."""
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
    return train(model_for(data, channels, seed), data, settings).model


def examine(model: Model, data: Data, found: Found, events: int, samples: int, real: Features | None) -> Tensor:
    """Adds what this model shows to what was found; noise and events are the same for all. Returns the log-SNRs."""
    about, seed = data.description, lambda: torch.Generator().manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        bound = continuous_vlb(
            model, data.test[:events], decoder=KernelDecoder(), evaluations=16, generator=seed(), batch_size=128
        )
        levels = loss_by_log_snr(model, about.to_model(about.center(data.test[:events])), 16, generator=seed())
        drawn = sample(model, samples, Adams(steps=20), seeds=range(samples), batch_size=100).data if samples else None
    found.bits.append(bound.mean)
    found.stderr.append(bound.mean_stderr)
    found.losses.append(levels.loss.tolist())
    if drawn is not None and real is not None:
        seen = features_of(drawn, EfficientNetLite0())
        beside = image_distances(seen, real, metrics=("frechet",), generator=seed())["frechet"]
        found.frechet.append(beside.value.value)
        found.floor.append(beside.floor.value)
        found.shown = drawn[:25] if found.shown is None else found.shown
    return levels.log_snr


def draw_weights(ax: Axes) -> None:
    """The canonical weight of each, scaled to 1 at its highest."""
    log_snr = torch.linspace(-10, 13, 300, dtype=torch.float64)
    for weighting in WEIGHTINGS:
        weight = torch.as_tensor(canonical(weighting, Cosine())(log_snr))
        ax.plot(log_snr, weight / weight.max(), label=name_of(weighting))
    ax.set(xlabel="log-SNR, nats", ylabel="weight w, highest = 1", title="what training listens to")
    ax.set(xlim=(13, -10), ylim=(0, 1.05))


def draw_losses(ax: Axes, log_snr: Tensor, found: dict[str, Found]) -> None:
    """Each model's error over that of the first, by log-SNR: the mean over seeds, and their range."""
    each = {name: torch.tensor(about.losses) for name, about in found.items()}
    base = next(iter(each.values())).mean(0)
    for name, losses in each.items():
        ax.plot(log_snr, losses.mean(0) / base, marker="o", ms=3, label=name)
        ax.fill_between(log_snr, losses.amin(0) / base, losses.amax(0) / base, alpha=0.15)
    ax.set(xlabel="log-SNR, nats", title="held-out error in ε", xlim=(13, -10))
    ax.set_ylabel(f"relative to {name_of(WEIGHTINGS[0])}")


def draw_rows(ax: Axes, values: dict[str, list[float]], stderr: dict[str, float], digits: int) -> None:
    """A row for each weighting: its seeds, their mean, and its standard error where one is known."""
    for row, (name, each) in enumerate(values.items()):
        mean = sum(each) / len(each)
        ax.errorbar([mean], [row], xerr=[stderr.get(name, 0.0)], fmt="o", color=f"C{row}", capsize=3)
        ax.scatter(each, [row] * len(each), s=14, color=f"C{row}", alpha=0.5)
        ax.annotate(f"{mean:.{digits}f}", (mean, row), (0, 8), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_yticks(range(len(values)), list(values))
    ax.set(ylim=(len(values) - 0.5, -0.6))
    ax.grid(axis="y", visible=False)


def draw(found: dict[str, Found], log_snr: Tensor, data: Data, out: Path) -> None:
    """One figure: what is listened to, what follows at each noise level, bits, distance, and pictures."""
    figure = plt.figure(figsize=(13, 7.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    axes = parts[0].subplots(1, 4, width_ratios=(1, 1.1, 0.9, 0.9))
    draw_weights(axes[0])
    draw_losses(axes[1], log_snr, found)
    errors = {name: math.sqrt(sum(e * e for e in about.stderr)) / len(about.stderr) for name, about in found.items()}
    draw_rows(axes[2], {name: about.bits for name, about in found.items()}, errors, 3)
    axes[2].set(xlabel="continuous bound, test pictures", title="bits per dimension")
    if any(about.frechet for about in found.values()):
        draw_rows(axes[3], {name: about.frechet for name, about in found.items()}, {}, 0)
        floors = [value for about in found.values() for value in about.floor]
        axes[3].axvline(sum(floors) / len(floors), color="0.5", ls=":")
        axes[3].set(xlabel="samples; dotted: real pictures", title="Fréchet distance")
        axes[3].set_yticks([])
        for ax, (name, about) in zip(parts[1].subplots(1, len(found)), found.items(), strict=True):
            assert about.shown is not None
            ax.imshow(tile_images(about.shown.numpy(), data.description))
            ax.set_title(name)
            ax.axis("off")
    parts[0].legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(found))
    figure.savefig(out)


def main(
    steps: Annotated[int, typer.Option(help="Updates of the weights, for each model.")] = 600,
    channels: Annotated[int, typer.Option(help="Width of the network's finest level.")] = 16,
    seeds: Annotated[int, typer.Option(help="Models trained with each weighting.")] = 3,
    events: Annotated[int, typer.Option(help="Test pictures that are scored.")] = 512,
    samples: Annotated[int, typer.Option(help="Samples of each model.")] = 240,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/examples"),
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    quick: Annotated[bool, typer.Option("--quick", help="A few updates, a few pictures.")] = False,
) -> None:
    """Trains models with each weighting, prints what they cost, and draws swap_weighting.png."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    data = clothes()
    if quick:
        steps, seeds, events, samples = 2, 1, 4, 0
    found, log_snr = {name_of(weighting): Found() for weighting in WEIGHTINGS}, torch.empty(0)
    real = features_of(data.test[-2 * samples :], EfficientNetLite0()) if samples else None
    for seed in range(seeds):
        for weighting in WEIGHTINGS:
            about = found[name_of(weighting)]
            model = train_with(weighting, data, steps, channels, seed)
            log_snr = examine(model, data, about, events, samples, real)
            apart = f", Fréchet {about.frechet[-1]:.2f} (floor {about.floor[-1]:.2f})" if samples else ""
            bits = f"{about.bits[-1]:.3f} ± {about.stderr[-1]:.3f} bits/dim"
            print(f"{name_of(weighting):8} seed {seed}: {bits} on {events} test pictures{apart}", flush=True)
    draw(found, log_snr, data, out / "swap_weighting.png")
    rows = {name: {k: v for k, v in vars(about).items() if k != "shown"} for name, about in found.items()}
    told = {"steps": steps, "log_snr": log_snr.tolist(), "weightings": rows}
    checkpoint.write_text(out / "swap_weighting.json", json.dumps(told, indent=1))
    print(f"wrote {out / 'swap_weighting.png'}")


if __name__ == "__main__":
    typer.run(main)
