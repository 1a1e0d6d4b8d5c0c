"""Accuracy, error estimates and batch independence of log-densities, on exact models.

The models: a ring of 8 Gaussians; a mixture of 5 in 64 dimensions, with standard deviations from .03 to 1 along
randomly rotated axes; a Gaussian with eigenvalues from 1e-4 to 4. Each is scored at a stated ``tau_min`` with its exact
density at the end of the clock.
"""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.likelihood import AdaptiveSolver, ExactTrace, Hutchinson, LogProb, Trace, log_prob
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial, StepPolynomial
from scoresde.likelihood.ode.quadrature import lobatto
from scoresde.likelihood.ode.trace import Divergence
from scoresde.process.sde import VPSDE

FORWARD = ExactTrace(mode="forward")


def ring(tau_min: float) -> GaussianMixture:
    return GaussianMixture.ring(sde=VPSDE(tau_min=tau_min))


@lru_cache(maxsize=4)
def mixture(tau_min: float) -> GaussianMixture:
    rng, size = np.random.default_rng(64), 64
    means = torch.tensor(rng.normal(size=(5, size)))
    spread = torch.tensor(np.exp(rng.uniform(math.log(0.03), 0.0, size=(5, size))))
    axes = torch.linalg.qr(torch.tensor(rng.normal(size=(5, size, size))))[0]
    covs = axes @ torch.diag_embed(spread**2) @ axes.mT
    return GaussianMixture(torch.ones(5, dtype=torch.float64), means, covs, VPSDE(tau_min=tau_min))


def near_singular(tau_min: float) -> Gaussian:
    axes = torch.linalg.qr(torch.tensor(np.random.default_rng(0).normal(size=(16, 16))))[0]
    variances = torch.logspace(-4, math.log10(4.0), 16, dtype=torch.float64)
    return Gaussian(
        torch.full((16,), 0.3, dtype=torch.float64), axes @ variances.diag() @ axes.T, VPSDE(tau_min=tau_min)
    )


ExactModel = Callable[[float], GaussianMixture | Gaussian]


def score(model: GaussianMixture | Gaussian, x: Tensor, trace: Trace, seed: int = 0, **settings) -> LogProb:
    prior_log_prob = lambda z: model.log_prob(z, model.sde.tau_max)  # noqa: E731
    generator = torch.Generator().manual_seed(seed)
    return log_prob(model, x, trace=trace, prior_log_prob=prior_log_prob, generator=generator, **settings)


def five_batches(model: GaussianMixture | Gaussian, tau_min: float) -> Tensor:
    """Five independent batches of 8 samples, ``(40, d)``; no sample depends on its neighbors (see the last section)."""
    return torch.cat([model.sample(8, tau_min, torch.Generator().manual_seed(seed)) for seed in range(5)])


def largest_mean_error(out: LogProb, truth: Tensor) -> Tensor:
    """The largest of the mean errors of five batches."""
    return (out.log_prob - truth).abs().reshape(5, 8).mean(1).max()


# --- accuracy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tau_min", [1e-3, 1e-5, 5e-7])
@pytest.mark.parametrize("exact_model", [ring, near_singular, pytest.param(mixture, marks=pytest.mark.slow)])
def test_forty_nodes_and_a_hundred_calls_have_an_error_below_a_thousandth_of_a_nat(
    exact_model: ExactModel, tau_min: float
) -> None:
    model = exact_model(tau_min)
    x = five_batches(model, tau_min)
    out = score(model, x, FORWARD, nodes=40)
    assert int(out.nfe.max()) - 40 <= 100
    assert float(largest_mean_error(out, model.log_prob(x, tau_min))) < 1e-3


