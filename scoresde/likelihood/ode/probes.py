"""Where do random probes go? A group at every node at first, then where they lower the variance of log p most."""

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

    def spread(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        r"""Standard error of $\sum_i w_i value_i$ and its degrees of freedom, ``(B,)`` both.

        Source: Welch 1947, with the bias of the squared variances taken out.
        """
        parts = weights.square() * self.variance
        total = parts.sum(1)
        dof = total.square() / (parts.square() / (self.dof + 2.0)).sum(1).clamp(min=1e-300)
        return total.sqrt(), torch.where(total > 0, dof.clamp(min=1.0), math.inf)


class ProbeGroups:
    """Groups of probes drawn so far, and their forms' first two moments at each node."""

    def __init__(self, probes: int, kind: str, jacobian: Jacobian, noise: Noise) -> None:
        self.kind, self.jacobian, self.noise = kind, jacobian, noise
        nodes = jacobian.nodes
        self.dims = nodes.x.shape[2]
        self.size = min(probes, 2)
        if kind == "orthogonal":
            self.size = min(probes, self.dims)
        exact = kind == "orthogonal" and self.size == self.dims
        self.spare = 0 if exact else probes // self.size - 1
        self.groups = torch.zeros_like(nodes.phi, dtype=torch.int64)
        self.total, self.squares = torch.zeros_like(nodes.phi), torch.zeros_like(nodes.phi)

    def draw(self, groups: Tensor) -> None:
        """That many more groups at each node, ``(B, N)``."""
        nodes, size = self.jacobian.nodes, self.size
        places = torch.arange(groups.numel(), device=groups.device).repeat_interleave(groups.reshape(-1))
        if not len(places):
            return
        law = "rademacher" if self.kind == "rademacher" else "normal"
        counts = (groups.sum(1) * size).tolist()
        e = self.noise.ragged(counts, nodes.x[:1, 0].new_empty(self.dims), law).reshape(len(places), size, self.dims)
        if self.kind == "orthogonal":
            e = torch.linalg.qr(e.mT)[0].mT * math.sqrt(self.dims)
        forms = self.jacobian.at(places, e.transpose(0, 1))
        spread = forms.var(0) if size > 1 else torch.full_like(forms[0], math.nan)
        self.groups += groups
        self.total.view(-1).index_add_(0, places, forms.mean(0))
        self.squares.view(-1).index_add_(0, places, spread)

    def _form_variance(self) -> Tensor:
        """Of one form, less what orthogonality takes away, ``(B, N)``."""
        kept = 1.0 - self.size / self.dims if self.kind == "orthogonal" else 1.0
        return kept * self.squares / self.groups

    def divergence(self) -> Divergence:
        """What is known so far."""
        dof = (self.groups * max(self.size - 1, 1)).to(self.total)
        return Divergence(self.total / self.groups, self._form_variance() / (self.size * self.groups), dof)

    def weight(self) -> Tensor:
        """What a node adds to the standard deviation of log p, ``(B, N)``.

        A mean over a quarter of the nodes: by its own few probes a node would be judged, and then trusted, by accident.
        """
        parts = self.jacobian.nodes.weights.square() * self._form_variance()
        reach = max(2, parts.shape[1] // 8)
        return F.avg_pool1d(parts.unsqueeze(1), 2 * reach + 1, 1, reach, count_include_pad=False).squeeze(1).sqrt()

    def wanted(self, stderr: float, max_products: int) -> Tensor:
        """Groups that each sample still needs, ``(B,)``: for its standard error, within its products."""
        error = self.divergence().spread(self.jacobian.nodes.weights)[0]
        spent = self.groups.sum(1)
        target = self.weight().sum(1).square() / (self.size * stderr**2)
        more = torch.minimum((1.05 * target).ceil() - spent, 3.0 * spent).clamp(min=4.0)
        room = max_products // self.size - spent
        return torch.where(error > stderr, torch.minimum(more, room.to(more)).clamp(min=0.0), 0.0)


def allocate(weight: Tensor, groups: Tensor, more: Tensor) -> Tensor:
    """Shares ``more`` groups, ``(B,)``, so that all groups are as the weights, ``(B, N)``, as nearly as can be."""
    weight = weight.clamp(min=1e-300)
    total = groups.sum(1) + more
    open_ = torch.ones_like(groups, dtype=torch.bool)
    aim = groups.to(weight)
    for _ in range(4):  # a node with more than its share is left out, and the others share the rest
        kept = torch.where(open_, weight, 0.0)
        rest = total - torch.where(open_, 0, groups).sum(1)
        aim = rest.unsqueeze(1) * kept / kept.sum(1, keepdim=True).clamp(min=1e-300)
        open_ = open_ & (aim >= groups)
    extra = torch.where(open_, aim - groups, 0.0).clamp(min=0.0)
    extra = extra * (more / extra.sum(1).clamp(min=1e-300)).unsqueeze(1)
    filled = extra.cumsum(1).round()
    return torch.diff(filled, dim=1, prepend=torch.zeros_like(filled[:, :1])).clamp(min=0.0).to(torch.int64)
