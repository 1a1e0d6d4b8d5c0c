"""A network that diffusers trained, opened here: the same images, distances to the end of 1000 steps, bits/dim.

    python tests/benchmarks/bring_your_model.py           # prints the tables; exits with 1 if a limit is passed
    python tests/benchmarks/bring_your_model.py --draw    # also writes docs/bring-your-model.md and its figure
    python tests/benchmarks/bring_your_model.py --quick   # fewer images, too few for the limit on distances

The network is ``tests/bridges/models/diffusers/linear``, trained by ``tests/bridges/train_diffusers.py`` on digits.
Distances are root mean squares over the pixels, in x, between images of the same noise: at the end of few steps, and at
the end of 1000 steps of diffusers' own DDIM. Clipping is off in all: it makes the end depend on the number of steps.
diffusers is needed.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

from diffusers_peer import FOLDERS, peer_chain, peer_network, peer_scheduler
from race import plot

from scoresde.bridges.diffusers import open_folder
from scoresde.likelihood import BitsPerDim, bits_per_dim
from scoresde.model import ScoreModel
from scoresde.plots.style import INK, figure_style, save_png
from scoresde.sampling import Adams, calibrate, sample

FOLDER = FOLDERS / "linear"
DOCS = Path(__file__).parents[2] / "docs"
CALLS = (10, 20)
LIMIT = 0.5
# the useful settings of their multistep solver, by name
DPM: dict[str, dict[str, Any]] = {
    "": {},
    ", trailing": {"timestep_spacing": "trailing"},
    ", trailing, to the first timestep": {"timestep_spacing": "trailing", "final_sigmas_type": "sigma_min"},
    ", Karras": {"use_karras_sigmas": True},
    ", even in log-SNR": {"use_lu_lambdas": True},
}


class Row(NamedTuple):
    """Images of one method, and their distance to the end of 1000 steps."""

    method: str
    calls: int
    distance: float
    images: Tensor
    ours: bool = False


def rms(a: Tensor, b: Tensor) -> float:
    """Root mean square of the difference."""
    return float((a - b).square().mean().sqrt())


def peer_images(name: str, noise: Tensor, steps: int, **settings: Any) -> Tensor:
    """Images by a scheduler of diffusers, without clipping."""
    scheduler = peer_scheduler(FOLDER, name, clip_sample=False, **settings)
    return peer_chain(scheduler, peer_network(FOLDER, torch.float32), noise, steps)


def same_image(noise: Tensor) -> float:
    """Largest difference between 50 steps of their DDIM, with their clipping, and the opened folder's own sampler."""
    theirs = peer_chain(peer_scheduler(FOLDER, "DDIMScheduler"), peer_network(FOLDER, torch.float32), noise, 50)
    opened = open_folder(FOLDER, scheduler="DDIMScheduler")
    assert opened.sampler is not None
    ours = sample(opened.steered, len(noise), opened.sampler, start=opened.start, init=noise).x
    return float((ours - theirs).abs().max())


def distances(model: ScoreModel, noise: Tensor, end: Tensor) -> list[Row]:
    """All methods, from the same noise."""

    def row(method: str, calls: int, images: Tensor, ours: bool = False) -> Row:
        return Row(method, calls, rms(images, end), images, ours)

    rows = [row("diffusers DDIM", 50, peer_images("DDIMScheduler", noise, 50))]
    for calls in CALLS:
        rows.append(row("diffusers DDIM", calls, peer_images("DDIMScheduler", noise, calls)))
        for label, settings in DPM.items():
            images = peer_images("DPMSolverMultistepScheduler", noise, calls, **settings)
            rows.append(row(f"diffusers DPM++(2M){label}", calls, images))
        rows.append(row("`Adams`", calls, sample(model, len(noise), Adams(calls), init=noise).x, ours=True))
        fitted = calibrate(model, Adams(calls), generator=torch.Generator().manual_seed(0)).sampler
        rows.append(row("`Adams`, calibrated", calls, sample(model, len(noise), fitted, init=noise).x, ours=True))
    return rows


def best(rows: list[Row], calls: int, ours: bool) -> Row:
    """The nearest method at a number of calls."""
    return min((row for row in rows if row.calls == calls and row.ours == ours), key=lambda row: row.distance)


