r"""Reference solutions of the probability-flow ODE, with the states and velocities along them.

A reference solution starts from a noise of the fit and ends at the target of its rollouts. Its network calls are used
twice: between them, the velocity $v = dx/d\phi$ is interpolated by the cubic polynomial through the four nearest
values, so that grids can be compared without further network calls (see `Surrogate`).
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import Predict
from scoresde.sampling.calibration.fractions import StepFractions
from scoresde.sampling.calibration.noises import NoiseBatch
from scoresde.sampling.calibration.rollouts import rollout
from scoresde.sampling.multistep import Adams

__all__ = ["ReferenceSolutions", "join", "solve_reference"]

_LOG_SNR_SHARE = 0.5  # of the coordinate in which the times are uniform


@dataclass(frozen=True, eq=False)
class ReferenceSolutions:
    """Reference solutions of a batch of noises.

    Attributes:
        ends: Their last states, ``(B, *D)``.
        x0: The model's data estimates at the ends, ``(B, *D)``; the ends themselves at time 0.
        taus: Times of the network calls, decreasing.
        x, v: States and velocities at these times, ``(K, B, d)``, where d is the number of recorded elements.
    """

    ends: Tensor
    x0: Tensor
    taus: tuple[float, ...]
    x: Tensor
    v: Tensor

    def __getitem__(self, rows: slice) -> ReferenceSolutions:
        return ReferenceSolutions(self.ends[rows], self.x0[rows], self.taus, self.x[:, rows], self.v[:, rows])

    def interpolated(self, values: Tensor, tau: float) -> Tensor:
        """Values ``(K, …)`` at ``taus``, at another time: the polynomial in the angle through the nearest four."""
        angles, count = self._angles, min(4, len(self.taus))
        angle = -ou.angle(tau)
        first = min(max(bisect.bisect(angles, angle) - count // 2, 0), len(angles) - count)
        nodes = angles[first : first + count]
        weights = [math.prod((angle - b) / (a - b) for b in nodes if b != a) for a in nodes]
        weight = torch.tensor(weights, dtype=torch.float64).to(values)
        return torch.tensordot(weight, values[first : first + count], 1)

    @cached_property
    def _angles(self) -> list[float]:
        """Increasing, so that they can be bisected."""
        return [-ou.angle(tau) for tau in self.taus]


class _Recorder:
    """A network call that records times, states and velocities; of one time, the last call."""

    def __init__(self, predict: Predict, elements: Tensor | None) -> None:
        self._predict, self._elements = predict, elements
        self.records: dict[float, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        prediction = self._predict(x, tau)
        self.records[tau] = self._selected(x), self._selected(prediction.v)
        return prediction

    def _selected(self, x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1)
        return flat if self._elements is None else flat[:, self._elements]


def solve_reference(
    model: Model, fractions: StepFractions, steps: int, noises: NoiseBatch, elements: Tensor | None = None
) -> ReferenceSolutions:
    """Solves the probability-flow ODE by the third-order Adams method, predictor and corrector.

    For a noise estimate x₀ is interpolated, on a grid even in log-SNR: some trajectories end far from the data, and
    there x₀ is nearly constant. For all other networks it is v, in the angle. The network is not called below
    ``tau_min``, even if the last time is 0.

    Args:
        model: The model, in eval mode.
        fractions: Parameterization of grids, with the ends of the solution.
        steps: Number of steps; one network call each, and one more at the end.
        noises: Starting noises.
        elements: Indices of the elements that are recorded; None for all.

    Raises:
        RuntimeError: If a solution is not finite.
    """
    solver, positions = _solver(model, fractions, steps)
    predict = _Recorder(noises.predict(model), elements)
    taus = fractions.times(positions)
    ends = rollout(solver, predict, taus, noises.x)
    if not bool(torch.isfinite(ends).all()):
        raise RuntimeError(
            f"the reference, Adams(steps={steps}), must end in finite numbers, got NaN or infinity; "
            "sample(model, …) with this sampler names the network call that returned them."
        )
    x0 = ends if taus[-1] == 0 else predict(ends, taus[-1]).x0
    times = sorted(predict.records, reverse=True)
    x, v = (torch.stack([predict.records[tau][i] for tau in times]) for i in (0, 1))
    return ReferenceSolutions(ends, x0, tuple(times), x, v)


def _solver(model: Model, fractions: StepFractions, steps: int) -> tuple[Adams, list[float]]:
    """The method, and the positions of its times."""
    method = Adams(steps, predictor_order=3, corrector_order=3)
    if model.amplifies_at_noise():
        return replace(method, prediction="x0", variable="artanh_sigma"), fractions.log_snr_positions(steps)
    positions = fractions.mixed_positions(_LOG_SNR_SHARE, steps)
    return replace(method, prediction="v", variable="angle"), positions


def join(parts: list[ReferenceSolutions]) -> ReferenceSolutions:
    """Reference solutions over the same times, one after the other."""
    ends, x0 = (torch.cat([getattr(part, name) for part in parts]) for name in ("ends", "x0"))
    x, v = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("x", "v"))
    return ReferenceSolutions(ends, x0, parts[0].taus, x, v)
