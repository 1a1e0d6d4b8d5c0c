"""log p of rows with one-hot categories: a density of continuous columns, a bound of all others; its metrics."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde as sd
from scoresde.data import Data, load_data
from scoresde.data.tables.column_maps import CategoryColumn
from scoresde.evaluation import LikelihoodSettings, SampleDistances, baselines, comparable
from scoresde.evaluation.ode_likelihood import score_events
from scoresde.evaluation.vlb import BoundSettings, bound_events
from scoresde.training.batches import Batches, to_model_units

N = 400


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """A skewed continuous column, counts and a category."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("t") / "t.csv"
    rows = zip(np.exp(1.5 * rng.standard_normal(N)), rng.poisson(2.0, N), rng.choice(["a", "b", "c"], N))
    Path(path).write_text("pay,visits,kind\n" + "\n".join(f"{x},{k},{c}" for x, k, c in rows) + "\n")
    return load_data(path, one_hot=True)


@pytest.fixture
def model(table: Data) -> sd.Gaussian:
    exact = sd.Gaussian(torch.zeros(table.description.model_shape, dtype=torch.float64), 1.0)
    exact.data = table.description
    return exact


def log_normal(x: Tensor) -> Tensor:
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


def expected_log_p(data: Data, y: Tensor) -> float:
    """Log p of one row under N(0, I) in model units, averaged over u by quadrature: the columns are independent."""
    about = data.description
    assert about.encoding is not None
    node, weight = np.polynomial.legendre.leggauss(80)
    rows = y.expand(80, -1).clone()
    rows[:, 1] += torch.from_numpy((1 + node) / 2)
    unfolded = about.center(y.expand(80, -1))
    unfolded[:, 1] = rows[:, 1]
    x = about.to_model(unfolded)
    numbers = float(log_normal(x[0, 0]) + log_normal(x[:, 1]) @ torch.from_numpy(weight / 2))
    log_det = float(about.log_det(x) @ torch.from_numpy(weight / 2))
    category = about.encoding.columns[2]
    assert isinstance(category, CategoryColumn)
    spread = len(category.mean) * (category.side / category.scale) ** 2 / 12
    return numbers + log_det + float(log_normal(x[0, 2:]).sum()) - 0.5 * spread


def test_log_p_is_the_density_times_the_dequantized_probabilities(table, model):
    y = table.test[:1].expand(2000, -1)
    scored = score_events(model, y, LikelihoodSettings(nodes=8, batch_size=2000))
    assert scored.unit == "nats"
    value, stderr = float(scored.value.mean()), float(scored.value.std()) / math.sqrt(len(y))
    assert value == pytest.approx(expected_log_p(table, table.test[:1]), abs=4 * stderr)
    assert 0 < stderr < 0.05


def test_the_bound_lies_below_and_has_the_same_volume_ratio(table, model):
    y = table.test[:40]
    settings = LikelihoodSettings(nodes=8)
    (bound,) = bound_events(model, y, BoundSettings(evaluations=64, steps=()), seed=settings.seed)
    scored = score_events(model, y, settings)
    gap = scored.value - bound.value
    assert float(gap.mean()) == pytest.approx(0, abs=4 * float(bound.stderr.square().sum().sqrt()) / len(y) + 0.02)


def test_the_baseline_of_a_table_is_in_its_own_units(table):
    (entry,) = baselines(table, None)
    x = to_model_units(table.test, table.description, dequantize=True)
    scale = float(table.description.log_det(x).mean()) - 0.5 * x.shape[1] * math.log(2 * math.pi)
    assert entry["name"] == "a Gaussian of full covariance"
    assert entry["value"] > scale - 0.5 * float(x.square().sum(1).mean())  # better than N(0, I)


def test_a_table_says_which_columns_have_a_density(table):
    note = table.description.density_note()
    assert note.startswith("log p is the log-density of pay, in their units, plus a lower bound, on average over")
    assert note.endswith("of the log-probability of visits, kind.")
    assert sd.Description("d", (2,)).density_note() == ""


def test_training_dequantizes_again_in_each_batch(table):
    about = table.description
    net = sd.MLP(about.model_shape, width=8, depth=1)
    model = sd.ScoreModel(net, sd.VPSDE(), data=about)
    assert model.event_shape == about.model_shape == (5,)
    settings = sd.Training(steps=4, batch_size=len(table.train), seed=3)
    batches = Batches(model, table, settings, torch.device("cpu"), 1)
    first, second = (batches.draw(step, 0)[0] for step in (0, 1))
    rows = [about.to_data(x).unique(dim=0, return_counts=True) for x in (first, second)]
    assert all(torch.equal(a, b) for a, b in zip(*rows))  # the same rows
    assert len(torch.cat([first, second])[:, 1:].unique(dim=0)) == 2 * len(table.train)  # at other places in their bins
    centers = Batches(model, table, sd.Training(batch_size=8, dequantize=False), torch.device("cpu"), 1)
    assert torch.equal(*(centers.draw(0, 0)[0] for _ in range(2)))


def test_samples_are_compared_with_held_out_rows_as_decoded(table, generator):
    about = table.description
    distances = SampleDistances(table, 40)
    assert distances.held_out.shape == (40, 5)
    x = torch.randn(40, 5, generator=generator)
    rounded = comparable(x, about)
    assert rounded.dtype == x.dtype
    torch.testing.assert_close(comparable(rounded, about), rounded)
    assert torch.equal(about.to_data(rounded.double())[:, 1:], about.to_data(x)[:, 1:])
    assert distances.measure(rounded)["classifier"]["value"] >= 0.4
