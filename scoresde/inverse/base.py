"""`PosteriorSampler`: a method that draws samples of p(x_0 | y) itself instead of steering a model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.noise import Noise
from scoresde.guidance.observation import Observation
from scoresde.inverse.posterior_samples import PosteriorSamples
from scoresde.model import Model
from scoresde.process.base import Process
from scoresde.process.prediction import Prediction
from scoresde.process.sde import SDE

__all__ = ["PosteriorContext", "PosteriorSampler"]


@dataclass
class PosteriorContext:
    """What a method needs to draw samples of the posteriors of one batch of m observations.

    Attributes:
        model: The model, in eval mode.
        observation: All observations of the call.
        prepared: What `PosteriorSampler.prepare` returned.
        index: Which of the observations the batch holds, integers ``(m,)``.
        n: Number of samples per observation that the caller asked for, or None.
        like: Shape, type and device of the states, ``(m, states, *D)``; its values are not read.
        noise: Source of randomness: with seeds, one per observation.
        cond: Conditioning of the network, one entry per state, ``(m * states, …)``.
        checked: Checks that each output of the network is finite, which waits for the device.
        nfe: Network evaluations so far.
    """

    model: Model
    observation: Observation
    prepared: Any
    index: Tensor
    n: int | None
    like: Tensor
    noise: Noise
    cond: Mapping[str, Any]
    checked: bool = False
    nfe: int = 0

    def predict(self, x: Tensor, tau: float) -> Prediction:
        """One counted call of the network on the states ``(m, states, *D)``, as a batch ``(m * states, *D)``.

        Raises:
            RuntimeError: If ``checked`` and the output is not finite.
        """
        self.nfe += self.model.cost
        prediction = self.model.predict(x.flatten(0, 1), tau, **self.cond)
        if self.checked:
            bad = ~torch.isfinite(prediction.out).reshape(len(self.index), -1).all(1)
            if bool(bad.any()):
                raise RuntimeError(
                    f"the network must return finite numbers, but at tau = {tau:.6g} it gave NaN or infinity for "
                    f"observations {self.index[bad].tolist()[:8]}; check its inputs there, or train it at that noise."
                )
        return prediction

    def prior(self) -> Tensor:
        """First states, in x, at the end of the clock, ``(m, states, *D)``."""
        return self.model.sde.prior(self.like, self.noise)

    def normal(self, like: Tensor) -> Tensor:
        """Unit normal noise like a tensor ``(m, …)``."""
        return self.noise.normal(like)


class PosteriorSampler(CheckedArguments, ABC):
    """A method that draws samples of p(x_0 | y). Settings are dataclass fields; no state is stored between calls."""

    process_kind: ClassVar[type[Process]] = SDE
    """The processes whose models it conditions."""

    def check_process(self, process: Process) -> None:
        """Refuses a process of another kind.

        Raises:
            TypeError: Names a method for it.
        """
        if not isinstance(process, self.process_kind):
            raise TypeError(
                f"{type(self).__name__} conditions models of a Gaussian process, got a model of {process}; take "
                "BridgeSMC(), for known entries of categories and numbers."
            )

    def states(self, n: int | None) -> int:
        """Number of states per observation in a call that asks for ``n`` samples; default n, or 1 for None."""
        return 1 if n is None else n

    @abstractmethod
    def prepare(self, model: Model, observation: Observation, like: Tensor) -> Any:
        """What the method derives once per call from all observations, in the type and on the device of ``like``.

        Raises:
            TypeError, ValueError: If the method is not made for the model or the observation.
        """

    @abstractmethod
    def run(self, context: PosteriorContext) -> PosteriorSamples:
        """The samples for one batch of observations. No value of a tensor may be read on the host."""