def held_out_digits(count: int) -> Tensor:
    """Digits that the training script leaves out, as bytes, ``(count, 1, 8, 8)``."""
    from sklearn.datasets import load_digits

    values = torch.tensor(load_digits(return_X_y=True)[0], dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (values * (255 / 16)).round().to(torch.uint8)[1500 : 1500 + count]


# --- output -----------------------------------------------------------------------------------------------------------


def distance_table(rows: list[Row]) -> str:
    """The nearest settings of each method, in Markdown."""
    lines = ["| method | network calls | distance to the end of 1000 steps |", "|---|---:|---:|"]
    shown = [rows[0]]
    for calls in CALLS:
        theirs = [row for row in rows if row.calls == calls and not row.ours]
        shown += [row for row in theirs if row.method in ("diffusers DDIM", "diffusers DPM++(2M)")]
        shown += [best(rows, calls, ours=False)] * (best(rows, calls, ours=False) not in shown)
        shown += [row for row in rows if row.calls == calls and row.ours]
    nearest = {id(best(rows, calls, ours)) for calls in CALLS for ours in (True, False)}
    for row in shown:
        value = f"{row.distance:.4f}"
        lines.append(f"| {row.method} | {row.calls} | {f'**{value}**' if id(row) in nearest else value} |")
    return "\n".join(lines)


def bits_table(bits: BitsPerDim) -> str:
    """Bits per dimension and the mean of each error, in Markdown."""
    unit = bits.dims * np.log(2)
    errors = {name: value / unit for name, value in bits.budget.means().items()}
    names = {
        "trace": "divergence of the network",
        "solver": "ODE solver",
        "quadrature": "integral of the divergence",
        "prior": "distribution at the end of the clock taken as normal",
        "truncation": "stop at τ₁ instead of 0",
    }
    lines = ["| | bits per dimension |", "|---|---:|"]
    lines.append(f"| mean over {len(bits.bits)} held-out digits | {bits.mean:.3f} ± {bits.stderr:.3f} |")
    lines += [f"| error: {names[name]} | {value:.1g} |" for name, value in errors.items()]
    return "\n".join(lines)


def draw(rows: list[Row], end: Tensor, path: Path, count: int = 12) -> None:
    """Images at the end of 1000 steps, and five times the difference of each method's from them, one row each."""
    few = CALLS[0]
    methods = [("DDIM, 50 calls", rows[0]), (f"best DPM++(2M), {few}", best(rows, few, ours=False))]
    methods.append((f"calibrated Adams, {few}", best(rows, few, ours=True)))
    shown = [("DDIM, 1000 calls", end), *((f"{label}: error × 5", 5 * (row.images - end)) for label, row in methods)]
    import matplotlib.pyplot as plt

    with figure_style("bring_your_model"):
        figure, axes = plt.subplots(len(shown), count, figsize=(0.55 * count + 2.0, 0.58 * len(shown)))
        for line, (label, images) in zip(axes, shown):
            for axis, image in zip(line, images):
                axis.imshow(image[0].numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
                axis.axis("off")
            line[0].text(-0.3, 0.5, label, transform=line[0].transAxes, ha="right", va="center", color=INK, fontsize=8)
        figure.subplots_adjust(left=0.27, right=0.995, top=0.99, bottom=0.01, wspace=0.08, hspace=0.08)
        save_png(figure, path)


def main() -> int:
    """Prints the tables; 1 if ours is not half as far as the best of theirs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="Fewer images.")
    parser.add_argument("--draw", action="store_true", help="Also write the tables and the figure to the docs.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # diffusers' NumPy conversions
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    images, digits = (32, 8) if options.quick else (256, 64)
    noise = torch.randn(images, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    opened = open_folder(FOLDER)
    for finding in opened.findings:
        print(f"{finding.name:20} {finding.value}  ({finding.source}: {finding.why})")
    same = same_image(noise)
    print(f"\nDDIM at 50, theirs and the opened one: largest difference of a pixel {same:.1e} (range 2, float32)\n")
    end = peer_images("DDIMScheduler", noise, 1000)
    rows = distances(opened.model, noise, end)
    for row in rows:
        print(f"{row.method:50} {row.calls:4}  {row.distance:.4f}")
    generator = torch.Generator().manual_seed(1)
    bits = bits_per_dim(opened.model, held_out_digits(digits), generator=generator)
    tables = f"{distance_table(rows)}\n\n{bits_table(bits)}"
    print(f"\n{tables}\n")
    if options.draw:
        draw(rows, end, DOCS / "img" / "bring_your_model.png")
        plot.insert(DOCS / "bring-your-model.md", "distances", distance_table(rows))
        plot.insert(DOCS / "bring-your-model.md", "bits", bits_table(bits))
        print("wrote docs/bring-your-model.md and docs/img/bring_your_model.png")
    ratios = {calls: best(rows, calls, ours=True).distance / best(rows, calls, ours=False).distance for calls in CALLS}
    print("ours over the best of theirs:", ", ".join(f"{ratio:.2f} at {calls}" for calls, ratio in ratios.items()))
    return int((max(ratios.values()) > LIMIT and not options.quick) or same > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