@pytest.mark.parametrize("tau_min", [1e-3, 1e-5, 5e-7])
@pytest.mark.parametrize("exact_model", [ring, near_singular, pytest.param(mixture, marks=pytest.mark.slow)])
def test_two_hundred_calls_in_total_have_an_error_below_a_ten_thousandth_of_a_nat(
    exact_model: ExactModel, tau_min: float
) -> None:
    model = exact_model(tau_min)
    x = five_batches(model, tau_min)
    out = score(model, x, FORWARD, nodes=100)
    assert int(out.nfe.max()) <= 200
    assert float(largest_mean_error(out, model.log_prob(x, tau_min))) < 1e-4


@pytest.mark.parametrize("tol", [1.0, 0.1, 0.001])
def test_a_loose_solver_tolerance_does_not_change_the_value(tol: float, generator: torch.Generator) -> None:
    model = ring(1e-5)
    x = model.sample(20, 1e-5, generator)
    out = score(model, x, FORWARD, solver=AdaptiveSolver(tol))
    assert (out.log_prob - model.log_prob(x, 1e-5)).abs().mean() < 1e-5


def test_the_solver_term_of_the_budget_follows_the_tolerance(generator: torch.Generator) -> None:
    model = ring(1e-5)
    x = model.sample(20, 1e-5, generator)
    errors = [
        float(score(model, x, FORWARD, solver=AdaptiveSolver(tol)).budget.solver.mean()) for tol in (1.0, 0.1, 1e-4)
    ]
    assert errors[0] > 1e-4
    assert errors[2] < 0.1 * errors[0]


def test_too_few_nodes_widen_the_interval(generator: torch.Generator) -> None:
    model = ring(1e-3)
    x = model.sample(60, 1e-3, generator)
    truth = model.log_prob(x, 1e-3)
    for nodes in (8, 12, 16, 24):
        out = score(model, x, FORWARD, nodes=nodes, solver=AdaptiveSolver(1e-4))
        low, high = out.interval()
        assert ((low <= truth) & (truth <= high)).double().mean() > 0.85
        assert out.budget.quadrature.median() < 100 * (out.log_prob - truth).abs().median() + 1e-2


def test_the_lobatto_rule_is_exact_to_its_degree_and_differentiates_polynomials() -> None:
    rule = lobatto(8)
    for degree in range(14):
        exact = 0.0 if degree % 2 else 2.0 / (degree + 1)
        assert float((rule.weights * rule.points**degree).sum()) == pytest.approx(exact, abs=1e-13)
    assert float((rule.weights * rule.points**14).sum()) != pytest.approx(2 / 15, abs=1e-6)
    slope = rule.derivative @ rule.points**7
    assert torch.allclose(slope, 7 * rule.points**6, rtol=0, atol=1e-11)
    assert torch.allclose(rule.coefficients @ (0.5 * (3 * rule.points**2 - 1)), torch.eye(8, dtype=torch.float64)[2])


def quartic_trajectory() -> PiecewisePolynomial:
    """x = (φ - 1)^4 in one step, and for a second sample 0.01 φ^2 up to 0.8 with a sharp turn in a second step."""

    def step(row: int, distance: float, h: float, x: float, coefficients: list[float]) -> StepPolynomial:
        parts = (
            torch.tensor(part, dtype=torch.float64) for part in ([distance], [h], [[x]], [[[c] for c in coefficients]])
        )
        return StepPolynomial(torch.tensor([row]), *parts)

    steps = [step(0, 0.0, 1.0, 1.0, [-4.0, 6.0, -4.0, 1.0]), step(1, 0.0, 0.8, 0.0, [0.0, 0.008, 0.0, 0.0])]
    steps += [step(1, 0.8, 0.2, 0.0064, [0.0, 0.0, 1.0, 0.0])]
    return PiecewisePolynomial(steps, 2, 0.0, 1.0)


def test_dense_output_has_slopes_and_its_sharpest_turn() -> None:
    trajectory, phi = quartic_trajectory(), torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.7, 0.9]], dtype=torch.float64)
    slope = torch.tensor([[-2.916, -0.5, -0.004], [0.004, 0.014, 0.75]], dtype=torch.float64)
    torch.testing.assert_close(trajectory.slope(phi).squeeze(2), slope)
    turn = trajectory.sharpest_turn().flatten()  # φ (φ - 1)^4 is largest at 1/5; only quarters of a step are compared
    torch.testing.assert_close(turn, torch.tensor([0.25, 1.0], dtype=torch.float64))


