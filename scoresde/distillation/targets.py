r"""Targets of a jump from node i to node j of the teacher's trajectories: what the end of the jump is compared with.

A trajectory holds states $x_0, \dots, x_K$ of the teacher's ODE at falling times. For a jump $X_{ij}(x_i)$, where a bar
is a value without gradient:

| target | end of the jump |
|---|---|
| `Trajectory` | $x_j$ |
| `Eulerian` | $\bar X_{i+h,\,j}(x_{i+h})$ |
| `Semigroup` | $\bar X_{mj}(\bar X_{im}(x_i))$, m halfway |

Where there is no node between, all three are $x_j$.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer

__all__ = ["Eulerian", "Jump", "Semigroup", "Target", "Trajectory", "at_nodes", "where_samples"]

Jump = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``jump(x, i, j)``: the student's end at node j of a jump from ``x`` ``(B, *D)`` at node i; i and j are ``(B,)``."""


class Target(CheckedArguments, ABC):
    """Where a jump should end. Subclasses define `end`, which is called without gradients."""

    inner_nodes: ClassVar[bool] = True
    """Whether jumps are also trained from nodes inside the jumps that are made."""

    @abstractmethod
    def end(self, jump: Jump, states: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """The ends of jumps.

        Args:
            jump: The student's jumps.
            states: The teacher's states at the nodes, ``(B, K + 1, *D)``.
            i, j: Nodes of the jumps, i < j, ``(B,)``.

        Returns:
            ``(B, *D)``.
        """


@dataclass(frozen=True)
class Trajectory(Target):
    """Regression on the teacher's trajectories: the state where the teacher's ODE arrives.

    Source: Luhman & Luhman 2021, for the jump from noise to data.
    """

    inner_nodes: ClassVar[bool] = False

    def end(self, jump: Jump, states: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return at_nodes(states, j)


@dataclass(frozen=True)
class Eulerian(Target):
    """Consistency: the student's own jump from a state further along the teacher's trajectory.

    Args:
        nodes: Number of nodes h by which that state is further along; positive.

    Raises:
        ValueError: If ``nodes`` is not positive.

    Source: Song et al. 2023 (consistency models); Kim et al. 2024 (CTM), for jumps to any time.
    """

    nodes: int = 1

    def __post_init__(self) -> None:
        check_integer("nodes", self.nodes)

    def end(self, jump: Jump, states: Tensor, i: Tensor, j: Tensor) -> Tensor:
        later = torch.minimum(i + self.nodes, j)
        x = at_nodes(states, later)
        return where_samples(later < j, jump(x, later, j), x)


@dataclass(frozen=True)
class Semigroup(Target):
    """Two of the student's own jumps, which one jump is to replace.

    Source: Salimans & Ho 2022 (progressive distillation); Frans et al. 2025 (shortcut models).
    """

    def end(self, jump: Jump, states: Tensor, i: Tensor, j: Tensor) -> Tensor:
        middle = torch.div(i + j, 2, rounding_mode="floor")
        direct = middle == i
        x = jump(at_nodes(states, i), i, torch.where(direct, j, middle))
        return where_samples(direct, at_nodes(states, j), jump(x, torch.where(direct, i, middle), j))


def at_nodes(states: Tensor, nodes: Tensor) -> Tensor:
    """States at one node each, ``(B, *D)``."""
    return states[torch.arange(len(states), device=states.device), nodes]


def where_samples(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """``x`` for the samples of the condition ``(B,)``, ``y`` for the others, ``(B, *D)``."""
    return torch.where(condition.reshape(-1, *(1 for _ in x.shape[1:])), x, y)
