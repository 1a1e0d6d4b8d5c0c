r"""Fashion-MNIST: training, bits per dimension by three methods, and distances of samples by three samplers.

    python examples/fashion_mnist.py

Trains a UNet of 1.4 million weights on the 60 000 images of Fashion-MNIST (28 x 28, 256 integer values). Then computes
bits per dimension of the 10 000 test images by the continuous bound, by the discrete bound of the chain and by the
probability-flow ODE. Samples by DDPM, the reverse SDE and the ODE are compared with real images, and real images with
one another. An interrupted run is resumed; a finished run is only evaluated.
"""

from __future__ import annotations

import json
import lzma
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.data import Data, Description, load_data
from scoresde.likelihood import (
    Hutchinson,
    KernelDecoder,
    TruncatedNormalDequantization,
    bits_per_dim,
    continuous_vlb,
    discrete_vlb,
    measure_error_profile,
)
from scoresde.metrics import EfficientNetLite0, features_of, image_distances
from scoresde.model import ScoreModel
from scoresde.nn import FourierInput, QuantizedSkip, UNet
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.plots.image_grid import tile_images
from scoresde.process.parameterization import V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDPM, Adams, SDEDPMSolverPP, StepSampler, sample
from scoresde.storage import checkpoint
from scoresde.storage.checkpoint import load, save
from scoresde.training import Training, train

SAMPLERS: dict[str, StepSampler] = {"DDPM": DDPM(steps=250), "SDE": SDEDPMSolverPP(steps=50), "ODE": Adams(steps=25)}
ODE_SUBSET = "mean over the images that the ODE scored"
DISTANCES = {"frechet": "samples, Fréchet distance", "kernel": "samples, kernel distance"}
METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")


def load_images() -> Data:
    """Fashion-MNIST, or the digits if it is not installed."""
    try:
        return load_data("fashion-mnist")
    except FileNotFoundError as error:
        print(f"{error}\nUsing the handwritten digits instead.")
        return load_data("digits")


def build_model(data: Data, channels: int = 32, seed: int = 0) -> ScoreModel:
    """A `QuantizedSkip` with three outputs around a UNet, and a process whose last noise is smaller than a bin."""
    description = data.description
    assert description.bins is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fourier = FourierInput(description.bins / 2, (-1, 0), damped=True)
        inner = UNet(description.shape, channels, outputs=3, fourier=fourier)
        net = QuantizedSkip(inner, description.bins).fit(data.train)
    return ScoreModel(net, VPSDE(Cosine(), tau_min=1e-6), V(), data=description)


def training_settings(steps: int, seed: int = 0) -> Training:
    """The bound itself as loss, timesteps drawn where it varies most, data at bin centers."""
    return Training(
        steps=steps,
        batch_size=32,
        loss=Loss(ELBO(), LossMomentTimesteps()),
        optimizer="muon",
        lr=5e-3,
        lr_end=0.0,
        betas=(0.9, 0.99),
        warmup=200,
        ema=0.999,
        precision="bf16",
        dequantize=False,
        seed=seed,
    )


def compute_bits(model: ScoreModel, values: Tensor, ode_images: int) -> dict[str, dict[str, Any]]:
    """Bits per dimension by three methods, each with its standard error over images and draws together.

    Args:
        model: Trained.
        values: Integer values of test images, ``(n, 1, 28, 28)``.
        ode_images: Number of images that the ODE scores, the slowest method. The mean of each bound over these images
            is returned too.
    """
    description, seeded = model.data, lambda: torch.Generator().manual_seed(0)
    assert description is not None
    centers = description.to_model(description.center(values))
    results: dict[str, dict[str, Any]] = {}
    with torch.autocast("cpu", torch.bfloat16):  # as in training
        profile = measure_error_profile(model, centers[:64], generator=torch.Generator().manual_seed(1))
        for name, compute in {
            "continuous bound": lambda: continuous_vlb(
                model,
                values,
                decoder=KernelDecoder(),
                evaluations=8,
                profile=profile,
                generator=seeded(),
                batch_size=128,
            ),
            "discrete bound, 1000 steps": lambda: discrete_vlb(
                model, values, 1000, terms=8, profile=profile, generator=seeded(), batch_size=128
            ),
        }.items():
            start, bound = time.perf_counter(), compute()
            assert bound.bits is not None
            results[name] = {
                "mean": bound.mean,
                "stderr": bound.mean_stderr,
                "draws": bound.mean_draw_stderr,
                ODE_SUBSET: float(bound.bits[:ode_images].mean()),
                "images": len(values),
                "seconds": time.perf_counter() - start,
            }
    dequantization, start = TruncatedNormalDequantization.matching(model), time.perf_counter()
    ode = bits_per_dim(
        model, values[:ode_images], dequantization=dequantization, trace=Hutchinson(2), generator=seeded()
    )
    results["ODE, truncated-normal dequantization"] = {
        "mean": ode.mean,
        ODE_SUBSET: ode.mean,
        "stderr": ode.stderr,
        "draws": ode.mean_probe_stderr,
        "images": ode_images,
        "seconds": time.perf_counter() - start,
    }
    return results


