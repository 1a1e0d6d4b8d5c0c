"""The scores of the imputation benchmark: closed forms, and no bias by the number of draws."""

from __future__ import annotations

import math

import pytest
import torch
from imputation_race.scores import Problem, fair_crps, fair_energy_score, figures, row_sums, score

import scoresde as sd


@pytest.mark.parametrize("draws", [2, 5, 50])
def test_the_fair_crps_of_the_true_distribution_does_not_depend_on_the_number_of_draws(
    draws: int, generator: torch.Generator
) -> None:
    """Of N(0, 1) and its own draws it is 1/√π on average: E|x - y| - E|x - x'| / 2 with E|x - x'| = 2/√π."""
    n = 40_000
    x = torch.randn(n, draws, 1, generator=generator, dtype=torch.float64)
    y = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    crps = fair_crps(x, y)
    assert float(crps.mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=5 * float(crps.std()) / math.sqrt(n))


def test_the_crps_of_gaussian_draws_has_its_closed_form(generator: torch.Generator) -> None:
    y, z = 0.7, torch.tensor(0.7, dtype=torch.float64)
    x = torch.randn(200_000, 10, 1, generator=generator, dtype=torch.float64)
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    expected = z * (2 * normal.cdf(z) - 1) + 2 * normal.log_prob(z).exp() - 1 / math.sqrt(math.pi)
    assert float(fair_crps(x, torch.full((200_000, 1), y).double()).mean()) == pytest.approx(float(expected), abs=2e-3)


def test_one_draw_has_the_absolute_error_and_hidden_cells_alone_count() -> None:
    draws, truth = torch.tensor([[[1.0, 5.0, 7.0]]]), torch.tensor([[4.0, 1.0, 0.0]])
    hidden = torch.tensor([[True, True, False]])
    assert fair_crps(draws, truth).tolist() == [[3.0, 4.0, 7.0]]
    assert fair_energy_score(draws, truth, hidden).tolist() == [5.0]


def test_the_energy_score_of_one_column_is_its_crps(generator: torch.Generator) -> None:
    draws, truth = torch.randn(30, 7, 1, generator=generator), torch.randn(30, 1, generator=generator)
    hidden = torch.ones(30, 1, dtype=torch.bool)
    torch.testing.assert_close(fair_energy_score(draws, truth, hidden), fair_crps(draws, truth)[:, 0])


def test_figures_are_in_deviations_of_the_train_part() -> None:
    train = torch.tensor([[0.0, 100.0], [20.0, 300.0]], dtype=torch.float64)
    data = sd.Data(train, train, sd.Description("two", (2,)))
    truth, hidden = torch.tensor([[3.0, 200.0]]).double(), torch.tensor([[True, False]])
    draws = torch.tensor([[[3.0 + 14.142135623730951, 0.0]]], dtype=torch.float64)
    figures = score(Problem(data, truth, hidden), draws)
    assert [round(figures[name], 6) for name in ("crps", "energy", "rmse", "inside")] == [1.0, 1.0, 1.0, 0.0]


def test_standard_errors_take_the_masks_of_a_row_as_one_unit(generator: torch.Generator) -> None:
    """Repeating the same cells as a second mask changes neither the figures nor their standard errors."""
    n, draws = 200, 20
    train = torch.randn(500, 3, generator=generator, dtype=torch.float64)
    truth = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    hidden = torch.rand(n, 3, generator=generator) < 0.3
    problem = Problem(sd.Data(train, train, sd.Description("three", (3,))), truth, hidden)
    sums = row_sums(problem, torch.randn(n, draws, 3, generator=generator, dtype=torch.float64))
    once, twice = figures([sums]), figures([sums, sums])
    assert twice == pytest.approx(once)
    crps = sums["crps"][hidden.sum(1) == 1]  # rows of one hidden cell alone: the usual standard error of a mean
    single = figures([{name: each[hidden.sum(1) == 1] for name, each in sums.items()}])
    assert single["crps stderr"] == pytest.approx(float(crps.std(correction=0)) / len(crps) ** 0.5)
    # 19 of 21 ranks lie inside the extremes, where the ranks of the 90 % interval end
    assert once["inside"] == pytest.approx(0.9, abs=4 * once["inside stderr"])
