"""One model, every way back: how far from the data is each sampler after so many network calls?

    python examples/compare_samplers.py                  # an exact model: eight Gaussians on a ring, no training
    python examples/compare_samplers.py --data digits    # a network trained on handwritten digits (minutes)

With the exact model nothing is left but the samplers' own error. Grey bands: the same distance between real data and
the held-out ones, in which nothing can be told apart. Lines that leave the frame belong to samplers that blew up.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.compare import recipe_for
from scoresde.data import load
from scoresde.metrics import Estimate, floor, mmd, sliced_wasserstein
from scoresde.model import Model
from scoresde.sampler import DDIM, DDPM, ODE, EulerMaruyama, ExponentialSDE, RungeKutta, Sampler, TorchSDE, sample
from scoresde.sde import VPSDE
from scoresde.training import train

STYLES = {  # one colour per walk; what it is walked with, by marker and dash
    "DDPM chain": ("C0", "o", "-"),
    "SDE, Euler–Maruyama": ("C1", "s", "-"),
    "SDE, exponential": ("C1", "^", "--"),
    "SDE, torchsde srk": ("C1", "D", ":"),
    "ODE, DDIM": ("C2", "o", "-"),
    "ODE, Heun": ("C2", "^", "--"),
    "ODE, dopri5": ("C2", "D", ":"),
}


@dataclass(frozen=True)
class Run:
    """One sampler at one cost."""

    name: str
    sampler: Sampler
    calls: int
    seconds: float
    distances: dict[str, float]
    x: Tensor


def samplers(calls: int) -> dict[str, Sampler]:
    """Every way back for about as many network calls; methods with several calls a step take fewer steps."""
    tol = min((16 / calls) ** 4, 0.1)
    return {
        "DDPM chain": DDPM(steps=calls),
        "SDE, Euler–Maruyama": EulerMaruyama(steps=calls),
        "SDE, exponential": ExponentialSDE(steps=calls),
        "SDE, torchsde srk": TorchSDE(steps=max(calls // 4, 1)),
        "ODE, DDIM": DDIM(steps=calls),
        "ODE, Heun": RungeKutta(steps=max(calls // 2, 1), method="heun"),
        "ODE, dopri5": ODE(rtol=tol, atol=tol),  # adaptive: the tolerance sets the cost, roughly
    }


@dataclass(frozen=True)
class Case:
    """A model, what its samples should be like, and how far they are from it.

    ``held_out`` and ``real`` are draws of the data's law, in model units; the second set makes the floor.
    """

    title: str
    model: Model
    held_out: Tensor
    real: Tensor
    distances: dict[str, Callable[[Tensor, Tensor], Estimate]]


def sliced(x: Tensor, y: Tensor) -> Estimate:
    """Sliced Wasserstein distance along the same directions every time."""
    return sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(0))


def ring(n: int, seed: int) -> Case:
    """An exact model whose density is known: samples that are too blurred have too little of it."""
    model = GaussianMixture.ring(std=0.05, sde=VPSDE(tau_min=1e-4)).float()
    generator = torch.Generator().manual_seed(seed)

    def surprise(x: Tensor, y: Tensor) -> Estimate:
        return Estimate(abs(float(model.log_prob(x).mean() - model.log_prob(y).mean())))

    distances = {"sliced Wasserstein distance": sliced, "|mean log p, samples − data|, nats": surprise}
    held_out, real = model.sample(n, generator=generator), model.sample(4 * n, generator=generator)
    return Case("an exact model: eight Gaussians on a ring", model, held_out, real, distances)


def digits(n: int, seed: int, steps: int | None) -> Case:
    """A network trained on the train part; levels are put in the middle of their bins."""
    data = load("digits")
    recipe = recipe_for(data.description)
    settings = recipe.training if steps is None else replace(recipe.training, steps=steps)
    model = train(recipe.build(data.description, seed), data, settings, progress=True).model
    held_out, real = (data.description.to_model(data.description.centre(part)) for part in (data.test[:n], data.train))
    distances = {"sliced Wasserstein distance": sliced, "squared kernel distance (MMD²)": mmd}
    return Case("a network trained on handwritten digits", model, held_out, real, distances)


def run_all(case: Case, budgets: tuple[int, ...], seed: int) -> list[Run]:
    """Every sampler at every budget, from the same seed; samples of levels are rounded to them, as the data are."""
    runs, data = [], case.model.data
    for calls in budgets:
        for name, sampler in samplers(calls).items():
            began = time.perf_counter()
            drawn = sample(case.model, len(case.held_out), sampler, generator=torch.Generator().manual_seed(seed))
            seconds = time.perf_counter() - began
            x = drawn.x if data is None else data.to_model(data.centre(drawn.data))
            found = {what: measure(x, case.held_out).value for what, measure in case.distances.items()}
            runs.append(Run(name, sampler, drawn.nfe, seconds, found, x))
            shown = "".join(f"{value:>12.4f}" for value in found.values())
            print(f"{name:22}{drawn.nfe:>8}{seconds:>10.2f}{shown}   {sampler}", flush=True)
    return runs


def draw_errors(ax: Axes, runs: list[Run], what: str, real: Estimate) -> None:
    """One distance over network calls, one line per sampler, and the band that real data span."""
    low, high = max(real.value - 2 * real.stderr, 1e-9), real.value + 2 * real.stderr
    ax.axhspan(low, high, color="#dddddd", zorder=0, label="real against real")
    for name, (colour, marker, dash) in STYLES.items():
        line = [(run.calls, max(run.distances[what], 1e-9)) for run in runs if run.name == name]
        ax.plot(*zip(*line), color=colour, marker=marker, ls=dash, label=name)
    best = min(run.distances[what] for run in runs)
    worst = max(run.distances[what] for run in runs if run.name == "DDPM chain")
    ax.set(xscale="log", yscale="log", xlabel="network calls per sample", title=what)
    ticks = sorted({run.calls for run in runs if run.name == "DDPM chain"})
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.set_ylim(max(0.5 * min(best, real.value), 0.03 * real.value), 30 * max(worst, high))


def draw_samples(axes: list[Axes], runs: list[Run], held_out: Tensor) -> None:
    """Small multiples: the samples of each sampler, then the data."""
    for ax, run in zip(axes, runs):
        draw_events(ax, run.x, STYLES[run.name][0])
        ax.set_title(f"{run.name}\n{run.calls} calls", fontsize=8.5, loc="center")
    draw_events(axes[-1], held_out, "#666666")
    axes[-1].set_title("held-out data\n", fontsize=8.5, loc="center")


def draw_events(ax: Axes, x: Tensor, colour: str) -> None:
    """Points in the plane, or pictures in a square."""
    if x.ndim == 2:
        ax.scatter(*x[:2000].T, s=1.5, color=colour, alpha=0.4, lw=0)
        ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    else:
        rows = [torch.cat(list(row[:, 0]), 1) for row in x[:36].split(6) if len(row) == 6]
        ax.imshow(torch.cat(rows), cmap="gray_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)


def main(
    data: Annotated[str, typer.Option(help="ring: an exact model; digits: a network is trained.")] = "ring",
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Of data, training and sampling.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples and few calls.")] = False,
) -> None:
    """Prints a table of sampler, network calls, seconds and distance, and draws it with samples."""
    if data not in ("ring", "digits"):
        raise typer.BadParameter(f"data must be 'ring' or 'digits', got {data!r}.")
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    n = 300 if quick or data == "digits" else 2000
    case = ring(n, seed) if data == "ring" else digits(n, seed, 20 if quick else None)
    floors = {
        what: floor(measure, case.real, case.held_out, generator=torch.Generator().manual_seed(seed))
        for what, measure in case.distances.items()
    }
    print(f"{'walk':22}{'calls':>8}{'seconds':>10}{'  ' + ';  '.join(case.distances)}")
    print(f"{'real against real':40}" + "".join(f"{each.value:>12.4f}" for each in floors.values()))
    budgets = (8, 32) if quick else (8, 16, 32, 64, 128, 256)
    runs = run_all(case, budgets, seed)

    figure, panels = plt.subplots(1, 2, figsize=(10.5, 3.9))
    for ax, (what, level) in zip(panels, floors.items()):
        draw_errors(ax, runs, what, level)
    panels[1].legend(bbox_to_anchor=(1.0, 1.0), loc="upper left")
    figure.suptitle(f"Ways back with {case.title}", x=0.01, ha="left")
    figure.savefig(out / f"compare_samplers_{data}.png")

    shown = [budgets[0], budgets[-1] if quick else 32]
    figure, axes = plt.subplots(len(shown), len(STYLES) + 1, figsize=(12.5, 1.9 * len(shown)))
    for row, calls in zip(axes, shown):
        start = budgets.index(calls) * len(STYLES)
        draw_samples(list(row), runs[start : start + len(STYLES)], case.held_out)
    figure.savefig(out / f"compare_samplers_{data}_samples.png")
    print(f"wrote {out}/compare_samplers_{data}.png and {out}/compare_samplers_{data}_samples.png")


if __name__ == "__main__":
    typer.run(main)
