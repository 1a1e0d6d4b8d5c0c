r"""Timesteps that adapt to the loss during training: densities p(u) near $p^* \propto \sqrt{E[L^2 \mid u]}$.

Of all densities p* gives the mean loss the least variance (L: the loss before its correction). On the OU process a
schedule is only a clock, so a learned schedule with fixed ends is such a density. Constant on bins, it is a clock that
is linear between the bins' edges.

The settings here hold no state. A training run holds the state as tensors (`AdaptiveTimesteps.initial_state`) and
updates it (`AdaptiveTimesteps.updated_state`) from the `AdaptiveTimesteps.loss_statistics` of all processes. No call
waits for the device.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import constant, widest_dtype
from scoresde.objective.timesteps.base import DiscreteTimesteps, TimestepDraw, Timesteps, log_snr_bin_edges, stratify
from scoresde.process.base import Process

__all__ = ["AdaptiveTimesteps", "DiscreteLossMomentTimesteps", "LearnedClockTimesteps", "LossMomentTimesteps"]

AdaptiveState = dict[str, Tensor]


class AdaptiveTimesteps(Timesteps):
    """A density that is constant on bins and adapts to the loss. Subclasses are frozen dataclasses.

    Attributes:
        even: Fraction of the draws that keeps the initial density, so that every bin is drawn; corrections are at most
            2/even (1/even on a chain).
    """

    even: float

    @property
    @abstractmethod
    def bin_count(self) -> int:
        """Number of bins: of equal width in log-SNR, or one for each knot of a chain."""

    @abstractmethod
    def initial_state(self, sde: Process, device: torch.device) -> AdaptiveState:
        """The state before the first update."""

    @abstractmethod
    def probabilities(self, state: AdaptiveState, sde: Process) -> Tensor:
        """Probabilities of the bins by the state alone, without the ``even`` fraction, ``(bin_count,)``."""

    @abstractmethod
    def updated_state(self, state: AdaptiveState, statistics: Tensor, sde: Process) -> AdaptiveState:
        """The state after an update, in new tensors.

        Args:
            state: Before the update.
            statistics: Of the update's losses, ``(2, bin_count)``, see `loss_statistics`.
            sde: The process.
        """

    def uniform_probabilities(self, sde: Process, like: Tensor) -> Tensor:
        """Probabilities of the bins under uniform u, ``(bin_count,)``, on the device of ``like``."""
        if self.chain is not None:
            return torch.full(
                (self.bin_count,), 1.0 / self.bin_count, dtype=widest_dtype(like.device), device=like.device
            )
        return constant(log_snr_bin_edges(sde, self.bin_count), like).diff() / (1.0 - sde.u_min)

    def initial_probabilities(self, sde: Process, like: Tensor) -> Tensor:
        """Probabilities before the first update: half uniform in u, half uniform in log-SNR; uniform on a chain."""
        return 0.5 * self.uniform_probabilities(sde, like) + 0.5 / self.bin_count

    def mixed_probabilities(self, state: AdaptiveState, sde: Process) -> Tensor:
        """Probabilities by which bins are drawn, with the ``even`` fraction, ``(bin_count,)``."""
        p = self.probabilities(state, sde)
        return (1.0 - self.even) * p + self.even * self.initial_probabilities(sde, p)

    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        """Stratified timesteps from the initial state, for callers that hold no state."""
        return self.inverse_cdf(stratify(uniforms), sde)

    def inverse_cdf(self, uniforms: Tensor, sde: Process, state: AdaptiveState | None = None) -> TimestepDraw:
        """Timesteps by the inverse distribution function, each from its own number.

        Args:
            uniforms: Numbers in [0, 1), ``(N,)``, which the caller may have stratified.
            sde: The process.
            state: The state whose density is drawn from; default the initial one.
        """
        state = self.initial_state(sde, uniforms.device) if state is None else state
        p = self.mixed_probabilities(state, sde)
        upper = p.cumsum(0)
        i = torch.searchsorted(upper, uniforms, right=True).clamp(max=self.bin_count - 1)
        correction = (self.uniform_probabilities(sde, uniforms) / p)[i]
        if self.chain is not None:
            draw = self.chain.at((i + self.chain.first).to(uniforms.dtype), sde)
            return TimestepDraw(draw.u, draw.s, correction)
        edges = constant(log_snr_bin_edges(sde, self.bin_count), uniforms)
        fraction = ((uniforms - (upper[i] - p[i])) / p[i]).clamp(0.0, 1.0)
        return TimestepDraw(torch.lerp(edges[i], edges[i + 1], fraction).clamp(max=1.0), None, correction)

    def loss_statistics(self, draw: TimestepDraw, loss: Tensor, sde: Process) -> Tensor:
        """Number of losses in each bin, and the sum of their squares before the correction, ``(2, bin_count)``.

        Args:
            draw: By `inverse_cdf`.
            loss: Of each sample, corrected, ``(B,)``.
            sde: The process.
        """
        uncorrected = (loss.detach() / draw.correction).to(draw.u.dtype)
        if self.chain is not None:
            i = (draw.u * self.chain.steps).round().long() - self.chain.first
        else:
            i = torch.searchsorted(constant(log_snr_bin_edges(sde, self.bin_count), draw.u), draw.u, right=True) - 1
        statistics = torch.zeros(2, self.bin_count, dtype=draw.u.dtype, device=draw.u.device)
        values = torch.stack([torch.ones_like(uncorrected), uncorrected.square()])
        return statistics.index_add_(1, i.clamp(0, self.bin_count - 1), values)

    def __post_init__(self) -> None:
        if not 0 < self.even <= 1:
            raise ValueError(f"even must lie in (0, 1], got {self.even!r}; it bounds the corrections.")
        check_integer("bins", self.bin_count)
        check_integer("memory", getattr(self, "memory", 1))


class _LossMoments(AdaptiveTimesteps):
    """p_i ∝ P_i sqrt(E[L² | i]): P_i is the bin's probability under uniform u, L² averaged over its last losses."""

    memory: int

    def initial_state(self, sde: Process, device: torch.device) -> AdaptiveState:
        zeros = torch.zeros(2, self.bin_count, dtype=widest_dtype(device), device=device)
        return {"counts": zeros[0], "squares": zeros[1].clone()}

    def probabilities(self, state: AdaptiveState, sde: Process) -> Tensor:
        """As above; the initial ones until every bin has ``memory`` losses."""
        counts, squares = state["counts"], state["squares"]
        p = self.uniform_probabilities(sde, counts) * squares.sqrt()
        total = p.sum()
        known = (counts >= self.memory).all() & (total > 0)
        return torch.where(known, p / torch.where(known, total, 1.0), self.initial_probabilities(sde, counts))

    def updated_state(self, state: AdaptiveState, statistics: Tensor, sde: Process) -> AdaptiveState:
        """A running mean of L² in which the past weighs as at most ``memory`` losses."""
        counts, sums = statistics
        past = state["counts"].clamp(max=self.memory)
        squares = (past * state["squares"] + sums) / (past + counts).clamp(min=1.0)
        return {"counts": state["counts"] + counts, "squares": torch.where(counts > 0, squares, state["squares"])}


