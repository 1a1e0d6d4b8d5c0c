"""A comparison of data with missing values: trained on all events, measured on the complete ones."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import torch

from scoresde.data import Data, Description
from scoresde.evaluation.ode_likelihood import LikelihoodSettings
from scoresde.experiments.compare import compare
from scoresde.experiments.plan import Comparison
from scoresde.experiments.results import read_results
from scoresde.objective.weighting import Simple
from scoresde.sampling import DDIM
from scoresde.training.defaults import default_recipe


def test_incomplete_events_are_trained_on_and_left_out_of_measurements(
    tmp_path: Path, generator: torch.Generator
) -> None:
    x = torch.randn(300, 2, generator=generator)
    x[torch.rand(300, 2, generator=generator) < 0.2] = math.nan
    data = Data(x[:200], x[200:], Description("gaps", (2,), missing=True))
    recipe = default_recipe(data.description)
    recipe = replace(recipe, training=replace(recipe.training, steps=4, batch_size=16, warmup=2))
    plan = Comparison((Simple(),), (DDIM(steps=3),), scoring=LikelihoodSettings(tol=1.0, limit=6))
    said: list[str] = []
    compare(data, recipe, plan, out=tmp_path, status=said.append)
    complete = int((~x[200:].isnan().any(1)).sum())
    assert complete < 100
    assert f"{100 - complete} of 100 held-out events have missing values and are left out" in said
    results = read_results(tmp_path)
    assert results.content["n"] == complete
    assert results.content["data"]["train"] == 200
    run = results.content["runs"][0]
    assert math.isfinite(run["likelihood"]["value"])
    assert math.isfinite(run["samples"][0]["sliced_wasserstein"]["value"])
    assert not any(bool(torch.as_tensor(array).isnan().any()) for array in results.arrays.values())
