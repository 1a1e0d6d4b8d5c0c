"""Conditions beside events: their kinds, checks, scaling and text form."""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import scoresde as sd
from scoresde.data import (
    ClassCondition,
    Data,
    Description,
    ImageCondition,
    TokenCondition,
    VectorCondition,
)
from scoresde.data.conditions.fit import RESERVED
from scoresde.data.conditions.parts import label_kind
from scoresde.nn import Vector
from scoresde.storage import spec
from scoresde.training.condition_checks import model_cond

NAN = math.nan
X = torch.arange(12.0).reshape(6, 2)
ABOUT = Description("x", (2,))
IMAGES = torch.arange(6 * 3 * 8 * 8).reshape(6, 3, 8, 8).to(torch.uint8)


def made(train: dict[str, Any], test: dict[str, Any] | None = None, about: Description = ABOUT) -> Data:
    events = torch.zeros(6, *about.shape, dtype=torch.uint8 if about.bins else torch.float32)
    return Data(events, events[:0] if test is None else events, about, train, {} if test is None else test)


def test_kinds_follow_from_type_and_rank():
    images = Description("images", (3, 8, 8), bins=256)
    cond = {
        "label": torch.tensor([0, 1, 2, 0, 1, 3]),
        "age": torch.arange(6.0),
        "text": torch.randn(6, 4),
        "tokens": torch.randn(6, 5, 7),
        "low_res": IMAGES[:, :, ::2, ::2],
        "depth": torch.rand(6, 1, 8, 8),
    }
    data = made(cond, about=images)
    kinds = data.description.conditions
    assert kinds["label"] == ClassCondition(4)
    assert isinstance(kinds["age"], VectorCondition)
    assert (kinds["age"].size, tuple(data.train_cond["age"].shape)) == (1, (6, 1))
    assert kinds["text"].describe() == "vector of 4 numbers"
    assert isinstance(kinds["tokens"], TokenCondition)
    assert kinds["low_res"] == ImageCondition((3, 4, 4), 256)
    assert isinstance(kinds["depth"], ImageCondition)
    assert kinds["depth"].bins is None
    assert list(data.train_cond) == sorted(cond)  # one order, so that texts and random numbers do not depend on it
    series = made({"low": torch.randn(6, 1, 16), "tokens": torch.randn(6, 5, 7)}, about=Description("s", (2, 16)))
    assert [type(kind).__name__ for kind in series.description.conditions.values()] == [
        "ImageCondition",
        "TokenCondition",
    ]


def test_vectors_are_standardized_by_entry_from_the_train_part_alone():
    train = torch.tensor([[1e6, 3.0], [1e6 + 2, 3.0], [1e6 + 4, 3.0]], dtype=torch.float64)
    train = torch.cat([train, train])
    data = Data(X, X, ABOUT, {"place": train}, {"place": train + 100})
    kind = data.description.conditions["place"]
    assert isinstance(kind, VectorCondition)
    assert kind.offset == (1e6 + 2, 3.0)
    assert isinstance(kind.scale, tuple)
    assert math.isclose(kind.scale[0], math.sqrt(8 / 3), rel_tol=1e-12)
    assert kind.scale[1] == 1.0  # a constant entry becomes 0
    x = data.description.to_model_cond({"place": torch.tensor([[1e6 + 4, 3.0]], dtype=torch.float64)})["place"]
    torch.testing.assert_close(x, torch.tensor([[2 / math.sqrt(8 / 3), 0.0]], dtype=torch.float64))
    assert (kind.low, kind.high) == ((1e6, 3.0), (1e6 + 4, 3.0))


def test_tokens_and_images_have_one_scale_and_integer_images_that_of_bin_centers():
    tokens = torch.tensor([-1.0, 3.0]).repeat(6, 5, 2)
    data = made({"tokens": tokens, "low": IMAGES}, about=Description("images", (3, 8, 8), bins=256))
    assert data.description.conditions["tokens"] == TokenCondition(4, 1.0, 2.0)
    cond = data.description.to_model_cond({"low": IMAGES[:1], "tokens": tokens[:1]})
    torch.testing.assert_close(cond["low"], (IMAGES[:1].float() + 0.5) / 128 - 1)
    assert cond["tokens"].unique().tolist() == [-1.0, 1.0]


