"""API reference: one page per public module, found in the package itself, so a new module needs no entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGE = "scoresde"


def modules(root: Path) -> list[str]:
    """Every module of the package whose name does not begin with an underscore, by its dotted name."""
    found = []
    for path in root.rglob("*.py"):
        parts = path.relative_to(root).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if not any(part.startswith("_") for part in parts):
            found.append(".".join((PACKAGE, *parts)))
    return sorted(found)


def _page(name: str) -> str:
    return f"api/{name}.md"


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).parent / PACKAGE


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the reference to the navigation."""
    nav: list[Any] = config.nav or []
    nav.append({"Reference": [{name: _page(name)} for name in modules(_root(config))]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for name in modules(_root(config)):
        files.append(File.generated(config, _page(name), content=f"# `{name}`\n\n::: {name}\n"))
    return files
