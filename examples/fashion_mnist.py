r"""How many bits does a small network need for a picture of clothing, and what do its samples look like?

    python examples/fashion_mnist.py

Trains a UNet of 1.4 million weights on the 60 000 pictures of Fashion-MNIST (28 x 28, 256 levels), then asks of the
10 000 test pictures what they cost: by the bound in continuous time, by the chain's discrete bound and by the
probability-flow ODE; and of samples by DDPM, the reverse SDE and the ODE how far they are from real pictures, beside
how far real pictures are from one another. A run that was stopped goes on; one that is done is only measured.
"""

from __future__ import annotations

import json
import lzma
import time
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
SAME = "mean over the pictures that the ODE scored"
DRAWN = {"frechet": "samples, Fréchet distance", "kernel": "samples, kernel distance"}
METRICS = ("frechet", "kernel", "precision", "recall", "density", "coverage")


def clothes() -> Data:
    """Fashion-MNIST, or digits where it is not installed."""
    try:
        return load_data("fashion-mnist")
    except FileNotFoundError as missing:
        print(f"{missing}\nHandwritten digits instead.")
        return load_data("digits")


def model_for(data: Data, channels: int = 32, seed: int = 0) -> ScoreModel:
    """The network, which says what neighbors add to the levels' histogram, and a process that ends inside a cell."""
    about = data.description
    assert about.bins is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inner = UNet(about.shape, channels, outputs=3, fourier=FourierInput(about.bins / 2, (-1, 0), damped=True))
        net = QuantizedSkip(inner, about.bins).fit(data.train)
    return ScoreModel(net, VPSDE(Cosine(), tau_min=1e-6), V(), data=about)


def settings_for(steps: int, seed: int = 0) -> Training:
    """The bound itself as loss, times drawn where it varies most, on the levels' centers."""
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


def bits(model: ScoreModel, levels: Tensor, scored: int) -> dict[str, dict[str, Any]]:
    """Bits per dimension by three ways, each with its standard error over pictures and draws.

    Args:
        model: Trained.
        levels: Test pictures, ``(n, 1, 28, 28)``.
        scored: How many of them the ODE scores, which costs most; the bounds of those alone are told too.
    """
    about, seed = model.data, lambda: torch.Generator().manual_seed(0)
    assert about is not None
    centers = about.to_model(about.center(levels))
    found: dict[str, dict[str, Any]] = {}
    with torch.autocast("cpu", torch.bfloat16):  # as it was trained
        profile = measure_error_profile(model, centers[:64], generator=torch.Generator().manual_seed(1))
        for name, ask in {
            "continuous bound": lambda: continuous_vlb(
                model, levels, decoder=KernelDecoder(), evaluations=8, profile=profile, generator=seed(), batch_size=128
            ),
            "discrete bound, 1000 steps": lambda: discrete_vlb(
                model, levels, 1000, terms=8, profile=profile, generator=seed(), batch_size=128
            ),
        }.items():
            start, bound = time.perf_counter(), ask()
            assert bound.bits is not None
            found[name] = {"mean": bound.mean, "stderr": bound.mean_stderr, "draws": bound.mean_draw_stderr}
            found[name][SAME] = float(bound.bits[:scored].mean())
            found[name] |= {"pictures": len(levels), "seconds": time.perf_counter() - start}
    law, start = TruncatedNormalDequantization.matching(model), time.perf_counter()
    ode = bits_per_dim(model, levels[:scored], dequantization=law, trace=Hutchinson(2), generator=seed())
    found["ODE, truncated-normal dequantization"] = {
        "mean": ode.mean,
        SAME: ode.mean,
        "stderr": ode.stderr,
        "draws": ode.mean_probe_stderr,
        "pictures": scored,
        "seconds": time.perf_counter() - start,
    }
    return found


def squeezed(levels: Tensor) -> float:
    """Bits per dimension of a general compressor, lzma, on the same pictures as one file."""
    raw = levels.to(torch.uint8).numpy().tobytes()
    return 8 * len(lzma.compress(raw, preset=9)) / len(raw)


def pictures(model: ScoreModel, n: int) -> dict[str, Tensor]:
    """Samples by each sampler from the same noise, levels ``(n, 1, 28, 28)``."""
    with torch.autocast("cpu", torch.bfloat16):
        return {name: sample(model, n, way, seeds=range(n), batch_size=100).data for name, way in SAMPLERS.items()}


def distances(drawn: dict[str, Tensor], real: Tensor) -> dict[str, dict[str, list[float]]]:
    """For each sampler and metric: value, its error, the floor and its error."""
    near = EfficientNetLite0()
    there, found = features_of(real, near), {}
    for name, images in drawn.items():
        generator = torch.Generator().manual_seed(0)
        beside = image_distances(features_of(images, near), there, metrics=METRICS, generator=generator)
        found[name] = {
            metric: [b.value.value, b.value.stderr, b.floor.value, b.floor.stderr] for metric, b in beside.items()
        }
    return found


