"""Cost of a log-density: `log_prob` and two usual methods, on the same model and in one run.

The two methods are implemented as in the code of their papers, both over the schedule's clock u:

- scipy's RK45 at 1e-5 on the flattened batch, with one Rademacher probe for the whole trajectory, by reverse mode (Song
  et al. 2021);
- torchdiffeq's dopri5 at 1e-5 on the joint ODE, with the exact trace by one reverse pass per dimension (Chen et al.
  2018).

Run it:

    python tests/benchmarks/likelihood.py            # a 64-D mixture, and a UNet trained briefly on 28x28 images
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


def mixture() -> GaussianMixture:
    """Five Gaussians in 64 dimensions, standard deviations .03 to 1 along randomly rotated axes."""
    rng, size = np.random.default_rng(64), 64
    means = torch.tensor(rng.normal(size=(5, size)))
    stds = torch.tensor(np.exp(rng.uniform(math.log(0.03), 0.0, size=(5, size))))
    axes = torch.linalg.qr(torch.tensor(rng.normal(size=(5, size, size))))[0]
    covs = axes @ torch.diag_embed(stds**2) @ axes.mT
    return GaussianMixture(torch.ones(5, dtype=torch.float64), means, covs, VPSDE(tau_min=TAU_MIN))


def digit_images(count: int) -> Tensor:
    """28x28 images in [-1, 1]: scikit-learn's digits, enlarged."""
    data = load_data("digits")
    x = torch.cat([data.train, data.test])[:count].float() / 8.0 - 1.0
    noise = torch.rand(x.shape[0], 1, 28, 28, generator=torch.Generator().manual_seed(0)) / 8.0
    return (torch.nn.functional.interpolate(x, size=28, mode="bilinear") + noise).clamp(-1, 1)