def lzma_bits(values: Tensor) -> float:
    """Bits per dimension of lzma, a general-purpose compressor, on all images as one file."""
    raw = values.to(torch.uint8).numpy().tobytes()
    return 8 * len(lzma.compress(raw, preset=9)) / len(raw)


def draw_images(model: ScoreModel, n: int, samplers: dict[str, StepSampler]) -> dict[str, Tensor]:
    """Samples by each sampler from the same noise: integer values, ``(n, 1, 28, 28)``."""
    with torch.autocast("cpu", torch.bfloat16):
        return {
            name: sample(model, n, sampler, seeds=range(n), batch_size=100).data for name, sampler in samplers.items()
        }


def compute_distances(
    samples: dict[str, Tensor], real: Tensor, names: Sequence[str]
) -> dict[str, dict[str, list[float]]]:
    """For each sampler and metric: value, its error, the floor and its error."""
    network = EfficientNetLite0()
    real_features, distances = features_of(real, network), {}
    for name, images in samples.items():
        generator = torch.Generator().manual_seed(0)
        metrics = image_distances(features_of(images, network), real_features, metrics=names, generator=generator)
        distances[name] = {
            metric: [each.value.value, each.value.stderr, each.floor.value, each.floor.stderr]
            for metric, each in metrics.items()
        }
    return distances


def draw_bits(ax: Axes, bits: dict[str, dict[str, Any]], lzma: float) -> None:
    """Bits per dimension by each method and by lzma; circles: means over the images that the ODE scored."""
    for row, entry in enumerate(bits.values()):
        ax.plot([entry[ODE_SUBSET]], [row], "o", mfc="none", color="C0")
        ax.errorbar([entry["mean"]], [row], xerr=[2 * entry["stderr"]], fmt="o", capsize=3, color="C0")
        ax.annotate(f"{entry['mean']:.3f}", (entry["mean"], row), (0, 8), textcoords="offset points", ha="center")
    ax.plot([lzma], [len(bits)], "s", color="0.5")
    ax.annotate(f"{lzma:.3f}", (lzma, len(bits)), (0, 8), textcoords="offset points", ha="center", color="0.4")
    ax.set_yticks(range(len(bits) + 1), [*bits, "lzma, all as one file"])
    ax.set(xlabel="bits per dimension, ± 2 standard errors", title="code length of a test image")
    ax.invert_yaxis()
    ax.margins(0.15)


