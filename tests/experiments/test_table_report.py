"""Tables in a comparison: scores of their rows, and the report's figures and rows of them."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from scoresde.data import Data, Description, load_data
from scoresde.evaluation import LikelihoodSettings, SampleDistances, TableScores, table_kinds
from scoresde.experiments import Comparison, Recipe, compare, default_recipe, read_results
from scoresde.experiments.report.html import write_report
from scoresde.experiments.report.parts.tables import column_rows, samples, statistics, table_rows
from scoresde.experiments.report.summary import Summary
from scoresde.metrics import association_matrix, column_distances
from scoresde.nn import MLP, MixedNet
from scoresde.objective.weighting import ELBO
from scoresde.plots.heatmaps import draw_heatmap
from scoresde.plots.marginals import ColumnValues, draw_marginal
from scoresde.plots.style import figure_style
from scoresde.sampling import DDIM, MixedSampler


def write_table(path: Path, n: int = 240) -> Path:
    """Numbers, one that is mostly 0, integers with ties, dates, a category with names that HTML must quote."""
    rng = np.random.default_rng(0)
    days = np.datetime64("2021-03-01") + rng.integers(0, 300, n).astype("timedelta64[D]")
    kinds = rng.choice(["<a & b>", "plain", "a name that is longer than its axis"], n)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["height", "rain", "visits", "day", "kind|of"])
        for row in zip(rng.normal(size=n), rng.random(n) * (rng.random(n) < 0.3), rng.poisson(2, n), days, kinds):
            writer.writerow(row)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of a table with a tiny network."""
    base = tmp_path_factory.mktemp("table")
    data = load_data(str(write_table(base / "t.csv")))
    recipe = default_recipe(data.description)
    network = MixedNet(MLP(MixedNet.inner_shape(4, (3,)), width=8, depth=1), 4, (3,))
    recipe = replace(recipe, network=network, training=replace(recipe.training, steps=3, batch_size=16))
    plan = Comparison(
        (ELBO(),), tuple(MixedSampler(DDIM(steps)) for steps in (3, 5)), scoring=LikelihoodSettings(limit=4), max_n=40
    )
    compare(data, recipe, plan, out=base / "out", device="cpu")
    write_report(base / "out")
    return base / "out"


def test_the_scores_of_a_comparison_are_those_of_its_stored_rows(folder: Path) -> None:
    results = read_results(folder)
    assert results.content["runs"][0]["likelihood"]["label"] == "log p (nats in data units; higher is better)"
    assert results.content["runs"][0]["likelihood"]["higher_is_better"] is True
    table, measured = results.content["table"], results.content["runs"][0]["samples"][1]
    assert list(table["kinds"].values()) == ["numeric", "numeric", "integer", "date", "category"]
    rows, real = (torch.from_numpy(results.arrays[name]) for name in (f"{measured['array']}/table", "table/real"))
    assert rows.shape == real.shape == (40, 5)
    assert results.arrays["forward"].shape == (7, 40, 5)  # all rows, for histograms
    flags = (False, False, False, False, True)
    assert measured["table"]["distances"] == column_distances(rows, real, flags).tolist()
    difference = (association_matrix(rows, flags) - association_matrix(real, flags)).abs()
    assert measured["table"]["association"]["largest"] == pytest.approx(float(difference.max()))
    assert measured["table"]["association"]["mean"] == pytest.approx(float(difference.sum()) / 20)
    assert 0 <= measured["table"]["within"] <= 1
    assert set(rows[:, 4].tolist()) <= {0.0, 1.0, 2.0}
    assert bool((rows[:, 2] == rows[:, 2].round()).all())


def test_the_page_shows_the_columns_of_a_table(folder: Path) -> None:
    summary = Summary(read_results(folder).content)
    page, text = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    assert summary.part.event == "row"
    for name in ("marginals", "dependence"):
        assert (folder / f"{name}.png").is_file()
        assert f'<figure id="{name}">' in page
        assert f"({name}.png)" in text
    assert not (folder / "samples.png").exists()
    assert "(samples.png)" not in text
    assert "&lt;a &amp; b&gt;" in page
    assert "<a & b>" not in page
    assert "| kind\\|of | category |" in text
    numbers = [int(number) for number in re.findall(r"<h2[^>]*><i>(\d+)</i>", page)]
    anchors = re.findall(r'<section id="([\w-]+)"', page)
    assert numbers == list(range(1, len(anchors) + 1))
    assert re.findall(r'<li><a href="#([\w-]+)"', page) == anchors
    assert "rows" in anchors
    assert "bound" not in anchors  # none were estimated
    for row in table_rows(summary)[1:]:
        assert row.auc.text(3) in page
        assert row.auc.text(3) in text
    assert "log p, nats, higher is better" in text


def test_real_rows_stand_above_the_samplers(folder: Path) -> None:
    summary = Summary(read_results(folder).content)
    real, gaussian, *drawn = table_rows(summary)
    assert (gaussian.name, gaussian.weighting) == ("Gaussian, full covariance", None)
    assert gaussian.auc.value == summary.content["table"]["gaussian"]["auc"]["value"]
    assert (real.name, real.weighting) == ("real against real", None)
    assert [row.name for row in drawn] == summary.content["samplers"]
    assert real.auc.value == summary.content["table"]["floors"]["auc"]["value"]
    assert [row.name for row in column_rows(summary)] == ["height", "rain", "visits", "day", "kind|of"]
    assert [len(row.distances) for row in column_rows(summary)] == [1] * 5


