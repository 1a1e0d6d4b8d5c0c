r"""Fine-tuning of a trained model by -log p through the probability-flow ODE, and longer training by the usual loss.

    python examples/likelihood_finetune.py
    python examples/likelihood_finetune.py --adjoint

A small network is trained on a ring of eight Gaussians by the usual loss. Then it is fine-tuned for a few dozen steps
by -log p of the ODE (a continuous normalizing flow). A third model has twice as many steps of the usual loss. The exact
log-density is known, so the remaining excess is known too. The ODE's density is only one of the model's densities: the
bound, and samples of the stochastic chain, show how the score changed.
"""

from __future__ import annotations

import copy
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.analytic import GaussianMixture
from scoresde.data import Data, load_data
from scoresde.likelihood import (
    ExactTrace,
    TorchDiffEq,
    continuous_vlb,
    differentiable_log_prob,
    log_prob,
    measure_error_profile,
)
from scoresde.metrics import energy_distance
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import ImportanceTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.parameterization import V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDPM, ODE, sample
from scoresde.training import Training, train

RING = GaussianMixture.ring(unit=False, sde=VPSDE(Cosine(), tau_min=1e-4))
USUAL = Training(batch_size=256, loss=Loss(ELBO(), ImportanceTimesteps(ELBO())), lr=2e-3, lr_end=0.0, ema=0.99)


class Evaluation(NamedTuple):
    """Means over held-out points with their standard errors, nats, and energy distances of samples to those points.

    Attributes:
        log_p: log p by the ODE.
        ode_excess, bound_excess: -log p by the ODE, and the bound on it, minus the exact -log p.
        ode_samples, chain_samples: Energy distance of samples by the ODE and by the stochastic chain, times 1000.
    """

    log_p: tuple[float, float]
    ode_excess: tuple[float, float]
    bound_excess: tuple[float, float]
    ode_samples: tuple[float, float]
    chain_samples: tuple[float, float]


def finetune(model: ScoreModel, data: Data, steps: int, batch: int, tol: float, adjoint: bool) -> ScoreModel:
    """Adam on -log p of random batches, with gradients through the ODE."""
    tuned = copy.deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(tuned.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, solver = torch.Generator().manual_seed(1), TorchDiffEq(rtol=tol, atol=tol)
    for step in range(steps):
        x = data.train[torch.randint(len(data.train), (batch,), generator=generator)]
        loss = -differentiable_log_prob(tuned, x, adjoint=adjoint, solver=solver).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % max(1, steps // 5) == 0:
            print(f"  step {step:3d}: -log p of the batch {loss.detach():.3f} nats", flush=True)
    return tuned


def evaluate(model: ScoreModel, x: Tensor, train_x: Tensor) -> Evaluation:
    """Evaluates on points ``x``, with the same timesteps and noise for all models."""
    generator = torch.Generator().manual_seed(0)
    log_p = log_prob(model, x, trace=ExactTrace()).log_prob
    profile = measure_error_profile(model, train_x, generator=generator)
    bound = continuous_vlb(model, x, evaluations=256, profile=profile, generator=generator).nats
    distances = []
    for sampler in (ODE(), DDPM(steps=200)):
        samples = sample(model, len(x), sampler, generator=torch.Generator().manual_seed(0)).data
        distance = energy_distance(samples.double(), x.double())
        distances.append((1e3 * distance.value, 1e3 * distance.stderr))
    exact = RING.log_prob(x.double(), model.sde.tau_min)
    return Evaluation(mean_and_error(log_p), mean_and_error(exact - log_p), mean_and_error(exact + bound), *distances)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean()), float(values.std()) / len(values) ** 0.5


class SavedMemory:
    """Counts the bytes that autograd stores for a backward pass, each storage once.

    Attributes:
        current: Bytes stored now.
        peak: Largest number of bytes stored at one time.
    """

    def __init__(self) -> None:
        self.references: dict[int, int] = {}
        self.current = self.peak = 0

    def pack(self, x: Tensor) -> Any:
        """Pack hook: returns an object that holds the tensor, and counts it until that object is deleted."""
        storage, memory = x.untyped_storage(), self
        key, size = storage.data_ptr(), storage.nbytes()

        class SavedTensor:
            tensor = x.detach()

            def __del__(self) -> None:
                memory.references[key] -= 1
                memory.current -= size if not memory.references[key] else 0

        self.references[key] = self.references.get(key, 0) + 1
        self.current += size if self.references[key] == 1 else 0
        self.peak = max(self.peak, self.current)
        return SavedTensor()


def gradient_cost(model: ScoreModel, x: Tensor, tol: float, adjoint: bool) -> tuple[float, float]:
    """Peak MiB stored for one gradient of log p, and its processor seconds."""
    model, memory, start = copy.deepcopy(model).requires_grad_(True), SavedMemory(), time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(memory.pack, lambda saved: saved.tensor):
        value = differentiable_log_prob(model, x, adjoint=adjoint, solver=TorchDiffEq(rtol=tol, atol=tol))
        value.mean().backward()
    return memory.peak / 2**20, time.process_time() - start


def draw_evaluations(ax: Axes, evaluations: dict[str, Evaluation]) -> None:
    """Excess of -log p by the ODE, and of the bound, over the exact -log p, for each model."""
    for i, entry in enumerate(evaluations.values()):
        for value, color, marker in ((entry.ode_excess, "C0", "o"), (entry.bound_excess, "C1", "s")):
            ax.errorbar(value[0], i, xerr=value[1], fmt=marker, color=color, capsize=3)
    ax.plot([], [], "o", color="C0", label="ODE")
    ax.plot([], [], "s", color="C1", label="bound")
    ax.set_yticks(range(len(evaluations)), list(evaluations))
    ax.set(xlabel="held-out -log p minus the exact value, nats", title="excess by ODE and by bound")
    ax.set(xlim=(0, None), ylim=(len(evaluations) - 0.5, -0.6))
    ax.grid(axis="y", visible=False)
    ax.legend()


def draw_density(ax: Axes, model: ScoreModel, title: str, size: int) -> None:
    """√p on a grid, by the ODE."""
    side = torch.linspace(-2.1, 2.1, size)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    p = log_prob(model, grid, trace=ExactTrace(), nodes=24).log_prob.exp().reshape(size, size)
    ax.imshow(p.sqrt(), origin="lower", extent=(-2.1, 2.1, -2.1, 2.1), cmap="cividis", vmin=0, vmax=1.1)
    ax.set(title=title, xlabel="x₁ (model units)", ylabel="x₂")
    ax.grid(False)


def draw_cost(ax: Axes, costs: dict[str, list[tuple[float, float, float]]]) -> None:
    """Memory against tolerance, with processor seconds at each point."""
    for (name, rows), style in zip(costs.items(), ("o-", "s--"), strict=True):
        ax.plot([tol for tol, _, _ in rows], [mib for _, mib, _ in rows], style, label=name)
        for tol, mib, seconds in rows:
            ax.annotate(f"{seconds:.1f} s", (tol, mib), (0, 6), textcoords="offset points", ha="center", size=8)
    ax.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="stored for the gradient, MiB", title="one gradient")
    ax.invert_xaxis()
    ax.legend()
    ax.margins(0.12, 0.2)