@dataclass(frozen=True)
class LossMomentTimesteps(_LossMoments):
    r"""Continuous timesteps with $p \propto \sqrt{E[L^2]}$ from the last losses: adaptive importance sampling.

    Args:
        bins: Number of bins, of equal width in log-SNR.
        memory: Losses of each bin that its mean square averages. The initial density is used until every bin has as
            many.
        even: See `AdaptiveTimesteps`.
    """

    bins: int = 64
    memory: int = 100
    even: float = 0.1

    @property
    def bin_count(self) -> int:
        return self.bins


@dataclass(frozen=True)
class DiscreteLossMomentTimesteps(_LossMoments):
    """Loss-second-moment sampling of the chain's knots; the past decays instead of ending after ``memory`` losses.

    Args:
        knots: The chain; each knot is a bin.
        memory, even: See `LossMomentTimesteps`.

    Source: Nichol & Dhariwal 2021, eq. 18.
    """

    knots: DiscreteTimesteps = DiscreteTimesteps()
    memory: int = 10
    even: float = 0.001

    def __post_init__(self) -> None:
        check_kind("knots", self.knots, DiscreteTimesteps)
        super().__post_init__()

    @property
    def chain(self) -> DiscreteTimesteps | None:
        return self.knots

    @property
    def bin_count(self) -> int:
        return self.knots.count


@dataclass(frozen=True)
class LearnedClockTimesteps(AdaptiveTimesteps):
    r"""A monotone clock, trained to reduce the variance of the loss; the loss's expectation does not change.

    The clock's slope on bin i is $e^{\theta_i}$ up to a factor, between fixed ends. With $P_i$ the probability of bin i
    under uniform u, its objective is $J = E[(cL)^2] = \sum_i P_i^2\,E[L^2 \mid i]/p_i$. Each update is a step of the
    natural gradient on the simplex, $\theta_i \leftarrow \theta_i + rate\,(c_i^2\,\hat E[L^2 \mid i]/\hat J - 1)$,
    estimated from the batch. The bracket is at most 5, so that one large loss does not dominate the clock.

    Args:
        bins: Number of bins, of equal width in log-SNR.
        rate: Step size.
        memory: Updates that the estimate of J averages.
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
    def bin_count(self) -> int:
        return self.bins

    def initial_state(self, sde: Process, device: torch.device) -> AdaptiveState:
        zero = torch.zeros((), dtype=widest_dtype(device), device=device)
        return {"logits": self.initial_probabilities(sde, zero).log(), "objective": zero, "updates": zero.clone()}

    def probabilities(self, state: AdaptiveState, sde: Process) -> Tensor:
        return torch.softmax(state["logits"], 0)

    def updated_state(self, state: AdaptiveState, statistics: Tensor, sde: Process) -> AdaptiveState:
        p = self.mixed_probabilities(state, sde)
        counts, sums = statistics
        correction = self.uniform_probabilities(sde, p) / p
        squares = correction.square() * sums / counts.sum().clamp(min=1.0)  # of the corrected loss, by bin
        past = state["updates"].clamp(max=self.memory - 1.0)
        objective = (past * state["objective"] + squares.sum()) / (past + 1.0)
        ratio = squares / p / torch.where(objective > 0, objective, 1.0)
        logits = state["logits"] + self.rate * (ratio - 1.0).clamp(max=5.0)
        return {"logits": logits - logits.logsumexp(0), "objective": objective, "updates": state["updates"] + 1.0}
