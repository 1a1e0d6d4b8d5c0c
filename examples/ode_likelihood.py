r"""How good is log p by the probability-flow ODE? Scored against models whose density is known in closed form.

    python examples/ode_likelihood.py

Two exact models: a ring of eight Gaussians in the plane, and a mixture of ten Gaussians fitted to handwritten digits
(one per digit, 64 dimensions). Held-out data are scored by integrating d log p = -∇·v dφ, with the divergence computed
exactly or estimated by Hutchinson's random probes; what the closed form says is subtracted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.data import Data, load
from scoresde.likelihood import Adaptive, Exact, Hutchinson, Trace, log_prob
from scoresde.schedule import Cosine
from scoresde.sde import VPSDE


def digits_mixture(data: Data, ridge: float = 0.05) -> GaussianMixture:
    """One Gaussian of full covariance per digit, fitted to the dequantised train part; ``ridge`` on the variances."""
    assert data.train_labels is not None
    x = data.description.to_model(data.description.dequantise(data.train, torch.Generator().manual_seed(0)))
    parts = [x[data.train_labels == label].flatten(1).double() for label in range(10)]
    shares = torch.tensor([len(part) / len(x) for part in parts], dtype=torch.float64)
    covs = torch.stack([torch.cov(part.T) + ridge**2 * torch.eye(64, dtype=torch.float64) for part in parts])
    means = torch.stack([part.mean(0).reshape(1, 8, 8) for part in parts])
    return GaussianMixture(shares, means, covs, VPSDE(Cosine()))


def tolerance_curve(model: GaussianMixture, x: Tensor, tolerances: tuple[float, ...]) -> tuple[list[int], list[float]]:
    """Network calls and mean |error| in nats, with the exact trace, as the solver's tolerance is tightened."""
    truth, calls, errors = model.log_prob(x, model.sde.tau_min), [], []
    for tol in tolerances:
        found = log_prob(model, x, trace=Exact(), solver=Adaptive(tol))
        calls.append(found.nfe)
        errors.append(float((found.log_prob - truth).abs().mean()))
        print(f"  tolerance {tol:7.0e}: {found.nfe:5d} calls, mean |error| {errors[-1]:.2e} nats")
    return calls, errors


def probe_curve(model: GaussianMixture, x: Tensor, kind: str, probes: int) -> tuple[list[int], list[float]]:
    """Root mean square error in nats of the mean over 1, 2, 4 … probes, all from one integration."""
    truth = model.log_prob(x, model.sde.tau_min)
    trace: Trace = Hutchinson(probes, kind)
    found = log_prob(model, x, trace=trace, generator=torch.Generator().manual_seed(0))
    counts = [2**i for i in range(probes.bit_length()) if 2**i <= probes]
    errors = []
    for count in counts:
        groups = found.per_probe[: probes // count * count].reshape(-1, count, len(x)).mean(1)
        errors.append(float((groups - truth).square().mean().sqrt()))
    said = float(found.stderr.square().mean().sqrt())
    print(f"  {kind}: error {errors[0]:.3f} nats with 1 probe, {errors[-1]:.3f} with {probes} (it says ±{said:.3f})")
    return counts, errors


def draw_ring(ax: Axes, model: GaussianMixture, size: int) -> None:
    """Log-density of the ring on a grid, by the ODE."""
    side = torch.linspace(-2.2, 2.2, size, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    found = log_prob(model, grid, trace=Exact()).log_prob
    gap = float((found - model.log_prob(grid, model.sde.tau_min)).abs().max())
    shown = found.reshape(size, size).clamp(min=-12)
    image = ax.imshow(shown, origin="lower", extent=(-2.2, 2.2, -2.2, 2.2), cmap="cividis")
    ax.figure.colorbar(image, ax=ax, label="log p, nats (cut at −12)", shrink=0.85)
    ax.set(title="log p of a ring, by the ODE", xlabel="x₁ (model units)", ylabel="x₂ (model units)")
    ax.grid(False)
    print(f"  on a {size} × {size} grid, largest |error| {gap:.1e} nats")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Of the ring's held-out points.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few data, few probes.")] = False,
) -> None:
    """Prints the errors of the ODE's log p on the two models, and draws them (ode_likelihood.png)."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    data = load("digits")
    plane, mixture = GaussianMixture.ring(sde=VPSDE(Cosine())), digits_mixture(data)
    points = plane.sample(50 if quick else 500, generator=torch.Generator().manual_seed(seed))
    held_out = data.test[: 4 if quick else 32]
    x = data.description.to_model(data.description.dequantise(held_out, torch.Generator().manual_seed(seed))).double()
    bits = data.description.bits_per_dim(mixture.log_prob(x, mixture.sde.tau_min))
    print(f"mixture of ten Gaussians on {len(x)} held-out digits: {bits.mean():.3f} bits/dim in closed form")

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 3.8), width_ratios=(1.05, 1, 1))
    print("ring, exact trace")
    draw_ring(axes[0], plane, 20 if quick else 120)
    tolerances = (1e-2, 1e-4) if quick else (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
    axes[1].plot(*tolerance_curve(plane, points, tolerances), "o-", label="ring, 2 dimensions")
    print("digits, exact trace")
    axes[1].plot(*tolerance_curve(mixture, x, tolerances[:5]), "s--", label="digits, 64 dimensions")
    axes[1].set(xscale="log", yscale="log", xlabel="network calls", ylabel="mean |error| of log p, nats")
    axes[1].set(title="exact trace, tighter solver")
    axes[1].set_xticks((50, 100, 200, 400), ("50", "100", "200", "400"))
    axes[1].xaxis.minorticks_off()
    axes[1].legend()

    print("digits, random probes")
    most = 4 if quick else 64
    for kind, style in (("rademacher", "o-"), ("gaussian", "s--")):
        axes[2].plot(*probe_curve(mixture, x, kind, most), style, label=kind)
    axes[2].set(xscale="log", yscale="log", xlabel="probes", ylabel="root mean square error, nats")
    axes[2].set(title="digits, Hutchinson's trace")
    counts = [2**i for i in range(most.bit_length())]
    axes[2].set_xticks(counts, [str(count) for count in counts])
    axes[2].xaxis.minorticks_off()
    axes[2].legend()
    figure.savefig(out / "ode_likelihood.png")
    print(f"wrote {out / 'ode_likelihood.png'} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    typer.run(main)
