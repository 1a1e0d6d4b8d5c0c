"""Runs that `scoresde open` wrote: sampler and start of the model's own code base, and settings not applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoresde.sampling import Sampler
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["OpenedSampler", "clipping_line", "opened_lines", "opened_sampler"]


@dataclass(frozen=True)
class OpenedSampler:
    """How the code base of an opened model samples it.

    Args:
        sampler: Its sampler.
        start: OU time at which it starts; None for the end of the clock.
        remark: What is printed after the sampler, ", as … samples it".
    """

    sampler: Sampler
    start: float | None
    remark: str


def opened_sampler(stored: Checkpoint) -> OpenedSampler | None:
    """The sampler that `scoresde open` stored; None in a run of this package, or where the files named none.

    Args:
        stored: The checkpoint.
    """
    from scoresde.cli.parsing import parse
    from scoresde.sampling import Sampler

    text, origin, start = (stored.meta.get(name) for name in ("sampler", "origin", "start"))
    if not isinstance(text, str) or not isinstance(origin, str):
        return None
    return OpenedSampler(parse(text, Sampler), None if start is None else float(start), f", as {origin} samples it")


def clipping_line(stored: Checkpoint) -> str | None:
    """The sentence that the code base's clipping is not applied; None if the code base does not clip.

    Args:
        stored: The checkpoint.
    """
    value = _findings(stored).get("clipping")
    if value is None:
        return None
    return f"{stored.meta['origin']} also clips ({value}), which is not applied; in Python sample Opened.steered"


def opened_lines(stored: Checkpoint) -> dict[str, str]:
    """Origin, sampler and start of an opened model, as `scoresde info` shows them.

    Args:
        stored: The checkpoint.
    """
    if not isinstance(stored.meta.get("origin"), str):
        return {}
    lines = {name: str(stored.meta[name]) for name in ("origin", "sampler") if stored.meta.get(name) is not None}
    if stored.meta.get("start") is not None:
        lines["start"] = f"tau = {float(stored.meta['start']):.4g}"
    clipping = _findings(stored).get("clipping")
    return lines | ({} if clipping is None else {"clipping": f"{clipping}; not applied by the commands"})


def _findings(stored: Checkpoint) -> Mapping[str, Any]:
    findings = stored.meta.get("findings")
    if not isinstance(findings, list) or not isinstance(stored.meta.get("origin"), str):
        return {}
    return {f["name"]: f["value"] for f in findings if isinstance(f, dict) and {"name", "value"} <= f.keys()}
