"""The hint of ``scoresde sample`` that its sampler is calibrated, or can be."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.sampling import Sampler
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["print_hint"]

_MOST_STEPS = 25  # with more, samplers are exact enough


def print_hint(checkpoint: Path, stored: Checkpoint, sampler: Sampler, raw: bool) -> None:
    """Prints, on a terminal, what a calibration of the sampler gains, or the command that makes one.

    Nothing is printed for samplers that draw noise, choose their steps, or make many.

    Args:
        checkpoint: The path that the user named.
        stored: The checkpoint.
        sampler: The sampler in use.
        raw: Whether the raw weights are used.
    """
    from scoresde._core.progress import interactive
    from scoresde.cli import console
    from scoresde.sampling import StepSampler
    from scoresde.storage.checkpoint import load_calibration
    from scoresde.storage.setting_labels import short_text

    if not interactive() or not isinstance(sampler, StepSampler) or sampler.stochastic or sampler.order is None:
        return
    if sampler.steps > _MOST_STEPS:
        return
    text, tail = short_text(sampler), ["--raw"] * raw
    try:
        calibration = load_calibration(stored, sampler, raw=raw)
    except (OSError, ValueError, RuntimeError):  # none for this sampler and these weights, or a damaged one
        command = ["scoresde", "calibrate", str(checkpoint), "--sampler", text, *tail]
        console.print_command("for smaller errors at the same network calls", shlex.join(command))
        return
    if calibration.sampler != calibration.original:
        ratio = calibration.error / calibration.original_error
        command = ["scoresde", "sample", str(checkpoint), "--sampler", text, "--calibrated", *tail]
        console.print_command(f"its calibration has {ratio:.2f} times the error", shlex.join(command))
