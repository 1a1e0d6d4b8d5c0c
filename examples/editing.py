r"""Editing, inpainting and interpolation of digits; and edits of Gaussian data beside their closed forms.

    python examples/editing.py --run runs/demo/models/simple-seed0

Without ``--run`` the model is the kernel density of the digits, which is exact: its samples are digits of the train
part with a little noise. The second figure shows mean and standard deviation of the edit of one value x of N(m, c²), by
the ODE and by the reverse SDE.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import numpy as np
import torch
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import scoresde as sd
from scoresde.process import ou

STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8)
CASES = (3, 10, 17)  # test digits
DRAWS, POINTS = 6, 8


def digits_model(run: Path | None, data: sd.Data) -> sd.Model:
    """The model of a run, or the exact kernel density of the train part."""
    if run is not None:
        return sd.load(run)
    description = data.description
    model = sd.KernelDensity(description.to_model(description.center(data.train)), bandwidth=0.1)
    model.data = description
    return model


def draw_row(ax: Axes, images: Tensor, title: str, hidden: Tensor | None = None) -> None:
    """Images ``(n, H, W)`` side by side, hidden pixels of the second one in orange."""
    height, width = images.shape[1:]
    canvas = np.ones((height, len(images) * (width + 1) - 1, 3))
    for i, image in enumerate(images.double().numpy() / 16):
        canvas[:, i * (width + 1) : i * (width + 1) + width] = image[..., None]
        if hidden is not None and i == 1:
            canvas[:, width + 1 : 2 * width + 1][hidden.numpy()] = (0.84, 0.37, 0.06)
    ax.imshow(canvas, interpolation="nearest")
    ax.set_title(title, loc="left", fontsize=8)
    ax.axis("off")


def figure_of_digits(model: sd.Model, quick: bool) -> Figure:
    """Rows of edits, of inpainted halves and of paths between two digits."""
    data = sd.load_data("digits")
    x = data.test[list(CASES)]
    sampler, solver = sd.DDPM(steps=30 if quick else 250), sd.AdaptiveSolver(0.1 if quick else 1e-3)
    figure, axes = plt.subplots(9, 1, figsize=(6.5, 8.5))
    for i, ax in enumerate(axes[:3]):
        edits = [sd.edit(model, x[i : i + 1], strength=s, sampler=sampler, seeds=[i]).data[0, 0] for s in STRENGTHS]
        names = ", ".join(f"{s:g}" for s in STRENGTHS)
        draw_row(ax, torch.stack([x[i, 0], *edits]), f"original, edits of strength {names}" if i == 0 else "")
    seen = torch.zeros(8, 8, dtype=torch.bool)
    seen[:, :4] = True
    inpainter = sd.DDIM(30) if quick else None
    drawn = sd.inpaint(model, x, seen, sampler=inpainter, draws=DRAWS, seeds=range(len(x))).data
    for i, ax in enumerate(axes[3:6]):
        images = torch.cat([x[i], x[i], drawn[i, :, 0]])
        draw_row(ax, images, "original, what was seen of it, draws given that" if i == 0 else "", ~seen)
    path = sd.interpolate(model, x, x.roll(-1, 0), n=POINTS, solver=solver)
    for i, ax in enumerate(axes[6:]):
        draw_row(ax, path.data[i, :, 0], "from one digit to another in the latent space" if i == 0 else "")
    return figure


def figure_of_gaussian(quick: bool) -> Figure:
    """Mean and deviation of an edit against τ: closed forms as lines, 20,000 edits as points."""
    m, c, x, count = 1.0, 0.5, 3.0, 2000 if quick else 20_000
    model = sd.Gaussian(torch.full((count,), m, dtype=torch.float64), c**2, sd.VPSDE(tau_min=1e-7))
    figure, axes = plt.subplots(1, 2, figsize=(6.5, 2.6))
    times = np.linspace(0.02, 2.5, 200)
    samplers = {"ODE": sd.Adams(steps=30), "reverse SDE": sd.DDPM(steps=20 if quick else 400)}
    for color, (name, sampler) in zip(("C0", "C1"), samplers.items()):
        means, deviations = zip(*(closed_form(name == "ODE", m, c, x, float(tau)) for tau in times))
        axes[0].plot(times, means, color, label=name)
        axes[1].plot(times, deviations, color, label=name)
        for tau in (0.1, 0.5, 1.0, 2.0):
            edited = sd.edit(model, torch.full((1, count), x).double(), tau, sampler, seeds=[0]).data
            axes[0].plot(tau, edited.mean(), "o", color=color)
            axes[1].plot(tau, edited.std(), "o", color=color)
    axes[0].set(xlabel="τ of the edit", ylabel="mean")
    axes[1].set(xlabel="τ of the edit", ylabel="standard deviation")
    axes[0].axhline(m, color="0.6", lw=0.8)
    axes[1].axhline(c, color="0.6", lw=0.8)
    axes[0].legend(frameon=False)
    return figure


def closed_form(ode: bool, m: float, c: float, x: float, tau: float) -> tuple[float, float]:
    """Mean and standard deviation of an edit of x, for data N(m, c²)."""
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    v = alpha**2 * c**2 + sigma**2
    if ode:
        return m + alpha * c / math.sqrt(v) * (x - m), sigma * c / math.sqrt(v)
    gain = alpha * c**2 / v
    return m + alpha * gain * (x - m), math.sqrt(c**2 * sigma**2 / v + gain**2 * sigma**2)


def main(
    run: Annotated[Path | None, typer.Option(help="Run of the digits; default their exact kernel density.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("runs/examples"),
    quick: Annotated[bool, typer.Option("--quick", help="Few steps and few samples.")] = False,
) -> None:
    """Draws both figures."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    figure_of_digits(digits_model(run, sd.load_data("digits")), quick).savefig(out / "editing.png")
    figure_of_gaussian(quick).savefig(out / "editing_gaussian.png")
    print(f"{out / 'editing.png'}, {out / 'editing_gaussian.png'}")


if __name__ == "__main__":
    typer.run(main)
