r"""The sampler of events of numbers and categories: a step of each on one grid, from one network call.

Given the state at τ, numbers and codes at s are drawn independently. So a step of a chain is of order 1 whatever the
order of its parts; a higher order of the numbers' step shows where hardly a code changes.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde.model import Model
from scoresde.process.base import Process
from scoresde.process.mixed import Mixed, MixedPrediction
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import Predict, Sampler, SamplingContext, StepSampler
from scoresde.sampling.ddpm import DDPM
from scoresde.sampling.discrete import Ancestral, CodeNoise, DiscreteSampler
from scoresde.sampling.grid import Grid

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MixedSampler"]


@dataclass(frozen=True)
class MixedSampler(Sampler):
    """Steps of numbers and of categories side by side; one network call per step.

    Args:
        continuous: The step of the numbers, of one network call, such as `DDPM`, `DDIM` or `Adams`. Its number of steps
            and its grid are those of the categories too.
        categorical: The step of the categories. It states no number of steps and no grid, or the same ones.

    Raises:
        TypeError: If a part is of another kind. When sampling: if a step of ``continuous`` calls the network twice.
        ValueError: If ``categorical`` states other steps or another grid.

    Example:
        >>> import torch
        >>> from scoresde import DDPM, sample
        >>> from scoresde.analytic import MixedMixture
        >>> from scoresde.sampling import MixedSampler
        >>> means, probs = torch.tensor([[-1.0], [1.0]]), torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]]])
        >>> model = MixedMixture(torch.ones(2), means, torch.full((2, 1), 0.1), probs)
        >>> samples = sample(model, 5, MixedSampler(DDPM(steps=20)), seeds=range(5))
        >>> samples.x.shape, samples.nfe
        (torch.Size([5, 2]), 20)

    Source: Kotelnikov et al. 2023 (TabDDPM), with both chains on one clock.
    """

    process_kind: ClassVar[type[Process]] = Mixed

    continuous: StepSampler = field(default_factory=lambda: DDPM(steps=250))
    categorical: DiscreteSampler = field(default_factory=Ancestral)

    order: ClassVar[int] = 1
    """Order of the error of the last state's distribution in the step size, with an exact model."""

    def __post_init__(self) -> None:
        check_kind("continuous", self.continuous, StepSampler)
        check_kind("categorical", self.categorical, DiscreteSampler)
        stated, defaults = self.categorical, type(self.categorical)()
        for name in ("steps", "grid"):
            if getattr(stated, name) not in (getattr(self.continuous, name), getattr(defaults, name)):
                raise ValueError(
                    f"both parts must have one grid, got {name}={getattr(stated, name)} for categories and "
                    f"{getattr(self.continuous, name)} for numbers; leave {name} out of the former."
                )
        shared = {f.name: getattr(self.continuous, f.name) for f in dataclasses.fields(DiscreteSampler)}
        object.__setattr__(self, "categorical", replace(stated, **shared))

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.continuous.steps

    @property
    def grid(self) -> Grid:
        """The times of the steps."""
        return self.continuous.grid

    def for_model(self, model: Model) -> Self:
        continuous = self.continuous.for_model(model)
        if continuous is self.continuous:
            return self
        categorical = replace(self.categorical, grid=continuous.grid)
        return replace(self, continuous=continuous, categorical=categorical)

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Applies both steps along the grid; see `Sampler.run`."""
        process = context.sde
        assert isinstance(process, Mixed)
        taus, codes_noise = self.grid.times(process, self.steps, context.start), CodeNoise(context.noise)
        memory = None
        for i in range(self.steps):
            tau, s = taus[i], taus[i + 1]
            numbers, codes = process.split(x)
            call = _OneCall(context.predict, x, (numbers, codes), tau)

            def noise(like: Tensor = numbers) -> Tensor:
                return context.noise.normal(like)

            moved, memory = self.continuous.step(call.continuous, numbers, tau, s, noise, memory)
            x = torch.cat([moved, self.categorical.step(call.categorical, codes, tau, s, codes_noise)], -1)
            if context.observe is not None:
                context.observe(i + 1, self.steps, s, codes_noise.marked(x))
        return codes_noise.marked(x), taus[-1]


class _OneCall:
    """One network call at the state of a step, and its two parts.

    Args:
        predict: The network call.
        x: State of numbers and codes.
        parts: The same numbers and codes.
        tau: Its time.
    """

    def __init__(self, predict: Predict, x: Tensor, parts: tuple[Tensor, Tensor], tau: float) -> None:
        self._predict, self._x, self._parts, self._tau = predict, x, parts, tau
        self._prediction: MixedPrediction | None = None

    def continuous(self, x: Tensor, tau: Scalar) -> Prediction:
        """The prediction of the numbers."""
        return self._at(x is self._parts[0], tau).continuous

    def categorical(self, x: Tensor, tau: Scalar) -> Prediction:
        """The prediction of the categories."""
        return self._at(x is self._parts[1], tau).categorical

    def _at(self, same: bool, tau: Scalar) -> MixedPrediction:
        if not same or tau != self._tau:
            raise TypeError(
                f"numbers and categories share one network call per step, but a second call at tau = {float(tau):.4g} "
                f"was made in the step from {self._tau:.4g}; take DDPM(), DDIM() or Adams(), and Ancestral()."
            )
        if self._prediction is None:
            prediction = self._predict(self._x, self._tau)
            assert isinstance(prediction, MixedPrediction)
            self._prediction = prediction
        return self._prediction
