"""The two toys of the first diffusion paper: heartbeat bits by the binomial kernel, a swiss roll by the Gaussian one.

    python examples/sohl_dickstein.py

Sohl-Dickstein et al. 2015 noise 20 bits with a pulse at every fifth of them (one of 5 phases, so the entropy is
log2 5 = 2.322 bits) by a binomial kernel, and a swiss roll by a Gaussian one. Both run here on one clock. For the
heartbeat, the exact reverse process shows what a chain of K steps costs, and a trained network is held against it.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor

from scoresde.analytic import DiscreteTable
from scoresde.data.toys import swiss_roll
from scoresde.likelihood import continuous_vlb, discrete_vlb, log_prob
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP, CategoricalNet
from scoresde.objective import ELBO, ImportanceTimesteps, Loss, PathKL
from scoresde.process import VPSDE, Binomial, Cosine, LogLinear
from scoresde.sampling import Adams, Ancestral, UniformLogSNR, sample
from scoresde.training import Training, train

BITS, PERIOD = 20, 5
PAPER = 2.414  # bits of the paper's trained model, its table 2
CHAINS = (25, 100, 2000)


def heartbeats() -> Tensor:
    """The 5 sequences, ``(5, 20)``: a 1 at every fifth bit."""
    places = torch.arange(BITS)
    return torch.stack([(places % PERIOD == phase).double() for phase in range(PERIOD)])


def train_heartbeat(minutes: float | None, steps: int, seed: int) -> Model:
    """A network for the bits, by the bound in continuous time."""
    torch.manual_seed(seed)
    net = CategoricalNet(MLP(CategoricalNet.inner_shape((BITS,), 2), width=192, depth=3), (BITS,), classes=2)
    data = heartbeats()[torch.randint(PERIOD, (10_000,))].float()
    settings = Training(
        steps=steps, batch_size=256, loss=PathKL(), lr=2e-3, lr_end=0.0, ema=0.99, minutes=minutes, seed=seed
    )
    return train(ScoreModel(net, Binomial()), data, settings).model


def train_swiss_roll(steps: int, seed: int) -> Model:
    """A network for the points, by the bound in continuous time."""
    torch.manual_seed(seed)
    data, _ = swiss_roll(20_000, torch.Generator().manual_seed(seed))
    model = ScoreModel(MLP((2,), width=128, depth=4), VPSDE(LogLinear(12.0, -8.0), tau_min=1e-5))
    loss = Loss(ELBO(), ImportanceTimesteps(ELBO()))
    return train(model, data, Training(steps=steps, batch_size=256, loss=loss, lr=2e-3, lr_end=0.0, seed=seed)).model


def bits(bound: Any) -> tuple[float, float]:
    """Mean of a bound and its standard error, bits per sequence."""
    nats = bound.nats.double()
    return float(nats.mean()) / math.log(2), float(nats.std()) / math.sqrt(len(nats)) / math.log(2)


def heartbeat_results(model: Model, events: int, samples: int) -> dict[str, Any]:
    """Bits per sequence of the exact model and of the network, and the share of valid samples."""
    x = heartbeats()[torch.arange(events) % PERIOD]
    seeded = lambda: torch.Generator().manual_seed(0)  # noqa: E731
    results: dict[str, Any] = {"entropy": math.log2(PERIOD), "paper": PAPER}
    for name, schedule in (("1/(K-k+1)", Binomial().schedule), ("cosine", Cosine())):
        exact = DiscreteTable(heartbeats(), process=Binomial(schedule))
        for steps in CHAINS:
            terms = min(steps, 64)
            results[f"exact chain, {name}, K={steps}"] = bits(
                discrete_vlb(exact, x, steps, terms=terms if steps > terms else None, generator=seeded())
            )
    results["network, continuous"] = bits(continuous_vlb(model, x.float(), generator=seeded()))
    results["network, K=2000"] = bits(discrete_vlb(model, x.float(), 2000, terms=64, generator=seeded()))
    drawn = sample(model, samples, Ancestral(steps=200), seeds=range(samples)).x
    valid = (drawn.unsqueeze(1) == heartbeats().float()).all(-1).any(-1)
    results["valid samples"] = float(valid.double().mean())
    return results


def draw_strips(ax: Axes, states: Tensor, taus: tuple[float, ...]) -> None:
    """States of one sample as rows, from noise at the top to data at the bottom."""
    ax.imshow(states.numpy(), cmap="gray_r", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    ax.set(xlabel="bit", ylabel="time τ", yticks=range(len(taus)), xticks=range(0, BITS, PERIOD))
    ax.set_yticklabels(["∞" if math.isinf(tau) else f"{tau:.2g}" for tau in taus])
    ax.grid(visible=False)


def draw(bit_model: Model, roll: Model, out: Path) -> Path:
    """One heartbeat from noise to data, and the swiss roll at three times."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), width_ratios=(1.5, 1, 1, 1), layout="constrained")
    run = sample(bit_model, 1, Ancestral(steps=200), seeds=[3], trajectory=True)
    assert run.trajectory is not None
    assert run.taus is not None
    shown = [0, 20, 60, 100, 140, 170, 190, 200]
    draw_strips(axes[0], run.trajectory[shown, 0], tuple(run.taus[i] for i in shown))
    axes[0].set_title("heartbeat, binomial kernel")
    points = sample(roll, 2000, Adams(40, UniformLogSNR()), seeds=range(2000), trajectory=True)
    assert points.trajectory is not None
    assert points.taus is not None
    for ax, i in zip(axes[1:], (0, 25, 40), strict=True):
        ax.scatter(*points.trajectory[i].T, s=2, alpha=0.5)
        ax.set(title=f"swiss roll, τ = {points.taus[i]:.2g}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    path = out / "sohl_dickstein.png"
    figure.savefig(path)
    plt.close(figure)
    return path


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figure and the table.")] = Path("runs/examples"),
    steps: Annotated[int, typer.Option(help="Updates of the heartbeat network, about five minutes.")] = 10_000,
    minutes: Annotated[float | None, typer.Option(help="Its training time, in place of a number of updates.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and data.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Only test that it runs.")] = False,
) -> None:
    """Trains both models; writes the figure and a table of bits."""
    out.mkdir(parents=True, exist_ok=True)
    bit_model = train_heartbeat(None if quick else minutes, 30 if quick else steps, seed)
    roll = train_swiss_roll(30 if quick else 4000, seed)
    results = heartbeat_results(bit_model, 40 if quick else 4000, 20 if quick else 4000)
    held_out, _ = swiss_roll(20 if quick else 2000, torch.Generator().manual_seed(seed + 1))
    density = log_prob(roll, held_out)
    results["swiss roll, held-out log p, nats"] = float(density.log_prob.mean())
    for name, value in results.items():
        text = f"{value[0]:.4f} ± {value[1]:.4f}" if isinstance(value, tuple) else f"{value:.4f}"
        typer.echo(f"{name:36s} {text}")
    (out / "sohl_dickstein.json").write_text(json.dumps(results, indent=2))
    typer.echo(f"figure: {draw(bit_model, roll, out)}")


if __name__ == "__main__":
    typer.run(main)
