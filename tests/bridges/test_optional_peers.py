"""Other code bases stay optional: no module of the package imports one before it is needed."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import scoresde
from scoresde.bridges.diffusers.peer import diffusers_package
from scoresde.bridges.export import save_onnx
from scoresde.bridges.hub import from_pretrained

ROOT = Path(scoresde.__file__).parent
PEERS = {"azula", "diffusers", "huggingface_hub", "k_diffusion", "onnx", "onnxruntime", "onnxscript", "transformers"}


def imported_at_once(file: Path) -> set[str]:
    """Packages that a module imports when it is imported: those outside of functions."""
    nodes: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
    names: set[str] = set()
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            nodes += ast.iter_child_nodes(node)
    return names


def test_no_module_imports_a_peer_at_once() -> None:
    found = {str(file.relative_to(ROOT)): imported_at_once(file) & PEERS for file in ROOT.rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == {}


def test_a_missing_peer_is_an_error_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"this needs diffusers: pip install 'scoresde\[diffusers\]'"):
        diffusers_package()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"the Hub needs huggingface_hub: pip install 'scoresde\[hub\]'"):
        from_pretrained("someone/absent")


def test_onnx_is_asked_for_by_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    model = scoresde.ScoreModel(scoresde.MLP((2,), width=4, depth=1), scoresde.VPSDE(), event_shape=(2,))
    with pytest.raises(ImportError, match=r"save_onnx needs onnx, .* pip install 'scoresde\[onnx\]'"):
        save_onnx(model, tmp_path / "a.onnx")
