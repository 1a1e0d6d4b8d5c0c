r"""Solvers of the probability-flow ODE $dx/d\phi = v(x, \phi)$: their interface, their result and their errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.ode.dense_output import DenseOutput
from scoresde.process import ou

__all__ = ["NotFinite", "Solution", "Solver", "Status", "VelocityFunction"]

VelocityFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(rows, phi, x)`` to v, ``(R, d)``: samples ``rows``, ``(R,)``, at angles ``(R,)`` and states ``(R, d)``.

An attribute ``cost`` states its network evaluations per call; without one it is 1.
"""


class Status(IntEnum):
    """Outcome of one sample's solve: arrived, stopped at ``max_nfe``, or stopped because its step became too small."""

    ARRIVED = 0
    MAX_NFE = 1
    UNDERFLOW = 2


class Solution(NamedTuple):
    """Solved trajectories.

    Attributes:
        trajectory: Dense output of all samples.
        end: The last states, ``(B, d)``.
        phi: The angles of the last states, ``(B,)``.
        nfe: Network evaluations of each sample, ``(B,)`` int64.
        status: A `Status` each, ``(B,)`` int64.
    """

    trajectory: DenseOutput
    end: Tensor
    phi: Tensor
    nfe: Tensor
    status: Tensor


class Solver(CheckedArguments, ABC):
    """A solver of the probability-flow ODE with dense output."""

    @abstractmethod
    def solve(
        self, velocity: VelocityFunction, x: Tensor, start: float, end: float, observe: ProgressHook | None = None
    ) -> Solution:
        """Solves the ODE from ``start`` to ``end``.

        Args:
            velocity: The right-hand side v.
            x: ``(B, d)`` at ``start``.
            start, end: Angles; either may be the larger.
            observe: Called with the fraction of the interval that the slowest sample has covered.

        Returns:
            See `Solution`.

        Raises:
            RuntimeError: If the velocity is not finite (names τ and samples).
        """


class NotFinite(RuntimeError):
    """The network, or its derivative, is NaN or infinite.

    Args:
        rows: Indices of the samples, ``(R,)``.
        phi: Their angles, ``(R,)``.
    """

    def __init__(self, rows: Tensor, phi: Tensor) -> None:
        self.rows, self.phi = rows, phi
        indices = sorted(set(rows.tolist()))
        listed = ", ".join(map(str, indices[:8])) + (" …" if len(indices) > 8 else "")
        super().__init__(
            f"the network, or its derivative, is NaN or infinite at tau = {float(ou.tau_from_angle(phi[0].cpu())):.6g} "
            f"for the samples [{listed}]; check its inputs there, or train it at that tau."
        )