def draw_distances(ax: Axes, distances: dict[str, dict[str, list[float]]], metric: str) -> None:
    """One distance for each sampler, and its floor: real images compared with as many other real images."""
    names = list(distances)
    floor, error = distances[names[0]][metric][2:]
    ax.axhspan(floor - 2 * error, floor + 2 * error, color="0.85")
    ax.annotate("real images", (1, floor + 2 * error), (0, 3), textcoords="offset points", ha="center")
    for column, name in enumerate(names):
        value, stderr = distances[name][metric][:2]
        ax.errorbar([column], [value], yerr=[2 * stderr], fmt="o", capsize=3, color=f"C{column}")
    ax.set_xticks(range(len(names)), [name.replace(", ", "\n") for name in names])
    ax.set(title=DISTANCES[metric], xlim=(-0.6, len(names) - 0.4))
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def draw_figure(results: dict[str, Any], images: dict[str, Tensor], description: Description, path: Path) -> None:
    """One figure: bits, distances, and images by each sampler next to real ones."""
    figure = plt.figure(figsize=(11, 7.4), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    top, bottom = halves
    left, *right = top.subplots(1, 3, width_ratios=(1.5, 1, 1))
    draw_bits(left, results["bits"], results["lzma"])
    for ax, metric in zip(right, DISTANCES, strict=True):
        if metric in next(iter(results["distances"].values())):  # a Fréchet distance needs more images than features
            draw_distances(ax, results["distances"], metric)
        else:
            ax.axis("off")
    for ax, (name, part) in zip(bottom.subplots(1, len(images)), images.items(), strict=True):
        ax.imshow(tile_images(part[:36].numpy(), description))
        ax.set(title=name)
        ax.axis("off")
    figure.savefig(path)


def main(
    steps: Annotated[int, typer.Option(help="Updates; 11 000 take an hour and a half on two cores.")] = 11_000,
    test: Annotated[
        int, typer.Option(help="Number of test images that the bounds score; 0 keeps the results of the last run.")
    ] = 5000,
    scored: Annotated[int, typer.Option(help="Number of test images that the ODE scores.")] = 160,
    samples: Annotated[int, typer.Option(help="Number of samples by each sampler, 0 for none.")] = 400,
    out: Annotated[Path, typer.Option(help="The run directory, also of the figure.")] = Path("runs/fashion-mnist"),
    weights: Annotated[
        Path | None, typer.Option(help="Evaluate the model of this checkpoint instead of training one.")
    ] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    quick: Annotated[bool, typer.Option(help="A few updates and a few images; its numbers mean little.")] = False,
) -> None:
    """Trains (or resumes, or loads --weights), evaluates, prints and draws the results."""
    if quick:
        steps, test, scored, samples = 20, 8, 2, 12
    run = out / "quick" if quick else out
    torch.set_num_threads(threads)
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    data = load_images() if quick else load_data("fashion-mnist")
    if weights is None:
        resume = (run / "config.json").exists()
        settings = training_settings(steps)
        training = train(
            build_model(data, 8 if quick else 32),
            data,
            settings,
            run_dir=run,
            resume=resume,
            save_every=500,
            progress=True,
        )
        model = training.model
        save(model, run / "model", keep=1)
    else:
        model = load(weights)
    run.mkdir(parents=True, exist_ok=True)
    path = run / "results.json"
    results: dict[str, Any] = {}
    if test:
        values = data.test[:test]
        results = {"bits": compute_bits(model, values, scored), "lzma": lzma_bits(values)}
        print_bits(results, scored)
    elif path.exists():
        results = json.loads(path.read_text())
    if samples:
        real = data.test[-2 * samples :]
        samplers = {name: replace(sampler, steps=12) for name, sampler in SAMPLERS.items()} if quick else SAMPLERS
        images = draw_images(model, samples, samplers)
        images = {f"{name}, {samplers[name].steps} steps": part for name, part in images.items()}
        results["distances"] = compute_distances(images, real, METRICS[1:] if quick else METRICS)
        print_distances(results["distances"])
        if "bits" in results:
            draw_figure(results, {**images, "real": real}, data.description, out / "fashion_mnist.png")
    checkpoint.write_text(path, json.dumps(results, indent=1))
    print(f"results: {path}")


def print_bits(results: dict[str, Any], scored: int) -> None:
    """One line for each method."""
    for name, entry in results["bits"].items():
        print(
            f"{name:38} {entry['mean']:.4f} ± {entry['stderr']:.4f} bits/dim on {entry['images']}  "
            f"(draws ± {entry['draws']:.4f}; {entry[ODE_SUBSET]:.4f} on the {scored} of the ODE)"
        )
    print(f"{'lzma, all as one file':38} {results['lzma']:.4f} bits/dim")


def print_distances(distances: dict[str, dict[str, list[float]]]) -> None:
    """One line for each sampler and metric."""
    for name, metrics in distances.items():
        for metric, (value, error, floor, floor_error) in metrics.items():
            print(f"{name:16} {metric:18} {value:9.4f} ± {error:.4f}   floor {floor:9.4f} ± {floor_error:.4f}")


if __name__ == "__main__":
    typer.run(main)
