"""API reference: one page for each family of packages, and one for the command line, found in the package itself.

A public name is one that a package exports by ``__all__``. Each has one entry, at the shortest path that exports it. A
new name, module or package needs no edit here.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import command_line_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import scoresde

# The families in the order of the data flow: title of the page, and its packages. A package that is not named here
# gets a page of its own.
FAMILIES: dict[str, tuple[str, ...]] = {
    "Process": ("process",),
    "Models": ("model", "analytic"),
    "Networks": ("nn", "adapters"),
    "Data": ("data",),
    "Objective": ("objective",),
    "Training": ("training", "distributed"),
    "Sampling": ("sampling",),
    "Guidance": ("guidance",),
    "Inverse problems": ("inverse",),
    "Likelihood": ("likelihood",),
    "Distillation": ("distillation",),
    "Metrics": ("metrics",),
    "Evaluation": ("evaluation",),
    "Experiments": ("experiments", "plots"),
    "Bridges": ("bridges",),
    "Storage": ("storage",),
}
_OWN_PAGE = ("cli",)  # the command line: its help, not its modules
# Modules whose names are public although no package exports them: importing them needs an optional package.
_OPTIONAL = ("scoresde.adapters.diffusers_network", "scoresde.data.toys")


@dataclass
class Section:
    """The names of one module that its page documents."""

    module: str
    names: list[str] = field(default_factory=list)


def _modules() -> list[ModuleType]:
    names = [module.name for module in pkgutil.walk_packages(scoresde.__path__, "scoresde.")]
    public = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    shown = [name for name in public if name.split(".")[1] not in _OWN_PAGE]
    return [importlib.import_module(name) for name in sorted(shown, key=lambda name: (name.count("."), name))]


def _exported(modules: list[ModuleType]) -> set[str]:
    """Modules that are public themselves: packages, and modules that a package exports or that stand in the root."""
    public = set(_OPTIONAL)
    for module in [scoresde, *modules]:
        if hasattr(module, "__path__"):
            public.add(module.__name__)
            values = [getattr(module, name) for name in getattr(module, "__all__", ())]
            public.update(value.__name__ for value in values if isinstance(value, ModuleType))
    return public


@cache
def sections() -> dict[str, Section]:
    """Every module with names to document, by its dotted name; each object once, at the shortest path."""
    modules = _modules()
    public, seen, by_module = _exported(modules), set(), {}
    for module in modules:
        if module.__name__ not in public:
            continue
        section = Section(module.__name__)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if not isinstance(value, ModuleType) and (name, id(value)) not in seen:
                seen.add((name, id(value)))
                section.names.append(name)
        if section.names:
            by_module[module.__name__] = section
    return by_module


@cache
def families() -> dict[str, tuple[str, ...]]:
    """Title and packages of every page."""
    named = {package for packages in FAMILIES.values() for package in packages}
    others = sorted({module.split(".")[1] for module in sections()} - named)
    return {**FAMILIES, **{package.capitalize(): (package,) for package in others}}


def address(title: str) -> str:
    """Path of the page of a family."""
    return f"reference/{title.lower().replace(' ', '-')}.md"


def identifier(module: str, name: str) -> str:
    """The path under which mkdocstrings documents a name.

    A function that is named as its module is hidden by it: ``scoresde.sampling.sample`` is a module to a reader of the
    source. So it is documented where it is defined.
    """
    value = getattr(importlib.import_module(module), name)
    home = getattr(value, "__module__", module)
    return f"{home}.{name}" if home.rpartition(".")[2] == name else f"{module}.{name}"


def _entry(section: Section, level: int) -> str:
    """The directives of mkdocstrings for one module, whose names are headings of the given level."""
    paths = {name: identifier(section.module, name) for name in _ordered(section)}
    names = "".join(f"        - {name}\n" for name, path in paths.items() if path == f"{section.module}.{name}")
    options = f"heading_level: {level}\n      group_by_category: false"
    directives = [f"::: {section.module}\n    options:\n      {options}\n      members:\n{names}"]
    own = f"heading_level: {level}\n      show_root_heading: true\n      show_root_toc_entry: true\n"
    for name, path in paths.items():
        if path != f"{section.module}.{name}":
            directives.append(f"::: {path}\n    options:\n      {own}      show_root_full_path: false\n")
    return "\n".join(directives)


def _ordered(section: Section) -> list[str]:
    """Functions, classes, then names of types and constants, each in the order of ``__all__``."""
    module = importlib.import_module(section.module)

    def rank(name: str) -> int:
        value = getattr(module, name)
        return 0 if isinstance(value, FunctionType) else 1 if isinstance(value, type) else 2

    return sorted(section.names, key=rank)


def _contents(shown: list[Section]) -> str:
    """Links to every entry of a page: on a phone there is no table of contents beside it."""
    links = [f"[`{name}`][{identifier(each.module, name)}]" for each in shown for name in _ordered(each)]
    return " · ".join(links) + "\n\n" if len(links) > 3 else ""


def page(title: str) -> str:
    """Markdown of the page of a family."""
    packages = families()[title]
    shown = [section for section in sections().values() if section.module.split(".")[1] in packages]
    shown.sort(key=lambda section: (packages.index(section.module.split(".")[1]), section.module))
    if len(shown) == 1:
        return f"# {title}\n\n`{shown[0].module}`\n\n{_contents(shown)}{_entry(shown[0], 2)}"
    return f"# {title}\n\n{_contents(shown)}" + "\n".join(
        f"## `{section.module}`\n\n{_entry(section, 3)}" for section in shown
    )


def first_sentence(module: str) -> str:
    """The first sentence of a module's docstring."""
    text = " ".join((importlib.import_module(module).__doc__ or "").split("\n\n")[0].split())
    return text.split(". ")[0].removesuffix(".") + "."


def overview() -> str:
    """Markdown of the first page: the families, then the names that ``scoresde`` itself exports."""
    rows = []
    for title, packages in families().items():
        for package in packages:
            link = f"[{title}]({address(title).split('/')[1]})"
            rows.append(f"| {link} | `scoresde.{package}` | {first_sentence(f'scoresde.{package}')} |")
    entries = {(name, id(getattr(importlib.import_module(section.module), name))): section.module
               for section in sections().values() for name in section.names}  # fmt: skip
    front = []
    for name in sorted(scoresde.__all__, key=str.lower):
        value = getattr(scoresde, name)
        module = entries.get((name, id(value)))
        if module is not None:
            front.append(f"[`{name}`][{identifier(module, name)}]")
    return (
        "# Reference\n\n"
        "One page for each family, in the order of the data flow, and one for the [command line](command-line.md). "
        "Each class or function has one entry, at the shortest path that exports it.\n\n"
        "| page | package | holds |\n|---|---|---|\n" + "\n".join(rows) + "\n\n"
        "## Names of `scoresde`\n\n"
        "The most used names are also in `scoresde` itself, as in `import scoresde as sd; sd.sample`:\n\n"
        + " · ".join(front)
        + "\n"
    )


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the reference to the navigation."""
    pages: list[Any] = [{title: address(title)} for title in families()]
    nav: list[Any] = config.nav or []
    reference = ["reference/index.md", {"Command line": "reference/command-line.md"}, *pages]
    nav.append({"Reference": reference})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    written = {"reference/index.md": overview(), "reference/command-line.md": command_line_page.page()}
    written.update({address(title): page(title) for title in families()})
    for path, text in written.items():
        files.append(File.generated(config, path, content=text))
    return files
