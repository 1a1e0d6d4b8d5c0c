r"""What is the divergence of the velocity at the nodes of a path? $\sum_i e_i^\top J e_i$, or a mean over random e.

Each node has probes of its own, so their errors are independent, and their number follows what they add to the variance
of log p.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._tensor import Noise
from scoresde.likelihood.jacobian import Jacobian
from scoresde.spec import nearest

__all__ = ["Divergence", "Exact", "Hutchinson", "Trace", "default_trace"]

KINDS = ("rademacher", "orthogonal", "gaussian")


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


class Trace(ABC):
    """How the divergence is found at the nodes.

    Attributes:
        mode: ``"reverse"``: one reverse pass per direction, down to x only; holds the network's graph, as training.
            ``"forward"``: forward-mode products, batched over directions; holds their tangents instead of a graph. On a
            CPU with torch 2.13 it took 2 times as long as reverse on the package's MLP and UNet, 8 times on tiny ones.
    """

    mode: str

    @abstractmethod
    def divergence(self, jacobian: Jacobian, noise: Noise) -> Divergence:
        """At all nodes; each is asked at least once.

        Args:
            jacobian: Answers with forms.
            noise: Source of random directions.

        Raises:
            ValueError: If the event is too large for this trace.
        """


@dataclass(frozen=True)
class Exact(Trace):
    """The divergence itself: as many products per node as the event has elements.

    Args:
        limit: Largest event size that is not refused.
        mode: See `Trace`.

    Raises:
        ValueError: If ``limit`` is not a positive integer; when used, if the event is larger.
    """

    limit: int = 256
    mode: str = "reverse"

    def __post_init__(self) -> None:
        _check_mode(self.mode)
        _check_count("limit", self.limit)

    def divergence(self, jacobian: Jacobian, noise: Noise) -> Divergence:
        """The sum over the unit vectors; no random number is drawn."""
        x = jacobian.nodes.x
        rows, count, size = x.shape
        if size > self.limit:
            raise ValueError(
                f"an exact trace costs one Jacobian product per dimension at every node, here {size}, and is "
                f"refused above limit={self.limit}; use Hutchinson(probes=4), or Exact(limit={size}) if you can wait."
            )
        basis = torch.eye(size, dtype=x.dtype, device=x.device).unsqueeze(1)
        places = torch.arange(rows * count, device=x.device)
        value = jacobian.at(places, basis.expand(size, len(places), size)).sum(0).reshape(rows, count)
        return Divergence(value, torch.zeros_like(value), torch.full_like(value, math.inf))


@dataclass(frozen=True)
class Hutchinson(Trace):
    r"""The mean of $e^\top J e$ over random e with $E[e\,e^\top] = I$: unbiased, with a standard error.

    Every node begins with a group of two probes. What is left of ``probes`` per node, or whatever ``stderr`` asks for,
    goes where it lowers the variance of log p most.

    Args:
        probes: Products per node, on average; a multiple of 2. One alone has no standard error.
        kind: ``"rademacher"`` (signs: only what lies off J's diagonal adds variance), ``"orthogonal"`` (directions of a
            random rotation, at right angles within a group, which is then as large as ``probes``: as many as there are
            dimensions are exact) or ``"gaussian"``.
        stderr: Standard error of log p, nats, for which more probes are drawn, or None. Where ``max_products`` do not
            do, a warning says so and the result has the standard error that was reached.
        max_products: Most Jacobian products per sample that ``stderr`` may take.
        mode: See `Trace`.

    Raises:
        ValueError: If a setting is out of its domain.

    Source: Hutchinson 1990; in a flow, Grathwohl et al. 2019 (FFJORD), there with one e for all the path. Allocation:
    Neyman 1934.
    """

    probes: int = 4
    kind: str = "rademacher"
    stderr: float | None = None
    max_products: int = 20_000
    mode: str = "reverse"

    def __post_init__(self) -> None:
        _check_mode(self.mode)
        _check_count("probes", self.probes)
        _check_count("max_products", self.max_products)
        if self.kind not in KINDS:
            raise ValueError(f"no kind is named {self.kind!r}; {nearest(str(self.kind), KINDS)}")
        if self.kind != "orthogonal" and self.probes > 1 and self.probes % 2:
            raise ValueError(f"probes come in pairs, got {self.probes}; give an even number (or 1, without an error).")
        if self.stderr is not None and not 0 < self.stderr < math.inf:
            raise ValueError(f"stderr must be positive and finite, nats, got {self.stderr!r}; or None.")
        if self.stderr is not None and self.probes == 1:
            raise ValueError("a standard error needs two probes per node, got probes=1; use probes=2.")

    def divergence(self, jacobian: Jacobian, noise: Noise) -> Divergence:
        """A group at every node, and more where it helps."""
        found = _Groups(self, jacobian, noise)
        nodes = jacobian.nodes
        found.draw(torch.ones_like(nodes.phi, dtype=torch.int64))
        if found.spare:
            spare = torch.full_like(nodes.phi[:, 0], found.spare * nodes.phi.shape[1])
            found.draw(_share(found.weight(), found.groups, spare))
        for _ in range(_ROUNDS if self.stderr is not None else 0):
            more = found.wanted()
            if not bool(more.any()):
                break
            found.draw(_share(found.weight(), found.groups, more))
        if self.stderr is not None:
            self._tell(found.divergence().spread(nodes.weights)[0])
        return found.divergence()

    def _tell(self, error: Tensor) -> None:
        assert self.stderr is not None
        missed = int((error > self.stderr).sum())
        if missed:
            warnings.warn(
                f"stderr={self.stderr:g} nats was not met for {missed} of {len(error)} samples, the worst has "
                f"{float(error.max()):.3g}; raise max_products={self.max_products}, or ask for less.",
                RuntimeWarning,
                stacklevel=2,
            )


_ROUNDS = 12  # at most fourfold each


class _Groups:
    """Groups of probes drawn so far, and their forms' first two moments at each node."""

    def __init__(self, trace: Hutchinson, jacobian: Jacobian, noise: Noise) -> None:
        self.trace, self.jacobian, self.noise = trace, jacobian, noise
        nodes = jacobian.nodes
        self.dims = nodes.x.shape[2]
        self.size = min(trace.probes, 2)
        if trace.kind == "orthogonal":
            self.size = min(trace.probes, self.dims)
        exact = trace.kind == "orthogonal" and self.size == self.dims
        self.spare = 0 if exact else trace.probes // self.size - 1
        self.groups = torch.zeros_like(nodes.phi, dtype=torch.int64)
        self.total, self.squares = torch.zeros_like(nodes.phi), torch.zeros_like(nodes.phi)

    def draw(self, groups: Tensor) -> None:
        """That many more groups at each node, ``(B, N)``."""
        nodes, size = self.jacobian.nodes, self.size
        places = torch.arange(groups.numel(), device=groups.device).repeat_interleave(groups.reshape(-1))
        if not len(places):
            return
        law = "rademacher" if self.trace.kind == "rademacher" else "normal"
        counts = (groups.sum(1) * size).tolist()
        e = self.noise.ragged(counts, nodes.x[:1, 0].new_empty(self.dims), law).reshape(len(places), size, self.dims)
        if self.trace.kind == "orthogonal":
            e = torch.linalg.qr(e.mT)[0].mT * math.sqrt(self.dims)
        forms = self.jacobian.at(places, e.transpose(0, 1))
        spread = forms.var(0) if size > 1 else torch.full_like(forms[0], math.nan)
        self.groups += groups
        self.total.view(-1).index_add_(0, places, forms.mean(0))
        self.squares.view(-1).index_add_(0, places, spread)

    def _form_variance(self) -> Tensor:
        """Of one form, less what orthogonality takes away, ``(B, N)``."""
        kept = 1.0 - self.size / self.dims if self.trace.kind == "orthogonal" else 1.0
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

    def wanted(self) -> Tensor:
        """Groups that each sample still needs, ``(B,)``: for its standard error, within its products."""
        assert self.trace.stderr is not None
        error = self.divergence().spread(self.jacobian.nodes.weights)[0]
        spent = self.groups.sum(1)
        target = self.weight().sum(1).square() / (self.size * self.trace.stderr**2)
        more = torch.minimum((1.05 * target).ceil() - spent, 3.0 * spent).clamp(min=4.0)
        room = self.trace.max_products // self.size - spent
        return torch.where(error > self.trace.stderr, torch.minimum(more, room.to(more)).clamp(min=0.0), 0.0)


def _share(weight: Tensor, groups: Tensor, more: Tensor) -> Tensor:
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


def default_trace(size: int) -> Trace:
    """`Exact` up to 16 dimensions, else `Hutchinson`."""
    return Exact() if size <= 16 else Hutchinson()


def _check_mode(mode: str) -> None:
    if mode not in ("reverse", "forward"):
        raise ValueError(f"no mode is named {mode!r}; {nearest(str(mode), ('reverse', 'forward'))}")


def _check_count(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}; a trace takes at least one product.")
