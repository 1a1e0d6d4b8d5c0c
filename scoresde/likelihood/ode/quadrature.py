r"""Where along a path is an integrand looked at? At Lobatto's nodes in z, $\phi = \kappa\sinh z$, κ chosen per sample.

A large κ spreads the nodes over φ, for smooth laws; a small one over log φ, for laws that are nearly singular. Where a
path turns sharply between two modes, $\phi_0 + \kappa\sinh z$ gathers them about that angle. Which of these suits is
seen without a network call, on the path itself: in how fast the Legendre coefficients of $s\cdot\dot x$ fall, which has
the smoothness of the divergence (and, over the law, its mean but for the sign), and in how far the polynomial through
the nodes leaves the path between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import legendre
from torch import Tensor

from scoresde.likelihood.ode.dense_output import DenseOutput
from scoresde.process import ou

__all__ = ["QuadratureNodes", "LobattoRule", "lobatto", "place_nodes", "remainder", "score_at"]

_KAPPAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
_NARROW = (0.03, 0.1, 0.3)
_TAIL = 8  # Legendre coefficients that are looked at


class LobattoRule(NamedTuple):
    """A quadrature on [-1, 1] that has both ends among its nodes, exact for polynomials of degree 2n - 3.

    Attributes:
        points, weights: ``(n,)`` float64.
        derivative: Values at the points to those of the interpolating polynomial's slope, ``(n, n)``.
        coefficients: Values at the points to Legendre coefficients, ``(n, n)``.
        middles: Points halfway between, ``(n - 1,)``.
        between: Values at the points to those of the polynomial at the middles, ``(n - 1, n)``.
        between_slope: Values at the points to its slopes there, ``(n - 1, n)``.
    """

    points: Tensor
    weights: Tensor
    derivative: Tensor
    coefficients: Tensor
    middles: Tensor
    between: Tensor
    between_slope: Tensor


@lru_cache(maxsize=16)
def lobatto(count: int) -> LobattoRule:
    """The Gauss–Lobatto–Legendre rule with ``count`` >= 2 nodes.

    Source: Abramowitz & Stegun 25.4.32; derivatives by barycentric weights, Berrut & Trefethen 2004, section 9.3.
    """
    top = legendre.Legendre.basis(count - 1)
    x = np.concatenate([[-1.0], np.sort(top.deriv().roots().real), [1.0]])
    gaps = x[:, None] - x[None, :] + np.eye(count)
    scale = np.log(np.abs(gaps)).sum(1)
    sign = np.prod(np.sign(gaps), 1)
    slopes = sign[:, None] * sign[None, :] * np.exp(scale[:, None] - scale[None, :]) / gaps
    np.fill_diagonal(slopes, 0.0)
    np.fill_diagonal(slopes, -slopes.sum(1))
    weights = 2.0 / (count * (count - 1) * top(x) ** 2)
    coefficients = np.linalg.inv(legendre.legvander(x, count - 1))
    middles = 0.5 * (x[1:] + x[:-1])
    between = legendre.legvander(middles, count - 1) @ coefficients
    parts = (x, weights, slopes, coefficients, middles, between, between @ slopes)
    return LobattoRule(*(torch.from_numpy(np.ascontiguousarray(part)) for part in parts))


@dataclass(frozen=True, eq=False)
class QuadratureNodes:
    r"""A path at its nodes; $\int f\,d\phi \approx \sum_i w_i f(\phi_i)$, always from the data's end to the prior's.

    Attributes:
        phi: Angles, ``(B, N)``, increasing.
        weights: Nats per unit of the integrand, ``(B, N)``.
        x: States, ``(B, N, d)``.
        slope: dx/dφ of the polynomial through the states, ``(B, N, d)``.
        rule: The rule on [-1, 1].
    """

    phi: Tensor
    weights: Tensor
    x: Tensor
    slope: Tensor
    rule: LobattoRule

    @property
    def tau(self) -> Tensor:
        """OU times, ``(B, N)``."""
        return torch.as_tensor(ou.tau_from_angle(self.phi))


def place_nodes(path: DenseOutput, ends: tuple[Tensor, Tensor], low: float, high: float, count: int) -> QuadratureNodes:
    """Chooses the nodes of each sample.

    Args:
        path: Where the samples were.
        ends: The states at ``low`` and ``high``, ``(B, d)`` each: they are nodes themselves.
        low, high: Angles, ``low < high``.
        count: Number of nodes.

    Returns:
        See `Nodes`. For given ends it depends on the sample's own path only.
    """
    rule = LobattoRule(*(part.to(ends[0]) for part in lobatto(count)))
    zero, turn = ends[0].new_zeros(len(ends[0]), 1), path.turn()
    maps = [(kappa, zero) for kappa in _KAPPAS] + [(kappa, turn) for kappa in _NARROW]
    best: tuple[QuadratureNodes, Tensor] | None = None
    for kappa, origin in maps:
        nodes, doubt = _nodes(path, ends, low, high, kappa, origin, rule)
        best = (nodes, doubt) if best is None else _better(*best, nodes, doubt)
    assert best is not None
    return best[0]


def _better(
    first: QuadratureNodes, least: Tensor, second: QuadratureNodes, doubt: Tensor
) -> tuple[QuadratureNodes, Tensor]:
    """Of each sample the nodes that are doubted less."""
    better = doubt < least

    def of(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(better.reshape(-1, *(1 for _ in one.shape[1:])), one, other)

    chosen = QuadratureNodes(
        of(second.phi, first.phi),
        of(second.weights, first.weights),
        of(second.x, first.x),
        of(second.slope, first.slope),
        first.rule,
    )
    return chosen, of(doubt, least)


def _nodes(
    path: DenseOutput,
    ends: tuple[Tensor, Tensor],
    low: float,
    high: float,
    kappa: float,
    origin: Tensor,
    rule: LobattoRule,
) -> tuple[QuadratureNodes, Tensor]:
    r"""$\phi = origin + \kappa\sinh z$, and how much the nodes there are doubted, ``(B,)``."""
    start, stop = torch.asinh((low - origin) / kappa), torch.asinh((high - origin) / kappa)
    half = 0.5 * (stop - start)

    def angle(points: Tensor) -> tuple[Tensor, Tensor]:
        z = 0.5 * (start + stop) + half * points
        return (origin + kappa * torch.sinh(z)).clamp(low, high), half * kappa * torch.cosh(z)

    phi, rate = angle(rule.points)
    phi[:, 0], phi[:, -1] = low, high
    x = path.at(phi)
    x[:, 0], x[:, -1] = ends
    nodes = QuadratureNodes(
        phi, rate * rule.weights, x, torch.einsum("ij,bjd->bid", rule.derivative, x) / rate.unsqueeze(2), rule
    )
    return nodes, _tail(nodes) * _astray(nodes, path, *angle(rule.middles))


def _astray(nodes: QuadratureNodes, path: DenseOutput, phi: Tensor, rate: Tensor) -> Tensor:
    r"""$\int|(\dot x - \dot x_{path})\cdot s|\,d\phi$ by the middles between the nodes, nats, ``(B,)``."""
    rule = nodes.rule
    x = torch.einsum("ij,bjd->bid", rule.between, nodes.x)
    slope = torch.einsum("ij,bjd->bid", rule.between_slope, nodes.x) / rate.unsqueeze(2)
    followed = path.slope(phi)
    s = -x - followed / torch.tan(phi).unsqueeze(2)
    return (((slope - followed) * s).sum(2).abs() * rate * rule.points.diff()).sum(1)


def score_at(nodes: QuadratureNodes, v: Tensor) -> Tensor:
    r"""$s = -x - v\cot\phi$ at the nodes, ``(B, N, d)``."""
    return -nodes.x - v / torch.tan(nodes.phi).unsqueeze(2)


def _tail(nodes: QuadratureNodes) -> Tensor:
    r"""Size of the last Legendre coefficients of $s\cdot\dot x$ in z, ``(B,)``."""
    values = (score_at(nodes, nodes.slope) * nodes.slope).sum(2) * nodes.weights / nodes.rule.weights
    return (values @ nodes.rule.coefficients[-_TAIL:].T).square().mean(1).sqrt()


def remainder(nodes: QuadratureNodes, values: Tensor) -> Tensor:
    r"""An estimate of the quadrature's error, nats, ``(B,)``, from how the integrand's Legendre coefficients fall.

    What the last of n known coefficients see is taken for roughness, independent from node to node; it would move the
    sum by $\sqrt{\sum w_i^2}$ times its size. But Lobatto's rule errs only by the coefficients from 2n - 2 on: from
    the middle of those known to the last they fall by a factor r, and so at least once more until there.

    Args:
        nodes: The nodes.
        values: The integrand at them, ``(B, N)``.
    """
    scaled = values * nodes.weights / nodes.rule.weights
    power = (scaled @ nodes.rule.coefficients.T).square()
    count = power.shape[1]
    width = max(1, min(_TAIL, count // 4))
    start = (count - width) // 2
    middle, last = power[:, start : start + width].mean(1), power[:, -width:].mean(1)
    ratio = (last / middle.clamp(min=1e-300)).clamp(max=1.0).sqrt()
    return nodes.rule.weights.square().sum().sqrt() * last.sqrt() * ratio
