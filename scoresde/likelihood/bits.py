r"""Bits per dimension of quantized data, from the ODE's log-density of dequantized values.

For integer values k and an offset u in the unit bin, $\log P(k) \ge E_q[\log p(k + u) - \log q(u \mid k)]$. The average
over draws of u therefore bounds the bits from above. $\log\frac1K\sum_j p(k + u_j)/q(u_j \mid k)$ is a tighter bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.progress import ProgressBar
from scoresde.data import Description
from scoresde.likelihood.batching import Density, evaluation_mode, progress_part
from scoresde.likelihood.bounds.initial_state import check_integer_data
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.dequantize import Dequantization, default_dequantization
from scoresde.likelihood.ode.adaptive_solver import AdaptiveSolver
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb, half_width, join_budgets
from scoresde.likelihood.ode.scorer import LikelihoodScorer
from scoresde.likelihood.ode.solver import Solver
from scoresde.likelihood.ode.trace import Trace
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, refuse_unknown

__all__ = ["BitsPerDim", "bits_per_dim"]


@dataclass(frozen=True, eq=False)
class BitsPerDim:
    """An upper bound on the bits per dimension of each sample, and its uncertainty.

    Attributes:
        bits: ``(B,)`` float64, bits per dimension of each sample, averaged over the draws.
        nats: ``(B,)`` float64, the same in nats per sample: a bound on -log P(values).
        per_draw: ``(draws, B)`` float64, bits per dimension of each draw alone.
        probe_stderr: ``(B,)`` float64, standard error of ``bits`` over the trace's probes (0: exact, NaN: unknown).
        dof: ``(B,)`` float64, degrees of freedom of ``probe_stderr``.
        budget: Errors of the log-densities, nats: means over the draws, except ``trace``, which is the error of the
            mean.
        status: ``(B,)`` int64, the worst `Status` among the draws.
        nfe: ``(B,)`` int64, network evaluations in all draws.
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
        """Difference of the mean over the draws and the K-sample bound, nats, ``(B,)``; NaN (unknown) for one draw.

        A lower bound on the cost of dequantization.
        """
        gap = (self.bits - self.importance_weighted) * self._nats_per_bit
        return gap if len(self.per_draw) > 1 else torch.full_like(gap, math.nan)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of a confidence interval for ``bits`` given the draws, ``(B,)`` each; see `LogProb`.

        Args:
            level: In (0, 1).

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        unit = self._nats_per_bit
        half = half_width(unit * self.probe_stderr, self.dof, self.budget, level) / unit
        return self.bits - half, self.bits + half

    @property
    def mean(self) -> float:
        """Mean of ``bits`` over the samples."""
        return float(self.bits.mean())

    @property
    def stderr(self) -> float:
        """Standard error of ``mean`` over the samples, which includes draws and probes; NaN for one sample."""
        n = len(self.bits)
        return float(self.bits.std()) / math.sqrt(n) if n > 1 else math.nan

    @property
    def mean_probe_stderr(self) -> float:
        """Standard error of ``mean`` over the probes alone, with samples and draws held fixed."""
        return float(self.probe_stderr.square().sum().sqrt()) / max(len(self.probe_stderr), 1)

    @cached_property
    def importance_weighted(self) -> Tensor:
        r"""Bits of $\log\frac1K\sum_j p(y_j)/q(u_j)$ over the K draws, ``(B,)``: at most ``bits``, tighter with K.

        It is a bound for an exact trace only. Noise in log p is exponentiated, which lowers the bits by up to half its
        variance.

        Source: Burda, Grosse & Salakhutdinov 2016.
        """
        unit = self._nats_per_bit
        return -(torch.logsumexp(-unit * self.per_draw, 0) - math.log(len(self.per_draw))) / unit

    @property
    def _nats_per_bit(self) -> float:
        return self.dims * math.log(2)


