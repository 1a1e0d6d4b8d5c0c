"""One model, every way back: how far from the data is each sampler after so many network calls?

    python examples/compare_samplers.py                  # an exact model: eight Gaussians on a ring, no training
    python examples/compare_samplers.py --data digits    # a network trained on handwritten digits (minutes)

With the exact model nothing is left but the samplers' own error. One column per family, with the others in gray.
Gray bands: the same distance between real data and the held-out ones, and two standard errors more; in there nothing
can be told apart.
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

import scoresde as sd
from scoresde import sampling as ways
from scoresde.data import load_data
from scoresde.metrics import Estimate, floor, mmd, sliced_wasserstein
from scoresde.model import Model
from scoresde.sampling import Sampler
from scoresde.training.defaults import default_recipe

FAMILIES = {  # in one color each, C0, C1 …
    "the DDPM chain": ("DDPM, β̃", "DDPM, optimal variance", "DDIM, η = 0.5"),
    "the reverse SDE": ("Euler–Maruyama", "exponential", "SDE-DPM-Solver++ 2M", "SA-Solver", "ER-SDE"),
    "the ODE, step by step": ("DDIM", "Heun", "DPM-Solver-2", "dopri5"),
    "the ODE, with memory": ("DPM-Solver++ 2M", "DEIS", "UniPC", "Adams", "Adams, calibrated"),
    "predictor–corrector": ("chain + partial refresh", "chain + Langevin", "annealed Langevin"),
}
SHADES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # within a family


def samplers(calls: int, clock: sd.schedule.Schedule, variance: ways.OptimalVariance) -> dict[str, Sampler]:
    """Every way back for about as many network calls; methods with several calls a step take fewer steps."""
    tol, half = min((16 / calls) ** 4, 0.1), max(calls // 2, 1)
    return {
        "DDPM, β̃": ways.DDPM(calls),
        "DDPM, optimal variance": ways.DDPM(calls, rev_var=variance),
        "DDIM, η = 0.5": ways.DDIM(calls, eta=0.5),
        "Euler–Maruyama": ways.EulerMaruyama(calls),
        "exponential": ways.ExponentialSDE(calls),
        "SDE-DPM-Solver++ 2M": ways.SDEDPMSolverPP(calls),
        "SA-Solver": ways.SASolver(calls),
        "ER-SDE": ways.ERSDE(calls),
        "DDIM": ways.DDIM(calls, ways.UniformAngle()),
        "Heun": ways.Heun(half),
        "DPM-Solver-2": ways.DPMSolver(half),
        "dopri5": ways.ODE(rtol=tol, atol=tol),  # adaptive: the tolerance sets the cost, roughly
        "DPM-Solver++ 2M": ways.DPMSolverPP(calls),
        "DEIS": ways.DEIS(calls, variable=clock),
        "UniPC": ways.UniPC(calls, solver_order=2),
        "Adams": ways.Adams(calls),
        "chain + partial refresh": ways.PredictorCorrector(half),
        "chain + Langevin": ways.PredictorCorrector(half, corrector=ways.Langevin()),
        "annealed Langevin": ways.AnnealedLangevin(half, repeats=2, step_size=1.0),
    }


@dataclass(frozen=True)
class Run:
    """One sampler at one cost."""

    name: str
    budget: int
    calls: int
    distances: dict[str, float]
    x: Tensor


@dataclass(frozen=True)
class Case:
    """A model, draws of the data's law in model units (``real`` makes the floor), and distances between draws."""

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
    model = sd.analytic.GaussianMixture.ring(std=0.05, sde=sd.VPSDE(tau_min=1e-5)).float()
    generator = torch.Generator().manual_seed(seed)

    def surprise(x: Tensor, y: Tensor) -> Estimate:
        return Estimate(abs(float(model.log_prob(x).mean() - model.log_prob(y).mean())))

    distances = {"|mean log p, samples − data|, nats": surprise}
    held_out, real = model.sample(n, generator=generator), model.sample(4 * n, generator=generator)
    return Case("an exact model: eight Gaussians on a ring", model, held_out, real, distances)


def digits(n: int, seed: int, steps: int | None) -> Case:
    """A network trained on the train part; levels are put in the middle of their bins."""
    data = load_data("digits")
    recipe = default_recipe(data.description)
    settings = recipe.training if steps is None else replace(recipe.training, steps=steps)
    model = sd.train(recipe.build(data, seed), data, settings, progress=True).model
    held_out, real = (data.description.to_model(data.description.center(part)) for part in (data.test[:n], data.train))
    distances = {"sliced Wasserstein distance": sliced, "squared kernel distance (MMD²)": mmd}
    return Case("a network trained on handwritten digits", model, held_out, real, distances)


def run_all(case: Case, budgets: tuple[int, ...], seed: int, iterations: int) -> list[Run]:
    """Every sampler at every budget, from the same seed; fitted to the model, in ``iterations``, for up to 16 calls."""
    generator = torch.Generator().manual_seed(seed)
    variance = ways.optimal_variance(case.model, case.real[:2000], generator=generator)
    runs = []
    for calls in budgets:
        entries = samplers(calls, case.model.sde.schedule, variance)
        if calls <= 16:
            entries["Adams, calibrated"] = ways.calibrate(case.model, ways.Adams(calls), iterations=iterations).sampler
        runs += [run(case, name, sampler, calls, seed) for name, sampler in entries.items()]
    return runs