def main(
    steps: Annotated[int, typer.Option(help="Fine-tuning steps.")] = 40,
    adjoint: Annotated[
        bool, typer.Option("--adjoint", help="Fine-tune by the adjoint ODE: slower, with little memory.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the figure.")] = Path("runs/examples"),
    quick: Annotated[bool, typer.Option("--quick", help="A few updates and a few points.")] = False,
) -> None:
    """Trains, fine-tunes, prints held-out log p before and after, and draws likelihood_finetune.png."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    data = load_data("ring")
    usual = replace(USUAL, steps=400 if quick else 2000)
    steps, batch, points, size = (5, 64, 100, 24) if quick else (steps, 256, 1000, 60)
    x = data.test[:points].float()
    print(f"{torch.get_num_threads()} of {os.cpu_count()} cores, seed {usual.seed}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = ScoreModel(MLP((2,), width=64, depth=2), RING.sde, V(), (2,), data.description)

    names = f"{usual.steps} steps", f"{2 * usual.steps} steps", f"{usual.steps} + {steps} of -log p"
    models, seconds = {}, []
    for name in names:
        start = time.process_time()
        if name == names[2]:
            models[name] = finetune(models[names[0]], data, steps, batch, 1e-2, adjoint)
        else:
            models[name] = train(untrained, data, replace(usual, steps=int(name.split()[0]))).model
        seconds.append(time.process_time() - start)
    evaluations = {name: evaluate(model, x, data.train[:200].float()) for name, model in models.items()}
    print_evaluations(evaluations, seconds, len(x))
    costs: dict[str, list[tuple[float, float, float]]] = {}
    for name in ("direct", "adjoint"):
        tolerances = (1e-2,) if quick else (1e-2, 1e-3, 1e-4)
        costs[name] = [(tol, *gradient_cost(models[names[0]], x[:128], tol, name == "adjoint")) for tol in tolerances]
        cells = (f"tolerance {tol:g}: {mib:.0f} MiB, {spent:.1f} s" for tol, mib, spent in costs[name])
        print(f"{name:8}" + ", ".join(cells))

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.4))
    axes = axes.T.flatten()
    draw_evaluations(axes[0], evaluations)
    draw_cost(axes[1], costs)
    draw_density(axes[2], models[names[0]], "√p by the ODE, before", size)
    draw_density(axes[3], models[names[2]], "√p by the ODE, after", size)
    figure.savefig(out / "likelihood_finetune.png")
    print(f"wrote {out / 'likelihood_finetune.png'}")


def print_evaluations(evaluations: dict[str, Evaluation], seconds: list[float], points: int) -> None:
    """One line for each model."""
    print(f"{points} held-out points: log p by ODE; excess by ODE, by bound; distance of samples by ODE, by chain")
    for (name, entry), spent in zip(evaluations.items(), seconds, strict=True):
        nats = "; ".join(f"{value:6.3f} ± {error:.3f}" for value, error in entry[:3])
        distances = "; ".join(f"({value:.1f} ± {error:.1f})e-3" for value, error in entry[3:])
        print(f"  {name:22} {nats} nats; {distances}; {spent:.0f} s of one core")


if __name__ == "__main__":
    typer.run(main)
