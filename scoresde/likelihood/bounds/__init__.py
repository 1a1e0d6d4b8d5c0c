r"""Variational bounds on $-\log p$: VLBs in continuous time and along a chain, and the importance-weighted bound."""

from __future__ import annotations

from scoresde.likelihood.bounds.continuous import continuous_vlb
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder, RoundedDecoder
from scoresde.likelihood.bounds.discrete import discrete_vlb
from scoresde.likelihood.bounds.error_profile import ErrorProfile, measure_error_profile
from scoresde.likelihood.bounds.importance_weighted import importance_weighted_vlb
from scoresde.likelihood.bounds.result import Bound

__all__ = [
    "Bound",
    "Decoder",
    "ErrorProfile",
    "KernelDecoder",
    "RoundedDecoder",
    "continuous_vlb",
    "discrete_vlb",
    "importance_weighted_vlb",
    "measure_error_profile",
]
