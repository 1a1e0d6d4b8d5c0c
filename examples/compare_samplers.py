"""Comparison of samplers on one model: distance between samples and data against the number of network calls.

    python examples/compare_samplers.py                  # an exact model: eight Gaussians on a ring, no training
    python examples/compare_samplers.py --data digits    # a network trained on handwritten digits (minutes)

With the exact model the only error is that of the samplers. The figure has one column per family of samplers, with the
others in gray. The gray bands end two standard errors above the distance between real data and held-out data. Samples
inside a band cannot be distinguished from real data.
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
from scoresde import sampling
from scoresde.data import load_data
from scoresde.metrics import Estimate, floor, mmd, sliced_wasserstein
from scoresde.model import Model
from scoresde.sampling import Sampler
from scoresde.training.defaults import default_recipe

FAMILIES = {
    "the DDPM chain": ("DDPM, β̃", "DDPM, optimal variance", "DDIM, η = 0.5"),
    "the reverse SDE": ("Euler–Maruyama", "exponential", "SDE-DPM-Solver++ 2M", "SA-Solver", "ER-SDE"),
    "the ODE, one-step": ("DDIM", "Heun", "DPM-Solver-2", "dopri5"),
    "the ODE, multistep": ("DPM-Solver++ 2M", "DEIS", "UniPC", "Adams", "Adams, calibrated"),
    "predictor–corrector": ("chain + partial refresh", "chain + Langevin", "annealed Langevin"),
}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # within a family


def samplers(calls: int, clock: sd.schedule.Schedule, variance: sampling.OptimalVariance) -> dict[str, Sampler]:
    """All samplers at about ``calls`` network calls; methods with several calls per step take fewer steps."""
    tol, half = min((16 / calls) ** 4, 0.1), max(calls // 2, 1)
    return {
        "DDPM, β̃": sampling.DDPM(calls),
        "DDPM, optimal variance": sampling.DDPM(calls, rev_var=variance),
        "DDIM, η = 0.5": sampling.DDIM(calls, eta=0.5),
        "Euler–Maruyama": sampling.EulerMaruyama(calls),
        "exponential": sampling.ExponentialSDE(calls),
        "SDE-DPM-Solver++ 2M": sampling.SDEDPMSolverPP(calls),
        "SA-Solver": sampling.SASolver(calls),
        "ER-SDE": sampling.ERSDE(calls),
        "DDIM": sampling.DDIM(calls, sampling.UniformAngle()),
        "Heun": sampling.Heun(half),
        "DPM-Solver-2": sampling.DPMSolver(half),
        "dopri5": sampling.ODE(rtol=tol, atol=tol),  # adaptive: the tolerance roughly sets the cost
        "DPM-Solver++ 2M": sampling.DPMSolverPP(calls),
        "DEIS": sampling.DEIS(calls, variable=clock),
        "UniPC": sampling.UniPC(calls, solver_order=2),
        "Adams": sampling.Adams(calls),
        "chain + partial refresh": sampling.PredictorCorrector(half),
        "chain + Langevin": sampling.PredictorCorrector(half, corrector=sampling.Langevin()),
        "annealed Langevin": sampling.AnnealedLangevin(half, repeats=2, step_size=1.0),
    }


@dataclass(frozen=True)
class Result:
    """Samples of one sampler at one number of network calls, and their distances to held-out data.

    Attributes:
        name: Of the sampler.
        budget: Network calls that were allowed.
        calls: Network calls that were made, per sample.
        distances: By name.
        x: Samples in model units, ``(n, *D)``.
    """

    name: str
    budget: int
    calls: int
    distances: dict[str, float]
    x: Tensor


@dataclass(frozen=True)
class Problem:
    """A model, real data in model units, and the distances to compute.

    Attributes:
        title: For the figure.
        model: Exact or trained.
        held_out: Real data that samples are compared with, ``(n, *D)``.
        real: Other real data, for the floor of each distance.
        distances: Functions of two sets of events, by name.
    """

    title: str
    model: Model
    held_out: Tensor
    real: Tensor
    distances: dict[str, Callable[[Tensor, Tensor], Estimate]]


def sliced_distance(x: Tensor, y: Tensor) -> Estimate:
    """Sliced Wasserstein distance, along the same directions in every call."""
    return sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(0))


def ring_problem(n: int, seed: int) -> Problem:
    """An exact model whose density is known: samples that are too blurred have too low a log-density."""
    model = sd.GaussianMixture.ring(std=0.05, sde=sd.VPSDE(tau_min=1e-5)).float()
    generator = torch.Generator().manual_seed(seed)

    def log_prob_gap(x: Tensor, y: Tensor) -> Estimate:
        return Estimate(abs(float(model.log_prob(x).mean() - model.log_prob(y).mean())))

    distances = {"|mean log p, samples − data|, nats": log_prob_gap}
    held_out, real = model.sample(n, generator=generator), model.sample(4 * n, generator=generator)
    return Problem("an exact model: eight Gaussians on a ring", model, held_out, real, distances)


def digits_problem(n: int, seed: int, steps: int | None) -> Problem:
    """A network trained on the train part of the digits; integer values are moved to their bin centers."""
    data = load_data("digits")
    recipe = default_recipe(data.description)
    settings = recipe.training if steps is None else replace(recipe.training, steps=steps)
    model = sd.train(recipe.build(data, seed), data, settings, progress=True).model
    held_out, real = (data.description.to_model(data.description.center(part)) for part in (data.test[:n], data.train))
    distances = {"sliced Wasserstein distance": sliced_distance, "squared kernel distance (MMD²)": mmd}
    return Problem("a network trained on handwritten digits", model, held_out, real, distances)


def run_all(problem: Problem, budgets: tuple[int, ...], seed: int, iterations: int) -> list[Result]:
    """Every sampler at every budget from the same seed, and up to 16 calls also the calibrated one."""
    generator = torch.Generator().manual_seed(seed)
    variance = sampling.optimal_variance(problem.model, problem.real[:2000], generator=generator)
    results = []
    for calls in budgets:
        entries = samplers(calls, problem.model.sde.schedule, variance)
        if calls <= 16:
            noises = torch.Generator().manual_seed(0)
            calibration = sd.calibrate(problem.model, sd.Adams(calls), iterations=iterations, generator=noises)
            entries["Adams, calibrated"] = calibration.sampler
        results += [run(problem, name, sampler, calls, seed) for name, sampler in entries.items()]
    return results


def run(problem: Problem, name: str, sampler: Sampler, budget: int, seed: int) -> Result:
    """Prints one row of the table; samples of integer data are rounded to integer values, as the data are."""
    description, start = problem.model.data, time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    samples = sd.sample(problem.model, len(problem.held_out), sampler, generator=generator)
    seconds = time.perf_counter() - start
    x = samples.x if description is None else description.to_model(description.center(samples.data))
    values = {label: distance(x, problem.held_out).value for label, distance in problem.distances.items()}
    print(f"{name:24}{samples.nfe:>8}{seconds:>10.2f}" + "".join(f"{v:>12.4f}" for v in values.values()), flush=True)
    return Result(name, budget, samples.nfe, values, x)


def draw_errors(ax: Axes, results: list[Result], distance: str, floor: Estimate, family: str) -> None:
    """One distance against network calls: one family in color, the others in gray, the floor as a band."""
    curves = {result.name: [] for result in results}
    for result in results:
        curves[result.name].append((result.calls, max(result.distances[distance], 1e-9)))
    top = max(floor.value + 2 * floor.stderr, 1e-9)
    ax.set(xscale="log", yscale="log", ylim=(0.3 * top, 4 * max(y for _, y in curves["DDPM, β̃"])))
    ticks = sorted({result.budget for result in results})
    ax.set_xticks(ticks, [str(tick) for tick in ticks])
    ax.minorticks_off()
    ax.axhspan(0.3 * top, top, color="#f0f0f0", zorder=0)
    if family == next(iter(FAMILIES)):
        alignment = {"ha": "right", "va": "bottom", "transform": ax.get_yaxis_transform()}
        ax.text(0.98, 0.32 * top, "real data", fontsize=8, **alignment)
    for name, curve in curves.items():
        if name not in FAMILIES[family]:
            ax.plot(*zip(*sorted(curve)), color="#dddddd", lw=0.8, zorder=1)
    for name, color in zip(FAMILIES[family], COLORS):
        ax.plot(*zip(*sorted(curves.get(name, []))), "-o", color=color, lw=1.5, ms=3)
    ax.set_xlim(ticks[0] * 0.85, ticks[-1] * 1.2)


def draw_names(ax: Axes, family: str) -> None:
    """Legend above the panels: the family's samplers in the colors of their lines."""
    for row, (name, color) in enumerate(zip(FAMILIES[family], COLORS)):
        ax.text(0.0, 4.3 - row, name, color=color, fontsize=9)
    ax.set(xlim=(0, 1), ylim=(-0.2, 6.2))
    ax.text(0.0, 5.4, family, fontsize=11, color="#222222")
    ax.axis("off")