def test_to_model_cond_takes_names_of_classes_and_lists_of_numbers():
    about = replace(
        ABOUT, conditions={"kind": ClassCondition(2, ("cat", "dog")), "age": VectorCondition(1, 40.0, 10.0)}
    )
    cond = about.to_model_cond({"kind": ["dog", "cat"], "age": [50.0, 35.0]})
    assert cond["kind"].tolist() == [1, 0]
    assert cond["age"].tolist() == [[1.0], [-0.5]]
    with pytest.raises(ValueError, match="no class of condition 'kind' is named 'dgo'; did you mean dog"):
        about.to_model_cond({"kind": ["dgo"]})
    with pytest.raises(ValueError, match="unknown condition 'agee'; did you mean age"):
        about.to_model_cond({"agee": [1.0]})
    with pytest.raises(ValueError, match=r"'age' must have shape \(N, 1\), got \(1, 2\)"):
        about.to_model_cond({"age": [[1.0, 2.0]]})
    with pytest.raises(ValueError, match=r"'kind' must lie in 0 ... 1, got 2 at index 0"):
        about.to_model_cond({"kind": [2]})


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            {"a": torch.zeros(5, 2)},
            None,
            r"train_cond\['a'\] must have one entry per event, shape \(6, ...\), got \(5, 2\)",
        ),
        ({"a": torch.zeros(6, 2)}, {}, "both parts must have the same conditions, test_cond has no 'a' for 6 events"),
        ({"a": torch.zeros(6, 2)}, {"a": torch.zeros(6, 3)}, "'a' must be alike in both parts"),
        ({"a": torch.zeros(6, 1)}, {"a": torch.zeros(6, dtype=torch.int64)}, "'a' must be alike in both parts"),
        (
            {"a": torch.tensor([0.0, 1, 2, math.inf, 0, 0])},
            None,
            r"train_cond\['a'\] must be finite, got an infinite value at index 3",
        ),
        (
            {"a": torch.tensor([[float(i), 1] for i in range(5)] + [[NAN, 1]])},
            None,
            "all values of each entry, or none.*got only some at index 5",
        ),
        ({"a": torch.tensor([0, 1, -1, 2, 0, 0])}, None, "'a' must lie in 0 ... 2, got -1 at index 2"),
        ({"label": torch.zeros(6)}, None, r"train_cond\['label'\] must be integers, 0, 1, ..., got torch.float32"),
        ({"label": torch.zeros(6, 1, dtype=torch.int64)}, None, r"must be integers, 0, 1, ..., got shape \(6, 1\)"),
        ({"seeds": torch.zeros(6)}, None, "another name than 'seeds', an argument of models"),
        ({"low res": torch.zeros(6)}, None, "must have a name like"),
        ({"a": torch.zeros(6, 3, 3, 3)}, None, r"must be described; state its kind"),
        ({"a": "text"}, None, "must be a tensor or a NumPy array"),
        ({"a": torch.zeros(6, dtype=torch.complex64)}, None, "must be real"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(train, test, message):
    with pytest.raises((ValueError, TypeError), match=message):
        made(train, test)


def test_labels_in_place_of_named_conditions_are_refused_with_the_call_that_works():
    with pytest.raises(TypeError, match=r'train_cond must map names to values.*train_cond=\{"label": labels\}'):
        Data(X, X[:0], ABOUT, torch.zeros(6, dtype=torch.int64))  # pyright: ignore[reportArgumentType]


def test_null_entries_are_kept_and_do_not_enter_the_scaling():
    values = torch.tensor([[1.0, 5.0], [NAN, NAN], [3.0, 9.0]]).repeat(2, 1)
    data = made({"a": values})
    assert data.description.conditions["a"] == VectorCondition(2, (2.0, 7.0), (1.0, 2.0), (1.0, 5.0), (3.0, 9.0))
    assert data.description.to_model_cond({"a": values})["a"][:3].isnan().all(1).tolist() == [False, True, False]
    absent = torch.tensor([[[1.0], [NAN]], [[3.0], [NAN]]]).repeat(3, 1, 1)  # a token may be absent
    assert made({"t": absent}, about=Description("s", (1, 16))).description.conditions["t"] == TokenCondition(
        1, 2.0, 1.0
    )


def test_stated_kinds_win_and_others_are_added():
    about = replace(ABOUT, conditions={"age": VectorCondition(1, 0.0, 100.0), **label_kind(("a", "b", "c"))})
    data = made({"age": torch.arange(6), "label": torch.zeros(6, dtype=torch.int64), "z": torch.randn(6)}, about=about)
    assert data.description.conditions["age"] == VectorCondition(1, 0.0, 100.0)
    assert data.train_cond["age"].dtype == torch.float32
    assert data.description.labels == ("a", "b", "c")
    assert list(data.description.conditions) == ["age", "label", "z"]
    with pytest.raises(ValueError, match="'label' must lie in 0 ... 2, got 3"):
        made({"label": torch.tensor([0, 1, 2, 3, 0, 0])}, about=about)


def test_a_constant_condition_is_named_in_a_warning():
    with pytest.warns(UserWarning, match="condition 'age' has one value in the train part"):
        made({"age": torch.full((6,), 0.1)})


def test_labels_are_read_from_the_condition_label_and_cannot_be_set_beside_it():
    labels = torch.tensor([0, 1, 1, 0, 2, 0])
    data = Data(X, X, ABOUT, {"label": labels}, {"label": labels})
    assert data.train_labels is data.train_cond["label"]
    with pytest.raises(AttributeError):
        data.train_labels = labels  # pyright: ignore[reportAttributeAccessIssue]


def test_complete_events_keep_their_conditions():
    x = torch.where(X == 4, NAN, X)
    data = Data(x, x, Description("x", (2,), missing=True), {"a": X[:, 0]}, {"a": X[:, 1]})
    complete = data.complete()
    assert complete.train_cond["a"].flatten().tolist() == [0.0, 2.0, 6.0, 8.0, 10.0]
    assert complete.test_cond["a"].flatten().tolist() == [1.0, 3.0, 7.0, 9.0, 11.0]


def test_descriptions_with_conditions_are_hashable_and_written_as_text():
    about = replace(
        ABOUT,
        conditions={
            "label": ClassCondition(2, ("a", "b")),
            "age": VectorCondition(1, 0.1, 1 / 3),
            "text": TokenCondition(384, 0.5, 2.0),
            "low": ImageCondition((3, 4, 4), 256),
            "depth": ImageCondition((1, 4, 4), offset=(0.5,), scale=2.0),
        },
    )
    assert spec.parse(spec.to_text(about), spec.known_classes(sd.data), kind=Description) == about
    assert hash(about) == hash(replace(ABOUT))  # conditions do not enter the hash; equality reads them
    assert about != ABOUT
    assert "conditions" not in spec.to_text(ABOUT)


def test_texts_of_earlier_versions_keep_the_names_of_their_classes():
    text = "Description(name='x', shape=(2,), labels=('a', 'b'))"
    assert spec.parse(text, spec.known_classes(sd.data), kind=Description, stored=True).labels == ("a", "b")


def test_no_condition_has_the_name_of_an_argument():
    functions = (sd.sample, sd.log_prob, sd.bits_per_dim, sd.continuous_vlb, sd.discrete_vlb, sd.calibrate)
    functions = (*functions, sd.importance_weighted_vlb, sd.differentiable_log_prob, sd.sample_log_prob)
    for function in (*functions, sd.training.loss_by_log_snr, sd.Loss.__call__, sd.Loss.at, sd.Model.forward):
        assert set(inspect.signature(function).parameters) - {"cond"} <= RESERVED, function


def test_values_far_from_those_of_the_train_part_are_named_in_a_warning() -> None:
    train = torch.tensor([[17.0, 2.0], [90.0, 3.0], [math.nan, math.nan]])
    about = Data(X[:3], X[:0], ABOUT, {"who": train}).description
    near = about.to_model_cond({"who": [[-56.0, 1.0], [163.0, 4.0], [math.nan, math.nan]]})["who"]  # no warning
    assert int(near.isnan().sum()) == 2
    with pytest.warns(UserWarning, match=r"entry 0 of condition 'who' is 164, far from the 17 to 90"):
        about.to_model_cond({"who": [[164.0, 2.0]]})
    with pytest.warns(UserWarning, match=r"entry 0 of condition 'who' is 1e\+09, far from the 17 to 90 .* \(2 such\)"):
        about.to_model_cond({"who": [[50.0, 2.0], [1e9, 2.0], [-1e9, 2.0]]})
    day = VectorCondition(1, 19000.0, 100.0, (18262.0,), (19000.0,), dates=True)
    dated = replace(ABOUT, conditions={"day": day})
    with pytest.warns(UserWarning, match=r"condition 'day' is 1950-01-01, far from the 2020-01-01 to 2022-01-08"):
        dated.to_model_cond({"day": [-7305.0]})
    with pytest.warns(UserWarning, match=r"'day' is 1e\+09, far"):
        dated.to_model_cond({"day": [1e9]})


def test_a_network_is_trained_on_values_far_from_a_stated_range_without_a_warning() -> None:
    about = replace(ABOUT, conditions={"age": VectorCondition(1, 40.0, 10.0, (20.0,), (60.0,))})
    model = sd.ScoreModel(sd.MLP((2,), 8, 1, conditions={"age": Vector(1)}), sd.VPSDE(), sd.V(), data=about)
    given = {"age": torch.full((4, 1), 400.0)}
    cond = model_cond(model, given, about, torch.arange(4))  # warnings are errors here
    assert cond["age"].tolist() == [[36.0]] * 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VectorCondition(2, low=(0.0,), high=(1.0, 1.0)), "low must have one number per entry, 2, got 1"),
        (lambda: VectorCondition(1, low=(0.0,)), "a range has both ends, got one"),
        (lambda: ClassCondition(2, ("a",)), "names must name each of the 2 classes once"),
        (lambda: ClassCondition(0), "count must be a positive integer"),
        (lambda: VectorCondition(2, scale=(1.0, 0.0)), "scale must be finite and > 0"),
        (lambda: VectorCondition(2, offset=(1.0,)), "offset needs one number, or one per entry"),
        (lambda: ImageCondition((3,)), "channels and a grid"),
        (lambda: ImageCondition((1, 4), bins=1), "bins must be an integer of at least 2"),
        (lambda: ImageCondition((1, 4), 4).check(torch.full((1, 1, 4), 4), "low"), r"must lie in \[0, 4\), got 4"),
    ],
)
def test_wrong_kinds_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_far_apart_are_no_classes_in_silence() -> None:
    years = {"year": torch.tensor([1999, 2005, 2011, 2020])}
    with pytest.raises(ValueError, match=r"'year' has 4 different integers up to 2020, too few .* pass floats"):
        Data(torch.zeros(4, 2), torch.zeros(0, 2), Description("rows", (2,)), years)
    stated = Description("rows", (2,), conditions={"year": ClassCondition(2021)})
    assert Data(torch.zeros(4, 2), torch.zeros(0, 2), stated, years).description.conditions["year"].count == 2021  # pyright: ignore[reportAttributeAccessIssue]


def test_a_name_of_a_class_without_names_is_answered_with_the_integers() -> None:
    with pytest.raises(ValueError, match=r"'label' have no names, got '1\.0'; write integers, 0 \.\.\. 2"):
        ClassCondition(3).as_values(["1.0"], "label")
