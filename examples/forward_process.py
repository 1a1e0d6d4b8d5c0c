r"""Forward process: digits noised along one trajectory, and the times that seven schedules reach on it.

    python examples/forward_process.py

The trajectory of dx = -x dτ + √2 dW is drawn exactly: from one frame to the next, x ← e^(-Δτ) x + √(1 - e^(-2Δτ)) z.
It does not depend on a schedule. A schedule is a clock, drawn below as a ruler: its ticks are its times at
u = 0, 0.05 … 1, on the same axis of log-SNR.
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
    "LinearVP, Song's VP-SDE": LinearVP(),
    "LinearBetas, DDPM": LinearBetas(),
    "Cosine, improved DDPM": Cosine(),
    "LogLinear, VDM": LogLinear(),
    "Sigmoid, Chen": Sigmoid(),
    "StraightPath, flow matching": StraightPath(),
    "GeometricSigma, Song's VE": GeometricSigma(),
}
FIRST, LAST = 10.0, -10.0  # log-SNR of the first and last frame, nats


def forward_trajectory(x: Tensor, log_snrs: list[float], generator: torch.Generator) -> Tensor:
    """One exact trajectory of the process from each image, at ``log_snrs``: ``(frames, n, *D)``."""
    frames, s = [], 0.0
    for tau in map(ou.tau_from_log_snr, log_snrs):
        z = torch.randn(x.shape, generator=generator)
        x = ou.alpha(tau - s) * x + ou.sigma(tau - s) * z
        frames.append(x)
        s = tau
    return torch.stack(frames)


def draw_frames(ax: Axes, frames: Tensor, log_snrs: list[float]) -> None:
    """Images at their log-SNR, one row per digit; above them the same axis in τ."""
    half_width = 0.46 * (log_snrs[0] - log_snrs[1])
    rows = frames.shape[1]
    for log_snr, column in zip(log_snrs, frames):
        for row, image in enumerate(column):
            extent = (log_snr + half_width, log_snr - half_width, row + 0.46, row - 0.46)  # log-SNR falls to the right
            ax.imshow(image[0], cmap="gray_r", vmin=-1.6, vmax=1.6, extent=extent, aspect="auto")
    ax.set(xlim=(FIRST + 0.8, LAST - 0.8), ylim=(rows - 0.5, -0.5), yticks=[])
    ax.grid(False)
    ax.tick_params(labelbottom=False, bottom=False)
    ax.spines[["left", "bottom"]].set_visible(False)
    tau_axis = ax.secondary_xaxis("top", functions=(lambda v: v, lambda v: v))
    taus = (1e-4, 1e-3, 0.01, 0.1, 0.35, 1.0, 2.0, 4.0)
    tau_axis.set_xticks([ou.log_snr(tau) for tau in taus], [f"{tau:g}" for tau in taus])
    tau_axis.set_xlabel("Ornstein–Uhlenbeck time τ")
    tau_axis.spines["top"].set_visible(False)


def draw_rulers(ax: Axes) -> None:
    """One line per clock, with ticks at its log-SNR for u = 0, 0.05 … 1."""
    for row, clock in enumerate(CLOCKS.values()):
        ticks = [(u / 20, ou.log_snr(float(clock.tau(u / 20)))) for u in range(21)]
        visible = [(u, log_snr) for u, log_snr in ticks if LAST - 0.5 <= log_snr <= FIRST + 0.5]
        ends = [min(max(log_snr, LAST - 0.7), FIRST + 0.7) for _, log_snr in (ticks[0], ticks[-1])]
        color = f"C{row}"
        ax.plot(ends, [row, row], color=color, alpha=0.35, lw=1.2)
        ax.scatter([log_snr for _, log_snr in visible], [row] * len(visible), s=12, color=color, zorder=3)
        for u, log_snr in visible:
            if u in (0.25, 0.5, 0.75):
                ax.scatter([log_snr], [row], s=44, color=color, zorder=3)
                ax.annotate(
                    f"u = {u:g}" if row == 0 else f"{u:g}",
                    (log_snr, row),
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


def draw_curves(ax: Axes, quantity: str) -> None:
    """Each clock as a curve over u: ``"tau"`` on a logarithmic axis, or ``"log_snr"``."""
    u = torch.linspace(1e-3, 1.0, 400, dtype=torch.float64)
    for row, (name, clock) in enumerate(CLOCKS.items()):
        tau = torch.as_tensor(clock.tau(u)).clamp(max=30.0)  # the clock of the straight path ends at infinity
        values = tau if quantity == "tau" else ou.log_snr(tau)
        ax.plot(u, values, label=name, ls="--" if row == 1 else "-", color=f"C{row}")
    if quantity == "tau":
        ax.set(yscale="log", ylim=(1e-6, 20), ylabel="τ", title="The clock, τ(u)")
    else:
        ax.set(ylim=(-15, 15), ylabel="log-SNR, nats", title="The same in log-SNR")
    ax.set(xlabel="u", xlim=(0, 1))


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figures.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Random seed of the noise.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer frames.")] = False,
) -> None:
    """Draws the trajectory with the clocks below (forward_process.png), and the clocks as curves (clocks.png)."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    digits = load_data("digits")
    indices = [int((digits.test_labels == label).nonzero()[0]) for label in (0, 3, 4)]
    x0 = digits.description.to_model(digits.description.center(digits.test[indices]))
    count = 7 if quick else 15
    log_snrs = [FIRST + (LAST - FIRST) * i / (count - 1) for i in range(count)]
    frames = forward_trajectory(x0, log_snrs, torch.Generator().manual_seed(seed))

    figure, (top, bottom) = plt.subplots(2, 1, figsize=(9.5, 5.0), height_ratios=(1.75, 2.6))
    draw_frames(top, frames, log_snrs)
    draw_rulers(bottom)
    figure.savefig(out / "forward_process.png")

    figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.6))
    draw_curves(axes[0], "tau")
    draw_curves(axes[1], "log_snr")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(out / "clocks.png")

    print(f"{'clock':30}{'τ at u=0.5':>12}{'log-SNR':>10}{'τ at u=1':>12}{'log-SNR':>10}")
    for name, clock in CLOCKS.items():
        middle, end = float(clock.tau(0.5)), float(clock.tau(1.0))
        print(f"{name:30}{middle:12.4g}{ou.log_snr(middle):10.3g}{end:12.4g}{ou.log_snr(end):10.3g}")
    print(f"wrote {out / 'forward_process.png'} and {out / 'clocks.png'}")


if __name__ == "__main__":
    typer.run(main)
