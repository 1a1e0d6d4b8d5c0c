r"""Weights of `NonStationary` by least squares: each state is made nearest to the reference solution at its time.

Step i of a rollout has $x_{i+1} = c_i\,x_0 + \sum_{j \le i} b_{ij}\,v_j$, with the velocities $v_j$ at the states so
far. Its weights minimize the mean square of $x_{i+1} - x_{ref}(\tau_{i+1})$ over noises and elements, in x whatever the
coordinates. Errors of early states are thus corrected by later steps as far as the velocities allow. One rollout fits
all weights. As in `Rollouts`, noises that end at another mode have little influence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde.process import ou
from scoresde.sampling.base import Predict
from scoresde.sampling.calibration.robust_loss import RobustLoss

__all__ = ["FittedRollouts"]

_RIDGE = 1e-8


@dataclass(frozen=True, eq=False)
class FittedRollouts:
    r"""Rollouts of `NonStationary` whose weights are fitted on the way, over any grid.

    The loss of a grid is that of `Rollouts`, with the errors of the states before the last one added. Such an error
    changes all later velocities. It is counted with the length of the steps around its time, times ``feedback``.

    Attributes:
        predict: The network call, in the coordinates of the rollouts.
        x: First states, ``(B, *D)``, in the same coordinates.
        linear: The linear part of the change from these coordinates to the elements that are compared, at a time:
            ``(B, *D)`` to ``(B, e)``.
        reference: The reference solutions minus the constant part of that change, at a time, ``(B, e)``.
        robust: The loss of last states.
        feedback: Weight of the errors of earlier states.
        reweightings: How often a least-squares problem is solved again with the influence of each noise.
        relative_step: Size of a finite difference relative to the shorter adjacent step.
    """

    predict: Predict
    x: Tensor
    linear: Callable[[Tensor, float], Tensor]
    reference: Callable[[float], Tensor]
    robust: RobustLoss
    feedback: float = 0.0
    reweightings: int = 2
    relative_step: float = 1e-3
    _last: dict[tuple[float, ...], _Fit] = field(default_factory=dict, init=False, repr=False)

    def rows(self, taus: Sequence[float]) -> tuple[tuple[float, ...], ...]:
        """The fitted weights for a grid, as `NonStationary` takes them."""
        return self._fitted(taus).rows

    def last_row(self, taus: Sequence[float], rows: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
        """Given weights, with those of the last step fitted again, for which they are the best for the last state."""
        directions, x = [self.x], self.x
        for tau, row in zip(taus, rows):
            directions.append(self.predict(x, tau).v)
            x = sum((direction * weight for direction, weight in zip(directions[1:], row[1:])), row[0] * self.x)
        design = torch.stack([self.linear(each, taus[-1]) for each in directions], 2)
        row, _ = self._least_squares(design, self.reference(taus[-1]))
        return (*rows[:-1], tuple(row.tolist()))

    def error(self, taus: Sequence[float]) -> float:
        """Weighted root mean square error of the last state over all compared elements."""
        return self.robust.root_mean_square(self._fitted(taus).errors[-1].square().mean(1))

    def loss(self, taus: Sequence[float]) -> float:
        """The loss of the class docstring; infinite if the times do not fall or a state is not finite."""
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        return self.robust.value(self._squares(taus))

    def influence(self, taus: Sequence[float]) -> Tensor:
        """Roots of the factors by which the loss weights the squared errors of the rollouts, ``(B, 1)``."""
        return self.robust.influence(self._squares(taus)).sqrt()[:, None]

    def residual(self, taus: Sequence[float], weight: Tensor) -> Tensor:
        """The errors of all states, times a weight, ``(n,)``."""
        return (self._fitted(taus).errors * weight).flatten()

    def jacobian(self, taus: Sequence[float], moved: Sequence[float], moves: Sequence[float], weight: Tensor) -> Tensor:
        """Derivatives of `residual` in the interior times, ``(n, steps - 1)``; see `Rollouts.jacobian`."""
        errors, columns = self._fitted(taus).errors, []
        for i, (tau, move) in enumerate(zip(moved, moves, strict=True)):
            moved_errors = self._fit([*taus[: i + 1], tau, *taus[i + 2 :]]).errors
            columns.append(((moved_errors - errors) / move * weight).flatten())
        return torch.stack(columns, 1)

    def _squares(self, taus: Sequence[float]) -> Tensor:
        return self._fitted(taus).errors.square().mean(2).sum(0)

    def _fitted(self, taus: Sequence[float]) -> _Fit:
        key = tuple(taus)
        if key not in self._last:
            self._last.clear()
            self._last[key] = self._fit(taus)
        return self._last[key]

    def _fit(self, taus: Sequence[float]) -> _Fit:
        rows, errors, directions, x = [], [], [self.x], self.x
        for i, (tau, s) in enumerate(zip(taus, taus[1:])):
            directions.append(self.predict(x, tau).v)
            design = torch.stack([self.linear(each, s) for each in directions], 2)
            row, error = self._least_squares(design, self.reference(s))
            rows.append(tuple(row.tolist()))
            after = taus[min(i + 2, len(taus) - 1)]
            share = 1.0 if i == len(taus) - 2 else self.feedback * (ou.angle(tau) - ou.angle(after))
            if share:
                errors.append(error * share)
            x = torch.tensordot(row.to(self.x), torch.stack(directions), 1)
        return _Fit(tuple(rows), torch.stack(errors))

    def _least_squares(self, design: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The weights of one step, ``(i + 2,)`` float64 on the CPU, and the errors that they leave, ``(B, e)``."""
        joined = torch.cat([design, target[..., None]], 2)
        weight, unit = self.robust.weights, torch.eye(design.shape[2], dtype=torch.float64)
        row, error = unit[0], target
        for _ in range(1 + self.reweightings):
            weighted = (joined * weight.sqrt()[:, None, None]).flatten(0, 1)
            products = (weighted.T @ weighted).cpu().double()
            normal, right = products[:-1, :-1], products[:-1, -1]
            row = torch.linalg.solve(normal + _RIDGE * normal.diagonal().mean() * unit, right)
            error = design @ row.to(design) - target
            weight = self.robust.influence(error.square().mean(1))
        return row, error


@dataclass(frozen=True, eq=False)
class _Fit:
    """Weights of all steps, and the errors of the counted states, ``(states, B, e)``."""

    rows: tuple[tuple[float, ...], ...]
    errors: Tensor
