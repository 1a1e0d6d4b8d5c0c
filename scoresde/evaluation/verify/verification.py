"""`Verification`: the checks of a model on data, each passed, failed or undecidable, with numbers and a remedy."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scoresde._core.annotations import CheckedArguments

__all__ = ["Check", "Verification"]

_STYLES = {"passed": "green", "failed": "bold red", "undecidable": "yellow"}
_WIDTH = 110


@dataclass(frozen=True)
class Check(CheckedArguments):
    """One check.

    Attributes:
        name: What was checked, e.g. ``"output"``.
        outcome: ``"undecidable"`` if the data cannot tell right from wrong; the sentence says why.
        sentence: What was measured, and the likely mistake.
        remedy: What to write; empty unless failed.
        evidence: Numbers by name, each a value and its standard error (NaN if unknown).
    """

    name: str
    outcome: Literal["passed", "failed", "undecidable"]
    sentence: str
    remedy: str = ""
    evidence: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Verification(CheckedArguments):
    """The result of `verify`; ``print`` shows its table.

    Attributes:
        checks: In the order of the table.
        events: Number of events.
        log_snr: Log-SNRs, in nats, at which the network was evaluated.
        error: Error of the stated reading per dimension at each, in model units.
        linear_error: That of the linear denoiser.
        seconds: Wall-clock time.
    """

    checks: tuple[Check, ...]
    events: int
    log_snr: tuple[float, ...]
    error: tuple[float, ...]
    linear_error: tuple[float, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether no check failed. An undecidable check is not a failure."""
        return not any(check.outcome == "failed" for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 if `ok`, else 1: the status with which ``scoresde verify`` ends."""
        return 0 if self.ok else 1

    @property
    def failed(self) -> tuple[Check, ...]:
        """The failed checks."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def check(self, name: str) -> Check:
        """The check of a name.

        Raises:
            KeyError: If no check has that name; the error lists the names.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(f"no check is named {name!r}; there are {', '.join(check.name for check in self.checks)}.")

    def to_json(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        checks = [
            {
                "name": check.name,
                "outcome": check.outcome,
                "sentence": check.sentence,
                "remedy": check.remedy,
                "evidence": {name: list(value) for name, value in check.evidence.items()},
            }
            for check in self.checks
        ]
        numbers = {name: list(getattr(self, name)) for name in ("log_snr", "error", "linear_error")}
        return {"ok": self.ok, "events": self.events, "seconds": self.seconds, **numbers, "checks": checks}

    def __rich__(self) -> Table:
        table = Table("check", "outcome", "what was measured", box=None, header_style="dim", padding=(0, 1))
        for check in self.checks:
            text = check.sentence + (f" Remedy: {check.remedy}." if check.remedy else "")
            table.add_row(check.name, Text(check.outcome, style=_STYLES[check.outcome]), Text(text))
        return table

    def __str__(self) -> str:
        file = io.StringIO()
        console = Console(file=file, width=_WIDTH, color_system=None)
        console.print(self)
        counts = [f"{sum(c.outcome == o for c in self.checks)} {o}" for o in _STYLES]
        console.print(Text(f"{', '.join(counts)}; {self.events} events, {self.seconds:.1f} s"))
        return "\n".join(line.rstrip() for line in file.getvalue().splitlines())
