"""Text <-> object: exact round trips, and nothing but known classes is ever called."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import struct
import types
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import scoresde
from scoresde.storage import spec
from scoresde.storage.spec import MAX_DEPTH, MAX_LENGTH, known_classes, parse, to_text


class Clock(ABC):
    @abstractmethod
    def tau(self) -> float: ...


class Weight(ABC):  # noqa: B024 (what is tested)
    """A marker: it has no abstract method, and is abstract all the same."""


@dataclass(frozen=True)
class Simple(Weight):
    pass


@dataclass(frozen=True)
class MinSNR(Weight):
    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}; 5 is common.")


@dataclass(frozen=True)
class LinearVP(Clock):
    first: float = 0.1
    steps: int = 10
    name: str | None = None

    def tau(self) -> float:
        return self.first


@dataclass(frozen=True)
class Process:
    clock: Clock = LinearVP()
    weight: Weight | None = None
    betas: tuple[float, ...] = ()


@dataclass(frozen=True)
class Needs:
    value: float
    label: str = ""


@dataclass(frozen=True)
class Calls:
    function: Callable[[float], float]


@dataclass(eq=False, repr=False)
class Net(nn.Module):
    width: int = 4
    levels: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, self.width)


@dataclass(frozen=True)
class _Hidden(Weight):
    pass


def _module(**members: type) -> types.ModuleType:
    module = types.ModuleType("somewhere")
    module.__dict__.update(members)
    return module


HERE = {c.__name__: c for c in (Simple, MinSNR, LinearVP, Process, Needs, Calls, Net)}

FLOATS = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.pi * 1e-7, 1e22, -2.5e-5]


@pytest.mark.parametrize("value", FLOATS)
def test_a_float_comes_back_with_the_same_bits(value):
    assert struct.pack("d", parse(to_text(MinSNR.__new__(MinSNR) and value), {})) == struct.pack("d", value)


def test_nan_comes_back_as_nan():
    assert math.isnan(parse(to_text(math.nan), {}))


@pytest.mark.parametrize(
    "value",
    [
        0,
        -7,
        10**40,
        True,
        False,
        None,
        "",
        'it\'s "so"\n\\ \0 é \udc80',
        (),
        (1,),
        [],
        [1, (2.5, "a")],
        {},
        {"a": [1], 2: None},
    ],
)
def test_a_literal_comes_back_equal_and_of_the_same_type(value):
    back = parse(to_text(value), {})
    assert back == value
    assert type(back) is type(value)


def test_numpy_numbers_are_written_as_plain_ones():
    assert to_text((np.float64(0.1), np.int64(3), np.float32(0.5))) == "(0.1, 3, 0.5)"


def test_an_object_is_written_as_the_call_that_makes_it_with_every_field():
    assert to_text(MinSNR(gamma=5)) == "MinSNR(gamma=5)"
    assert to_text(Process()) == "Process(clock=LinearVP(first=0.1, steps=10, name=None), weight=None, betas=())"


def test_nested_objects_come_back_equal():
    process = Process(LinearVP(1 / 3, 7, "a 'name'"), MinSNR(math.inf), tuple(k / 7 for k in range(1000)))
    assert parse(to_text(process), HERE) == process


def test_a_network_is_written_by_its_settings():
    text = to_text(Net(width=3))
    assert text == "Net(width=3, levels=(1, 2))"
    assert to_text(parse(text, HERE, kind=nn.Module)) == text


def test_a_bare_name_is_a_call_and_arguments_may_go_by_position():
    assert parse("Simple", HERE) == parse(" Simple() ", HERE) == Simple()
    assert parse("MinSNR(3)", HERE, kind=Weight) == MinSNR(3)
    assert parse("Process(LinearVP, betas=[.1, 1e-3])", HERE) == Process(LinearVP(), betas=[0.1, 1e-3])  # pyright: ignore


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "().__class__", "MinSNR.__init__", "MinSNR(gamma=1+1)", "2**9**9**9",
        "[MinSNR for x in (1,)]", "lambda: 1", "f'{MinSNR}'", "b'x'", "1j", "...", "{1, 2}", "x if y else z",
        "MinSNR(*[1])", "MinSNR(**{'gamma': 1})", "(x := 1)", "'a' 'b'", "not True", "1 < 2", "MinSNR()()", "[1][0]",
        "a; b", "", "(", "MinSNR(", "1 # 2", "await x", "--1", "`1`", "9" * 5000, "{[]: 1}", "-MinSNR", "-'a'", "-True",
    ],
)  # fmt: skip
def test_whatever_is_not_a_literal_or_a_call_of_a_known_class_is_refused(text):
    with pytest.raises((ValueError, TypeError), match="setting is made of|no class is named|must be a|asked for is a"):
        parse(text, HERE)


@pytest.mark.parametrize("name", ["open", "eval", "Path", "print", "__import__", "object"])
def test_builtins_are_not_known(name):
    with pytest.raises(ValueError, match=f"no class is named '{name}'"):
        parse(f"{name}('/tmp/x')", HERE)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 60 + ")" * 60,
        "[" * 10**5,
        "-" * 10**5 + "1",
        "a" + "()" * 10**5,
        "lambda:" * 50_000,
        "1" * (MAX_LENGTH + 1),
    ],
)
def test_hostile_depth_and_length_are_refused(text):
    with pytest.raises(ValueError, match="a setting (must|is made of)"):
        parse(text, HERE)


def test_what_cannot_be_read_is_not_written():
    deep: list = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(ValueError, match="must nest at most"):
        to_text(deep)
    with pytest.raises(ValueError, match=f"at most {MAX_LENGTH} characters"):
        to_text("a" * MAX_LENGTH)
    assert parse(to_text(deep[0]), {}) == deep[0]


@pytest.mark.parametrize("held", [math.sin, np.zeros(2), {1, 2}, b"a", object(), MinSNR])
def test_what_has_no_text_form_is_named_by_its_place(held):
    with pytest.raises(TypeError, match=r"Calls\.function is a .*make its class a dataclass"):
        to_text(Calls(held))


def test_an_unknown_class_is_answered_with_the_nearest_of_the_kind_asked_for():
    with pytest.raises(ValueError, match=r"no Weight is named 'minsrn'; did you mean MinSNR\? Valid: MinSNR, Simple\."):
        parse("minsrn(gamma=5)", HERE, kind=Weight)
    with pytest.raises(ValueError, match=r"no Clock is named 'Liner'; did you mean LinearVP\? Valid: LinearVP\."):
        parse("Process(clock=Liner())", HERE)


def test_an_unknown_field_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"LinearVP has no field 'step'; did you mean steps\? Valid: first, name, steps\."
    ):
        parse("LinearVP(step=5)", HERE)


def test_an_object_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"what is asked for is a Weight, got LinearVP; choose from: MinSNR, Simple\."):
        parse("LinearVP()", HERE, kind=Weight)
    with pytest.raises(TypeError, match="asked for is a Clock, got MinSNR"):
        parse("Process(clock=MinSNR(5))", HERE)
    with pytest.raises(TypeError, match=r"Process\.clock must be a Clock, got None"):
        parse("Process(clock=None)", HERE)


@pytest.mark.parametrize(
    "text",
    ["LinearVP(steps=2.5)", "LinearVP(steps=True)", "LinearVP(first='a')", "LinearVP(name=3)", "Process(betas=1)"],
)
def test_a_value_that_its_annotation_excludes_is_refused(text):
    with pytest.raises(TypeError, match=r"(LinearVP|Process)\.\w+ must be an? (int|float|str or None|tuple)"):
        parse(text, HERE)


def test_a_constructors_refusal_passes_through_with_the_text():
    with pytest.raises(ValueError, match=r"gamma must be positive, got -1; 5 is common\. \(in MinSNR\(gamma=-1\)\)"):
        parse("Process(weight=MinSNR(gamma=-1))", HERE)


@pytest.mark.parametrize("text", ["Needs()", "Needs(label='a')"])
def test_a_missing_field_is_named(text):
    with pytest.raises(ValueError, match=r"Needs needs value, got .*write Needs\(value=\.\.\.\)"):
        parse(text, HERE)


@pytest.mark.parametrize("text", ["Needs(1, value=2)", "Needs(1, 'a', 3)"])
def test_a_field_given_twice_or_too_many_are_refused(text):
    with pytest.raises(ValueError, match="takes each of .value, label. once"):
        parse(text, HERE)


def test_text_is_asked_for_where_an_object_is_given():
    with pytest.raises(TypeError, match="must be given as text, got a MinSNR"):
        parse(MinSNR(), HERE)  # type: ignore[arg-type]


def test_known_classes_are_the_public_concrete_dataclasses():
    module = _module(Clock=Clock, Weight=Weight, Simple=Simple, LinearVP=LinearVP, _Hidden=_Hidden, Path=Path)
    assert known_classes(module) == {"Simple": Simple, "LinearVP": LinearVP}
    assert known_classes(module, kind=Weight) == {"Simple": Simple}


def test_two_classes_of_one_name_are_told_apart_by_their_place():
    twin = dataclass(frozen=True)(type("Simple", (LinearVP,), {"__annotations__": {}}))
    known = {**HERE, **known_classes(_module(Simple=Simple), _module(Simple=twin))}
    assert parse("Process(clock=Simple(), weight=Simple())", known) == Process(twin(), Simple())
    with pytest.raises(ValueError, match="a name must mean one class here, Simple means"):
        parse("Simple()", known)


def _modules() -> list[types.ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(scoresde.__path__, "scoresde.")]
    return [importlib.import_module(n) for n in names if not n.rpartition(".")[2].startswith("_")]


def _describable() -> list[type]:
    entries = known_classes(*_modules()).values()
    return [cls for entry in entries for cls in (entry if isinstance(entry, tuple) else (entry,))]


@pytest.mark.parametrize("cls", _describable(), ids=lambda c: f"{c.__module__}.{c.__qualname__}")
def test_every_setting_of_the_package_that_has_defaults_round_trips(cls):
    required = [f for f in dataclasses.fields(cls) if f.init]
    if any(f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING for f in required):
        return  # what such a class holds is not ours to guess: checkpoints write it only where it has a text form
    made = cls()
    text = to_text(made)
    back = parse(text, known_classes(*_modules()), kind=cls)
    assert type(back) is cls
    assert to_text(back) == text
    assert isinstance(made, nn.Module) or back == made


def test_the_spec_module_is_a_leaf():
    lines = Path(spec.__file__).read_text(encoding="utf-8").splitlines()
    imports = [line for line in lines if line.startswith(("from scoresde", "import scoresde"))]
    assert all(line.startswith("from scoresde._core.") for line in imports)
