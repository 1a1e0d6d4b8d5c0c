"""Grids of the DDPM chain: ``steps`` steps for a chain of any length, the last of them τ₁ → 0."""

from __future__ import annotations

from dataclasses import dataclass, field

from scoresde._core.checks import check_integer
from scoresde._core.suggest import nearest
from scoresde.process.base import Process
from scoresde.sampling.grid.base import Grid

__all__ = ["Chain", "Spaced"]

_TOLERANCE = 1e-2  # of a start, in timesteps


@dataclass(frozen=True)
class Chain(Grid):
    """The DDPM chain τ_K … τ_1, 0: even in u from the start down to u = 0, at which τ is taken as 0."""

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        """τ(u_start · k / steps) for k = steps … 1, then 0."""
        if start == sde.tau_max:
            return sde.schedule.knots(steps)[::-1]
        u = float(sde.schedule.u(start))
        return [start, *(float(sde.schedule.tau(u * k / steps)) for k in range(steps - 1, 0, -1)), 0.0]


@dataclass(frozen=True)
class Spaced(Grid):
    r"""Integer timesteps $k$ of a chain of ``length`` K, at $\tau(k/K)$, then 0: for networks trained on integers.

    With n steps and $i = 0 \dots n - 1$, halves rounded to even:

    - ``"trailing"``: $round(K - iK/n)$, from K down;
    - ``"linspace"``: $1 + round(i(K - 1)/(n - 1))$, with both ends (for a single step: K);
    - ``"leading"``: $1 + offset + i\lfloor K/n\rfloor$. It begins below K and needs ``sample(…, start=…)``; the error
      without ``start`` states its value.

    A start below the end of the clock must be a knot of the chain. Trailing and linspace are then those of a chain that
    ends there.

    Args:
        spacing: ``"trailing"``, ``"linspace"`` or ``"leading"``.
        length: The chain's K.
        offset: Added to the timesteps of ``"leading"``.
        end: Knot at which the last step ends, in place of τ = 0: 1 is τ₁.
        extra: The n largest of n + 1 timesteps, for ``"linspace"`` and ``"leading"``: the step from the smallest is
            left out.
        rounded: Whether the timesteps of ``"linspace"`` are rounded.

    Raises:
        ValueError: If ``spacing`` is unknown, or ``length`` is not a positive integer; when sampling, if there are more
            steps than knots, or the start lies between two knots.

    Source: Lin et al. 2024, table 2; diffusers' ``timestep_spacing``, whose timestep k - 1 is knot k, with its
    ``steps_offset``, ``set_alpha_to_one=False`` (``end=1``) and the n + 1 timesteps of its multistep schedulers.
    """

    spacing: str = "trailing"
    length: int = 1000
    offset: int = field(default=0, metadata={"write": "if set"})
    end: int = field(default=0, metadata={"write": "if set"})
    extra: bool = field(default=False, metadata={"write": "if set"})
    rounded: bool = field(default=True, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        known = ("leading", "linspace", "trailing")
        if self.spacing not in known:
            raise ValueError(f"no spacing is named {self.spacing!r}; {nearest(str(self.spacing), known)}")
        check_integer("length", self.length)
        check_integer("offset", self.offset, 0)
        check_integer("end", self.end, 0)
        if self.offset and self.spacing != "leading":
            raise ValueError(f"an offset is added to leading timesteps only, got {self.spacing!r}; leave it out.")

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        clock, length = sde.schedule, self.length
        u = 1.0 if start == sde.tau_max else float(clock.u(start))
        last = round(u * length)
        if abs(u * length - last) > _TOLERANCE:
            raise ValueError(
                f"{self} starts at a knot of its chain, got tau = {start!r}, at k = {u * length:.6g}; "
                f"pass start={float(clock.tau(last / length))!r}, or take Chain(), which does not round."
            )
        if steps > last:
            raise ValueError(
                f"steps must be at most {last}, the knots that {self} has up to the start, got {steps}; use Chain(), "
                "which does not round, for more."
            )
        ks = self.timesteps(steps, last)
        final = float(clock.tau(self.end / length)) if self.end else 0.0
        return [start if k == last else float(clock.tau(k / length)) for k in ks] + [final]

    def timesteps(self, steps: int, last: int | None = None) -> list[float]:
        """The knots k of the n steps, from the noise down, without the end.

        Args:
            steps: Number of steps n.
            last: Knot from which trailing and linspace go down; default ``length``.
        """
        last, points = self.length if last is None else last, steps + self.extra
        skipped = points - steps
        if self.spacing == "leading":
            return [1 + self.offset + i * (self.length // points) for i in reversed(range(skipped, points))]
        if self.spacing == "trailing":
            return [round(last - i * (last / steps)) for i in range(steps)]
        if points == 1:
            return [last]
        gap = (last - 1) / (points - 1)
        return [1 + (round(i * gap) if self.rounded else i * gap) for i in reversed(range(skipped, points))]
