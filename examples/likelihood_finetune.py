r"""What does a trained model gain if log p itself is maximized, and what does it pay?

    python examples/likelihood_finetune.py
    python examples/likelihood_finetune.py --adjoint

A small network learns a ring of eight Gaussians by the usual loss. Then it is trained on: for a few dozen steps by
-log p through the probability-flow ODE (a continuous normalizing flow), or for as many more steps of the usual loss as
it had. The law is known, so that what is left to gain is known too. The ODE's density is not the model's only one: the
bound, and samples of the chain with noise, show what the score itself has become.
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

LAW = GaussianMixture.ring(unit=False, sde=VPSDE(Cosine(), tau_min=1e-4))
USUAL = Training(batch_size=256, loss=Loss(ELBO(), ImportanceTimesteps(ELBO())), lr=2e-3, lr_end=0.0, ema=0.99)


class Score(NamedTuple):
    """Means over held-out points with their standard errors, nats; distances of samples to held-out points.

    Attributes:
        log_p: log p by the ODE.
        ode, bound: How far -log p by the ODE, and the bound on it, lie above the law's own, point by point.
        by_ode, by_chain: Energy distance of samples by the ODE and by the chain with noise, times 1000.
    """

    log_p: tuple[float, float]
    ode: tuple[float, float]
    bound: tuple[float, float]
    by_ode: tuple[float, float]
    by_chain: tuple[float, float]


def finetune(model: ScoreModel, data: Data, steps: int, batch: int, tol: float, adjoint: bool) -> ScoreModel:
    """Adam on -log p of random batches, with gradients through the ODE."""
    tuned = copy.deepcopy(model).requires_grad_(True)
    optimizer = torch.optim.Adam(tuned.parameters(), 1e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator, solver = torch.Generator().manual_seed(1), TorchDiffEq(rtol=tol, atol=tol)
    for step in range(steps):
        x = data.train[torch.randint(len(data.train), (batch,), generator=generator)]
        loss = -differentiable_log_prob(tuned, x, adjoint=adjoint, solver=solver).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
        if step % max(1, steps // 5) == 0:
            print(f"  step {step:3d}: -log p of the batch {loss.detach():.3f} nats", flush=True)
    return tuned


def measure(model: ScoreModel, x: Tensor, train_x: Tensor) -> Score:
    """Everything that is said of a model; the same points, times and noise for all."""
    mean = lambda v: (float(v.mean()), float(v.std()) / len(v) ** 0.5)  # noqa: E731
    generator = torch.Generator().manual_seed(0)
    found = log_prob(model, x, trace=ExactTrace()).log_prob
    profile = measure_error_profile(model, train_x, generator=generator)
    bound = continuous_vlb(model, x, evaluations=256, profile=profile, generator=generator).nats
    distance = []
    for sampler in (ODE(), DDPM(steps=200)):
        drawn = sample(model, len(x), sampler, generator=torch.Generator().manual_seed(0)).data
        apart = energy_distance(drawn.double(), x.double())
        distance.append((1e3 * apart.value, 1e3 * apart.stderr))
    truth = LAW.log_prob(x.double(), model.sde.tau_min)
    return Score(mean(found), mean(truth - found), mean(truth + bound), *distance)


class Held:
    """Counts the bytes that autograd holds for a backward pass, each storage once."""

    def __init__(self) -> None:
        self.users: dict[int, int] = {}
        self.now = self.most = 0

    def pack(self, x: Tensor) -> Any:
        """What autograd keeps in the place of a tensor; it is counted until it is let go."""
        storage, held = x.untyped_storage(), self
        key, size = storage.data_ptr(), storage.nbytes()

        class Kept:
            tensor = x.detach()

            def __del__(self) -> None:
                held.users[key] -= 1
                held.now -= size if not held.users[key] else 0

        self.users[key] = self.users.get(key, 0) + 1
        self.now += size if self.users[key] == 1 else 0
        self.most = max(self.most, self.now)
        return Kept()


def cost(model: ScoreModel, x: Tensor, tol: float, adjoint: bool) -> tuple[float, float]:
    """MiB held at most and processor seconds taken by one gradient of log p."""
    model, held, began = copy.deepcopy(model).requires_grad_(True), Held(), time.process_time()
    with torch.autograd.graph.saved_tensors_hooks(held.pack, lambda kept: kept.tensor):
        value = differentiable_log_prob(model, x, adjoint=adjoint, solver=TorchDiffEq(rtol=tol, atol=tol))
        value.mean().backward()
    return held.most / 2**20, time.process_time() - began


def draw_scores(ax: Axes, scores: dict[str, Score]) -> None:
    """How far -log p by the ODE, and the bound on it, lie above the law's, for each model."""
    for i, score in enumerate(scores.values()):
        for value, color, marker in ((score.ode, "C0", "o"), (score.bound, "C1", "s")):
            ax.errorbar(value[0], i, xerr=value[1], fmt=marker, color=color, capsize=3)
    ax.plot([], [], "o", color="C0", label="ODE")
    ax.plot([], [], "s", color="C1", label="bound")
    ax.set_yticks(range(len(scores)), list(scores))
    ax.set(xlabel="held-out -log p above the law's own, nats", title="what is gained, what is paid")
    ax.set(xlim=(0, None), ylim=(len(scores) - 0.5, -0.6))
    ax.grid(axis="y", visible=False)
    ax.legend()


