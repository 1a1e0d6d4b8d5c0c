"""Guidance benchmark: guided samples of exact models against closed forms, and the cost of classifier-free guidance.

    python tests/benchmarks/guidance.py             # both; exits with 1 if a limit is passed
    python tests/benchmarks/guidance.py --overhead  # only the cost
    python tests/benchmarks/guidance.py --draw      # writes the figure and the table of docs/guidance.md

Data N(1.5, 0.5²) under the condition and N(0, 1) without. Moments of the ODE and of the DDPM chain are exact (the state
is affine in the noise); those of `Tilted` are means of 16 populations with their standard error.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from affine_sampling import exact_moments
from race import plot
from scipy.integrate import quad

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.guidance import CFG, Autoguidance
from scoresde.inverse import Tilted
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes, UNet
from scoresde.plots.style import FAINT, GRAY, INK, SERIES, figure_style, save_png
from scoresde.process.parameterization import V
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, Heun, StepSampler, sample

SDE = VPSDE(tau_min=1e-6)
MEAN, STD = 1.5, 0.5
SCALES = (2.0, 3.0, 5.0)
LIMIT = 2.1
ODE, CHAIN = Heun(400), DDPM(1000, rev_var="beta")
DOCS = Path(__file__).parents[2] / "docs"


class Row(NamedTuple):
    """Mean and variance by a method, and their closed forms."""

    scale: float
    method: str
    mean: float
    variance: float
    exact: tuple[float, float]
    errors: tuple[float, float] = (0.0, 0.0)


def guided(scale: float) -> Autoguidance:
    """The guided model of two exact Gaussians."""
    conditional = Gaussian(torch.tensor([MEAN], dtype=torch.float64), STD**2, SDE)
    null = Gaussian(torch.zeros(1, dtype=torch.float64), 1.0, SDE)
    return Autoguidance(conditional, null, scale, conditional=False)


def closed_form(method: str, w: float) -> tuple[float, float]:
    """Mean and variance of the method's samples at scale w, as steps grow and the start tends to pure noise."""
    s2 = STD**2
    if method == "ODE":
        return w * MEAN * STD**w * quad(lambda a: (1 - (1 - s2) * a * a) ** (-1 - w / 2), 0, 1)[0], s2**w
    if method == "reverse SDE":
        return MEAN * (1 - s2**w) / (1 - s2), (s2 - s2 ** (2 * w)) / ((1 - s2) * (2 * w - 1))
    variance = 1 / (w / s2 + 1 - w)
    return w * MEAN / s2 * variance, variance


def measured_rows(particles: int) -> list[Row]:
    """Mean and variance of each method at each scale."""
    rows = []
    for w in SCALES:
        for method, sampler in (("ODE", ODE), ("reverse SDE", CHAIN)):
            rows.append(Row(w, method, *exact_moments(guided(w), sampler), closed_form(method, w)))
        samples = Tilted().sample(guided(w), particles, 16, seeds=range(16))
        means = samples.mean()[:, 0]
        variances = (samples.log_weights.exp() * samples.x[..., 0].square()).sum(1) - means.square()
        errors = (float(means.std()) / 4, float(variances.std()) / 4)
        moments = float(means.mean()), float(variances.mean())
        rows.append(Row(w, "`Tilted`", *moments, closed_form("tilted", w), errors))
    return rows


