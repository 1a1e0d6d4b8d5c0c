"""Settings as text: exact round trips, and only known classes are ever called."""

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


class Weight(ABC):  # noqa: B024 (this is tested)
    """An abstract class without abstract methods."""


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
    widths: tuple[int, ...] = (1, 2)

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


KNOWN = {c.__name__: c for c in (Simple, MinSNR, LinearVP, Process, Needs, Calls, Net)}

FLOATS = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.pi * 1e-7, 1e22, -2.5e-5]


@pytest.mark.parametrize("value", FLOATS)
def test_a_float_round_trips_bit_for_bit(value):
    assert struct.pack("d", parse(to_text(MinSNR.__new__(MinSNR) and value), {})) == struct.pack("d", value)


def test_nan_round_trips():
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
def test_a_literal_round_trips_with_its_type(value):
    parsed = parse(to_text(value), {})
    assert parsed == value
    assert type(parsed) is type(value)


def test_numpy_numbers_are_written_as_python_numbers():
    assert to_text((np.float64(0.1), np.int64(3), np.float32(0.5))) == "(0.1, 3, 0.5)"


def test_an_object_is_written_as_the_call_that_makes_it_with_every_field():
    assert to_text(MinSNR(gamma=5)) == "MinSNR(gamma=5)"
    assert to_text(Process()) == "Process(clock=LinearVP(first=0.1, steps=10, name=None), weight=None, betas=())"


def test_nested_objects_round_trip():
    process = Process(LinearVP(1 / 3, 7, "a 'name'"), MinSNR(math.inf), tuple(k / 7 for k in range(1000)))
    assert parse(to_text(process), KNOWN) == process


def test_a_network_is_written_as_its_settings():
    text = to_text(Net(width=3))
    assert text == "Net(width=3, widths=(1, 2))"
    assert to_text(parse(text, KNOWN, kind=nn.Module)) == text


def test_a_bare_name_is_a_call_and_arguments_may_be_positional():
    assert parse("Simple", KNOWN) == parse(" Simple() ", KNOWN) == Simple()
    assert parse("MinSNR(3)", KNOWN, kind=Weight) == MinSNR(3)
    assert parse("Process(LinearVP, betas=[.1, 1e-3])", KNOWN) == Process(LinearVP(), betas=[0.1, 1e-3])  # pyright: ignore


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "().__class__", "MinSNR.__init__", "MinSNR(gamma=1+1)", "2**9**9**9",
        "[MinSNR for x in (1,)]", "lambda: 1", "f'{MinSNR}'", "b'x'", "1j", "...", "{1, 2}", "x if y else z",
        "MinSNR(*[1])", "MinSNR(**{'gamma': 1})", "(x := 1)", "'a' 'b'", "not True", "1 < 2", "MinSNR()()", "[1][0]",
        "a; b", "", "(", "MinSNR(", "1 # 2", "await x", "--1", "`1`", "9" * 5000, "{[]: 1}", "-MinSNR", "-'a'", "-True",
    ],
)  # fmt: skip
def test_everything_but_literals_and_calls_of_known_classes_is_refused(text):
    with pytest.raises((ValueError, TypeError), match="setting is made of|no class is named|must be a"):
        parse(text, KNOWN)


@pytest.mark.parametrize("name", ["open", "eval", "Path", "print", "__import__", "object"])
def test_builtins_are_unknown(name):
    with pytest.raises(ValueError, match=f"no class is named '{name}'"):
        parse(f"{name}('/tmp/x')", KNOWN)


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
def test_malicious_depth_and_length_are_refused(text):
    with pytest.raises(ValueError, match="a setting (must|is made of)"):
        parse(text, KNOWN)


@dataclass(frozen=True)
class Shaped:
    event_shape: tuple[int, ...]
    width: int = 4


@dataclass(frozen=True)
class Wrapper:
    inner: Shaped
    event_shape: tuple[int, ...] | None = None


SHAPED = {"Shaped": Shaped, "Wrapper": Wrapper, "Simple": Simple}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Shaped", Shaped((1, 8, 8))),
        ("Shaped ( )", Shaped((1, 8, 8))),
        ("Shaped( width=8)", Shaped((1, 8, 8), 8)),
        ("Shaped((2,))", Shaped((2,))),
        ("Shaped(event_shape=(2,), width=3)", Shaped((2,), 3)),
        ("Wrapper(Shaped())", Wrapper(Shaped((1, 8, 8)), (1, 8, 8))),
        ("Wrapper(inner=Shaped, event_shape=(3,))", Wrapper(Shaped((1, 8, 8)), (3,))),
        ("Wrapper(Shaped((3,)))", Wrapper(Shaped((3,)), (1, 8, 8))),
        ("Simple()", Simple()),
    ],
)
def test_a_missing_field_is_bound_in_every_call_that_leaves_it_out(text, expected):
    assert parse(text, SHAPED, missing={"event_shape": (1, 8, 8)}) == expected


def test_other_missing_fields_and_wrong_ones_are_still_refused():
    with pytest.raises(ValueError, match=r"Shaped needs event_shape, got Shaped\(\)"):
        parse("Shaped()", SHAPED, missing={"width": 3})
    with pytest.raises(ValueError, match="Shaped takes each of .event_shape, width. once"):
        parse("Shaped((2,), 3, 4)", SHAPED, missing={"event_shape": (1,)})
    with pytest.raises(ValueError, match="Shaped has no field 'widht'; did you mean width"):
        parse("Wrapper(Shaped(widht=2))", SHAPED, missing={"event_shape": (1,)})


