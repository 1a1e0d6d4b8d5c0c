r"""Numbers and categories in one event on one clock: $\tau$ noises numbers by a Gaussian and redraws categories.

The last axis of a state holds n numbers, then K codes of categories, in one floating tensor. Given $x_0$ all entries
are noised independently. So the reverse process is a Gaussian one of the numbers and a jump process of the codes, which
one network call drives: it reads the whole state and returns n values and $\sum_i C_i$ logits.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, NoReturn

import torch
from torch import Tensor

from scoresde._core.checks import check_event_shape, check_kind, check_tensor
from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import constant
from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction, Logits
from scoresde.process.parameterization import NetworkOutput, Parameterization, V
from scoresde.process.prediction import GaussianPrediction, Prediction, cached_estimate
from scoresde.process.schedule import Schedule
from scoresde.process.sde import SDE, VPSDE

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Mixed", "MixedOutput", "MixedPrediction"]

_EXCLUDED = -60.0  # logit of the classes that a known category is not: their probability is below 1e-26


@dataclass(frozen=True)
class Mixed(Process):
    """Events of numbers, then categories, along their last axis.

    Args:
        continuous: The process of the numbers, whose clock and ``tau_min`` are those of the categories too. A view
            with a scale, such as `VE`, is refused: codes have no scale.
        categorical: The process of the categories, with a number of classes for each, ``Categorical((3, 2))``. It
            may state the clock of ``continuous``, or none.

    Raises:
        TypeError: If a part is of another kind.
        ValueError: If ``continuous`` has a scale, ``categorical`` has one number of classes for all entries, or states
            another clock.

    Example:
        >>> import torch
        >>> from scoresde.process import VPSDE, Categorical, Mixed
        >>> process = Mixed(VPSDE(), Categorical((3, 2)))  # any number of columns of numbers, then two of categories
        >>> process.split(torch.tensor([[0.7, -1.2, 2.0, 0.0]]))
        (tensor([[ 0.7000, -1.2000]]), tensor([[2., 0.]]))
    """

    continuous: SDE
    categorical: DiscreteProcess

    def __post_init__(self) -> None:
        check_kind("continuous", self.continuous, SDE)
        check_kind("categorical", self.categorical, DiscreteProcess)
        if not isinstance(self.continuous, VPSDE):
            raise ValueError(
                f"continuous must be a process without a scale, got {self.continuous}; take VPSDE on the same clock."
            )
        if isinstance(self.categorical.classes, int):
            raise ValueError(
                f"categorical must state the classes of each entry, got {self.categorical}; write "
                "Categorical((3, 2)) for two entries, Categorical((2,)) for one."
            )
        object.__setattr__(self, "categorical", _on_clock(self.categorical, self.continuous))

    @property
    def schedule(self) -> Schedule:
        """The clock."""
        return self.continuous.schedule

    @property
    def tau_min(self) -> float:
        """OU time at which continuous solvers stop and training begins."""
        return self.continuous.tau_min

    def with_schedule(self, schedule: Schedule) -> Self:
        clock = replace(self.continuous, schedule=schedule)
        categorical: DiscreteProcess = replace(self.categorical, schedule=schedule)
        return replace(self, continuous=clock, categorical=categorical)

    @property
    def categories(self) -> int:
        """Number of categories, K."""
        return len(self.categorical.counts)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The numbers and the codes of a state.

        Args:
            x: ``(B, *, n + K)``.

        Returns:
            ``(B, *, n)`` and ``(B, *, K)``, views of ``x``.

        Raises:
            ValueError: If the last axis is shorter than K.
        """
        numbers = (x.shape[-1] if x.ndim > 1 else 0) - self.categories
        if numbers < 0:
            raise ValueError(
                f"a state must have numbers, then {self.categories} codes along its last axis, got the shape "
                f"{tuple(x.shape)}."
            )
        return x[..., :numbers], x[..., numbers:]

    def scale(self, tau: Scalar) -> Scalar:
        return self.continuous.scale(tau)

    def checked_state(self, x: Tensor) -> Tensor:
        """Numbers and codes of states in a floating tensor.

        Raises:
            TypeError: If ``x`` is not floating.
            ValueError: If it has too few entries, or a code is not that of a state. Codes are checked on the CPU only.
        """
        x = super().checked_state(x)
        self.categorical.checked_state(self.split(x)[1])
        return x

    def draw_noise(self, like: Tensor, noise: Noise) -> Tensor:
        """Unit normal noise of the numbers and uniform numbers of the codes, of the widest type of the device."""
        numbers, codes = self.split(like)
        uniform = self.categorical.draw_noise(codes, noise)
        return torch.cat([self.continuous.draw_noise(numbers, noise).to(uniform), uniform], -1)

    def perturb(self, x0: Tensor, tau: Scalar, noise: Tensor) -> Tensor:
        """The noised state: numbers as by ``continuous``, codes as by ``categorical``.

        Args:
            x0: Data, ``(B, *, n + K)``.
            tau: OU time, a number or ``(B,)``.
            noise: From `draw_noise`, shape of ``x0``.

        Raises:
            TypeError: If ``x0`` or ``noise`` is not a tensor.
            ValueError: If the shapes differ, or ``tau`` is negative, NaN or past the end of the clock.
        """
        check_tensor("x0", x0)
        check_tensor("noise", noise)
        if x0.shape != noise.shape:
            raise ValueError(f"noise must have the shape of x0, {tuple(x0.shape)}, got {tuple(noise.shape)}.")
        (numbers, codes), (eps, uniform) = self.split(x0), self.split(noise)
        parts = self.continuous.perturb(numbers, tau, eps.to(x0.dtype)), self.categorical.perturb(codes, tau, uniform)
        return torch.cat(parts, -1)

    def noise_free(self, x0: Tensor, tau: Scalar) -> Tensor:
        numbers, codes = self.split(x0)
        return torch.cat([self.continuous.noise_free(numbers, tau), codes], -1)

    def prior(self, like: Tensor, noise: Noise, tau: float | None = None) -> Tensor:
        numbers, codes = self.split(like)
        return torch.cat([self.continuous.prior(numbers, noise, tau), self.categorical.prior(codes, noise, tau)], -1)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the numbers plus log-probability of the codes, nats. ``(B, *D)`` -> ``(B,)`` float64."""
        check_event_shape(z, None, "z")
        numbers, codes = self.split(z)
        return self.continuous.prior_log_prob(numbers) + self.categorical.prior_log_prob(codes)


def _on_clock(process: DiscreteProcess, clock: SDE) -> DiscreteProcess:
    """The process of categories on the clock of the numbers, unless it states another one."""
    stated = {"schedule": process.schedule, "tau_min": process.tau_min}
    defaults = {f.name: f.default for f in dataclasses.fields(process)}
    for name, value in stated.items():
        wanted = getattr(clock, name)
        if value not in (wanted, defaults[name]):
            raise ValueError(
                f"both parts must have one clock, got {name}={value} for categories and {wanted} for numbers; leave "
                f"{name} out of the former."
            )
    return replace(process, schedule=clock.schedule, tau_min=clock.tau_min)


@dataclass(frozen=True)
class MixedOutput(NetworkOutput):
    r"""The target of the numbers, then the logits of each category one after the other: $n + \sum_i C_i$ values.

    Args:
        continuous: What the values of the numbers estimate.
        categorical: How the logits are read.
    """

    process_kind: ClassVar[type[Process]] = Mixed

    continuous: Parameterization = field(default_factory=V)
    categorical: Logits = field(default_factory=Logits)

    def prediction(
        self, process: Process, x: Tensor, tau: Scalar, out: Tensor, mix: Tensor | None = None
    ) -> MixedPrediction:
        assert isinstance(process, Mixed)
        if mix is not None:
            raise ValueError("a mixed process has no learned variance; build the model with learned_variance=False.")
        numbers, codes = process.split(x)
        n = numbers.shape[-1]
        logits = padded_logits(out[..., n:], process.categorical.counts)
        return MixedPrediction(
            x,
            tau,
            self.continuous.prediction(process.continuous, numbers, tau, out[..., :n]),
            self.categorical.prediction(process.categorical, codes, tau, logits),
        )

    def output_shape(self, process: Process, x: Tensor) -> tuple[int, ...]:
        assert isinstance(process, Mixed)
        return (*x.shape[:-1], x.shape[-1] - process.categories + sum(process.categorical.counts))

    def with_known(self, process: Process, x: Tensor, tau: Scalar, out: Tensor, known: Tensor) -> Tensor:
        assert isinstance(process, Mixed)
        numbers, _ = process.split(x)
        n, counts = numbers.shape[-1], process.categorical.counts
        values = self.continuous.with_known(process.continuous, numbers, tau, out[..., :n], known[..., :n])
        column = constant(tuple(float(i) for i, count in enumerate(counts) for _ in range(count)), x).long()
        state = constant(tuple(float(c) for count in counts for c in range(count)), x)
        codes = known[..., n:][..., column]
        logits = torch.where(codes == state, 0.0, _EXCLUDED).to(out.dtype)
        return torch.cat([values, torch.where(codes.isnan(), out[..., n:], logits)], -1)


def padded_logits(logits: Tensor, counts: tuple[int, ...]) -> Tensor:
    r"""Logits of categories one after the other as one row for each, $(\sum_i C_i)$ to ``(K, C)`` on the last axes.

    Args:
        logits: ``(B, *, sum(counts))``.
        counts: Number of classes of each category. A row with fewer than C repeats its last logit, which is not read.
    """
    most, first, index = max(counts), 0, []
    for count in counts:
        index += [float(first + min(c, count - 1)) for c in range(most)]
        first += count
    return logits[..., constant(tuple(index), logits).long()].unflatten(-1, (len(counts), most))


class MixedPrediction(Prediction):
    """A network output for numbers and categories: one prediction for each.

    Args:
        x: State, ``(B, *, n + K)``.
        tau: OU time of ``x``, a positive number or ``(B,)``.
        continuous: Of the numbers.
        categorical: Of the categories.
    """

    def __init__(self, x: Tensor, tau: Scalar, continuous: GaussianPrediction, categorical: DiscretePrediction) -> None:
        self.x, self.tau = x, tau
        self.continuous, self.categorical = continuous, categorical

    @cached_estimate
    def out(self) -> Tensor:
        """The outputs of both parts, flat, ``(B, N)``."""
        return torch.cat([self.continuous.out.flatten(1), self.categorical.out.flatten(1)], 1)

    @cached_estimate
    def x0(self) -> Tensor:
        """The posterior mean of the numbers and the most probable class of each category, ``(B, *, n + K)``."""
        return torch.cat([self.continuous.x0, self.categorical.x0], -1)

    def _refuse(self, member: str, needed: str) -> NoReturn:
        part = {"Gaussian": "continuous", "discrete": "categorical"}[needed]
        raise TypeError(
            f"{member} is an estimate of a {needed} process, and this event has numbers and categories; ask the part: "
            f"prediction.{part}.{member}. To sample take MixedSampler(), to train MixedLoss()."
        )
