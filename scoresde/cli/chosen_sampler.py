"""The sampler of ``scoresde sample``: the one requested, calibrated or not, or the one that suits the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.sampling import Sampler
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["ChosenSampler", "chosen_sampler"]


@dataclass(frozen=True)
class ChosenSampler:
    """The sampler of the samples, its name in the summary, and the OU time at which it starts; None for the end."""

    sampler: Sampler
    name: str
    start: float | None = None


def chosen_sampler(stored: Checkpoint, requested: Sampler | None, calibrated: bool, raw: bool) -> ChosenSampler:
    """The requested sampler; else that of an opened model's own code base, of a student, or of the kind of data.

    Raises:
        TypeError, ValueError, FileNotFoundError: If no fit of it to these weights is stored, and one is needed.
    """
    from scoresde.cli.loading import holds_student
    from scoresde.cli.opened_run import opened_sampler
    from scoresde.sampling import Jumps
    from scoresde.storage.setting_labels import short_text

    peer = opened_sampler(stored) if requested is None and not calibrated else None
    if peer is not None:
        return ChosenSampler(peer.sampler, short_text(peer.sampler) + peer.remark, peer.start)
    if requested is None:
        requested = Jumps() if holds_student(stored) else _default_sampler(stored)
    if calibrated:
        return ChosenSampler(_calibrated_sampler(stored, requested, raw), f"{short_text(requested)}, calibrated")
    return ChosenSampler(requested, short_text(requested))


def _default_sampler(stored: Checkpoint) -> Sampler:
    """The sampler of a run: the chain of 1000 steps, of categories, and of numbers and categories, that of 250."""
    from scoresde.cli.held_out import described_by
    from scoresde.sampling import DDPM, Ancestral, MixedSampler

    description = described_by(stored)
    if description is not None and description.codes:
        return MixedSampler()
    return DDPM(steps=1000) if description is None or description.classes is None else Ancestral(steps=250)


def _calibrated_sampler(stored: Checkpoint, sampler: Sampler, raw: bool) -> Sampler:
    """The sampler as `scoresde calibrate` fitted it to these weights.

    Raises:
        TypeError: If it has no time grid.
        ValueError, FileNotFoundError: If it was not fitted to these weights.
    """
    from scoresde.sampling import StepSampler
    from scoresde.storage.checkpoint import load_calibration

    if not isinstance(sampler, StepSampler):
        raise TypeError(
            f"--calibrated needs a step sampler of a Gaussian process, such as Adams(steps=10), got {sampler}; leave "
            "it out."
        )
    return load_calibration(stored, sampler, raw=raw).sampler
