"""Confidence intervals of bounds, the prior term of a log-density's budget, and samples that lost their weights."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.likelihood import (
    ErrorProfile,
    continuous_vlb,
    discrete_vlb,
    importance_weighted_vlb,
    importance_weights,
    log_prob,
    measure_error_profile,
    sample_log_prob,
)
from scoresde.likelihood.bounds.estimation import error_kurtosis, replicate_dof
from scoresde.model import Model

D = torch.float64
MODELS = {
    "narrow": Gaussian(torch.tensor([0.3, -0.2], dtype=D), 0.002),
    "off center": Gaussian(torch.tensor([1.0, -2.0], dtype=D), 0.25),
    "wide": Gaussian(torch.ones(1, dtype=D), 4.0),
    "ring": GaussianMixture.ring(),
    "ten axes": Gaussian(torch.linspace(-1, 1, 10, dtype=D), torch.linspace(0.05, 2, 10, dtype=D)),
}


def measured_profile(model: Gaussian | GaussianMixture) -> ErrorProfile:
    x0 = model.sample(64, 0.0, torch.Generator().manual_seed(5))
    return measure_error_profile(model, x0, generator=torch.Generator().manual_seed(6))


def end_density(model: Gaussian | GaussianMixture):
    return lambda z: model.log_prob(z, model.sde.tau_max)


@pytest.mark.parametrize("with_profile", [False, True])
@pytest.mark.parametrize("replicates", [4, 8, 16])
@pytest.mark.parametrize("name", MODELS)
def test_an_interval_of_95_percent_holds_the_truth_about_95_times_in_100(
    name: str, replicates: int, with_profile: bool
) -> None:
    model, tau = MODELS[name], MODELS[name].sde.tau_min
    x = model.sample(2400, tau, torch.Generator().manual_seed(0))
    bound = continuous_vlb(
        model,
        x,
        replicates=replicates,
        profile=measured_profile(model) if with_profile else None,
        prior_log_prob=end_density(model),
        generator=torch.Generator().manual_seed(1),
    )
    low, high = bound.interval()
    truth = -model.log_prob(x, tau)
    least = 0.915 if (name, replicates, with_profile) == ("narrow", 16, False) else 0.93  # two pairs per replicate
    assert least <= float(((low <= truth) & (truth <= high)).double().mean()) <= 0.97
    half = 0.5 * (high - low)
    assert torch.allclose(half, torch.as_tensor(stats.t.ppf(0.975, bound.dof.numpy())) * bound.stderr)


@pytest.mark.parametrize("name", ["narrow", "off center", "wide"])
def test_a_profile_of_few_samples_is_exact_where_the_control_variate_explains_the_error(name: str) -> None:
    model = MODELS[name]
    profile, variance = measured_profile(model), float(model.variances.flatten()[0])
    log_snr = torch.tensor(profile.log_snr, dtype=D)
    expected = torch.sigmoid(log_snr + math.log(variance))  # posterior variance of the noise given x
    error = (torch.tensor(profile.unexplained, dtype=D) - expected).abs()
    assert float(error.max()) < 0.1  # of the second moment of 64 samples
    assert float(error[expected > 0.99].max() if name != "narrow" else 0.0) < 0.002  # no noise of ε


def test_the_interval_of_sampled_steps_holds_the_sum_of_all_steps() -> None:
    model, count = MODELS["off center"], 600
    x = model.sample(1, 0.0, torch.Generator().manual_seed(0)).expand(count, -1)
    exact = discrete_vlb(model, x, 100, generator=torch.Generator().manual_seed(3)).nats.mean()
    sampled = discrete_vlb(model, x, 100, terms=32, generator=torch.Generator().manual_seed(4))
    low, high = sampled.interval()
    assert 0.93 <= float(((low <= exact) & (exact <= high)).double().mean()) <= 0.98


def test_degrees_of_freedom_are_those_of_the_independent_estimates() -> None:
    model = MODELS["off center"]
    x = model.sample(50, model.sde.tau_min, torch.Generator().manual_seed(0))
    assert replicate_dof(4, 10**9, 10.0) == pytest.approx(3.0)
    assert replicate_dof(4, 32, 20.0) == pytest.approx(2.04, abs=0.01)
    assert replicate_dof(2, 2, 20.0) == pytest.approx(1.0)
    assert float(continuous_vlb(model, x).dof[0]) == pytest.approx(replicate_dof(4, 32, error_kurtosis(2)))
    controlled = continuous_vlb(model, x, profile=measured_profile(model)).dof
    assert float(controlled[0]) == pytest.approx(replicate_dof(4, 32, 2.0))
    assert [error_kurtosis(d) for d in (0, 1, 2, 7, 784)] == [20.0, 20.0, 15.0, 30 / 7, 2.0]
    one, many = (importance_weighted_vlb(model, x, 5, trajectories=n) for n in (1, 16))
    assert bool(one.dof.isnan().all())
    assert bool(one.interval()[0].isnan().all())
    assert bool((many.dof == 15).all())
    steps = discrete_vlb(model, x, 60, draws=4)
    assert 4 < float(steps.dof.mean()) < 160  # two thirds of 59 differences in each of 4 draws, if all were equal


def test_the_interval_of_the_mean_is_students_over_the_samples() -> None:
    model = MODELS["ring"]
    x = model.sample(12, model.sde.tau_min, torch.Generator().manual_seed(0))
    bound = continuous_vlb(model, x)
    low, high = bound.mean_interval(0.9)
    expected = stats.t.interval(0.9, 11, loc=bound.mean, scale=float(bound.nats.std()) / math.sqrt(12))
    assert (low, high) == pytest.approx(expected)
    assert all(math.isnan(end) for end in continuous_vlb(model, x[:1]).mean_interval())
    for level in (0.0, 1.0, 95, True, "0.9"):
        with pytest.raises(ValueError, match=r"level must lie in \(0, 1\)"):
            bound.interval(level)  # type: ignore[arg-type]


@pytest.mark.parametrize("mean", [(2.0, -1.0), (0.0, 0.0)])
def test_the_prior_term_is_the_shift_of_each_sample_to_first_order(mean: tuple[float, float]) -> None:
    model = Gaussian(torch.tensor(mean, dtype=D), 0.3)
    tau = model.sde.tau_max
    x = model.sample(500, model.sde.tau_min, torch.Generator().manual_seed(0))
    out = log_prob(model, x)
    shift = model.log_prob(out.latent, tau) - model.sde.prior_log_prob(out.latent)
    alpha, z = math.exp(-tau), out.latent
    if any(mean):
        assert torch.allclose(out.budget.prior, shift.abs(), atol=20 * alpha**2)
        assert torch.allclose(out.budget.prior, alpha * (z @ model.means[0]).abs(), atol=20 * alpha**2)
        assert float(out.budget.prior.mean()) > 20 * alpha**2
    else:
        assert float(out.budget.prior.max()) < 20 * alpha**2
    assert bool((log_prob(model, x[:5], prior_log_prob=end_density(model)).budget.prior == 0).all())


def test_importance_weights_say_how_many_samples_did_not_arrive() -> None:
    model: Model = GaussianMixture.ring()
    drawn = sample_log_prob(model, 20, seeds=range(20))
    target: Tensor = drawn.scored.log_prob.clone()
    assert importance_weights(target, drawn.scored).lost == 0
    status = drawn.scored.status.clone()
    status[[3, 7]] = 1
    scored = type(drawn.scored)(**{**vars(drawn.scored), "status": status})
    with pytest.warns(UserWarning, match="2 of 20 samples did not arrive and have no weight"):
        weights = importance_weights(target, scored)
    assert weights.lost == 2
    assert float(weights.weights[3] + weights.weights[7]) == 0.0
