r"""Sampling of a few-step student: $X = \cos\Delta\,x - \sin\Delta\,w(x; \phi \to \psi)$, one call per jump.

$\Delta = \phi - \psi$ is the angle of the jump, φ = atan(σ/α). The student takes both ends of the jump.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from scoresde._core.checks import check_integer, check_kind
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Sampler, SamplingContext
from scoresde.sampling.grid import Grid, UniformAngle

__all__ = ["Jumps"]

_CALLS = 4


@dataclass(frozen=True)
class Jumps(Sampler):
    """The jumps of a few-step student (`scoresde.distillation.FlowMap`): as many network calls as jumps.

    Args:
        calls: Number of jumps. None: the number that the student was trained for, or 4 for a student of any jumps.
        grid: The times between jumps, for a student of any jumps; default `UniformAngle`. A student that was trained
            for fixed jumps has its own times.

    Raises:
        ValueError: If ``calls`` is not a positive integer.
        TypeError: If ``grid`` is not a Grid.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, sample
        >>> from scoresde.distillation import FlowMap
        >>> from scoresde.sampling import Jumps
        >>> student = FlowMap.new(Gaussian(torch.ones(2), 0.3))
        >>> sample(student, 4, Jumps(2), seeds=range(4)).nfe
        2
    """

    calls: int | None = None
    grid: Grid = field(default_factory=UniformAngle)

    def __post_init__(self) -> None:
        if self.calls is not None:
            check_integer("calls", self.calls)
        check_kind("grid", self.grid, Grid)

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        taus = self._times(context)
        predict, observe, jumps = context.predict, context.observe, len(taus) - 1
        angles = [ou.angle(tau) for tau in taus]
        for i in range(jumps):
            tau, s, delta = taus[i], taus[i + 1], angles[i] - angles[i + 1]
            x = combine(math.cos(delta), x, -math.sin(delta), predict(x, tau, s).out)  # the output of a student is w
            if observe is not None:
                observe(i + 1, jumps, s, x)
        return x, taus[-1]

    def _times(self, context: SamplingContext) -> list[float]:
        trained = context.jump_times
        if trained is None:
            raise TypeError(
                "Jumps needs a few-step student, which takes the end of a step, got another model, or one that is "
                "wrapped; train one by scoresde.distillation.distill(model, calls=2), or take DDIM() or Adams()."
            )
        if not trained:
            return self.grid.times(context.sde, self.calls or _CALLS, context.start)
        if self.calls not in (None, len(trained) - 1):
            raise ValueError(
                f"calls must be {len(trained) - 1}, for which this student was trained, got {self.calls}; leave it "
                "out, or distill a student of any jumps by calls=None."
            )
        if abs(context.start - trained[0]) > 1e-6 * trained[0]:
            raise ValueError(
                f"this student's first jump begins at tau = {trained[0]:.6g}, got start = {context.start:.6g}; leave "
                "start out, or distill a student of any jumps by calls=None."
            )
        return list(trained)
