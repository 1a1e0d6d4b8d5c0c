"""What does a log-density cost? Ours beside what the field does, on the same model, in one run.

Two peers, re-created as their papers' code has them: scipy's RK45 at 1e-5 on the flattened batch, with one Rademacher
probe kept along the path, by reverse mode (Song et al. 2021); torchdiffeq's dopri5 at 1e-5 on the joint ODE, with the
exact trace by one reverse pass per dimension (Chen et al. 2018). Both in the schedule's clock u. Run it:

    python tests/benchmarks/likelihood.py            # a 64-D mixture, and a UNet briefly trained on 28x28 pictures
    python tests/benchmarks/likelihood.py --quick
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torchdiffeq import odeint

from scoresde.analytic import GaussianMixture
from scoresde.data import load_data
from scoresde.likelihood import ExactTrace, Hutchinson, LogProb, log_prob
from scoresde.model import Model, ScoreModel
from scoresde.nn import UNet
from scoresde.objective.loss import Loss
from scoresde.process.sde import VPSDE

TAU_MIN = 1e-3
Value = Callable[[], Tensor]


def mixture() -> GaussianMixture:
    """Five Gaussians in 64 dimensions, standard deviations .03 to 1 along axes rotated at random."""
    draw, size = np.random.default_rng(64), 64
    means = torch.tensor(draw.normal(size=(5, size)))
    spread = torch.tensor(np.exp(draw.uniform(math.log(0.03), 0.0, size=(5, size))))
    axes = torch.linalg.qr(torch.tensor(draw.normal(size=(5, size, size))))[0]
    covs = axes @ torch.diag_embed(spread**2) @ axes.mT
    return GaussianMixture(torch.ones(5, dtype=torch.float64), means, covs, VPSDE(tau_min=TAU_MIN))


def pictures(count: int) -> Tensor:
    """28x28 pictures in [-1, 1]: scikit-learn's digits, enlarged, so that a network has something to learn."""
    data = load_data("digits")
    x = torch.cat([data.train, data.test])[:count].float() / 8.0 - 1.0
    noise = torch.rand(x.shape[0], 1, 28, 28, generator=torch.Generator().manual_seed(0)) / 8.0
    return (torch.nn.functional.interpolate(x, size=28, mode="bilinear") + noise).clamp(-1, 1)


def trained_unet(steps: int) -> ScoreModel:
    """A UNet of .2 M parameters after a few steps."""
    torch.manual_seed(0)
    net = UNet((1, 28, 28), channels=16, multipliers=(1, 2), blocks=1, attention=(), groups=4)
    model, data = ScoreModel(net, VPSDE(tau_min=TAU_MIN)), pictures(1024)
    step = torch.optim.Adam(model.parameters(), 2e-3)
    for i in range(steps):
        batch = data[torch.randint(len(data), (32,), generator=torch.Generator().manual_seed(i))]
        loss = Loss()(model, batch, torch.Generator().manual_seed(i)).mean()
        step.zero_grad()
        loss.backward()
        step.step()
    return model.eval().requires_grad_(False)


# --- the peers -------------------------------------------------------------------------------------------------------


def drift(model: Model, u: float, x: Tensor) -> Tensor:
    """dx/du of the probability-flow ODE."""
    clock, u = model.sde.schedule, min(u, 1.0)  # torchdiffeq looks beyond the end and interpolates
    tau = min(max(float(clock.tau(u)), model.sde.tau_min), model.sde.tau_max)
    return float(clock.rate(u)) * (-x - model(x, tau).score)


def scipy_probe(model: Model, x: Tensor, seed: int) -> tuple[Tensor, int]:
    """RK45 on the flattened batch, one Rademacher probe: log p and the number of evaluations."""
    generator = torch.Generator().manual_seed(seed)
    e = torch.where(torch.rand(x.shape, generator=generator) < 0.5, -1.0, 1.0).to(x.dtype)
    count = 0

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        with torch.enable_grad():
            at = torch.from_numpy(y[: x.numel()]).to(x.dtype).reshape(x.shape).requires_grad_()
            f = drift(model, u, at)
            form = (torch.autograd.grad((f * e).sum(), at)[0] * e).flatten(1).sum(1)
        return np.concatenate([f.detach().double().flatten().numpy(), form.double().numpy()])

    start = np.concatenate([x.double().flatten().numpy(), np.zeros(len(x))])
    ends = (model.sde.u_min, 1.0)
    y = solve_ivp(slope, ends, start, method="RK45", rtol=1e-5, atol=1e-5).y[:, -1]
    z = torch.from_numpy(y[: x.numel()]).reshape(x.shape)
    return end(model, z) + torch.from_numpy(y[x.numel() :]), count


