r"""Samplers of processes of categories: steps between states whose entries are codes.

All entries of a step move independently, with the probabilities that the model gives for the state before the step.
That is the only error of a step with an exact model, so the distribution of the last state has the `order` that each
states.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.process.base import Process
from scoresde.process.codes import draw_codes
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.sampling.base import Predict, Sampler, SamplingContext
from scoresde.sampling.grid import Chain, Grid

__all__ = ["Ancestral", "CodeNoise", "DiscreteSampler", "predicted"]


@dataclass(frozen=True)
class DiscreteSampler(Sampler):
    """A method of fixed steps for categories: `step`, applied along a grid of times.

    Args:
        steps: Number of steps.
        grid: The times of the steps.

    Raises:
        TypeError: If ``grid`` is not a Grid.
        ValueError: If ``steps`` is not a positive integer.
    """

    process_kind: ClassVar[type[Process]] = DiscreteProcess

    steps: int = 1000
    grid: Grid = field(default_factory=Chain)

    order: ClassVar[int] = 1
    """Order of the error of the last state's distribution in the step size, with an exact model."""

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        check_kind("grid", self.grid, Grid)

    @abstractmethod
    def step(self, predict: Predict, x: Tensor, tau: float, s: float, noise: CodeNoise) -> Tensor:
        """One reverse step from ``tau`` to ``s``.

        Args:
            predict: ``predict(x, tau)``, one network call.
            x: Codes at ``tau``, ``(B, *D)``.
            tau, s: OU times with ``0 <= s < tau``.
            noise: Draws codes.

        Returns:
            Codes at ``s``, ``(B, *D)``.
        """

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Applies `step` along the grid; see `Sampler.run`."""
        taus, noise = self.grid.times(context.sde, self.steps, context.start), CodeNoise(context.noise)
        for i in range(self.steps):
            x = self.step(context.predict, x, taus[i], taus[i + 1], noise)
            if context.observe is not None:
                context.observe(i + 1, self.steps, taus[i + 1], noise.marked(x))
        return noise.marked(x), taus[-1]


class CodeNoise:
    """Draws codes and uniform numbers from a source of randomness, and remembers where probabilities were NaN.

    A code drawn from NaN is a valid one, so that no device waits for a check in the loop; `marked` tells them apart.

    Args:
        noise: The source.
    """

    def __init__(self, noise: Noise) -> None:
        self._noise = noise
        self._mark: Tensor | None = None

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1), shape of ``like``, of the widest type of the device."""
        return self._noise.uniform(torch.empty_like(like, dtype=widest_dtype(like.device)))

    def codes(self, probs: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Codes with the probabilities ``(B, *D, S)`` up to a factor, ``(B, *D)`` in their type.

        Args:
            probs: Probabilities by state.
            uniform: Numbers in [0, 1) that were drawn before, ``(B, *D)``; None draws them.
        """
        first = probs[..., 0]
        total = first.sum()  # NaN if any is: a NaN in the output of a network makes all states of an entry NaN
        self._mark = total if self._mark is None else self._mark.add_(total)
        return draw_codes(probs, self.uniform(first) if uniform is None else uniform)

    def marked(self, x: Tensor) -> Tensor:
        """The state, or NaN in every entry if any code was drawn from NaN."""
        return x if self._mark is None else x + self._mark * 0.0


@dataclass(frozen=True)
class Ancestral(DiscreteSampler):
    r"""The chain: each entry is drawn from $p(x_s \mid x_\tau) = \sum_c p(x_0 = c \mid x_\tau)\,q(x_s \mid x_\tau, c)$.

    Args:
        steps: Any number of steps; the chain's own length K gives the chain as trained.
        grid: Default `Chain`, which ends at 0, where the last step draws $x_0$.

    Example:
        >>> import torch
        >>> from scoresde import sample
        >>> from scoresde.analytic import DiscreteTable
        >>> from scoresde.sampling import Ancestral
        >>> table = DiscreteTable(torch.tensor([[0, 0, 1], [1, 2, 0]]))
        >>> samples = sample(table, 4, Ancestral(steps=20), seeds=range(4))
        >>> samples.x.shape, samples.nfe
        (torch.Size([4, 3]), 20)

    Source: Sohl-Dickstein et al. 2015; Austin et al. 2021 (D3PM), eq. 4; the same step as SEDD's Tweedie τ-leaping.
    """

    def step(self, predict: Predict, x: Tensor, tau: float, s: float, noise: CodeNoise) -> Tensor:
        return noise.codes(predict(x, tau).step_weights(s)).to(x.dtype)


def predicted(predict: Predict, x: Tensor, tau: Scalar) -> DiscretePrediction:
    """One network call, which gives the probabilities of a process of categories."""
    prediction = predict(x, tau)
    assert isinstance(prediction, DiscretePrediction)  # the process of the model is checked before
    return prediction
