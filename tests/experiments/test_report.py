"""A report shows the numbers of results.json and nothing else, and loads nothing from elsewhere."""

from __future__ import annotations

import importlib
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from report_results import arrays_of, difference, entry, report_of, results_of

from scoresde._core.durations import duration
from scoresde.cli.compare import print_tables
from scoresde.data import Description
from scoresde.experiments.report import charts
from scoresde.experiments.report.bound_table import BoundRow, bound_clause, bound_rows
from scoresde.experiments.report.definitions import DEFINITIONS
from scoresde.experiments.report.difference import Difference, tally
from scoresde.experiments.report.html import Report, write_report
from scoresde.experiments.report.number_format import Number, mean
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.results import atomic_file, read_results, write_results
from scoresde.plots.histogram import draw_histogram, save_histogram
from scoresde.plots.image_grid import enlarged, grid, is_image, save_image_grid, tile_images, to_bytes


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report_of(tmp_path_factory.mktemp("digits"), [1, 8, 8], 17)


def written(folder: Path, results: dict[str, Any]) -> Report:
    """The report of results that are stored and read; its pictures are not drawn as files."""
    write_results(folder, results, arrays_of(results))
    return Report.of(read_results(folder))


def test_the_same_folder_gives_the_same_page(page: Path, tmp_path: Path) -> None:
    for name in ("results.json", "arrays.npz"):
        shutil.copy(page.parent / name, tmp_path / name)
    again = write_report(tmp_path)
    assert again.read_text() == page.read_text()
    assert (tmp_path / "report.md").read_text() == (page.parent / "report.md").read_text()
    for file in page.parent.glob("*.png"):
        assert (tmp_path / file.name).read_bytes() == file.read_bytes()


def test_the_page_loads_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"""(?:src|href)\s*=\s*["']([^"']+)""", text)
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'\"" in text
    assert set(re.findall(r"https?://[^\s\"'<]*", text)) <= {
        "http://www.w3.org/1999/xlink",
        "http://www.w3.org/2000/svg",
    }


def test_every_number_of_a_table_and_of_the_headline_links_to_its_definition(page: Path) -> None:
    text = page.read_text()
    linked, defined = (set(re.findall(rf'{name}="#?how-([\w-]+)"', text)) for name in ("href", "id"))
    assert linked == defined <= set(DEFINITIONS)
    headings = re.findall(r'<th scope="col" class="n">(.*?)</th>', text)
    assert len(headings) > 20
    assert all('class="how" href="#how-' in heading for heading in headings)
    cards = re.findall(r'<div class="card">(.*?)</div>', text)
    assert len(cards) == 4
    for card in cards:
        (target,) = re.findall(r'<b><a href="#([\w-]+)">', card)
        assert f'id="{target}"' in text
        assert 'class="how" href="#how-' in card


def test_definitions_name_functions_that_exist() -> None:
    for definition in DEFINITIONS.values():
        package, _, name = definition.computed.rpartition(".")
        assert hasattr(importlib.import_module(package), name), definition


def test_the_tables_show_every_number_of_the_results(page: Path) -> None:
    for text in (page.read_text(), (page.parent / "report.md").read_text()):
        for shown in (
            "2.071",
            "± 0.013",
            "0.1234",
            "1.05",
            "4.20",
            "61.0",
            "0.97",
            "1.2",
            "2.43",
            "12.3",
            "92",
            "1.40",
        ):
            assert shown in text
        for shown in ("an abacus", "torch 2.9", "2 min 05 s", "1437", "2026-01-02"):
            assert shown in text


def test_text_from_the_results_cannot_become_markup(page: Path) -> None:
    assert "--data &lt;digits&gt;" in page.read_text()


def test_a_changed_number_changes_the_page(page: Path, tmp_path: Path) -> None:
    results = json.loads((page.parent / "results.json").read_text())
    results["runs"][0]["likelihood"]["value"] = 1.999
    shutil.copy(page.parent / "arrays.npz", tmp_path / "arrays.npz")
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = Report.of(read_results(tmp_path)).page()
    assert "1.999" in text
    assert "2.071" not in text


