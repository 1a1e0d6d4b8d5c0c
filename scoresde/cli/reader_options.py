"""Options of the data readers: their values as text, ``name=value``, and their description for ``scoresde info``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.storage import spec

if TYPE_CHECKING:
    from scoresde.data import Description

__all__ = [
    "has_option",
    "is_source",
    "layout_options",
    "parse_option",
    "print_all_readers",
    "print_reader",
    "reads_like",
]


def parse_option(data: str, name: str, text: str) -> Any:
    """The value of an option of a reader, as its type asks.

    An option that takes names reads ``age`` as one name and ``age,income`` as two; one that takes pairs reads
    ``zip=category,year=numeric``; an option that takes text reads it as it is, unless it is quoted; true and false may
    be written small; any other takes a Python literal.

    Args:
        data: The source, whose reader has the option.
        name: The option.
        text: Its value.

    Raises:
        ValueError: If an option that takes pairs gets something else.
    """
    kind = _kinds(data).get(name, "")
    plain = not text.strip().startswith(("(", "[", "'", '"')) and text.strip() != "None"
    if plain and "Sequence[str]" in kind:
        names = tuple(word.strip() for word in text.split(",") if word.strip())
        return names[0] if len(names) == 1 else names
    if "Mapping[str, str]" in kind and not text.strip().startswith("{"):
        pairs = [word.partition("=") for word in text.strip("\"'").split(",") if word.strip()]
        if any(not equals or not left.strip() or not right.strip() for left, equals, right in pairs):
            raise ValueError(f"{name} takes pairs, such as {name}=zip=category,year=numeric, got {text!r}.")
        return {left.strip(): right.strip() for left, _, right in pairs}
    if plain and kind in ("str", "str | None"):
        return text
    if kind in ("bool", "bool | None") and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    try:
        return spec.parse(text, {})
    except (ValueError, TypeError):
        return text


_LAYOUT = ("missing_texts", "header", "delimiter", "encoding", "decimal")


def layout_options(path: Path, read: Sequence[str], recorded: Sequence[str] = ()) -> dict[str, Any]:
    """The options of a table whose columns are known: those of its layout.

    Args:
        path: The table.
        read: Options as ``name=value``.
        recorded: Those of an earlier table. Its layout counts where ``read`` does not state another one.

    Raises:
        ValueError: If an entry has another form, or is another option.
    """
    from scoresde._core.suggest import unknown_name

    options = {}
    for text in (*(text for text in recorded if text.partition("=")[0] in _LAYOUT), *read):
        name, equals, value = text.partition("=")
        if not equals or name not in _LAYOUT:
            raise ValueError(unknown_name("layout option --read NAME=VALUE", name, _LAYOUT))
        value = parse_option(str(path), name, value)
        options[name] = (value,) if name == "missing_texts" and isinstance(value, str) else value
    return options


def reads_like(data: str, like: Description) -> bool:
    """Whether the reader of a source can read it as an earlier one was: a table with its columns, or a text."""
    from scoresde.data.sources import reader_of
    from scoresde.data.text_files import load_text

    if reader_of(data) is load_text:
        return like.alphabet is not None
    return like.encoding is not None and has_option(data, "like")


def has_option(data: str, name: str) -> bool:
    """Whether the reader of a source has an option."""
    return name in _kinds(data)


def is_source(name: str) -> bool:
    """Whether ``scoresde info`` shows the options of a source: of any but a run directory or checkpoint."""
    from scoresde.data.decode_image import IMAGE_SUFFIXES
    from scoresde.data.sources import reader_of
    from scoresde.storage.checkpoint.reading import numbered

    path = Path(name)
    if not path.is_dir():
        return reader_of(name) is not None
    is_run = any((path / file).exists() for file in ("state.json", "config.json")) or bool(numbered(path))
    return not is_run and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.rglob("*"))


def print_reader(source: str) -> None:
    """Prints what reads a source and its options."""
    from scoresde.data.sources import functions_of

    _print_options(source, functions_of(source))


def print_all_readers() -> None:
    """Prints the options of every reader."""
    from scoresde.data.huggingface import load_huggingface
    from scoresde.data.image_folder import load_images
    from scoresde.data.sources import FILES, SOURCES, functions_of
    from scoresde.data.tables.frames import load_frame
    from scoresde.data.text_files import load_text
    from scoresde.data.toys import TOYS

    readers: dict[Callable[..., Any], list[str]] = {}
    for suffix, reader in FILES.items():
        readers.setdefault(reader, []).append(suffix)
    readers |= {
        load_text: [".txt of prose", "text:PATH"],
        load_images: ["a folder of images"],
        load_huggingface: ["hf:NAME"],
        load_frame: ["a table in memory"],
    }
    for reader, names in readers.items():
        _print_options(", ".join(names), (reader,))
        typer.echo()
    for name in (*SOURCES, *TOYS):
        _print_options(name, functions_of(name))
        typer.echo()
    typer.echo("Each is passed as --read NAME=VALUE, or in Python as load_data(source, NAME=VALUE).")


def _print_options(title: str, functions: tuple[Callable[..., Any], ...]) -> None:
    from scoresde.cli import console

    typer.echo(title)
    typer.echo(_plain(_doc(functions[-1]).partition("\n")[0]))
    lines: dict[str, str] = {}
    for function in functions:
        texts = _option_texts(function)
        for parameter in _parameters(function):
            kind = f"{parameter.annotation} = {parameter.default!r}"
            lines[parameter.name] = f"{kind}\n{texts[parameter.name]}" if parameter.name in texts else kind
    if lines:
        console.print_settings(lines)
    else:
        typer.echo("no options")


def _kinds(data: str) -> dict[str, str]:
    """The annotation of each option of a source, as text; none for an unknown source."""
    from scoresde.data.sources import functions_of

    return {p.name: str(p.annotation) for function in functions_of(data) for p in _parameters(function)}


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _doc(function: Callable[..., Any]) -> str:
    return inspect.getdoc(getattr(function, "func", function)) or ""


def _option_texts(function: Callable[..., Any]) -> dict[str, str]:
    """What each option means; "As in `load_table`" becomes the text there."""
    from scoresde.data.decode_image import ImageDecoder
    from scoresde.data.image_folder import load_images
    from scoresde.data.tables.table_files import load_table

    others = {other.__name__: _argument_texts(_doc(other)) for other in (load_table, load_images, ImageDecoder)}
    texts = _argument_texts(_doc(function))
    for _ in range(2):  # load_huggingface refers to load_images, which refers to ImageDecoder
        for name, text in texts.items():
            reference = re.match(r"As in `(\w+)`", text)
            if reference:
                texts[name] = others.get(reference[1], {}).get(name, text)
    return {name: _plain(text) for name, text in texts.items()}


def _argument_texts(doc: str) -> dict[str, str]:
    """The text of each argument in the section Args of a docstring."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)*)", doc, re.MULTILINE)
    texts: dict[str, str] = {}
    for entry in re.split(r"^    (?=\S)", section[1] if section else "", flags=re.MULTILINE):
        names, colon, text = entry.partition(":")
        if colon:
            texts |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return texts


def _plain(text: str) -> str:
    """A docstring without the marks of literals and references."""
    return re.sub(r"`{1,2}", "", text)
