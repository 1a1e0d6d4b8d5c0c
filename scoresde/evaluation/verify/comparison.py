r"""Paired errors of readings on the same noised data, and the test of whether one of them is better.

With errors $e_{li}$ of event i at noise level l the relative gain of a reading over the current one is
$g_i = \mathrm{mean}_l\,(e_{li} - e'_{li})/\bar e_l$; events are independent, so $t = \bar g/\mathrm{se}(g)$.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from scoresde.evaluation.verify.reading import OutputTarget, Reading

__all__ = ["Bench", "Gain", "gain", "t_bound"]

_CONFIDENCE = 1e-3  # probability of one false alarm among all comparisons of a call


@dataclass(frozen=True)
class Gain:
    """Share by which a reading lowers the error, with its standard error; negative if it raises it.

    Attributes:
        mean: At most 1.
        stderr: Over events.
        events: Their number.
    """

    mean: float
    stderr: float
    events: int

    @property
    def t(self) -> float:
        """Mean over standard error."""
        return self.mean / self.stderr if self.stderr > 0 else math.copysign(math.inf, self.mean) if self.mean else 0.0

    def text(self) -> str:
        """The change of the error in words."""
        if self.mean < -1:
            return f"the error is {_rounded(1 - self.mean, self.stderr)} times as large"
        word = "falls" if self.mean > 0 else "rises"
        return f"the error {word} by {_rounded(100 * abs(self.mean), 100 * self.stderr)} %"


def _rounded(value: float, stderr: float) -> str:
    """Value and error with two digits of the error."""
    if not (math.isfinite(stderr) and math.isfinite(value)) or stderr <= 0 or value > 1e6:
        return f"{value:.3g}"
    digits = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:.{digits}f} ± {stderr:.{digits}f}"


@dataclass(frozen=True, eq=False)
class Bench:
    r"""Events with noised copies at several noise levels.

    Attributes:
        x0: Events in stated model units, ``(n, d)`` float64.
        sigmas: Noise levels of $y = x_0 + \tilde\sigma\varepsilon$.
        noised: ``(L, r, n, d)``: r noises per event and level.
    """

    x0: Tensor
    sigmas: tuple[float, ...]
    noised: Tensor

    @classmethod
    def draw(cls, x0: Tensor, sigmas: tuple[float, ...], generator: torch.Generator, repeats: int = 1) -> Bench:
        """New noise for each event and level."""
        noise = torch.randn((len(sigmas), repeats, *x0.shape), generator=generator, dtype=torch.float64)
        return cls(x0, sigmas, x0 + torch.tensor(sigmas, dtype=torch.float64).reshape(-1, 1, 1, 1) * noise)

    def errors(
        self, reading: Reading, targets: list[OutputTarget], events: int | None = None, levels: list[int] | None = None
    ) -> Tensor:
        """Squared errors of x_0 per dimension, ``(T, L, n)`` float64; NaN at levels outside the network's times.

        Args:
            reading: One network call per level.
            targets: T things that its output may estimate.
            events: Only the first ones, with one noise each; default all.
            levels: Indices of the levels to evaluate; NaN at others; default all.
        """
        count = len(self.x0) if events is None else min(events, len(self.x0))
        noised = self.noised if events is None else self.noised[:, :1, :count]
        rows = torch.arange(count).repeat(noised.shape[1])
        errors = torch.full((len(targets), len(self.sigmas), count), math.nan, dtype=torch.float64)
        for i in range(len(self.sigmas)) if levels is None else levels:
            output = reading.output(noised[i].flatten(0, 1), self.sigmas[i], rows)
            if output is None:
                continue
            for j, target in enumerate(targets):
                errors[j, i] = self.error_of(output.x0(target).reshape(noised[i].shape))
        return errors

    def error_of(self, estimate: Tensor) -> Tensor:
        """Squared error per dimension of estimates of the first n events, ``(r, n, d)``; the mean over r, ``(n,)``."""
        error = (estimate - self.x0[: estimate.shape[1]]).square().mean(2).mean(0)
        return torch.nan_to_num(error, nan=math.inf, posinf=math.inf).clamp(max=1e30)


def gain(current: Tensor, other: Tensor) -> Gain | None:
    """Gain of one reading over another, from their errors ``(L, n)``; None if they share less than half of the levels.

    Args:
        current, other: As `Bench.errors` gives them. If they have unlike numbers of events, the first ones are used.
    """
    count = min(current.shape[1], other.shape[1])
    current, other = current[:, :count], other[:, :count]
    shared = ~(current.isnan().any(1) | other.isnan().any(1))
    if int(shared.sum()) < max(1, math.ceil(int((~current.isnan().any(1)).sum()) / 2)):
        return None
    current, other = current[shared], other[shared]
    values = ((current - other) / current.mean(1, keepdim=True).clamp(min=1e-300)).mean(0)
    spread = float(values.std()) / math.sqrt(count) if count > 1 else math.inf
    return Gain(float(values.mean()), spread, count)


def t_bound(comparisons: int, events: int) -> float:
    """The |t| that one of so many comparisons exceeds by chance with probability 0.001 (Bonferroni's bound)."""
    return float(stats.t.isf(0.5 * _CONFIDENCE / max(comparisons, 1), max(events - 1, 1)))
