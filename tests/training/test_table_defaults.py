"""The default recipe of tables: its size by rows and columns, what it learns from rounded columns, missing values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scoresde.cli.overrides import parse_overrides
from scoresde.cli.train_recipe import training_recipe
from scoresde.data import Data, Description
from scoresde.likelihood import log_prob
from scoresde.nn import MLP, Pointwise
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.training import train
from scoresde.training.defaults import Recipe, default_recipe


def head_and_trunk(recipe: Recipe) -> tuple[Pointwise, MLP]:
    head = recipe.network
    assert isinstance(head, Pointwise)
    assert isinstance(head.net, MLP)
    return head, head.net


def table(columns: int) -> Description:
    return Description("table", (columns,))


def test_a_table_gets_a_head_that_resolves_rounded_columns_and_a_rate_that_falls_to_zero() -> None:
    recipe = default_recipe(table(10), 43_000)
    head, trunk = head_and_trunk(recipe)
    assert head.fourier.damped
    assert trunk.fourier is None
    assert recipe.training.loss.timesteps == LossMomentTimesteps()
    assert recipe.training.lr_at(recipe.training.steps) == 0
    assert (recipe.training.steps, recipe.training.batch_size) == (8000, 256)
    assert recipe.reason == "tables of 10 columns"


@pytest.mark.parametrize(
    ("rows", "steps"), [(None, 8000), (100_000, 8000), (5120, 4000), (614, 480), (142, 200), (0, 200)]
)
def test_a_table_is_trained_for_at_most_200_epochs(rows: int | None, steps: int) -> None:
    training = default_recipe(table(9), rows).training
    assert training.steps == steps
    assert training.warmup <= steps / 10
    assert training.ema is not None
    assert math.isclose((1 - training.ema) * steps, 8)  # the EMA's share of the run


def test_fewer_than_2000_rows_get_a_smaller_network_with_dropout() -> None:
    few, many = (head_and_trunk(default_recipe(table(9), rows))[1] for rows in (1999, 2000))
    assert (few.width, few.depth, few.dropout) == (128, 2, 0.3)
    assert (many.width, many.depth, many.dropout) == (192, 3, 0.0)


def test_wide_tables_get_no_head() -> None:
    assert isinstance(default_recipe(table(64)).network, Pointwise)
    wide = default_recipe(table(65)).network
    assert isinstance(wide, MLP)
    assert wide.outputs == 1


@pytest.mark.parametrize(
    "description",
    [
        Description("plane", (2,)),
        Description("digits", (1, 8, 8), bins=17),
        Description("images", (3, 16, 16), bins=256),
        Description("series", (3, 20)),
        Description("small", (3, 2, 4)),
    ],
)
def test_the_number_of_rows_changes_tables_only(description: Description) -> None:
    one, other = default_recipe(description), default_recipe(description, 150)
    assert one.training == other.training
    assert str(one.network) == str(other.network)


def test_the_commands_pass_the_number_of_training_rows(generator: torch.Generator) -> None:
    rows = torch.randn(650, 5, generator=generator)
    data = Data(rows[:614], rows[614:], table(5))
    recipe = training_recipe(data, None, parse_overrides(), {}, None, (), False)
    assert recipe.training.steps == 480
    assert head_and_trunk(recipe)[1].width == 128
    kept = training_recipe(data, None, parse_overrides(), {"steps": 7, "lr": 1e-4}, None, (), False)
    assert (kept.training.steps, kept.training.lr) == (7, 1e-4)


def test_a_negative_number_of_rows_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows must be an integer of at least 0, got -1"):
        default_recipe(table(5), -1)


def test_the_head_reads_what_is_observed_through_its_trunk(generator: torch.Generator) -> None:
    net, trunk = head_and_trunk(default_recipe(Description("table", (5,), missing=True), 100))
    assert net.observed
    assert trunk.observed
    assert not head_and_trunk(default_recipe(table(5)))[0].observed
    torch.nn.init.normal_(net.linear_out.weight, generator=generator)
    torch.nn.init.normal_(trunk.linear_out.weight, generator=generator)
    net.eval()
    x, log_snr = torch.randn(3, 5, generator=generator), torch.zeros(3)
    seen = torch.ones(3, 5, dtype=torch.bool)
    torch.testing.assert_close(net(x, log_snr, observed=seen), net(x, log_snr))
    seen[0, 1] = False
    change = (net(x, log_snr, observed=seen) - net(x, log_snr)).abs().amax(1)
    assert change[0] > 1e-3
    assert change[1:].max() < 1e-6


def comb(count: int, generator: torch.Generator) -> tuple[Tensor, float]:
    """Four columns, each uniform on every other of 12 cells of equal width, standardized; and their log-density."""
    cells = 2 * torch.randint(0, 6, (count, 4), generator=generator)
    spread = math.sqrt(140 / 12 + 1 / 12)  # variance of 0, 2 … 10, and of the draw within a cell
    return (cells + torch.rand(count, 4, generator=generator) - 5.5) / spread, -4 * math.log(6 / spread)


def test_the_density_of_rounded_columns_is_learned_in_few_updates(generator: torch.Generator) -> None:
    events, truth = comb(4200, generator)
    data = Data(events[200:], events[:200], table(4))
    recipe = default_recipe(data.description, len(data.train))
    model = train(recipe.build(data), data, recipe.training.fitted(300), progress=False).model
    held_out = float(log_prob(model, data.test, strict=True).log_prob.mean())
    assert truth - 1 < held_out < truth + 0.05  # without the head it is 3.4 below the truth after 400 updates