def run(case: Case, name: str, sampler: Sampler, budget: int, seed: int) -> Run:
    """One line of the table; samples of levels are rounded to them, as the data are."""
    data, began = case.model.data, time.perf_counter()
    drawn = sd.sample(case.model, len(case.held_out), sampler, generator=torch.Generator().manual_seed(seed))
    seconds = time.perf_counter() - began
    x = drawn.x if data is None else data.to_model(data.center(drawn.data))
    found = {what: measure(x, case.held_out).value for what, measure in case.distances.items()}
    print(f"{name:24}{drawn.nfe:>8}{seconds:>10.2f}" + "".join(f"{v:>12.4f}" for v in found.values()), flush=True)
    return Run(name, budget, drawn.nfe, found, x)


def draw_errors(ax: Axes, runs: list[Run], what: str, real: Estimate, family: str) -> None:
    """One distance over network calls: a family in color, with its names, the others in gray."""
    known = {run.name: [] for run in runs}
    for each in runs:
        known[each.name].append((each.calls, max(each.distances[what], 1e-9)))
    top = max(real.value + 2 * real.stderr, 1e-9)
    ax.set(xscale="log", yscale="log", ylim=(0.3 * top, 4 * max(y for _, y in known["DDPM, β̃"])))
    ticks = sorted({each.budget for each in runs})
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.axhspan(0.3 * top, top, color="#f0f0f0", zorder=0)
    if family == next(iter(FAMILIES)):
        across = {"ha": "right", "va": "bottom", "transform": ax.get_yaxis_transform()}
        ax.text(0.98, 0.32 * top, "real against real", fontsize=8, **across)
    for name, line in known.items():
        if name not in FAMILIES[family]:
            ax.plot(*zip(*sorted(line)), color="#dddddd", lw=0.8, zorder=1)
    colors = dict(zip(FAMILIES[family], SHADES))
    for name, color in colors.items():
        ax.plot(*zip(*sorted(known.get(name, []))), "-o", color=color, lw=1.5, ms=3)
    ax.set_xlim(ticks[0] * 0.85, ticks[-1] * 1.2)


def draw_names(ax: Axes, family: str) -> None:
    """Above the panels: the family's names in the colors of its lines."""
    for row, (name, color) in enumerate(zip(FAMILIES[family], SHADES)):
        ax.text(0.0, 4.3 - row, name, color=color, fontsize=9)
    ax.set(xlim=(0, 1), ylim=(-0.2, 6.2))
    ax.text(0.0, 5.4, family, fontsize=11, color="#222222")
    ax.axis("off")


def draw_events(ax: Axes, x: Tensor, color: str, title: str) -> None:
    """Points in the plane, or pictures in a square."""
    if x.ndim == 2:
        ax.scatter(*x[:2000].T, s=1.5, color=color, alpha=0.4, lw=0)
        ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
    else:
        rows = [torch.cat(list(row[:, 0]), 1) for row in x[:36].split(6) if len(row) == 6]
        ax.imshow(torch.cat(rows), cmap="gray_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.set_title(title, fontsize=8.5, loc="center", color=color)
    ax.grid(False)
    ax.spines[["left", "bottom"]].set_visible(False)


def draw_samples(path: Path, runs: list[Run], case: Case, calls: int) -> None:
    """Small multiples: a row per family, the data at the end of the first."""
    width = max(map(len, FAMILIES.values())) + 1
    figure, axes = plt.subplots(len(FAMILIES), width, figsize=(1.75 * width, 1.95 * len(FAMILIES)))
    drawn = {each.name: each for each in runs if each.budget == calls}
    for row, (family, names) in zip(axes, FAMILIES.items()):
        row[0].text(0.0, 0.5, family.replace(", ", ",\n"), fontsize=11, va="center", transform=row[0].transAxes)
        for ax, name, color in zip(row[1:], names, SHADES):
            if name in drawn:
                draw_events(ax, drawn[name].x, color, f"{name}\n{drawn[name].calls} calls")
        for ax in row:
            ax.axis("on" if ax.has_data() else "off")
    axes[0, -1].axis("on")
    draw_events(axes[0, -1], case.held_out, "#666666", "held-out data\n")
    figure.savefig(path)


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
    n = 300 if quick or data == "digits" else 4000
    case = ring(n, seed) if data == "ring" else digits(n, seed, 20 if quick else None)
    floors = {
        what: floor(measure, case.real, case.held_out, generator=torch.Generator().manual_seed(seed))
        for what, measure in case.distances.items()
    }
    print(f"{'sampler':24}{'calls':>8}{'seconds':>10}{'  ' + ';  '.join(case.distances)}")
    print(f"{'real against real':42}" + "".join(f"{each.value:>12.4f}" for each in floors.values()))
    budgets = (8, 32) if quick else (8, 16, 32, 64, 128, 256)
    runs = run_all(case, budgets, seed, 2 if quick else 20)

    heights = (1.3, *[3.0] * len(floors))
    figure, axes = plt.subplots(
        len(heights), len(FAMILIES), figsize=(14.5, 0.8 + sum(heights)), height_ratios=heights, sharey="row"
    )
    for column, family in zip(axes.T, FAMILIES):
        draw_names(column[0], family)
        for ax, (what, level) in zip(column[1:], floors.items()):
            draw_errors(ax, runs, what, level, family)
        column[-1].set_xlabel("network calls per sample")
    for ax, what in zip(axes[1:, 0], floors):
        ax.set_ylabel(what)
    figure.suptitle(f"Ways back with {case.title}", x=0.01, ha="left")
    figure.savefig(out / f"compare_samplers_{data}.png")
    draw_samples(out / f"compare_samplers_{data}_samples.png", runs, case, 8 if quick else 16)
    print(f"wrote {out}/compare_samplers_{data}.png and {out}/compare_samplers_{data}_samples.png")


if __name__ == "__main__":
    typer.run(main)
