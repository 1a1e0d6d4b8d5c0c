"""Calibrated samplers in a comparison: each model gets its own fit, whose cost is stored and shown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.cli.compare import print_tables
from scoresde.cli.plan_options import parse_plan_options
from scoresde.data import Data, load_data
from scoresde.evaluation import LikelihoodSettings
from scoresde.experiments import Calibrated, Comparison, compare, quick_settings, read_results
from scoresde.experiments.plan import sampler_label
from scoresde.experiments.report import write_report
from scoresde.nn import MLP
from scoresde.objective.weighting import ELBO, Simple
from scoresde.process.parameterization import V
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, ODE, Adams, Whitened
from scoresde.training.defaults import Recipe, default_recipe

PLAN = Comparison(
    weightings=(ELBO(), Simple()),
    samplers=(Adams(steps=4), Calibrated(Adams(steps=4), noises=16)),
    n=40,
    scoring=LikelihoodSettings(tol=1.0, limit=4, nodes=8),
)


@pytest.fixture(scope="module")
def ring() -> Data:
    return load_data("ring", n=400)


@pytest.fixture(scope="module")
def recipe(ring: Data) -> Recipe:
    training = replace(default_recipe(ring.description).training, steps=60, batch_size=32, warmup=2)
    return Recipe(MLP((2,), width=16, depth=1), VPSDE(tau_min=1e-3), V(), training)


@pytest.fixture(scope="module")
def folder(ring: Data, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("calibrated")
    messages: list[str] = []
    compare(ring, recipe, PLAN, out=out, status=messages.append)
    assert sum("calibrating Adams(steps=4)" in message for message in messages) == 2
    write_report(out)
    return out


def test_the_default_plan_has_adams_uncalibrated_and_calibrated() -> None:
    labels = [sampler_label(sampler) for sampler in Comparison().samplers]
    assert labels[-2:] == ["Adams(steps=20)", "Adams(steps=20), calibrated"]
    assert {label.partition("(")[0] for label in labels[:-2]} == {"DDPM", "EulerMaruyama", "ODE", "DDIM"}


def test_the_quick_plan_calibrates_nothing(recipe: Recipe) -> None:
    assert not any(isinstance(sampler, Calibrated) for sampler in quick_settings(recipe, Comparison())[1].samplers)


def test_each_model_has_its_own_fit_and_its_cost_is_stored(folder: Path) -> None:
    content = read_results(folder).content
    assert content["samplers"] == ["Adams(steps=4)", "Adams(steps=4), calibrated"]
    assert content["seconds"]["calibration"] > 0
    for run in content["runs"]:
        plain, calibrated = run["samples"]
        assert "calibration" not in plain
        fit = calibrated["calibration"]
        assert fit["seconds"] > 0
        assert fit["noises"] == 16
        assert fit["error"] <= fit["original_error"]
        assert fit["evaluations"] > 2 * 16 * 40
        assert calibrated["nfe"] <= plain["nfe"]
        assert plain["array"] != calibrated["array"]
    errors = [run["samples"][1]["calibration"]["original_error"] for run in content["runs"]]
    assert errors[0] != errors[1]


def test_samples_are_those_of_the_sampler_fitted_to_the_model(ring: Data, recipe: Recipe, folder: Path) -> None:
    from scoresde.sampling import sample
    from scoresde.storage.checkpoint import load

    results = read_results(folder)
    run = results.content["runs"][0]
    model = load(folder / "models" / run["name"])
    entry = PLAN.samplers[1]
    assert isinstance(entry, Calibrated)
    fitted = entry.fit(model, seed=0).sampler
    samples = sample(model, 40, fitted, generator=torch.Generator().manual_seed(0), batch_size=512)
    np.testing.assert_allclose(results.arrays[run["samples"][1]["array"]], samples.x.numpy(), atol=1e-5)


def test_trajectories_in_the_plane_are_those_of_the_fitted_sampler(folder: Path) -> None:
    results = read_results(folder)
    for entry in results.content["runs"][0]["samples"]:
        taus = results.arrays[f"{entry['array']}/trajectory_tau"]
        assert results.arrays[f"{entry['array']}/trajectory_x"].shape == (len(taus), 40, 2)


def test_table_and_report_name_the_calibrated_row_and_show_its_cost(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "dumb")
    print_tables(folder)
    printed = capsys.readouterr().out
    fit = read_results(folder).content["runs"][0]["samples"][1]["calibration"]
    gain = f"{fit['error'] / fit['original_error']:.2f}"
    for text, label in ((printed, "fit, s"), ((folder / "report.md").read_text(), "calibration, s")):
        assert label in text
        rows = [line for line in text.splitlines() if "Adams(steps=4), calibrated" in line and "ELBO()" in line]
        assert any(re.search(rf"{fit['seconds']:.1f}[ |]+{gain} ", row) for row in rows)
    page = (folder / "index.html").read_text()
    assert ">calibration, s</button>" in page
    cells = rf'data-number="[^"]*">{fit["seconds"]:.1f}</td><td class="n" data-number="[^"]*">{gain}</td>'
    assert re.search(cells, page)
    assert "Adams(steps=4), calibrated" in page


def test_a_report_without_calibrated_rows_has_no_such_column(ring: Data, recipe: Recipe, tmp_path: Path) -> None:
    plan = replace(PLAN, weightings=(Simple(),), samplers=(DDIM(steps=2),))
    compare(ring, replace(recipe, training=replace(recipe.training, steps=1)), plan, out=tmp_path)
    write_report(tmp_path)
    assert "calibration, s" not in (tmp_path / "index.html").read_text() + (tmp_path / "report.md").read_text()


def test_only_deterministic_step_samplers_are_calibrated() -> None:
    with pytest.raises(ValueError, match="Calibrated needs a deterministic sampler"):
        Calibrated(DDPM(steps=5))
    with pytest.raises(TypeError, match="Calibrated needs a step sampler"):
        Calibrated(ODE())  # pyright: ignore[reportArgumentType]


def test_the_option_adds_and_removes_calibrated_rows() -> None:
    default = Comparison()

    def labels(texts: list[str] | None, calibrated: bool | None) -> list[str]:
        plan = parse_plan_options(None, texts, calibrated=calibrated).plan(default)
        return [sampler_label(sampler) for sampler in plan.samplers]

    assert labels(None, None) == [sampler_label(sampler) for sampler in default.samplers]
    assert labels(None, False) == [sampler_label(s) for s in default.samplers if not isinstance(s, Calibrated)]
    assert labels(None, True)[-4:] == [
        "DDIM(steps=50)",
        "DDIM(steps=50), calibrated",
        "Adams(steps=20)",
        "Adams(steps=20), calibrated",
    ]
    assert labels(["DDPM(steps=3)", "DDIM(steps=2)"], None) == ["DDPM(steps=3)", "DDIM(steps=2)"]
    assert labels(["DDPM(steps=3)", "DDIM(steps=2)"], True) == [
        "DDPM(steps=3)",
        "DDIM(steps=2)",
        "DDIM(steps=2), calibrated",
    ]
    with pytest.raises(ValueError, match="--calibrated needs a step sampler that draws no noise, got DDPM, ODE"):
        labels(["DDPM(steps=3)", "ODE()"], True)


def test_a_calibrated_sampler_of_two_steps_or_more_may_be_whitened(ring: Data, recipe: Recipe) -> None:
    model = recipe.build(ring)
    fit = Calibrated(DDIM(steps=3), noises=16).fit(model, seed=0)
    assert isinstance(fit.sampler, (DDIM, Whitened))
    assert fit.error <= fit.original_error