def test_figures_use_the_color_variables_of_the_page_in_both_themes(page: Path) -> None:
    text = page.read_text()
    figures = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(figures) > 6
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", "".join(figures)))
    assert {"ink", "gray", "faint", "series-0", "series-1"} <= used
    assert used <= set(re.findall(r"--([a-z0-9-]+): light-dark\(#\w+, #\w+\)", text))
    assert not re.findall(r"(?:fill|stroke): #(?!000000)[0-9a-f]{6}", "".join(figures))


CHARTS = {"cost", "sampler-differences", "likelihoods", "likelihood-differences", "bounds", "noise", "training"}
SERIES = {"spectrum", "autocorrelation", "mean", "spread"}


@pytest.mark.parametrize(
    ("shape", "bins", "figures"),
    [
        ([2], None, {"plane"}),
        ([3, 12, 12], 256, {"spectrum", "values"}),
        ([1, 28, 28], 256, {"spectrum", "values"}),
        ([3, 10], None, SERIES),
        ([7], None, SERIES),
        ([1, 6, 5, 4], None, {"spectrum", "values"}),
        ([1], None, set()),
    ],
)
def test_data_of_every_shape_are_drawn(shape: list[int], bins: int | None, figures: set[str], tmp_path: Path) -> None:
    text = report_of(tmp_path, shape, bins).read_text()
    assert set(re.findall(r'<figure id="([\w-]+)">', text)) == CHARTS | {"forward", "samples"} | figures
    assert {path.stem for path in tmp_path.glob("*.png")} == CHARTS | {"forward", "samples"} | figures
    assert ("Trajectories in the plane" in text) == (shape == [2])
    assert ("a lower bound on log p" in text) == (bins is None)
    assert f"“continuous” lies {'below' if bins is None else 'above'} the ODE in every model" in text


def test_bounds_are_shown_with_their_difference_to_the_ode(page: Path) -> None:
    for name in ("index.html", "report.md"):
        text = (page.parent / name).read_text()
        for shown in ("discrete, 7 steps", "2.125", "0.054", "± 0.006", "−0.008", "± 0.0043", "± 0.0019", "made like"):
            assert shown in text
    text = page.read_text()
    assert "“continuous” lies above the ODE in every model, by more than two standard errors" in text
    assert "“discrete, 7 steps” is neither clearly above nor below it" in text
    assert "made like <" not in page.read_text()


def test_the_side_of_a_bound_is_that_on_which_all_models_agree() -> None:
    def line(weighting: str, name: str, over: float) -> BoundRow:
        none, of = Number(None), Number(over, 0.01)
        return BoundRow(weighting, name, "", Number(2.0), none, none, of, none, (of,))

    up, down = {"up": (0.03, 0.05), "also up": (0.021, 0.1)}, {"down": (-0.03, -0.1)}
    sides = up | down | {"near": (0.019, 0.03), "apart": (-0.1, 0.1)}
    table = [line(w, name, over) for name, overs in sides.items() for w, over in zip("ab", overs, strict=True)]
    assert bound_clause(table, True) == (
        "“up” and “also up” lie above the ODE in every model, by more than two standard errors; "
        "“down” lies below the ODE in every model, by more than two standard errors; "
        "“near” and “apart” are neither clearly above nor below it"
    )
    assert bound_clause(table, False).startswith("“down” lies below")


def test_a_bound_lies_above_only_if_each_run_says_so_by_two_standard_errors() -> None:
    def of(overs: list[float]) -> str:
        runs = results_of([1, 8, 8], 17, seeds=len(overs))["runs"][::2]
        for run, over in zip(runs, overs, strict=True):
            run["bounds"][0]["over_ode"] = entry(over, 0.01)
        return bound_clause(bound_rows("ELBO()", runs), True)

    assert "“continuous” lies above" in of([0.5, 0.021])  # though the runs differ by more than their mean
    assert "“continuous” and “discrete, 7 steps” are neither" in of([0.5, 0.019])


