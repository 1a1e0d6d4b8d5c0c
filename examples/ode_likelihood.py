r"""How exact is log p by the probability-flow ODE, does it know its error, and does it keep to its own point?

    python examples/ode_likelihood.py

Two laws whose density is known: a ring of eight Gaussians in the plane, and a mixture of ten Gaussians fitted to
handwritten digits (one per digit, 64 dimensions). Beside the library's `log_prob` stands what is usually done, written
out in `joint`: one solve of x and log p together, over the clock, by torchdiffeq, whose steps the batch shares, with
the exact divergence or with one random vector of signs that is kept all the way.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import matplotlib.pyplot as plt
import torch
import typer
from matplotlib.axes import Axes
from torch import Tensor
from torchdiffeq import odeint

from scoresde.analytic import GaussianMixture
from scoresde.data import Data, load_data
from scoresde.likelihood import AdaptiveSolver, ExactTrace, Hutchinson, LogProb, Solver, TorchDiffEq, Trace, log_prob
from scoresde.process.sde import VPSDE

Points = list[tuple[float, float]]


class Law(NamedTuple):
    """A law of known density, and points to score."""

    name: str
    model: GaussianMixture
    x: Tensor

    @property
    def truth(self) -> Tensor:
        """log p at ``tau_min``, nats, ``(B,)``."""
        return self.model.log_prob(self.x, self.model.sde.tau_min)

    def first(self, n: int) -> Law:
        """The same with the first n points."""
        return self._replace(x=self.x[:n])

    def score(self, trace: Trace, solver: Solver | None = None, nodes: int = 40, seed: int = 0) -> LogProb:
        """`log_prob` with the law's own density at the end of the clock, and one seed per point."""
        end = lambda z: self.model.log_prob(z, self.model.sde.tau_max)  # noqa: E731
        seeds = range(10_000 * seed, 10_000 * seed + len(self.x))
        return log_prob(self.model, self.x, trace=trace, solver=solver, nodes=nodes, prior_log_prob=end, seeds=seeds)

    def basis(self) -> Tensor:
        """All unit vectors for every point, ``(d, B, *D)``."""
        size = self.x[0].numel()
        return torch.eye(size).to(self.x).reshape(size, 1, *self.x.shape[1:]).expand(size, *self.x.shape)


def digits_mixture(data: Data, ridge: float = 0.05) -> GaussianMixture:
    """One Gaussian of full covariance per digit, fitted to the dequantized train part; ``ridge`` on the variances."""
    assert data.train_labels is not None
    x = data.description.to_model(data.description.dequantize(data.train, torch.Generator().manual_seed(0)))
    parts = [x[data.train_labels == label].flatten(1).double() for label in range(10)]
    shares = torch.tensor([len(part) / len(x) for part in parts], dtype=torch.float64)
    covs = torch.stack([torch.cov(part.T) + ridge**2 * torch.eye(64, dtype=torch.float64) for part in parts])
    means = torch.stack([part.mean(0).reshape(1, 8, 8) for part in parts])
    return GaussianMixture(shares, means, covs, VPSDE())


def joint(law: Law, directions: Tensor, tol: float) -> tuple[Tensor, Tensor, int]:
    """The usual way: log p of the end, ``(B,)``, what each direction adds, ``(P, B)``, and the network calls."""
    sde, calls = law.model.sde, 0

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        tau, rate = float(sde.schedule.tau(u)), float(sde.schedule.rate(u))
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            v = rate * (-y - law.model(y, tau).score)
        forms = [(torch.autograd.grad(v, y, e, retain_graph=True)[0] * e).flatten(1).sum(1) for e in directions]
        return v.detach(), torch.stack(forms)

    times = torch.tensor([float(sde.schedule.u(sde.tau_min)), 1.0], dtype=torch.float64)
    start = (law.x, law.x.new_zeros(directions.shape[:2]))
    z, added = odeint(slope, start, times, rtol=tol, atol=tol, method="dopri5", options={"step_t": times[1:]})
    return law.model.log_prob(z[-1], sde.tau_max), added[-1], calls


