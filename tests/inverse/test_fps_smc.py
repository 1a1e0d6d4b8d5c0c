"""FPS-SMC: the chain's evidence and posterior for Gaussian data, and its limit in steps and particles."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian_chain import chain_end, given

import scoresde as sd
from scoresde.guidance import Mask, Matrix, Observation
from scoresde.inverse import FPSSMC, sample_posterior
from scoresde.inverse.twisted_smc import chain_times
from scoresde.sampling import OptimalVariance

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.5, 0.4, 0.3]], dtype=F64)
COV = ROOT @ ROOT.mT
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, -0.4, 1.0]], dtype=F64)
Y = torch.tensor([0.9, -0.6], dtype=F64)
NOISE = torch.tensor([[0.16, 0.05], [0.05, 0.09]], dtype=F64)


def observations(count: int) -> Observation:
    return Observation(Matrix(A), Y.expand(count, 2).clone(), noise_cov=NOISE)


def test_log_evidence_is_within_two_standard_errors_of_the_chains_own() -> None:
    method = FPSSMC(100, 512)
    taus = chain_times(method.grid, sd.VPSDE(), method.steps)
    end = chain_end(MEAN, COV, taus, "beta")
    last = -math.expm1(-2 * taus[-2])  # this chain's last step has noise too
    _, _, log_p = given(end.mean, end.cov + last * torch.eye(3, dtype=F64), A, Y, NOISE)
    samples = sample_posterior(sd.Gaussian(MEAN, COV), observations(60), method=method, seeds=range(60))
    assert samples.log_evidence is not None
    assert samples.standard_error is not None
    error = samples.log_evidence - log_p
    assert int((error.abs() <= 2 * samples.standard_error).sum()) >= 52
    assert 0.6 < float(error.std() / samples.standard_error.mean()) < 1.4
    ratio = error.exp()  # the evidence itself is unbiased: 4 standard errors of the mean of 60
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(60)


def test_particles_have_the_exact_posterior_mean_and_covariance_at_many_steps() -> None:
    mean, cov, log_p = given(MEAN, COV, A, Y, NOISE)
    samples = sample_posterior(sd.Gaussian(MEAN, COV), observations(20), method=FPSSMC(200, 1024), seeds=range(20))
    deviation = samples.x - mean
    covs = torch.einsum("mn,mnd,mne->mde", samples.log_weights.exp(), deviation, deviation)
    # the bias of the chain is below 0.01 (its own recursion), that of the normalized weights about 1/64 of a variance
    assert bool(((samples.mean().mean(0) - mean).abs() < 4 * samples.mean().std(0) / math.sqrt(20) + 0.01).all())
    assert bool(((covs.mean(0) - cov).abs() < 4 * covs.std(0) / math.sqrt(20) + 0.01).all())
    assert samples.log_evidence is not None
    assert abs(float(samples.log_evidence.mean()) - log_p) < 0.03


def test_the_optimal_variance_makes_the_chain_of_isotropic_data_exact_at_few_steps() -> None:
    variance = OptimalVariance((0.0,), (0.2,))
    c2 = variance.data_variance(0.0)
    _, _, log_p = given(MEAN, c2 * torch.eye(3, dtype=F64), A, Y, NOISE)
    method = FPSSMC(12, 512, variance=variance)
    samples = sample_posterior(sd.Gaussian(MEAN, c2), observations(40), method=method, seeds=range(40))
    assert samples.log_evidence is not None
    error = samples.log_evidence - log_p
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(40)
    assert float(error.std()) < 0.03


def test_each_path_has_the_weight_of_its_evidence() -> None:
    samples = sample_posterior(sd.Gaussian(MEAN, COV), observations(3), method=FPSSMC(20, 64, 8), seeds=range(3))
    shares = 8 * samples.log_weights.exp().reshape(3, 8, 8).sum(-1)  # evidence of each path over their mean
    assert samples.standard_error is not None
    assert float(samples.standard_error.min()) > 0.01
    torch.testing.assert_close(shares.std(1) / math.sqrt(8), samples.standard_error)


def test_modes_of_a_mixture_have_their_exact_shares() -> None:
    ring = sd.GaussianMixture.ring()
    variance = ring.variances.flatten() + 0.05**2
    shares = torch.softmax(-0.5 * (0.9 - ring.means[:, 0]).square() / variance, 0)
    seen = Observation(Mask(torch.tensor([True, False])), torch.tensor([[0.9, 7.0]] * 10, dtype=F64), noise_std=0.05)
    samples = sample_posterior(ring, seen, method=FPSSMC(100, 1024), seeds=range(10))
    mode = torch.cdist(samples.x.flatten(0, 1), ring.means).argmin(1).reshape(10, -1)
    found = torch.stack([(samples.log_weights.exp() * (mode == k)).sum(1) for k in range(8)], 1)
    assert bool(((found.mean(0) - shares).abs() < 4 * found.std(0) / math.sqrt(10) + 0.01).all())


def test_entries_that_are_not_measured_add_nothing_to_the_evidence() -> None:
    mask, y = (
        torch.tensor([[True, False, False], [False, False, False]]),
        torch.tensor([[0.4, 5.0, 5.0]] * 2, dtype=F64),
    )
    seen = Observation(Mask(mask, per_observation=True), y, noise_std=0.3)
    samples = sample_posterior(sd.Gaussian(MEAN, COV), seen, method=FPSSMC(100, 2048), seeds=[0, 1])
    assert samples.log_evidence is not None
    assert float(samples.log_evidence[1].abs()) < 1e-9  # nothing is measured: p(y) = 1
    first = float(torch.distributions.Normal(0.5, math.sqrt(1.0 + 0.09)).log_prob(torch.tensor(0.4)))
    assert abs(float(samples.log_evidence[0]) - first) < 0.1


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"paths": 1}, "at least 2, got 1"),
        ({"particles": 16}, "at least 32, got 16"),
        ({"particles": 1000}, "a multiple of paths, got 1000 and 16"),
        ({"threshold": -0.1}, r"threshold must lie in \[0, 1\]"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(FPSSMC(), **wrong)
