"""A comparison of conditional models: scored, calibrated and sampled under the conditions of held-out events."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from scoresde.data import Data, Description
from scoresde.evaluation import evaluate
from scoresde.evaluation.ode_likelihood import LikelihoodSettings
from scoresde.experiments.compare import compare
from scoresde.experiments.plan import Calibrated, Comparison
from scoresde.experiments.results import read_results
from scoresde.nn import Vector
from scoresde.objective.weighting import Simple
from scoresde.sampling import DDIM
from scoresde.storage.checkpoint import load
from scoresde.training.defaults import default_recipe

SCORING = LikelihoodSettings(tol=1.0, limit=6)
PLAN = Comparison((Simple(),), (DDIM(steps=3), Calibrated(DDIM(steps=3), 16)), scoring=SCORING)


def places(generator: torch.Generator) -> Data:
    place = torch.rand(60, 3, generator=generator) * 100
    x = torch.randn(60, 3, generator=generator) * 0.1 + place[:, :1] / 50 - 1
    return Data(x[:40], x[40:], Description("places", (3,)), {"place": place[:40]}, {"place": place[40:]})


def test_a_network_with_a_condition_is_compared_under_those_of_held_out_events(
    tmp_path: Path, generator: torch.Generator
) -> None:
    data = places(generator)
    recipe = default_recipe(data.description)
    network = replace(recipe.network, width=16, depth=1, conditions={"place": Vector(3, null=False)})  # pyright: ignore
    recipe = replace(recipe, network=network, training=replace(recipe.training, steps=4, batch_size=16, warmup=2))
    compare(data, recipe, PLAN, out=tmp_path)
    run = read_results(tmp_path).content["runs"][0]
    model = load(tmp_path / "models" / "simple-seed0")
    expected = evaluate(model, data.test, SCORING, cond=data.test_cond)
    assert run["likelihood"]["value"] == pytest.approx(float(expected.ode.value.mean()), rel=1e-5)
    assert len(run["samples"]) == 2


def test_conditions_that_the_data_lack_are_refused_before_anything_is_trained(
    tmp_path: Path, generator: torch.Generator
) -> None:
    data = places(generator)
    recipe = default_recipe(data.description)
    network = replace(recipe.network, conditions={"text": Vector(3)})  # pyright: ignore
    with pytest.raises(ValueError, match="'text' needs it in the data, they have place"):
        compare(data, replace(recipe, network=network), PLAN, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