def test_dense_output_of_a_decreasing_angle_has_slopes_in_the_angle() -> None:
    forward = quartic_trajectory()
    backward = PiecewisePolynomial([forward.steps], 2, 2.0, -1.0)
    phi = torch.tensor([[0.1, 0.5], [0.3, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(backward.slope(2.0 - phi), -forward.slope(phi))
    torch.testing.assert_close(backward.at(2.0 - phi), forward.at(phi))


def test_the_truncation_term_is_the_change_of_log_p_near_zero(generator: torch.Generator) -> None:
    model = ring(1e-5)
    x = model.sample(50, 0.0, generator)
    out = score(model, x, FORWARD)
    change = (model.log_prob(x, 1e-5) - model.log_prob(x, 0.0)).abs()
    assert torch.allclose(out.budget.truncation, change, rtol=0.05, atol=1e-6)


# --- probes ----------------------------------------------------------------------------------------------------------


def fixed_probe_error(model: GaussianMixture, x: Tensor, nodes: int, seed: int) -> Tensor:
    """The error with one probe along the whole trajectory, as in FFJORD, and with our nodes: only the probe differs."""

    class FixedProbe(Hutchinson):
        def divergence(self, jacobian, noise):
            e = noise.ragged([1] * len(x), x[0]).repeat_interleave(nodes, 0).unsqueeze(0)
            value = jacobian.at(torch.arange(len(x) * nodes), e)[0].reshape(len(x), nodes)
            return Divergence(value, torch.full_like(value, math.nan), torch.ones_like(value))

    out = score(model, x, FixedProbe(1), seed, nodes=nodes)
    return out.log_prob - model.log_prob(x, model.sde.tau_min)


def test_with_the_same_number_of_products_the_error_is_a_third_of_that_of_one_fixed_probe() -> None:
    model = mixture(1e-3)
    x = model.sample(100, 1e-3, torch.Generator().manual_seed(1))
    fixed = fixed_probe_error(model, x, 40, 1).square().mean().sqrt()
    out = score(model, x, Hutchinson(2), nodes=20)
    assert out.products.tolist() == [40] * 100
    ours = (out.log_prob - model.log_prob(x, 1e-3)).square().mean().sqrt()
    assert fixed > 5.0
    assert ours < fixed / 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("exact_model", "trace", "nodes"),
    [
        (ring, Hutchinson(2), 40),
        (ring, Hutchinson(8), 40),
        (near_singular, Hutchinson(4), 40),
        (near_singular, Hutchinson(4, "orthogonal"), 40),
        (mixture, Hutchinson(2), 40),
        (mixture, Hutchinson(8), 24),
    ],
    ids=["ring", "ring allocated", "gaussian", "gaussian orthogonal", "mixture", "mixture allocated"],
)
def test_intervals_have_their_nominal_coverage(exact_model: ExactModel, trace: Trace, nodes: int) -> None:
    model = exact_model(1e-3)
    x = model.sample(300, 1e-3, torch.Generator().manual_seed(2))
    low, high = score(model, x, trace, seed=3, nodes=nodes).interval()
    truth = model.log_prob(x, 1e-3)
    assert 0.92 <= float(((low <= truth) & (truth <= high)).double().mean()) <= 0.98


def test_neyman_allocation_has_a_smaller_error_than_equal_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mixture(1e-3)
    x = model.sample(200, 1e-3, torch.Generator().manual_seed(4))
    truth, spread = model.log_prob(x, 1e-3), []
    for equal in (False, True):
        if equal:
            monkeypatch.setattr(
                "scoresde.likelihood.ode.trace.allocate",
                lambda _, counts, extra: torch.ones_like(counts) * int(extra[0] / 40),
            )
        out = score(model, x, Hutchinson(8), nodes=40)
        assert out.products.tolist() == [320] * 200
        spread.append(float((out.log_prob - truth).square().mean().sqrt()))
    assert spread[0] < 0.97 * spread[1]


def test_a_requested_standard_error_is_reached_or_a_warning_is_given() -> None:
    model = near_singular(1e-3)
    x = model.sample(40, 1e-3, torch.Generator().manual_seed(5))
    two_probes = score(model, x, Hutchinson(2), nodes=24)
    assert two_probes.stderr.median() > 0.3
    reached = score(model, x, Hutchinson(2, stderr=0.15), nodes=24)
    assert (reached.stderr <= 0.15).all()
    error = reached.log_prob - model.log_prob(x, 1e-3)
    assert error.square().mean().sqrt() < 0.2
    assert (reached.products > two_probes.products).all()
    with pytest.warns(RuntimeWarning, match=r"stderr=0.05 nats was not reached for \d+ of 40 samples"):
        limited = score(model, x, Hutchinson(2, stderr=0.05, max_products=200), nodes=24)
    assert (limited.products <= 200).all()
    assert (limited.stderr > 0.05).any()


# --- independence ----------------------------------------------------------------------------------------------------


def test_neither_value_nor_cost_of_a_sample_depends_on_its_neighbors() -> None:
    model = ring(1e-5)
    points = model.sample(32, 1e-5, torch.Generator().manual_seed(6))
    saddles = torch.cat([1e-3 * points[:16], torch.full((8, 2), 1e-9, dtype=torch.float64)])
    for trace in (FORWARD, Hutchinson(4)):
        alone = [log_prob(model, points[i : i + 1], trace=trace, seeds=[i]) for i in range(4)]
        batch = log_prob(model, points, trace=trace, seeds=range(32))
        with_saddles = log_prob(model, torch.cat([points[:4], saddles]), trace=trace, seeds=range(28))
        for i, one in enumerate(alone):
            for other in (batch, with_saddles):
                assert float((other.log_prob[i] - one.log_prob[0]).abs()) <= 1e-9
                assert int(other.nfe[i]) == int(one.nfe[0])
        assert int(with_saddles.nfe.max()) > int(batch.nfe[:4].max())


PROCESS = """
import sys, torch, torch.distributed as dist
from scoresde.analytic import GaussianMixture
from scoresde.likelihood import Hutchinson, log_prob
rank, store = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
model = GaussianMixture.ring()
x = model.sample(7, 0.0, torch.Generator().manual_seed(0))
rows = slice(0, 5) if rank == 0 else slice(5, 7)
mine = log_prob(model, x[rows], trace=Hutchinson(2), seeds=range(7)[rows]).log_prob
parts = [torch.zeros(5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)]
dist.all_gather(parts, torch.nn.functional.pad(mine, (0, 5 - len(mine))))
whole = log_prob(model, x, trace=Hutchinson(2), seeds=range(7)).log_prob
assert (torch.cat([parts[0], parts[1][:2]]) - whole).abs().max() <= 1e-9
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_multi_process_with_unequal_batches_do_not_wait_for_each_other_in_the_solve(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")], stderr=subprocess.PIPE)
        for rank in (0, 1)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=180)
        assert process.returncode == 0, stderr.decode()


def test_the_degrees_of_freedom_are_those_of_the_sum(generator: torch.Generator) -> None:
    variance = torch.randn(2000, 30, 2, generator=generator, dtype=torch.float64).var(2)  # one degree each, variance 1
    weights = torch.ones(2000, 30, dtype=torch.float64)
    error, dof = Divergence(weights, variance, weights).integral_stderr(weights)
    assert float(error.square().mean()) == pytest.approx(30, rel=0.02)
    assert float(1 / (1 / dof).mean()) == pytest.approx(30, rel=0.1)
    exact = Divergence(weights, 0 * variance, weights).integral_stderr(weights)
    assert exact[0].max() == 0
    assert exact[1].min() == math.inf