def test_text_that_could_not_be_parsed_is_not_written():
    deep: list = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(ValueError, match="must nest at most"):
        to_text(deep)
    with pytest.raises(ValueError, match=f"at most {MAX_LENGTH} characters"):
        to_text("a" * MAX_LENGTH)
    assert parse(to_text(deep[0]), {}) == deep[0]


@pytest.mark.parametrize("value", [math.sin, np.zeros(2), {1, 2}, b"a", object(), MinSNR])
def test_a_value_without_a_text_form_is_named_by_its_path(value):
    with pytest.raises(TypeError, match=r"Calls\.function is a .*make its class a dataclass"):
        to_text(Calls(value))


def test_an_unknown_class_is_answered_with_the_nearest_of_the_expected_kind():
    with pytest.raises(ValueError, match=r"no Weight is named 'minsrn'; did you mean MinSNR\? Valid: MinSNR, Simple\."):
        parse("minsrn(gamma=5)", KNOWN, kind=Weight)
    with pytest.raises(ValueError, match=r"no Clock is named 'Liner'; did you mean LinearVP\? Valid: LinearVP\."):
        parse("Process(clock=Liner())", KNOWN)


def test_an_unknown_field_is_answered_with_the_nearest():
    with pytest.raises(
        ValueError, match=r"LinearVP has no field 'step'; did you mean steps\? Valid: first, name, steps\."
    ):
        parse("LinearVP(step=5)", KNOWN)


def test_an_object_of_the_wrong_class_is_refused():
    with pytest.raises(TypeError, match=r"the setting must be a Weight, got LinearVP; choose from: MinSNR, Simple\."):
        parse("LinearVP()", KNOWN, kind=Weight)
    with pytest.raises(TypeError, match="must be a Clock, got MinSNR"):
        parse("Process(clock=MinSNR(5))", KNOWN)
    with pytest.raises(TypeError, match=r"Process\.clock must be a Clock, got None"):
        parse("Process(clock=None)", KNOWN)


@pytest.mark.parametrize(
    "text",
    ["LinearVP(steps=2.5)", "LinearVP(steps=True)", "LinearVP(first='a')", "LinearVP(name=3)", "Process(betas=1)"],
)
def test_a_value_that_does_not_fit_its_annotation_is_refused(text):
    with pytest.raises(TypeError, match=r"(LinearVP|Process)\.\w+ must be an? (int|float|str or None|tuple)"):
        parse(text, KNOWN)


def test_a_constructors_error_is_raised_with_the_text():
    with pytest.raises(ValueError, match=r"gamma must be positive, got -1; 5 is common\. \(in MinSNR\(gamma=-1\)\)"):
        parse("Process(weight=MinSNR(gamma=-1))", KNOWN)


@pytest.mark.parametrize("text", ["Needs()", "Needs(label='a')"])
def test_a_missing_field_is_named(text):
    with pytest.raises(ValueError, match=r"Needs needs value, got .*write Needs\(value=\.\.\.\)"):
        parse(text, KNOWN)


@pytest.mark.parametrize("text", ["Needs(1, value=2)", "Needs(1, 'a', 3)"])
def test_a_repeated_field_or_too_many_arguments_are_refused(text):
    with pytest.raises(ValueError, match="takes each of .value, label. once"):
        parse(text, KNOWN)


def test_an_object_in_place_of_text_is_refused():
    with pytest.raises(TypeError, match="must be given as text, got a MinSNR"):
        parse(MinSNR(), KNOWN)  # type: ignore[arg-type]


def test_known_classes_are_the_public_concrete_dataclasses():
    module = _module(Clock=Clock, Weight=Weight, Simple=Simple, LinearVP=LinearVP, _Hidden=_Hidden, Path=Path)
    assert known_classes(module) == {"Simple": Simple, "LinearVP": LinearVP}
    assert known_classes(module, kind=Weight) == {"Simple": Simple}


def test_two_classes_of_one_name_are_distinguished_by_their_field():
    twin = dataclass(frozen=True)(type("Simple", (LinearVP,), {"__annotations__": {}}))
    known = {**KNOWN, **known_classes(_module(Simple=Simple), _module(Simple=twin))}
    assert parse("Process(clock=Simple(), weight=Simple())", known) == Process(twin(), Simple())
    with pytest.raises(ValueError, match="a name must mean one class, Simple means"):
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
        return  # the values of required fields are unknown
    setting = cls()
    text = to_text(setting)
    parsed = parse(text, known_classes(*_modules()), kind=cls)
    assert type(parsed) is cls
    assert to_text(parsed) == text
    assert isinstance(setting, nn.Module) or parsed == setting


def test_the_spec_package_is_a_leaf():
    files = sorted(Path(spec.__file__).parent.glob("*.py"))
    assert len(files) > 1
    for file in files:
        lines = file.read_text(encoding="utf-8").splitlines()
        imports = [line for line in lines if line.startswith(("from scoresde", "import scoresde"))]
        assert all(line.startswith(("from scoresde._core.", "from scoresde.storage.spec.")) for line in imports)