def bits_per_dim(
    model: Model,
    values: ArrayLike,
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
    """Upper bound on the bits per dimension of quantized data, by dequantization and the ODE's density at ``tau_min``.

    Bins and scale are those of ``model.data``, never a hidden constant. Each draw has new probes. The density is that
    of the distribution at ``tau_min``: the data are taken to carry its noise, and nothing is added for it.

    Args:
        model: Carries the data's description.
        values: Integer values 0 ... bins - 1 in data units, ``(B, *D)``.
        draws: Dequantization draws per sample.
        dequantization: Distribution of the offset u; default `UniformDequantization`, or
            `TruncatedNormalDequantization.matching` for a network that is trained on bin centers (`QuantizedSkip`).
        trace, solver, nodes, prior_log_prob, batch_size, strict, progress: As for `log_prob`.
        generator: Source of draws and probes.
        seeds: One integer per sample instead.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        See `BitsPerDim`.

    Raises:
        ValueError: If the model does not carry a description with bins, the values are not integers inside their range,
            or ``draws`` is not a positive integer; and as `log_prob`.
        RuntimeError: As `log_prob`.
    """
    refuse_unknown(bits_per_dim, model, cond)
    refuse_without_score(bits_per_dim, model)
    check_arguments(bits_per_dim, locals())
    values, cond = as_input(model, values, "values"), likelihood_inputs(model, cond)
    check_integer_data(model, values)
    description = model.data
    assert description is not None
    check_integer("draws", draws)
    dequantization = default_dequantization(model) if dequantization is None else dequantization
    scorer = LikelihoodScorer(model, trace, solver or AdaptiveSolver(), nodes, prior_log_prob, cond, batch_size, strict)
    centers = description.center(values)
    scorer.check(centers, seeds)
    batches, count = [], max(len(values), 1)
    with evaluation_mode(model), ProgressBar("likelihood", enabled=progress) as bar:
        observe = bar.update if progress else None
        for rows in scorer.batches(centers) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            scored, share = [], (rows.stop - rows.start) / count / draws
            for j in range(draws):
                hook = progress_part(observe, rows.start / count + j * share, share)
                y, log_q = dequantization.draw(values[rows], noise)
                draw = scorer(description.to_model(y), noise, rows, hook)
                scored.append(replace(draw, log_prob=draw.log_prob - log_q))
            batches.append(_average(scored, description))
    return _join(batches)


def _average(draws: list[LogProb], description: Description) -> BitsPerDim:
    """The average over the draws of one batch."""
    per_draw = torch.stack([description.bits_per_dim(draw.log_prob) for draw in draws])
    terms = {
        field.name: torch.stack([getattr(draw.budget, field.name) for draw in draws]).mean(0)
        for field in fields(ErrorBudget)
    }
    variances = torch.stack([draw.stderr for draw in draws]).square()
    total, dof = variances.sum(0), torch.stack([draw.dof for draw in draws])
    dof = torch.where(total > 0, total.square() / (variances.square() / dof).sum(0).clamp(min=1e-300), math.inf)
    terms["trace"] = total.sqrt() / len(draws)
    bits, nats_per_bit = per_draw.mean(0), description.dims * math.log(2)
    return BitsPerDim(
        bits,
        nats_per_bit * bits,
        per_draw,
        terms["trace"] / nats_per_bit,
        dof,
        ErrorBudget(**terms),
        torch.stack([draw.status for draw in draws]).amax(0),
        torch.stack([draw.nfe for draw in draws]).sum(0),
        torch.stack([draw.products for draw in draws]).sum(0),
        description.dims,
    )


def _join(batches: list[BitsPerDim]) -> BitsPerDim:
    """The results of several batches as one."""
    names = ("bits", "nats", "probe_stderr", "dof", "status", "nfe", "products")
    return BitsPerDim(
        per_draw=torch.cat([batch.per_draw for batch in batches], 1),
        budget=join_budgets([batch.budget for batch in batches]),
        dims=batches[0].dims,
        **{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names},
    )
