r"""One process, many clocks: noise handwritten digits once, and read off where every schedule stands on the film.

    python examples/forward_process.py

The film follows dx = -x dτ + √2 dW exactly: from one frame to the next, x ← e^(-Δτ) x + √(1 - e^(-2Δτ)) z. Nothing in
it knows of a schedule. A schedule is a ruler laid below: its ticks say which frame it has reached at u = 0, 0.05 … 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.data import load_data
from scoresde.process import ou
from scoresde.process.schedule import (
    Cosine,
    GeometricSigma,
    LinearBetas,
    LinearVP,
    LogLinear,
    Schedule,
    Sigmoid,
    StraightPath,
)

CLOCKS: dict[str, Schedule] = {
    "Linear, Song's VP-SDE": LinearVP(),
    "LinearBetas, DDPM": LinearBetas(),
    "Cosine, improved DDPM": Cosine(),
    "LogLinear, VDM": LogLinear(),
    "Sigmoid, Chen": Sigmoid(),
    "Straight, flow matching": StraightPath(),
    "Geometric, Song's VE": GeometricSigma(),
}
FIRST, LAST = 10.0, -10.0  # log-SNR of the film's ends, nats


def film(x: Tensor, log_snrs: list[float], generator: torch.Generator) -> Tensor:
    """One path of the process from each picture, exact at the given log-SNRs: ``(frames, n, *D)``."""
    frames, s = [], 0.0
    for tau in map(ou.tau_from_log_snr, log_snrs):
        z = torch.randn(x.shape, generator=generator)
        x = ou.alpha(tau - s) * x + ou.sigma(tau - s) * z
        frames.append(x)
        s = tau
    return torch.stack(frames)


def draw_film(ax: Axes, frames: Tensor, log_snrs: list[float]) -> None:
    """Pictures at their log-SNR, one row per digit; above them the same axis in τ."""
    half = 0.46 * (log_snrs[0] - log_snrs[1])
    rows = frames.shape[1]
    for at, column in zip(log_snrs, frames):
        for row, picture in enumerate(column):
            place = (at + half, at - half, row + 0.46, row - 0.46)  # log-SNR falls to the right
            ax.imshow(picture[0], cmap="gray_r", vmin=-1.6, vmax=1.6, extent=place, aspect="auto")
    ax.set(xlim=(FIRST + 0.8, LAST - 0.8), ylim=(rows - 0.5, -0.5), yticks=[])
    ax.grid(False)
    ax.tick_params(labelbottom=False, bottom=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    above = ax.secondary_xaxis("top", functions=(lambda v: v, lambda v: v))
    taus = (1e-4, 1e-3, 0.01, 0.1, 0.35, 1.0, 2.0, 4.0)
    above.set_xticks([ou.log_snr(tau) for tau in taus], [f"{tau:g}" for tau in taus])
    above.set_xlabel("Ornstein–Uhlenbeck time τ")
    above.spines["top"].set_visible(False)


def draw_rulers(ax: Axes) -> None:
    """One line per clock, with a tick where it stands at u = 0, 0.05 … 1."""
    for row, clock in enumerate(CLOCKS.values()):
        stops = [(u / 20, ou.log_snr(float(clock.tau(u / 20)))) for u in range(21)]
        inside = [(u, at) for u, at in stops if LAST - 0.5 <= at <= FIRST + 0.5]
        ends = [min(max(at, LAST - 0.7), FIRST + 0.7) for _, at in (stops[0], stops[-1])]
        color = f"C{row}"
        ax.plot(ends, [row, row], color=color, alpha=0.35, lw=1.2)
        ax.scatter([at for _, at in inside], [row] * len(inside), s=12, color=color, zorder=3)
        for u, at in inside:
            if u in (0.25, 0.5, 0.75):
                ax.scatter([at], [row], s=44, color=color, zorder=3)
                ax.annotate(
                    f"u = {u:g}" if row == 0 else f"{u:g}",
                    (at, row),
                    (0, 6),
                    textcoords="offset points",
                    ha="center",
                    fontsize=7.5,
                )
    ax.set_yticks(range(len(CLOCKS)), list(CLOCKS))
    ax.set(xlim=(FIRST + 0.8, LAST - 0.8), ylim=(len(CLOCKS) - 0.5, -0.7))
    ax.set_xlabel("log-SNR = log α²/σ², nats   (data on the left, noise on the right)")
    ax.grid(axis="y", visible=False)
    ax.tick_params(left=False)
    ax.spines["left"].set_visible(False)


def draw_curves(ax: Axes, what: str) -> None:
    """Each clock as a curve over u: τ on a logarithmic axis, or log-SNR."""
    u = torch.linspace(1e-3, 1.0, 400, dtype=torch.float64)
    for row, (name, clock) in enumerate(CLOCKS.items()):
        tau = torch.as_tensor(clock.tau(u)).clamp(max=30.0)  # the straight clock ends at infinity
        ax.plot(u, tau if what == "tau" else ou.log_snr(tau), label=name, ls="--" if row == 1 else "-", color=f"C{row}")
    if what == "tau":
        ax.set(yscale="log", ylim=(1e-6, 20), ylabel="τ", title="The clock, τ(u)")
    else:
        ax.set(ylim=(-15, 15), ylabel="log-SNR, nats", title="The same in log-SNR")
    ax.set(xlabel="u", xlim=(0, 1))


def main(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer frames.")] = False,
) -> None:
    """Draws the film with its rulers (forward_process.png) and the clocks as curves (clocks.png)."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    digits = load_data("digits")
    picked = [int((digits.test_labels == label).nonzero()[0]) for label in (0, 3, 4)]
    x0 = digits.description.to_model(digits.description.center(digits.test[picked]))
    count = 7 if quick else 15
    log_snrs = [FIRST + (LAST - FIRST) * i / (count - 1) for i in range(count)]
    frames = film(x0, log_snrs, torch.Generator().manual_seed(seed))

    figure, (strip, rulers) = plt.subplots(2, 1, figsize=(9.5, 5.0), height_ratios=(1.75, 2.6))
    draw_film(strip, frames, log_snrs)
    draw_rulers(rulers)
    figure.savefig(out / "forward_process.png")

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    draw_curves(axes[0], "tau")
    draw_curves(axes[1], "log_snr")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(out / "clocks.png")

    print(f"{'clock':26}{'τ at u=0.5':>12}{'log-SNR':>10}{'τ at u=1':>12}{'log-SNR':>10}")
    for name, clock in CLOCKS.items():
        middle, end = float(clock.tau(0.5)), float(clock.tau(1.0))
        print(f"{name:26}{middle:12.4g}{ou.log_snr(middle):10.3g}{end:12.4g}{ou.log_snr(end):10.3g}")
    print(f"wrote {out / 'forward_process.png'} and {out / 'clocks.png'}")


if __name__ == "__main__":
    typer.run(main)
