r"""How do samples of a model stand for another law π? By weights $w_i \propto \pi(x_i)/p(x_i)$, π up to a constant."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.likelihood.ode.error_budget import LogProb

__all__ = ["ImportanceWeights", "importance_weights"]


@dataclass(frozen=True, eq=False)
class ImportanceWeights:
    r"""Self-normalized weights of n samples.

    Attributes:
        log_weights: ``(n,)`` float64, normalized: their exponentials add up to 1; -inf where a sample has no density.
        log_normalizer: $\log\frac1n\sum_i\pi(x_i)/p(x_i)$, nats: estimates the target's log-normalizer.
    """

    log_weights: Tensor
    log_normalizer: float

    @property
    def weights(self) -> Tensor:
        """``(n,)``, adding up to 1."""
        return self.log_weights.exp()

    @property
    def effective_sample_size(self) -> float:
        r"""$1/\sum w_i^2$, between 1 and n (Kong 1992)."""
        return math.exp(-float(torch.logsumexp(2.0 * self.log_weights, 0)))


def importance_weights(log_target: Tensor, scored: LogProb) -> ImportanceWeights:
    """Weights that make a model's samples those of a target.

    Noise in log p is exponentiated: with random probes the weights also follow the probes, and the normalizer is too
    large by up to half their variance. Take an exact trace, or a small ``stderr``, where it matters.

    Args:
        log_target: Log-density of the target at the samples up to a constant, nats, ``(n,)``, in the coordinates of
            ``scored`` (model units).
        scored: The samples' log-densities under the model, as from `sample_log_prob`.

    Raises:
        ValueError: If the shapes differ, the target is NaN or +inf somewhere, or no sample has a weight.
    """
    if log_target.shape != scored.log_prob.shape:
        raise ValueError(
            f"log_target must have one entry per sample, {tuple(scored.log_prob.shape)}, got {tuple(log_target.shape)}."
        )
    bad = ~(log_target < math.inf)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(f"log_target must be finite or -inf, got {float(log_target[i])} at index {i}.")
    ratio = log_target.to(scored.log_prob) - scored.log_prob
    ratio = torch.where(scored.arrived.to(ratio.device), ratio, -math.inf)
    total = torch.logsumexp(ratio, 0)
    if not bool(torch.isfinite(total)):
        raise ValueError("some sample must have a density under the target and the model, got none.")
    return ImportanceWeights(ratio - total, float(total) - math.log(len(ratio)))
