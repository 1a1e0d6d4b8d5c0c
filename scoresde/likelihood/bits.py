r"""How likely are levels under a density? $\log P(k) \ge E_q[\log p(k + u) - \log q(u \mid k)]$, u in the unit cell.

The average over draws of u bounds the bits from above; $\log\frac1K\sum_j p(k + u_j)/q(u_j \mid k)$ bounds them closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._tensor import Noise
from scoresde.data import Description
from scoresde.likelihood.dequantize import Dequantization, Uniform
from scoresde.likelihood.flow import Solver
from scoresde.likelihood.ode import Density, Observe, Scorer, bar, batches, evaluated, part_of
from scoresde.likelihood.trace import Trace
from scoresde.model import Model, refuse_unknown

__all__ = ["BitsPerDim", "bits_per_dim"]


@dataclass(frozen=True, eq=False)
class BitsPerDim:
    """An upper bound on the bits that a level costs, and its uncertainty.

    Attributes:
        bits: ``(B,)`` float64, bits per dimension of each sample, averaged over the draws.
        nats: ``(B,)`` float64, the same in nats per sample: a bound on -log P(levels).
        per_draw: ``(draws, B)`` float64, bits per dimension by each draw alone.
        probe_stderr: ``(B,)`` float64, standard error of ``bits`` over the trace's probes (0: exact, NaN: unknown).
        nfe: Evaluations of the network that a sample saw in one draw, the most over batches and draws.
        dims: Number of values in one sample.
    """

    bits: Tensor
    nats: Tensor
    per_draw: Tensor
    probe_stderr: Tensor
    nfe: int
    dims: int

    @property
    def mean(self) -> float:
        """Mean of ``bits`` over the samples."""
        return float(self.bits.mean())

    @property
    def stderr(self) -> float:
        """Standard error of ``mean`` over the samples, the draws' and probes' share included; NaN for one sample."""
        n = len(self.bits)
        return float(self.bits.std()) / math.sqrt(n) if n > 1 else math.nan

    @property
    def mean_probe_stderr(self) -> float:
        """Standard error of ``mean`` over the probes alone, the samples and draws held fixed."""
        return float(self.probe_stderr.square().sum().sqrt()) / max(len(self.probe_stderr), 1)

    @cached_property
    def importance_weighted(self) -> Tensor:
        r"""Bits of $\log\frac1K\sum_j p(y_j)/q(u_j)$ over the K draws, ``(B,)``: at most ``bits``, tighter with K.

        A bound for an exact trace only: noise in log p is exponentiated, and makes it too good by up to half its
        variance.

        Source: Burda, Grosse & Salakhutdinov 2016.
        """
        nat = self.dims * math.log(2)
        return -(torch.logsumexp(-nat * self.per_draw, 0) - math.log(len(self.per_draw))) / nat


def bits_per_dim(
    model: Model,
    levels: Tensor,
    *,
    draws: int = 1,
    dequantization: Dequantization | None = None,
    trace: Trace | None = None,
    method: str = "dopri5",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_nfe: int = 10_000,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> BitsPerDim:
    """Bits per dimension of quantised data, by the ODE's density at ``tau_min`` and dequantisation: an upper bound.

    Bins and scale are those of ``model.data`` and come from nowhere else. Each draw has new probes. The law scored is
    the one at ``tau_min``: the data are taken to carry its noise, and nothing is added for that.

    Args:
        model: Carries the data's description.
        levels: Raw integer levels 0 ... bins - 1 in data units, ``(B, *D)``.
        draws: Dequantisation draws per sample.
        dequantization: Law of u; default `Uniform`.
        trace, method, rtol, atol, max_nfe, prior_log_prob, batch_size, progress: As for `log_prob`.
        generator: Source of draws and probes.
        seeds: One integer per sample instead.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        See `BitsPerDim`.

    Raises:
        ValueError: If the model does not carry a description with bins, the levels are not integers inside their range,
            or ``draws`` is not a positive integer; and as `log_prob`.
        RuntimeError: As `log_prob`.
    """
    refuse_unknown(bits_per_dim, model, cond)
    description = _described(model, levels)
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws must be a positive integer, got {draws!r}.")
    law = Uniform() if dequantization is None else dequantization
    scorer = Scorer(model, trace, Solver(method, rtol, atol, max_nfe), prior_log_prob, cond)
    scorer.check(description.centre(levels), seeds)
    bits, errors, nfe, n = [], [], 0, max(len(levels), 1)
    with evaluated(model), bar(progress) as observe:
        for rows in batches(len(levels), batch_size) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            length = (rows.stop - rows.start) / n / draws
            watches = [part_of(observe, rows.start / n + j * length, length) for j in range(draws)]
            scored = [_score_draw(scorer, levels[rows], law, description, noise, rows, watch) for watch in watches]
            bits.append(torch.stack([bits for bits, _, _ in scored]))
            errors.append(torch.stack([error for _, error, _ in scored]).square().sum(0).sqrt() / draws)
            nfe = max(nfe, *(calls for _, _, calls in scored))
    nat, per_draw = description.dims * math.log(2), torch.cat(bits, 1)
    mean = per_draw.mean(0)
    return BitsPerDim(mean, nat * mean, per_draw, torch.cat(errors) / nat, nfe, description.dims)


def _score_draw(
    scorer: Scorer,
    levels: Tensor,
    law: Dequantization,
    description: Description,
    noise: Noise,
    rows: slice,
    observe: Observe | None,
) -> tuple[Tensor, Tensor, int]:
    """Bits per dimension of one draw, ``(B,)``, the trace's standard error in nats, ``(B,)``, and evaluations."""
    y, log_q = law.draw(levels, noise)
    scored = scorer(description.to_model(y), noise, rows, observe)
    return description.bits_per_dim(scored.log_prob - log_q), scored.stderr, scored.nfe


def _described(model: Model, levels: Tensor) -> Description:
    description = model.data
    if description is None or description.bins is None:
        got = "a model without a description" if description is None else f"{description.name!r} with bins=None"
        raise ValueError(
            f"bits per dimension need quantised data with their bins and scale, got {got}; set model.data = "
            "Description(name, shape, bins=..., scale=...), or report nats by log_prob."
        )
    description.validate(levels)
    return description
