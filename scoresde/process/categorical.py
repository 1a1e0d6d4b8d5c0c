"""The processes of categories: `Categorical` of C classes, by the uniform or the absorbing kernel, and `Binomial`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scoresde._core.checks import check_integer
from scoresde._core.suggest import unknown_name
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.schedule import LinearAlphaBar, Schedule

__all__ = ["Binomial", "Categorical"]

KERNELS = ("uniform", "absorbing")
_MOST_CLASSES = 1 << 24  # codes are exact in float32


@dataclass(frozen=True)
class Categorical(DiscreteProcess):
    """C unordered classes per entry, redrawn uniformly or replaced by a mask.

    Args:
        classes: Number of classes C, at least 2; or one number for each entry along the last axis, as of the columns of
            a table.
        kernel: ``"uniform"``: noise is any of the classes; ``"absorbing"``: noise is a mask, which has the code C.
        schedule: The clock.
        tau_min: OU time at which continuous solvers stop and training begins.

    Raises:
        ValueError: If a number of classes is less than 2, or the kernel is another one.

    Example:
        >>> import torch
        >>> from scoresde.process import Categorical
        >>> process = Categorical(3)
        >>> process.transition(torch.zeros(1, 1), tau=0.5).squeeze()
        tensor([0.5786, 0.2107, 0.2107])

    Source: Austin et al. 2021 (D3PM), uniform and absorbing; Campbell et al. 2022, in continuous time.
    """

    classes: int | tuple[int, ...]
    kernel: str = "uniform"
    schedule: Schedule = LinearAlphaBar()
    tau_min: float = 1e-5

    def __post_init__(self) -> None:
        if isinstance(self.classes, (list, tuple)):
            object.__setattr__(self, "classes", tuple(self.classes))
        for count in self.classes if isinstance(self.classes, tuple) else (self.classes,):
            check_integer("classes", count, 2, most=_MOST_CLASSES)
        if not self.counts:
            raise ValueError("classes must name one entry at least, got (); pass the number of classes.")
        if self.kernel not in KERNELS:
            raise ValueError(unknown_name("kernel", str(self.kernel), KERNELS))
        self._check_clock()


@dataclass(frozen=True)
class Binomial(DiscreteProcess):
    r"""Bits 0 and 1 that flip at rate 1 per unit of $\tau$: the uniform kernel of two classes.

    A chain's step with $\beta$ is $q(x_k \mid x_{k-1}) = Bernoulli(x_{k-1}(1 - \beta) + \beta/2)$. For spins
    $s = 2x - 1$ and $b = \bar\alpha_\tau/\bar\alpha_s$ the posterior is
    $P(+ \mid s_0, s_\tau) = \tfrac12(1 + (\bar\alpha_s s_0 + b\,s_\tau)/(1 + \bar\alpha_s b\,s_0 s_\tau))$.

    Args:
        schedule: The clock.
        tau_min: OU time at which continuous solvers stop and training begins.

    Source: Sohl-Dickstein et al. 2015, table 1.
    """

    classes: ClassVar[int] = 2
    kernel: ClassVar[str] = "uniform"

    schedule: Schedule = LinearAlphaBar()
    tau_min: float = 1e-5

    def __post_init__(self) -> None:
        self._check_clock()