def test_an_unknown_likelihood_is_not_drawn_and_a_dash_in_the_tables(tmp_path: Path) -> None:
    results = results_of([2], None)
    results["runs"][0]["likelihood"] |= {"value": None, "stderr": None, "probe_stderr": None, "events": 0}
    for bound in results["runs"][0]["bounds"]:
        bound |= {"value": None, "stderr": None, "over_ode": entry(0.0, None) | {"value": None}}
    results["runs"][0]["error_by_noise"]["error"][0] = None
    results["runs"][0]["samples"][0]["ratio"] = {"value": None, "stderr": None}
    results["baselines"][0] |= {"value": None, "stderr": None}
    results["differences"]["likelihood"][0] |= {"value": None, "low": None, "high": None}
    summary, axes = Summary(results), Figure().add_subplot()
    draw = charts.likelihoods(summary).panels[0].draw
    assert draw is not None
    values = draw(axes)
    drawn = {round(float(x), 3) for line in axes.lines for x in np.asarray(line.get_xdata(), dtype=float)}
    assert drawn == {2.158, 2.171, 2.184}
    assert [(each.name, list(each.texts)) for each in values or ()] == [("Simple()", ["2.1710 ± 0.0130"])]
    bounds = charts.bounds(summary)
    assert bounds is not None
    assert [key.name for key in bounds.legend] == ["Simple()"]
    text = written(tmp_path, results).page()
    assert '<td class="n">–</td>' in text
    assert "95 % interval unknown" in text
    assert 'id="likelihood-differences"' not in text


def test_the_error_of_one_known_run_is_its_own() -> None:
    assert mean([{"value": None, "stderr": 9.0}, {"value": 2.0, "stderr": 0.3}]) == Number(2.0, 0.3)
    assert [Number(value).text(3) for value in (-0.0004, -0.0006, None)] == ["0.000", "−0.001", "–"]


def test_baselines_show_their_number_of_events(tmp_path: Path) -> None:
    results = results_of([1, 8, 8], 17)
    assert Summary(results).baseline_rows[0].events == results["n"]
    results["baselines"][0]["events"] = 246
    report = written(tmp_path, results)
    assert ">246</td>" in report.page()
    assert "| 246 |" in report.markdown()


def test_the_page_names_the_dequantization_and_the_training_values(page: Path, tmp_path: Path) -> None:
    results = results_of([1, 8, 8], 17)
    results["training"] = "Training(steps=100, dequantize=False)"
    for run in results["runs"]:
        run["likelihood"]["dequantization"] = "TruncatedNormalDequantization(std=0.1)"
    own, other = written(tmp_path, results).page(), page.read_text()
    assert "TruncatedNormalDequantization(std=0.1)" in own
    assert "cannot know the position of a value inside its bin" not in own
    assert "cannot know the position of a value inside its bin" in other
    assert "niform dequantization" not in own + other


def test_names_keep_their_case_and_are_escaped_in_markdown_tables(tmp_path: Path) -> None:
    text = (
        json.dumps(results_of([1, 8, 8], 17)).replace("Simple()", "Mine(kind='a|b')").replace('"digits"', '"myDigits"')
    )
    report = written(tmp_path, json.loads(text))
    assert "<h1>MyDigits:" in report.page()
    shown = report.markdown()
    assert shown.startswith("# MyDigits:")
    assert shown.count("Mine(kind='a\\|b')") == 7  # one row of likelihoods and of differences, two and three of others
    assert "| Mine(kind='a|b')" not in shown


