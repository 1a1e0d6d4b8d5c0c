r"""Accuracy of log p by the probability-flow ODE: its errors, its error budget, and its independence of the batch.

    python examples/ode_likelihood.py

Two distributions with known density: a ring of eight Gaussians in the plane, and a mixture of ten Gaussians fitted to
handwritten digits (one per digit, 64 dimensions). `log_prob` is compared with the usual method, written out in
`joint_solve`: x and log p are solved together over the clock by torchdiffeq, and the batch shares its steps. The
divergence is exact, or has one random vector of signs for the whole trajectory.
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


class Problem(NamedTuple):
    """An exact model, and points to score.

    Attributes:
        name: For the tables.
        model: Exact.
        x: Points at ``tau_min``, ``(B, *D)``.
    """

    name: str
    model: GaussianMixture
    x: Tensor

    @property
    def truth(self) -> Tensor:
        """Exact log p at ``tau_min``, nats, ``(B,)``."""
        return self.model.log_prob(self.x, self.model.sde.tau_min)

    def first(self, n: int) -> Problem:
        """The same with the first n points."""
        return self._replace(x=self.x[:n])

    def score(self, trace: Trace, solver: Solver | None = None, nodes: int = 40, seed: int = 0) -> LogProb:
        """`log_prob` with the exact density at the end of the clock, and one seed per point."""

        def log_density_at_end(z: Tensor) -> Tensor:
            return self.model.log_prob(z, self.model.sde.tau_max)

        seeds = range(10_000 * seed, 10_000 * seed + len(self.x))
        return log_prob(
            self.model,
            self.x,
            trace=trace,
            solver=solver,
            nodes=nodes,
            prior_log_prob=log_density_at_end,
            seeds=seeds,
        )

    def unit_vectors(self) -> Tensor:
        """All unit vectors for every point, ``(d, B, *D)``."""
        size = self.x[0].numel()
        return torch.eye(size).to(self.x).reshape(size, 1, *self.x.shape[1:]).expand(size, *self.x.shape)


def digits_mixture(data: Data, ridge: float = 0.05) -> GaussianMixture:
    """One Gaussian of full covariance per digit, fitted to the dequantized train part.

    Args:
        data: The digits.
        ridge: Standard deviation of noise that is added to the covariances.
    """
    assert data.train_labels is not None
    x = data.description.to_model(data.description.dequantize(data.train, torch.Generator().manual_seed(0)))
    classes = [x[data.train_labels == label].flatten(1).double() for label in range(10)]
    weights = torch.tensor([len(events) / len(x) for events in classes], dtype=torch.float64)
    covs = torch.stack([torch.cov(events.T) + ridge**2 * torch.eye(64, dtype=torch.float64) for events in classes])
    means = torch.stack([events.mean(0).reshape(1, 8, 8) for events in classes])
    return GaussianMixture(weights, means, covs, VPSDE())


def joint_solve(problem: Problem, directions: Tensor, tol: float) -> tuple[Tensor, Tensor, int]:
    """The usual method: x and log p in one ODE over the clock, solved by torchdiffeq.

    Args:
        problem: The model and the points.
        directions: Vectors e, ``(P, B, *D)``.
        tol: Relative and absolute tolerance.

    Returns:
        log p of the end points, ``(B,)``; the integral of $e^T J e$ for each direction, ``(P, B)``; network calls.
    """
    sde, calls = problem.model.sde, 0

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal calls
        calls += 1
        tau, rate = float(sde.schedule.tau(u)), float(sde.schedule.rate(u))
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            v = rate * (-y - problem.model(y, tau).score)
        forms = [(torch.autograd.grad(v, y, e, retain_graph=True)[0] * e).flatten(1).sum(1) for e in directions]
        return v.detach(), torch.stack(forms)

    times = torch.tensor([float(sde.schedule.u(sde.tau_min)), 1.0], dtype=torch.float64)
    start = (problem.x, problem.x.new_zeros(directions.shape[:2]))
    z, integrals = odeint(slope, start, times, rtol=tol, atol=tol, method="dopri5", options={"step_t": times[1:]})
    return problem.model.log_prob(z[-1], sde.tau_max), integrals[-1], calls


def compare_accuracy(
    problem: Problem, settings: list[tuple[float, int]], tolerances: tuple[float, ...]
) -> tuple[Points, Points]:
    """Mean |error| in nats against network calls, with the exact divergence: by `log_prob` and by the joint solve."""
    separate, joint = [], []
    for tol, nodes in settings:
        result = problem.score(ExactTrace(), AdaptiveSolver(tol), nodes)
        error = float((result.log_prob - problem.truth).abs().mean())
        separate.append((float(result.nfe.double().mean()), error))
        label = f"AdaptiveSolver({tol:g}), {nodes} nodes"
        print(f"  {problem.name:6} {label:30} {separate[-1][0]:6.1f} calls, mean |error| {error:.1e} nats")
    for tol in tolerances:
        end, integrals, calls = joint_solve(problem, problem.unit_vectors(), tol)
        error = float((end + integrals.sum(0) - problem.truth).abs().mean())
        joint.append((float(calls), error))
        label = f"joint solve, tolerance {tol:g}"
        print(f"  {problem.name:6} {label:30} {calls:6.1f} calls, mean |error| {error:.1e} nats", flush=True)
    return separate, joint


def compare_probes(problem: Problem, counts: tuple[int, ...], stderrs: tuple[float, ...]) -> dict[str, Points]:
    """Root mean square error in nats against Jacobian products per point.

    Args:
        problem: The model and the points.
        counts: Probes per node.
        stderrs: Standard errors to request, nats.
    """
    truth = problem.truth
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (4, *problem.x.shape), generator=generator).to(problem.x) * 2 - 1
    end, integrals, calls = joint_solve(problem, signs, 1e-5)
    curves: dict[str, Points] = {
        "same signs at all nodes": [(float(n * calls), rms(end + integrals[:n].mean(0) - truth)) for n in (1, 2, 4)]
    }
    draws = torch.stack([problem.score(Hutchinson(2), seed=i).log_prob for i in range(max(counts) // 2)])
    curves["new signs at each node"] = [(40.0 * n, rms(draws[: n // 2].mean(0) - truth)) for n in counts]
    for name, curve in curves.items():
        print(f"  {name:26} " + ", ".join(f"{error:.2f} nats by {n:.0f}" for n, error in curve))
    for name, traces in {
        "more where they vary": [Hutchinson(n) for n in counts],
        "stderr= requested": [Hutchinson(2, stderr=value, max_products=100_000) for value in stderrs],
    }.items():
        curves[name] = [score_with(problem, trace) for trace in traces]
    return curves


def score_with(problem: Problem, trace: Hutchinson) -> tuple[float, float]:
    """Jacobian products per point and root mean square error; also prints the coverage of the intervals."""
    truth, result = problem.truth, problem.score(trace)
    low, high = result.interval()
    coverage = ((low <= truth) & (truth <= high)).double().mean()
    products, error = float(result.products.double().mean()), rms(result.log_prob - truth)
    label = f"Hutchinson({trace.probes})" if trace.stderr is None else f"Hutchinson(stderr={trace.stderr:g})"
    print(f"  {label:26} {products:6.0f} products, error {error:.2f} nats, stated ±{rms(result.stderr):.2f}, ", end="")
    print(f"95 % interval contains {coverage:.1%} of {len(problem.x)}", flush=True)
    return products, error


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.square().mean().sqrt())


def compute_budget(problem: Problem, nodes: int) -> dict[str, Tensor]:
    """Budget terms of each point with few probes and the default prior, and the error that the first three estimate."""
    result = log_prob(problem.model, problem.x, trace=Hutchinson(4), seeds=range(len(problem.x)))
    reference = log_prob(problem.model, problem.x, trace=ExactTrace(), solver=AdaptiveSolver(1e-3), nodes=nodes)
    error = (result.log_prob - reference.log_prob).abs()
    terms = {"|error|": error, **{name: getattr(result.budget, name) for name in result.budget.means()}}
    for name, values in terms.items():
        print(f"  {name:10} median {values.median():.1e}, largest {values.max():.1e} nats")
    return terms


def compare_batches(problem: Problem) -> dict[str, list[tuple[int, float]]]:
    """Network calls of one point, and the change of its value: alone, among 32, and together with points on saddles."""
    point, others = problem.x[:1], problem.x[1:32]
    saddles = torch.cat([1e-3 * problem.x[:16], torch.full((8, 2), 1e-9, dtype=torch.float64)])
    batches = (point, torch.cat([point, others]), torch.cat([point, saddles]))
    bars: dict[str, list[tuple[int, float]]] = {}
    for name, solver in {
        "joint": None,
        "TorchDiffEq": TorchDiffEq(rtol=1e-5, atol=1e-5),
        "AdaptiveSolver": AdaptiveSolver(),
    }.items():
        rows = []
        for x in batches:
            batch = problem._replace(x=x)
            if solver is None:
                end, integrals, calls = joint_solve(batch, batch.unit_vectors(), 1e-5)
                rows.append((calls, float((end + integrals.sum(0))[0])))
            else:
                result = batch.score(ExactTrace(), solver)
                rows.append((int(result.nfe[0]), float(result.log_prob[0])))
        bars[name] = [(calls, abs(value - rows[0][1])) for calls, value in rows]
        print(f"  {name:14} " + ", ".join(f"{calls} calls, change {change:.1e}" for calls, change in bars[name]))
    return bars


def draw_accuracy(ax: Axes, curves: dict[str, tuple[Points, Points]]) -> None:
    """Both distributions, `log_prob` solid and the joint solve dashed."""
    for i, (name, (separate, joint)) in enumerate(curves.items()):
        ax.plot(*zip(*separate), "o-", color=f"C{i}", label=f"{name}, trajectory and trace separate")
        ax.plot(*zip(*joint), "s--", color=f"C{i}", label=f"{name}, joint solve")
    ax.set(xscale="log", yscale="log", xlabel="network calls per point", ylabel="mean |error| of log p, nats")
    ax.set(title="exact divergence")
    ax.set_xticks((50, 100, 150), ("50", "100", "150"))
    ax.xaxis.minorticks_off()
    ax.legend()


def draw_probes(ax: Axes, curves: dict[str, Points]) -> None:
    """Error against Jacobian products."""
    for (name, curve), style in zip(curves.items(), ("s--", "o-", "^-", "D:"), strict=True):
        ax.plot(*zip(*curve), style, label=name)
    ax.set(xscale="log", yscale="log", xlabel="Jacobian products per point", title="random probes, 64 dimensions")
    ax.set_ylabel("root mean square error, nats")
    ax.legend()


def draw_budget(ax: Axes, terms: dict[str, Tensor]) -> None:
    """A column of dots per term."""
    for i, (name, values) in enumerate(terms.items()):
        heights = values.clamp(min=1e-12)
        columns = i + 0.3 * torch.linspace(-1, 1, len(heights), dtype=torch.float64)
        ax.scatter(columns, heights, s=14, color="0.45" if name == "|error|" else f"C{i - 1}")
    ax.axvline(0.5, color="0.8", lw=1)
    ax.axvline(3.5, color="0.8", lw=1)
    ax.set(yscale="log", ylabel="nats", title="budget of each digit, 4 probes per node")
    ax.set_xticks(range(len(terms)), list(terms))
    ax.grid(axis="x", visible=False)


def draw_batches(ax: Axes, bars: dict[str, list[tuple[int, float]]]) -> None:
    """Bars of network calls, with the change of the value above each."""
    for i, (name, rows) in enumerate(bars.items()):
        positions = [j + 0.28 * (i - 1) for j in range(len(rows))]
        ax.bar(positions, [calls for calls, _ in rows], 0.25, label=name)
        for x, (calls, change) in zip(positions[1:], rows[1:]):
            text = f"{change:.0e}" if change else "0"
            ax.annotate(text, (x, calls), (0, 2), textcoords="offset points", ha="center", size=8)
    ax.set_xticks(range(3), ("alone", "among 32", "with saddles"))
    ax.set(ylabel="network calls", title="one point in three batches; above: change, nats")
    ax.grid(axis="x", visible=False)
    ax.legend(loc="upper left")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figure.")] = Path("runs/examples"),
    seed: Annotated[int, typer.Option(help="Random seed of the points.")] = 0,
    quick: Annotated[bool, typer.Option("--quick", help="Few points and few probes.")] = False,
) -> None:
    """Prints errors, intervals, budgets and the effect of the batch, and draws them (ode_likelihood.png)."""
    plt.style.use(Path(__file__).with_name("figures.mplstyle"))
    out.mkdir(parents=True, exist_ok=True)
    start, data, plane = time.perf_counter(), load_data("digits"), GaussianMixture.ring(sde=VPSDE())
    generator = torch.Generator().manual_seed(seed)
    x = data.description.to_model(data.description.dequantize(data.test, generator)).double()
    ring = Problem("ring", plane, plane.sample(200, plane.sde.tau_min, generator))
    digits = Problem("digits", digits_mixture(data), x[:40])
    samples = digits._replace(x=digits.model.sample(4 if quick else 300, plane.sde.tau_min, generator))
    print(f"seed {seed}, {torch.get_num_threads()} of {os.cpu_count()} cores, tau_min {plane.sde.tau_min:g}")

    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6))
    print("exact divergence")
    settings = [(1.0, 8), (0.3, 16), (0.1, 24), (0.1, 40), (0.03, 40), (0.01, 60)][: 2 if quick else 6]
    tolerances = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)[: 1 if quick else 5]
    problems = (ring, digits.first(2 if quick else 8))
    draw_accuracy(axes[0, 0], {each.name: compare_accuracy(each, settings, tolerances) for each in problems})
    print("random probes, samples of the digits' mixture")
    counts, stderrs = ((2, 4), (2.0,)) if quick else ((2, 4, 8, 16), (1.0, 0.5))
    draw_probes(axes[0, 1], compare_probes(samples, counts, stderrs))
    print("budget, held-out digits")
    draw_budget(axes[1, 0], compute_budget(digits.first(2 if quick else 40), 40 if quick else 100))
    print("one point of the ring alone, among 32, and with points on saddles")
    draw_batches(axes[1, 1], compare_batches(ring))
    figure.savefig(out / "ode_likelihood.png")
    print(f"wrote {out / 'ode_likelihood.png'} after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    typer.run(main)
