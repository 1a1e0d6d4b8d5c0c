"""`PeerSampler`: a scheduler of diffusers as a sampler of this package, or why no sampler is equal."""

from __future__ import annotations

from dataclasses import dataclass, field

from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.bridges.opened import Finding
from scoresde.sampling import Sampler
from scoresde.storage.spec import to_text

__all__ = ["PeerSampler", "found", "without"]


@dataclass(frozen=True)
class PeerSampler:
    """The scheduler's method as a sampler.

    Attributes:
        sampler: The equal sampler; None if no sampler of this package is equal.
        start: OU time at which it starts; None for the end of the clock.
        findings: What the sampler is, or why no sampler is equal.
    """

    sampler: Sampler | None = None
    start: float | None = None
    findings: tuple[Finding, ...] = field(default_factory=tuple)


def found(settings: SchedulerSettings, sampler: Sampler, start: float | None = None, why: str = "") -> PeerSampler:
    """A sampler that equals the scheduler.

    Args:
        settings: The scheduler's.
        sampler: The sampler.
        start: OU time of its first state; None for the end of the clock.
        why: Addition to the reason.
    """
    return PeerSampler(
        sampler, start, (Finding("sampler", to_text(sampler), "derived", f"equals {settings.class_name}{why}"),)
    )


def without(settings: SchedulerSettings, why: str, instead: Sampler | str = "Adams(steps=20)") -> PeerSampler:
    """No sampler.

    Args:
        settings: The scheduler's.
        why: The reason.
        instead: A sampler to take in its place.
    """
    text = f"{settings.class_name}: {why}; take {instead if isinstance(instead, str) else to_text(instead)}"
    return PeerSampler(None, None, (Finding("sampler", "none", "derived", text),))