def table(rows: list[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| w | samples of | mean, measured | exact | variance, measured | exact |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    names = {"ODE": "`CFG` by the ODE", "reverse SDE": "`CFG` by the DDPM chain", "`Tilted`": "`Tilted`"}
    for row in rows:
        mean = f"{row.mean:.3f}" + (f" ± {row.errors[0]:.3f}" if row.errors[0] else "")
        variance = f"{row.variance:.3g}" + (f" ± {row.errors[1]:.1g}" if row.errors[1] else "")
        exact = f"{row.exact[0]:.3f}", f"{row.exact[1]:.3g}"
        lines.append(f"| {row.scale:g} | {names[row.method]} | {mean} | {exact[0]} | {variance} | {exact[1]} |")
    return "\n".join(lines)


# --- the picture ------------------------------------------------------------------------------------------------------


def planar(scale: float) -> Autoguidance:
    """A class of three Gaussians in the plane among five that are not of the class."""
    means = torch.tensor(
        [[-0.9, -0.5], [0.1, 1.0], [1.0, -0.6], [-0.3, -0.9], [0.9, 0.7], [-1.2, 0.8], [0.2, 0.1], [1.6, -0.2]]
    ).double()
    variances = torch.tensor([0.10, 0.16, 0.12, 0.10, 0.15, 0.12, 0.2, 0.1]).double()
    everything = GaussianMixture(torch.ones(8), means, variances, SDE)
    return Autoguidance(GaussianMixture(torch.ones(3), means[:3], variances[:3], SDE), everything, scale, None, False)


def tilted_log_density(model: Autoguidance, points: Tensor) -> Tensor:
    """The logarithm of the tilted density up to a constant, ``(n,)``."""
    parts: list[Any] = [model.model, model.weaker]
    w = float(model.scale)
    return w * parts[0].log_prob(points) + (1 - w) * parts[1].log_prob(points)


def draw(path: Path, n: int = 2000) -> None:
    """Draws densities of one coordinate above, and samples in the plane below."""
    from matplotlib.figure import Figure

    with figure_style("guidance"):
        figure = Figure(figsize=(9.2, 6.4), layout="constrained")
        axes: Any = figure.subplots(2, 3, gridspec_kw={"height_ratios": (1.0, 1.45)})
        for axis, w in zip(axes[0], SCALES):
            _draw_densities(axis, w, n)
        axes[0, 0].set_ylabel("density")
        axes[0, 0].legend(loc="upper left", fontsize=8, handlelength=1.4)
        _draw_plane(axes[1], 3.0, n)
        save_png(figure, path)


def _draw_densities(axis: Any, w: float, n: int) -> None:
    grid = torch.linspace(0.0, 3.0, 601).double()
    mean, variance = closed_form("tilted", w)

    def normal(mean: float, variance: float) -> Tensor:
        return (-0.5 * (grid - mean) ** 2 / variance).exp() / (2 * torch.pi * variance) ** 0.5

    samples = Tilted().sample(guided(w), n, 4, seeds=range(4))
    bins = torch.linspace(0.0, 3.0, 46).tolist()
    weights, values = samples.log_weights.exp().flatten(), samples.x.flatten()
    axis.hist(values.tolist(), bins, weights=(weights / 4 / (bins[1] - bins[0])).tolist(), color=SERIES[2], alpha=0.45)
    axis.plot(grid, normal(mean, variance), color=INK, label="tilted density")
    axis.plot(grid, normal(*exact_moments(guided(w), ODE)), color=SERIES[0], label="CFG, ODE")
    axis.plot(grid, normal(*exact_moments(guided(w), CHAIN)), color=SERIES[1], label="CFG, SDE")
    axis.plot([], [], color=SERIES[2], alpha=0.45, linewidth=6, label="Tilted")
    axis.set(title=f"w = {w:g}", xlim=(0.4, 3), ylim=(0, 3.6), yticks=[0, 1, 2, 3], xlabel="x")


def _draw_plane(axes: Any, w: float, n: int) -> None:
    model, generator = planar(w), torch.Generator().manual_seed(0)
    side = torch.linspace(-2.3, 2.3, 161).double()
    points = torch.cartesian_prod(side, side)
    density = tilted_log_density(model, points).softmax(0).reshape(161, 161).T
    shown = {
        "CFG, ODE": (SERIES[0], sample(model, n, ODE, generator=generator).x),
        "CFG, SDE": (SERIES[1], sample(model, n, CHAIN, generator=generator).x),
        "Tilted": (SERIES[2], Tilted().sample(model, n, generator=generator).draw(generator)[0]),
    }
    levels = [float(density.max()) * level for level in (0.02, 0.1, 0.3, 0.6, 0.9)]
    for axis, (name, (color, x)) in zip(axes, shown.items()):
        axis.contourf(side, side, density, [0.01 * float(density.max()), float(density.max())], colors=[FAINT])
        axis.scatter(x[:, 0], x[:, 1], s=3, color=color, alpha=0.35, linewidths=0)
        axis.contour(side, side, density, levels, colors=[GRAY], linewidths=0.8)
        axis.set(title=f"{name}, w = {w:g}", xlim=(-2.1, 2.1), ylim=(-1.9, 2.3), xticks=[], yticks=[], aspect="equal")
        axis.spines[:].set_visible(False)


# --- the cost ---------------------------------------------------------------------------------------------------------


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    start = time.process_time()  # other processes on the machine matter less than for wall time
    call()
    return time.process_time() - start


def overheads(repeats: int = 15) -> dict[str, float]:
    """Time of sampling with classifier-free guidance over that without, medians of pairs, by network."""
    classes = {"label": Classes(3)}
    networks = {
        "MLP(width=128, depth=4), 128 samples": (MLP((16,), 128, 4, conditions=classes), 128),
        "UNet(channels=16), 16 images of 16 x 16": (
            UNet((1, 16, 16), 16, (1, 2), conditions=classes),
            16,
        ),
        "MLP(width=4, depth=1), 4 samples": (MLP((2,), 4, 1, 4, conditions=classes), 4),
    }
    ratios: dict[str, float] = {}
    for name, (net, n) in networks.items():
        model, labels, sampler = ScoreModel(net, VPSDE(), V()), torch.arange(n) % 3, DDIM(20)
        model.event_shape = net.event_shape
        wrapped = CFG(model, 3.0)
        pairs = [(_seconds(wrapped, n, sampler, labels), _seconds(model, n, sampler, labels)) for _ in range(repeats)]
        ratios[name] = statistics.median(a / b for a, b in pairs[1:])
    return ratios


def _seconds(model: Any, n: int, sampler: StepSampler, labels: Tensor) -> float:
    return seconds(lambda: sample(model, n, sampler, label=labels))


def main() -> None:
    """Prints figures against their limits; with ``--draw`` writes them to the documentation."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--draw", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    above = []
    if not options.overhead:
        rows = measured_rows(10_000)
        print(table(rows), flush=True)
        above += [r for r in rows if abs(r.mean - r.exact[0]) > 0.01 or abs(r.variance / r.exact[1] - 1) > 0.02]
        if options.draw:
            plot.insert(DOCS / "guidance.md", "guidance", table(rows))
            draw(DOCS / "img" / "guidance.png")
            return
    for name, ratio in overheads().items():
        print(f"{name:60s} {ratio:.2f} x the network  (limit {LIMIT})", flush=True)
        above += [name] if ratio > LIMIT else []
    raise SystemExit(f"above the limit: {above}" if above else 0)


if __name__ == "__main__":
    main()
