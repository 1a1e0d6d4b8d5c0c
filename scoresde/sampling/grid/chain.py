"""Which grids are the DDPM chain's? Those that end at 0, by the step τ₁ → 0, in ``steps`` steps whatever its length."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde._core.suggest import nearest
from scoresde.process.sde import SDE
from scoresde.sampling.grid.base import Grid

__all__ = ["Chain", "Spaced"]


@dataclass(frozen=True)
class Chain(Grid):
    """The DDPM chain: even in u from the start's, down to u = 0, where τ is taken as 0: τ_K … τ_1, 0."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """τ(u_start · k / steps) for k = steps … 1, then 0."""
        if start == sde.tau_max:
            return sde.schedule.knots(steps)[::-1]
        u = float(sde.schedule.u(start))
        return [start, *(float(sde.schedule.tau(u * k / steps)) for k in range(steps - 1, 0, -1)), 0.0]


@dataclass(frozen=True)
class Spaced(Grid):
    r"""Integer knots $k$ of a chain of ``length`` K, at $\tau(k/K)$, then 0: for networks that know integers only.

    With n steps and $i = 0 \dots n - 1$, halves rounded to even:

    - ``"trailing"``: $round(K - iK/n)$, from K down;
    - ``"linspace"``: $1 + round(i(K - 1)/(n - 1))$, both ends among them (of a single step: K);
    - ``"leading"``: $1 + i\lfloor K/n\rfloor$, which begins below K: it wants ``sample(…, start=…)``, and the error
      without it names the start.

    From a start below the end of the clock, which must be a knot, trailing and linspace are those of a chain that ends
    there.

    Args:
        spacing: Which of the three.
        length: The chain's K.

    Raises:
        ValueError: If ``spacing`` is unknown or ``length`` no positive integer; when sampling, if there are more steps
            than knots, or the start is between two.

    Source: Lin et al. 2024, table 2; diffusers' ``timestep_spacing`` with knot k its timestep k - 1.
    """

    spacing: str = "trailing"
    length: int = 1000

    def __post_init__(self) -> None:
        known = ("leading", "linspace", "trailing")
        if self.spacing not in known:
            raise ValueError(f"no spacing is named {self.spacing!r}; {nearest(str(self.spacing), known)}")
        if isinstance(self.length, bool) or not isinstance(self.length, int) or self.length < 1:
            raise ValueError(f"length must be a positive integer, got {self.length!r}.")

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        clock, length = sde.schedule, self.length
        u = 1.0 if start == sde.tau_max else float(clock.u(start))
        last = round(u * length)
        if abs(u * length - last) > 1e-2:
            raise ValueError(
                f"{self} starts at a knot of its chain, got tau = {start!r}, at k = {u * length:.6g}; "
                f"pass start={float(clock.tau(last / length))!r}, or take Chain(), which does not round."
            )
        if steps > last:
            raise ValueError(
                f"steps must be at most {last}, the knots that {self} has up to the start, got {steps}; use Chain(), "
                "which does not round, for more."
            )
        if self.spacing == "leading":
            knots = [1 + i * (length // steps) for i in reversed(range(steps))]
        elif self.spacing == "trailing" or steps == 1:
            knots = [round(last - i * last / steps) for i in range(steps)]
        else:
            knots = [1 + round(i * (last - 1) / (steps - 1)) for i in reversed(range(steps))]
        return [start if k == last else float(clock.tau(k / length)) for k in knots] + [0.0]