def accuracy(law: Law, settings: list[tuple[float, int]], tolerances: tuple[float, ...]) -> tuple[Points, Points]:
    """Mean |error| in nats by network calls, with the exact divergence: ours, and the joint solve."""
    ours, usual = [], []
    for tol, nodes in settings:
        found = law.score(ExactTrace(), AdaptiveSolver(tol), nodes)
        ours.append((float(found.nfe.double().mean()), float((found.log_prob - law.truth).abs().mean())))
        row = f"AdaptiveSolver({tol:g}), {nodes} nodes"
        print(f"  {law.name:6} {row:30} {ours[-1][0]:6.1f} calls, mean |error| {ours[-1][1]:.1e} nats")
    for tol in tolerances:
        end, added, calls = joint(law, law.basis(), tol)
        usual.append((float(calls), float((end + added.sum(0) - law.truth).abs().mean())))
        row = f"joint solve, tolerance {tol:g}"
        print(f"  {law.name:6} {row:30} {calls:6.1f} calls, mean |error| {usual[-1][1]:.1e} nats", flush=True)
    return ours, usual


def probes(law: Law, counts: tuple[int, ...], asked: tuple[float, ...]) -> dict[str, Points]:
    """Root mean square error in nats by Jacobian products per point."""
    rms = lambda value: float((value - law.truth).square().mean().sqrt())  # noqa: E731
    signs = torch.randint(0, 2, (4, *law.x.shape), generator=torch.Generator().manual_seed(0)).to(law.x) * 2 - 1
    end, added, calls = joint(law, signs, 1e-5)
    curves: dict[str, Points] = {
        "the same signs all the way": [(float(n * calls), rms(end + added[:n].mean(0))) for n in (1, 2, 4)]
    }
    drawn = torch.stack([law.score(Hutchinson(2), seed=i).log_prob for i in range(max(counts) // 2)])
    curves["new signs at each node"] = [(40.0 * n, rms(drawn[: n // 2].mean(0))) for n in counts]
    for name, traces in {
        "and more where they vary": [Hutchinson(n) for n in counts],
        "stderr= asked for": [Hutchinson(2, stderr=value, max_products=100_000) for value in asked],
    }.items():
        curves[name] = []
        for trace in traces:
            found = law.score(trace)
            low, high = found.interval()
            inside = ((low <= law.truth) & (law.truth <= high)).double().mean()
            curves[name].append((float(found.products.double().mean()), rms(found.log_prob)))
            said = float(found.stderr.square().mean().sqrt())
            row = f"Hutchinson({trace.probes})" if trace.stderr is None else f"Hutchinson(stderr={trace.stderr:g})"
            print(f"  {row:26} {curves[name][-1][0]:6.0f} products, error {curves[name][-1][1]:.2f} nats, ", end="")
            print(f"says ±{said:.2f}, 95 % interval holds {inside:.1%} of {len(law.x)}", flush=True)
    for name in list(curves)[:2]:
        print(f"  {name:26} " + ", ".join(f"{error:.2f} nats by {n:.0f}" for n, error in curves[name]))
    return curves


def budget(law: Law, nodes: int) -> dict[str, Tensor]:
    """The terms of each point with few probes and the default prior, and the error that the first three speak of."""
    found = log_prob(law.model, law.x, trace=Hutchinson(4), seeds=range(len(law.x)))
    fine = log_prob(law.model, law.x, trace=ExactTrace(), solver=AdaptiveSolver(1e-3), nodes=nodes)
    error = (found.log_prob - fine.log_prob).abs()
    terms = {name: getattr(found.budget, name) for name in found.budget.means()}
    for name, value in {"|error|": error, **terms}.items():
        print(f"  {name:10} median {value.median():.1e}, largest {value.max():.1e} nats")
    return {"|error|": error, **terms}


def neighbors(law: Law) -> dict[str, list[tuple[int, float]]]:
    """Network calls of one point, and how far its value moves: alone, among 32, and beside points on saddles."""
    point, others = law.x[:1], law.x[1:32]
    saddles = torch.cat([1e-3 * law.x[:16], torch.full((8, 2), 1e-9, dtype=torch.float64)])
    batches = (point, torch.cat([point, others]), torch.cat([point, saddles]))
    out: dict[str, list[tuple[int, float]]] = {}
    for name, solver in {
        "joint": None,
        "TorchDiffEq": TorchDiffEq(rtol=1e-5, atol=1e-5),
        "AdaptiveSolver": AdaptiveSolver(),
    }.items():
        rows = []
        for x in batches:
            here = law._replace(x=x)
            if solver is None:
                end, added, calls = joint(here, here.basis(), 1e-5)
                rows.append((calls, float((end + added.sum(0))[0])))
            else:
                found = here.score(ExactTrace(), solver)
                rows.append((int(found.nfe[0]), float(found.log_prob[0])))
        out[name] = [(calls, abs(value - rows[0][1])) for calls, value in rows]
        print(f"  {name:12} " + ", ".join(f"{calls} calls, moved by {gap:.1e}" for calls, gap in out[name]))
    return out


def draw_accuracy(ax: Axes, curves: dict[str, tuple[Points, Points]]) -> None:
    """Both laws, ours solid and the joint solve dashed."""
    for i, (name, (ours, usual)) in enumerate(curves.items()):
        ax.plot(*zip(*ours), "o-", color=f"C{i}", label=f"{name}, path and trace apart")
        ax.plot(*zip(*usual), "s--", color=f"C{i}", label=f"{name}, joint solve")
    ax.set(xscale="log", yscale="log", xlabel="network calls per point", ylabel="mean |error| of log p, nats")
    ax.set(title="exact divergence")
    ax.set_xticks((50, 100, 150), ("50", "100", "150"))
    ax.xaxis.minorticks_off()
    ax.legend()


def draw_probes(ax: Axes, curves: dict[str, Points]) -> None:
    """Error against products."""
    for (name, curve), style in zip(curves.items(), ("s--", "o-", "^-", "D:"), strict=True):
        ax.plot(*zip(*curve), style, label=name)
    ax.set(xscale="log", yscale="log", xlabel="Jacobian products per point", title="random probes, 64 dimensions")
    ax.set_ylabel("root mean square error, nats")
    ax.legend()


def draw_budget(ax: Axes, terms: dict[str, Tensor]) -> None:
    """A column of dots per term."""
    for i, (name, values) in enumerate(terms.items()):
        shown = values.clamp(min=1e-12)
        across = i + 0.3 * torch.linspace(-1, 1, len(shown), dtype=torch.float64)
        ax.scatter(across, shown, s=14, color="0.45" if name == "|error|" else f"C{i - 1}")
    ax.axvline(0.5, color="0.8", lw=1)
    ax.axvline(3.5, color="0.8", lw=1)
    ax.set(yscale="log", ylabel="nats", title="budget of each digit, 4 probes a node")
    ax.set_xticks(range(len(terms)), list(terms))
    ax.grid(axis="x", visible=False)


def draw_neighbors(ax: Axes, rows: dict[str, list[tuple[int, float]]]) -> None:
    """Bars of calls, with how far the value moved."""
    for i, (name, bars) in enumerate(rows.items()):
        at = [j + 0.28 * (i - 1) for j in range(len(bars))]
        ax.bar(at, [calls for calls, _ in bars], 0.25, label=name)
        for x, (calls, gap) in zip(at[1:], bars[1:]):
            ax.annotate(
                f"{gap:.0e}" if gap else "0", (x, calls), (0, 2), textcoords="offset points", ha="center", size=8
            )
    ax.set_xticks(range(3), ("alone", "among 32", "beside saddles"))
    ax.set(ylabel="network calls", title="one and the same point; on top: moved by, nats")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")


def main(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Of the points.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few points, few probes.")] = False,
) -> None:
    """Prints errors, intervals, budgets and what neighbors do, and draws them (ode_likelihood.png)."""
    plt.style.use(Path(__file__).with_name("pictures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    began, data, plane = time.perf_counter(), load_data("digits"), GaussianMixture.ring(sde=VPSDE())
    generator = torch.Generator().manual_seed(seed)
    x = data.description.to_model(data.description.dequantize(data.test, generator)).double()
    ring = Law("ring", plane, plane.sample(200, plane.sde.tau_min, generator))
    digits = Law("digits", digits_mixture(data), x[:40])
    drawn = digits._replace(x=digits.model.sample(4 if quick else 300, plane.sde.tau_min, generator))
    print(f"seed {seed}, {torch.get_num_threads()} of {os.cpu_count()} cores, tau_min {plane.sde.tau_min:g}")

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6))
    print("exact divergence")
    settings = [(1.0, 8), (0.3, 16), (0.1, 24), (0.1, 40), (0.03, 40), (0.01, 60)][: 2 if quick else 6]
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)[: 1 if quick else 5]
    laws = (ring, digits.first(2 if quick else 8))
    draw_accuracy(axes[0, 0], {law.name: accuracy(law, settings, tolerances) for law in laws})
    print("random probes, draws of the digits' law")
    draw_probes(axes[0, 1], probes(drawn, (2, 4) if quick else (2, 4, 8, 16), (2.0,) if quick else (1.0, 0.5)))
    print("budget, held-out digits")
    draw_budget(axes[1, 0], budget(digits.first(2 if quick else 40), 40 if quick else 100))
    print("one point of the ring alone, among 32, beside points on saddles")
    draw_neighbors(axes[1, 1], neighbors(ring))
    figure.savefig(out / "ode_likelihood.png")
    print(f"wrote {out / 'ode_likelihood.png'} after {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    typer.run(main)
