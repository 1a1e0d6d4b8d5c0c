r"""Result of a variational bound: the negative ELBO (VLB) of each sample, an upper bound on $-\log p$ in nats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.likelihood.student import student_half_width

__all__ = ["Bound"]


@dataclass(frozen=True, eq=False)
class Bound:
    r"""Negative ELBO (VLB) of each sample, an upper bound on $-\log p$, with its terms and its standard error.

    Attributes:
        nats: Bound of each sample, nats, ``(B,)`` float64.
        terms: The summands of ``nats`` by name ("prior", "diffusion", "reconstruction", "dequantization"), nats, each
            ``(B,)`` float64. For an importance-weighted bound they sum to the mean of $-\log w_j$ over the
            trajectories, which is larger than ``nats``.
        stderr: Standard error of ``nats`` over the draws of noise and timesteps, ``(B,)`` float64; NaN if unknown.
        dof: Degrees of freedom of ``stderr``, ``(B,)`` float64; NaN if unknown. Four replicates have up to 3, less for
            few dimensions, where errors are far from normal; see `replicate_dof`.
        nfe: Network evaluations per sample.
        dims: Number of values in one sample.
        quantized: Whether the data are integer values or categories, so that bits are defined.
        per_step: Contribution of each step k = 1 … K of a chain, nats, averaged over the samples, ``(K,)`` float64. The
            first entry is the reconstruction term where the chain has one. None in continuous time.
    """

    nats: Tensor
    terms: dict[str, Tensor]
    stderr: Tensor
    dof: Tensor
    nfe: int
    dims: int
    quantized: bool
    per_step: Tensor | None = None

    @property
    def bits(self) -> Tensor | None:
        """Bound in bits per dimension, ``(B,)`` float64; None if the data are not quantized."""
        return self.nats * self._unit if self.quantized else None

    @property
    def bits_per_event(self) -> Tensor | None:
        """Bound in bits of a whole sample, as of a sequence, ``(B,)`` float64; None if the data are not quantized."""
        return self.nats / math.log(2) if self.quantized else None

    @property
    def perplexity(self) -> Tensor | None:
        """Upper bound on the perplexity per value, exp(nats / dims), ``(B,)`` float64; None if not quantized."""
        return torch.exp(self.nats / self.dims) if self.quantized else None

    @property
    def mean_perplexity(self) -> float | None:
        """Upper bound on the perplexity of all samples, exp of the mean of nats / dims; None if not quantized."""
        return math.exp(float(self.nats.mean()) / self.dims) if self.quantized else None

    @property
    def mean(self) -> float:
        """Mean over the samples: of ``bits`` for quantized data, else of ``nats``."""
        return float(self.nats.mean()) * self._unit

    @property
    def mean_stderr(self) -> float:
        """Standard error of ``mean`` over samples and draws together; NaN for one sample."""
        n = len(self.nats)
        return float(self.nats.std()) / math.sqrt(n) * self._unit if n > 1 else math.nan

    @property
    def mean_draw_stderr(self) -> float:
        """Standard error of ``mean`` over the draws alone, for fixed samples."""
        return float(self.stderr.square().sum().sqrt()) / max(len(self.nats), 1) * self._unit

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of a confidence interval for the bound's expectation, nats, ``(B,)`` float64 each.

        Student's t with `dof` over the draws; NaN where the error is unknown.

        Args:
            level: In (0, 1).

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        half = student_half_width(self.stderr, self.dof, level)
        return self.nats - half, self.nats + half

    def mean_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end of a confidence interval for `mean` over samples and draws together, in its unit.

        Student's t with one degree of freedom less than there are samples; NaN for one sample.

        Args:
            level: In (0, 1).

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        stderr, dof = torch.tensor([self.mean_stderr, len(self.nats) - 1.0], dtype=torch.float64)
        half = float(student_half_width(stderr, dof, level))
        return self.mean - half, self.mean + half

    @property
    def _unit(self) -> float:
        return 1.0 / (self.dims * math.log(2)) if self.quantized else 1.0
