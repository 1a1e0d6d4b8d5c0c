"""Counts of network evaluations for wrappers that evaluate several models, or one several times."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scoresde.analytic import Gaussian
from scoresde.guidance import Clipping
from scoresde.likelihood import (
    AdaptiveSolver,
    TorchDiffEq,
    continuous_vlb,
    discrete_vlb,
    importance_weighted_vlb,
    log_prob,
    sample_log_prob,
)
from scoresde.model import Model, ScoreModel
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import VPSDE
from scoresde.sampling import Adams, Heun, sample

GAUSSIAN = Gaussian(torch.zeros(2, dtype=torch.float64), 0.5)


class Average(Model):
    """The mean of the v of two models."""

    def __init__(self, first: Model, second: Model) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.sde, self.event_shape = first.sde, first.event_shape

    def predict(self, x: Tensor, tau: object, **cond: object) -> Prediction:
        first, second = self.first.predict(x, tau, **cond), self.second.predict(x, tau, **cond)  # type: ignore[arg-type]
        return GaussianPrediction(x, tau, 0.5 * (first.v + second.v), V())  # type: ignore[arg-type]


class CountingNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.calls += 1
        return 0.1 * x


def twice(model: Model) -> Average:
    wrapper = Average(model, model)
    wrapper.cost = 2
    return wrapper


def test_costs_are_stated_or_summed_over_the_wrapped_models() -> None:
    assert GAUSSIAN.cost == 1
    assert Clipping(GAUSSIAN).cost == 1
    assert Average(GAUSSIAN, Gaussian(torch.zeros(2), 1.0)).cost == 2
    assert twice(GAUSSIAN).cost == 2
    assert Clipping(Average(Clipping(GAUSSIAN), twice(GAUSSIAN))).cost == 3
    with pytest.raises(ValueError, match="cost must be a positive integer, got 0"):
        GAUSSIAN.cost = 0


@pytest.mark.parametrize("sampler", [Adams(steps=10), Heun(10)])
def test_samples_count_every_evaluation_of_the_network(sampler: Adams | Heun) -> None:
    net = CountingNet()
    model = ScoreModel(net, VPSDE(), V(), (2,))
    single = sample(model, 3, sampler, seeds=range(3), denoise=True).nfe
    assert net.calls == single
    assert sample(twice(model), 3, sampler, seeds=range(3), denoise=True).nfe == 2 * single
    assert net.calls == 3 * single


@pytest.mark.parametrize("solver", [AdaptiveSolver(), TorchDiffEq()])
def test_likelihoods_count_every_evaluation_of_the_network(solver: AdaptiveSolver | TorchDiffEq) -> None:
    x = torch.full((3, 2), 0.5, dtype=torch.float64)
    single, double = log_prob(GAUSSIAN, x, solver=solver), log_prob(twice(GAUSSIAN), x, solver=solver)
    assert torch.equal(double.nfe, 2 * single.nfe)
    assert torch.allclose(double.log_prob, single.log_prob)
    drawn = [sample_log_prob(m, 3, solver, seeds=range(3)).scored.nfe for m in (GAUSSIAN, twice(GAUSSIAN))]
    assert torch.equal(drawn[1], 2 * drawn[0])


def test_the_limit_of_evaluations_counts_them_too() -> None:
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    needed = int(log_prob(GAUSSIAN, x).nfe)
    assert bool(log_prob(GAUSSIAN, x, solver=AdaptiveSolver(max_nfe=needed)).arrived.all())
    limited = log_prob(twice(GAUSSIAN), x, solver=AdaptiveSolver(tol=1e-4, max_nfe=20))
    assert not bool(limited.arrived.any())


def test_scored_samples_and_bounds_count_every_evaluation_of_the_network() -> None:
    pair = GAUSSIAN, twice(GAUSSIAN)
    x = torch.full((3, 2), 0.5, dtype=torch.float64)
    for counts in (
        [sample_log_prob(m, 3, Adams(steps=8), seeds=range(3)).scored.nfe for m in pair],
        [torch.tensor(continuous_vlb(m, x, evaluations=16).nfe) for m in pair],
        [torch.tensor(discrete_vlb(m, x, 5).nfe) for m in pair],
        [torch.tensor(discrete_vlb(m, x, 5, terms=4).nfe) for m in pair],
        [torch.tensor(importance_weighted_vlb(m, x, 5, trajectories=2).nfe) for m in pair],
    ):
        assert torch.equal(counts[1], 2 * counts[0])
