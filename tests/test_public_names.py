"""Public names: documented, unique, told apart by the field's terms, and found from `scoresde` itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import scoresde

ROOT = Path(scoresde.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))


def _modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(scoresde.__path__, "scoresde.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if getattr(value, "__module__", "").startswith("scoresde"):
            yield name, value


PUBLIC = {(name, value) for module in _modules() for name, value in _public(module) if inspect.isclass(value)}


def test_no_two_public_classes_share_a_name() -> None:
    homes = defaultdict(set)
    for name, cls in PUBLIC:
        homes[name].add(f"{cls.__module__}.{cls.__qualname__}")
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("cls", [cls for _, cls in sorted(PUBLIC, key=str)], ids=lambda cls: cls.__name__)
def test_a_public_method_is_documented_by_its_class_or_a_base_class(cls: type) -> None:
    methods = [name for name, value in vars(cls).items() if inspect.isfunction(value) and not name.startswith("_")]
    properties = [name for name, value in vars(cls).items() if isinstance(value, property) and not name.startswith("_")]
    assert [name for name in [*methods, *properties] if not inspect.getdoc(getattr(cls, name))] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_docstring_opens_with_what_the_thing_is_and_asks_nothing(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, documented)]
    first = [text.splitlines()[0] for text in texts if text]
    assert [line for line in first if re.search(r"\?|^See the class\.$", line)] == []


def test_a_file_that_holds_public_names_has_a_docstring_and_lists_them() -> None:
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        names = [n.name for n in tree.body if isinstance(n, (ast.ClassDef, ast.FunctionDef)) and n.name[0] != "_"]
        if names and not any(part.startswith("_") for part in file.relative_to(ROOT).parts):
            assert ast.get_docstring(tree), file
            assert "__all__" in file.read_text(encoding="utf-8"), f"{file} has {names} and no __all__"


@pytest.mark.parametrize("name", scoresde.__all__)
def test_every_name_of_the_front_door_opens(name: str) -> None:
    assert getattr(scoresde, name) is not None


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Karras", r"it is scoresde\.sampling\.Karras\."),
        ("Simple", r"it is scoresde\.objective\.Simple\."),
        ("Adamss", r"did you mean scoresde\.Adams\?"),
        ("log_probs", r"did you mean scoresde\.log_prob\?"),
        ("quux", r"dir\(scoresde\) lists the public names"),
    ],
)
def test_an_unknown_attribute_is_answered_with_where_it_lives_or_the_nearest_name(name: str, answer: str) -> None:
    with pytest.raises(AttributeError, match=answer):
        getattr(scoresde, name)
