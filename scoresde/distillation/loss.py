r"""The loss of a few-step student: the error of the average velocity w, over jumps along the teacher's trajectories.

The error of the jump's end X is $\sin\Delta$ times the error of w. So the error
$\|e\|^2 = \|X - target\|^2/\max(\sin^2\Delta, floor^2)$ is that of w, except over very short jumps, whose errors hardly
matter. Without this weight short jumps would starve. On the diagonal it is $\|w - v\|^2$, with the teacher's v. The
loss is $2c(\sqrt{\|e\|^2 + c^2} - c)$ (pseudo-Huber): the square of small errors, and proportional to large ones.
So the few noises at the border between two modes do not determine the gradient.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer, check_kind, check_positive
from scoresde._core.tensors import combine, expand, widest_dtype
from scoresde.distillation.targets import Target, Trajectory, at_nodes, where_samples
from scoresde.model import ScoreModel
from scoresde.process import ou

__all__ = ["JumpLoss"]

_DIAGONAL_SHARE, _END_SHARE = 4, 4  # one jump in so many is on the diagonal; begins, or ends, at an end of the grid


@dataclass(frozen=True)
class JumpLoss(CheckedArguments):
    r"""The loss of each sample of a batch of the teacher's trajectories.

    Args:
        taus: OU times of the nodes of the trajectories, falling.
        every: Nodes from one jump that is made to the next. None: jumps between any two nodes are trained, and the
            diagonal, for which the trajectories also hold the teacher's velocities.
        target: Where jumps should end.
        floor: Smallest $\sin\Delta$ by which the error of the end is divided.
        robust: c for one element; for d elements it is $\sqrt d$ times as large. Infinity gives the squared error.

    Raises:
        ValueError: If the nodes are fewer than two, or ``every`` does not divide their number of intervals.
    """

    taus: tuple[float, ...]
    every: int | None = None
    target: Target = field(default_factory=Trajectory)
    floor: float = 0.05
    robust: float = 0.03

    def __post_init__(self) -> None:
        check_kind("target", self.target, Target)
        check_positive(floor=self.floor)
        if not self.robust > 0:
            raise ValueError(f"robust must be positive, got {self.robust!r}; 0.03 is usual, inf the squared error.")
        if len(self.taus) < 2 or any(tau <= s for tau, s in zip(self.taus, self.taus[1:])):
            raise ValueError(f"taus must be two falling times or more, got {self.taus!r}.")
        if self.every is not None:
            check_integer("every", self.every)
            if (len(self.taus) - 1) % self.every:
                raise ValueError(f"every must divide the {len(self.taus) - 1} intervals of taus, got {self.every}.")

    def __call__(self, model: ScoreModel, trajectories: Tensor, **cond: Tensor) -> Tensor:
        """The loss of each sample.

        Args:
            model: A model of an `AverageVelocity`, as `FlowMap` has one.
            trajectories: States at the nodes, ``(B, K + 1, *D)``; for ``every=None`` joined by the velocities there,
                ``(B, 2 (K + 1), *D)``.
            **cond: Passed to the network.

        Returns:
            ``(B,)``, summed over the event.
        """
        nodes = len(self.taus)
        states = trajectories[:, :nodes]
        jumps = _Jumps(model, self.taus, states, cond)
        i, j = self._pairs(len(states), states.device)
        x = at_nodes(states, i)
        velocity, cos, sin = jumps.velocity(x, i, j)
        with torch.no_grad():
            end = self.target.end(jumps, states, i, torch.where(i == j, (j + 1).clamp(max=nodes - 1), j))
        error = combine(cos, x, -sin, velocity) - end
        scale = 1.0 / sin.clamp(min=self.floor)
        if self.every is None:
            error = where_samples(i == j, velocity - at_nodes(trajectories[:, nodes:], i), error)
            scale = torch.where(i == j, 1.0, scale)
        error = (expand(scale, error) * error).reshape(len(x), -1)
        square = error.square().sum(1, dtype=widest_dtype(x.device))
        if self.robust == math.inf:
            return square
        c = self.robust * error.shape[1] ** 0.5
        return (
            2.0 * square / ((square / (c * c) + 1.0).sqrt() + 1.0)
        )  # 2 c (sqrt(square + c²) - c), without cancellation

    def _pairs(self, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Nodes i and j of a batch of jumps, from the global random state."""
        last, rows = len(self.taus) - 1, torch.arange(size, device=device)
        if self.every is None:
            i = torch.where(_one_in(_END_SHARE, rows), 0, torch.randint(last, (size,), device=device))
            j = i + 1 + (torch.rand(size, device=device) * (last - i)).long().clamp(max=last - 1)
            j = torch.where(_one_in(_END_SHARE, rows), last, j.clamp(max=last))
            return i, torch.where(_one_in(_DIAGONAL_SHARE, rows), i, j)
        count = last // self.every
        jump = (rows + torch.randint(count, (), device=device)) % count  # equally many of each
        i = jump * self.every
        if self.target.inner_nodes:
            i = i + torch.randint(self.every, (size,), device=device)
        return i, (jump + 1) * self.every


class _Jumps:
    """The student's jumps between nodes, ``jump(x, i, j)``."""

    def __init__(self, model: ScoreModel, taus: tuple[float, ...], like: Tensor, cond: dict[str, Tensor]) -> None:
        dtype = widest_dtype(like.device)
        self._model, self._cond = model, cond
        self._taus = torch.tensor(taus, dtype=dtype, device="cpu").to(like.device)
        self._angles = torch.tensor([ou.angle(tau) for tau in taus], dtype=dtype).to(like.device)

    def velocity(self, x: Tensor, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Average velocity, and cosine and sine of the angle of the jumps, ``(B,)``."""
        delta = self._angles[i] - self._angles[j]
        prediction = self._model.predict(x, self._taus[i], delta=delta.to(torch.float32), **self._cond)
        return prediction.v, delta.cos(), delta.sin()

    def __call__(self, x: Tensor, i: Tensor, j: Tensor) -> Tensor:
        velocity, cos, sin = self.velocity(x, i, j)
        return combine(cos, x, -sin, velocity)


def _one_in(n: int, rows: Tensor) -> Tensor:
    """True for one row in ``n``, at random."""
    return torch.randint(n, rows.shape, device=rows.device) == 0
