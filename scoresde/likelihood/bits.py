r"""How likely are levels under a density? $\log P(k) \ge E_q[\log p(k + u) - \log q(u \mid k)]$, u in the unit cell.

The average over draws of u bounds the bits from above; $\log\frac1K\sum_j p(k + u_j)/q(u_j \mid k)$ bounds them closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.data import Description
from scoresde.likelihood.batching import Density, Observe, bar, evaluated, part_of
from scoresde.likelihood.dequantize import Dequantization, default_dequantization
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb, concatenate, half_width
from scoresde.likelihood.ode.log_prob import LikelihoodScorer
from scoresde.likelihood.ode.solver import AdaptiveSolver, Solver
from scoresde.likelihood.ode.trace import Trace
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
        dof: ``(B,)`` float64, degrees of freedom of ``probe_stderr``.
        budget: Errors of the log-densities, nats; the means over the draws, but for ``trace``, which is the mean's.
        status: ``(B,)`` int64, the worst `Status` over the draws.
        nfe: ``(B,)`` int64, evaluations of the network in all draws.
        products: ``(B,)`` int64, Jacobian products in all draws.
        dims: Number of values in one sample.
    """

    bits: Tensor
    nats: Tensor
    per_draw: Tensor
    probe_stderr: Tensor
    dof: Tensor
    budget: ErrorBudget
    status: Tensor
    nfe: Tensor
    products: Tensor
    dims: int

    @property
    def dequantization(self) -> Tensor:
        """What the K-sample bound gains on the mean over the draws, nats, ``(B,)``; NaN (unknown) for one draw.

        A lower bound on what the dequantization costs.
        """
        gap = (self.bits - self.importance_weighted) * self.dims * math.log(2)
        return gap if len(self.per_draw) > 1 else torch.full_like(gap, math.nan)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of a confidence interval for ``bits`` at these draws, ``(B,)`` each; see `LogProb`.

        Args:
            level: In (0, 1).

        Raises:
            ValueError: If it is not.
        """
        nat = self.dims * math.log(2)
        half = half_width(nat * self.probe_stderr, self.dof, self.budget, level) / nat
        return self.bits - half, self.bits + half

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
    solver: Solver | None = None,
    nodes: int = 40,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    progress: bool = False,
    **cond: object,
) -> BitsPerDim:
    """Bits per dimension of quantized data, by the ODE's density at ``tau_min`` and dequantization: an upper bound.

    Bins and scale are those of ``model.data`` and come from nowhere else. Each draw has new probes. The law scored is
    the one at ``tau_min``: the data are taken to carry its noise, and nothing is added for that.

    Args:
        model: Carries the data's description.
        levels: Raw integer levels 0 ... bins - 1 in data units, ``(B, *D)``.
        draws: Dequantization draws per sample.
        dequantization: Law of u; default `Uniform`, or what suits a network ``on_centers`` (`QuantizedSkip`),
            `TruncatedNormal.matching`.
        trace, solver, nodes, prior_log_prob, batch_size, strict, progress: As for `log_prob`.
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
    law = default_dequantization(model) if dequantization is None else dequantization
    scorer = LikelihoodScorer(model, trace, solver or AdaptiveSolver(), nodes, prior_log_prob, cond, batch_size, strict)
    centers = description.center(levels)
    scorer.check(centers, seeds)
    parts, n = [], max(len(levels), 1)
    with evaluated(model), bar(progress) as observe:
        for rows in scorer.batches(centers) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            length = (rows.stop - rows.start) / n / draws
            watches = [part_of(observe, rows.start / n + j * length, length) for j in range(draws)]
            scored = [_score_draw(scorer, levels[rows], law, description, noise, rows, watch) for watch in watches]
            parts.append(_average(scored, description))
    return _join(parts)


def _score_draw(
    scorer: LikelihoodScorer,
    levels: Tensor,
    law: Dequantization,
    description: Description,
    noise: Noise,
    rows: slice,
    observe: Observe | None,
) -> LogProb:
    """One draw: log p(y) - log q(u | k) in the place of log p."""
    y, log_q = law.draw(levels, noise)
    scored = scorer(description.to_model(y), noise, rows, observe)
    return replace(scored, log_prob=scored.log_prob - log_q)


def _average(draws: list[LogProb], description: Description) -> BitsPerDim:
    """Of one batch."""
    nat = description.dims * math.log(2)
    per_draw = torch.stack([description.bits_per_dim(draw.log_prob) for draw in draws])
    terms = {
        field.name: torch.stack([getattr(draw.budget, field.name) for draw in draws]).mean(0)
        for field in fields(ErrorBudget)
    }
    variances = torch.stack([draw.stderr for draw in draws]).square()
    total, dof = variances.sum(0), torch.stack([draw.dof for draw in draws])
    dof = torch.where(total > 0, total.square() / (variances.square() / dof).sum(0).clamp(min=1e-300), math.inf)
    terms["trace"] = total.sqrt() / len(draws)
    bits = per_draw.mean(0)
    return BitsPerDim(
        bits,
        nat * bits,
        per_draw,
        terms["trace"] / nat,
        dof,
        ErrorBudget(**terms),
        torch.stack([draw.status for draw in draws]).amax(0),
        torch.stack([draw.nfe for draw in draws]).sum(0),
        torch.stack([draw.products for draw in draws]).sum(0),
        description.dims,
    )


def _join(parts: list[BitsPerDim]) -> BitsPerDim:
    """The batches' results as one."""
    return BitsPerDim(
        torch.cat([part.bits for part in parts]),
        torch.cat([part.nats for part in parts]),
        torch.cat([part.per_draw for part in parts], 1),
        torch.cat([part.probe_stderr for part in parts]),
        torch.cat([part.dof for part in parts]),
        concatenate([part.budget for part in parts]),
        torch.cat([part.status for part in parts]),
        torch.cat([part.nfe for part in parts]),
        torch.cat([part.products for part in parts]),
        parts[0].dims,
    )


def _described(model: Model, levels: Tensor) -> Description:
    description = model.data
    if description is None or description.bins is None:
        got = "a model without a description" if description is None else f"{description.name!r} with bins=None"
        raise ValueError(
            f"bits per dimension need quantized data with their bins and scale, got {got}; set model.data = "
            "Description(name, shape, bins=..., scale=...), or report nats by log_prob."
        )
    description.validate(levels)
    return description
