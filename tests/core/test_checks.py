"""Argument checks of `scoresde._core.checks`: each error has the rule and the value received."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from scoresde._core.checks import check_event_shape, check_increasing, check_integer, check_kind, check_positive


@pytest.mark.parametrize(
    ("value", "bounds", "rule"),
    [
        (0, {}, "a positive integer, got 0"),
        (True, {}, "a positive integer, got True"),
        (2.0, {"least": 0}, "an integer of at least 0, got 2.0"),
        ("3", {"least": None}, "an integer, got '3'"),
        (7, {"least": 1, "most": 6}, "an integer from 1 to 6, got 7"),
        (7, {"least": None, "most": 6}, "an integer of at most 6, got 7"),
    ],
)
def test_a_value_that_is_not_an_integer_in_range_is_refused(value: Any, bounds: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rf"^steps must be {rule}\.$"):
        check_integer("steps", value, **bounds)


def test_integers_in_range_pass() -> None:
    check_integer("steps", 1)
    check_integer("steps", -5, least=None)
    check_integer("steps", 6, least=1, most=6)


@pytest.mark.parametrize("value", [0.0, -1, math.inf, math.nan, True, "1"])
def test_the_first_value_that_is_not_positive_and_finite_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^high must be a positive finite number, got {value!r}\.$"):
        check_positive(low=1, high=value, other=-1.0)


@pytest.mark.parametrize("values", [(1.0, 1.0), (2.0, 1.0), (-math.inf, 0.0), (0.0, math.inf), (0.0, math.nan)])
def test_values_that_are_not_finite_and_increasing_are_refused(values: tuple[float, float]) -> None:
    low, high = values
    with pytest.raises(ValueError, match=rf"^low must be below high, both finite, got {low!r} and {high!r}\.$"):
        check_increasing(low=low, high=high)
    with pytest.raises(ValueError, match="^high must be below last, both finite"):
        check_increasing(low=0.0, high=1.0, last=1.0)


def test_increasing_and_positive_values_pass() -> None:
    check_increasing(low=-1.0, middle=0, high=2.5)
    check_positive(low=1e-300, high=3)


def test_a_class_or_a_name_in_place_of_an_object_is_refused() -> None:
    check_kind("net", torch.nn.Identity(), torch.nn.Module)
    with pytest.raises(TypeError, match=r"^net must be a Module, got <class .*Identity'>; pass an object"):
        check_kind("net", torch.nn.Identity, torch.nn.Module)
    with pytest.raises(TypeError, match=r"^net must be a Module, got 'Identity'; pass an object"):
        check_kind("net", "Identity", torch.nn.Module)
    with pytest.raises(TypeError, match=r"^net must be a Module, got list; pass an object"):
        check_kind("net", [1], torch.nn.Module)


@pytest.mark.parametrize(
    ("shape", "event_shape", "expected"),
    [((), None, r"\(B, \*D\)"), ((), (), r"\(B,\)"), ((3, 2), (), r"\(B,\)"), ((3,), (3,), r"\(B, 3\)")],
)
def test_a_batch_of_another_event_shape_is_refused(shape: Any, event_shape: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=rf"^y must have shape {expected}, got .*; give the batch first"):
        check_event_shape(torch.zeros(shape), event_shape, "y")


def test_a_batch_of_the_event_shape_passes() -> None:
    for shape, event_shape in (((4,), ()), ((4, 2), (2,)), ((0, 2, 3), (2, 3)), ((5, 7), None)):
        check_event_shape(torch.zeros(shape), event_shape)
