"""Weighted particles: effective sample sizes, systematic resampling, normalizing constants and their errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.inverse._particles import (
    Population,
    effective_sample_size,
    resample,
    systematic_indices,
    take_memory,
    take_particles,
)
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction
from scoresde.sampling.multistep import History


def test_the_effective_sample_size_is_that_of_the_normalized_weights() -> None:
    log_weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [50.0, 50.0, -1e9, -1e9], [1000.0, 0.0, 0.0, 0.0]]).double()
    expected = torch.tensor([4.0, 2.0, 1.0]).double()
    torch.testing.assert_close(effective_sample_size(log_weights), expected, rtol=1e-12, atol=0)
    uneven = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    torch.testing.assert_close(
        effective_sample_size(uneven.log() + 7.0), 1 / uneven.square().sum(1), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("uniform", [0.0, 0.3, 0.999999])
def test_systematic_resampling_follows_the_cumulative_weights(uniform: float) -> None:
    weights = torch.tensor([[0.05, 0.45, 0.0, 0.5]], dtype=torch.float64)
    points = (torch.arange(4) + uniform).double() / 4
    cumulative = [0.05, 0.5, 0.5, 1.0]
    expected = [next(k for k in range(4) if cumulative[k] > float(p)) for p in points]
    assert systematic_indices(weights.log(), torch.tensor([uniform])).tolist() == [expected]


def test_each_particle_has_its_expected_number_of_children_up_to_one_and_exactly_on_average(
    generator: torch.Generator,
) -> None:
    log_weights = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    expected = 50 * torch.softmax(log_weights, 1)
    counts, grid = torch.zeros_like(expected), 4000
    for i in range(grid):
        uniform = torch.full((3,), (i + 0.5) / grid, dtype=torch.float64)
        children = torch.zeros_like(expected).scatter_add(
            1, systematic_indices(log_weights, uniform), torch.ones_like(expected)
        )
        assert bool(((children - expected).abs() < 1 + 1e-9).all())
        counts += children / grid
    torch.testing.assert_close(counts, expected, rtol=0, atol=2 / grid)


def test_only_populations_below_the_threshold_are_resampled() -> None:
    even, uneven = torch.zeros(1, 4).double(), torch.tensor([[9.0, 9.0, -99.0, -99.0]]).double()
    population = Population.new(2, 4, torch.device("cpu")).weighted(torch.cat([even, uneven]))
    after, parents = resample(population, torch.tensor([0.1, 0.1]), 0.75)
    assert parents.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1]]
    assert after.ancestors.tolist() == [[0, 1, 2, 3], [0, 0, 1, 1]]
    assert after.log_weights.tolist() == [[0.0] * 4, [0.0] * 4]
    torch.testing.assert_close(after.log_normalizer, torch.tensor([0.0, 9.0 + math.log(0.5)]).double())
    torch.testing.assert_close(after.log_normalizing_constant(), population.log_normalizing_constant())
    x = torch.arange(16.0).reshape(8, 2)
    assert take_particles(x, parents)[:, 0].tolist() == [0, 2, 4, 6, 8, 8, 10, 10]
    assert resample(population, torch.tensor([0.1, 0.1]), 0.0)[1].tolist() == [[0, 1, 2, 3]] * 2


def test_a_samplers_memory_follows_its_particles() -> None:
    parents, x = torch.tensor([[1, 1], [0, 1]]), torch.arange(4.0)[:, None]
    predictions = [GaussianPrediction(x, 0.4, x + 10.0 * i, V(), None if i else x - 1.0) for i in range(2)]
    memory = (History(0.5, x, 0.1, None, (0.5, 0.4), predictions), None, 2.0, torch.tensor(3.0), torch.ones(3))
    taken = take_memory(memory, parents)
    assert isinstance(taken[0], History)
    assert taken[0].x.flatten().tolist() == [1.0, 1.0, 2.0, 3.0]
    first, second = taken[0].predictions
    assert second.out.flatten().tolist() == [11.0, 11.0, 12.0, 13.0]
    assert second.x.flatten().tolist() == [1.0, 1.0, 2.0, 3.0]
    assert first.mix.flatten().tolist() == [0.0, 0.0, 1.0, 2.0]
    assert (taken[0].times, taken[1:3], len(taken[4])) == ((0.5, 0.4), (None, 2.0), 3)
    population = Population(x.reshape(2, 2), torch.zeros(2), parents)
    assert take_memory(population, torch.arange(4)[None]).log_normalizer.shape == (2,)
    with pytest.raises(TypeError, match="the memory of a sampler must hold tensors, .* got object"):
        take_memory((x, object()), parents)


def test_the_standard_error_without_resampling_is_that_of_importance_sampling(generator: torch.Generator) -> None:
    log_weights = torch.randn(2, 100, generator=generator, dtype=torch.float64)
    population = Population.new(2, 100, torch.device("cpu")).weighted(log_weights)
    weights = log_weights.exp()
    relative = weights.var(1, correction=0) / weights.mean(1) ** 2 / 100
    torch.testing.assert_close(population.stderr(), relative.sqrt())
    families = resample(population, torch.tensor([0.5, 0.5]), 0.0, force=True)[0]
    counts = torch.stack([torch.bincount(row, minlength=100) for row in families.ancestors]) / 100.0
    torch.testing.assert_close(families.stderr(), (counts.double() - 0.01).square().sum(1).sqrt())


def test_the_normalizing_constant_of_a_chain_is_unbiased_and_its_error_is_covered(generator: torch.Generator) -> None:
    """A random walk with likelihoods: E[prod_t exp(-x_t^2 / 4)], against the exact Gaussian recursion."""
    populations, count, steps = 400, 200, 4
    exact = 0.0
    precision_matrix = torch.linalg.inv(
        torch.tensor([[float(min(i, j) + 1) for j in range(steps)] for i in range(steps)]).double()
    )
    exact = 0.5 * (torch.logdet(precision_matrix) - torch.logdet(precision_matrix + 0.5 * torch.eye(steps)))
    x = torch.zeros(populations * count, dtype=torch.float64)
    population = Population.new(populations, count, x.device)
    for _ in range(steps):
        uniform = torch.rand(populations, generator=generator, dtype=torch.float64)
        population, parents = resample(population, uniform, 0.7)
        x = take_particles(x, parents) + torch.randn(len(x), generator=generator, dtype=torch.float64)
        population = population.weighted(-0.25 * x.square().reshape(populations, count))
    ratio = (population.log_normalizing_constant() - exact).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / populations**0.5
    error = population.log_normalizing_constant() - exact
    assert float((error.abs() < 2 * population.stderr()).double().mean()) > 0.93
    assert 0.7 < float(error.std() / population.stderr().mean()) < 1.1


def test_nothing_reads_a_value() -> None:
    with FakeTensorMode(), torch.device("meta"):
        population = Population.new(2, 4, torch.device("meta")).weighted(torch.zeros(2, 4))
        after, parents = resample(population, torch.zeros(2), 0.5)
        assert take_particles(torch.zeros(8, 3), parents).shape == (8, 3)
        assert after.stderr().shape == after.effective_sample_size().shape == (2,)
