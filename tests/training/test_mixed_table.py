"""A table of numbers and categories through training, samples, imputation, conditions and guidance, by the defaults."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

import scoresde as sd
from scoresde.data import load_data
from scoresde.guidance import CFG
from scoresde.inverse import BridgeSMC, impute
from scoresde.likelihood import continuous_vlb
from scoresde.sampling import DDPM, MixedSampler, sample
from scoresde.training import train
from scoresde.training.defaults import default_recipe

ROWS = 2500


@pytest.fixture(name="path", scope="module")
def _path(tmp_path_factory):
    generator = np.random.default_rng(0)
    color = generator.choice(3, ROWS, p=[0.2, 0.3, 0.5])
    size = (generator.random(ROWS) < np.array([0.1, 0.5, 0.9])[color]).astype(int)
    height = 0.5 * generator.normal(size=ROWS) + np.array([-2.0, 0.0, 2.0])[color]
    names, sizes = np.array(["blue", "green", "red"]), np.array(["S", "L"])
    missing = generator.random((ROWS, 3)) < 0.05
    cells = [names[color], [f"{h:.8f}" for h in height], sizes[size]]
    rows = [",".join("" if missing[i, j] else str(cells[j][i]) for j in range(3)) for i in range(ROWS)]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_text("\n".join(["color,height,size", *rows]) + "\n")
    return path


def quick(data, conditions=None):
    """The default recipe's model after a short training."""
    recipe = default_recipe(data.description, len(data.train), conditions)
    settings = replace(recipe.training, steps=300, batch_size=64, warmup=20)
    return train(recipe.build(data), data, settings, progress=False).model


def test_a_table_with_missing_cells_is_modeled_sampled_scored_and_imputed(path):
    data = load_data(path, missing="mask")
    model = quick(data)
    samples = sample(model, 500, MixedSampler(DDPM(25)), seeds=range(500))
    columns = samples.columns()
    assert set(columns["color"]) == {"blue", "green", "red"}
    shares = [float((columns["color"] == name).mean()) for name in ("blue", "green", "red")]
    np.testing.assert_allclose(shares, [0.2, 0.3, 0.5], atol=0.1)
    for name, mean in (("blue", -2.0), ("red", 2.0)):
        assert abs(float(columns["height"][columns["color"] == name].mean()) - mean) < 1.0
    assert float((columns["size"] == "L")[columns["color"] == "red"].mean()) > 0.7
    complete = data.complete()
    x = data.description.to_model(data.description.center(complete.test[:100])).float()
    bound = continuous_vlb(model, x, evaluations=32, replicates=2, seeds=range(100))
    independent = 1.03 + 0.69 + 0.5 * np.log(2 * np.pi * np.e) + 0.0  # entropies of the columns alone, about
    assert float(bound.nats.mean()) < independent
    row = complete.test[:3].clone()
    row[0, 0], row[1, 2], row[2, 1] = torch.nan, torch.nan, torch.nan
    filled = impute(model, row, 40, BridgeSMC(20, 64), seeds=[0, 1, 2])
    known = ~row.isnan().unsqueeze(1).expand(filled.data.shape)
    assert torch.equal(filled.data[known], row.unsqueeze(1).expand(filled.data.shape)[known].double())
    assert filled.columns()["color"][1] in ("blue", "green", "red")


@pytest.mark.filterwarnings("ignore:rows with missing cells are left out")
def test_conditions_and_guidance_reach_the_categories(path):
    data = load_data(path, missing="drop", condition="size")
    model = quick(data)
    sizes: Any = data.description.conditions["size"]
    large = torch.full((300,), sizes.names.index("L"))
    shares = []
    for steered in (model, CFG(model, 2.5)):
        samples = sample(steered, 300, MixedSampler(DDPM(25)), seeds=range(300), size=large)
        shares.append(float((samples.columns()["color"] == "red").mean()))
    assert 0.5 < shares[0] < 0.95  # 0.45 / 0.62 = 0.73
    assert shares[1] > shares[0]


@pytest.mark.filterwarnings("ignore:rows with missing cells are left out")
def test_a_checkpoint_keeps_process_network_and_codes(path, tmp_path):
    data = load_data(path, missing="drop")
    recipe = default_recipe(data.description, len(data.train))
    settings = replace(recipe.training, steps=3)
    train(recipe.build(data), data, settings, run_dir=tmp_path / "run", progress=False)
    model = sd.load(tmp_path / "run")
    assert model.sde == recipe.sde
    assert model.data == data.description
    x = data.description.to_model(data.train[:2]).float()
    assert model(x, 0.5).categorical.probs.shape == (2, 2, 3)


def test_a_class_is_learned_in_the_few_updates_of_a_small_table(tmp_path):
    # embeddings of classes much smaller than that of log-SNR were not read within 250 updates
    rng, n = np.random.default_rng(0), 300
    color, ok = rng.choice(3, n), rng.choice(["no", "yes"], n)
    height = 0.5 * rng.normal(size=n) + 2.0 * (color - 1)
    lines = [f"{'abc'[c]},{h:.8f},{o}" for c, h, o in zip(color, height, ok)]
    (tmp_path / "x.csv").write_text("\n".join(["color,height,ok", *lines]) + "\n")
    data = load_data(tmp_path / "x.csv", condition="color")
    recipe = default_recipe(data.description, len(data.train))
    model = train(recipe.build(data), data, recipe.training.fitted(150), progress=False).model
    with torch.no_grad():
        means = model(torch.zeros(3, 2), 2.5, color=torch.arange(3)).continuous.x0[:, 0]
    assert means.tolist() == pytest.approx([-1.15, 0.0, 1.15], abs=0.5)