def dopri_exact(model: Model, x: Tensor) -> tuple[Tensor, int]:
    """torchdiffeq's dopri5 on the joint ODE with the exact trace."""
    size, count = x[0].numel(), 0

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal count
        count += 1
        with torch.enable_grad():
            at = state[0].detach().requires_grad_()
            f = drift(model, float(u), at).flatten(1)
            total = torch.zeros_like(state[1])
            for i in range(size):
                total += torch.autograd.grad(f[:, i].sum(), at, retain_graph=True)[0].flatten(1)[:, i].to(total)
        return f.detach().reshape(x.shape), total

    times = torch.tensor([model.sde.u_min, 1.0], dtype=torch.float64)
    z, gained = odeint(slope, (x, torch.zeros(len(x), dtype=torch.float64)), times, rtol=1e-5, atol=1e-5)
    return end(model, z[-1]) + gained[-1], count


def end(model: Model, z: Tensor) -> Tensor:
    """The exact law at the end of the clock where it is known, else the prior."""
    if isinstance(model, GaussianMixture):
        return model.log_prob(z, model.sde.tau_max)
    return model.sde.prior_log_prob(z)


# --- the race --------------------------------------------------------------------------------------------------------


def ours(model: Model, x: Tensor, trace: ExactTrace | Hutchinson, nodes: int, seed: int = 0) -> LogProb:
    """`log_prob` with default path."""
    generator, known = torch.Generator().manual_seed(seed), isinstance(model, GaussianMixture)
    prior = (lambda z: end(model, z)) if known else None
    return log_prob(model, x, trace=trace, nodes=nodes, prior_log_prob=prior, generator=generator)


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The median over some runs."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def exact_race(count: int, repeats: int) -> None:
    """The exact trace in 64 dimensions, at 1e-3 nats."""
    model = mixture()
    x = model.sample(count, TAU_MIN, torch.Generator().manual_seed(0))
    truth = model.log_prob(x, TAU_MIN)
    value, calls = dopri_exact(model, x)
    mine = ours(model, x, ExactTrace(), 40)
    print(f"\nexact trace, 64-D mixture, {count} samples, float64 (asked: wall time at most 1/3 at 1e-3 nats)")
    print(f"  dopri5 1e-5, joint     error {error(value, truth):.1e} nats, {calls} evaluations x 64 products")
    print(f"  ours, 40 nodes         error {error(mine.log_prob, truth):.1e} nats, {int(mine.nfe.max())} calls")
    theirs = seconds(lambda: dopri_exact(model, x), repeats)
    own = seconds(lambda: ours(model, x, ExactTrace(), 40), repeats)
    print(f"  {own:.2f} s over {theirs:.2f} s: {own / theirs:.2f}")


def probe_race(name: str, model: Model, x: Tensor, truth: Tensor | None, nodes: int, repeats: int, draws: int) -> None:
    """One standard error, whatever it takes: time times variance, ours over theirs."""
    runs = [scipy_probe(model, x, seed) for seed in range(draws)]
    values, calls = torch.stack([value for value, _ in runs]), runs[0][1]
    spread = (values - (values.mean(0) if truth is None else truth)).square().mean().sqrt()
    spread *= math.sqrt(draws / (draws - 1)) if truth is None else 1.0
    mine = ours(model, x, Hutchinson(2), nodes)
    own_spread = mine.stderr.square().mean().sqrt()
    theirs = seconds(lambda: scipy_probe(model, x, 0), repeats)
    own = seconds(lambda: ours(model, x, Hutchinson(2), nodes), repeats)
    ratio = float(own * own_spread**2 / (theirs * spread**2))
    print(f"\nprobes, {name}, {len(x)} samples (asked: at most 1/3 of the time at one standard error)")
    print(f"  RK45 1e-5, 1 fixed probe      {float(spread):6.2f} nats in {theirs:6.2f} s, {calls} evaluations")
    print(f"  ours, {nodes} nodes x 2 probes    {float(own_spread):6.2f} nats in {own:6.2f} s")
    print(f"  time at one standard error: {ratio:.3f}")
    print(f"  standard error over theirs: {float(own_spread / spread):.3f}, time over theirs: {own / theirs:.2f}")


def error(value: Tensor, truth: Tensor) -> float:
    """Mean absolute."""
    return float((value - truth).abs().mean())


def main() -> None:
    """All races."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few samples, one repeat")
    quick = parser.parse_args().quick
    count, repeats = (4, 1) if quick else (16, 3)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    exact_race(count, repeats)
    model = mixture()
    x = model.sample(4 * count, TAU_MIN, torch.Generator().manual_seed(1))
    probe_race("64-D mixture", model, x, model.log_prob(x, TAU_MIN), 40, repeats, 2 if quick else 4)
    net = trained_unet(20 if quick else 200)
    probe_race("UNet, 1x28x28", net, pictures(1200)[-4:], None, 40, 1, 2 if quick else 4)


if __name__ == "__main__":
    main()
