r"""Lobatto quadrature: $\int f\,d\phi \approx \sum_i w_i f(\phi_i)$ on a trajectory, $\phi = \phi_0 + \kappa\sinh z$.

The nodes are Gauss–Lobatto–Legendre nodes in z. A large κ spreads them over φ, for smooth distributions. A small κ
spreads them over log φ, for nearly singular distributions. If a trajectory turns sharply between two modes, a $\phi_0$
other than 0 gathers the nodes about that angle.

κ and $\phi_0$ are chosen per sample on the trajectory alone, without a network call. They minimize the product of two
error indicators: the size of the last Legendre coefficients of $s\cdot\dot x$, and the distance between the trajectory
and the polynomial through its nodes. $s\cdot\dot x$ is as smooth as the divergence; averaged over the distribution, the
two are equal up to their sign.
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

__all__ = ["LobattoRule", "QuadratureNodes", "lobatto", "place_nodes", "quadrature_error", "score_at"]

_KAPPAS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
_TURN_KAPPAS = (0.03, 0.1, 0.3)
_TAIL = 8  # number of last Legendre coefficients that indicate the error


class LobattoRule(NamedTuple):
    """A quadrature rule on [-1, 1] with both ends among its nodes, exact for polynomials of degree 2n - 3.

    The matrices act on values at the points, which define the interpolating polynomial.

    Attributes:
        points, weights: ``(n,)`` float64.
        derivative: To the slopes of the polynomial at the points, ``(n, n)``.
        coefficients: To its Legendre coefficients, ``(n, n)``.
        midpoints: The points halfway between neighboring points, ``(n - 1,)``.
        midpoint_values: To the values of the polynomial at the midpoints, ``(n - 1, n)``.
        midpoint_slopes: To its slopes at the midpoints, ``(n - 1, n)``.
    """

    points: Tensor
    weights: Tensor
    derivative: Tensor
    coefficients: Tensor
    midpoints: Tensor
    midpoint_values: Tensor
    midpoint_slopes: Tensor


@lru_cache(maxsize=16)
def lobatto(count: int) -> LobattoRule:
    """The Gauss–Lobatto–Legendre rule with ``count`` >= 2 nodes.

    Source: Abramowitz & Stegun 25.4.32; derivatives by barycentric weights, Berrut & Trefethen 2004, section 9.3.
    """
    polynomial = legendre.Legendre.basis(count - 1)
    x = np.concatenate([[-1.0], np.sort(polynomial.deriv().roots().real), [1.0]])
    gaps = x[:, None] - x[None, :] + np.eye(count)
    log_scale = np.log(np.abs(gaps)).sum(1)
    sign = np.prod(np.sign(gaps), 1)
    derivative = sign[:, None] * sign[None, :] * np.exp(log_scale[:, None] - log_scale[None, :]) / gaps
    np.fill_diagonal(derivative, 0.0)
    np.fill_diagonal(derivative, -derivative.sum(1))
    weights = 2.0 / (count * (count - 1) * polynomial(x) ** 2)
    coefficients = np.linalg.inv(legendre.legvander(x, count - 1))
    midpoints = 0.5 * (x[1:] + x[:-1])
    midpoint_values = legendre.legvander(midpoints, count - 1) @ coefficients
    arrays = (x, weights, derivative, coefficients, midpoints, midpoint_values, midpoint_values @ derivative)
    return LobattoRule(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


@dataclass(frozen=True, eq=False)
class QuadratureNodes:
    r"""Quadrature nodes of a trajectory: $\int f\,d\phi \approx \sum_i w_i f(\phi_i)$, from the data to the prior.

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


def place_nodes(
    trajectory: DenseOutput, ends: tuple[Tensor, Tensor], low: float, high: float, count: int
) -> QuadratureNodes:
    """Chooses the nodes of each sample.

    Args:
        trajectory: Of all samples.
        ends: The states at ``low`` and ``high``, ``(B, d)`` each; both are nodes.
        low, high: Angles, ``low < high``.
        count: Number of nodes.

    Returns:
        See `QuadratureNodes`. The nodes of a sample depend on its own trajectory only.
    """
    rule = LobattoRule(*(part.to(ends[0]) for part in lobatto(count)))
    zero, turn = ends[0].new_zeros(len(ends[0]), 1), trajectory.sharpest_turn()
    maps = [(kappa, zero) for kappa in _KAPPAS] + [(kappa, turn) for kappa in _TURN_KAPPAS]
    best: tuple[QuadratureNodes, Tensor] | None = None
    for kappa, origin in maps:
        candidate = _candidate(trajectory, ends, low, high, kappa, origin, rule)
        best = candidate if best is None else _better(best, candidate)
    assert best is not None
    return best[0]


