"""An exact mixed model of two numbers and two categories of 3 and 2 classes, for tests of all parts."""

from __future__ import annotations

import torch

from scoresde.analytic import MixedMixture
from scoresde.process import VPSDE, Categorical, LinearAlphaBar, LinearVP, Mixed

__all__ = ["CASES", "CODES", "mixture"]

D = torch.float64
CODES = torch.cartesian_prod(torch.arange(3.0, dtype=D), torch.arange(2.0, dtype=D))
"""All states of the two categories, ``(6, 2)``."""
CASES = {
    "uniform": Mixed(VPSDE(LinearVP(), tau_min=1e-3), Categorical((3, 2))),
    "absorbing": Mixed(VPSDE(LinearAlphaBar(), tau_min=1e-3), Categorical((3, 2), "absorbing")),
}


def mixture(process: Mixed, components: int = 4) -> MixedMixture:
    """Components that tie numbers and categories together."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(components, 2, generator=generator, dtype=D)
    variances = 0.05 + 0.1 * torch.rand(components, 2, generator=generator, dtype=D)
    probs = torch.softmax(2 * torch.randn(components, 2, 3, generator=generator, dtype=D), -1)
    probs[:, 1, 2] = 0.0
    return MixedMixture(
        torch.arange(1.0, components + 1), means, variances, probs / probs.sum(-1, keepdim=True), process
    )
