"""Metrics of tables, against closed forms and scipy; ties, zeros and constant columns are ordinary input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from scoresde import metrics


def table(n: int = 400, seed: int = 0) -> torch.Tensor:
    """A normal column, one that is mostly 0, integers with ties, two dependent categories, and a constant."""
    rng = np.random.default_rng(seed)
    z, kind = rng.normal(size=n), rng.integers(0, 3, n)
    zeros = np.where(rng.random(n) < 0.7, 0.0, np.exp(z))
    columns = (z, zeros, rng.poisson(2.0, n), kind, (kind + (rng.random(n) < 0.1)) % 3, np.full(n, 7.0))
    return torch.tensor(np.stack(columns, 1))


CATEGORICAL = (False, False, False, True, True, False)


def test_the_distance_of_a_column_is_wasserstein_in_deviations_or_total_variation():
    y = torch.tensor([[0.0, 0], [2, 0], [4, 1], [6, 1]])
    x = y + torch.tensor([3.0, 0])
    x[:, 1] = torch.tensor([0.0, 0, 0, 2])
    shift, share = metrics.column_distances(x, y, (False, True)).tolist()
    assert shift == pytest.approx(3 / math.sqrt(5))
    assert share == pytest.approx(0.5 * (0.25 + 0.5 + 0.25))


def test_equal_tables_have_distance_zero_and_a_constant_column_is_measured_in_the_common_deviation():
    y = table()
    assert metrics.column_distances(y, y, CATEGORICAL).abs().max() == 0
    x = y.clone()
    x[:, 5] += 2
    assert metrics.column_distances(x, y, CATEGORICAL)[5] == pytest.approx(2.0)  # two constants, 2 apart: deviation 1


def test_numbers_have_spearman_correlation_also_with_ties():
    x = table()
    expected = np.asarray(spearmanr(x[:, :3].numpy())[0])
    np.testing.assert_allclose(metrics.association_matrix(x, CATEGORICAL)[:3, :3], expected, atol=1e-12)


def test_categories_have_cramers_v_and_numbers_of_a_category_their_correlation_ratio():
    codes = torch.arange(300) % 3
    x = torch.stack([codes.double(), (codes == 1).double(), codes**2 + 0.0, torch.arange(300.0)], 1).double()
    matrix = metrics.association_matrix(x, (True, True, False, False))
    assert matrix[0, 1] == pytest.approx(1.0, abs=1e-2)  # a function of the category
    assert matrix[0, 2] == pytest.approx(1.0)  # numbers that the category determines
    assert matrix[0, 3] == pytest.approx(0.0, abs=0.02)
    independent = torch.tensor([[a, b] for a in (0.0, 1) for b in (0.0, 1) for _ in range(25)])
    assert metrics.association_matrix(independent, (True, True))[0, 1] == 0
    half = torch.tensor([[0.0, 0]] * 40 + [[0.0, 1]] * 10 + [[1.0, 0]] * 10 + [[1.0, 1]] * 40)
    phi, smaller = 0.36 - 1 / 99, 2 - 1 / 99 - 1  # phi² = ((40 - 10) / 50)² of the 2 x 2 table, Bergsma's corrections
    assert metrics.association_matrix(half, (True, True))[0, 1] == pytest.approx(math.sqrt(phi / smaller))


def test_a_constant_column_depends_on_nothing():
    matrix = metrics.association_matrix(table(), CATEGORICAL)
    assert matrix[5].tolist() == [0, 0, 0, 0, 0, 1]
    assert matrix.diagonal().tolist() == [1] * 6
    assert bool((matrix == matrix.T).all())
    assert matrix[3, 4] > 0.8


def test_the_auc_is_one_half_for_equal_distributions_and_one_for_disjoint_ones():
    equal = metrics.classifier_auc(table(300, 1), table(300, 2), categorical=CATEGORICAL)
    assert abs(equal.value - 0.5) < 3 * equal.stderr
    assert equal.stderr == pytest.approx(math.sqrt((2 * 300 + 1) / (12 * 300 * 300)), rel=0.02)  # of Mann & Whitney's U
    moved = table(300, 2)
    moved[:, 3] += 3  # categories that never occur
    assert metrics.classifier_auc(table(300, 1), moved, categorical=CATEGORICAL).value == 1.0


def test_the_auc_sees_the_strength_of_a_shift():
    """Two normal distributions that are δ apart have AUC Φ(δ/√2); the trees lose a little of it."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2000, 1, generator=generator), torch.randn(2000, 1, generator=generator) + 1
    exact = 0.5 * (1 + math.erf(0.5))
    auc = metrics.classifier_auc(x, y)
    assert exact - 0.04 < auc.value < exact + 2 * auc.stderr


def test_repeated_rows_are_counted_beside_those_of_real_data():
    train, held_out = table(400, 3), table(200, 4)
    train[:100] = held_out[:100] = train[0]  # rows that repeat in real data, such as zeros
    fresh = metrics.copied_rows(table(300, 5), train, held_out, CATEGORICAL)
    assert (fresh.repeated.value, fresh.repeated_real.value) == (0, 0.5)
    assert abs(fresh.nearer_train.value - 0.5) < 4 * fresh.nearer_train.stderr
    copied = metrics.copied_rows(train[100:300], train, held_out, CATEGORICAL)
    assert copied.repeated.value == 1
    assert copied.repeated.stderr == 0
    held = metrics.copied_rows(held_out, train, held_out, CATEGORICAL)
    assert held.nearer_train.value < 0.3  # they are held-out rows
    all_train = metrics.copied_rows(train[100:300], train[100:300], held_out, CATEGORICAL)
    assert all_train.nearer_train.value > 0.99


def test_a_share_of_copies_is_found():
    train, held_out, samples = table(300, 6), table(300, 7), table(300, 8)
    samples[:90] = train[:90]
    result = metrics.copied_rows(samples, train, held_out, CATEGORICAL)
    assert result.repeated.value == pytest.approx(0.3)
    assert result.nearer_train.value == pytest.approx(0.3 + 0.7 / 2, abs=0.1)


@pytest.mark.parametrize("metric", [metrics.column_distances, metrics.copied_rows, metrics.association_matrix])
def test_one_kind_per_column_is_asked_for(metric):
    arguments = (table(),) * {"column_distances": 2, "copied_rows": 3, "association_matrix": 1}[metric.__name__]
    with pytest.raises(ValueError, match="one entry per column, got 2 for 6 columns"):
        metric(*arguments, (True, False))


def test_tables_of_one_value_have_every_metric():
    x = torch.zeros(20, 2)
    assert metrics.column_distances(x, x, (False, True)).tolist() == [0, 0]
    assert metrics.association_matrix(x, (False, True)).tolist() == [[1, 0], [0, 1]]
    assert metrics.classifier_auc(x, x, categorical=(False, True)).value == 0.5
    result = metrics.copied_rows(x, x, x, (False, True))
    assert (result.repeated.value, result.repeated_real.value, result.nearer_train.value) == (1, 1, 0.5)
