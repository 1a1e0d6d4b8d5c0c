"""The commands on the pages: found in blocks and lines of text, and made small.

A command that CI does not run is marked: its line, or another line of the page that names it, says "not run by CI" and
the reason.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "docs/tutorials").glob("*.py"), ROOT / "README.md"])
MARK = "not run by CI"

_PROGRAMS = "scoresde|python|make|pip|accelerate|ACCELERATE_USE_CPU=true"
_BLOCK = re.compile(r"^( *)```(?:sh|bash)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(rf"(?<!`)`((?:{_PROGRAMS}) [^`\n…]+)`(?!`)")

_NET = "--network 'MLP(width=16, depth=1)'"
# Options that are added, by command; the last of two equal options counts.
_SMALL = {
    "train": f"--steps 2 --batch-size 4 --monitor-every 0 {_NET} -q",
    "sample": "-q",
    "calibrate": "--noises 2 --iterations 1 -q",
    "likelihood": "--limit 2 --tolerance 1 --nodes 8 -q",
    "compare": f"--quick --steps 2 --batch-size 4 --limit 4 -n 20 --workers 1 {_NET} -q",
    "distill": "--steps 2 --trajectories 8 --batch-size 4 -q",
    "verify": "--limit 32",
    "edit": "-n 1",
    "inpaint": "-n 1",
    "impute": "--draws 2",
}
_SMALLER = (
    ("--minutes [0-9]+", "--steps 2"),
    ("steps=[0-9]+", "steps=2"),
    ("-n [0-9]+", "-n 10"),
    ("0-63", "0-3"),
    ("--seeds 3", ""),
)


@dataclass(frozen=True)
class Command:
    """A command of a page: its text without a comment, the line, and whether the page says that CI does not run it."""

    text: str
    line: int
    marked: bool

    @property
    def words(self) -> list[str]:
        """The words, without settings of the environment."""
        return [word for word in shlex.split(self.text, comments=True) if not re.match(r"[A-Z_]+=", word)]


def commands(page: Path) -> list[Command]:
    """The commands of a page in the order of reading."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":  # a notebook: its text is in comments
        text = re.sub(r"^# ?", "", text, flags=re.MULTILINE)
    marks = [line for line in text.split("\n") if MARK in line]
    found = [
        replace(command, marked=command.marked or any(f"`{command.text}`" in line for line in marks))
        for command in _found(text)
    ]
    return sorted(found, key=lambda command: command.line)


def _found(text: str) -> Iterator[Command]:
    for block in _BLOCK.finditer(text):
        first = text[: block.start()].count("\n") + 2
        lines = block[2].replace("\\\n", " \x00").split("\n")
        for line in lines:
            if line.strip() and not line.strip().startswith("#"):
                text_only = re.sub(r"\s+#\s.*$", "", line.replace("\x00", ""))
                yield Command(" ".join(text_only.split()), first, MARK in line)
            first += 1 + line.count("\x00")
    outside = _BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)
    for number, line in enumerate(outside.split("\n"), 1):
        for inline in _INLINE.finditer(line):
            yield Command(inline[1], number, MARK in line)


def small(words: list[str]) -> list[str]:
    """The words of a ``scoresde`` command after the program's name, with few steps, samples and events."""
    text = shlex.join(words)
    for pattern, replacement in _SMALLER:
        text = re.sub(pattern, replacement, text)
    added = _SMALL.get(words[0], "")
    if {"--network", "--from", "--config", "--resume"} & set(words):
        added = added.replace(_NET, "")
    if words[0] == "likelihood" and "--bound" in words:
        added += " --evaluations 8"
    if words[0] == "compare" and "--sampler" not in words:
        added += " --sampler 'MixedSampler(DDPM(3))'" if "table.csv" in words else " --sampler 'DDPM(steps=3)'"
    if words[0] == "sample" and "--label" in words and "--sampler" not in words:  # by default all steps of the chain
        added += " --sampler 'DDPM(steps=3)'"
    if "--intervals" in words:
        added = ""
    if words[0] == "calibrate" and "--steps" in words:
        added += " --steps 1,2"
    return shlex.split(f"{text} {added}")