def _better(
    first: tuple[QuadratureNodes, Tensor], second: tuple[QuadratureNodes, Tensor]
) -> tuple[QuadratureNodes, Tensor]:
    """For each sample, the nodes with the smaller error indicator."""
    (nodes, error), (other_nodes, other_error) = first, second
    replace = other_error < error

    def select(one: Tensor, other: Tensor) -> Tensor:
        return torch.where(replace.reshape(-1, *(1 for _ in one.shape[1:])), other, one)

    selected = QuadratureNodes(
        select(nodes.phi, other_nodes.phi),
        select(nodes.weights, other_nodes.weights),
        select(nodes.x, other_nodes.x),
        select(nodes.slope, other_nodes.slope),
        nodes.rule,
    )
    return selected, select(error, other_error)


def _candidate(
    trajectory: DenseOutput,
    ends: tuple[Tensor, Tensor],
    low: float,
    high: float,
    kappa: float,
    origin: Tensor,
    rule: LobattoRule,
) -> tuple[QuadratureNodes, Tensor]:
    r"""Nodes at $\phi = origin + \kappa\sinh z$, and their error indicator, ``(B,)``."""
    start, stop = torch.asinh((low - origin) / kappa), torch.asinh((high - origin) / kappa)
    half = 0.5 * (stop - start)

    def angle_and_rate(points: Tensor) -> tuple[Tensor, Tensor]:
        z = 0.5 * (start + stop) + half * points
        return (origin + kappa * torch.sinh(z)).clamp(low, high), half * kappa * torch.cosh(z)

    phi, rate = angle_and_rate(rule.points)
    phi[:, 0], phi[:, -1] = low, high
    x = trajectory.at(phi)
    x[:, 0], x[:, -1] = ends
    slope = torch.einsum("ij,bjd->bid", rule.derivative, x) / rate.unsqueeze(2)
    nodes = QuadratureNodes(phi, rate * rule.weights, x, slope, rule)
    return nodes, _legendre_tail(nodes) * _interpolation_error(nodes, trajectory, *angle_and_rate(rule.midpoints))


def _interpolation_error(nodes: QuadratureNodes, trajectory: DenseOutput, phi: Tensor, rate: Tensor) -> Tensor:
    r"""$\int|(\dot x - \dot x_{trajectory})\cdot s|\,d\phi$ by the midpoints between the nodes, nats, ``(B,)``."""
    rule = nodes.rule
    x = torch.einsum("ij,bjd->bid", rule.midpoint_values, nodes.x)
    slope = torch.einsum("ij,bjd->bid", rule.midpoint_slopes, nodes.x) / rate.unsqueeze(2)
    exact_slope = trajectory.slope(phi)
    s = -x - exact_slope / torch.tan(phi).unsqueeze(2)
    return (((slope - exact_slope) * s).sum(2).abs() * rate * rule.points.diff()).sum(1)


def score_at(nodes: QuadratureNodes, v: Tensor) -> Tensor:
    r"""The score $s = -x - v\cot\phi$ at the nodes, ``(B, N, d)``."""
    return -nodes.x - v / torch.tan(nodes.phi).unsqueeze(2)


def _legendre_tail(nodes: QuadratureNodes) -> Tensor:
    r"""Root mean square of the last Legendre coefficients of $s\cdot\dot x$ in z, ``(B,)``."""
    integrand = (score_at(nodes, nodes.slope) * nodes.slope).sum(2) * nodes.weights / nodes.rule.weights
    return (integrand @ nodes.rule.coefficients[-_TAIL:].T).square().mean(1).sqrt()


def quadrature_error(nodes: QuadratureNodes, values: Tensor) -> Tensor:
    r"""Estimated error of the quadrature, nats, ``(B,)``, from the decay of the integrand's Legendre coefficients.

    The last of the n known coefficients measure the integrand's roughness. Roughness that is independent from node to
    node changes the sum by $\sqrt{\sum w_i^2}$ times its size. But Lobatto's rule has errors only from coefficient
    2n - 2 on. From the middle of the known coefficients to the last, they decay by a factor r. They are assumed to
    decay by r once more until coefficient 2n - 2.

    Args:
        nodes: The nodes.
        values: The integrand at the nodes, ``(B, N)``.
    """
    scaled = values * nodes.weights / nodes.rule.weights
    power = (scaled @ nodes.rule.coefficients.T).square()
    count = power.shape[1]
    width = max(1, min(_TAIL, count // 4))
    start = (count - width) // 2
    middle, last = power[:, start : start + width].mean(1), power[:, -width:].mean(1)
    decay = (last / middle.clamp(min=1e-300)).clamp(max=1.0).sqrt()
    return nodes.rule.weights.square().sum().sqrt() * last.sqrt() * decay