def test_the_printed_tables_fit_80_columns(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    print_tables(page.parent)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    for name in ("ELBO() DDPM(steps=10)", "Simple() ODE(method='dopri5')", "real against real", "Gaussian"):
        assert name in shown
    for number in ("1.05", "61.0", "2.430", "± 0.010", "−0.008 ± 0.006"):
        assert number in shown


def test_a_baseline_of_unknown_likelihood_is_printed_as_a_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = results_of([1, 8, 8], 17)
    results["baselines"][0] |= {"value": None, "stderr": None}
    write_results(tmp_path, results, arrays_of(results))
    print_tables(tmp_path)
    assert re.search(r"own histogram +–", capsys.readouterr().out)


def test_a_failed_write_leaves_a_figure_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    save_image_grid(path, np.zeros((4, 8, 8)), None)
    before = path.read_bytes()

    def broken(self: object, aside: Path, **_: object) -> None:
        aside.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", broken)
    monkeypatch.setattr(Figure, "savefig", broken)
    with pytest.raises(OSError, match="no space left"):
        save_image_grid(path, np.ones((4, 8, 8)), None)
    with pytest.raises(OSError, match="no space left"):
        save_histogram(path, np.arange(5.0), "bits", {})
    with pytest.raises(OSError, match="no space left"), atomic_file(path) as aside:
        broken(None, aside)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_results_without_bounds_give_a_page_without_them(page: Path, tmp_path: Path) -> None:
    (tmp_path / "bounds.png").write_bytes(b"of earlier results")
    results = json.loads((page.parent / "results.json").read_text())
    for each in results["runs"]:
        del each["bounds"], each["likelihood"]["draw_stderr"]
    shutil.copy(page.parent / "arrays.npz", tmp_path / "arrays.npz")
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = write_report(tmp_path).read_text()
    assert "why no theorem orders them" in page.read_text()
    assert "why no theorem orders them" not in text
    assert not (tmp_path / "bounds.png").exists()


def test_a_histogram_is_a_png_with_its_marks(tmp_path: Path) -> None:
    values, marks = np.random.default_rng(0).normal(2.0, 0.3, 200), {"model": 2.0, "unknown": float("nan")}
    figure = draw_histogram(values, "bits/dim per event", marks)
    axes = figure.axes[0]
    assert sum(bar.get_height() for bar in axes.patches) == 200  # pyright: ignore[reportAttributeAccessIssue]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["model: mean 2.000"]
    save_histogram(tmp_path / "h.png", values, "bits/dim per event", marks)
    with Image.open(tmp_path / "h.png") as shown:
        assert shown.format == "PNG"


def test_over_several_seeds_the_table_gives_mean_and_standard_deviation(tmp_path: Path) -> None:
    report = written(tmp_path, results_of([1, 8, 8], 17, seeds=3))
    summary = Summary(json.loads((tmp_path / "results.json").read_text()))
    line = summary.likelihood_rows[0]
    assert (line.value.text(3), line.value.error_text(3)) == ("2.091", "± 0.020")
    assert summary.sampler_rows[0].distance.text(4) == "1.1234"
    assert "over 3 training seeds" in report.page()


@pytest.mark.parametrize(
    ("shape", "bins", "value", "verdict"),
    [
        ([1, 8, 8], 17, 0.1, "worse, since lower is better"),
        ([1, 8, 8], 17, -0.1, "better, since lower is better"),
        ([2], None, 0.1, "better, since higher is better"),
        ([2], None, 0.01, "no difference is shown"),
    ],
)
def test_the_headline_is_a_paired_difference_with_its_interval(
    shape: list[int], bins: int | None, value: float, verdict: str, tmp_path: Path
) -> None:
    results = results_of(shape, bins)
    results["differences"]["likelihood"] = [difference("Simple()", "ELBO()", value, 0.04, "events")]
    text = written(tmp_path, results).page()
    header = text[text.index('<div class="cards">') : text.index("<section")]
    assert "<h2>Simple() minus ELBO()</h2>" in header
    low, high = (f"{value + end:.3f}".replace("-", "−") for end in (-0.04, 0.04))
    assert f"95 % interval {low} … {high}, paired over 360 " in header
    assert verdict in header
    assert ">0 closer, 0 farther, 1 not distinguishable</a>" in header
    assert "DDPM(steps=10), ELBO()" in header  # the first of the plan, though it is not the closest


def test_an_interval_decides_whether_samplers_can_be_told_apart() -> None:
    entries = [Difference("s", "r", v, v - 0.1, v + 0.1, 20, "real data") for v in (-0.2, -0.3, 0.05, 0.2)]
    entries.append(Difference("s", "r", None, None, None, 1, "seeds"))
    assert [entry.sign for entry in entries] == [-1, -1, 0, 1, 0]
    assert tally(entries, "closer", "farther") == "2 closer, 1 farther, 2 not distinguishable"


def test_numbers_are_rounded_with_a_minus_sign_and_a_dash_if_unknown() -> None:
    assert Number(-1.25, 0.5).text(1) == "−1.2"
    assert Number(None).text() == "–"
    assert Number(1.0).error_text() == ""
    assert mean([1.0, 2.0, 3.0]) == Number(2.0, 1.0)
    assert mean([{"value": 2.0, "stderr": 0.3}]) == Number(2.0, 0.3)
    assert mean([None]) == Number(None)
    assert (duration(8.24), duration(125.0)) == ("8.2 s", "2 min 05 s")


def test_images_are_tiled_row_by_row_with_square_pixels() -> None:
    x = np.arange(2 * 4 * 4).reshape(2, 1, 4, 4)
    tiles = enlarged(to_bytes(x, 0, 31), target=12)
    assert tiles.shape == (2, 12, 12, 3)
    assert np.array_equal(tiles[0, :3, :3], np.zeros((3, 3, 3)))
    assert np.all(tiles[1, -3:, -3:] == 255)
    sheet = grid(tiles, columns=1, gap=2)
    assert sheet.shape == (26, 12, 4)
    assert np.all(sheet[12:14, :, 3] == 0)
    assert np.all(sheet[:12, :, 3] == 255)


def test_integer_values_become_gray_and_colors_stay_colors() -> None:
    levels = np.full((1, 1, 8, 8), 16)
    assert tile_images(levels, Description("digits", (1, 8, 8), bins=17))[..., :3].min() == 255
    red = np.zeros((1, 3, 8, 8))
    red[:, 0] = 255
    shown = tile_images(red, Description("rgb", (3, 8, 8), bins=256))
    assert (shown[0, 0] == [255, 0, 0, 255]).all()


def test_a_saved_image_grid_is_a_png_and_points_are_refused(tmp_path: Path) -> None:
    save_image_grid(tmp_path / "x.png", np.zeros((4, 8, 8)), None)
    with Image.open(tmp_path / "x.png") as shown:
        assert shown.size == (611, 611)
    save_image_grid(tmp_path / "x.png", np.zeros((1, 700, 4)), None)
    with Image.open(tmp_path / "x.png") as shown:
        assert shown.size == (4, 700)
    assert is_image((1, 8, 8))
    assert not is_image((3, 2))
    with pytest.raises(ValueError, match=r"a PNG shows images .* got shape \(4, 2\)"):
        tile_images(np.zeros((4, 2)), None)


@pytest.mark.parametrize(("n", "size"), [(1, 4), (2, 5), (3, 28), (64, 8), (10, 299), (1, 601)])
def test_a_sheet_has_at_least_600_pixels_and_every_pixel_is_a_square(n: int, size: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (n, size, size))
    sheet, columns = tile_images(x, Description("gray", (size, size), bins=256)), math.ceil(math.sqrt(n))
    assert max(sheet.shape[:2]) >= 600
    factor = (sheet.shape[1] - 3 * (columns - 1)) // (columns * size)
    assert (factor - 1) * columns * size < 600
    tile = sheet[: factor * size, : factor * size, 0]
    assert np.array_equal(tile, x[0].repeat(factor, 0).repeat(factor, 1))
