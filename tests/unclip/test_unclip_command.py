"""The command ``examples/unclip.py`` and the weights that come with it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer import BadParameter
from unclip.embedding import shown
from unclip.evaluation import bounds, cosine, curve, decoder_cosines, prior_figures, sheet, text_figures
from unclip.figures import draw_curve, draw_sheet
from unclip.quick import quick_check, small_dataset
from unclip.reference import Reference
from unclip.stages import Stages
from unclip.training import training_images

EXAMPLES = Path(__file__).parents[2] / "examples"
WEIGHTS = EXAMPLES / "unclip" / "weights"


@pytest.fixture(scope="module")
def command() -> ModuleType:
    """``examples/unclip.py``; its name is taken by the folder beside it."""
    spec = importlib.util.spec_from_file_location("unclip_command", EXAMPLES / "unclip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages.load(WEIGHTS)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference.load(WEIGHTS)


def test_the_stored_weights_take_at_most_16_megabytes() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) <= 16_000_000


def test_the_stored_decoder_draws_what_the_embedding_says(stages: Stages, reference: Reference) -> None:
    given = reference.embeddings[::90, 0]
    own, none = (
        stages.embedder(shown(stages.decode(e, 0, g, steps=8)))
        for e, g in ((given, 1.5), (torch.full_like(given, torch.nan), 1.0))
    )
    difference = cosine(own, given) - cosine(none, given)
    assert float(difference.mean()) > 3 * float(difference.std()) / len(given) ** 0.5
    assert float(cosine(own, given).mean()) > 0.3


def test_a_sample_does_not_depend_on_those_beside_it_and_guidance_changes_it(
    stages: Stages, reference: Reference
) -> None:
    given = reference.embeddings[:3, 1]
    together = stages.decode(given, 1, 2.0, range(3), steps=3)
    assert together.dtype == torch.uint8
    again = stages.decode(given, 1, 2.0, range(3), steps=3)
    assert torch.equal(together, again)
    assert not torch.equal(together, stages.decode(given, 1, 5.0, range(3), steps=3))
    assert not torch.equal(together, stages.decode(given, 0, 2.0, range(3), steps=3))


def test_a_training_image_is_its_own_nearest_one(reference: Reference) -> None:
    indices, cosines = reference.nearest(reference.embeddings[:20].flatten(0, 1))
    assert indices.tolist() == list(range(40))
    torch.testing.assert_close(cosines, torch.ones(40))
    assert reference.label(41) == f"{reference.labels[20]} (twitter)"
    with pytest.raises(ValueError, match=r"'pizzas slice' is not the name of a training emoji; similar names are"):
        reference.find("pizzas slice")


def test_a_page_of_variations_and_one_of_a_path_are_written(
    command: ModuleType, tmp_path: Path, reference: Reference
) -> None:
    a, b = reference.labels[3], reference.labels[40]
    settings = {
        "texts": [], "guidance": 2.0, "prior_guidance": 1.0, "between": False, "difference": False, "seed": 0,
        "weights": WEIGHTS,
        "method": "regression", "cache": tmp_path, "train": False, "evaluate_": False, "quick": False, "threads": 1,
    }  # fmt: skip
    command.main(image=[a], n=2, style="google", out=tmp_path / "variations", **settings)
    page = (tmp_path / "variations" / "index.html").read_text()
    assert page.count("<img") == 3
    assert f"variations of “{a}”" in page
    command.main(image=[a, b], n=3, style="twitter", out=tmp_path / "path", **settings)
    page = (tmp_path / "path" / "index.html").read_text()
    assert page.count("<img") == 3
    assert len(set(re.findall(r"base64,([^\"]+)", page))) == 3


def test_texts_that_do_not_fit_the_options_are_refused(command: ModuleType, stages: Stages) -> None:
    painter = command.Painter(stages, None, 0, (1.0, 1.0), "prior", 2, 0)
    with pytest.raises(BadParameter, match=r"--between needs two texts, got 1"):
        command.rows_of(painter, ["a"], [], True, False)
    with pytest.raises(BadParameter, match=r"--difference needs one --image and two texts"):
        command.rows_of(painter, ["a", "b"], [], False, True)


def test_a_text_and_the_difference_of_two_become_rows_of_pictures(
    command: ModuleType, stages: Stages, reference: Reference
) -> None:
    texts = torch.nn.functional.normalize(torch.randn(2, 384, generator=torch.Generator().manual_seed(0)), dim=1)
    known = {"a": texts[0], "b": texts[1]}
    painter = command.Painter(
        stages, lambda given: torch.stack([known[text] for text in given]), 0, (1.5, 2.0), "prior", 2, 0
    )
    row = painter.text_row("a", 0)
    scores = [float(match[1]) for p in row.pictures if (match := re.match(r"score (.+)", p.text))]
    assert len(row.pictures) == 4
    assert scores == sorted(scores, reverse=True)
    label = reference.labels[5]
    turned = painter.difference(label, "a", "b").pictures
    assert torch.equal(turned[0].image, stages.decode(painter.image_embedding(label)[None], 0, 2.0, range(1))[0])
    assert not torch.equal(turned[0].image, turned[1].image)
    path = painter.between_texts("a", "b").pictures
    assert torch.equal(path[0].image, stages.decode(stages.embed(texts[:1], 0, 1.5, range(1)), 0, 2.0, range(1))[0])


def test_all_figures_of_the_evaluation_are_computed_and_drawn(
    stages: Stages, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unclip.evaluation.SCALES", (1.0,))
    data = small_dataset(reference, stages.embedder, 8)
    cosines = decoder_cosines(stages, data, "test", 2.0, steps=4)
    assert cosines["real"][0] > cosines["none"][0]
    assert cosines["nearest"][0] == pytest.approx(
        cosines["real"][0], abs=1e-3
    )  # here the test images are training ones
    assert cosines["own minus nearest"][0] == pytest.approx(cosines["own"][0] - cosines["nearest"][0])
    prior = prior_figures(stages, stages.prior, data, "test", 2.0, draws=2)
    assert set(prior["recall"]) == {
        "mean of draws", "one draw", "ridge", "kernel regression", "two towers, real images"
    }  # fmt: skip
    assert all(0 <= mean <= 1 for recalls in prior["recall"].values() for mean, _ in recalls.values())
    text = text_figures(stages, data, "test", (1.0, 1.0))
    assert text["prior"]["difference"][0] == pytest.approx(text["prior"]["own"][0] - text["prior"]["shuffled"][0])
    bits = bounds(stages, data, "test", evaluations=8)
    assert bits["none minus own"][0] == pytest.approx(bits["none"][0] - bits["own"][0])
    assert bits["none minus own"][0] > 0
    draw_curve(curve(stages, data, "test", 1.0), tmp_path / "curve.png")
    draw_sheet(sheet(stages, data, "test", (1.0, 1.0)), tmp_path / "sheet.png")
    assert all((tmp_path / name).stat().st_size > 5000 for name in ("curve.png", "sheet.png"))


def test_the_decoder_is_given_the_neighbors_of_the_embedding_and_nothing_of_a_null_one(
    stages: Stages, reference: Reference
) -> None:
    embeddings = torch.stack([reference.embeddings[7, 1], torch.full((224,), torch.nan)])
    cond = reference.conditions(embeddings, stages.embedder)
    torch.testing.assert_close(cond["neighbors"][0, :3], reference.images[7, 1].float())
    assert all(value[1].isnan().all() and value[0].isfinite().all() for value in cond.values())
    null = stages.decode(embeddings[1:], 0, 1.0, range(1), steps=3)
    assert torch.equal(stages.decode(embeddings[:1], 0, 1.0, range(1), steps=3, given=()), null)


def test_training_images_come_with_some_of_their_neighbors_and_some_with_nothing(
    stages: Stages, reference: Reference
) -> None:
    data = small_dataset(reference, stages.embedder, 24)
    images, cond = training_images(data)
    assert len(images) == 24 * (4 + 2)  # two styles, half of them altered
    null = cond["features"].isnan().all(1)
    assert 0 < int(null.sum()) < len(images) / 4
    assert torch.equal(cond["neighbors"].isnan().all(3).all(2).all(1), null)
    row = int((~null).nonzero()[0])
    own = data.copies_cond["neighbors"][data.copies_cond["altered"] == 0][row % 24].float()
    pool = torch.cat([own, own.flip(3)])
    for neighbor in cond["neighbors"][row].float().unflatten(0, (4, 3)):
        assert any(torch.equal(neighbor, each) for each in pool)


def test_the_quick_check_trains_stores_and_reads_every_network(tmp_path: Path) -> None:
    quick_check(WEIGHTS, tmp_path)
    assert (tmp_path / "index.html").read_text().count("<img") == 16
    assert (tmp_path / "unclip.png").stat().st_size > 5000
    stored = Stages.load(tmp_path / "quick" / "weights")
    assert all(p.dtype == torch.float32 for p in stored.decoder.net.parameters())
    assert {p.name for p in (tmp_path / "quick").iterdir()} >= {"prior", "decoder", "weights"}
