r"""Self-normalized importance weights $w_i \propto \pi(x_i)/p(x_i)$ of samples of p for an unnormalized target π."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde.likelihood.ode.error_budget import LogProb

__all__ = ["ImportanceWeights", "importance_weights"]


@dataclass(frozen=True, eq=False)
class ImportanceWeights:
    r"""Self-normalized weights of n samples.

    Attributes:
        log_weights: ``(n,)`` float64, normalized: their exponentials sum to 1; -inf for a sample without a density.
        log_normalizer: $\log\frac1n\sum_i\pi(x_i)/p(x_i)$, nats: estimates the target's log-normalizer. A sample that
            did not arrive counts in n with the ratio 0, which makes the estimate too small.
        lost: Number of samples that did not arrive (`LogProb.arrived`) and so have no weight.
    """

    log_weights: Tensor
    log_normalizer: float
    lost: int = 0

    @property
    def weights(self) -> Tensor:
        """``(n,)``, with sum 1."""
        return self.log_weights.exp()

    @property
    def effective_sample_size(self) -> float:
        r"""$1/\sum w_i^2$, between 1 and n (Kong 1992)."""
        return math.exp(-float(torch.logsumexp(2.0 * self.log_weights, 0)))


def importance_weights(log_target: ArrayLike, scored: LogProb) -> ImportanceWeights:
    """Weights under which a model's samples represent a target distribution.

    Noise in log p is exponentiated: with random probes the weights also depend on the probes, and the normalizer is too
    large by up to half their variance. Use an exact trace, or a small ``stderr``, if that matters. Samples that did not
    arrive have no weight; a warning states their number, and ``lost`` holds it.

    Args:
        log_target: Log-density of the target at the samples up to a constant, nats, ``(n,)``, in the coordinates of
            ``scored`` (model units).
        scored: The samples' log-densities under the model, as from `sample_log_prob`.

    Raises:
        ValueError: If the shapes differ, an entry of the target is NaN or +inf, or no sample has a weight.
    """
    check_arguments(importance_weights, locals())
    log_target = as_tensor(log_target, "log_target", scored.log_prob.device)
    if log_target.shape != scored.log_prob.shape:
        raise ValueError(
            f"log_target must have one entry per sample, {tuple(scored.log_prob.shape)}, got {tuple(log_target.shape)}."
        )
    bad = ~(log_target < math.inf)
    if bool(bad.any()):
        i = int(bad.nonzero()[0])
        raise ValueError(f"log_target must be finite or -inf, got {float(log_target[i])} at index {i}.")
    log_ratio = log_target.to(scored.log_prob) - scored.log_prob
    log_ratio = torch.where(scored.arrived.to(log_ratio.device), log_ratio, -math.inf)
    log_sum = torch.logsumexp(log_ratio, 0)
    if not bool(torch.isfinite(log_sum)):
        raise ValueError("at least one sample must have a density under both target and model, but none has.")
    lost = int((~scored.arrived).sum())
    if lost:
        warnings.warn(
            f"{lost} of {len(log_ratio)} samples did not arrive and have no weight; the other weights are biased if "
            "their loss depends on x. Raise max_nfe or loosen the tolerance of the solver.",
            stacklevel=2,
        )
    return ImportanceWeights(log_ratio - log_sum, float(log_sum) - math.log(len(log_ratio)), lost)
