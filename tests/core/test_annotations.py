"""Arguments against annotations: which values fit, and what the error says of those that do not."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoresde._core.annotations import CheckedArguments, check_arguments, refuse_signature
from scoresde.sampling import DDIM, Chain


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@dataclass
class Square(Shape):
    side: float = 1.0

    def area(self) -> float:
        return self.side**2


def call(
    number: float = 1.0,
    count: int | None = None,
    name: str = "a",
    flag: bool = False,
    sizes: tuple[int, ...] = (1,),
    names: Sequence[str] = (),
    shape: Shape | None = None,
    table: Mapping[str, int] | None = None,
    function: Callable[[int], int] | None = None,
    path: str | os.PathLike[str] = "x",
    x: Tensor | None = None,
    anything: Any = None,
    unresolved: Missing = None,  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
) -> None:
    check_arguments(call, locals())


@pytest.mark.parametrize(
    "fitting",
    [
        {"number": 3},
        {"number": np.float32(0.5)},
        {"number": float("inf")},
        {"count": 2},
        {"count": None},
        {"sizes": [1, 2]},
        {"sizes": range(3)},
        {"sizes": np.arange(3)},
        {"sizes": torch.arange(3)},
        {"names": ["a", "b"]},
        {"shape": Square()},
        {"table": {"a": 1}},
        {"function": abs},
        {"path": Path("x")},
        {"x": torch.zeros(2)},
        {"anything": Ellipsis},
        {"unresolved": 3},
    ],
    ids=str,
)
def test_a_value_that_fits_its_annotation_is_accepted(fitting: dict[str, Any]) -> None:
    call(**fitting)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"number": "3"}, r"number must be a number, got '3'; the default is 1.0\."),
        ({"number": True}, r"number must be a number, got True; the default is 1.0\."),
        ({"number": None}, r"number must be a number, got None; the default is 1.0\."),
        ({"number": torch.ones(2)}, r"number must be a number, got Tensor; the default is 1.0\."),
        ({"count": [3]}, r"count must be an integer, got \[3\]; pass one number\."),
        ({"name": 3}, r"name must be a text, got 3; the default is 'a'\."),
        ({"flag": 1}, r"flag must be True or False, got 1; the default is False\."),
        ({"flag": "no"}, r"flag must be True or False, got 'no'; the default is False\."),
        ({"sizes": 3}, r"sizes must be a tuple of integers, got 3; write \(3,\)\."),
        ({"sizes": "12"}, r"sizes must be a tuple of integers, got '12'; the default is \(1,\)\."),
        ({"sizes": [1, None]}, r"sizes must be a tuple of integers, got \[1, None\]; the default is \(1,\)\."),
        ({"sizes": np.ones((2, 2))}, r"sizes must be a tuple of integers, got ndarray; the default is \(1,\)\."),
        ({"sizes": np.array(["a"])}, r"sizes must be a tuple of integers, got ndarray; the default is \(1,\)\."),
        ({"names": "ab"}, r"names must be a sequence of texts, got 'ab'; the default is \(\)\."),
        ({"shape": Square}, r"shape must be a Shape, got <class .*Square'>; pass such an object\."),
        ({"shape": "Square"}, r"shape must be a Shape, got 'Square'; pass such an object\."),
        ({"table": [1]}, r"table must be a mapping, got \[1\]; pass such an object\."),
        ({"function": 3}, r"function must be a function, got 3; pass such an object\."),
        ({"path": 3}, r"path must be a text or a path, got 3; the default is 'x'\."),
        ({"x": [1.0]}, r"x must be a tensor, got \[1.0\]; pass torch.as_tensor\(x\)\."),
        ({"x": "x.npy"}, r"x must be a tensor, got 'x.npy'; read it first: sd.load_data\(path\).train\."),
        ({"count": 10**90 * 1j}, r"count must be an integer, got .*; pass one number\."),
    ],
    ids=lambda case: str(case)[:40],
)
def test_a_value_of_another_kind_is_refused_with_rule_value_and_remedy(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(**wrong)


def test_a_class_of_the_package_is_answered_with_the_object() -> None:
    with pytest.raises(
        TypeError, match=r"grid must be a Grid, got <class .*Chain'>; pass an object, .* such as Chain\("
    ):
        DDIM(2, Chain)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        TypeError, match=r"grid must be a Grid, got 'Chain'; pass an object, not its class or name, such as"
    ):
        DDIM(2, "Chain")  # pyright: ignore[reportArgumentType]


def test_integers_are_left_to_the_check_that_knows_their_range() -> None:
    call(count="3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="steps must be a positive integer, got '10'"):
        DDIM("10")  # pyright: ignore[reportArgumentType]


@dataclass
class Network(CheckedArguments, nn.Module):
    width: int
    shape: Shape | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


def test_a_class_refuses_wrong_settings_before_it_stores_any() -> None:
    with pytest.raises(TypeError, match="width must be an integer, got Linear; pass one number"):
        Network(width=nn.Linear(2, 2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="shape must be a Shape, got 3"):
        Network(2, 3)  # pyright: ignore[reportArgumentType]
    assert Network(2, shape=Square()).width == 2


def test_missing_and_unknown_arguments_are_refused_by_the_call_itself() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'width'"):
        Network()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        Network(2, depth=3)  # pyright: ignore[reportCallIssue]


def test_a_network_that_does_not_take_log_snr_is_refused_with_the_call_that_it_must_take() -> None:
    error = TypeError("forward() takes 2 positional arguments but 3 were given")
    with pytest.raises(TypeError, match=r"a network must be called as net\(x, log_snr, y\), got Linear with forward\("):
        refuse_signature(nn.Linear(2, 2), {"y": 1}, error)
    refuse_signature(nn.Bilinear(2, 2, 2), {}, error)  # takes two: another error, which its caller raises again
