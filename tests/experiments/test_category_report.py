"""Comparisons of categories: distances of indicators, the bound as likelihood, and the report's strips and texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.data import Description, load_data
from scoresde.evaluation import LikelihoodSettings, SampleDistances, comparable
from scoresde.evaluation.distance_units import from_distance_units, in_distance_units
from scoresde.evaluation.vlb import BoundSettings
from scoresde.experiments import Comparison, compare, default_recipe, read_results
from scoresde.experiments.plan import check_samplers, default_comparison
from scoresde.experiments.report.html import write_report
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.report_arrays import forward_frames
from scoresde.likelihood import continuous_vlb
from scoresde.nn import MLP, CategoricalNet
from scoresde.objective.weighting import Simple
from scoresde.process import VPSDE, Binomial, Categorical, Mixed
from scoresde.sampling import DDIM, Ancestral, MixedSampler, TauLeaping
from scoresde.storage import checkpoint

TEXT = "".join(f"a cab and {i % 3} bad cabs{', or a dab' * (i % 4)}\n" for i in range(60))


def compared(source: str | Path, out: Path, **options: int) -> Path:
    """A comparison with a tiny network, and its report."""
    data = load_data(source, **options)
    recipe, about = default_recipe(data.description), data.description
    assert about.classes is not None
    mask = recipe.sde.kernel == "absorbing"  # pyright: ignore[reportAttributeAccessIssue]
    inner = MLP(CategoricalNet.inner_shape(about.shape, about.classes, mask), width=8, depth=1)
    network = CategoricalNet(inner, about.shape, about.classes, mask)
    recipe = replace(recipe, network=network, training=replace(recipe.training, steps=3, batch_size=16))
    scoring = LikelihoodSettings(limit=4, bounds=BoundSettings(evaluations=8))
    plan = Comparison((Simple(),), (Ancestral(4), TauLeaping(3)), scoring=scoring, max_n=30)
    compare(data, recipe, plan, out=out, device="cpu")
    write_report(out)
    return out


@pytest.fixture(name="bits", scope="module")
def _bits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compared("heartbeat", tmp_path_factory.mktemp("bits") / "out", n=300)


@pytest.fixture(name="book", scope="module")
def _book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(TEXT)
    return compared(folder / "book.txt", folder / "out", length=12)


def test_the_likelihood_is_the_bound_of_the_stored_model_in_bits(bits: Path) -> None:
    run = read_results(bits).content["runs"][0]
    assert run["likelihood"]["unit"] == "bits/dim"
    assert run["bounds"] == []
    model = checkpoint.load(bits / run["checkpoint"])
    x = load_data("heartbeat", n=300).test[:4].float()
    bound = continuous_vlb(model, x, evaluations=8, generator=torch.Generator().manual_seed(0))
    assert run["likelihood"]["value"] == pytest.approx(bound.mean, rel=1e-5)
    assert run["likelihood"]["probe_stderr"] == pytest.approx(bound.mean_draw_stderr, rel=1e-5)


def test_samples_are_stored_as_codes_and_drawn_as_strips(bits: Path) -> None:
    results = read_results(bits)
    for measured in results.content["runs"][0]["samples"]:
        array = results.arrays[measured["array"]]
        assert array.shape == (30, 20)
        assert set(np.unique(array)) <= {0, 1}
    assert set(np.unique(results.arrays["forward"])) <= {0.0, 1.0}
    summary, page = Summary(results.content), (bits / "index.html").read_text(encoding="utf-8")
    assert summary.part.events == "sequences"
    for name in ("forward", "samples", "shares", "agreement"):
        assert (bits / f"{name}.png").is_file(), name
        assert f'<figure id="{name}">' in page
    assert page.count('class="sheet"') >= 3
    assert "differential equation" not in page
    assert "mask" not in page
    assert "a bound on the likelihood" in page


def test_texts_are_shown_as_texts(book: Path) -> None:
    results = read_results(book)
    page = (book / "index.html").read_text(encoding="utf-8")
    data = load_data(book.parent / "book.txt", length=12)
    assert Summary(results.content).part.events == "texts"
    real = data.description.texts(results.arrays["real"][:1].astype(np.int64))[0]
    assert f"<pre>{real}</pre>" in page
    drawn = results.arrays[results.content["runs"][0]["samples"][0]["array"]][:1].astype(np.int64)
    text = data.description.texts(drawn)[0].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert text in page
    assert "············" in page  # all masked at the end of the forward process
    assert "The noise is a mask, drawn as a dot." in page


def test_distances_take_categories_as_indicators(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("kind,size\n" + "".join(f"{'abc'[i % 3]},{i / 7}\n" for i in range(60)))
    data, hot = (load_data(tmp_path / "t.csv", one_hot=one_hot) for one_hot in (False, True))
    mine, theirs = SampleDistances(data, 12), SampleDistances(hot, 12)
    assert torch.equal(mine.held_out, theirs.held_out)
    assert mine.floors == theirs.floors
    x = data.description.to_model(data.description.center(data.test))
    drawn = comparable(x, data.description)
    torch.testing.assert_close(drawn[:, :3], mine.held_out[:, :3])  # numbers are cut to the range of the train part
    inside = (data.test[:, 1] >= data.train[:, 1].min()) & (data.test[:, 1] <= data.train[:, 1].max())
    torch.testing.assert_close(drawn[inside], mine.held_out[inside])
    codes, three, many = (Description("codes", (20,), classes=count) for count in (2, 3, 1000))
    y = torch.randint(0, 3, (7, 20), generator=torch.Generator().manual_seed(0))
    hot_codes = in_distance_units(y, three)
    assert hot_codes.shape == (7, 20, 3)
    assert torch.equal(from_distance_units(hot_codes + 0.3 * torch.rand(7, 20, 3), three), y)
    assert torch.equal(from_distance_units(in_distance_units(y % 2, codes), codes), y % 2)
    with pytest.raises(ValueError, match=r"at most 16384 indicators, got 20 entries of 1000 classes; compare bounds"):
        in_distance_units(y, many)


def test_the_default_plan_has_samplers_that_reverse_the_process(tmp_path: Path) -> None:
    mixed = Mixed(VPSDE(), Categorical((3, 2)))
    for process in (VPSDE(), Binomial(), Categorical(3, "absorbing"), mixed):
        check_samplers(default_comparison(process), process)
    data = load_data("heartbeat", n=100)
    plan = Comparison((Simple(),), (DDIM(steps=3),))
    with pytest.raises(TypeError, match=r"DDIM reverses .* got a model of Binomial; take Ancestral\(\)"):
        compare(data, default_recipe(data.description), plan, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kernel", ["uniform", "absorbing"])
def test_the_frames_of_the_forward_process_have_the_kernels_shares(kernel: str) -> None:
    process = Categorical(3, kernel)
    labels, states = forward_frames(process, torch.zeros(400, 50), frames=5)
    for tau, x in zip(labels["tau"], states):
        expected = float(process.transition(torch.zeros(1, 1), tau)[0, 0, 0]) if tau else 1.0
        share = float((x == 0).mean())
        assert share == pytest.approx(expected, abs=5 * 0.5 / 20000**0.5)
    mixed = Mixed(VPSDE(), Categorical((3,), kernel))
    _, rows = forward_frames(mixed, torch.cat([torch.full((20000, 1), 1.5), torch.zeros(20000, 1)], 1), frames=3)
    assert float(rows[-1][:, 0].std()) == pytest.approx(1.0, abs=0.03)
    assert float((rows[-1][:, 1] == 0).mean()) == pytest.approx(0.0 if kernel == "absorbing" else 1 / 3, abs=0.02)


def test_a_label_leaves_out_what_follows_from_the_rest() -> None:
    from scoresde.experiments.plan import sampler_label
    from scoresde.storage.setting_labels import short_text

    assert short_text(MixedSampler(DDIM(50))) == "MixedSampler(continuous=DDIM(steps=50))"
    assert sampler_label(MixedSampler(DDIM(50))) == "MixedSampler(DDIM(steps=50))"
    assert "categorical=TauLeaping(" in short_text(MixedSampler(DDIM(50), TauLeaping()))