def draw_density(ax: Axes, model: ScoreModel, title: str, size: int) -> None:
    """p on a grid, by the ODE."""
    side = torch.linspace(-2.1, 2.1, size)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).reshape(-1, 2)
    p = log_prob(model, grid, trace=ExactTrace(), nodes=24).log_prob.exp().reshape(size, size)
    ax.imshow(p.sqrt(), origin="lower", extent=(-2.1, 2.1, -2.1, 2.1), cmap="cividis", vmin=0, vmax=1.1)
    ax.set(title=title, xlabel="x₁ (model units)", ylabel="x₂")
    ax.grid(False)


def draw_cost(ax: Axes, costs: dict[str, list[tuple[float, float, float]]]) -> None:
    """Memory by tolerance."""
    for (name, rows), style in zip(costs.items(), ("o-", "s--"), strict=True):
        ax.plot([tol for tol, _, _ in rows], [mib for _, mib, _ in rows], style, label=name)
        for tol, mib, seconds in rows:
            ax.annotate(f"{seconds:.1f} s", (tol, mib), (0, 6), textcoords="offset points", ha="center", size=8)
    ax.set(xscale="log", yscale="log", xlabel="tolerance", ylabel="held for the gradient, MiB", title="one gradient")
    ax.invert_xaxis()
    ax.legend()
    ax.margins(0.12, 0.2)


def main(
    steps: Annotated[int, typer.Option(help="Fine-tuning steps.")] = 40,
    adjoint: Annotated[
        bool, typer.Option("--adjoint", help="Fine-tune by the adjoint ODE: slower, little memory.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/examples"),
    quick: Annotated[bool, typer.Option("--quick", help="A few updates, a few points.")] = False,
) -> None:
    """Trains, fine-tunes, prints held-out log p before and after, and draws likelihood_finetune.png."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    data = load_data("ring")
    usual = replace(USUAL, steps=4 if quick else 2000)
    steps, batch, points, size = (2, 16, 16, 6) if quick else (steps, 256, 1000, 60)
    x = data.test[:points].float()
    print(f"{torch.get_num_threads()} of {os.cpu_count()} cores, seed {usual.seed}")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fresh = ScoreModel(MLP((2,), width=64, depth=2), LAW.sde, V(), (2,), data.description)

    names = f"{usual.steps} steps", f"{2 * usual.steps} steps", f"{usual.steps} + {steps} of -log p"
    models, seconds = {}, []
    for name in names:
        began = time.process_time()
        if name == names[2]:
            models[name] = finetune(models[names[0]], data, steps, batch, 1e-2, adjoint)
        else:
            models[name] = train(fresh, data, replace(usual, steps=int(name.split()[0]))).model
        seconds.append(time.process_time() - began)
    scores = {name: measure(model, x, data.train[:200].float()) for name, model in models.items()}
    print(f"{len(x)} held-out points: log p by ODE; ODE, bound above the law; samples by ODE, by chain")
    for (name, score), took in zip(scores.items(), seconds, strict=True):
        nats = "; ".join(f"{value:6.3f} ± {error:.3f}" for value, error in score[:3])
        far = "; ".join(f"({value:.1f} ± {error:.1f})e-3" for value, error in score[3:])
        print(f"  {name:22} {nats} nats; {far}; {took:.0f} s of one core")

    costs: dict[str, list[tuple[float, float, float]]] = {}
    for name in ("direct", "adjoint"):
        tolerances = (1e-2,) if quick else (1e-2, 1e-3, 1e-4)
        costs[name] = [(tol, *cost(models[names[0]], x[:128], tol, name == "adjoint")) for tol in tolerances]
        print(
            f"{name:8}" + ", ".join(f"tolerance {tol:g}: {mib:.0f} MiB, {took:.1f} s" for tol, mib, took in costs[name])
        )

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.4))
    axes = axes.T.flatten()
    draw_scores(axes[0], scores)
    draw_cost(axes[1], costs)
    draw_density(axes[2], models[names[0]], "√p by the ODE, before", size)
    draw_density(axes[3], models[names[2]], "√p by the ODE, after", size)
    figure.savefig(out / "likelihood_finetune.png")
    print(f"wrote {out / 'likelihood_finetune.png'}")


if __name__ == "__main__":
    typer.run(main)