def draw_bits(ax: Axes, found: dict[str, dict[str, Any]], lzma: float) -> None:
    """What a picture costs, beside what a general compressor makes of it; circles: on the few that the ODE scored."""
    for row, about in enumerate(found.values()):
        ax.plot([about[SAME]], [row], "o", mfc="none", color="C0")
        ax.errorbar([about["mean"]], [row], xerr=[2 * about["stderr"]], fmt="o", capsize=3, color="C0")
        ax.annotate(f"{about['mean']:.3f}", (about["mean"], row), (0, 8), textcoords="offset points", ha="center")
    ax.plot([lzma], [len(found)], "s", color="0.5")
    ax.annotate(f"{lzma:.3f}", (lzma, len(found)), (0, 8), textcoords="offset points", ha="center", color="0.4")
    ax.set_yticks(range(len(found) + 1), [*found, "lzma, all as one file"])
    ax.set(xlabel="bits per dimension, ± 2 standard errors", title="what a test picture costs")
    ax.invert_yaxis()
    ax.margins(0.15)


def draw_distances(ax: Axes, found: dict[str, dict[str, list[float]]], metric: str) -> None:
    """A distance of each sampler's pictures, and the floor: real pictures against as many others."""
    names = list(found)
    floor, error = found[names[0]][metric][2:]
    ax.axhspan(floor - 2 * error, floor + 2 * error, color="0.85")
    ax.annotate("real against real", (1, floor + 2 * error), (0, 3), textcoords="offset points", ha="center")
    for column, name in enumerate(names):
        value, stderr = found[name][metric][:2]
        ax.errorbar([column], [value], yerr=[2 * stderr], fmt="o", capsize=3, color=f"C{column}")
    ax.set_xticks(range(len(names)), [f"{name}\n{SAMPLERS[name].steps} steps" for name in names])
    ax.set(title=DRAWN[metric], xlim=(-0.6, len(names) - 0.4))
    ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))


def draw(found: dict[str, Any], shown: dict[str, Tensor], about: Description, out: Path) -> None:
    """One figure: bits, distances, and pictures by each way beside real ones."""
    figure = plt.figure(figsize=(11, 7.4), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    left, *right = parts[0].subplots(1, 3, width_ratios=(1.5, 1, 1))
    draw_bits(left, found["bits"], found["lzma"])
    for ax, metric in zip(right, DRAWN, strict=True):
        draw_distances(ax, found["distances"], metric)
    for ax, (name, images) in zip(parts[1].subplots(1, len(shown)), shown.items(), strict=True):
        ax.imshow(tile_images(images[:36].numpy(), about))
        ax.set(title=name)
        ax.axis("off")
    figure.savefig(out)


def main(
    steps: Annotated[int, typer.Option(help="Updates; 11 000 take an hour and a half on two cores.")] = 11_000,
    test: Annotated[
        int, typer.Option(help="Test pictures that the bounds score; 0 keeps what was found before.")
    ] = 5000,
    scored: Annotated[int, typer.Option(help="Test pictures that the ODE scores.")] = 160,
    samples: Annotated[int, typer.Option(help="Samples by each sampler, 0 for none.")] = 400,
    run: Annotated[Path, typer.Option(help="Where the run is kept.")] = Path("runs/fashion-mnist"),
    weights: Annotated[Path | None, typer.Option(help="Measure the model kept here instead of training one.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 2,
    quick: Annotated[bool, typer.Option(help="Seconds; numbers that mean little.")] = False,
) -> None:
    """Trains (or goes on, or reads --weights), measures, draws, and says what it found."""
    if quick:
        steps, test, scored, samples, run = 3, 8, 2, 0, run / "quick"
    torch.set_num_threads(threads)
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    data = clothes() if quick else load_data("fashion-mnist")
    if weights is None:
        again = (run / "config.json").exists()
        trained = train(
            model_for(data), data, settings_for(steps), run_dir=run, resume=again, save_every=500, progress=True
        )
        model = trained.model
        save(model, run / "model", keep=1)
    else:
        model = load(weights)
    run.mkdir(parents=True, exist_ok=True)
    path = run / "figures.json"
    found: dict[str, Any] = {}
    if test:
        found = {"bits": bits(model, data.test[:test], scored), "lzma": squeezed(data.test[:test])}
        for name, about in found["bits"].items():
            print(
                f"{name:38} {about['mean']:.4f} ± {about['stderr']:.4f} bits/dim on {about['pictures']}  "
                f"(draws ± {about['draws']:.4f}; {about[SAME]:.4f} on the ODE's {scored})"
            )
        print(f"{'lzma, all as one file':38} {found['lzma']:.4f} bits/dim")
    elif path.exists():
        found = json.loads(path.read_text())
    if samples:
        shown = pictures(model, samples)
        found["distances"] = distances(shown, data.test[-2 * samples :])
        for name, metrics in found["distances"].items():
            for metric, (value, error, floor, floor_error) in metrics.items():
                print(f"{name:6} {metric:18} {value:9.4f} ± {error:.4f}   floor {floor:9.4f} ± {floor_error:.4f}")
        if "bits" in found:
            draw(found, {**shown, "real": data.test[-2 * samples :]}, data.description, run / "fashion-mnist.png")
    checkpoint.write_text(path, json.dumps(found, indent=1))
    print(f"figures: {path}")


if __name__ == "__main__":
    typer.run(main)