def trained_unet(steps: int) -> ScoreModel:
    """A UNet of .2 M parameters after a few updates."""
    torch.manual_seed(0)
    net = UNet((1, 28, 28), channels=16, multipliers=(1, 2), blocks=1, attention=(), groups=4)
    model, data = ScoreModel(net, VPSDE(tau_min=TAU_MIN)), digit_images(1024)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for i in range(steps):
        batch = data[torch.randint(len(data), (32,), generator=torch.Generator().manual_seed(i))]
        loss = Loss()(model, batch, torch.Generator().manual_seed(i)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


# --- usual methods ---


def drift(model: Model, u: float, x: Tensor) -> Tensor:
    """dx/du of the probability-flow ODE."""
    clock, u = model.sde.schedule, min(u, 1.0)  # torchdiffeq also evaluates beyond the end, and interpolates
    tau = min(max(float(clock.tau(u)), model.sde.tau_min), model.sde.tau_max)
    return float(clock.rate(u)) * (-x - model(x, tau).score)


def scipy_log_prob(model: Model, x: Tensor, seed: int) -> tuple[Tensor, int]:
    """RK45 on the flattened batch with one Rademacher probe: log p and the number of evaluations."""
    generator = torch.Generator().manual_seed(seed)
    e = torch.where(torch.rand(x.shape, generator=generator) < 0.5, -1.0, 1.0).to(x.dtype)
    count = 0

    def slope(u: float, y: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        with torch.enable_grad():
            state = torch.from_numpy(y[: x.numel()]).to(x.dtype).reshape(x.shape).requires_grad_()
            f = drift(model, u, state)
            form = (torch.autograd.grad((f * e).sum(), state)[0] * e).flatten(1).sum(1)
        return np.concatenate([f.detach().double().flatten().numpy(), form.double().numpy()])

    start = np.concatenate([x.double().flatten().numpy(), np.zeros(len(x))])
    ends = (model.sde.u_min, 1.0)
    y = solve_ivp(slope, ends, start, method="RK45", rtol=1e-5, atol=1e-5).y[:, -1]
    z = torch.from_numpy(y[: x.numel()]).reshape(x.shape)
    return log_density_at_end(model, z) + torch.from_numpy(y[x.numel() :]), count


def torchdiffeq_log_prob(model: Model, x: Tensor) -> tuple[Tensor, int]:
    """torchdiffeq's dopri5 on the joint ODE with the exact trace."""
    size, count = x[0].numel(), 0

    def slope(u: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        nonlocal count
        count += 1
        with torch.enable_grad():
            y = state[0].detach().requires_grad_()
            f = drift(model, float(u), y).flatten(1)
            trace = torch.zeros_like(state[1])
            for i in range(size):
                trace += torch.autograd.grad(f[:, i].sum(), y, retain_graph=True)[0].flatten(1)[:, i].to(trace)
        return f.detach().reshape(x.shape), trace

    times = torch.tensor([model.sde.u_min, 1.0], dtype=torch.float64)
    z, integral = odeint(slope, (x, torch.zeros(len(x), dtype=torch.float64)), times, rtol=1e-5, atol=1e-5)
    return log_density_at_end(model, z[-1]) + integral[-1], count


def log_density_at_end(model: Model, z: Tensor) -> Tensor:
    """Exact log-density at the end of the clock if it is known, else that of the prior."""
    if isinstance(model, GaussianMixture):
        return model.log_prob(z, model.sde.tau_max)
    return model.sde.prior_log_prob(z)


# --- comparison ---


def ours(model: Model, x: Tensor, trace: ExactTrace | Hutchinson, nodes: int, seed: int = 0) -> LogProb:
    """`log_prob` with its default solver."""
    generator, exact = torch.Generator().manual_seed(seed), isinstance(model, GaussianMixture)
    prior = (lambda z: log_density_at_end(model, z)) if exact else None
    return log_prob(model, x, trace=trace, nodes=nodes, prior_log_prob=prior, generator=generator)


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median over ``repeats`` runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def compare_exact(count: int, repeats: int) -> None:
    """Exact trace in 64 dimensions: error and time."""
    model = mixture()
    x = model.sample(count, TAU_MIN, torch.Generator().manual_seed(0))
    truth = model.log_prob(x, TAU_MIN)
    value, calls = torchdiffeq_log_prob(model, x)
    result = ours(model, x, ExactTrace(), 40)
    print(f"\nexact trace, 64-D mixture, {count} samples, float64 (target: at most 1/3 of the wall time at 1e-3 nats)")
    print(f"  dopri5 1e-5, joint     error {mean_error(value, truth):.1e} nats, {calls} evaluations x 64 products")
    print(
        f"  ours, 40 nodes         error {mean_error(result.log_prob, truth):.1e} nats, {int(result.nfe.max())} calls"
    )
    theirs = median_seconds(lambda: torchdiffeq_log_prob(model, x), repeats)
    own = median_seconds(lambda: ours(model, x, ExactTrace(), 40), repeats)
    print(f"  {own:.2f} s / {theirs:.2f} s = {own / theirs:.2f}")


def compare_probes(
    name: str, model: Model, x: Tensor, truth: Tensor | None, nodes: int, repeats: int, draws: int
) -> None:
    """Random probes: time at equal standard error, ours over theirs, which is the ratio of time times variance."""
    runs = [scipy_log_prob(model, x, seed) for seed in range(draws)]
    values, calls = torch.stack([value for value, _ in runs]), runs[0][1]
    stderr = (values - (values.mean(0) if truth is None else truth)).square().mean().sqrt()
    stderr *= math.sqrt(draws / (draws - 1)) if truth is None else 1.0
    result = ours(model, x, Hutchinson(2), nodes)
    own_stderr = result.stderr.square().mean().sqrt()
    theirs = median_seconds(lambda: scipy_log_prob(model, x, 0), repeats)
    own = median_seconds(lambda: ours(model, x, Hutchinson(2), nodes), repeats)
    ratio = float(own * own_stderr**2 / (theirs * stderr**2))
    print(f"\nprobes, {name}, {len(x)} samples (target: at most 1/3 of the time at equal standard error)")
    print(f"  RK45 1e-5, 1 fixed probe      {float(stderr):6.2f} nats in {theirs:6.2f} s, {calls} evaluations")
    print(f"  ours, {nodes} nodes x 2 probes    {float(own_stderr):6.2f} nats in {own:6.2f} s")
    print(f"  time at equal standard error, ours over theirs: {ratio:.3f}")
    print(f"  standard error over theirs: {float(own_stderr / stderr):.3f}, time over theirs: {own / theirs:.2f}")


def mean_error(value: Tensor, truth: Tensor) -> float:
    """Mean absolute error."""
    return float((value - truth).abs().mean())


def main() -> None:
    """Runs all comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="Few samples, one repeat.")
    quick = parser.parse_args().quick
    count, repeats = (4, 1) if quick else (16, 3)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    compare_exact(count, repeats)
    model = mixture()
    x = model.sample(4 * count, TAU_MIN, torch.Generator().manual_seed(1))
    compare_probes("64-D mixture", model, x, model.log_prob(x, TAU_MIN), 40, repeats, 2 if quick else 4)
    net = trained_unet(20 if quick else 200)
    compare_probes("UNet, 1x28x28", net, digit_images(1200)[-4:], None, 40, 1, 2 if quick else 4)


if __name__ == "__main__":
    main()
