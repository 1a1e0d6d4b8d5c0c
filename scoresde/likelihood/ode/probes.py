r"""Random probes of the Hutchinson estimator at quadrature nodes, and their optimal (Neyman) allocation.

Every node starts with one group of probes. Further groups go where they lower the variance of log p most: in proportion
to the standard deviation that a node contributes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._core.noise import Noise
from scoresde.likelihood.ode.jacobian import Jacobian

__all__ = ["Divergence", "ProbeGroups", "allocate"]


class Divergence(NamedTuple):
    """The divergence of v at the nodes.

    Attributes:
        value: ``(B, N)``.
        variance: Of ``value``, ``(B, N)``; 0: exact, NaN: unknown.
        dof: Degrees of freedom of ``variance``, ``(B, N)``.
    """

    value: Tensor
    variance: Tensor
    dof: Tensor

    def integral_stderr(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        r"""Standard error of $\sum_i w_i value_i$ and its degrees of freedom, ``(B,)`` both.

        Source: Welch 1947, with the bias of the squared variances removed.
        """
        variances = weights.square() * self.variance
        total = variances.sum(1)
        dof = total.square() / (variances.square() / (self.dof + 2.0)).sum(1).clamp(min=1e-300)
        return total.sqrt(), torch.where(total > 0, dof.clamp(min=1.0), math.inf)


class ProbeGroups:
    """Groups of probes drawn at each node, with running sums of the mean and the variance of their quadratic forms.

    Args:
        probes: Products per node, on average.
        kind: ``"rademacher"``, ``"orthogonal"`` or ``"gaussian"``.
        jacobian: Computes the quadratic forms.
        noise: Source of the probes.

    Attributes:
        size: Probes in one group.
        extra: Groups per node that remain to be allocated after the first.
        counts: Groups drawn so far, ``(B, N)`` int64.
    """

    def __init__(self, probes: int, kind: str, jacobian: Jacobian, noise: Noise) -> None:
        self.kind, self.jacobian, self.noise = kind, jacobian, noise
        nodes = jacobian.nodes
        self.dims = nodes.x.shape[2]
        self.size = min(probes, self.dims if kind == "orthogonal" else 2)
        exact = kind == "orthogonal" and self.size == self.dims
        self.extra = 0 if exact else probes // self.size - 1
        self.counts = torch.zeros_like(nodes.phi, dtype=torch.int64)
        self._mean_sum, self._variance_sum = torch.zeros_like(nodes.phi), torch.zeros_like(nodes.phi)

    def draw(self, counts: Tensor) -> None:
        """Draws that many more groups at each node, ``(B, N)``."""
        x, size = self.jacobian.nodes.x, self.size
        nodes = torch.arange(counts.numel(), device=counts.device).repeat_interleave(counts.reshape(-1))
        if not len(nodes):
            return
        distribution = "rademacher" if self.kind == "rademacher" else "normal"
        per_sample = (counts.sum(1) * size).tolist()
        e = self.noise.ragged(per_sample, x[:1, 0].new_empty(self.dims), distribution)
        e = e.reshape(len(nodes), size, self.dims)
        if self.kind == "orthogonal":
            e = torch.linalg.qr(e.mT)[0].mT * math.sqrt(self.dims)
        forms = self.jacobian.at(nodes, e.transpose(0, 1))
        variance = forms.var(0) if size > 1 else torch.full_like(forms[0], math.nan)
        self.counts += counts
        self._mean_sum.view(-1).index_add_(0, nodes, forms.mean(0))
        self._variance_sum.view(-1).index_add_(0, nodes, variance)

    def divergence(self) -> Divergence:
        """The estimate from all groups drawn so far."""
        dof = (self.counts * max(self.size - 1, 1)).to(self._mean_sum)
        return Divergence(self._mean_sum / self.counts, self._form_variance() / (self.size * self.counts), dof)

    def node_std(self) -> Tensor:
        """What one form at a node adds to the standard deviation of log p, ``(B, N)``.

        Its square is averaged over a quarter of the nodes. With a node's own few probes alone, the allocation would
        depend on chance.
        """
        variances = self.jacobian.nodes.weights.square() * self._form_variance()
        radius = max(2, variances.shape[1] // 8)
        mean = F.avg_pool1d(variances.unsqueeze(1), 2 * radius + 1, 1, radius, count_include_pad=False)
        return mean.squeeze(1).sqrt()

    def missing(self, stderr: float, max_products: int) -> Tensor:
        """Groups that each sample still needs for its standard error, within its limit of products, ``(B,)``."""
        error = self.divergence().integral_stderr(self.jacobian.nodes.weights)[0]
        drawn = self.counts.sum(1)
        target = self.node_std().sum(1).square() / (self.size * stderr**2)
        missing = torch.minimum((1.05 * target).ceil() - drawn, 3.0 * drawn).clamp(min=4.0)
        allowed = max_products // self.size - drawn
        return torch.where(error > stderr, torch.minimum(missing, allowed.to(missing)).clamp(min=0.0), 0.0)

    def _form_variance(self) -> Tensor:
        """Variance of one form, with the reduction that orthogonality gives, ``(B, N)``."""
        factor = 1.0 - self.size / self.dims if self.kind == "orthogonal" else 1.0
        return factor * self._variance_sum / self.counts


def allocate(node_std: Tensor, counts: Tensor, extra: Tensor) -> Tensor:
    """Neyman allocation: distributes ``extra`` groups so that all counts are nearly proportional to ``node_std``.

    Args:
        node_std: Standard deviation that each node contributes, ``(B, N)``.
        counts: Groups drawn so far, ``(B, N)``.
        extra: Groups to distribute among the nodes of each sample, ``(B,)``.

    Returns:
        Further groups of each node, ``(B, N)`` int64.
    """
    node_std = node_std.clamp(min=1e-300)
    total = counts.sum(1) + extra
    candidates = torch.ones_like(counts, dtype=torch.bool)
    target = counts.to(node_std)
    for _ in range(4):  # a node above its target gets no more, and the others share the rest
        shares = torch.where(candidates, node_std, 0.0)
        rest = total - torch.where(candidates, 0, counts).sum(1)
        target = rest.unsqueeze(1) * shares / shares.sum(1, keepdim=True).clamp(min=1e-300)
        candidates = candidates & (target >= counts)
    more = torch.where(candidates, target - counts, 0.0).clamp(min=0.0)
    more = more * (extra / more.sum(1).clamp(min=1e-300)).unsqueeze(1)
    rounded = more.cumsum(1).round()
    return torch.diff(rounded, dim=1, prepend=torch.zeros_like(rounded[:, :1])).clamp(min=0.0).to(torch.int64)
