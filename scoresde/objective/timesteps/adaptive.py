r"""How do times follow the loss? u is drawn most where the loss is largest; its correction keeps the expectation.

Of all densities p of u the one $\propto \sqrt{E[L^2 \mid u]}$ gives the mean loss the least variance (L: the loss
before its correction). On the OU process a schedule is only a clock, so a learned schedule with fixed end points is
such a density: constant on cells, it is a monotone clock that is linear between them.

What is learned is no part of these settings: a run holds it as tensors (`Learned.fresh`), moves it after each update by
what all processes saw (`Learned.observed`, `Learned.moved`) and saves it. Nothing waits for the device.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.tensors import constant, widest_dtype
from scoresde.objective.timesteps.base import DiscreteTimesteps, TimestepDraw, Timesteps, edges, spread
from scoresde.process.sde import SDE

__all__ = ["DiscreteLossMomentTimesteps", "AdaptiveTimesteps", "LearnedClockTimesteps", "LossMomentTimesteps"]

AdaptiveState = dict[str, Tensor]


class AdaptiveTimesteps(Timesteps):
    """A density that is constant on cells and follows the loss. Subclasses are frozen dataclasses.

    Attributes:
        even: Share of the draws that goes on as at the beginning, so that no cell is starved; corrections are at most
            2/even (1/even on knots).
    """

    even: float

    @property
    @abstractmethod
    def cells(self) -> int:
        """Number of cells: of equal width in log-SNR, or one for each knot."""

    @abstractmethod
    def fresh(self, sde: SDE, device: torch.device) -> AdaptiveState:
        """What is known before the first update."""

    @abstractmethod
    def probabilities(self, state: AdaptiveState, sde: SDE) -> Tensor:
        """Of the cells, without the even share, ``(cells,)``."""

    @abstractmethod
    def moved(self, state: AdaptiveState, seen: Tensor, sde: SDE) -> AdaptiveState:
        """What is known after an update that saw ``seen`` (see `observed`); new tensors."""

    def shares(self, sde: SDE, like: Tensor) -> Tensor:
        """Of the cells under uniform u, ``(cells,)``."""
        if self.chain is not None:
            return torch.full(
                (self.chain.count,), 1.0 / self.chain.count, dtype=widest_dtype(like.device), device=like.device
            )
        ends = constant(edges(sde, self.cells), like)
        return ends.diff() / (1.0 - sde.u_min)

    def start(self, sde: SDE, like: Tensor) -> Tensor:
        """Probabilities at the beginning: half as uniform u, half evenly over log-SNR (on knots: uniform)."""
        return 0.5 * self.shares(sde, like) + 0.5 / self.cells

    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """As at the beginning, evenly spread over the batch: where nobody holds what is learned."""
        return self.place(spread(base), sde)

    def place(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """The same at the numbers themselves."""
        return self.drawn(base, sde, self.fresh(sde, base.device))

    def drawn(self, base: Tensor, sde: SDE, state: AdaptiveState) -> TimestepDraw:
        """Times by what was learned.

        Args:
            base: Numbers uniform on [0, 1), ``(B,)``; who calls has spread them.
            sde: The process.
            state: See `fresh` and `moved`.
        """
        share = self.shares(sde, base)
        p = self.mixed(state, sde)
        upper = p.cumsum(0)
        cell = torch.searchsorted(upper, base, right=True).clamp(max=self.cells - 1)
        correction = (share / p)[cell]
        if self.chain is not None:
            at = self.chain.at((cell + self.chain.first).to(base.dtype), sde)
            return TimestepDraw(at.u, at.s, correction)
        ends = constant(edges(sde, self.cells), base)
        inside = ((base - (upper[cell] - p[cell])) / p[cell]).clamp(0.0, 1.0)
        return TimestepDraw(torch.lerp(ends[cell], ends[cell + 1], inside).clamp(max=1.0), None, correction)

    def mixed(self, state: AdaptiveState, sde: SDE) -> Tensor:
        """Probabilities of the cells that are drawn by, ``(cells,)``."""
        p = self.probabilities(state, sde)
        return (1.0 - self.even) * p + self.even * self.start(sde, p)

    def observed(self, draw: TimestepDraw, loss: Tensor, sde: SDE) -> Tensor:
        """How many losses fell into each cell, and the sum of their squares before the correction, ``(2, cells)``.

        Args:
            draw: By `drawn`.
            loss: What it led to, corrected, ``(B,)``.
            sde: The process.
        """
        plain = (loss.detach() / draw.correction).to(draw.u.dtype)
        if self.chain is not None:
            cell = (draw.u * self.chain.steps).round().long() - self.chain.first
        else:
            ends = constant(edges(sde, self.cells), draw.u)
            cell = torch.searchsorted(ends, draw.u, right=True) - 1
        cell = cell.clamp(0, self.cells - 1)
        out = torch.zeros(2, self.cells, dtype=draw.u.dtype, device=draw.u.device)
        return out.index_add_(1, cell, torch.stack([torch.ones_like(plain), plain.square()]))

    def __post_init__(self) -> None:
        if not 0 < self.even <= 1:
            raise ValueError(f"even must lie in (0, 1], got {self.even!r}; it bounds the corrections.")
        for name in ("bins", "memory"):
            value = getattr(self, name, 1)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")


class _ByMoments(AdaptiveTimesteps):
    """A cell's probability is its share times the root of the mean square of its last losses."""

    memory: int

    def fresh(self, sde: SDE, device: torch.device) -> AdaptiveState:
        """No loss was seen in any cell."""
        zeros = torch.zeros(2, self.cells, dtype=widest_dtype(device), device=device)
        return {"seen": zeros[0], "squares": zeros[1].clone()}

    def probabilities(self, state: AdaptiveState, sde: SDE) -> Tensor:
        """As at the beginning until each cell has seen ``memory`` losses."""
        seen, squares = state["seen"], state["squares"]
        p = self.shares(sde, seen) * squares.sqrt()
        total = p.sum()
        known = (seen >= self.memory).all() & (total > 0)
        return torch.where(known, p / torch.where(known, total, 1.0), self.start(sde, seen))

    def moved(self, state: AdaptiveState, seen: Tensor, sde: SDE) -> AdaptiveState:
        """A running mean in which the past weighs as at most ``memory`` losses."""
        before = state["seen"].clamp(max=self.memory)
        squares = (before * state["squares"] + seen[1]) / (before + seen[0]).clamp(min=1.0)
        return {"seen": state["seen"] + seen[0], "squares": torch.where(seen[0] > 0, squares, state["squares"])}


