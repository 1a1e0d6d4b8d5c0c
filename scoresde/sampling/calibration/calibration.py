"""`Calibration`: the result of `calibrate`."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde.sampling.base import StepSampler
from scoresde.sampling.whitened import Whitened

__all__ = ["Calibration"]


@dataclass(frozen=True)
class Calibration:
    """Result of `calibrate`. Errors are root mean squares over all elements of the last state, in x.

    Attributes:
        sampler: The calibrated sampler, or the original if nothing was better. It makes no more network calls.
        original: The sampler before calibration, on its own grid.
        error: Error of ``sampler`` on the held-out noises.
        original_error: Error of ``original`` on the held-out noises.
        fit_error: Error of ``sampler`` on the noises of the fit. If it is far below ``error``, use more noises.
        noises: Number of noises of the fit; as many were held out. If they were chosen from a larger pool, they are
            weighted, and the errors are estimates for the pool.
        evaluations: Network evaluations of the fit, one for each sample in each call. Fits of several numbers of steps
            share the reference; it is counted in the first.
    """

    sampler: StepSampler | Whitened
    original: StepSampler
    error: float
    original_error: float
    fit_error: float
    noises: int
    evaluations: int = 0