def test_the_figures_show_every_column_and_three_matrices(folder: Path) -> None:
    results = read_results(folder)
    summary = Summary(results.content)
    marginals, dependence = samples(results, summary)["marginals"], statistics(results, summary)["dependence"]
    assert [panel.title for panel in marginals.panels] == list(results.content["table"]["kinds"])
    shown = []
    for panel in dependence.panels:
        axes = Figure().add_subplot()
        assert panel.draw is not None
        panel.draw(axes)
        shown.append(np.asarray(axes.images[0].get_array()))
    np.testing.assert_allclose(shown[2], shown[1] - shown[0])


def test_values_of_marginals_are_shares_that_can_be_read(folder: Path) -> None:
    results = read_results(folder)
    picture = samples(results, Summary(results.content))["marginals"]
    (panel,) = [drawn for drawn in picture.drawn("marginals") if drawn.title == "kind|of"]
    assert [series.name for series in panel.series] == ["held out", "ELBO(), MixedSampler(DDIM(steps=3))"]
    shares = [float(text.rsplit(" ", 2)[1]) for text in panel.series[0].texts]
    codes = results.arrays["table/real"][:, 4]
    assert shares == sorted((round(100 * float(np.mean(codes == code)), 1) for code in range(3)), reverse=True)


def test_scores_of_the_real_distribution_are_near_their_floors() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(900, 3, generator=generator)
    rows[:, 1] = (rows[:, 0] > 0) * 2.0  # ties
    data = Data(rows[:300], rows[300:600], Description("t", (3,)))
    scores = TableScores(data, 300)
    good, bad = scores.measure(rows[600:]), scores.measure(rows[600:] + torch.tensor([0.0, 0, 1]))
    assert good["distances"][0] < 3 * scores.floors["distances"][0]
    assert abs(good["auc"]["value"] - 0.5) < 4 * good["auc"]["stderr"]
    assert good["association"]["largest"] < 0.25
    assert good["copies"]["repeated"]["value"] == 0
    assert bad["distances"][2] == pytest.approx(1.0, abs=0.15)
    assert bad["within"] <= 2 / 3
    assert bad["auc"]["value"] > 0.65
    assert scores.measure(data.train)["copies"]["nearer_train"]["value"] == 1.0
    with pytest.raises(ValueError, match="n must be at most the rows of each part, got 301"):
        TableScores(data, 301)


def test_too_few_rows_are_refused_with_the_number_of_both_parts() -> None:
    data = Data(torch.randn(9, 3), torch.randn(3, 3), Description("t", (3,)))
    with pytest.raises(
        ValueError, match="at least 5 events in each part of the data, got 9 for training and 3 held out"
    ):
        SampleDistances(data, 3)


def test_images_and_points_are_no_table() -> None:
    assert table_kinds(Description("x", (1, 8, 8), bins=4)) is None
    assert table_kinds(Description("x", (2,))) is None
    assert table_kinds(Description("x", (500,))) is None
    assert table_kinds(Description("x", (3,), bins=4)) == {"x0": "integer", "x1": "integer", "x2": "integer"}
    with pytest.raises(ValueError, match="events of one axis and at most 100 columns"):
        TableScores(Data(torch.zeros(5, 2), torch.zeros(5, 2), Description("x", (2,))), 5)


def test_marginals_have_a_bin_per_integer_bars_for_categories_and_survive_constants() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 12, 200)
    panels = [
        ColumnValues("visits", "integer", rng.poisson(2, 200).astype(float), {"s": np.full(200, 2.0)}),
        ColumnValues("many", "category", codes, {"s": codes[::-1]}, [f"c{i}" for i in range(12)]),
        ColumnValues("constant", "numeric", np.full(50, 3.0), {"s": np.full(50, 3.0)}),
        ColumnValues("zeros", "numeric", np.append(np.zeros(499), 5.0), {"s": np.zeros(9)}),
    ]
    with figure_style("test"):
        visits, many, constant, zeros = Figure().subplots(1, 4)
        for axes, panel in zip((visits, many, constant, zeros), panels, strict=True):
            draw_marginal(axes, panel)
    spike = np.asarray(visits.lines[0].get_xydata())
    assert spike[spike[:, 1] == 1.0][:, 0].tolist() == [1.5, 2.5]
    assert [label.get_text() for label in many.get_yticklabels()][-1] == "5 others"
    bars = [bar.get_width() for bar in many.patches if isinstance(bar, Rectangle)]
    assert sum(bars) == pytest.approx(1.0)
    assert bars[:7] == sorted(bars[:7], reverse=True)
    assert constant.get_xlim()[0] < 3 < constant.get_xlim()[1]
    assert zeros.get_xlim()[1] >= 5


def test_numbers_stand_in_the_cells_of_a_small_matrix() -> None:
    with figure_style("test"):
        small, large = Figure().subplots(1, 2)
        draw_heatmap(small, np.array([[1, -0.25], [-0.25, 1]]), ["x", "a name that is much too long"])
        draw_heatmap(large, np.eye(9), list("abcdefghi"))
    assert [text.get_text() for text in small.texts] == ["", "−.25", "−.25", ""]
    assert small.get_xticklabels()[1].get_text() == "a name that is …"
    assert not large.texts


def test_a_comparison_refuses_minutes(tmp_path: Path) -> None:
    data = load_data("ring", n=40)
    recipe: Recipe = default_recipe(data.description)
    with pytest.raises(ValueError, match="as many steps, got minutes=3"):
        compare(data, replace(recipe, training=replace(recipe.training, minutes=3)), out=tmp_path)