def draw_events(ax: Axes, x: Tensor, color: str, title: str) -> None:
    """Points in the plane, or a square of images."""
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


def draw_samples(path: Path, results: list[Result], problem: Problem, calls: int) -> None:
    """Samples at one number of calls: a row per family, held-out data at the end of the first row."""
    width = max(map(len, FAMILIES.values())) + 1
    figure, axes = plt.subplots(len(FAMILIES), width, figsize=(1.75 * width, 1.95 * len(FAMILIES)))
    by_name = {result.name: result for result in results if result.budget == calls}
    for row, (family, names) in zip(axes, FAMILIES.items()):
        row[0].text(0.0, 0.5, family.replace(", ", ",\n"), fontsize=11, va="center", transform=row[0].transAxes)
        for ax, name, color in zip(row[1:], names, COLORS):
            if name in by_name:
                draw_events(ax, by_name[name].x, color, f"{name}\n{by_name[name].calls} calls")
        for ax in row:
            ax.axis("on" if ax.has_data() else "off")
    axes[0, -1].axis("on")
    draw_events(axes[0, -1], problem.held_out, "#666666", "held-out data\n")
    figure.savefig(path)


def main(
    data: Annotated[str, typer.Option(help="ring: an exact model; digits: a network is trained.")] = "ring",
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Random seed of data, training and sampling.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few samples and few network calls.")] = False,
) -> None:
    """Prints a table of sampler, network calls, seconds and distance, and draws it together with samples."""
    if data not in ("ring", "digits"):
        raise typer.BadParameter(f"data must be 'ring' or 'digits', got {data!r}.")
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    n = 300 if quick or data == "digits" else 4000
    problem = ring_problem(n, seed) if data == "ring" else digits_problem(n, seed, 20 if quick else None)
    floors = {
        label: floor(distance, problem.real, problem.held_out, generator=torch.Generator().manual_seed(seed))
        for label, distance in problem.distances.items()
    }
    print(f"{'sampler':24}{'calls':>8}{'seconds':>10}{'  ' + ';  '.join(problem.distances)}")
    print(f"{'real data':42}" + "".join(f"{estimate.value:>12.4f}" for estimate in floors.values()))
    budgets = (8, 32) if quick else (8, 16, 32, 64, 128, 256)
    results = run_all(problem, budgets, seed, 2 if quick else 20)

    heights = (1.3, *[3.0] * len(floors))
    figure, axes = plt.subplots(
        len(heights), len(FAMILIES), figsize=(14.5, 0.8 + sum(heights)), height_ratios=heights, sharey="row"
    )
    for column, family in zip(axes.T, FAMILIES):
        draw_names(column[0], family)
        for ax, (distance, estimate) in zip(column[1:], floors.items()):
            draw_errors(ax, results, distance, estimate, family)
        column[-1].set_xlabel("network calls per sample")
    for ax, distance in zip(axes[1:, 0], floors):
        ax.set_ylabel(distance)
    figure.suptitle(f"Samplers on {problem.title}", x=0.01, ha="left")
    figure.savefig(out / f"compare_samplers_{data}.png")
    draw_samples(out / f"compare_samplers_{data}_samples.png", results, problem, 8 if quick else 16)
    print(f"wrote {out}/compare_samplers_{data}.png and {out}/compare_samplers_{data}_samples.png")


if __name__ == "__main__":
    typer.run(main)