@dataclass(frozen=True)
class LossMomentTimesteps(_ByMoments):
    r"""Continuous times, $p \propto \sqrt{E[L^2]}$ from the last losses: importance sampling that adapts.

    Args:
        bins: Cells of equal width in log-SNR.
        memory: Losses of each cell that its mean square looks back on; all cells are drawn as at the beginning until
            each has seen so many.
        even: See `AdaptiveTimesteps`.
    """

    bins: int = 64
    memory: int = 100
    even: float = 0.1

    @property
    def cells(self) -> int:
        """``bins``."""
        return self.bins


@dataclass(frozen=True)
class DiscreteLossMomentTimesteps(_ByMoments):
    """Loss-second-moment sampling of the chain's steps. The past fades out instead of ending after ``memory`` losses.

    Args:
        knots: The chain.
        memory, even: See `Moments`.

    Source: Nichol & Dhariwal 2021, eq. 18.
    """

    knots: DiscreteTimesteps = DiscreteTimesteps()
    memory: int = 10
    even: float = 0.001

    def __post_init__(self) -> None:
        check_kind("knots", self.knots, DiscreteTimesteps)
        super().__post_init__()

    @property
    def chain(self) -> DiscreteTimesteps:
        """The knots."""
        return self.knots

    @property
    def cells(self) -> int:
        """One for each knot."""
        return self.knots.count


@dataclass(frozen=True)
class LearnedClockTimesteps(AdaptiveTimesteps):
    r"""A monotone clock that is trained to reduce the variance of the loss, which it leaves unchanged in expectation.

    The clock's slope on cell i is $e^{\theta_i}$ up to a factor, between fixed ends. Its objective is
    $J = E[(cL)^2] = \sum_i share_i^2\,E[L^2 \mid i]/p_i$; each update goes down the natural gradient on the simplex,
    $\theta_i \leftarrow \theta_i + rate\,(c_i^2\,\hat E[L^2 \mid i]/\hat J - 1)$, estimated from the batch; the bracket
    is cut at 5, so that a single odd loss does not throw the clock.

    Args:
        bins: Cells of equal width in log-SNR.
        rate: Step size.
        memory: Updates that the estimate of J looks back on.
        even: See `AdaptiveTimesteps`.

    Source: Kingma et al. 2021 (Variational diffusion models), appendix I.2; there by backpropagation into a network.
    """

    bins: int = 32
    rate: float = 0.02
    memory: int = 100
    even: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate!r}; 0.02 is the default.")

    @property
    def cells(self) -> int:
        """``bins``."""
        return self.bins

    def fresh(self, sde: SDE, device: torch.device) -> AdaptiveState:
        """The clock of the beginning."""
        like = torch.zeros((), dtype=widest_dtype(device), device=device)
        return {"logits": self.start(sde, like).log(), "objective": like, "updates": like.clone()}

    def probabilities(self, state: AdaptiveState, sde: SDE) -> Tensor:
        """softmax of the logits."""
        return torch.softmax(state["logits"], 0)

    def moved(self, state: AdaptiveState, seen: Tensor, sde: SDE) -> AdaptiveState:
        """One step down the objective's gradient."""
        p = self.mixed(state, sde)
        count = seen[0].sum().clamp(min=1.0)
        squares = (self.shares(sde, p) / p).square() * seen[1] / count  # of the corrected loss, by cell
        before = state["updates"].clamp(max=self.memory - 1.0)
        objective = (before * state["objective"] + squares.sum()) / (before + 1.0)
        ratio = squares / p / torch.where(objective > 0, objective, 1.0)
        logits = state["logits"] + self.rate * (ratio - 1.0).clamp(max=5.0)
        return {"logits": logits - logits.logsumexp(0), "objective": objective, "updates": state["updates"] + 1.0}
