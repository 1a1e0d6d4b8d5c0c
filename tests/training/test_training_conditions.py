"""Training with conditions: values in model units, nulls, order, resume, checks, and the default network."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import scoresde.training
from scoresde import MLP, VPSDE, Data, Description, ScoreModel, Training, UNet, load, train
from scoresde.data import Augment, ClassCondition, VectorCondition
from scoresde.nn import Channels, Classes, Pointwise, QuantizedSkip, Tokens, Vector
from scoresde.storage import spec
from scoresde.training.batches import Batches, cond_fingerprint
from scoresde.training.condition_checks import in_turn
from scoresde.training.defaults import default_recipe

CPU = torch.device("cpu")
NET: dict[str, Any] = {"label": Classes(3), "text": Vector(2), "tokens": Tokens(4)}


def data(n: int = 12, **changes: Tensor) -> Data:
    generator = torch.Generator().manual_seed(0)
    cond = {
        "label": torch.arange(n) % 3,
        "text": torch.randn(n, 2, generator=generator) * 5 + 100,
        "tokens": torch.randn(n, 6, 4, generator=generator),
        **changes,
    }
    x = torch.randn(n, 2, generator=generator)
    return Data(x, x[:0], Description("x", (2,)), cond)


def model(conditions: dict[str, Any] | None = None, **options: Any) -> ScoreModel:
    torch.manual_seed(0)
    net = MLP((2,), width=16, depth=1, embedding_width=16, conditions=NET if conditions is None else conditions)
    return ScoreModel(net, VPSDE(), event_shape=(2,), **options)


def draw(source: Batches, step: int = 0) -> tuple[Tensor, dict[str, Any]]:
    with torch.random.fork_rng(devices=[]):
        return source.draw(step, 0)


@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_has_the_conditions_of_its_events_in_model_units(resident, monkeypatch):
    if not resident:
        monkeypatch.setattr("scoresde.training.condition_batches._RESIDENT", 0)
    source = data()
    batches = Batches(model(), source, Training(batch_size=8, condition_dropout=0.0), CPU, 1)
    _, cond = draw(batches, 3)
    index = batches.indices(3, 0)
    assert sorted(cond) == ["label", "text", "tokens"]
    assert torch.equal(cond["label"], source.train_labels[index])  # pyright: ignore[reportOptionalSubscript]
    text = source.train_cond["text"]
    mean, std = text.double().mean(0), text.double().std(0, unbiased=False)
    torch.testing.assert_close(cond["text"].double(), (text[index].double() - mean) / std, rtol=1e-5, atol=1e-5)
    assert cond["text"].dtype == torch.float32
    tokens = source.train_cond["tokens"]
    torch.testing.assert_close(cond["tokens"], (tokens[index] - tokens.mean()) / tokens.std(unbiased=False))


def test_integer_images_are_scaled_by_batch_at_the_centers_of_their_bins():
    images = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    about = Description("i", (1, 8, 8), bins=256)
    source = Data(images, images[:0], about, {"low": images[:, :, ::2, ::2]})
    net = UNet((1, 8, 8), channels=8, multipliers=(1,), conditions={"low": Channels(1)})
    batches = Batches(ScoreModel(net, VPSDE()), source, Training(batch_size=4, condition_dropout=0.0), CPU, 1)
    low = images[batches.indices(0, 0)][:, :, ::2, ::2]
    torch.testing.assert_close(draw(batches)[1]["low"], (low.float() + 0.5) / 128 - 1)


def test_each_condition_is_dropped_to_its_null_independently_with_its_probability():
    settings = Training(batch_size=4000, condition_dropout={"label": 0.5, "text": 0.25})
    _, cond = draw(Batches(model(), data(), settings, CPU, 1))
    label, text = cond["label"] == 3, cond["text"].isnan().all(1)
    assert torch.equal(text, cond["text"].isnan().any(1))
    for dropped, share in ((label, 0.5), (text, 0.25), (label & text, 0.125)):
        assert abs(dropped.float().mean().item() - share) < 4 * math.sqrt(share * (1 - share) / 4000)
    assert not cond["tokens"].isnan().any()
    _, cond = draw(Batches(model(), data(), replace(settings, condition_dropout=0.1), CPU, 1))
    for dropped in (cond["label"] == 3, cond["text"].isnan().all(1), cond["tokens"].isnan().flatten(1).all(1)):
        assert abs(dropped.float().mean().item() - 0.1) < 4 * math.sqrt(0.1 * 0.9 / 4000)


def test_null_entries_of_the_data_reach_the_network_as_null():
    text = data().train_cond["text"].clone()
    text[4] = math.nan
    source = data(text=text)
    _, cond = draw(batches := Batches(model(), source, Training(batch_size=12, condition_dropout=0.0), CPU, 1))
    assert torch.equal(cond["text"].isnan().all(1), batches.indices(0, 0) == 4)
    train(model(), source, Training(steps=2, batch_size=4), progress=False)
    with pytest.raises(ValueError, match=r"'text' of the network has no null, got 1 null entries.*first at index 4"):
        train(model({"text": Vector(2, null=False)}), source, Training(steps=1, batch_size=4))


def test_a_model_learns_what_its_condition_says():
    generator = torch.Generator().manual_seed(0)
    place = torch.randn(2000, 1, generator=generator)
    x = place * 1.2 + 0.2 * torch.randn(2000, 1, generator=generator)
    net = MLP((1,), width=32, depth=2, embedding_width=32, conditions={"place": Vector(1)})
    settings = Training(steps=500, batch_size=512, lr=5e-3, lr_end=0.0, ema=0.98)
    source = Data(x, x[:0], Description("x", (1,)), {"place": place})
    result = train(ScoreModel(net, VPSDE()), source, settings, progress=False)
    cond = source.description.to_model_cond({"place": [-1.0, 0.0, 1.0]})
    with torch.no_grad():
        tau = 3.0  # nearly pure noise: the prediction is the mean of the data given the condition
        estimate = result.model(torch.zeros(3, 1), tau, **cond).x0.flatten()
        unknown = result.model(torch.zeros(3, 1), tau).x0.flatten()
    torch.testing.assert_close(estimate, torch.tensor([-1.2, 0.0, 1.2]), atol=0.2, rtol=0)
    assert unknown.abs().max() < 0.2


def test_a_resumed_run_equals_an_uninterrupted_one_and_stores_its_conditions(tmp_path):
    settings = Training(steps=8, batch_size=6, condition_dropout=0.3)
    whole = train(model(), data(), settings, run_dir=tmp_path / "whole", progress=False)

    def fail(_: object) -> None:
        raise RuntimeError("enough")

    stop = scoresde.training.Callback(4, fail)
    with pytest.raises(RuntimeError, match="enough"):
        train(model(), data(), settings, run_dir=tmp_path / "cut", save_every=3, callbacks=[stop], progress=False)
    resumed = train(model(), data(), settings, run_dir=tmp_path / "cut", resume=True, progress=False)
    for a, b in zip(whole.raw.parameters(), resumed.raw.parameters(), strict=True):
        assert torch.equal(a, b)
    assert load(tmp_path / "cut").data == data().description
    config = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert config["conditions"] == cond_fingerprint(data().train_cond)
    assert "VectorCondition(size=2" in config["model"]["data"]
    changed = data(label=data().train_cond["label"].flip(0))
    with pytest.raises(ValueError, match="conditions = .*, asked for is"):
        train(model(), changed, settings, run_dir=tmp_path / "cut", resume=True, progress=False)


def test_two_shards_hold_the_conditions_of_one_batch():
    whole = Batches(model(), data(), Training(batch_size=8, condition_dropout=0.0), CPU, 1)
    halves = Batches(model(), data(), Training(batch_size=8, accumulate=2, condition_dropout=0.0), CPU, 2)
    with torch.random.fork_rng(devices=[]):
        parts = [halves.draw(2, shard)[1]["text"] for shard in (0, 1)]
    assert torch.equal(torch.cat(parts), draw(whole, 2)[1]["text"])


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"mask": Channels(1)}, "'mask' needs it in the data, they have label, text, tokens; .*condition=mask"),
        ({"text": Vector(3)}, r"'text' of the data, vector of 2 numbers, must fit the network's Vector\(size=3"),
        ({"label": Vector(1)}, "'label' must be of one kind in network and data, got Vector.* for 3 classes"),
        ({"text": Classes(4)}, "'text' must be of one kind in network and data"),
        ({"label": Classes(2)}, r"'label' has 3 classes in the data, the network Classes\(count=2.*Classes\(3\)"),
        ({"tokens": Tokens(5)}, "'tokens' of the data, tokens of 4 numbers, must fit"),
    ],
)
def test_a_network_whose_conditions_do_not_match_is_refused_before_anything_changes(conditions, message):
    net = MLP((1, 2), width=8, depth=1, conditions=conditions)
    source = data()
    source = replace(
        source, train=source.train[:, None], test=source.test[:, None], description=Description("x", (1, 2))
    )
    made = ScoreModel(net, VPSDE(), event_shape=(1, 2))
    with pytest.raises(ValueError, match=message):
        train(made, source, Training(steps=1, batch_size=4))
    assert made.data is None


def test_a_tensor_of_events_has_no_conditions():
    with pytest.raises(ValueError, match="'label' needs it in the data, they have none"):
        train(model({"label": Classes(3)}), data().train, Training(steps=1, batch_size=4))


@pytest.mark.parametrize(
    ("dropout", "conditions", "message"),
    [
        ({"txt": 0.1}, NET, "unknown condition in condition_dropout 'txt'; did you mean text"),
        ({"text": 0.1}, {"text": Vector(2, null=False)}, "'text' has none .*null=True"),
    ],
)
def test_dropout_of_what_has_no_null_is_refused(dropout, conditions, message):
    with pytest.raises(ValueError, match=message):
        train(model(conditions), data(), Training(steps=1, batch_size=4, condition_dropout=dropout))


def test_settings_of_the_dropout_are_checked_and_written_as_text():
    settings = Training(condition_dropout={"text": 0.2})
    known = spec.known_classes(scoresde.training, scoresde.objective)
    assert spec.parse(spec.to_text(settings), known, kind=Training) == settings
    former = spec.to_text(Training()).replace("condition_dropout=0.1", "label_dropout=0.25")
    assert spec.parse(former, known, kind=Training, stored=True).condition_dropout == 0.25
    for wrong in (1.0, -0.1, {"text": 1.0}):
        with pytest.raises(ValueError, match=r"condition_dropout must lie in \[0, 1\)"):
            Training(condition_dropout=wrong)


def test_a_network_without_conditions_reads_none_and_a_model_may_know_the_data_without_them():
    plain = ScoreModel(MLP((2,), width=8, depth=1), VPSDE(), data=Description("x", (2,)))
    assert draw(Batches(plain, data(), Training(batch_size=4), CPU, 1))[1] == {}
    assert plain.data == data().description
    other = replace(data().description, conditions={"text": VectorCondition(2)})
    with pytest.raises(ValueError, match="data must have the model's description"):
        train(ScoreModel(MLP((2,), width=8, depth=1), VPSDE(), data=other), data(), Training(steps=1, batch_size=4))


def test_augmented_images_refuse_image_conditions():
    images = torch.zeros(4, 1, 8, 8)
    images[0] = 1
    source = Data(images, images[:0], Description("i", (1, 8, 8)), {"low": images + torch.rand(1, 1, 8, 8)})
    net = UNet((1, 8, 8), channels=8, multipliers=(1,), augment=9, conditions={"low": Channels(1)})
    with pytest.raises(ValueError, match="augment transforms the events alone, got images as the condition 'low'"):
        train(ScoreModel(net, VPSDE()), source, Training(steps=1, batch_size=2, augment=Augment()))


def test_classes_in_turn_are_one_of_each_and_then_the_next_of_each():
    labels = torch.tensor([2, 0, 0, 1, 2, 0])
    assert labels[in_turn(labels)].tolist() == [0, 1, 2, 0, 2, 0]
    assert sorted(in_turn(labels).tolist()) == list(range(6))


def test_the_default_network_reads_all_conditions_but_labels_each_with_a_null():
    description = data().description
    net: Any = default_recipe(description).network
    assert net.conditions == {"text": Vector(2), "tokens": Tokens(4)}
    recipe = default_recipe(description, conditions=["label"])
    net = recipe.network
    assert net.conditions == {"label": Classes(3)}
    assert recipe.reason == "points of 2 values, conditioned on label"
    assert default_recipe(replace(description, conditions={"label": ClassCondition(3)})).reason == "points of 2 values"
    with pytest.raises(ValueError, match="unknown condition of the data 'labl'; did you mean label"):
        default_recipe(description, conditions=["labl"])


@pytest.mark.parametrize(("shape", "outer"), [((1, 8, 8), Pointwise), ((3, 16, 16), QuantizedSkip)])
def test_networks_around_the_network_pass_conditions_on(shape, outer):
    generator = torch.Generator().manual_seed(0)
    bins = 17 if outer is Pointwise else 256
    x = torch.randint(0, bins, (4, *shape), generator=generator).to(torch.uint8)
    cond = {"low": x[:, :, ::2, ::2], "label": torch.arange(4)}
    source = Data(x, x[:0], Description("i", shape, bins=bins), cond)
    recipe = default_recipe(source.description, conditions=["label", "low"])
    assert isinstance(recipe.network, outer)
    assert recipe.network.conditions == {"label": Classes(4), "low": Channels(shape[0])}
    result = train(recipe.build(source), source, replace(recipe.training, steps=1, batch_size=2), progress=False)
    assert result.step == 1


@pytest.mark.parametrize("names", [None, ("a", "b", "c")])
def test_a_model_whose_classes_have_no_names_takes_data_with_names_for_as_many_or_fewer(names):
    fewer = Data(
        torch.randn(6, 2),
        torch.zeros(0, 2),
        Description("x", (2,), conditions={"label": ClassCondition(3, names)}),
        {"label": torch.arange(6) % 3},
    )
    description = replace(fewer.description, conditions={"label": ClassCondition(10)})
    foreign = model({"label": Classes(10)}, data=description)
    assert train(foreign, fewer, Training(steps=1, batch_size=6), progress=False).step == 1
    narrow = model({"label": Classes(2)}, data=replace(description, conditions={"label": ClassCondition(2)}))
    with pytest.raises(ValueError, match="data must have the model's description"):
        train(narrow, fewer, Training(steps=1, batch_size=6))
    named = replace(description, conditions={"label": ClassCondition(3, ("a", "b", "d"))})
    with pytest.raises(ValueError, match="data must have the model's description"):
        train(model({"label": Classes(3)}, data=named), fewer, Training(steps=1, batch_size=6))
