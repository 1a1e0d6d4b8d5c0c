"""Variational bounds against -log p by quadrature and closed forms of Gaussian data; standard errors; faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from scoresde._core.elementwise import Scalar
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.data import Description
from scoresde.likelihood.bounds.continuous import continuous_vlb
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder, RoundedDecoder, log_normal_mass
from scoresde.likelihood.bounds.discrete import discrete_vlb
from scoresde.likelihood.bounds.error_profile import ErrorProfile, measure_error_profile
from scoresde.likelihood.bounds.importance_weighted import importance_weighted_vlb
from scoresde.likelihood.bounds.reverse_chain import ReverseChain
from scoresde.likelihood.bounds.step_estimators import variance_from_neighbors
from scoresde.likelihood.bounds.terms import diffusion_term, prior_term
from scoresde.likelihood.dequantize import UniformDequantization
from scoresde.model import Model, ScoreModel, gaussian_process
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    LogNormalTimesteps,
    StratifiedTimesteps,
    TimestepDraw,
    Timesteps,
    UniformTimesteps,
)
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.schedule import LinearVP
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import OptimalVariance, UniformLogSNR
from scoresde.sampling.grid import Chain

D = torch.float64
MEAN, VARIANCE = 0.7, 0.3
EXACT_VARIANCE = OptimalVariance((0.0,), (VARIANCE / (1 + VARIANCE),))  # of data of this variance, at every time
SHORT = VPSDE(LinearVP(beta_max=3.0))  # ends at alpha = .46, where N(0, I) is far from the exact distribution


def gaussian(sde: SDE | None = None, size: int = 1) -> Gaussian:
    return Gaussian(torch.full((size,), MEAN, dtype=D), VARIANCE, sde)


def mixture(sde: SDE | None = None) -> GaussianMixture:
    means = torch.tensor([[-1.2], [0.3], [1.1]], dtype=D)
    return GaussianMixture(torch.tensor([0.5, 0.2, 0.3]), means, torch.tensor([0.04, 0.1, 0.02]), sde)


def terminal(model: Any) -> Callable[[Tensor], Tensor]:
    return lambda z: model.log_prob(z, min(model.sde.tau_max, 30.0))


# --- quadrature -------------------------------------------------------------------------------------------------------


def normals(size: int, count: int) -> tuple[Tensor, Tensor]:
    """Gauss-Hermite nodes ``(N, size)`` and weights of unit normal noise."""
    node, weight = np.polynomial.hermite_e.hermegauss(count)
    nodes = torch.cartesian_prod(*[torch.as_tensor(node)] * size).reshape(-1, size)
    weights = torch.cartesian_prod(*[torch.as_tensor(weight)] * size).reshape(-1, size).prod(1)
    return nodes, weights / weights.sum()


def clock(sde: SDE, panels: int = 20, count: int = 8) -> tuple[Tensor, Tensor]:
    """Gauss-Legendre times and weights dτ from tau_min to the end (at most log-SNR = -40), even panels in log-SNR."""
    node, weight = np.polynomial.legendre.leggauss(count)
    high, low = float(ou.log_snr(sde.tau_min)), float(ou.log_snr(min(sde.tau_max, 20.0)))
    edges = np.linspace(low, high, panels + 1)
    at = torch.as_tensor(np.concatenate([a + (b - a) * (node + 1) / 2 for a, b in zip(edges, edges[1:])]))
    tau = torch.as_tensor(ou.tau_from_log_snr(at))
    return tau, torch.as_tensor(np.tile(weight, panels)) * (high - low) / panels / 2 * ou.beta(tau, 0.0) / 2


def expected_diffusion(
    model: Model, x: Tensor, tau_start: float, count: int, profile: ErrorProfile | None = None
) -> Tensor:
    """The diffusion term of one point ``(1, d)``, by quadrature over times and noise."""
    (eps, weight), (tau, step) = normals(x.shape[1], count), clock(gaussian_process(model))
    n, m = len(eps), len(tau)
    marginal = Marginal(tau.repeat_interleave(n), torch.ones(m * n, dtype=D))
    value = diffusion_term(model, x.expand(m * n, -1), marginal, eps.repeat(m, 1), tau_start=tau_start, profile=profile)
    return (value.reshape(m, n) @ weight) @ step


def expected_prior(model: Any, x: Tensor, tau_start: float, count: int) -> Tensor:
    eps, weight = normals(x.shape[1], count)
    return (
        prior_term(model.sde, x.expand_as(eps), tau_start=tau_start, prior_log_prob=terminal(model), eps=eps) @ weight
    )


# --- identities -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "profile", [None, ErrorProfile((-5.0, 5.0), (0.1, 0.8), (0.2, 0.7), (1.0, 1.0))], ids=["plain", "profile"]
)
@pytest.mark.parametrize(
    ("model", "count"),
    [(gaussian(), 20), (mixture(), 200), (gaussian(Flow()), 20), (mixture(SHORT), 200), (gaussian(VE()), 20)],
    ids=["gaussian", "mixture", "gaussian, infinite clock", "mixture, short clock", "gaussian, VE"],
)
def test_with_the_exact_score_and_prior_the_bound_of_a_point_is_minus_log_p(model, count, profile) -> None:
    tau = model.sde.tau_min
    for value in (-1.3, 0.1, 0.9):
        x = torch.tensor([[value]], dtype=D)
        bound = expected_prior(model, x, tau, count) + expected_diffusion(model, x, tau, count, profile)
        assert bound.item() == pytest.approx(-model.log_prob(x, tau).item(), abs=1e-6)


def test_with_the_exact_score_and_prior_the_bound_on_the_ring_is_minus_log_p() -> None:
    model = GaussianMixture.ring(std=0.3)
    tau = model.sde.tau_min
    for x in (torch.tensor([[1.2, 0.4]], dtype=D), torch.tensor([[0.1, -0.3]], dtype=D)):
        bound = expected_prior(model, x, tau, 60) + expected_diffusion(model, x, tau, 60)
        assert bound.item() == pytest.approx(-model.log_prob(x, tau).item(), abs=1e-6)


def test_the_gradient_of_the_exact_bound_in_the_data_is_minus_the_score() -> None:
    model = mixture()
    tau = model.sde.tau_min
    x = torch.tensor([[0.4]], dtype=D, requires_grad=True)
    (expected_prior(model, x, tau, 200) + expected_diffusion(model, x, tau, 200)).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(-model(x.detach(), tau).score.item(), abs=1e-5)


@dataclass(frozen=True)
class Posterior(Decoder):
    """The exact distribution of an integer value given the state, for values of known probabilities."""

    weights: tuple[float, ...]

    calls = 0

    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        assert model.data is not None
        centers = model.data.to_model(torch.arange(len(self.weights), dtype=D)[:, None] + 0.5)[:, 0]
        terms = torch.tensor(self.weights, dtype=D).log() - 0.5 * ((x - ou.alpha(tau) * centers) / ou.sigma(tau)) ** 2
        return -torch.log_softmax(terms, 1).gather(1, data.long())[:, 0]


def integer_model(weights: tuple[float, ...]) -> GaussianMixture:
    """The exact model of integer values with these probabilities, each at the center of its bin."""
    description = Description("integers", (1,), bins=len(weights))
    centers = description.to_model(torch.arange(len(weights), dtype=D)[:, None] + 0.5)
    model = GaussianMixture(
        torch.tensor(weights, dtype=D), centers, torch.zeros(len(weights)), VPSDE(LinearVP(beta_max=5.0), tau_min=0.02)
    )
    model.data = description
    return model


def test_with_the_exact_decoder_the_bound_of_an_integer_value_is_minus_its_log_probability() -> None:
    weights = (0.1, 0.25, 0.05, 0.6)
    model, decoder = integer_model(weights), Posterior(weights)
    assert model.data is not None
    eps, weight = normals(1, 300)
    for k, probability in enumerate(weights):
        values = torch.full((len(eps), 1), k)
        x = model.data.to_model(values[:1].to(D) + 0.5)
        noised = model.sde.perturb(x.expand_as(eps), model.sde.tau_min, eps)
        cost = decoder.cost(model, values, noised, model.sde.tau_min, {}) @ weight
        bound = expected_prior(model, x, 0.0, 300) + expected_diffusion(model, x, 0.0, 300) + cost
        assert bound.item() == pytest.approx(-math.log(probability), abs=1e-6)


def test_with_the_kernel_decoder_the_bound_is_the_expected_log_density_of_the_noised_data() -> None:
    model = mixture()
    x0 = torch.tensor([[0.35]], dtype=D)
    eps, weight = normals(1, 200)
    tau = model.sde.tau_min
    noised = model.sde.perturb(x0.expand_as(eps), tau, eps)
    bound = expected_prior(model, x0, 0.0, 200) + expected_diffusion(model, x0, 0.0, 200)
    bound = bound + KernelDecoder().cost(model, x0, x0, tau, {})
    exact = -model.log_prob(noised, tau) @ weight - math.log(ou.alpha(tau))
    assert bound.item() == pytest.approx(exact.item(), abs=1e-6)


def test_a_wrong_prior_costs_the_stated_difference_and_on_average_its_divergence() -> None:
    model = gaussian(SHORT)
    end, tau = SHORT.tau_max, SHORT.tau_min
    a, b = ou.alpha(end - tau), ou.sigma(end - tau)
    mean, variance = ou.alpha(end) * MEAN, ou.alpha(end) ** 2 * VARIANCE + ou.sigma(end) ** 2
    x = torch.linspace(-1, 2, 5, dtype=D)[:, None]
    excess = prior_term(SHORT, x, tau_start=tau) - torch.stack([expected_prior(model, v[None], tau, 20) for v in x])
    # E[log p_T(x_T) - log N(x_T; 0, 1)], x_T normal about a x
    second = ((a * x[:, 0] - mean) ** 2 + b * b) / variance
    closed = 0.5 * ((a * x[:, 0]) ** 2 + b * b - second - math.log(variance))
    assert torch.allclose(excess, closed, rtol=0, atol=1e-9)
    eps, weight = normals(1, 20)  # over the distribution of the data at tau_min
    data = ou.alpha(tau) * MEAN + math.sqrt(ou.alpha(tau) ** 2 * VARIANCE + ou.sigma(tau) ** 2) * eps
    average = ((prior_term(SHORT, data, tau_start=tau) - closed_end(data, a, b, mean, variance)) @ weight).item()
    assert average == pytest.approx(0.5 * (variance + mean**2 - 1 - math.log(variance)), abs=1e-9)


def closed_end(x: Tensor, a: float, b: float, mean: float, variance: float) -> Tensor:
    """-E log N(x_T; mean, variance)."""
    return 0.5 * (((a * x[:, 0] - mean) ** 2 + b * b) / variance + math.log(2 * math.pi * variance))


# --- Gaussian data: every number in closed form -----------------------------------------------------------------------


def minimal_error(x0: float, tau: float) -> float:
    """E|ε̂ - ε|² of the exact model over the noise, for fixed clean data."""
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    v = alpha**2 * VARIANCE + sigma**2
    return (alpha**2 * VARIANCE / v) ** 2 + (alpha * sigma * (x0 - MEAN) / v) ** 2


@pytest.mark.parametrize("tau", [1e-5, 0.01, 0.4, 3.0])
def test_the_diffusion_term_of_gaussian_data_is_its_closed_form(tau: float) -> None:
    model, (eps, weight) = gaussian(), normals(1, 20)
    rate = torch.full((20,), 1.7, dtype=D)
    for value in (-0.5, 1.4):
        x0 = torch.full((20, 1), value, dtype=D)
        term = diffusion_term(model, x0, Marginal(torch.full((20,), tau, dtype=D), rate), eps) @ weight
        assert term.item() == pytest.approx(1.7 / ou.beta(tau, 0.0) * minimal_error(value, tau), rel=1e-9)


@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde", EXACT_VARIANCE], ids=["beta", "beta_tilde", "optimal"])
def test_a_chains_terms_of_gaussian_data_are_their_closed_forms(rev_var) -> None:
    model, (eps, weight) = gaussian(), normals(1, 20)
    x0 = torch.full((20, 1), 1.1, dtype=D)
    chain = ReverseChain.of(model, x0, 10, Chain(), rev_var, None, None)
    for k in range(2, 11):
        tau, s = chain.knots[k], chain.knots[k - 1]
        beta, q_var = ou.beta(tau, s), ou.beta(tau, s) * ou.beta(s, 0.0) / ou.beta(tau, 0.0)
        factor = ou.alpha(s) * beta / ou.beta(tau, 0.0)
        spread = ou.sigma(tau) ** 2 * VARIANCE / (ou.alpha(tau) ** 2 * VARIANCE + ou.sigma(tau) ** 2)
        p_var = {"beta": beta, "beta_tilde": q_var}.get(str(rev_var), q_var + factor**2 * spread)
        miss = minimal_error(1.1, tau) * (ou.sigma(tau) / ou.alpha(tau)) ** 2
        exact = 0.5 * (q_var / p_var - 1 - math.log(q_var / p_var) + factor**2 * miss / p_var)
        assert (chain.kl(x0, torch.tensor(k), eps, {}) @ weight).item() == pytest.approx(exact, rel=1e-7, abs=1e-12)
    noised = ou.alpha(chain.knots[1]) * x0 + ou.sigma(chain.knots[1]) * eps
    last = chain.reconstruction(x0, x0, noised, {}) @ weight
    tau = chain.knots[1]
    miss = minimal_error(1.1, tau) * (ou.sigma(tau) / ou.alpha(tau)) ** 2
    _, first, second = chain.knots[:3]
    tilde = ou.beta(second, first) * ou.beta(first, 0.0) / ou.beta(second, 0.0)
    variance = {"beta": ou.beta(tau, 0.0), "beta_tilde": tilde}.get(
        str(rev_var), ou.beta(tau, 0.0) * VARIANCE / (ou.alpha(tau) ** 2 * VARIANCE + ou.beta(tau, 0.0))
    )
    assert last.item() == pytest.approx(0.5 * (miss / variance + math.log(2 * math.pi * variance)), rel=1e-7)


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("grid", [Chain(), UniformLogSNR()], ids=["clean", "at tau_min"])
def test_the_optimal_chain_of_gaussian_data_is_exact_for_every_length(steps: int, grid) -> None:
    model, (eps, weight) = gaussian(SHORT), normals(1, 30)
    x = torch.full((30, 1), 1.3, dtype=D)
    chain = ReverseChain.of(model, x, steps, grid, EXACT_VARIANCE, None, None)
    clean = chain.knots[0] == 0.0
    chain = chain if clean else ReverseChain.of(model, x, steps, grid, EXACT_VARIANCE, None, None)
    tau_start = chain.initial.tau_start
    terms = [chain.kl(x, torch.tensor(k), eps, {}) @ weight for k in range(chain.first, steps + 1)]
    elapsed = chain.decoding_tau - tau_start
    noised = ou.alpha(elapsed) * x + ou.sigma(elapsed) * eps
    total = sum(terms, chain.reconstruction(x, x, noised, {}) @ weight)
    prior = expected_prior(model, x[:1], tau_start, 30).item()
    prior -= 0.0 if clean else 0.5 * math.log(2 * math.pi * math.e * ou.beta(SHORT.tau_max, tau_start))
    assert total.item() + prior == pytest.approx(-model.log_prob(x[:1], tau_start).item(), abs=1e-8)


@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde"])
def test_a_chains_length_times_its_terms_tends_to_the_integrand_at_first_order(rev_var: str) -> None:
    model, (eps, weight) = mixture(), normals(1, 100)
    x0, u = torch.full((100, 1), 0.3, dtype=D), 0.25
    marginal = Marginal(
        torch.full((100,), float(model.sde.schedule.tau(u)), dtype=D), float(model.sde.schedule.rate(u))
    )
    limit = (diffusion_term(model, x0, marginal, eps) @ weight).item()
    errors = []
    lengths = [200, 400, 800, 1600]
    for steps in lengths:
        chain = ReverseChain.of(model, x0, steps, Chain(), rev_var, None, None)
        errors.append(abs(steps * (chain.kl(x0, torch.tensor(steps // 4), eps, {}) @ weight).item() - limit))
    slope = np.polyfit(np.log(lengths), np.log(errors), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.05)


# --- estimates and their errors ---------------------------------------------------------------------------------------


def scatter(bound, exact: Tensor) -> tuple[float, float, float]:
    """Mean error in units of its standard error, root mean square of the errors and of their standard errors."""
    error = bound.nats - exact
    rms = bound.stderr.square().mean().sqrt()
    return (error.mean() / rms * math.sqrt(len(error))).item(), error.square().mean().sqrt().item(), rms.item()


@pytest.mark.parametrize(
    "timesteps", [None, UniformTimesteps(), StratifiedTimesteps(), LogNormalTimesteps(even=0.5)], ids=repr
)
def test_the_bound_is_unbiased_for_all_timesteps_and_its_standard_error_is_correct(
    timesteps: Timesteps | None, generator
) -> None:
    model = GaussianMixture.ring(std=0.3)
    x = model.sample(300, model.sde.tau_min, generator)
    out = continuous_vlb(
        model, x, timesteps=timesteps, replicates=8, prior_log_prob=terminal(model), generator=generator
    )
    mean, error, stated = scatter(out, -model.log_prob(x, model.sde.tau_min))
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.2)
    assert out.nfe == 64
    assert out.bits is None
    assert torch.allclose(out.nats, sum(out.terms.values(), torch.zeros(())))


@dataclass(frozen=True)
class Recorded(Timesteps):
    """Uniform timesteps that record the numbers from which they were drawn."""

    recorded: list[Tensor] = field(default_factory=list, hash=False)

    def draw(self, uniforms: Tensor, sde: SDE) -> TimestepDraw:
        self.recorded.append(uniforms)
        return UniformTimesteps().draw(uniforms, sde)


def test_every_sample_has_separate_lattices_each_shifted_at_random(generator) -> None:
    timesteps = Recorded()
    continuous_vlb(
        gaussian(), torch.zeros(3, 1), timesteps=timesteps, evaluations=40, replicates=4, generator=generator
    )
    recorded = torch.stack(timesteps.recorded).reshape(4, 5, 3)
    gaps = recorded.sort(1).values.diff(dim=1)
    assert torch.allclose(gaps, torch.full_like(gaps, 0.2))
    shifts = recorded.amin(1).flatten().sort().values
    assert shifts.diff().min() > 1e-6


def test_a_profile_reduces_the_standard_error_and_keeps_the_expectation(generator) -> None:
    model = GaussianMixture.ring()
    profile = measure_error_profile(model, model.sample(200, 0.0, generator), generator=generator)
    x, exact = model.sample(300, model.sde.tau_min, generator), None
    exact = -model.log_prob(x, model.sde.tau_min)
    options: dict[str, Any] = {"replicates": 8, "prior_log_prob": terminal(model), "generator": generator}
    plain = continuous_vlb(model, x, **options)
    better = continuous_vlb(model, x, profile=profile, **options)
    mean, error, stated = scatter(better, exact)
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.2)
    assert error < scatter(plain, exact)[1] / 5


def test_on_isotropic_gaussian_data_a_profile_leaves_only_the_noise_of_the_timesteps(generator) -> None:
    model = gaussian(size=8)
    profile = measure_error_profile(model, model.sample(64, 0.0, generator), points=200, generator=generator)
    x = model.sample(50, model.sde.tau_min, generator)
    options: dict[str, Any] = {"replicates": 4, "prior_log_prob": terminal(model), "generator": generator}
    errors = [
        scatter(continuous_vlb(model, x, profile=p, **options), -model.log_prob(x, model.sde.tau_min))[1]
        for p in (None, profile)
    ]
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("terms", [None, 40])
@pytest.mark.parametrize("grid", [Chain(), UniformLogSNR()], ids=["clean", "at tau_min"])
def test_the_discrete_bound_is_unbiased_and_its_standard_error_is_correct(terms: int | None, grid, generator) -> None:
    model = gaussian(SHORT, 3)
    tau_start = 0.0 if isinstance(grid, Chain) else SHORT.tau_min
    x = model.sample(400, tau_start, generator)
    out = discrete_vlb(
        model, x, 60, grid=grid, rev_var=EXACT_VARIANCE, terms=terms, replicates=8, generator=generator,
        prior_log_prob=terminal(model),
    )  # fmt: skip
    mean, error, stated = scatter(out, -model.log_prob(x, tau_start))
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.25)
    assert out.nfe == (61 if terms is None else 48)
    assert out.per_step is not None
    assert (out.per_step.sum() + out.terms["prior"].mean()).item() == pytest.approx(out.mean, abs=1e-9)


def test_neighboring_terms_estimate_the_variance_of_their_sum(generator) -> None:
    decreases = 1.0 / torch.arange(1, 61, dtype=D)
    drift = torch.linspace(5, 9, 60, dtype=D)
    kl = decreases[:, None] * (drift[:, None] + 2.0 * torch.randn(60, 4000, generator=generator, dtype=D))
    exact = 4.0 * decreases.square().sum().item()
    assert variance_from_neighbors(kl, decreases)[0].mean().item() == pytest.approx(exact, rel=0.05)
    assert variance_from_neighbors(kl, decreases)[0].mean().item() == pytest.approx(kl.sum(0).var().item(), rel=0.1)
    assert bool(variance_from_neighbors(kl[:1], decreases[:1])[0].isnan().all())
    assert torch.equal(variance_from_neighbors(kl[:0], decreases[:0])[0], torch.zeros(4000, dtype=D))


def test_sampling_steps_by_a_profile_keeps_the_bound_unbiased(generator) -> None:
    model = gaussian(SHORT, 3)
    x = model.sample(400, 0.0, generator)
    profile = measure_error_profile(model, x[:100], generator=generator)
    out = discrete_vlb(
        model, x, 60, rev_var=EXACT_VARIANCE, terms=40, profile=profile, generator=generator,
        prior_log_prob=terminal(model),
    )  # fmt: skip
    mean, error, stated = scatter(out, -model.log_prob(x))
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.25)


def test_the_optimal_reverse_variance_gives_the_lowest_bound(generator) -> None:
    model = gaussian(SHORT)
    x = model.sample(300, 0.0, generator)
    options: dict[str, Any] = {"generator": generator, "prior_log_prob": terminal(model), "draws": 4}
    means = [discrete_vlb(model, x, 8, rev_var=v, **options).mean for v in (EXACT_VARIANCE, "beta", "beta_tilde")]
    assert means[0] < means[1] - 0.01
    assert means[0] < means[2] - 0.01


class Mixed(Model):
    """An exact model that also returns a constant mix of a learned variance."""

    def __init__(self, inner: Model, mix: float) -> None:
        super().__init__()
        self.inner, self.mix, self.sde, self.event_shape = inner, mix, inner.sde, inner.event_shape

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        p = self.inner(x, tau)
        return GaussianPrediction(x, tau, p.out, p.parameterization, torch.full_like(x, self.mix))


@pytest.mark.parametrize(("mix", "rev_var"), [(1.0, "beta"), (0.0, "beta_tilde")])
def test_a_learned_variance_at_its_ends_is_beta_or_beta_tilde(mix: float, rev_var: str, generator) -> None:
    model = gaussian(size=2)
    x = model.sample(5, 0.0, generator)
    learned = discrete_vlb(Mixed(model, mix), x, 12, rev_var="learned", seeds=range(5))
    fixed = discrete_vlb(model, x, 12, rev_var=rev_var, seeds=range(5))
    assert torch.allclose(learned.nats, fixed.nats, rtol=1e-9)
    with pytest.raises(ValueError, match="learned variance needs a model that returns one"):
        discrete_vlb(model, x, 12, rev_var="learned")


# --- importance-weighted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7])
def test_every_single_trajectory_of_an_exact_chain_gives_the_density(steps: int, generator) -> None:
    model = gaussian(SHORT, 3)
    options: dict[str, Any] = {"rev_var": EXACT_VARIANCE, "prior_log_prob": terminal(model), "generator": generator}
    x = model.sample(6, SHORT.tau_min, generator)
    out = importance_weighted_vlb(model, x, steps, trajectories=3, **options)
    assert torch.allclose(out.nats, -model.log_prob(x, SHORT.tau_min), rtol=0, atol=1e-9)
    assert out.stderr.max() < 1e-9
    clean = importance_weighted_vlb(model, x, steps, trajectories=1, grid=Chain(), **options)
    assert torch.allclose(clean.nats, -model.log_prob(x), rtol=0, atol=1e-9)
    assert bool(clean.stderr.isnan().all())


def chain_log_prob(model: Any, x: float, knots: list[float]) -> float:
    """log p of a chain with β as variance and the exact end, by sums over a fine grid of states."""
    grid = torch.linspace(-6, 6, 1501, dtype=D)
    width = (grid[1] - grid[0]).item()
    density = model.log_prob(grid[:, None], knots[-1]).exp()
    for k in range(len(knots) - 1, 0, -1):
        tau, s = knots[k], knots[k - 1]
        targets = grid if k > 1 else torch.tensor([x], dtype=D)
        p = model(grid[:, None], tau)
        mean = math.exp(tau - s) * (grid + ou.beta(tau, s) * p.score[:, 0])  # the reverse mean by the score
        step = torch.distributions.Normal(mean[:, None], math.sqrt(ou.beta(tau, s)))
        density = step.log_prob(targets).exp().T @ density * width
    return math.log(density.item())


def test_with_more_trajectories_the_bound_falls_to_the_chains_own_density(generator) -> None:
    model, value = mixture(SHORT), 0.2
    knots = UniformLogSNR().times(SHORT, 6)[::-1]
    exact = -chain_log_prob(model, value, knots)
    x = torch.full((400, 1), value, dtype=D)
    options: dict[str, Any] = {"rev_var": "beta", "prior_log_prob": terminal(model), "generator": generator}
    means, errors = [], []
    for n in (1, 4, 32):
        out = importance_weighted_vlb(model, x, 6, trajectories=n, **options)
        means.append(out.nats.mean().item())
        errors.append(out.nats.std().item() / 20)
    assert means[0] - 3 * errors[0] > means[1] > means[2] > exact - 3 * errors[2]
    assert bool((sum(out.terms.values(), -out.nats) > -1e-9).all())
    weights = (-importance_weighted_vlb(model, x[:1].expand(20_000, 1), 6, trajectories=1, **options).nats).exp()
    assert -weights.mean().log().item() == pytest.approx(exact, abs=4 * (weights.std() / weights.mean()).item() / 141)


# --- decoders ---------------------------------------------------------------------------------------------------------


COLORS = Description("colors", (2, 3), bins=5, offset=(2.5, 1.0), scale=(2.5, 4.0))


class ZeroNoise(Model):
    """Predicts eps = 0, so x0 is the state over alpha."""

    def __init__(self, description: Description) -> None:
        super().__init__()
        self.sde, self.event_shape, self.data = VPSDE(tau_min=0.02), description.shape, description

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        return GaussianPrediction(x, tau, -ou.sigma(tau) * x / ou.alpha(tau), V())  # eps = 0


def costs(decoder: Decoder, x: Tensor) -> Tensor:
    """Cost of every value in every coordinate minus that of value 0, ``(bins, *D)``; all other coordinates are 0."""
    model = ZeroNoise(COLORS)
    rows = []
    zero = torch.zeros(1, 2, 3, dtype=torch.long)
    base = decoder.cost(model, zero, x, 0.02, {})
    for k in range(5):
        for i in range(2):
            for j in range(3):
                values = zero.clone()
                values[0, i, j] = k
                rows.append(decoder.cost(model, values, x, 0.02, {}) - base)
    return torch.stack(rows).reshape(5, 2, 3)


def test_the_kernel_decoder_is_the_softmax_over_the_centers(generator) -> None:
    x = torch.randn(1, 2, 3, generator=generator, dtype=D)
    centers = torch.stack([COLORS.to_model(torch.full((1, 2, 3), k + 0.5, dtype=D))[0] for k in range(5)])
    logits = -0.5 * (x / ou.alpha(0.02) - centers) ** 2 * ou.alpha(0.02) ** 2 / ou.sigma(0.02) ** 2
    exact = -torch.log_softmax(logits, 0)
    assert torch.allclose(costs(KernelDecoder(), x), exact - exact[0], rtol=1e-9, atol=1e-9)
    whole = KernelDecoder().cost(ZeroNoise(COLORS), torch.zeros(1, 2, 3, dtype=torch.uint8), x, 0.02, {})
    assert whole.item() == pytest.approx(exact[0].sum().item(), rel=1e-9)


def test_the_rounded_decoder_is_the_normal_mass_of_each_bin_with_open_ends(generator) -> None:
    x = torch.randn(1, 2, 3, generator=generator, dtype=D)
    edges = [COLORS.to_model(torch.full((1, 2, 3), float(k), dtype=D))[0] for k in range(6)]
    mean, std = (x / ou.alpha(0.02))[0], ou.sigma(0.02)
    cdf = [torch.as_tensor(norm.cdf((e - mean) / std)) for e in edges]
    cdf[0], cdf[5] = torch.zeros(2, 3, dtype=D), torch.ones(2, 3, dtype=D)
    exact = torch.stack([b - a for a, b in zip(cdf, cdf[1:])])
    masses = (
        -costs(RoundedDecoder(), x) - RoundedDecoder().cost(ZeroNoise(COLORS), torch.zeros(1, 2, 3).long(), x, 0.02, {})
    ).exp()
    assert masses.shape == exact.shape
    total = RoundedDecoder().cost(ZeroNoise(COLORS), torch.full((1, 2, 3), 2), x, 0.02, {})
    upper = torch.as_tensor(norm.logcdf((edges[3] - mean) / std))
    lower = torch.as_tensor(norm.logcdf((edges[2] - mean) / std))
    assert total.item() == pytest.approx(-(upper + torch.log(-torch.expm1(lower - upper))).sum().item(), rel=1e-6)
    log_ratios = -costs(RoundedDecoder(), x)
    mass = torch.exp(log_ratios) * exact[0]
    assert torch.allclose(mass.sum(0), torch.ones(2, 3, dtype=D), atol=1e-9)


def test_the_normal_mass_keeps_its_digits_far_out_in_both_tails() -> None:
    low = torch.tensor([-math.inf, 8.0, -9.0, 38.0, -1e-3, 40.0], dtype=D)
    high = torch.tensor([-30.0, 9.0, -8.0, math.inf, 1e-3, 40.001], dtype=D)
    exact = [norm.logcdf(-30), None, None, norm.logsf(38), math.log(math.erf(1e-3 / math.sqrt(2))), None]
    exact[1] = exact[2] = norm.logsf(8) + math.log1p(-math.exp(norm.logsf(9) - norm.logsf(8)))
    exact[5] = norm.logsf(40) + math.log(-math.expm1(norm.logsf(40.001) - norm.logsf(40)))
    assert torch.allclose(log_normal_mass(low, high), torch.tensor(exact, dtype=D), rtol=1e-9)


# --- integer values and bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decode_at", [None, 0.2])
def test_integer_values_have_bits_per_dimension_and_floats_have_none(decode_at: float | None, generator) -> None:
    weights = (0.1, 0.25, 0.05, 0.6)
    model = integer_model(weights)
    values = torch.arange(4).repeat(200)[:, None]
    options: dict[str, Any] = {"prior_log_prob": terminal(model), "replicates": 8, "generator": generator}
    options["profile"] = (
        None if decode_at is None else measure_error_profile(model, model.sample(100), generator=generator)
    )
    out = continuous_vlb(model, values, decoder=Posterior(weights), decode_at=decode_at, **options)
    mean, error, stated = scatter(out, -torch.tensor(weights, dtype=D).log().repeat(200))
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.2)
    eps, weight = normals(1, 300)
    tau = decode_at or model.sde.tau_min
    assert model.data is not None
    for k in range(4):
        x = model.data.to_model(torch.full((300, 1), k + 0.5, dtype=D))
        cost = Posterior(weights).cost(model, torch.full((300, 1), k), model.sde.perturb(x, tau, eps), tau, {})
        term = out.terms["reconstruction"][k::4]
        assert term.mean().item() == pytest.approx((cost @ weight).item(), abs=4 * term.std().item() / math.sqrt(200))
    assert out.bits is not None
    assert torch.allclose(out.bits, out.nats / math.log(2))
    assert out.mean == pytest.approx(out.bits.mean().item())
    assert out.mean_stderr == pytest.approx(out.bits.std().item() / math.sqrt(800))
    assert out.mean_draw_stderr < out.mean_stderr
    assert continuous_vlb(model, values[:2].to(D)).bits is None


def test_the_discrete_bound_of_integer_values_tends_to_the_continuous_one(generator) -> None:
    model = integer_model((0.1, 0.25, 0.05, 0.6))
    values = torch.arange(4).repeat(100)[:, None]
    options: dict[str, Any] = {"prior_log_prob": terminal(model), "generator": generator}
    whole = continuous_vlb(model, values, **options, replicates=8)
    grid = UniformLogSNR()
    gaps = []
    for steps in (5, 300):
        chain = discrete_vlb(model, values, steps, grid=grid, decoder=KernelDecoder(), draws=3, **options)
        gaps.append((chain.mean - whole.mean, math.hypot(chain.mean_draw_stderr, whole.mean_draw_stderr)))
    assert gaps[0][0] > 5 * gaps[0][1]
    assert abs(gaps[1][0]) < gaps[0][0] / 5 + 3 * gaps[1][1]


def test_the_bound_of_dequantized_values_is_the_mean_log_density_over_their_bin(generator) -> None:
    description = Description("line", (1,), bins=4)
    model = gaussian()
    model.data = description
    values = torch.full((400, 1), 2)
    out = continuous_vlb(
        model, values, dequantization=UniformDequantization(), prior_log_prob=terminal(model), generator=generator,
        profile=measure_error_profile(model, model.sample(400), generator=generator),
    )  # fmt: skip
    node, weight = np.polynomial.legendre.leggauss(30)
    y = torch.as_tensor(2 + (node + 1) / 2)[:, None]
    exact = (
        -(model.log_prob(description.to_model(y), model.sde.tau_min) @ torch.as_tensor(weight / 2))
        - description.log_det(torch.zeros(1, *description.shape)).item()
    )
    error = out.nats.std().item() / 20
    assert error < 0.05
    assert out.nats.mean().item() == pytest.approx(exact.item(), abs=4 * error)
    assert set(out.terms) == {"dequantization", "reconstruction", "prior", "diffusion"}


@pytest.mark.parametrize(
    "sde", [VE(tau_min=0.5), SubVP(tau_min=0.1), Flow(tau_min=0.1)], ids=lambda sde: type(sde).__name__
)
def test_a_view_adds_its_volume(sde: SDE, generator) -> None:
    model = gaussian(sde, 2)
    inner = model.sample(200, sde.tau_min, generator)
    scale = float(sde.scale(sde.tau_min))
    out = continuous_vlb(
        model, scale * inner, prior_log_prob=terminal(model), generator=generator, replicates=8,
        profile=measure_error_profile(model, inner, generator=generator),
    )  # fmt: skip
    mean, error, stated = scatter(out, -model.log_prob(inner, sde.tau_min) + 2 * math.log(scale))
    assert abs(mean) < 3.5
    assert error == pytest.approx(stated, rel=0.3)


@pytest.mark.parametrize("shape", [(), (2, 1, 2)])
def test_every_event_shape_works(shape: tuple[int, ...], generator) -> None:
    model = Gaussian(torch.full(shape, MEAN, dtype=D), VARIANCE, SHORT)
    x = model.sample(200, SHORT.tau_min, generator)
    for out in (
        continuous_vlb(model, x, prior_log_prob=terminal(model), generator=generator, replicates=8),
        discrete_vlb(
            model, x, 9, grid=UniformLogSNR(), rev_var=EXACT_VARIANCE, prior_log_prob=terminal(model),
            generator=generator, draws=3,
        ),
    ):  # fmt: skip
        assert abs(scatter(out, -model.log_prob(x, SHORT.tau_min))[0]) < 3.5
        assert out.dims == math.prod(shape)


# --- gradients --------------------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A small network with one weight and dropout; returns NaN where its input exceeds ``bad``."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.weight, self.drop = nn.Parameter(torch.tensor(0.5)), nn.Dropout(dropout)
        self.bad: float | None = None

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        out = self.weight * torch.tanh(self.drop(x))
        return out if self.bad is None else torch.where(x > self.bad, math.nan, out)


def test_the_clean_integrand_is_the_training_loss_and_has_its_gradient(generator) -> None:
    model = ScoreModel(Net(), VPSDE())
    x0, eps = torch.randn(2, 6, 3, generator=generator)
    u = torch.linspace(0.05, 0.95, 6, dtype=D)
    sde = model.sde
    loss = Loss(ELBO()).at(model, x0, TimestepDraw(u), eps)
    term = diffusion_term(model, x0, Marginal(sde.schedule.tau(u), sde.schedule.rate(u)), eps)
    assert torch.allclose(term, loss.to(D), rtol=1e-4)
    gradients = [torch.autograd.grad(v.sum(), list(model.parameters()))[0] for v in (loss, term)]
    assert gradients[0].item() == pytest.approx(gradients[1].item(), rel=1e-4)


# --- randomness -------------------------------------------------------------------------------------------------------


BOUNDS: list[Any] = [
    pytest.param(lambda m, x, **o: continuous_vlb(m, x, evaluations=16, **o), id="continuous"),
    pytest.param(lambda m, x, **o: discrete_vlb(m, x, 6, **o), id="discrete"),
    pytest.param(lambda m, x, **o: discrete_vlb(m, x, 30, terms=8, **o), id="sampled steps"),
    pytest.param(lambda m, x, **o: importance_weighted_vlb(m, x, 4, trajectories=3, **o), id="weighted"),
]


@pytest.mark.parametrize("bound", BOUNDS)
def test_with_seeds_a_sample_does_not_depend_on_its_batch(bound, generator) -> None:
    model = GaussianMixture.ring()
    x = model.sample(7, 0.0, generator)
    whole = bound(model, x, seeds=range(7))
    order = [3, 0, 6, 1, 5, 2, 4]
    mixed = bound(model, x[order], seeds=order, batch_size=3)
    alone = bound(model, x[4:5], seeds=[4])
    assert torch.allclose(mixed.nats, whole.nats[order], rtol=0, atol=1e-9)
    assert torch.allclose(mixed.stderr, whole.stderr[order], rtol=0, atol=1e-9)
    assert torch.allclose(alone.nats, whole.nats[4:5], rtol=0, atol=1e-9)
    assert not torch.allclose(bound(model, x, seeds=range(1, 8)).nats, whole.nats, rtol=0, atol=1e-3)


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_generator_leaves_the_global_random_state_alone(bound, generator) -> None:
    before = torch.get_rng_state()
    model, x = GaussianMixture.ring(), torch.zeros(3, 2, dtype=D)
    values = [bound(model, x, generator=torch.Generator().manual_seed(1)).nats for _ in range(2)]
    measure_error_profile(model, x, points=2, generator=generator)
    assert torch.equal(values[0], values[1])
    assert torch.equal(torch.get_rng_state(), before)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_the_model_runs_in_eval_mode_whatever_the_callers_modes(bound, mode) -> None:
    model = ScoreModel(Net(dropout=0.5), VPSDE()).train()
    x = torch.tensor([[0.5, -1.0], [0.1, 2.0]])
    outside = bound(model, x, seeds=[1, 2])
    assert not outside.nats.requires_grad
    with mode():
        inside = bound(model, torch.tensor([[0.5, -1.0], [0.1, 2.0]]), seeds=[1, 2])
    assert torch.equal(outside.nats, inside.nats)
    assert all(m.training for m in model.modules())
    model.net.bad = 3.0  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match=r"NaN or infinite for the samples \[1\] \(1 of 2\)"):
        bound(model, torch.tensor([[-30.0, -30.0], [0.1, 9.0]]), seeds=[1, 2])
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("bound", BOUNDS)
def test_integer_values_need_bins_and_must_lie_inside_them(bound) -> None:
    model = gaussian()
    values = torch.tensor([[1], [4]])
    with pytest.raises(ValueError, match="quantized data with their bins and scale, got a model without a description"):
        bound(model, values)
    model.data = Description("line", (1,))
    with pytest.raises(ValueError, match="got 'line' with bins=None"):
        bound(model, values)
    model.data = Description("line", (1,), bins=4)
    with pytest.raises(ValueError, match=r"must lie in \[0, 4\), got 4 at index \(1, 0\)"):
        bound(model, values)


@pytest.mark.parametrize("bound", BOUNDS)
def test_data_and_settings_that_do_not_fit_are_refused(bound) -> None:
    model = GaussianMixture.ring()
    with pytest.raises(ValueError, match=r"data must have shape \(B, 2\), got \(3, 1, 2\)"):
        bound(model, torch.zeros(3, 1, 2))
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index \(1, 0\)"):
        bound(model, torch.tensor([[0.0, 0.0], [math.nan, 0.0]]))
    with pytest.raises(ValueError, match="seeds must have one entry per sample, 2, got 3"):
        bound(model, torch.zeros(2, 2), seeds=[1, 2, 3])
    with pytest.raises(ValueError, match="batch_size must be a positive integer"):
        bound(model, torch.zeros(2, 2), batch_size=0)
    with pytest.raises(ValueError, match=r"prior_log_prob must return shape \(2,\), one per sample, got \(2, 2\)"):
        bound(model, torch.zeros(2, 2), prior_log_prob=lambda z: z)
    with pytest.raises(TypeError, match="neither an option nor read by the network; did you mean batch_size"):
        bound(model, torch.zeros(2, 2), batch_sizes=3)


def test_settings_out_of_their_domain_are_refused() -> None:
    model, x = GaussianMixture.ring(), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="multiple of twice the replicates, 8, got 20"):
        continuous_vlb(model, x, evaluations=20)
    with pytest.raises(ValueError, match="replicates must be an integer of at least 2, got 1"):
        continuous_vlb(model, x, replicates=1)
    with pytest.raises(TypeError, match="timesteps must be Timesteps in continuous time, got 'Uniform'"):
        continuous_vlb(model, x, timesteps="Uniform")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="adds noise to integer values, got data of torch.float32"):
        continuous_vlb(model, x, dequantization=UniformDequantization())
    with pytest.raises(ValueError, match="decode_at=0.1 needs a decoder, got none"):
        continuous_vlb(model, x, decode_at=0.1)
    with pytest.raises(ValueError, match="terms must be a multiple of the replicates, 4, got 6"):
        discrete_vlb(model, x, 10, terms=6)
    with pytest.raises(ValueError, match="no rev_var is named 'betas'; did you mean beta"):
        discrete_vlb(model, x, 10, rev_var="betas")
    with pytest.raises(ValueError, match="draws must be a positive integer, got 0"):
        discrete_vlb(model, x, 10, draws=0)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        discrete_vlb(model, x, 0)
    with pytest.raises(ValueError, match="trajectories must be a positive integer, got True"):
        importance_weighted_vlb(model, x, 10, trajectories=True)
    with pytest.raises(ValueError, match="rev_var must be positive and finite, got 0"):
        RoundedDecoder(0.0)
    with pytest.raises(ValueError, match="variance 0 in the step to the data; pass the next step's as a number"):
        RoundedDecoder("beta_tilde")
    with pytest.raises(ValueError, match="variance 0 in the step to the data; pass the next step's as beta_tilde="):
        RoundedDecoder("learned")
    with pytest.raises(ValueError, match="at least two samples, got 1"):
        measure_error_profile(model, x[:1])
    with pytest.raises(ValueError, match="points must be an integer of at least 2, got 1"):
        measure_error_profile(model, x, points=1)


@pytest.mark.parametrize("bound", BOUNDS)
def test_an_empty_batch_gives_an_empty_result(bound) -> None:
    out = bound(GaussianMixture.ring(), torch.zeros(0, 2))
    assert out.nats.shape == out.stderr.shape == (0,)


@pytest.mark.cuda
@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("quantized", [False, True])
def test_cpu_and_gpu_agree(bound, quantized: bool) -> None:
    model = ScoreModel(Net(), VPSDE(), data=Description("line", (3,), bins=4))
    data = torch.tensor([[0, 1, 3], [2, 2, 1]])
    data = data if quantized else data.to(D) / 2
    profile = measure_error_profile(model, torch.ones(4, 3), generator=torch.Generator().manual_seed(0))
    outs = []
    for device in ("cpu", "cuda"):
        model.to(device)
        outs.append(bound(model, data.to(device), generator=torch.Generator().manual_seed(0)))
        other = measure_error_profile(
            model, torch.ones(4, 3, device=device), generator=torch.Generator().manual_seed(0)
        )
        assert other.unexplained == pytest.approx(profile.unexplained, rel=1e-3, abs=1e-3)
    assert outs[1].nats.device.type == "cuda"
    assert torch.allclose(outs[1].nats.cpu(), outs[0].nats, rtol=1e-4, atol=1e-3)
    assert torch.allclose(outs[1].stderr.cpu(), outs[0].stderr, rtol=1e-3, atol=1e-3)
